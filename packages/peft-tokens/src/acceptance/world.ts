import { AdamW } from "@neolog/autograd";
import type { CausalLM } from "@neolog/models";
import { Scope, defaultBackend } from "@neolog/tensor";
import { type TestedBackend, computingBackends } from "@neolog/tensor/testing";
import { compareBufferSources } from "typed-array-utils";
import {
  PeftModel,
  TrainableTokensConfig,
  type TrainableTokensLayer,
  getPeftModel,
  tokenParameters,
} from "../index.ts";
import { BATCH, type BaseName, EVERY_BASE, setRows } from "../testing.ts";

/** What the acceptance list of our specification is tested on: every architecture, tied and untied, on every backend. */
export async function everyWorld(): Promise<(TestedBackend & { readonly name: BaseName })[]> {
  const backends = await computingBackends();
  return backends.flatMap((on) => EVERY_BASE.map((name) => ({ name, ...on })));
}

export const IDS = [7, 1, 4];
export const VOCAB = 23;
export const HIDDEN = 12;
export const ALL_IDS = [...Array(VOCAB).keys()];

export const config = (token_indices: number[] = IDS) => new TrainableTokensConfig({ token_indices });
export const embeddingOf = (peft: PeftModel): TrainableTokensLayer =>
  peft.layers().get(peft.getBaseModel().embeddingPath)!;
export const rowsOf = (peft: PeftModel, name = "default") => embeddingOf(peft).trainable_tokens_delta[name]!.dataSync();
export const tableOf = (base: CausalLM) =>
  (base.moduleAt(base.embeddingPath) as unknown as { weight: { dataSync(): Float32Array } }).weight.dataSync();

export function withRows(base: CausalLM, ids = IDS): PeftModel {
  const peft = getPeftModel(base, config(ids));
  setRows(peft, "default");
  return peft;
}
/** Three adapters with different ids; "default" is active. */
export function withThree(base: CausalLM, onWarning = (): void => {}): PeftModel {
  const peft = getPeftModel(base, config(), { onWarning });
  peft.addAdapter("second", config([2, 9]));
  peft.addAdapter("third", config([5]));
  setRows(peft, "default");
  setRows(peft, "second", (slot, column) => slot - column / 4);
  setRows(peft, "third", (_, column) => column / 5 - 1);
  return peft;
}
export function train(peft: PeftModel, steps: number, lr = 0.05): number[] {
  const optimizer = new AdamW(tokenParameters(peft), { lr });
  const losses = [];
  for (let step = 0; step < steps; step++) {
    using _step = new Scope();
    const { loss } = peft.forward(BATCH);
    losses.push((loss!.dataSync() as Float32Array)[0]!);
    peft.backward(loss!);
    optimizer.step();
  }
  optimizer.dispose();
  return losses;
}
export async function saved(peft: PeftModel, options = {}): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files, options);
  return files;
}
export const embed = (peft: PeftModel, ids: number[]): Float32Array => {
  using _scope = new Scope();
  return embeddingOf(peft).forward(Int32Array.from(ids)).dataSync() as Float32Array;
};

/** Throws unless the values are the same: bit by bit where the backend keeps the kernel contract, within 1e-5 elsewhere. */
export function expectSame(actual: ArrayLike<number>, expected: ArrayLike<number>, what = "values"): void {
  const [x, y] = [Float32Array.from(actual), Float32Array.from(expected)];
  const same = defaultBackend().exact
    ? compareBufferSources(x, y)
    : x.length === y.length && x.every((value, i) => Math.abs(value - y[i]!) <= 1e-5 * Math.max(1, Math.abs(y[i]!)));
  if (same) return;
  const at = x.findIndex((value, i) => !Object.is(value, y[i]));
  throw new Error(`${what} must be the same, got ${x.length} and ${y.length}, from ${at} on ${x[at]} and ${y[at]}`);
}
