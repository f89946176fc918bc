import { adoptStateDict, stateDict } from "@neolog/nn";
import { ARCHITECTURES, CausalLM, type PretrainedConfig } from "@neolog/models";
import {
  Tensor,
  cast,
  defaultBackend,
  normalAt,
  ones,
  persist,
  toBfloat16,
  withShapesOnly,
  zeros,
} from "@neolog/tensor";

/** As many random weights as are drawn; large ones repeat them. Twice a prime, so that rows of a matrix differ and halves lie in pairs. */
const DRAWN = 1_000_006;

/** A model with random bfloat16 weights that never was float32, on the default backend; with `floatTable` its embedding alone is. */
export function randomBfloat16Model(config: PretrainedConfig, { floatTable = false } = {}): CausalLM {
  const backend = defaultBackend();
  const model = withShapesOnly(() => ARCHITECTURES[config.model_type]!.create(config, "config.json"));
  if (!(model instanceof CausalLM)) throw new TypeError(`bfloat16 model: must be a decoder, got ${config.model_type}`);

  const drawn = Uint16Array.from({ length: DRAWN }, (_, i) => toBfloat16(normalAt(1, i) * 0.02));
  let next = 0;
  const random = (shape: readonly number[]): Tensor => {
    const length = shape.reduce((product, d) => product * d, 1);
    const buffer = backend.allocate("bfloat16", length);
    for (let at = 0; at < length;) {
      const part = drawn.subarray(next, next + Math.min(DRAWN - next, length - at));
      backend.write(buffer, part, at);
      at += part.length;
      next = (next + part.length) % DRAWN;
    }
    return Tensor.over(backend, buffer, shape);
  };
  // a norm of Gemma's multiplies by 1 + weight
  const isZero = (key: string): boolean => key.endsWith(".bias") || config.model_type.startsWith("gemma");
  const weights = [...stateDict(model)].map(([key, { shape }]) => {
    const t = shape.length > 1 ? random(shape) : cast(isZero(key) ? zeros(shape) : ones(shape), "bfloat16");
    if (!floatTable || key !== `${model.embeddingPath}.weight`) return [key, persist(t)] as const;
    const float = persist(cast(t, "float32"));
    t.dispose();
    return [key, float] as const;
  });
  adoptStateDict(model, new Map(weights));
  return model;
}
