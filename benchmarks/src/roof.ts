import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Case } from "./case.ts";
import type { Roof } from "./figure.ts";
import { quiet } from "./machine.ts";
import type { Options } from "./options.ts";

const LOOPS = ["fma128", "mulAdd128", "fma256", "readMemory", "addCached", "addMemory"] as const;
type Loop = (typeof LOOPS)[number];
type Rates = Readonly<Record<Loop, number>>;

/** One Zen 4 core at 3.6 GHz, GFLOP/s and GB/s; `addCached` is its level 2. */
const STORED: Rates = {
  fma128: 58.5,
  mulAdd128: 57.6,
  fma256: 117.1,
  readMemory: 27.5,
  addCached: 94,
  addMemory: 31,
};
const NAMES: Readonly<Record<Loop, string>> = {
  fma128: "128-bit FMA",
  mulAdd128: "128-bit multiply and add",
  fma256: "256-bit FMA",
  readMemory: "reading 256 MiB",
  addCached: "a + b of 384 KiB",
  addMemory: "a + b of 60 MiB",
};

const ROUNDS = 3;

/** What the processor can do at most, by native loops. */
export class Roofs {
  readonly #rates: ReadonlyMap<number, Rates>;
  readonly measured: boolean;

  private constructor(rates: ReadonlyMap<number, Rates>, measured: boolean) {
    this.#rates = rates;
    this.measured = measured;
  }

  /** Compiles roof/roof.c and runs it a few times; without a compiler the stored rates, which are another machine's. */
  static async measure({ threads: counts, wait }: Pick<Options, "threads" | "wait">): Promise<Roofs> {
    const source = fileURLToPath(new URL("../roof/roof.c", import.meta.url));
    const folder = mkdtempSync(join(tmpdir(), "neolog-roof-"));
    try {
      const program = join(folder, "roof");
      execFileSync(process.env["CC"] ?? "cc", ["-O3", "-march=native", "-pthread", source, "-o", program], {
        stdio: ["ignore", "ignore", "ignore"],
      });
      const rates = new Map<number, Rates>();
      for (const threads of counts) {
        const runs: Rates[] = [];
        for (let round = 0; round < ROUNDS; round++) {
          await quiet(wait);
          runs.push(JSON.parse(execFileSync(program, [String(threads)], { encoding: "utf8" })) as Rates);
        }
        rates.set(threads, highest(runs));
      }
      return new Roofs(rates, true);
    } catch {
      return new Roofs(new Map(), false);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** What a case is measured by on so many threads, or null. */
  of({ roof }: Case, threads: number, vectorBits: 128 | 256): Roof | null {
    if (roof === "none") return null;
    const rates = this.#rates.get(threads) ?? STORED;
    const loop = roof === "arithmetic" ? highestArithmetic(rates, vectorBits) : roof;
    const value = rates[loop] * (this.measured ? 1 : threads);
    return { name: NAMES[loop], value, unit: roof === "arithmetic" ? "GFLOP/s" : "GB/s", measured: this.measured };
  }

  /** One line per number of threads. */
  lines(): string[] {
    if (!this.measured) return ["roof: no C compiler here; the stored rates of a Zen 4 core at 3.6 GHz stand in"];
    return [...this.#rates].map(
      ([threads, rates]) =>
        `roof, ${threads} thread${threads > 1 ? "s" : ""}: ${LOOPS.map((loop) => `${NAMES[loop]} ${rates[loop]}`).join(", ")}`,
    );
  }
}

/** Loop by loop: what something else on the machine took away is no limit of it. */
const highest = (runs: readonly Rates[]): Rates =>
  Object.fromEntries(LOOPS.map((loop) => [loop, Math.max(...runs.map((rates) => rates[loop]))])) as Rates;

function highestArithmetic(rates: Rates, vectorBits: 128 | 256): Loop {
  if (vectorBits === 256) return "fma256";
  return rates.mulAdd128 > rates.fma128 ? "mulAdd128" : "fma128";
}
