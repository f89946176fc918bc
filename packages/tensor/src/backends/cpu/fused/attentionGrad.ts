import type { View } from "../../../backend.ts";
import { contiguousLayout, expandLayout } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { starts } from "../strided.ts";
import { allowedKeys, dots, softmax } from "./attention.ts";
import { float32 } from "./float32.ts";

/** One query at a time, its weights computed again; what keys and values gain is summed in float64 over the queries of a head. */
export function attentionGrad(
  out: View,
  [q, k, v, mask, g]: readonly View[],
  { scale, softcap, wanted, past = 0 }: OpAttrs["attentionGrad"],
): void {
  const [B, H, T, D] = q!.layout.shape as [number, number, number, number];
  const [, K, S, E] = v!.layout.shape as [number, number, number, number];
  const mayAttend = expandLayout(contiguousLayout(mask!.layout.shape), [B, H, T, S]);
  const maskRows = starts(mayAttend, 3);
  const [queries, keys, values, gy, maskData] = [q!, k!, v!, g!, mask!].map(float32) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const all = float32(out);
  const gq = all.subarray(0, wanted[0] ? B * H * T * D : 0);
  const gk = all.subarray(gq.length, gq.length + (wanted[1] ? B * H * (S - past) * D : 0));
  const gv = all.subarray(gq.length + gk.length);
  const allowed = new Int32Array(S);
  const [scores, weights, slopes] = [new Float64Array(S), new Float64Array(S), new Float64Array(S)];
  const [row, ofKeys, ofValues] = [new Float64Array(D), new Float64Array(S * D), new Float64Array(S * E)];
  for (let head = 0; head < B * H; head++) {
    const group = Math.floor(head / H) * K + Math.floor((head % H) / (H / K));
    ofKeys.fill(0);
    ofValues.fill(0);
    for (let query = head * T; query < (head + 1) * T; query++) {
      let count = allowedKeys(allowed, maskData, maskRows[query]!, mayAttend.strides[3]!, S);
      if (count === 0) {
        // the mean of all values, whatever the scores are
        for (let s = 0; s < S; s++) allowed[s] = s;
        weights.fill(1 / S);
        slopes.fill(0);
        count = S;
      } else {
        dots(scores, queries, query * D, keys, group * S * D, D, allowed, count);
        weights.set(scores);
        softmax(weights, count, scale, softcap);
        dots(slopes, gy, query * E, values, group * S * E, E, allowed, count);
        slopesOf(slopes, weights, scores, count, scale, softcap);
      }
      if (wanted[0]) {
        row.fill(0);
        for (let i = 0; i < count; i++) addScaled(row, 0, slopes[i]!, keys, (group * S + allowed[i]!) * D, D);
        gq.set(row, query * D);
      }
      for (let i = 0; i < count; i++) {
        if (wanted[1]) addScaled(ofKeys, allowed[i]! * D, slopes[i]!, queries, query * D, D);
        if (wanted[2]) addScaled(ofValues, allowed[i]! * E, weights[i]!, gy, query * E, E);
      }
    }
    if (wanted[1]) gk.set(ofKeys.subarray(past * D), head * (S - past) * D);
    if (wanted[2]) gv.set(ofValues.subarray(past * E), head * (S - past) * E);
  }
}

/** slopes = the gradient of the dot products, where slopes is that of the weights. */
function slopesOf(
  slopes: Float64Array,
  weights: Float64Array,
  scores: Float64Array,
  count: number,
  scale: number,
  softcap: number | null,
): void {
  let mean = 0;
  for (let i = 0; i < count; i++) mean += weights[i]! * slopes[i]!;
  for (let i = 0; i < count; i++) {
    const t = softcap === null ? 0 : Math.tanh((scores[i]! * scale) / softcap);
    slopes[i] = weights[i]! * (slopes[i]! - mean) * (1 - t * t) * scale;
  }
}

/** to[at + j] += factor·x[from + j] for n elements. */
function addScaled(to: Float64Array, at: number, factor: number, x: Float32Array, from: number, n: number): void {
  for (let j = 0; j < n; j++) to[at + j] = to[at + j]! + factor * x[from + j]!;
}
