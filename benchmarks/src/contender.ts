import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Case } from "./case.ts";
import type { Hello, Reply, Request } from "./protocol.ts";

/** How a contender is started. */
export interface ContenderSpec {
  readonly name: string;
  readonly threads: number;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Of a call over about the milliseconds that were asked for. */
export interface Sample {
  /** Mean nanoseconds. */
  readonly ns: number;
  /** The most bytes that the process has held. */
  readonly maxRss: number;
}

/** A process that runs cases when asked. All but the one that is asked sleep. */
export class Contender {
  readonly spec: ContenderSpec;
  readonly hello: Hello;
  readonly #process: ChildProcess;
  readonly #replies: AsyncIterator<Reply>;

  private constructor(spec: ContenderSpec, hello: Hello, process: ChildProcess, replies: AsyncIterator<Reply>) {
    this.spec = spec;
    this.hello = hello;
    this.#process = process;
    this.#replies = replies;
  }

  /** Starts one; a reason to skip it where it cannot be. */
  static async start(spec: ContenderSpec): Promise<Contender | { readonly skipped: string }> {
    const { command, args, env } = spec;
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
    let failure = "";
    child.on("error", (error) => (failure = error.message));
    child.stderr.on("data", (text: Buffer) => (failure = `${failure}${text.toString()}`.slice(-2000)));
    child.stdin.on("error", () => {}); // it has ended: the missing reply tells
    const replies = repliesOf(child, () => failure);
    const { value: first } = await replies.next();
    if (first && "hello" in first) return new Contender(spec, first.hello, child, replies);
    child.kill();
    return { skipped: first && "missing" in first ? first.missing : failure.trim().split("\n").at(-1)! };
  }

  /** Some elements of the result, or null where it has nothing for this case. Throws what the contender says went wrong. */
  async prepare(c: Case): Promise<readonly number[] | null> {
    const reply = await this.#ask({ prepare: c });
    return "prepared" in reply ? reply.prepared : null;
  }
  async sample(ms: number): Promise<Sample> {
    const reply = await this.#ask({ sample: ms });
    if (!("ns" in reply)) throw new Error(`${this.spec.name}: a time must be answered, got ${JSON.stringify(reply)}`);
    return reply;
  }
  async release(): Promise<void> {
    await this.#ask({ release: true });
  }
  stop(): void {
    this.#process.stdin!.end();
    this.#process.kill();
  }

  async #ask(request: Request): Promise<Reply> {
    this.#process.stdin!.write(`${JSON.stringify(request)}\n`);
    const { value: reply } = await this.#replies.next();
    if (!reply) throw new Error(`${this.spec.name}: the process must go on, it ended`);
    if ("error" in reply) throw new Error(`${this.spec.name}: ${reply.error}`);
    return reply;
  }
}

/** The lines of stdout that are replies; libraries print others. */
async function* repliesOf(child: ChildProcess, failure: () => string): AsyncGenerator<Reply, undefined> {
  for await (const line of createInterface({ input: child.stdout! })) {
    if (/^\{"(?:hello|missing|prepared|declined|ns|released|error)":/.test(line)) yield JSON.parse(line) as Reply;
  }
  if (failure()) yield { error: failure() };
  return undefined;
}
