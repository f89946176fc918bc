import { AdamW, backward } from "@neolog/autograd";
import { Scope, type Tensor } from "@neolog/tensor";
import fc from "fast-check";
import { expect } from "vitest";
import { PeftModel, loraParameters, tokenParameters } from "../index.ts";
import { caught } from "../testing.ts";
import { HIDDEN, LINEARS, type LinearName, type OverlapPolicy, SIDES, type Side, type Where } from "./dense.ts";
import { INPUT, type Real, configFor } from "./real.ts";
import { near, same } from "./same.ts";

/** A command with its arguments; `run` applies it to the model under test and to the oracle, or expects it to fail. */
export class Command {
  readonly title: string;
  readonly run: (real: Real) => Promise<void> | void;

  constructor(title: string, run: (real: Real) => Promise<void> | void) {
    this.title = title;
    this.run = run;
  }
  toString(): string {
    return this.title;
  }
}

/** Runs what must fail, and P-8: that nothing changed. */
export async function refuses(real: Real, code: string, run: () => unknown): Promise<void> {
  const before = real.snapshot();
  const error = await caught(run);
  expect(error.code, `${error.message}: code`).toBe(code);
  same(real.snapshot(), before, "P-8");
}

const NAMES = ["default", "b", "c", "d"];
export const IDS = [[1, 2], [2, 5], [7], [0, 8, 3], [4, 7]];
const BAD_IDS: readonly (readonly [readonly number[], string])[] = [
  [[], "INDICES_EMPTY"],
  [[9], "INDEX_RANGE"],
  [[-1], "INDEX_RANGE"],
  [[3, 3], "INDEX_DUPLICATE"],
  [[0.5], "INDEX_TYPE"],
];
export const TARGETS: readonly Where[] = ["embedding", "embedding", "embedding", "both", "head", "second", "all"];

export const name = fc.constantFrom(...NAMES);
export const names = fc.uniqueArray(name, { maxLength: 3 });
/** Three of four lists of names are cut down to what is possible, so that sequences get somewhere. */
export const fits = fc.integer({ min: 0, max: 3 }).map((n) => n > 0);

const add = fc
  .record({ name, ids: fc.constantFrom(...IDS), where: fc.constantFrom(...TARGETS), init: fc.boolean() })
  .map(
    ({ name, ids, where, init }): Command =>
      new Command(`add ${name} [${ids.join(", ")}] ${where} ${init ? "fresh" : "random"}`, (real) => {
        const { peft, dense } = real;
        const go = () => peft.addAdapter(name, configFor(ids, where, init), { seed: 5 });
        if (dense.adapters.has(name)) return refuses(real, "EXISTS", go);
        go();
        dense.adapters.set(name, { ids, rows: real.rowsOf(name), lora: {}, requiresGrad: false });
        const { rows } = dense.get(name);
        same(Object.keys(rows), [...dense.sidesOf(where)], "sides");
        if (init) for (const side of dense.sidesOf(where)) same(rows[side], dense.originals(side, ids), "P-13");
      }),
  );

const addBadly = fc
  .constantFrom(...BAD_IDS)
  .map(
    ([ids, code]) =>
      new Command(`add [${ids.join(", ")}]`, (real) =>
        refuses(real, code, () => real.peft.addAdapter("bad", configFor(ids, "embedding", true))),
      ),
  );

