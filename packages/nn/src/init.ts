import {
  type Shape,
  type Tensor,
  assign,
  defaultBackend,
  full,
  mul,
  persist,
  randn,
  Scope,
  zeros,
} from "@neolog/tensor";
import type { Module } from "./module.ts";

/** Zeros that a checkpoint or an initialiser overwrites; they outlive every scope. */
export const blank = (shape: Shape): Tensor => persist(zeros(shape, "float32", defaultBackend()));

/**
 * GPT-2's initialisation: matrices N(0, std²), biases 0; norm weights (one axis, named "weight") 1.
 * Radford et al. 2019. The same seed gives the same model.
 */
export function initWeights(module: Module, seed: number, std = 0.02): void {
  let counter = 0;
  for (const [key, t] of module.namedParameters()) {
    using _scope = new Scope();
    if (t.shape.length > 1) assign(t, mul(randn(t.shape, seed + counter++, t.dtype, t.backend), std));
    else assign(t, full(t.shape, key.endsWith("weight") ? 1 : 0, t.dtype, t.backend));
  }
}
