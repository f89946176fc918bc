import { openGpu } from "@neolog/gpu";
import { type CausalLM, architectureOf } from "@neolog/models";
import { TINY } from "@neolog/models/testing";
import { initWeights } from "@neolog/nn";
import { type InitPolicy, TrainableTokensConfig, addTokens, getPeftModel } from "@neolog/peft-tokens";
import {
  type Backend,
  Scope,
  type Tensor,
  intTensor,
  matmul,
  openBackend,
  rand,
  setDefaultBackend,
  takeRows,
  tensor,
} from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import { RowTable, startingRows } from "../../packages/peft-tokens/src/startingRows.ts";
import { whyNoWebGpu } from "../../packages/gpu/src/webgpu/testing.ts";

const why = await whyNoWebGpu();
if (why) console.log(`skipped on webgpu: ${why}`);

const IDS = [7, 1, 4];
const POLICIES: InitPolicy[] = [
  "original",
  "mean",
  "random",
  { kind: "random", std: 0.02 },
  { kind: "copy", from: [2, 2, 9] },
  { kind: "description", tokens: [[2, 3], [9], [5, 5, 6]] },
  { kind: "normal", covariance: "diagonal", scale: 0.1 },
];
const named = (policies: readonly InitPolicy[]) =>
  policies.map((policy) => [typeof policy === "string" ? policy : JSON.stringify(policy), policy] as const);
const noWarning = (): void => expect.fail("no warning was due");

/** The model with the same weights on each backend. */
function modelOn(backend: Backend): CausalLM {
  setDefaultBackend(backend);
  const model = architectureOf(TINY["llama"]!).create(TINY["llama"]! as never, "config.json") as CausalLM;
  initWeights(model, 3, 0.5);
  return model;
}

describe.each(why ? (["webasm"] as const) : (["webasm", "webgpu"] as const))("rows start on %s", (mode) => {
  let gpu: Backend;
  let cpu: Backend;
  beforeAll(async () => {
    [gpu, cpu] = [await openGpu({ mode, allowSoftware: true }), await openBackend("cpu")];
  });
  /** What `f` gives on the device and on the host. */
  const both = async (f: (backend: Backend) => Tensor): Promise<[found: number[], expected: number[]]> => {
    using _scope = new Scope();
    return [Array.from(await f(gpu).data()), Array.from(await f(cpu).data())];
  };
  const close = ([found, expected]: [number[], number[]], tolerance: number): void => {
    expect(found.length).toBe(expected.length);
    found.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(tolerance));
  };

  test.each(named(POLICIES))("%s: as on the host", async (_, init) => {
    const target = new TrainableTokensConfig({ token_indices: IDS, target_modules: ["embed_tokens"] });
    const started = (backend: Backend): Tensor => {
      const peft = getPeftModel(modelOn(backend), target, { init, seed: 5, onWarning: noWarning });
      return [...peft.layers().values()][0]!.tensorsOf("default").get("trainable_tokens_delta")!;
    };
    close(await both(started), 1e-6);
  });

  test.each(named(POLICIES.slice(1)))("%s: of tokens that are added", async (_, init) => {
    const logitsOf = (backend: Backend): Tensor => {
      const model = modelOn(backend);
      const ids = addTokens(model, 3, { init, seed: 5 });
      return model.forward({ input_ids: [ids] }).logits;
    };
    close(await both(logitsOf), 1e-4);
  });

  test("mean, of a table of several panels", async () => {
    const mean = (backend: Backend): Tensor => {
      const weight = rand([2500, 3], 1, "float32", backend);
      return startingRows(new RowTable(weight, (ids) => takeRows(weight, ids)), [4, 2499], "mean", 0, noWarning);
    };
    close(await both(mean), 1e-6);
  });

  test("normal, full: as draws with the moments of the rows outside, the same for a seed", async () => {
    using _scope = new Scope();
    const [count, k, scale] = [2000, 1500, 0.25];
    const weight = matmul(
      rand([count, 3], 1, "float32", gpu),
      tensor([1, 1, 0, 0, 1, 1, 0, 0, 1], [3, 3], "float32", gpu),
    );
    const table = new RowTable(weight, (ids) => takeRows(weight, ids));
    const ids = Array.from({ length: k }, (_, i) => i);
    const draw = async (seed: number) =>
      rowsOf(await startingRows(table, ids, { kind: "normal", covariance: "full", scale }, seed, noWarning).data());
    const drawn = await draw(11);
    const outside = rowsOf(await weight.data()).slice(k);
    // standard errors of 1500 draws: 0.006 of a mean, 0.004 of a covariance
    const [found, expected] = [momentsOf(drawn), momentsOf(outside)];
    close([found.mean, expected.mean], 0.03);
    close([found.covariance, expected.covariance.map((value) => scale * value)], 0.02);
    expect(Math.abs(expected.covariance[1]!)).toBeGreaterThan(0.05);
    expect(await draw(11)).toEqual(drawn);
    expect(await draw(12)).not.toEqual(drawn);
  });

  test("input_ids that are a tensor are what the numbers are", async () => {
    using _scope = new Scope();
    const model = modelOn(gpu);
    const ids = [
      [3, 1, 4],
      [1, 5, 9],
    ];
    const given = model.forward({ input_ids: intTensor(Int32Array.from(ids.flat()), [2, 3], gpu) }).logits;
    expect(await given.data()).toEqual(await model.forward({ input_ids: ids }).logits.data());
  });
});

/** Rows of three. */
const rowsOf = (data: ArrayLike<number>): number[][] =>
  Array.from({ length: data.length / 3 }, (_, i) => [0, 1, 2].map((j) => data[3 * i + j]!));

function momentsOf(rows: readonly number[][]): { readonly mean: number[]; readonly covariance: number[] } {
  const mean = [0, 1, 2].map((j) => rows.reduce((sum, row) => sum + row[j]!, 0) / rows.length);
  const product = (i: number, j: number): number =>
    rows.reduce((sum, row) => sum + (row[i]! - mean[i]!) * (row[j]! - mean[j]!), 0) / rows.length;
  return { mean, covariance: [0, 1, 2].flatMap((i) => [0, 1, 2].map((j) => product(i, j))) };
}
