import type { View } from "../../../backend.ts";
import type { OpAttrs } from "../../../op.ts";
import { float32 } from "./float32.ts";

export function layerNorm(out: View, [x, weight, bias]: readonly View[], { eps }: OpAttrs["layerNorm"]): void {
  layerNormRows(float32(out), float32(x!), float32(weight!), float32(bias!), eps);
}
export function rmsNorm(out: View, [x, weight]: readonly View[], { eps }: OpAttrs["rmsNorm"]): void {
  rmsNormRows(float32(out), float32(x!), float32(weight!), eps);
}

/** out[r] = (x[r] − mean) / √(variance + eps) · w + b for each row r; sums are float64. */
function layerNormRows(out: Float32Array, x: Float32Array, w: Float32Array, b: Float32Array, eps: number): void {
  const n = w.length;
  for (let row = 0; row < x.length; row += n) {
    let total = 0;
    for (let j = 0; j < n; j++) total += x[row + j]!;
    const mean = total / n;
    let squares = 0;
    for (let j = 0; j < n; j++) squares += (x[row + j]! - mean) * (x[row + j]! - mean);
    const scale = 1 / Math.sqrt(squares / n + eps);
    for (let j = 0; j < n; j++) out[row + j] = (x[row + j]! - mean) * scale * w[j]! + b[j]!;
  }
}

/** out[r] = x[r] / rms(x[r]) · w for each row r; the sum is float64. */
function rmsNormRows(out: Float32Array, x: Float32Array, w: Float32Array, eps: number): void {
  const n = w.length;
  for (let row = 0; row < x.length; row += n) {
    let squares = 0;
    for (let j = row; j < row + n; j++) squares += x[j]! * x[j]!;
    const scale = 1 / Math.sqrt(squares / n + eps);
    for (let j = 0; j < n; j++) out[row + j] = x[row + j]! * scale * w[j]!;
  }
}
