import type { View } from "../../../backend.ts";
import { contiguousLayout, expandLayout, rowsPerHead } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { starts } from "../strided.ts";
import { float32 } from "./float32.ts";

/** One query at a time, over its allowed keys in ascending order: nothing else of the call touches its bytes. */
export function attention(out: View, [q, k, v, mask]: readonly View[], { scale, softcap }: OpAttrs["attention"]): void {
  const [B, H, T, D] = q!.layout.shape as [number, number, number, number];
  const [, K, S, E] = v!.layout.shape as [number, number, number, number];
  const allowedLayout = expandLayout(contiguousLayout(mask!.layout.shape), [B, H, T, S]);
  const maskRows = starts(allowedLayout, 3);
  const maskStep = allowedLayout.strides[3]!;
  const [y, queries, keys, values, maskData] = [float32(out), float32(q!), headRows(k!), headRows(v!), float32(mask!)];
  const [keyHead, valueHead] = [rowsPerHead(k!.layout)! * D, rowsPerHead(v!.layout)! * E];
  const allowed = new Int32Array(S);
  const weights = new Float64Array(S);
  for (let row = 0; row < B * H * T; row++) {
    const head = Math.floor(row / T); // b·H + h
    const group = Math.floor(head / H) * K + Math.floor((head % H) / (H / K)); // b·K + the key head that h shares
    let count = allowedKeys(allowed, maskData, maskRows[row]!, maskStep, S);
    if (count > 0) {
      dots(weights, queries, row * D, keys, group * keyHead, D, allowed, count);
      softmax(weights, count, scale, softcap);
    } else {
      // every score is equally impossible: the mean of all values, as the composite gives
      for (let s = 0; s < S; s++) allowed[s] = s;
      weights.fill(1 / S);
      count = S;
    }
    mix(y, row * E, values, group * valueHead, E, weights, allowed, count);
  }
}

/** The elements from the first row of x [B, K, n, width] to the last row of the last head; what lies between heads comes along. */
function headRows(x: View): Float32Array {
  const { shape, offset } = x.layout;
  const [B, K, n, width] = shape as [number, number, number, number];
  if (B * K * n * width === 0) return new Float32Array(0);
  const rows = rowsPerHead(x.layout)! * (B * K - 1) + n;
  return float32({ buffer: x.buffer, layout: contiguousLayout([rows, width], offset) });
}

/** Lists the keys whose mask is not zero; returns how many. */
export function allowedKeys(allowed: Int32Array, mask: Float32Array, from: number, step: number, S: number): number {
  let count = 0;
  for (let s = 0; s < S; s++) if (mask[from + s * step] !== 0) allowed[count++] = s;
  return count;
}

/** out[i] = q · key allowed[i], each one sum in ascending order; four keys at a time hide the latency of an addition. */
export function dots(
  out: Float64Array,
  q: Float32Array,
  qAt: number,
  keys: Float32Array,
  keysAt: number,
  D: number,
  allowed: Int32Array,
  count: number,
): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const k0 = keysAt + allowed[i]! * D;
    const k1 = keysAt + allowed[i + 1]! * D;
    const k2 = keysAt + allowed[i + 2]! * D;
    const k3 = keysAt + allowed[i + 3]! * D;
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    for (let d = 0; d < D; d++) {
      const x = q[qAt + d]!;
      s0 += x * keys[k0 + d]!;
      s1 += x * keys[k1 + d]!;
      s2 += x * keys[k2 + d]!;
      s3 += x * keys[k3 + d]!;
    }
    out[i] = s0;
    out[i + 1] = s1;
    out[i + 2] = s2;
    out[i + 3] = s3;
  }
  for (; i < count; i++) {
    const at = keysAt + allowed[i]! * D;
    let s = 0;
    for (let d = 0; d < D; d++) s += q[qAt + d]! * keys[at + d]!;
    out[i] = s;
  }
}

/** weights[i] = softmax of the scaled and capped dot products, over the first `count`. */
export function softmax(weights: Float64Array, count: number, scale: number, softcap: number | null): void {
  let largest = -Infinity;
  for (let i = 0; i < count; i++) {
    const score = weights[i]! * scale;
    weights[i] = softcap === null ? score : softcap * Math.tanh(score / softcap);
    largest = Math.max(largest, weights[i]!);
  }
  let total = 0;
  for (let i = 0; i < count; i++) {
    weights[i] = Math.exp(weights[i]! - largest);
    total += weights[i]!;
  }
  for (let i = 0; i < count; i++) weights[i] = weights[i]! / total;
}

/** out[e] = Σ weights[i] · values[allowed[i], e], each one sum in ascending order; four columns at a time. */
function mix(
  out: Float32Array,
  outAt: number,
  values: Float32Array,
  valuesAt: number,
  E: number,
  weights: Float64Array,
  allowed: Int32Array,
  count: number,
): void {
  let e = 0;
  for (; e + 4 <= E; e += 4) {
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    for (let i = 0; i < count; i++) {
      const w = weights[i]!;
      const at = valuesAt + allowed[i]! * E + e;
      s0 += w * values[at]!;
      s1 += w * values[at + 1]!;
      s2 += w * values[at + 2]!;
      s3 += w * values[at + 3]!;
    }
    out[outAt + e] = s0;
    out[outAt + e + 1] = s1;
    out[outAt + e + 2] = s2;
    out[outAt + e + 3] = s3;
  }
  for (; e < E; e++) {
    let s = 0;
    for (let i = 0; i < count; i++) s += weights[i]! * values[valuesAt + allowed[i]! * E + e]!;
    out[outAt + e] = s;
  }
}
