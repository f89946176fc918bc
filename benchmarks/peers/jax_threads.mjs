/** jax-js on WebAssembly with threads, which it has in browsers: its workers run in Node's. */
import { resolveObjectURL } from "node:buffer";
import { Worker } from "node:worker_threads";

const WORKER_SCOPE = `
const { parentPort } = require("node:worker_threads");
globalThis.self = globalThis;
globalThis.postMessage = (data) => parentPort.postMessage(data);
parentPort.on("message", (data) => self.onmessage({ data }));
`;
/** The part of a browser's Worker that jax-js uses: with one it shares its kernels among `hardwareConcurrency` of them. */
class BrowserWorker {
  onmessage = null;
  #started;
  constructor(url) {
    this.#started = this.#start(resolveObjectURL(url));
  }
  async #start(blob) {
    const worker = new Worker(`${WORKER_SCOPE}\n${await blob.text()}`, { eval: true });
    worker.unref();
    worker.on("message", (data) => this.onmessage?.({ data }));
    return worker;
  }
  postMessage(data) {
    void this.#started.then((worker) => worker.postMessage(data, []));
  }
}
/** The library on so many threads. Throws where it is not installed. */
export async function jaxJs(threads) {
  if (threads > 1) {
    globalThis.Worker = BrowserWorker;
    Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: threads }, configurable: true });
  }
  const jax = await import("@jax-js/jax");
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  return jax;
}
