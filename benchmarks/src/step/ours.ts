/**
 * Neolog's training of token rows as a contender: `node ours.js wasm THREADS [flags] [reuse|first|plain]`. With `reuse` what no row
 * can change is kept from step to step, with `first` it is forgotten before each epoch, with `plain` all is computed in each step.
 */
import { AdamW, backward, noGrad } from "@neolog/autograd";
import { AutoModelForCausalLM } from "@neolog/models";
import { ReusedLoss, TrainableTokensConfig, getPeftModel, tokenParameters } from "@neolog/peft-tokens";
import { Scope, type Tensor, openBackend, setDefaultBackend } from "@neolog/tensor";
import { type Prepared, serve } from "../serve.ts";
import { randomBfloat16Model } from "./randomBfloat16.ts";
import { SHAPES } from "./shapes.ts";

const [name = "wasm", threads = "1", flags, mode = "plain"] = process.argv.slice(2);
const options = name === "wasm" ? { threads: Number(threads), v8Flags: flags === "flags" } : {};
const backend = await openBackend(name, options);
setDefaultBackend(backend);

type Ids = readonly (readonly number[])[];

const spec = {
  name: `neolog ${name}`,
  runtime: `Node ${process.versions.node}`,
  vectorBits: String(backend.info["v8Flags"]).includes("revectorize") ? 256 : 128,
  info: backend.info,
} as const;
await serve(spec, async ({ training, dir }): Promise<Prepared | null> => {
  if (!training) return null;
  const { batches, token_indices, forward = false, rowsAfter } = training;
  const model = dir
    ? await AutoModelForCausalLM.fromPretrained(dir)
    : randomBfloat16Model(training.config ?? SHAPES[training.model].config);
  const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: [...token_indices] }));
  const [rows] = tokenParameters(peft);
  const optimizer = new AdamW([rows!], { lr: 1e-3 });
  const reused = new ReusedLoss(peft);
  const lossOf = (input_ids: Ids): Tensor => {
    const batch = { input_ids, labels: input_ids };
    return mode === "plain" ? peft.loss(batch) : reused.loss(batch);
  };
  const step = (input_ids: Ids): void => {
    using _step = new Scope();
    backward(lossOf(input_ids));
    optimizer.step();
    optimizer.zeroGrad();
  };
  const losses = async (): Promise<number[]> => {
    const found: number[] = [];
    for (const ids of batches) {
      using _forward = new Scope();
      found.push(await noGrad(() => lossOf(ids)).item());
    }
    return found;
  };
  const trainedRows = async (steps: number): Promise<number[]> => {
    for (let i = 0; i < steps; i++) step(batches[i % batches.length]!);
    return [...(await rows!.data())];
  };
  return {
    run: forward ? losses : (): void => batches.forEach(step),
    ...(mode === "first" ? { pause: () => reused.dispose() } : {}),
    calls: batches.length,
    check: () => (rowsAfter === undefined ? losses() : trainedRows(rowsAfter)),
    release: () => {
      reused.dispose();
      for (const t of model.parameters()) t.dispose();
      optimizer.dispose();
    },
  };
});
