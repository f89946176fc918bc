/** Vectors of one length, one after the other; called again, the same ones. */
export type Vectors = () => Iterable<ArrayLike<number>>;

/** The mean of the vectors, [width], summed in float64 in their order. */
export function meanOf(vectors: Vectors, width: number): Float64Array {
  const mean = new Float64Array(width);
  let count = 0;
  for (const x of vectors()) {
    count++;
    for (let j = 0; j < width; j++) mean[j]! += x[j]!;
  }
  return mean.map((sum) => sum / count);
}

/** The population variance of each component, [width]. */
export function variancesOf(vectors: Vectors, mean: Float64Array): Float64Array {
  const width = mean.length;
  const variances = new Float64Array(width);
  let count = 0;
  for (const x of vectors()) {
    count++;
    for (let j = 0; j < width; j++) variances[j]! += (x[j]! - mean[j]!) ** 2;
  }
  return variances.map((sum) => sum / count);
}

/** The population covariance, [width, width], of which the lower triangle is filled. */
export function covarianceOf(vectors: Vectors, mean: Float64Array): Float64Array {
  const width = mean.length;
  const covariance = new Float64Array(width * width);
  const d = new Float64Array(width);
  let count = 0;
  for (const x of vectors()) {
    count++;
    for (let j = 0; j < width; j++) d[j] = x[j]! - mean[j]!;
    for (let i = 0; i < width; i++) {
      const di = d[i]!;
      for (let j = 0, at = i * width; j <= i; j++) covariance[at + j]! += di * d[j]!;
    }
  }
  return covariance.map((sum) => sum / count);
}

/** L, lower triangular, with L·Lᵀ = a [n, n], of which the lower triangle is read; null where a is not positive definite to rounding. */
export function cholesky(a: Float64Array, n: number): Float64Array | null {
  const L = new Float64Array(n * n);
  let largest = 0;
  for (let i = 0; i < n; i++) largest = Math.max(largest, a[i * n + i]!);
  const smallest = n * Number.EPSILON * largest; // what rounding leaves of a pivot that is 0
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j]!;
      for (let p = 0; p < j; p++) sum -= L[i * n + p]! * L[j * n + p]!;
      if (i !== j) L[i * n + j] = sum / L[j * n + j]!;
      else if (sum > smallest) L[i * n + i] = Math.sqrt(sum);
      else return null;
    }
  }
  return L;
}
