import { type Backend, BackendError, openBackend } from "@neolog/tensor";
import type { BackendChoice, Chosen } from "./protocol.ts";

/** Opens the backend that was chosen on the page; says why it is this one. Throws BackendError where a named one does not run. */
export async function chooseBackend(choice: BackendChoice): Promise<{ backend: Backend; chosen: Chosen }> {
  if (choice !== "auto") return describe(await openBackend(choice), "chosen on this page");
  try {
    return describe(await openBackend("wasm"), "the fastest that runs here");
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    return describe(await openBackend("cpu"), `wasm does not run here: ${error.message}`);
  }
}

function describe(backend: Backend, because: string): { backend: Backend; chosen: Chosen } {
  const { info } = backend;
  const threads = info["threads"];
  const why = typeof threads === "number" && threads === 1 ? `; ${String(info["threadsBecause"])}` : "";
  return { backend, chosen: { name: backend.name, because: because + why, info } };
}
