import { type Tensor, greaterEqual, mul, rand, where } from "@neolog/tensor";

/** x with each element zero with probability p, else scaled by 1/(1 − p). Srivastava et al. 2014. */
export function dropped(x: Tensor, p: number, seed: number): Tensor {
  return mul(x, where(greaterEqual(rand(x.shape, seed, "float32", x.backend), p), 1 / (1 - p), 0));
}
