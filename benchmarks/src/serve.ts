import { createInterface } from "node:readline";
import type { Case } from "./case.ts";
import type { Hello, Reply, Request } from "./protocol.ts";

/** A case that is ready to run. */
export interface Prepared {
  run(): unknown;
  /** What a call of `run` counts for; 1 where absent. */
  readonly calls?: number;
  /** What comes before each call and is not timed. */
  pause?(): void;
  /** Some elements of the result of `run`. */
  check(): readonly number[] | Promise<readonly number[]>;
  release(): void;
}

/** Makes a case ready, or answers null where it has none like it. */
export type Prepare = (c: Case) => Prepared | null | Promise<Prepared | null>;

/** The contender's side of the protocol: answers requests on stdin until it ends, then ends the process and its threads. */
export async function serve(hello: Hello, prepare: Prepare): Promise<void> {
  say({ hello });
  let current: Prepared | null = null;
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line) as Request;
    try {
      if ("prepare" in request) {
        current = await prepare(request.prepare);
        if (!current) say({ declined: true });
        else say({ prepared: await current.check() });
      } else if ("sample" in request) {
        say({ ns: await meanTime(current!, request.sample), maxRss: process.resourceUsage().maxRSS * 1024 });
      } else {
        current?.release();
        current = null;
        say({ released: true });
      }
    } catch (error) {
      say({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    }
  }
  process.exit(0);
}

/** Says that a package is not installed, and ends. */
export function sayMissing(what: string): never {
  say({ missing: what });
  process.exit(0);
}

/** Nanoseconds of a call: the mean over at least one call and at least `ms` milliseconds. */
async function meanTime(prepared: Prepared, ms: number): Promise<number> {
  const start = performance.now();
  let calls = 0;
  let timed = 0;
  do {
    prepared.pause?.();
    const before = performance.now();
    const result = prepared.run();
    if (result instanceof Promise) await result;
    timed += performance.now() - before;
    calls += prepared.calls ?? 1;
  } while (performance.now() - start < ms);
  return (timed * 1e6) / calls;
}

function say(reply: Reply): void {
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
