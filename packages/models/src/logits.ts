/** Changes one row of scores [vocab] in place, given the ids so far; removed tokens become −∞. Names as in transformers. */
export type LogitsProcessor = (scores: Float32Array, ids: readonly number[]) => void;

export const temperature =
  (t: number): LogitsProcessor =>
  (scores) => {
    for (let i = 0; i < scores.length; i++) scores[i]! /= t;
  };

/** Keeps the k best scores, and whatever equals the last of them. */
export const topK =
  (k: number): LogitsProcessor =>
  (scores) => {
    const threshold = scores.toSorted()[Math.max(0, scores.length - k)]!;
    for (let i = 0; i < scores.length; i++) if (scores[i]! < threshold) scores[i] = -Infinity;
  };

/** Keeps the likeliest tokens whose probabilities first reach p together; at least one. Holtzman et al. 2020, https://arxiv.org/abs/1904.09751 */
export const topP =
  (p: number): LogitsProcessor =>
  (scores) => {
    const probabilities = softmaxOf(scores);
    const ascending = [...probabilities.keys()].toSorted((i, j) => probabilities[i]! - probabilities[j]!);
    let below = 0;
    for (const i of ascending.slice(0, -1)) {
      below += probabilities[i]!;
      if (below > 1 - p) break;
      scores[i] = -Infinity;
    }
  };

/** Removes what is less likely than p times the likeliest token. */
export const minP =
  (p: number): LogitsProcessor =>
  (scores) => {
    const probabilities = softmaxOf(scores);
    const least = p * probabilities.reduce((a, b) => Math.max(a, b), 0);
    for (let i = 0; i < scores.length; i++) if (probabilities[i]! < least) scores[i] = -Infinity;
  };

/** Makes tokens that occurred less likely. Keskar et al. 2019, https://arxiv.org/abs/1909.05858 */
export const repetitionPenalty =
  (penalty: number): LogitsProcessor =>
  (scores, ids) => {
    for (const id of new Set(ids)) scores[id] = scores[id]! < 0 ? scores[id]! * penalty : scores[id]! / penalty;
  };

/** Forbids what would repeat an n-gram. */
export const noRepeatNgram =
  (n: number): LogitsProcessor =>
  (scores, ids) => {
    if (ids.length + 1 < n) return;
    const prefix = ids.slice(ids.length + 1 - n);
    for (let start = 0; start + n <= ids.length; start++) {
      if (prefix.every((id, i) => id === ids[start + i])) scores[ids[start + n - 1]!] = -Infinity;
    }
  };

/** Forbids the end-of-sequence tokens while there are fewer than `length` ids. */
export const minLength =
  (length: number, eosTokenIds: readonly number[]): LogitsProcessor =>
  (scores, ids) => {
    if (ids.length < length) for (const id of eosTokenIds) scores[id] = -Infinity;
  };

/** exp(score − max) / Σ, in float64. */
export function softmaxOf(scores: Float32Array): Float64Array {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const exponentials = Float64Array.from(scores, (score) => Math.exp(score - largest));
  const total = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((e) => e / total);
}

/** The index of the first largest score. */
export function argmaxOf(scores: Float32Array): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]!) best = i;
  return best;
}
