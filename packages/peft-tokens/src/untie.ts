import { Linear, replaceModule } from "@neolog/nn";
import { Tensor, assign, persist, untracked, zeros } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { TrainableTokensLayer } from "./layer.ts";
import { tieOf, tieThrough, tiesOf } from "./ties.ts";
import { addTokenLayer } from "./tokens.ts";
import { layerAt, plainAt, weightAt } from "./wrap.ts";

/** Where an adapter's rows hold for some users of a shared table and not for others. */
interface SharedTable {
  readonly module: string;
  /** What else reads the table. */
  readonly others: readonly string[];
  /** The head that could have its own copy, or null where that would not help. */
  readonly head: string | null;
}

/** The first module of an adapter whose effect cannot be written into its weight without changing another's, or null. */
export function sharedTable({ root, layers }: Adapters, name: string): SharedTable | null {
  for (const [path, layer] of layers()) {
    if (!layer.has(name)) continue;
    const through = tieThrough(root, path);
    if (through) return { module: path, others: [through.embedding], head: through.head === path ? path : null };
    const tie = tieOf(root, path);
    if (!tie || tie.tied.length === 0 || layer.holdsOnTies(name)) continue;
    return { module: path, others: tie.tied, head: tie.head !== null && tie.tied.includes(tie.head) ? tie.head : null };
  }
  return null;
}

/** Gives every tied head its own copy of the table; adapters of the embedding have the same rows on both from now on. */
export function untie(adapters: Adapters): void {
  const { root } = adapters;
  for (const { embedding, tied, head, owner } of tiesOf(root)) {
    if (head === null || !tied.includes(head)) continue;
    giveOwnTable(adapters, head, embedding);
    const source = layerAt(root, embedding);
    if (source instanceof TrainableTokensLayer) shareRows(adapters, source, head);
    owner.config = { ...(owner.config as object), tie_word_embeddings: false };
    adapters.warn("UNTIED", `mergeAdapter: ${head} has its own table now; the model is larger by one table`);
  }
}

function giveOwnTable({ root }: Adapters, head: string, embedding: string): void {
  const table = weightAt(root, embedding);
  const weight = untracked(() => persist(zeros(table.shape, table.dtype, table.backend)));
  assign(weight, table);
  const { bias } = plainAt(root, head) as { bias?: unknown };
  const own = new Linear(weight, bias instanceof Tensor ? bias : null);
  const layer = layerAt(root, head);
  if (layer) replaceModule(layer, layer.baseKey.split(".").at(-2)!, () => own);
  else replaceModule(root, head, () => own);
}

function shareRows(adapters: Adapters, source: TrainableTokensLayer, head: string): void {
  for (const name of source.adapters) {
    const sides = source.sidesOf(name);
    if (sides === "input") continue;
    addTokenLayer(adapters, head, source.nested).share(name, source);
    if (sides === "output") source.release(name);
    const rows = [...adapters.tokenLayers()].filter(([, layer]) => layer.has(name));
    const entry = adapters.known(name);
    entry.config = entry.config.withRows(new Map(rows.map(([path, layer]) => [path, [...layer.indicesOf(name)]])));
  }
}
