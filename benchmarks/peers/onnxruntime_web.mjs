/** onnxruntime's WebAssembly: `node onnxruntime_web.mjs THREADS`. */
import { sayMissing, serve } from "../dist/serve.js";
import { onnxProducts } from "./onnx.mjs";

const threads = Number(process.argv[2] ?? 1);
let ort;
try {
  ort = await import("onnxruntime-web");
} catch {
  sayMissing("not installed; npm run bench:peers-install");
}
ort.env.wasm.numThreads = threads;
const hello = { name: "onnxruntime-web", runtime: `Node ${process.versions.node}`, vectorBits: 128 };
await serve(hello, onnxProducts(ort, { executionProviders: ["wasm"] }));
