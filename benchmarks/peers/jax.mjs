/** jax-js on its WebAssembly backend: `node jax.mjs THREADS`. */
import { sayMissing, serve } from "../dist/serve.js";
import { product, someElements, values } from "./data.mjs";
import { jaxJs } from "./jax_threads.mjs";

const threads = Number(process.argv[2] ?? 1);

let jax;
try {
  jax = await jaxJs(threads);
} catch {
  sayMissing("not installed; npm run bench:peers-install");
}
const { numpy: np, nn, jit, blockUntilReady } = jax;

const UNARY = {
  exp: (x) => np.exp(x),
  tanh: (x) => np.tanh(x),
  silu: (x) => nn.silu(x),
  softmax: (x) => nn.softmax(x),
  sumRows: (x) => np.sum(x, 1),
  maxRows: (x) => np.max(x, 1),
};
const BINARY = { add: (x, y) => x.add(y), mul: (x, y) => x.mul(y) };

await serve({ name: "jax-js", runtime: `Node ${process.versions.node}`, vectorBits: 128 }, (c) => {
  const found = functionOf(c);
  if (!found) return null;
  const compiled = jit(found.f);
  // an argument is consumed by its call unless a reference is kept
  const call = () => compiled(...found.inputs.map((x) => x.ref));
  return {
    run: async () => {
      const y = call();
      await blockUntilReady(y);
      y.dispose();
    },
    check: async () => someElements(await call().data()),
    release: () => found.inputs.forEach((x) => x.dispose()),
  };
});

function functionOf(c) {
  const { kernel, shape } = c;
  const input = (data, of) => np.array(data).reshape(of);
  const p = product(c);
  if (p) {
    const inputs = [input(p.x, p.xShape), input(p.w, p.wShape)];
    return { inputs, f: (x, w) => np.matmul(x, p.transposed ? w.transpose() : w) };
  }
  if (UNARY[kernel]) return { inputs: [input(values(shape, 1), shape)], f: UNARY[kernel] };
  if (BINARY[kernel]) return { inputs: [1, 2].map((seed) => input(values(shape, seed), shape)), f: BINARY[kernel] };
  return null;
}
