import { backward } from "@neolog/autograd";
import { AutoModelForCausalLM } from "@neolog/models";
import { TrainableTokensConfig, getPeftModel } from "@neolog/peft-tokens";
import { Scope, defaultBackend } from "@neolog/tensor";
import type { Options } from "../options.ts";
import type { Report } from "../report.ts";
import { benchHeadline } from "./headline.ts";
import { benchResident } from "./resident.ts";
import { benchManySteps } from "./steps.ts";

const CONFIG = {
  model_type: "llama",
  vocab_size: 50_000,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  tie_word_embeddings: true,
};

/** Bytes a training step allocates beside the model, against the embedding table it does not copy; `memory step`: benchResident, `memory steps`: benchManySteps, `memory headline`: benchHeadline. */
export function benchMemory(options: Options, report: Report): void | Promise<void> {
  if (options.filter.includes("steps")) return benchManySteps(options, report);
  if (options.filter.includes("headline")) return benchHeadline(options, report);
  if (options.filter.includes("step")) return benchResident(options, report);
  const backend = defaultBackend();
  const model = AutoModelForCausalLM.fromConfig(CONFIG, { seed: 1 });
  const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: [7, 49_999] }));
  const before = backend.bytes.live;
  let most = before; // not backend.bytes.peak, which drawing the model's weights may have set
  const allocate = backend.allocate.bind(backend);
  backend.allocate = (dtype, length) => {
    const buffer = allocate(dtype, length);
    most = Math.max(most, backend.bytes.live);
    return buffer;
  };
  {
    using _step = new Scope();
    const input_ids = [[1, 7, 3, 49_999]];
    backward(peft.loss({ input_ids, labels: input_ids }));
  }
  backend.allocate = allocate;
  const who = { contender: `neolog ${backend.name}`, threads: 1, runtime: `Node ${process.versions.node}` };
  const { vocab_size, hidden_size } = CONFIG;
  report.addBytes("step beside the model", [1, 4, 2], who, most - before);
  report.addBytes("one embedding table", [vocab_size, hidden_size], who, vocab_size * hidden_size * 4);
}
