import { zerosLike } from "../create.ts";
import { ShapeError } from "../errors.ts";
import { sameShape } from "../layout.ts";
import type { Tensor } from "../tensor.ts";
import { viewsInPlace, writeExpression } from "./inPlace.ts";

/** What a step of AdamW reads and writes, of one shape. */
export interface AdamWArrays<T = Tensor> {
  readonly p: T;
  readonly grad: T;
  readonly exp_avg: T;
  readonly exp_avg_sq: T;
  /** What weight decay pulls p towards; null for 0. */
  readonly toward: T | null;
}

export interface AdamWNumbers {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly maximize: boolean;
  /** Counts this step, from 1 on. */
  readonly step: number;
}

/**
 * One step of AdamW: p, exp_avg and exp_avg_sq in place, in one kernel where the backend has it. Records nothing. Throws ShapeError
 * where shapes differ. Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
 */
export function adamw(arrays: AdamWArrays, numbers: AdamWNumbers): void {
  const { p, grad, exp_avg, exp_avg_sq, toward } = arrays;
  const written = [p, exp_avg, exp_avg_sq];
  const tensors = [...written, grad, ...(toward ? [toward] : [])];
  if (!tensors.every(({ shape }) => sameShape(shape, p.shape)))
    throw new ShapeError("adamw", "all arrays must have one shape", ...tensors.map(({ shape }) => shape));
  const kernel = p.backend.updates?.adamw;
  const views = kernel ? viewsInPlace("adamw", tensors) : null;
  if (!kernel || !views) return composite(arrays, numbers);
  const [pView, avg, avgSq, g, to] = views;
  kernel({ p: pView!, exp_avg: avg!, exp_avg_sq: avgSq!, grad: g!, toward: to ?? null }, numbers);
  for (const t of written) t.written();
}

function composite(
  { p, grad, exp_avg, exp_avg_sq, toward }: AdamWArrays,
  { lr, betas: [beta1, beta2], eps, weight_decay, maximize, step }: AdamWNumbers,
): void {
  // constants of the run are written out: 1 − beta2 keeps the digits that a float32 operand would lose
  writeExpression(exp_avg, `a * ${beta1} ${maximize ? "-" : "+"} b * ${1 - beta1}`, exp_avg, grad);
  writeExpression(exp_avg_sq, `a * ${beta2} + b * b * ${1 - beta2}`, exp_avg_sq, grad);
  const direction = zerosLike(p);
  writeExpression(direction, `a / (sqrt(b) / c + ${eps})`, exp_avg, exp_avg_sq, Math.sqrt(1 - beta2 ** step));
  if (weight_decay !== 0) {
    if (toward) writeExpression(p, "a - b * (a - c)", p, lr * weight_decay, toward);
    else writeExpression(p, "a * b", p, 1 - lr * weight_decay);
  }
  writeExpression(p, "a - b * c", p, direction, lr / (1 - beta1 ** step));
  direction.dispose();
}
