import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const NAMED = process.env["CHROMIUM"];

/** The browser that tests run in, or undefined where there is none. */
export const CHROMIUM = (
  NAMED ? [NAMED] : ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
).find((path) => existsSync(path));

/** Nothing that reaches out of this machine. */
export const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
] as const;

/** The GPU in software, for those who ask for it; see `chrome://gpu`. */
export const SOFTWARE_GPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
] as const;

/** Why tests are skipped, printed once by each file; empty where they run. */
export function sayIfAbsent(file: string): void {
  if (CHROMIUM) return;
  console.log(
    `${file}: skipped, no Chromium was found; "apt-get install chromium" brings it on Debian, or name one in the environment variable CHROMIUM`,
  );
}

/** A headless Chromium with an empty profile. */
export const launch = (flags: readonly string[] = ["--disable-gpu"]): Promise<Browser> =>
  chromium.launch({ executablePath: CHROMIUM!, headless: true, args: [...FLAGS, ...flags] });
