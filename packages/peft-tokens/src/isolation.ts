import { CausalLM } from "@neolog/models";
import { Scope, untracked } from "@neolog/tensor";
import { ConfigError } from "./errors.ts";
import { TrainableTokensLayer } from "./layer.ts";
import type { AnyPeftModel, PeftModel } from "./model.ts";
import { sidesOf } from "./sides.ts";

/** One promise of the isolation table, and what a run showed. */
export interface IsolationRow {
  /** "base", or the prompt that was run. */
  readonly prompt: "base" | "untouched" | "touched";
  /** What was compared, with adapters and without. */
  readonly what: string;
  readonly promise: "same" | "may change";
  readonly observed: "same" | "changed";
  readonly holds: boolean;
}
export interface IsolationOptions {
  /** Ids of a prompt without trained tokens; made up where absent. */
  readonly untouched?: readonly number[];
}

/** What one prompt gave: states [layer][position] and logits [position], as host numbers. */
interface Run {
  readonly states: Float32Array[][];
  readonly logits: Float32Array[];
}

const LENGTH = 8;

/**
 * Runs a decoder with its adapters and without, on a prompt that holds no trained token and on one that does, and compares what token
 * rows must leave alone: bit for bit where the backend is exact. With LoRA in effect only the base is promised. Throws ConfigError.
 */
export function checkIsolation(peft: AnyPeftModel, { untouched }: IsolationOptions = {}): IsolationRow[] {
  const base = peft.getBaseModel();
  if (!(base instanceof CausalLM))
    throw new ConfigError("UNSUPPORTED", `checkIsolation: the base must be a decoder, got a ${base.constructor.name}`);
  const model = peft as PeftModel<CausalLM>;
  const { input, output } = trainedIds(peft);
  const trained = new Set([...input, ...output]);
  const size = base.config.vocab_size;
  const prompt = untouched ?? madeUp(size, trained);
  const named = prompt.find((id) => trained.has(id));
  if (named !== undefined)
    throw new ConfigError("ARGUMENT", `checkIsolation: the untouched prompt must hold no trained token, got ${named}`, {
      id: named,
    });
  const [first] = trained;
  if (first === undefined) throw new ConfigError("ARGUMENT", "checkIsolation: an adapter must be in effect, got none");
  const p = Math.floor(prompt.length / 2);
  const touched = prompt.with(p, first);

  const tables = digest(base);
  const plain = [prompt, touched].map((ids) => model.withAdapterDisabled(() => run(model, ids))) as [Run, Run];
  const adapted = [prompt, touched].map((ids) => run(model, ids)) as [Run, Run];
  const exact = base.parameters()[0]!.backend.exact;
  const moreThanRows = actsBesideRows(peft);
  const row = (of: IsolationRow["prompt"], what: string, keeps: boolean, isEqual: boolean): IsolationRow => {
    const promise = keeps && (of === "base" || !moreThanRows) ? "same" : "may change";
    const observed = isEqual ? "same" : "changed";
    return { prompt: of, what, promise, observed, holds: isEqual || promise === "may change" };
  };

  const others = Array.from({ length: size }, (_, id) => id).filter((id) => !output.has(id));
  const inputs = input.has(first);
  const states = (i: 0 | 1, from: number, to: number): boolean =>
    plain[i].states.every((layer, l) =>
      layer.slice(from, to).every((x, t) => equal(x, adapted[i].states[l]![from + t]!, exact)),
    );
  const logits = (i: 0 | 1, ids: readonly number[], from: number, to: number): boolean =>
    plain[i].logits
      .slice(from, to)
      .every((x, t) => equal(pick(x, ids), pick(adapted[i].logits[from + t]!, ids), exact));
  const T = prompt.length;
  const own = [...output];
  return [
    row("base", "parameters", true, digest(base) === tables),
    row("untouched", "hidden states", true, states(0, 0, T)),
    row("untouched", "logits of other tokens", true, logits(0, others, 0, T)),
    row(
      "untouched",
      "logits of trained tokens",
      own.length === 0,
      logits(0, own.length > 0 ? own : [...trained], 0, T),
    ),
    row("touched", "hidden states before the token", true, states(1, 0, p)),
    row("touched", "logits of other tokens before it", true, logits(1, others, 0, p)),
    row("touched", "hidden states from it on", !inputs, states(1, p, T)),
    row("touched", "logits of other tokens from it on", !inputs, logits(1, others, p, T)),
  ];
}

/** The ids whose rows are in effect, where tokens are looked up and where they get logits. */
function trainedIds(peft: AnyPeftModel): { readonly input: Set<number>; readonly output: Set<number> } {
  const input = new Set<number>();
  const output = new Set<number>();
  const { root, state } = peft.adapters;
  for (const [path, layer] of peft.layers()) {
    const uses = sidesOf(root, path);
    for (const name of state.effective.filter((adapter) => layer.has(adapter))) {
      const sides = layer.sidesOf(name);
      for (const id of layer.indicesOf(name)) {
        if (uses.includes("input") && sides !== "output") input.add(id);
        if (uses.includes("output") && sides !== "input") output.add(id);
      }
    }
  }
  return { input, output };
}

/** LoRA, or a module trained in full, is in effect. */
function actsBesideRows({ adapters }: AnyPeftModel): boolean {
  const { effective } = adapters.state;
  return [...adapters.layers().values()].some(
    (layer) => !(layer instanceof TrainableTokensLayer) && effective.some((name) => layer.has(name)),
  );
}

/** Ids far apart in the vocabulary, none of them trained. */
function madeUp(size: number, trained: ReadonlySet<number>): number[] {
  const free = Array.from({ length: size }, (_, id) => id).filter((id) => !trained.has(id));
  if (free.length === 0) throw new ConfigError("ARGUMENT", "checkIsolation: some token must be untrained, got none");
  return Array.from({ length: LENGTH }, (_, i) => free[(i * 7919 + 3) % free.length]!);
}

function run(model: PeftModel<CausalLM>, ids: readonly number[]): Run {
  using _scope = new Scope();
  return untracked(() => {
    const { logits, hidden_states } = model.forward({ input_ids: [ids], output_hidden_states: true });
    const rows = (values: Float32Array): Float32Array[] => {
      const each = values.length / ids.length;
      return ids.map((_, t) => values.slice(t * each, (t + 1) * each));
    };
    return {
      states: hidden_states!.map((x) => rows(Float32Array.from(x.dataSync()))),
      logits: rows(Float32Array.from(logits.dataSync())),
    };
  });
}

const pick = (values: Float32Array, ids: readonly number[]): Float32Array =>
  Float32Array.from(ids, (id) => values[id]!);

function equal(a: Float32Array, b: Float32Array, exact: boolean): boolean {
  return a.every((x, i) => Object.is(x, b[i]) || (!exact && Math.abs(x - b[i]!) <= 1e-5 * Math.max(1, Math.abs(x))));
}

/** Changes when a value of the base does. FNV-1a over all bits. */
function digest(base: CausalLM): number {
  let hash = 0x811c9dc5;
  for (const t of base.parameters()) {
    if (t.requiresGrad) continue;
    const values = t.dataSync();
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return hash;
}
