/** TensorFlow.js on its WebAssembly backend: `node tfjs.mjs THREADS`. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { sayMissing, serve } from "../dist/serve.js";
import { product, someElements, values } from "./data.mjs";

const threads = Number(process.argv[2] ?? 1);
const require = createRequire(import.meta.url);
let tf, wasm, folder;
try {
  tf = require("@tensorflow/tfjs-core");
  wasm = require("@tensorflow/tfjs-backend-wasm");
  folder = join(dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json")), "dist/");
} catch {
  sayMissing("not installed; npm run bench:peers-install");
}
if (threads > 1) sayMissing("its threads need a browser");
wasm.setWasmPaths(folder);
await tf.setBackend("wasm");
await tf.ready();

const UNARY = {
  exp: (x) => tf.exp(x),
  tanh: (x) => tf.tanh(x),
  softmax: (x) => tf.softmax(x),
  sumRows: (x) => tf.sum(x, 1),
  maxRows: (x) => tf.max(x, 1),
};
const BINARY = { add: (x, y) => tf.add(x, y), mul: (x, y) => tf.mul(x, y) };

await serve({ name: "TensorFlow.js wasm", runtime: `Node ${process.versions.node}`, vectorBits: 128 }, (c) => {
  const inputs = [];
  const input = (data, shape) => (inputs.push(tf.tensor(data, shape)), inputs.at(-1));
  const run = runOf(c, input);
  if (!run) return null;
  return {
    run: () => run().dispose(),
    check: () => {
      const y = run();
      const elements = someElements(y.dataSync());
      y.dispose();
      return elements;
    },
    release: () => inputs.forEach((t) => t.dispose()),
  };
});

function runOf(c, input) {
  const { kernel, shape } = c;
  const p = product(c);
  if (p) {
    const [x, w] = [input(p.x, p.xShape), input(p.w, p.wShape)];
    return () => tf.matMul(x, w, false, p.transposed);
  }
  if (UNARY[kernel]) {
    const x = input(values(shape, 1), shape);
    return () => UNARY[kernel](x);
  }
  if (BINARY[kernel]) {
    const [x, y] = [1, 2].map((seed) => input(values(shape, seed), shape));
    return () => BINARY[kernel](x, y);
  }
  return null;
}