const unknown = fc
  .constantFrom<[string, (peft: PeftModel) => unknown, string]>(
    ["set an unknown one", (peft) => peft.setAdapter(["default", "ghost"]), "UNKNOWN"],
    ["merge an unknown one", (peft) => peft.mergeAdapter({ adapterNames: ["ghost"] }), "UNKNOWN"],
    ["merge text", (peft) => peft.mergeAdapter({ adapterNames: "b" as never }), "ARGUMENT"],
    ["unload with an unknown one", (peft) => peft.mergeAndUnload({ adapterNames: ["ghost"] }), "UNKNOWN"],
    ["delete an unknown one", (peft) => peft.deleteAdapter("ghost"), "UNKNOWN"],
    ["flag an unknown one", (peft) => peft.setRequiresGrad(["ghost"]), "UNKNOWN"],
    ["save an unknown one", (peft) => peft.savePretrained(new Map(), { selectedAdapters: ["ghost"] }), "UNKNOWN"],
    ["load from nothing", (peft) => peft.loadAdapter(new Map(), "new"), "NOT_FOUND"],
    ["name one a.b", (peft) => peft.addAdapter("a.b", configFor([1], "embedding", true)), "NAME"],
    ["wrap again", (peft) => new PeftModel(peft.getBaseModel()), "ALREADY_WRAPPED"],
  )
  .map(
    ([title, go, code]) =>
      new Command(title, (real) => {
        if (code !== "ALREADY_WRAPPED" || real.peft.layers().size > 0) return refuses(real, code, () => go(real.peft));
      }),
  );

const overlap = fc.constantFrom<OverlapPolicy>("error", "error", "first", "last");

const set = fc.record({ names, fits, overlap, inferenceMode: fc.boolean() }).map(
  ({ names, fits, overlap, inferenceMode }): Command =>
    new Command(
      `set [${names.join(", ")}]${fits ? " where possible" : ""}${overlap === "error" ? "" : `, ${overlap} owns`}${inferenceMode ? " for inference" : ""}`,
      (real) => {
        const { peft, dense } = real;
        const sharing = overlap === "error" ? [] : names;
        const list = fits ? dense.possible(names, [], sharing) : names;
        const go = () => peft.setAdapter(list, { inferenceMode, overlap });
        if (!dense.knows(list)) return refuses(real, "UNKNOWN", go);
        if (dense.overlaps(list, sharing)) return refuses(real, "OVERLAP", go);
        go();
        dense.activate(list, !inferenceMode, overlap);
      },
    ),
);

const flag = fc.record({ names, flag: fc.boolean() }).map(
  ({ names, flag }) =>
    new Command(`flag [${names.join(", ")}] ${flag}`, (real) => {
      const { peft, dense } = real;
      const go = () => peft.setRequiresGrad(names, flag);
      if (!dense.knows(names)) return refuses(real, "UNKNOWN", go);
      go();
      for (const name of names) dense.get(name).requiresGrad = flag;
    }),
);

const switches = fc.constantFrom(true, false).map(
  (enabled): Command =>
    new Command(enabled ? "enable" : "disable", ({ peft, dense }) => {
      if (enabled) peft.enableAdapterLayers();
      else peft.disableAdapterLayers();
      dense.enabled = enabled;
    }),
);

const remove = name.map(
  (name): Command =>
    new Command(`delete ${name}`, (real) => {
      const { peft, dense } = real;
      const go = () => peft.deleteAdapter(name);
      if (!dense.adapters.has(name)) return refuses(real, "UNKNOWN", go);
      if (dense.merged.includes(name)) return refuses(real, "MERGED", go);
      go();
      dense.delete(name);
      if (dense.adapters.size === 0) same(real.logits(real.base), real.expectedLogits([]), "P-20");
    }),
);

