/** TensorFlow.js on WebAssembly with threads, which it means for browsers: its workers' scripts become files that Node's workers can read. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire, register } from "node:module";
import os, { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);

/** tfjs-core on so many threads. Throws where it is not installed. */
export async function tensorflow(threads) {
  const tf = require("@tensorflow/tfjs-core");
  const wasm = require("@tensorflow/tfjs-backend-wasm");
  wasm.setWasmPaths(join(dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json")), "dist/"));
  if (threads > 1) {
    readBlobsInWorkers();
    tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", true);
    wasm.setThreadsCount(threads);
    // it uses half of the cores at most
    const { cpus } = os;
    os.cpus = () => [...cpus(), ...cpus()];
  }
  await tf.setBackend("wasm");
  await tf.ready();
  if (threads > 1 && wasm.getThreadsCount() !== threads)
    throw new Error(`${threads} threads, got ${wasm.getThreadsCount()}`);
  return tf;
}

/** The library's gradients, which its bundle for Node leaves out; their files import each other without the ending. */
export async function registerGradients() {
  const resolve = `export async function resolve(name, context, next) {
    try { return await next(name, context); } catch { return next(name + ".js", context); }
  }`;
  register(`data:text/javascript,${encodeURIComponent(resolve)}`);
  await import("@tensorflow/tfjs-core/dist/register_all_gradients.js");
}

/** What the library's text takes from the file around it: modules of Node, and TypeScript's helpers. */
function surroundings() {
  const file = readFileSync(require.resolve("@tensorflow/tfjs-backend-wasm"), "utf8");
  const modules = file.match(/^var require\$\$.*$/gm);
  const helpers = file.slice(
    file.indexOf("function __extends("),
    file.indexOf("/**", file.indexOf("function __spreadArray(")),
  );
  return [...modules, helpers, "var commonjsGlobal = globalThis, _scriptDir;\n"].join("\n");
}

/** Two blobs are made: the library itself, then the script of its workers, which reads the first by its address. */
function readBlobsInWorkers() {
  const folder = mkdtempSync(join(tmpdir(), "neolog-tfjs-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const library = join(folder, "library.js");
  const worker = join(folder, "worker.cjs");
  const NativeBlob = globalThis.Blob;
  const texts = new WeakMap();
  globalThis.Blob = class extends NativeBlob {
    constructor(parts, options) {
      super(parts, options);
      const text = parts.join("");
      texts.set(this, text);
      if (text.startsWith("var WasmBackendModuleThreadedSimd")) writeFileSync(library, surroundings() + text);
    }
  };
  const createObjectURL = URL.createObjectURL.bind(URL);
  URL.createObjectURL = (blob) => {
    const text = texts.get(blob);
    if (!text?.includes("importScripts(objectUrl)")) return createObjectURL(blob);
    writeFileSync(worker, text.replace("importScripts(objectUrl)", `importScripts(${JSON.stringify(library)})`));
    return worker;
  };
}
