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
 * GPT-2's initialisation: matrices N(0, std²), what has one axis at its module's `initialValue`. Radford et al. 2019. The same
 * seed gives the same model.
 */
export function initWeights(module: Module, seed: number, std = 0.02): void {
  const seen = new Set<Tensor>();
  let counter = 0;
  for (const [, owner] of module.namedModules()) {
    for (const [key, t] of owner.ownTensors()) {
      if (seen.has(t)) continue;
      seen.add(t);
      using _scope = new Scope();
      if (t.shape.length > 1) assign(t, mul(randn(t.shape, seed + counter++, t.dtype, t.backend), std));
      else assign(t, full(t.shape, owner.initialValue(key), t.dtype, t.backend));
    }
  }
}