/** P-11, P-12: gradients exactly for what is trainable, in effect and unmerged; they are the dense table's, and a step changes only that. */
const step = fc.constant(
  new Command("step", async (real) => {
    const { peft, dense } = real;
    using _scope = new Scope();
    const { loss } = peft.forward(INPUT);
    const { training } = dense;
    expect(loss!.tracked, "P-11").toBe(training.length > 0);
    if (training.length === 0) {
      await refuses(real, "NOTHING_TO_TRAIN", () => peft.backward(loss!));
      return;
    }
    peft.backward(loss!);
    const expected = denseGradients(real);
    for (const [name, { ids }] of dense.adapters) {
      const deltas = real.deltasOf(name);
      for (const side of SIDES) {
        const delta = deltas[side];
        if (!delta) continue;
        const sides = SIDES.filter((other) => deltas[other] === delta);
        const owns = sides.some((s) => ids.some((id) => dense.ownerOf(id, s) === name));
        expect(delta.grad !== null, `P-11: gradient of ${name}`).toBe(training.includes(name) && owns);
        if (!delta.grad) continue;
        Array.from(delta.grad.dataSync()).forEach((g, i) => {
          const id = ids[Math.floor(i / HIDDEN)]!;
          const owned = sides.filter((s) => dense.ownerOf(id, s) === name);
          const whole = owned.reduce((sum, s) => sum + expected[s][id * HIDDEN + (i % HIDDEN)]!, 0);
          const off = Math.abs(g - whole);
          const size = dense.isNear(dense.effective) ? largest(expected[side]) : Math.abs(whole);
          if (!(off < 1e-5 * Math.max(1, size))) expect(g, `gradient ${i} of ${name}`).toBe(whole);
        });
      }
    }
    checkLoraGradients(real, expected);
    same(real.base.parameters().filter((p) => p.grad && !p.requiresGrad).length, 0, "P-11: gradients of the base");
    const parameters = [...tokenParameters(peft), ...loraParameters(peft)];
    const optimizer = new AdamW(parameters, { lr: 0.1 });
    optimizer.step();
    optimizer.dispose();
    for (const p of parameters) p.grad = null;
    for (const name of training) Object.assign(dense.get(name), real.valuesOf(name));
  }),
);

/** P-11: with W = W₀ + s·B·A the gradients are s·Bᵀ·dW and s·dW·Aᵀ. */
function checkLoraGradients(real: Real, expected: Gradients): void {
  const { dense } = real;
  for (const name of dense.adapters.keys()) {
    const isTraining = dense.training.includes(name);
    for (const [module, matrices] of Object.entries(real.matricesOf(name)) as [LinearName, [Tensor, Tensor]][]) {
      for (const t of matrices) expect(t.grad !== null, `P-11: gradient of ${name}`).toBe(isTraining);
      if (!isTraining) continue;
      const { A, B, r, scale } = dense.get(name).lora[module]!;
      const [out, into] = LINEARS[module];
      const dW = expected[module];
      const [dA, dB] = [new Float32Array(A.length), new Float32Array(B.length)];
      for (let i = 0; i < out; i++)
        for (let j = 0; j < into; j++)
          for (let k = 0; k < r; k++) {
            dA[k * into + j]! += scale * B[i * r + k]! * dW[i * into + j]!;
            dB[i * r + k]! += scale * A[k * into + j]! * dW[i * into + j]!;
          }
      near(matrices[0].grad!.dataSync() as Float32Array, dA, `gradient of A of ${name}`, 1e-4);
      near(matrices[1].grad!.dataSync() as Float32Array, dB, `gradient of B of ${name}`, 1e-4);
    }
  }
}

const largest = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((most, x) => Math.max(most, Math.abs(x)), 0);

type Gradients = Record<Side | LinearName, ArrayLike<number>>;

/** Gradients of the whole tables and weights of the plain twin. */
function denseGradients(real: Real): Gradients {
  const twin = real.twinWith(real.dense.effective);
  const tables = twin.parameters();
  for (const t of tables) t.requiresGrad = true;
  backward(twin.forward(INPUT).loss!);
  const [input, second, output, up_proj, down_proj] = tables.map((t) => t.grad!.dataSync());
  for (const t of tables) {
    t.requiresGrad = false;
    t.grad = null;
  }
  return { input: input!, second: second!, output: output!, up_proj: up_proj ?? [], down_proj: down_proj ?? [] };
}

/** `add` and `addBadly` are of the kind of adapter. */
export const lifecycleOf = (add: fc.Arbitrary<Command>, addBadly: fc.Arbitrary<Command>): fc.Arbitrary<Command> =>
  fc.oneof(
    { weight: 8, arbitrary: add },
    { weight: 1, arbitrary: addBadly },
    { weight: 2, arbitrary: unknown },
    { weight: 8, arbitrary: set },
    { weight: 2, arbitrary: flag },
    { weight: 2, arbitrary: switches },
    { weight: 3, arbitrary: remove },
    { weight: 4, arbitrary: step },
  );
export const lifecycle = lifecycleOf(add, addBadly);
