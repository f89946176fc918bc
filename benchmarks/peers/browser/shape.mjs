/** A stack of GPT-2's blocks under a head, without biases; `x` stands for the rows that train, and gets the gradient. */
export function inputs({ layers, width, vocab, length }) {
  const random = (seed, size, scale) => {
    let state = seed;
    return Float32Array.from({ length: size }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state / 2 ** 31 - 1) * scale;
    });
  };
  const matrix = (seed, rows, columns) => ({ shape: [rows, columns], data: random(seed, rows * columns, 0.02) });
  const blocks = Array.from({ length: layers }, (_, i) => ({
    attn: matrix(10 * i + 1, width, 3 * width),
    proj: matrix(10 * i + 2, width, width),
    fc: matrix(10 * i + 3, width, 4 * width),
    out: matrix(10 * i + 4, 4 * width, width),
  }));
  const head = matrix(7001, width, vocab);
  const x = { shape: [length, width], data: random(7002, length * width, 1) };
  const targets = Int32Array.from({ length }, (_, i) => (i * 7919) % vocab);
  return { blocks, head, x, targets };
}

/** Milliseconds of a step, the least of a few, and its loss: what all must agree on. `step` gives the loss once the gradient is there. */
export async function timed(step, repeats) {
  const start = performance.now();
  const loss = await step();
  const first = performance.now() - start;
  let least = Infinity;
  for (let i = 0; i < repeats; i++) {
    const from = performance.now();
    await step();
    least = Math.min(least, performance.now() - from);
  }
  return { loss, first, ms: least };
}
