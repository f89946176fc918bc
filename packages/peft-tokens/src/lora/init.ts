import {
  type DType,
  Scope,
  type Tensor,
  cast,
  mul,
  persist,
  rand,
  randn,
  randomBits,
  sub,
  untracked,
  zeros,
} from "@neolog/tensor";
import type { LoraConfig } from "./config.ts";

/** What the two matrices of a module start from. */
export interface LoraShape {
  readonly r: number;
  readonly in_features: number;
  readonly out_features: number;
}
/** Where the numbers come from, and what they are stored as. */
export interface LoraStart {
  readonly init: LoraConfig["init_lora_weights"];
  /** Differs from module to module. */
  readonly seed: number;
  readonly dtype: DType;
  /** A tensor on the backend to use. */
  readonly like: Tensor;
}

/** A [r, in], B [out, r]: A uniform on ±1/√in and B zero; "gaussian": A normal with deviation 1/r; false: B uniform on ±1/√r. */
export function linearMatrices({ r, in_features, out_features }: LoraShape, start: LoraStart): [A: Tensor, B: Tensor] {
  const A: Tensor =
    start.init === "gaussian"
      ? normal([r, in_features], 1 / r, 0, start)
      : uniform([r, in_features], 1 / Math.sqrt(in_features), 0, start);
  const B =
    start.init === false ? uniform([out_features, r], 1 / Math.sqrt(r), 1, start) : blank([out_features, r], start);
  return [A, B];
}

/** A [r, vocab] zero, B [hidden, r] normal; false: both normal. */
export function embeddingMatrices(
  { r, in_features, out_features }: LoraShape,
  start: LoraStart,
): [A: Tensor, B: Tensor] {
  const A = start.init === false ? normal([r, in_features], 1, 0, start) : blank([r, in_features], start);
  return [A, normal([out_features, r], 1, 1, start)];
}

const uniform = (shape: number[], bound: number, index: number, start: LoraStart): Tensor =>
  made(start, (seed) => mul(sub(rand(shape, seed, "float32", start.like.backend), 0.5), 2 * bound), index);

const normal = (shape: number[], deviation: number, index: number, start: LoraStart): Tensor =>
  made(start, (seed) => mul(randn(shape, seed, "float32", start.like.backend), deviation), index);

const blank = (shape: number[], { dtype, like }: LoraStart): Tensor =>
  untracked(() => persist(zeros(shape, dtype, like.backend)));

/** The values of `draw` in the dtype of the start, living until disposed. */
function made({ seed, dtype }: LoraStart, draw: (seed: number) => Tensor, index: number): Tensor {
  return untracked(() => {
    using _temporary = new Scope();
    return persist(cast(draw(randomBits(seed, index)), dtype));
  });
}
