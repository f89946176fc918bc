/** 5,000 training steps of a tiny model: buffers, reserved and resident memory must not grow. `node manySteps.js [STEPS] [THREADS]` */
import { AdamW, backward, clipGradNorm } from "@neolog/autograd";
import { AutoModelForCausalLM } from "@neolog/models";
import { TrainableTokensConfig, getPeftModel } from "@neolog/peft-tokens";
import { Scope, openBackend, setDefaultBackend } from "@neolog/tensor";

const [steps = 5000, threads = 2] = process.argv.slice(2).map(Number);
const backend = await openBackend("wasm", { threads });
setDefaultBackend(backend);

const config = {
  model_type: "llama",
  vocab_size: 2000,
  hidden_size: 128,
  intermediate_size: 256,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  tie_word_embeddings: true,
};
const model = AutoModelForCausalLM.fromConfig(config, { seed: 1 });
const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: [7, 1999] }));
const parameters = peft.parameters().filter((t) => t.requiresGrad);
const optimizer = new AdamW(parameters, { lr: 1e-3 });

/** Sequences of 5 to 32 tokens: sizes change from step to step, as in real data. */
const batchOf = (step: number): number[][] => [
  Array.from({ length: 5 + (step % 28) }, (_, i) => (i % 5 === 1 ? 7 : (step * 31 + i * 17) % 1999)),
];

interface Sample {
  readonly step: number;
  readonly live: number;
  readonly liveBytes: number;
  readonly reserved: number;
  readonly resident: number;
}
const samples: Sample[] = [];
const begin = performance.now();
for (let step = 1; step <= steps; step++) {
  {
    using _step = new Scope();
    const input_ids = batchOf(step);
    backward(peft.forward({ input_ids, labels: input_ids }).loss!);
    clipGradNorm(parameters, 1);
    optimizer.step();
    optimizer.zeroGrad();
  }
  if (step % (steps / 10) !== 0) continue;
  globalThis.gc?.();
  const { reserved } = (backend as typeof backend & { memory(): { readonly reserved: number } }).memory();
  const sample = {
    step,
    live: backend.live,
    liveBytes: backend.bytes.live,
    reserved,
    resident: process.memoryUsage.rss(),
  };
  samples.push(sample);
  console.log(JSON.stringify(sample));
}
console.log(JSON.stringify({ milliseconds_per_step: (performance.now() - begin) / steps }));

const [early, last] = [samples[1]!, samples.at(-1)!];
const grown = (["live", "liveBytes", "reserved"] as const).filter((what) => last[what] !== early[what]);
// V8's own heap and code are part of what is resident
if (last.resident - early.resident > 32 * 2 ** 20) grown.push("resident" as never);
if (grown.length > 0) {
  console.error(`manySteps: memory must stay as it is after step ${early.step}, got more ${grown.join(", ")}`);
  process.exit(1);
}
