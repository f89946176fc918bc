import { nodeModule } from "./platform.ts";
import { WORKER_SOURCE, type WorkerMessage } from "./workerSource.ts";

/** What Node's and the browsers' workers have in common. */
export interface PortableWorker {
  /** Settles when the worker has received its first message, or has died. */
  online(): Promise<void>;
  post(message: WorkerMessage): void;
  terminate(): Promise<void>;
}

/** Starts a worker that does not keep the process alive. `onEnd` hears when it dies. Throws where the platform allows none. */
export function startWorker(onEnd: () => void): PortableWorker {
  const threads = nodeModule("node:worker_threads");
  if (!threads) return startInBrowser(onEnd);
  // the process's own flags would apply: --input-type=module makes the source a module, --import runs in every worker
  return startInNode(new threads.Worker(WORKER_SOURCE, { eval: true, execArgv: [], name: "neolog" }), onEnd);
}

function startInNode(worker: import("node:worker_threads").Worker, onEnd: () => void): PortableWorker {
  const online = new Promise<void>((resolve) => {
    worker.once("message", () => resolve());
    worker.once("exit", () => resolve());
  });
  worker.on("error", onEnd);
  worker.on("exit", onEnd);
  worker.unref();
  return {
    online: async () => {
      worker.ref(); // who waits for it keeps the process alive
      await online;
      worker.unref();
    },
    post: (message) => worker.postMessage(message, []),
    terminate: async () => {
      await worker.terminate();
    },
  };
}

function startInBrowser(onEnd: () => void): PortableWorker {
  const url = URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" }));
  const worker = new Worker(url, { name: "neolog" });
  const online = new Promise<void>((resolve) => {
    const fail = (): void => {
      worker.terminate();
      onEnd();
      resolve();
    };
    worker.addEventListener("message", () => resolve(), { once: true });
    worker.addEventListener("error", fail);
    worker.addEventListener("messageerror", fail);
  });
  void online.then(() => URL.revokeObjectURL(url));
  return {
    online: () => online,
    post: (message) => worker.postMessage(message, []),
    terminate: async () => worker.terminate(),
  };
}
