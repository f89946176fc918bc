import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Options } from "../options.ts";
import type { Report } from "../report.ts";
import type { Measured } from "./large.ts";

const MIB = 2 ** 20;

/**
 * A folder of 1.2 billion bfloat16 parameters in shards: seconds to load it from the system's file cache, the most memory that takes beside the file's size,
 * and tokens per second. The folder is written first and deleted after. Throws where loading takes 10% more than the files hold.
 */
export function benchLoad(options: Options, report: Report): void {
  const dir = mkdtempSync(join(tmpdir(), "neolog-load-"));
  try {
    const { bytes, shards } = run(process.execPath, "./writeLarge.js", dir, ...(options.quick ? ["1"] : [])) as {
      bytes: number;
      shards: number;
    };
    report.note(`\nload a Llama of ${(bytes / 2e9).toFixed(2)} billion bfloat16 parameters, ${shards} shards`);
    run(options.node, "./measure.js", dir, "wasm", "1"); // the first meets a disk that still writes
    for (const threads of options.threads) {
      const found = run(options.node, "./measure.js", dir, "wasm", String(threads)) as Measured;
      const who = { contender: "neolog", threads, runtime: found.runtime };
      const add = (name: string, unit: string, value: number): void => {
        report.note(`${name}  [${unit}]`);
        report.addValue(`load 1b ${name}`, [bytes / 2], who, unit, value);
      };
      add("time", "s", found.load);
      add("rate", "GB/s", bytes / 1e9 / found.load);
      add("files", "MiB", bytes / MIB);
      add("resident before", "MiB", found.before / MIB);
      add("resident at most while loading", "MiB", found.loaded / MIB);
      add("resident at most while generating", "MiB", found.generated / MIB);
      add("first token after 16", "s", found.prompt);
      add("generate", "tokens/s", found.tokensPerSecond);
      const share = found.loaded / bytes;
      // in a quick run the process itself counts beside small files
      if (!options.quick && share > 1.1) {
        throw new Error(`load: resident memory must stay within 1.1 times the files, got ${share.toFixed(3)} times`);
      }
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** What a script of this folder prints. */
function run(node: string, script: string, ...args: string[]): unknown {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const text = execFileSync(node, [path, ...args], { stdio: ["ignore", "pipe", "inherit"], encoding: "utf8" });
  return JSON.parse(text);
}
