import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

export const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

const shared = fileURLToPath(new URL("../../../shared/golden/models", import.meta.url));
/** Recorded models, by their names; a few where the whole set is absent. */
const MODELS = existsSync(shared) ? shared : fileURLToPath(new URL("../../fixtures/models", import.meta.url));
export const RECORDED = ["gpt2", "llama"].filter((name) => existsSync(join(MODELS, name, "peft.json")));

/** Builds scripts of this folder for a browser, with what test suites import from vitest; → the folder that holds them. */
export async function buildScripts(...names: readonly string[]): Promise<string> {
  const outDir = await mkdtemp(join(tmpdir(), "neolog-"));
  await build({
    configFile: false,
    logLevel: "error",
    resolve: {
      conditions: ["@neolog/source", "browser"],
      alias: [{ find: /^vitest$/, replacement: fileURLToPath(new URL("vitest.ts", import.meta.url)) }],
    },
    build: {
      outDir,
      target: "es2023",
      minify: false,
      rolldownOptions: {
        input: names.map((name) => fileURLToPath(new URL(name, import.meta.url))),
        output: { entryFileNames: "[name].js", chunkFileNames: "[name].js" },
        external: [/^node:/, "webgpu"],
      },
    },
  });
  return outDir;
}

/** An isolated, empty page beside the scripts of a folder, and the recorded models under /models/. */
export class Bed {
  readonly #folder: string;
  readonly #server: Server;

  private constructor(folder: string, server: Server) {
    this.#folder = folder;
    this.#server = server;
  }
  static async serve(...scripts: readonly string[]): Promise<Bed> {
    const folder = await buildScripts(...scripts);
    const server = createServer((request, response) => {
      for (const [name, value] of Object.entries(ISOLATION)) response.setHeader(name, value);
      const { pathname } = new URL(request.url!, "http://localhost");
      const [, place, rest] = /^\/(models)\/(.*)$/.exec(pathname) ?? [];
      const isScript = pathname.endsWith(".js");
      response.setHeader(
        "Content-Type",
        isScript ? "text/javascript" : place ? "application/octet-stream" : "text/html",
      );
      if (!isScript && !place) return void response.end("<!doctype html><title>test</title>");
      readFile(place ? join(MODELS, rest!) : join(folder, basename(pathname))).then(
        (bytes) => response.end(bytes),
        () => response.writeHead(404).end(),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new Bed(folder, server);
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
