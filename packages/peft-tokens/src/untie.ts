import { Linear, type Module, replaceModule } from "@neolog/nn";
import { Tensor, assign, persist, untracked, zeros } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import { atomically } from "./atomically.ts";
import { TrainableTokensLayer } from "./layer.ts";
import { tieOf, tieThrough, tiesOf } from "./ties.ts";
import { addTokenLayer } from "./tokens.ts";
import { layerAt, plainAt, unwrapAt, weightAt } from "./wrap.ts";

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

/**
 * Gives every tied head its own copy of the table; adapters of the embedding have the same rows on both from now on. Returns what
 * ties them again.
 */
export function untie(adapters: Adapters): () => void {
  const { root } = adapters;
  const steps: (() => void)[] = [];
  atomically((undo) => {
    for (const { embedding, tied, head, owner } of tiesOf(root)) {
      if (head === null || !tied.includes(head)) continue;
      const step = (back: () => void): void => {
        steps.push(back);
        undo(back);
      };
      giveOwnTable(adapters, head, embedding, step);
      const source = layerAt(root, embedding);
      if (source instanceof TrainableTokensLayer) shareRows(adapters, source, head, step);
      const { config } = owner;
      step(() => (owner.config = config));
      owner.config = { ...(config as object), tie_word_embeddings: false };
      adapters.warn("UNTIED", `mergeAdapter: ${head} has its own table now; the model is larger by one table`);
    }
  });
  return () => steps.toReversed().forEach((back) => back());
}

type Step = (back: () => void) => void;

function giveOwnTable({ root }: Adapters, head: string, embedding: string, step: Step): void {
  const copyOf = (t: Tensor): Tensor => {
    const copy = untracked(() => persist(zeros(t.shape, t.dtype, t.backend)));
    step(() => copy.dispose());
    assign(copy, t);
    return copy;
  };
  const plain = plainAt(root, head)!;
  const { bias } = plain as { bias?: unknown };
  const own = new Linear(copyOf(weightAt(root, embedding)), bias instanceof Tensor ? copyOf(bias) : null);
  const put = (module: Module): void => {
    const layer = layerAt(root, head);
    if (layer) replaceModule(layer, layer.baseKey.split(".").at(-2)!, () => module);
    else replaceModule(root, head, () => module);
  };
  step(() => put(plain));
  put(own);
}

function shareRows(adapters: Adapters, source: TrainableTokensLayer, head: string, step: Step): void {
  for (const name of source.adapters) {
    const sides = source.sidesOf(name);
    if (sides === "input") continue;
    step(() => {
      const layer = layerAt(adapters.root, head);
      if (layer instanceof TrainableTokensLayer) layer.release(name);
      if (layer?.adapters.length === 0) unwrapAt(adapters.root, head);
    });
    addTokenLayer(adapters, head, source.nested).share(name, source);
    if (sides === "output") {
      step(() => source.share(name, layerAt(adapters.root, head) as TrainableTokensLayer, sides));
      source.release(name);
    }
    const entry = adapters.known(name);
    const { config } = entry;
    step(() => (entry.config = config));
    const rows = [...adapters.tokenLayers()].filter(([, layer]) => layer.has(name));
    entry.config = config.withRows(new Map(rows.map(([path, layer]) => [path, [...layer.indicesOf(name)]])));
  }
}
