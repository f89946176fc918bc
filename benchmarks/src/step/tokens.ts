import { AdamW, backward } from "@neolog/autograd";
import { AutoModelForCausalLM } from "@neolog/models";
import { TrainableTokensConfig, getPeftModel } from "@neolog/peft-tokens";
import { Random, Scope, type Tensor } from "@neolog/tensor";
import { figure, interleave, report } from "../measure.ts";

const CONFIG = {
  model_type: "llama",
  vocab_size: 4096,
  hidden_size: 128,
  intermediate_size: 352,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  tie_word_embeddings: true,
};
const BATCH = 4;
const LENGTH = 64;
const TRAINED = 4;

/** Milliseconds of one training step, token rows only against the whole model, on the same weights and batches. */
export function benchStep(): void {
  const random = new Random(1);
  const input_ids = Array.from({ length: BATCH }, () =>
    Array.from({ length: LENGTH }, () => random.below(CONFIG.vocab_size)),
  );
  const whole = AutoModelForCausalLM.fromConfig(CONFIG, { seed: 1 });
  for (const parameter of whole.parameters()) parameter.requiresGrad = true;
  const rows = getPeftModel(
    AutoModelForCausalLM.fromConfig(CONFIG, { seed: 1 }),
    new TrainableTokensConfig({ token_indices: Array.from({ length: TRAINED }, (_, i) => input_ids[0]![i * 7]!) }),
  );
  const step = (
    model: { forward(inputs: { input_ids: number[][]; labels: number[][] }): { loss: Tensor | null } },
    trained: Tensor[],
  ) => {
    const optimizer = new AdamW(trained, { lr: 1e-3 });
    return () => {
      using _step = new Scope();
      backward(model.forward({ input_ids, labels: input_ids }).loss!);
      optimizer.step();
    };
  };
  const samples = interleave({
    "token rows": step(
      rows,
      rows.parameters().filter((t) => t.requiresGrad),
    ),
    "whole model": step(whole, whole.parameters()),
  });
  for (const [what, times] of Object.entries(samples)) {
    report(figure(`step ${what}, llama 1.3M, B ${BATCH} T ${LENGTH} k ${TRAINED}`, "ms", times));
  }
  const ratio = samples["whole model"]!.map((ms, i) => ms / samples["token rows"]![i]!);
  report(figure("step whole model / token rows", "x", ratio));
}
