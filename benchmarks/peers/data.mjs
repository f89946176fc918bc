/** Real values on [−0.5, 0.5), those of Neolog's `rand(shape, seed) − 0.5`. */
export function values(shape, seed) {
  const out = new Float32Array(shape.reduce((product, d) => product * d, 1));
  for (let i = 0; i < out.length; i++) out[i] = (randomBits(seed, i) >>> 8) / 2 ** 24 - 0.5;
  return out;
}

function randomBits(seed, counter) {
  let h = Math.imul(counter, 0x9e3779b9) ^ Math.imul(seed, 0x85ebca6b);
  for (let round = 0; round < 2; round++) {
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h = ((h ^ (h >>> 16)) + 0x6d2b79f5) | 0;
  }
  return h;
}

/** The first element, one in the middle and the last. */
export const someElements = (data) => [0, data.length >> 1, data.length - 1].map((i) => data[i]);

/** Inputs of a product: x [m, k] and w, [n, k] for `matmulT`, else [k, n]; null for other cases. */
export function product({ kernel, shape: [m, k, n], dtype }) {
  if ((kernel !== "matmul" && kernel !== "matmulT") || dtype) return null;
  const transposed = kernel === "matmulT";
  const wShape = transposed ? [n, k] : [k, n];
  return { transposed, x: values([m, k], 1), xShape: [m, k], w: values(wShape, 2), wShape };
}
