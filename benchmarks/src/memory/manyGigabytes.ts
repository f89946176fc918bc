/** Weights of more than 4 GiB, in several memories: each multiplies right. `node manyGigabytes.js [WEIGHTS] [THREADS]` */
import { Scope, matmulT, openBackend, randn, tensor, toBfloat16 } from "@neolog/tensor";

const [weights = 9, threads = 2] = process.argv.slice(2).map(Number);
/** A weight [OUT, IN] of bfloat16 takes 512 MiB. */
const OUT = 65_536;
const IN = 4096;
const TOKENS = 16;
const SAMPLES = 64;

const backend = await openBackend("wasm", { threads });
using _all = new Scope();

/** Elements of weight n: a row of a small random matrix, turned by the number of the row and of the weight. */
const rows = 61;
const pattern = Float32Array.from(await randn([rows, IN], 1, "float32", backend).data(), (x) => x / 64);
const bits = Uint16Array.from(pattern, toBfloat16);
const rowOf = (n: number, i: number): number => ((i * 7 + n * 13) % rows) * IN;
const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);
/** A bfloat16 as a number. */
const widened = (half: number): number => ((word[0] = half << 16), float[0]!);

const host = new Uint16Array(OUT * IN);
const x = randn([TOKENS, IN], 2, "float32", backend);
const xs = (await x.data()) as Float32Array;
const begin = performance.now();
const tables = Array.from({ length: weights }, (_, n) => {
  for (let i = 0; i < OUT; i++) host.set(bits.subarray(rowOf(n, i), rowOf(n, i) + IN), i * IN);
  return tensor(host, [OUT, IN], "bfloat16", backend);
});
const { memories } = (backend as typeof backend & { memory(): { readonly memories: number } }).memory();
console.log(
  JSON.stringify({
    gigabytes: backend.bytes.live / 2 ** 30,
    memories,
    resident: process.memoryUsage.rss() / 2 ** 30,
    seconds: (performance.now() - begin) / 1000,
  }),
);

let worst = 0;
for (const [n, table] of tables.entries()) {
  using _product = new Scope();
  const start = performance.now();
  const y = (await matmulT(x, table).data()) as Float32Array;
  const milliseconds = performance.now() - start;
  for (let sample = 0; sample < SAMPLES; sample++) {
    const [token, i] = [sample % TOKENS, (sample * 104_729 + OUT - 1) % OUT];
    let [sum, size] = [0, 0];
    for (let j = 0; j < IN; j++) {
      const term = xs[token * IN + j]! * widened(bits[rowOf(n, i) + j]!);
      sum += term;
      size += Math.abs(term);
    }
    worst = Math.max(worst, Math.abs(y[token * OUT + i]! - sum) / size);
  }
  console.log(JSON.stringify({ weight: n, milliseconds, gflops: (2e-6 * TOKENS * OUT * IN) / milliseconds, worst }));
}
// float32 sums of 4096 terms in blocks of 384: some √384 roundings of 2⁻²⁴ relative to Σ |terms|
if (memories < 2 || !(worst < 2 ** -20)) {
  console.error(
    `manyGigabytes: products must be right to 2⁻²⁰ of Σ |terms| in two memories, got ${worst} in ${memories}`,
  );
  process.exit(1);
}
