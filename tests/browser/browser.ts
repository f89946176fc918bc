import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ISOLATION, buildScripts } from "./bed.ts";
import { CHROMIUM, FLAGS, sayIfAbsent } from "./chromium.ts";
import type { Report } from "./report.ts";

const PAGE = '<!doctype html><title>conformance</title><script type="module" src="/page.js"></script>';

sayIfAbsent("tests/browser/browser");

let folder: string;

beforeAll(async () => {
  folder = await buildScripts("page.ts", "worker.ts");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Serves the page; settles `report` with what the page posts. */
function serve(headers: Readonly<Record<string, string>>): { server: Server; report: Promise<Report> } {
  const { promise, resolve, reject } = withResolvers<Report>();
  const server = createServer((request, response) => {
    void (async () => {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      if (request.url === "/report") {
        const chunks: Buffer[] = [];
        for await (const chunk of request) chunks.push(chunk as Buffer);
        const report = JSON.parse(Buffer.concat(chunks).toString()) as Report | { error: string };
        response.end();
        if ("error" in report) reject(new Error(report.error));
        else resolve(report);
      } else if (request.url?.endsWith(".js")) {
        response.setHeader("Content-Type", "text/javascript");
        response.end(await readFile(join(folder, basename(request.url))));
      } else {
        response.setHeader("Content-Type", "text/html");
        response.end(PAGE);
      }
    })().catch(reject);
  });
  return { server, report: promise };
}

function withResolvers<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}

/** Runs the suites in a worker of a fresh Chromium. */
async function run(headers: Readonly<Record<string, string>>): Promise<Report> {
  const { server, report } = serve(headers);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const profile = await mkdtemp(join(tmpdir(), "neolog-"));
  const chromium = spawn(
    CHROMIUM!,
    ["--headless", "--disable-gpu", ...FLAGS, `--user-data-dir=${profile}`, `http://127.0.0.1:${port}/`],
    {
      stdio: "ignore",
    },
  );
  const ended = new Promise<void>((resolve) => chromium.on("close", () => resolve()));
  try {
    return await Promise.race([
      report,
      ended.then(() => Promise.reject(new Error("Chromium ended before the suites did"))),
    ]);
  } finally {
    chromium.kill();
    await ended;
    server.closeAllConnections();
    server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

describe.runIf(CHROMIUM !== undefined)("the conformance suite in a worker of Chromium", () => {
  test.each([
    ["with cross-origin isolation, on one and two threads", ISOLATION, [1, 2], true],
    ["without, on one thread", {}, [1, 1], false],
  ] as const)(
    "%s",
    async (_, headers, threads, isolated) => {
      const report = await run(headers);
      expect(report.failed).toEqual([]);
      expect(report.passed).toBeGreaterThan(400);
      expect(report).toMatchObject({ isolated, hasSharedArrayBuffer: isolated });
      expect(report.backends.map((info) => info["threads"])).toEqual(threads);
      const [one, two] = report.worker;
      expect([one!.threads, two!.threads]).toEqual(threads);
      expect(two!.bits).toBe(one!.bits);
      expect(report.page).toEqual({ threads: threads[1], bits: one!.bits });
      console.log(`${report.passed} passed, ${report.skipped} skipped`, report.backends.at(-1));
    },
    300_000,
  );
});
