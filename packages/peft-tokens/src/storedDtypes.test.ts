import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { AdamW, backward } from "@neolog/autograd";
import { AutoModelForCausalLM, type ModelInputs } from "@neolog/models";
import { type Backend, type DType, Scope, openBackend, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { TrainableTokensConfig, getPeftModel, tokenParameters } from "./index.ts";

const folder = fileURLToPath(new URL("../../../../shared/golden/models/llama", import.meta.url));
const complete = existsSync(folder);
if (!complete) console.log("skipped: ../shared/golden/models/llama is absent");
const token_indices = [12, 71, 45];

interface Trained {
  readonly losses: number[];
  readonly gradient: number[];
  readonly rows: number[];
  readonly dtypes: DType[];
}

/** Three steps of AdamW on token rows of the weights in `base`. */
async function train(base: string, inputs: ModelInputs, backend: Backend, dtype?: DType): Promise<Trained> {
  setDefaultBackend(backend);
  const model = await AutoModelForCausalLM.fromPretrained(`${folder}/${base}`, { dtype });
  const weights = new Set(model.parameters().map((t) => t.dtype));
  const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices }));
  const [rows] = tokenParameters(peft);
  // with a small eps, a gradient of 1e-8 moves a row by lr in the direction of its rounding error
  const optimizer = new AdamW([rows!], { lr: 0.01, eps: 1e-3 });
  const losses: number[] = [];
  let gradient: number[] = [];
  for (let step = 0; step < 3; step++) {
    using _step = new Scope();
    const { loss } = peft.forward(inputs);
    backward(loss!);
    losses.push(await loss!.item());
    if (step === 0) gradient = [...rows!.grad!.dataSync()];
    optimizer.step();
    optimizer.zeroGrad();
  }
  return { losses, gradient, rows: [...rows!.dataSync()], dtypes: [...weights, rows!.dtype] };
}

const backends = complete ? await computingBackends() : [];
const reference = await openBackend("reference");

describe.skipIf(!complete).each([
  ["base_bf16", "bfloat16"],
  ["base_f16", "float16"],
])("token rows of %s", (base, dtype) => {
  let inputs: ModelInputs;
  let exact: Trained;
  let rounded: Trained;
  beforeAll(async () => {
    inputs = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8")).other_checkpoints[base].case;
    exact = await train(base, inputs, reference, "float64");
    rounded = await train(base, inputs, reference);
  }, 60_000);

  test.each(backends)("train in float32 over weights that stay, on $title", async ({ backend }) => {
    const stored = await train(base, inputs, backend);
    expect(stored.dtypes).toEqual([dtype, "float32"]);
    const largest = Math.max(...exact.gradient.map(Math.abs));
    expect(distance(stored.gradient, exact.gradient)).toBeLessThanOrEqual(2e-5 * largest + 1e-6);
    // from the second step on, the forward pass sees the rows rounded to the table's dtype, as PEFT's does
    expect(rounded.dtypes).toEqual(stored.dtypes);
    expect(distance(stored.losses, rounded.losses)).toBeLessThanOrEqual(1e-5);
    expect(distance(stored.rows, rounded.rows)).toBeLessThanOrEqual(2e-5);
    expect(stored.rows).not.toEqual(await untrained(base, backend));
  });
});

async function untrained(base: string, backend: Backend): Promise<number[]> {
  setDefaultBackend(backend);
  const model = await AutoModelForCausalLM.fromPretrained(`${folder}/${base}`);
  const [rows] = tokenParameters(getPeftModel(model, new TrainableTokensConfig({ token_indices })));
  return [...rows!.dataSync()];
}

const distance = (a: readonly number[], b: readonly number[]): number =>
  a.length === b.length ? Math.max(...a.map((x, i) => Math.abs(x - b[i]!))) : Infinity;
