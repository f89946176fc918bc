/** onnxruntime's native binding: `node onnxruntime_node.mjs THREADS`. */
import { sayMissing, serve } from "../dist/serve.js";
import { onnxProducts } from "./onnx.mjs";

const threads = Number(process.argv[2] ?? 1);
let ort;
try {
  ort = (await import("onnxruntime-node")).default;
} catch {
  sayMissing("not installed; npm run bench:peers-install");
}
const options = { intraOpNumThreads: threads, interOpNumThreads: 1, executionProviders: ["cpu"] };
const hello = { name: "onnxruntime-node", runtime: `Node ${process.versions.node}`, vectorBits: 256 };
await serve(hello, onnxProducts(ort, options));
