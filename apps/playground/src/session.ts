import type { BackendChoice, Command, Message, Opened, Started, Step, Trained } from "./protocol.ts";

/** What the page shows; `phase` says what can be done. */
export interface Session {
  readonly phase: "opening" | "ready" | "training" | "finishing" | "trained" | "failed";
  readonly opened: Opened | null;
  readonly started: Started | null;
  readonly steps: readonly Step[];
  readonly trained: Trained | null;
  readonly error: string | null;
}

const NOTHING = { opened: null, started: null, steps: [], trained: null, error: null } as const;
export const OPENING: Session = { phase: "opening", ...NOTHING };

/** The session after a message of the worker. */
export function after(session: Session, message: Message): Session {
  switch (message.kind) {
    case "opened":
      return { ...OPENING, phase: "ready", opened: message };
    case "training":
      return { ...session, phase: "training", started: message, steps: [], trained: null };
    case "step": {
      const phase = message.step === session.started!.steps ? "finishing" : session.phase;
      return { ...session, phase, steps: [...session.steps, message] };
    }
    case "trained":
      return { ...session, phase: "trained", trained: message };
    case "failed":
      return { ...session, phase: "failed", error: message.error };
  }
}

/** The worker behind the page: one at a time, ended with all that it holds when another is opened. */
export class WorkerSession {
  readonly #show: (session: Session) => void;
  #worker: Worker | null = null;
  #session = OPENING;

  constructor(show: (session: Session) => void) {
    this.#show = show;
  }

  /** Starts anew on a backend. */
  open(backend: BackendChoice): void {
    this.#worker?.terminate();
    this.#set(OPENING);
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.#worker = worker;
    worker.addEventListener("message", ({ data }: MessageEvent<Message>) => this.#set(after(this.#session, data)));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      const error = event.message || "the page's worker did not start; its script could not be loaded";
      this.#set(after(this.#session, { kind: "failed", error }));
    });
    this.#send({ kind: "open", backend, model: new URL("meadow", document.baseURI).href });
  }
  train(steps: number): void {
    this.#set({ ...this.#session, phase: "training", steps: [], trained: null });
    this.#send({ kind: "train", steps });
  }
  /** Ends the training after the step that runs; what was learnt is kept. */
  stop(): void {
    this.#set({ ...this.#session, phase: "finishing" });
    this.#send({ kind: "stop" });
  }

  #set(session: Session): void {
    this.#session = session;
    this.#show(session);
  }
  #send(command: Command): void {
    this.#worker!.postMessage(command, { transfer: [] });
  }
}
