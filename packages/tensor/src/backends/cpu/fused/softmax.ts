import type { View } from "../../../backend.ts";
import { float32 } from "./float32.ts";

export function softmax(out: View, [x]: readonly View[]): void {
  softmaxRows(float32(out), float32(x!), x!.layout.shape.at(-1)!);
}
export function logSoftmax(out: View, [x]: readonly View[]): void {
  logSoftmaxRows(float32(out), float32(x!), x!.layout.shape.at(-1)!);
}

export function softmaxGrad(out: View, [y, g]: readonly View[]): void {
  softmaxGradRows(float32(out), float32(y!), float32(g!), y!.layout.shape.at(-1)!);
}
export function logSoftmaxGrad(out: View, [y, g]: readonly View[]): void {
  logSoftmaxGradRows(float32(out), float32(y!), float32(g!), y!.layout.shape.at(-1)!);
}

/** out[r] = exp(x[r] − max) / Σ exp(x[r] − max) for each row r of n elements. */
function softmaxRows(out: Float32Array, x: Float32Array, n: number): void {
  for (let row = 0; row < x.length; row += n) {
    const largest = largestOf(x, row, n);
    let total = 0;
    for (let j = row; j < row + n; j++) {
      const e = Math.exp(x[j]! - largest);
      out[j] = e;
      total += e;
    }
    for (let j = row; j < row + n; j++) out[j] = out[j]! / total;
  }
}

/** out[r] = x[r] − log Σ exp x[r] for each row r of n elements. */
function logSoftmaxRows(out: Float32Array, x: Float32Array, n: number): void {
  for (let row = 0; row < x.length; row += n) {
    const total = logSumExp(x, row, n);
    for (let j = row; j < row + n; j++) out[j] = x[j]! - total;
  }
}

/** out[r] = y[r]·(g[r] − Σ g[r]·y[r]) for each row r of n elements. */
function softmaxGradRows(out: Float32Array, y: Float32Array, g: Float32Array, n: number): void {
  for (let row = 0; row < y.length; row += n) {
    let total = 0;
    for (let j = row; j < row + n; j++) total += g[j]! * y[j]!;
    for (let j = row; j < row + n; j++) out[j] = y[j]! * (g[j]! - total);
  }
}

/** out[r] = g[r] − exp(y[r])·Σ g[r] for each row r of n elements. */
function logSoftmaxGradRows(out: Float32Array, y: Float32Array, g: Float32Array, n: number): void {
  for (let row = 0; row < y.length; row += n) {
    let total = 0;
    for (let j = row; j < row + n; j++) total += g[j]!;
    for (let j = row; j < row + n; j++) out[j] = g[j]! - Math.exp(y[j]!) * total;
  }
}

/** log Σ exp x over n elements from `row`; the largest is taken out first. */
export function logSumExp(x: Float32Array, row: number, n: number): number {
  const largest = largestOf(x, row, n);
  let total = 0;
  for (let j = row; j < row + n; j++) total += Math.exp(x[j]! - largest);
  return largest + Math.log(total);
}

function largestOf(x: Float32Array, row: number, n: number): number {
  let largest = -Infinity;
  for (let j = row; j < row + n; j++) largest = Math.max(largest, x[j]!);
  return largest;
}
