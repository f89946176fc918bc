import { type Backend, BackendError, openBackend } from "@neolog/tensor";
import type { BackendChoice, Chosen } from "./protocol.ts";

/** Opens the backend that was chosen on the page; says why it is this one. Throws BackendError where a named one does not run. */
export async function chooseBackend(choice: BackendChoice): Promise<{ backend: Backend; chosen: Chosen }> {
  switch (choice) {
    case "auto":
      return fastest();
    case "webgpu":
    case "webgl2":
      return onGpu(choice);
    default:
      return described(await openBackend(choice), "chosen on this page");
  }
}

/** For a model this small: a GPU waits longer for its calls than it computes. */
async function fastest(): Promise<{ backend: Backend; chosen: Chosen }> {
  try {
    return described(await openBackend("wasm"), "the fastest for a model this small");
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    return described(await openBackend("cpu"), `as wasm does not run here (${error.message})`);
  }
}

/** A software adapter is taken, too: whoever chooses a mode wants to see that one. */
async function onGpu(mode: "webgpu" | "webgl2"): Promise<{ backend: Backend; chosen: Chosen }> {
  await import("@neolog/gpu");
  const backend = await openBackend("gpu", { mode, allowSoftware: true });
  const { adapter, software } = backend.info;
  const where = software ? `in software (${String(adapter)}), much slower than wasm` : `on ${String(adapter)}`;
  return described(backend, `by ${mode} ${where}`);
}

function described(backend: Backend, because: string): { backend: Backend; chosen: Chosen } {
  const { threads, threadsBecause } = backend.info;
  const count = threads === undefined ? "" : `on ${String(threads)} ${threads === 1 ? "thread" : "threads"}, `;
  const why = threads === 1 && threadsBecause !== undefined ? `; ${String(threadsBecause)}` : "";
  return { backend, chosen: { name: backend.name, because: count + because + why, info: backend.info } };
}
