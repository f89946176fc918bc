import { chooseBackend } from "./backend.ts";
import { Demo } from "./demo.ts";
import type { Command, Message } from "./protocol.ts";

const tell = (message: Message): void => globalThis.postMessage(message, { transfer: [] });

let demo: Demo | null = null;
let running = new AbortController();

/** Does what the page asks, in a thread of its own, so that the page stays responsive; every failure reaches the page. */
async function obey(command: Command): Promise<void> {
  if (command.kind === "stop") return running.abort();
  if (command.kind === "open") {
    const { backend, chosen } = await chooseBackend(command.backend);
    demo = await Demo.open(backend, command.model);
    return tell({ kind: "opened", ...(await demo.describe(chosen)) });
  }
  running = new AbortController();
  const trained = await demo!.train(
    command.steps,
    running.signal,
    (started) => tell({ kind: "training", ...started }),
    (step) => tell({ kind: "step", ...step }),
  );
  tell({ kind: "trained", ...trained });
}

globalThis.addEventListener("message", ({ data }: MessageEvent<Command>) => {
  obey(data).catch((error: unknown) => tell({ kind: "failed", error: String(error) }));
});
