import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { Heap } from "./heap.ts";
import { ARGS, CONTROL, SCRATCH } from "./layoutOfMemory.ts";
import { WORD, WORDS, WORKER_SOURCE, type WorkerMessage } from "./workerSource.ts";

/** Runs the program of a worker here, until it waits for a message; `look` hears before each look at a word of the control block. */
function runWorker(message: WorkerMessage, look: (word: number) => void): void {
  const self: { onmessage?: (event: { data: WorkerMessage }) => void; postMessage(): void } = { postMessage() {} };
  const atomics = {
    load: (control: Int32Array, word: number) => {
      const value = Atomics.load(control, word);
      look(word);
      return value;
    },
    add: Atomics.add.bind(Atomics),
    sub: Atomics.sub.bind(Atomics),
    store: Atomics.store.bind(Atomics),
    notify: Atomics.notify.bind(Atomics),
    compareExchange: Atomics.compareExchange.bind(Atomics),
    wait: () => {
      throw new Error("the worker went to sleep");
    },
  };
  runInNewContext(WORKER_SOURCE, { self, Atomics: atomics });
  self.onmessage!({ data: message });
}

test.each(["VERSION", "GENERATION"] as const)(
  "a job announced right after a look at %s is taken only with the module that it needs",
  (seen) => {
    const [memory] = new Heap(2).memories;
    const control = new Int32Array(memory!.buffer, CONTROL, WORDS);
    control[WORD.VERSION] = 1;
    const message = { memories: [memory!.memory], modules: [], control: CONTROL, args: ARGS, scratch: SCRATCH };
    let announced = false;
    runWorker(message, (word) => {
      if (announced || word !== WORD[seen]) return;
      announced = true; // as Pool does it: first the message with module 0 is under way, then the job
      control[WORD.VERSION] = 2;
      control[WORD.CHUNKS] = 1;
      control[WORD.COUNTER] = 1 << 8;
      control[WORD.GENERATION] = 1;
    });
    expect(announced).toBe(true);
    expect(control[WORD.FAILED]).toBe(0);
    expect(control[WORD.COUNTER]).toBe(1 << 8);
  },
);
