import { mkdtemp, readFile, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { type PreviewServer, build, preview } from "vite";

const CONFIG = fileURLToPath(new URL("../../apps/playground/vite.config.ts", import.meta.url));

/** The playground as it is published, behind a server of its own. */
export class Playground {
  readonly #folder: string;
  readonly #server: PreviewServer;

  private constructor(folder: string, server: PreviewServer) {
    this.#folder = folder;
    this.#server = server;
  }

  /** Built once; `isolated` says whether it is served with the headers that let a page share memory. */
  static async serve({ isolated = true } = {}): Promise<Playground> {
    const outDir = await mkdtemp(join(tmpdir(), "neolog-"));
    const options = { configFile: CONFIG, logLevel: "error" as const, build: { outDir } };
    await build(options);
    const server = await preview({
      ...options,
      preview: {
        port: 0,
        host: "127.0.0.1",
        ...(isolated ? {} : { headers: { "Cross-Origin-Opener-Policy": "", "Cross-Origin-Embedder-Policy": "" } }),
      },
    });
    return new Playground(outDir, server);
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.httpServer.address() as AddressInfo).port}/`;
  }
  async close(): Promise<void> {
    await this.#server.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** A fresh page at these settings, with the model loaded or refused. What the page throws or logs as an error is in `errors`. */
export async function openPage(
  browser: Browser,
  url: string,
  settings = "",
): Promise<{ page: Page; errors: string[] }> {
  const page = await (await browser.newContext({ acceptDownloads: true })).newPage();
  const errors: string[] = [];
  page.on("pageerror", ({ message }) => errors.push(message));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(`${url}#${settings}`);
  return { page, errors };
}

export const teach = (page: Page): Promise<void> => page.getByRole("button", { name: "Teach it the words" }).click();

/** Trains to the end; → what the page then shows and offers. */
export async function trainOn(page: Page) {
  await teach(page);
  await page.getByRole("heading", { name: "Take it away" }).waitFor();
  const textsOf = (side: string): Promise<string[]> => page.locator(`#${side} blockquote`).allTextContents();
  const links = page.locator(".files a");
  const files = new Map<string, Uint8Array>();
  for (const link of await links.all()) {
    const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
    files.set(download.suggestedFilename(), new Uint8Array(await readFile(await download.path())));
  }
  return {
    chosen: (await page.locator("#chosen").textContent())!,
    status: (await page.getByRole("status").textContent())!,
    before: await textsOf("before"),
    after: await textsOf("after"),
    files,
  };
}
