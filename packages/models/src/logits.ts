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
    if (k >= scores.length) return;
    const threshold = kthLargest(scores, k);
    for (let i = 0; i < scores.length; i++) if (scores[i]! < threshold) scores[i] = -Infinity;
  };

/** Keeps the likeliest tokens whose probabilities first reach p together; at least one. Holtzman et al. 2020, https://arxiv.org/abs/1904.09751 */
export const topP =
  (p: number): LogitsProcessor =>
  (scores) => {
    const probabilities = softmaxOf(scores);
    // all below this are no more than 1 − p together: they go unsorted
    const small = (1 - p) / scores.length;
    let below = 0;
    for (let i = 0; i < scores.length; i++) if (probabilities[i]! < small) below += probabilities[i]!;
    const ascending = probabilities.filter((x) => x >= small).toSorted();
    let removed = 0;
    for (; removed < ascending.length - 1; removed++) {
      below += ascending[removed]!;
      if (below > 1 - p) break;
    }
    const least = ascending[removed]!;
    let ties = removed - ascending.indexOf(least); // of equal ones the first go
    for (let i = 0; i < scores.length; i++) {
      if (probabilities[i]! < least || (probabilities[i] === least && ties-- > 0)) scores[i] = -Infinity;
    }
  };

/** Removes what is less likely than p times the likeliest token. */
export const minP =
  (p: number): LogitsProcessor =>
  (scores) => {
    const probabilities = softmaxOf(scores);
    const least = p * probabilities[argmaxOf(scores)]!;
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
    const prefix = ids.length + 1 - n;
    for (let start = 0; start < prefix; start++) {
      let same = 0;
      while (same < n - 1 && ids[start + same] === ids[prefix + same]) same++;
      if (same === n - 1) scores[ids[start + same]!] = -Infinity;
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
  const largest = scores[argmaxOf(scores)]!;
  const probabilities = new Float64Array(scores.length);
  let total = 0;
  for (let i = 0; i < scores.length; i++) total += probabilities[i] = Math.exp(scores[i]! - largest);
  for (let i = 0; i < scores.length; i++) probabilities[i]! /= total;
  return probabilities;
}

/** The index of the first largest score. */
export function argmaxOf(scores: Float32Array): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]!) best = i;
  return best;
}

/** The k-th largest of the scores, 1 ≤ k ≤ their number. Hoare 1961, "Algorithm 65: Find" */
function kthLargest(scores: Float32Array, k: number): number {
  const x = scores.slice();
  let [from, to] = [0, x.length - 1];
  while (from < to) {
    const pivot = x[(from + to) >> 1]!;
    let [i, j] = [from, to];
    while (i <= j) {
      while (x[i]! > pivot) i++;
      while (x[j]! < pivot) j--;
      if (i > j) break;
      const upper = x[i]!;
      x[i] = x[j]!;
      x[j] = upper;
      i++;
      j--;
    }
    if (k - 1 <= j) to = j;
    else if (k - 1 >= i) from = i;
    else break;
  }
  return x[k - 1]!;
}
