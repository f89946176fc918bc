/**
 * `node [--expose-gc] manySteps.js SHAPE STEPS THREADS [reuse]`: trains token rows on texts of many lengths and prints what memory
 * each hundredth step leaves, as JSON. With --expose-gc garbage is collected first, so that what is left is in use.
 */
import { AdamW, clipGradNorm } from "@neolog/autograd";
import { AutoModelForCausalLM, BatchSampler, DataLoader, SequenceDataset, padSequences } from "@neolog/models";
import { ReusedLoss, TrainableTokensConfig, getPeftModel, tokenParameters } from "@neolog/peft-tokens";
import { Random, Scope, openBackend, setDefaultBackend } from "@neolog/tensor";
import { MANY_STEPS, type ManyStepsName, type Memory, SAMPLED_STEPS, TEXTS } from "./steps.ts";

const [shape, steps, threads, reuse] = process.argv.slice(2) as [ManyStepsName, string, string, string?];
const { config, batchSize, longest } = MANY_STEPS[shape];
const backend = await openBackend("wasm", { threads: Number(threads), v8Flags: true });
setDefaultBackend(backend);

const TOKEN_INDICES = [7, 11, 1999];

const random = new Random(1);
const texts = Array.from({ length: TEXTS }, () => {
  const length = 5 + random.below(longest - 4);
  const begin = random.below(length); // where trained tokens may stand from
  const idAt = (t: number): number =>
    t >= begin && t % 5 === 1 ? TOKEN_INDICES[random.below(3)]! : random.below(config.vocab_size);
  return { input_ids: Array.from({ length }, (_, t) => idAt(t)) };
});
const dataset = await SequenceDataset.from(texts);
const { lengths } = dataset;
const batchSampler = new BatchSampler(TEXTS, { batchSize, shuffle: true, lengths });
const batches = new DataLoader(dataset, { batchSampler, collate: padSequences }).steps();

const model = AutoModelForCausalLM.fromConfig(config, { seed: 1 });
const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: TOKEN_INDICES }));
const parameters = tokenParameters(peft);
const optimizer = new AdamW(parameters, { lr: 1e-3 });
const reused = reuse ? new ReusedLoss(peft) : null;
const reserved = (): number =>
  (backend as typeof backend & { memory(): { readonly reserved: number } }).memory().reserved;

const samples: Memory[] = [];
const begin = performance.now();
let last = NaN;
for (let step = 1; step <= Number(steps); step++) {
  const { value: batch } = await batches.next();
  {
    using _step = new Scope();
    const loss = reused?.loss(batch!) ?? peft.loss(batch!);
    peft.backward(loss);
    clipGradNorm(parameters, 1);
    optimizer.step();
    optimizer.zeroGrad();
    last = await loss.item();
  }
  if (step % SAMPLED_STEPS !== 0) continue;
  globalThis.gc?.();
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
  samples.push({
    step,
    live: backend.live,
    bytes: backend.bytes.live,
    reserved: reserved(),
    heapUsed,
    arrayBuffers,
    rss,
  });
}
const milliseconds = (performance.now() - begin) / Number(steps);
if (!Number.isFinite(last)) throw new Error(`manySteps: the loss must stay a number, got ${last}`);
if (reused && !(reused.report.on && reused.report.hits > 0))
  throw new Error(`manySteps: the loss must be reused, got ${JSON.stringify(reused.report)}`);
console.log(JSON.stringify({ runtime: `Node ${process.versions.node}`, milliseconds, samples }));
process.exit(0);
