import type { View } from "../../../backend.ts";
import type { OpAttrs } from "../../../op.ts";
import { float32 } from "./float32.ts";

export function layerNorm(out: View, [x, weight, bias]: readonly View[], { eps }: OpAttrs["layerNorm"]): void {
  layerNormRows(float32(out), float32(x!), float32(weight!), float32(bias!), eps);
}
export function rmsNorm(out: View, [x, weight]: readonly View[], { eps }: OpAttrs["rmsNorm"]): void {
  rmsNormRows(float32(out), float32(x!), float32(weight!), eps);
}

export function layerNormGrad(out: View, [x, weight, g]: readonly View[], { eps }: OpAttrs["layerNormGrad"]): void {
  layerNormGradRows(float32(out), float32(x!), float32(weight!), float32(g!), eps);
}
export function rmsNormGrad(out: View, [x, weight, g]: readonly View[], { eps }: OpAttrs["rmsNormGrad"]): void {
  rmsNormGradRows(float32(out), float32(x!), float32(weight!), float32(g!), eps);
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

/** With z = (x − mean)·scale and scale = 1 / √(variance + eps): out = (g·w − mean(g·w) − z·mean(g·w·z))·scale for each row. */
function layerNormGradRows(out: Float32Array, x: Float32Array, w: Float32Array, g: Float32Array, eps: number): void {
  const n = w.length;
  for (let row = 0; row < x.length; row += n) {
    let total = 0;
    for (let j = 0; j < n; j++) total += x[row + j]!;
    const mean = total / n;
    let squares = 0;
    let sum = 0;
    let dot = 0;
    for (let j = 0; j < n; j++) {
      const centred = x[row + j]! - mean;
      const gw = g[row + j]! * w[j]!;
      squares += centred * centred;
      sum += gw;
      dot += gw * centred;
    }
    const scale = 1 / Math.sqrt(squares / n + eps);
    const along = (scale * scale * dot) / n;
    for (let j = 0; j < n; j++) out[row + j] = scale * (g[row + j]! * w[j]! - sum / n - (x[row + j]! - mean) * along);
  }
}

/** With z = x·scale and scale = 1 / √(mean x² + eps): out = (g·w − z·mean(g·w·z))·scale for each row. */
function rmsNormGradRows(out: Float32Array, x: Float32Array, w: Float32Array, g: Float32Array, eps: number): void {
  const n = w.length;
  for (let row = 0; row < x.length; row += n) {
    let squares = 0;
    let dot = 0;
    for (let j = 0; j < n; j++) {
      squares += x[row + j]! * x[row + j]!;
      dot += g[row + j]! * w[j]! * x[row + j]!;
    }
    const scale = 1 / Math.sqrt(squares / n + eps);
    const along = (scale * scale * dot) / n;
    for (let j = 0; j < n; j++) out[row + j] = scale * (g[row + j]! * w[j]! - x[row + j]! * along);
  }
}
