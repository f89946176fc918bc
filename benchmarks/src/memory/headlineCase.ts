/** `node headlineCase.js SHAPE WHAT THREADS`: two steps of a model with random bfloat16 weights; says what memory they took. */
import { AdamW, backward, noGrad } from "@neolog/autograd";
import { stateDict } from "@neolog/nn";
import { LoraConfig, TrainableTokensConfig, getPeftModel } from "@neolog/peft-tokens";
import { Scope, type Tensor, openBackend, setDefaultBackend } from "@neolog/tensor";
import { randomBfloat16Model } from "../step/randomBfloat16.ts";
import { SHAPES, type Shape, type ShapeName } from "../step/shapes.ts";
import { trainingData } from "../step/trainingData.ts";
import type { HeadlineWhat, Taken } from "./headline.ts";

/** The first step makes the optimizer's state, the second runs beside it. */
const STEPS = 2;

const [shapeName, what, threads] = process.argv.slice(2) as [ShapeName, HeadlineWhat, string];
const backend = await openBackend("wasm", { threads: Number(threads), v8Flags: true });
setDefaultBackend(backend);
const shape: Shape = SHAPES[shapeName];
const { batches, token_indices } = trainingData((shape.config as { vocab_size: number }).vocab_size, "a", shape);
const model = randomBfloat16Model(shape.config, { floatTable: what === "full" });
const weights = backend.bytes.live;

/** The loss of a batch, and what trains. */
function trained(): { readonly loss: (ids: readonly (readonly number[])[]) => Tensor; readonly parameters: Tensor[] } {
  const embedding = model.embeddingPath;
  if (what === "full") {
    const table = stateDict(model).get(`${embedding}.weight`)!;
    table.requiresGrad = true;
    return { loss: (ids) => model.loss({ input_ids: ids, labels: ids }), parameters: [table] };
  }
  if (what === "forward")
    return { loss: (ids) => noGrad(() => model.loss({ input_ids: ids, labels: ids })), parameters: [] };
  const name = embedding.split(".").at(-1)!;
  const config =
    what === "rows"
      ? new TrainableTokensConfig({ token_indices: [...token_indices] })
      : new LoraConfig({ target_modules: [name], r: 8, lora_alpha: 16 });
  const peft = getPeftModel(model, config);
  return {
    loss: (ids) => peft.loss({ input_ids: ids, labels: ids }),
    parameters: peft.parameters().filter((t) => t.requiresGrad),
  };
}

const { loss, parameters } = trained();
const optimizer = parameters.length > 0 ? new AdamW(parameters, { lr: 1e-3 }) : null;
const begin = performance.now();
let kept = 0;
let value = Number.NaN;
for (let i = 0; i < STEPS; i++) {
  using _step = new Scope();
  const before = backend.bytes.live;
  const result = loss(batches[i % batches.length]!);
  kept = backend.bytes.live - before;
  if (optimizer) {
    backward(result);
    optimizer.step();
    optimizer.zeroGrad();
  }
  value = await result.item();
}
const taken: Taken = {
  runtime: `Node ${process.versions.node}`,
  weights,
  kept,
  peak: backend.bytes.peak,
  resident: process.resourceUsage().maxRSS * 1024,
  seconds: (performance.now() - begin) / 1000 / STEPS,
  loss: value,
};
console.log(JSON.stringify(taken));
process.exit(0);
