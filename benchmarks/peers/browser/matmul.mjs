import { GPU } from "gpu.js";
import { openGpu } from "@neolog/gpu";
import * as nl from "@neolog/tensor";

/** A product [n, n]·[n, n] in float32 on webgl2, ours and gpu.js's own: milliseconds with all of it read, and an element of it. */
export async function run(mode, { n, who }, repeats) {
  return who === "gpu.js" ? plain(mode, n) : ours(mode, n, repeats);
}

const filled = (n, seed) =>
  Float32Array.from({ length: n * n }, (_, i) => (((Math.imul(i, 2654435761) >>> 8) % 1000) + seed) / 1000 - 0.5);

async function ours(mode, n, repeats) {
  const backend = await openGpu({ mode, allowSoftware: true });
  const [a, b] = [1, 2].map((seed) => nl.persist(nl.tensor(filled(n, seed), [n, n], "float32", backend)));
  const product = async () => {
    const scope = new nl.Scope();
    const data = await nl.matmul(a, b).data();
    scope[Symbol.dispose]();
    return data[n + 1];
  };
  const start = performance.now();
  const loss = await product();
  const first = performance.now() - start;
  let ms = Infinity;
  for (let i = 0; i < repeats; i++) {
    const from = performance.now();
    await product();
    ms = Math.min(ms, performance.now() - from);
  }
  return { ms, first, loss };
}

/** The kernel of gpu.js's README, as a string, once: it takes seconds in software. Compiled before, by a product of one element. */
function plain(mode, n) {
  const gpu = new GPU({ mode });
  const source = `function (a, b, n) {
    let sum = 0;
    for (let i = 0; i < n; i++) { sum += a[this.thread.y][i] * b[i][this.thread.x]; }
    return sum;
  }`;
  const kernel = gpu.createKernel(source, {
    output: [n, n],
    precision: "single",
    tactic: "precision",
    loopMaxIterations: n,
  });
  const rows = (data) => Array.from({ length: n }, (_, i) => data.subarray(i * n, (i + 1) * n));
  const [a, b] = [1, 2].map((seed) => rows(filled(n, seed)));
  kernel(a, b, 1); // compiles
  const start = performance.now();
  const c = kernel(a, b, n);
  const ms = performance.now() - start;
  return { ms, first: ms, loss: c[1][1] };
}
