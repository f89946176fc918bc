import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "neolog-"));
  await build({
    configFile: false,
    logLevel: "error",
    build: {
      ssr: fileURLToPath(new URL("../../index.ts", import.meta.url)),
      outDir: folder,
      target: "node20",
      rolldownOptions: { output: { entryFileNames: "tensor.mjs" } },
    },
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const PREAMBLE = `
  import { Scope, add, openBackend, randn } from "./tensor.mjs";
  import { readdirSync } from "node:fs";
  import { setTimeout as sleep } from "node:timers/promises";
  const compute = (backend) => {
    const scope = new Scope();
    const x = randn([512, 512], 1, "float32", backend);
    add(x, x);
    scope[Symbol.dispose]();
  };
  const threads = () => readdirSync("/proc/self/task").length;
  const collect = async () => { for (let i = 0; i < 4; i++) { gc(); await sleep(30); } };
`;

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Milliseconds from its first word on stdout to its end. */
  readonly after: number;
}

/** Runs a program in a process of its own; it says something when it has nothing more to do. */
function run(program: string): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ["--expose-gc", "--input-type=module", "--eval", PREAMBLE + program], {
      cwd: folder,
    });
    const written = { stdout: "", stderr: "" };
    let said = 0;
    child.stdout.on("data", (text: Buffer) => {
      said ||= performance.now();
      written.stdout += String(text);
    });
    child.stderr.on("data", (text: Buffer) => {
      written.stderr += String(text);
    });
    child.on("close", (code) => resolve({ code, ...written, after: performance.now() - said }));
  });
}

/** 40 ms on a quiet machine; a process that waits for its threads never ends. */
const SOON = 5000;
const ENDS = [
  ["ends", "", 0, ""],
  ["ends with sleeping threads", "await sleep(300);", 0, ""],
  ["calls process.exit", "process.exit(3);", 3, ""],
  ["calls process.exit with sleeping threads", "await sleep(300); process.exit(3);", 3, ""],
  ["throws", 'throw new Error("out of ideas");', 1, "out of ideas"],
  ["rejects", 'void Promise.reject(new Error("out of luck")); await sleep(60_000);', 1, "out of luck"],
] as const;

describe.each([1, 3])("with %i threads", (threads) => {
  test.concurrent.each(ENDS)("a process that %s is over at once", async (_, ending, code, complaint) => {
    const program = `const backend = await openBackend("wasm", { threads: ${threads} });
      compute(backend); console.log(backend.info.threads); ${ending}`;
    const ended = await run(program);
    expect(ended.stderr).toContain(complaint);
    expect(ended).toMatchObject({ code, stdout: `${threads}\n` });
    expect(ended.after).toBeLessThan(SOON);
  });
});

test("a process that does not wait for its threads to start is over at once", async () => {
  const ended = await run(
    `void openBackend("wasm", { threads: 4 }).then(() => console.log("open")); console.log("done");`,
  );
  expect(ended).toMatchObject({ code: 0, stderr: "" });
});

/** What stays would show a hundredfold: a thread, a handle, a memory of 3 MiB and more. */
describe.runIf(process.platform === "linux")("100 backends", () => {
  test.each([
    ["opened and closed", "await Promise.all(backends.map((backend) => backend.close()));"],
    ["opened and dropped", ""],
  ])(
    "%s leave no threads, handles or memory",
    async (_, ending) => {
      const program = `
      let most = 0;
      const open = async () => {
        const backends = await Promise.all(Array.from({ length: 10 }, () => openBackend("wasm", { threads: 2 })));
        backends.forEach(compute);
        most = Math.max(most, threads());
        ${ending}
      };
      const left = async (times) => {
        for (let i = 0; i < times; i++) await open().then(collect);
        return { most, threads: threads(), handles: process.getActiveResourcesInfo().length, rss: process.memoryUsage.rss() };
      };
      console.log(JSON.stringify([await left(3), await left(7)]));`;
      const ended = await run(program);
      expect(ended.stderr).toBe("");
      const [before, after] = JSON.parse(ended.stdout);
      expect(after.most).toBe(before.threads + 10);
      expect(after.threads).toBe(before.threads);
      expect(after.handles).toBe(before.handles);
      expect((after.rss - before.rss) / 2 ** 20).toBeLessThan(40);
    },
    300_000,
  );
});
