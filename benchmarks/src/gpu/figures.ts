import { appendFileSync, writeFileSync } from "node:fs";

/** One line of the report: what was measured, on what, and the figure. */
export interface GpuFigure {
  readonly what: string;
  readonly who: string;
  readonly value: number;
  readonly unit: string;
}

/** Collects figures: JSON lines as they come, Markdown at the end. */
export class Figures {
  readonly #file: string;
  readonly #about: Readonly<Record<string, string | number | boolean>>;
  readonly #all: GpuFigure[] = [];

  constructor(file: string, about: Readonly<Record<string, string | number | boolean>>) {
    this.#file = file;
    this.#about = about;
    writeFileSync(`${file}.jsonl`, `${JSON.stringify(about)}\n`);
  }

  add(what: string, who: string, value: number, unit: string): void {
    this.#all.push({ what, who, value, unit });
    appendFileSync(`${this.#file}.jsonl`, `${JSON.stringify({ what, who, value, unit })}\n`);
    console.log(`${what.padEnd(48)} ${who.padEnd(24)} ${rounded(value)} ${unit}`);
  }

  /** Writes the Markdown; what lacks is named, not left out. */
  close(missing: readonly string[]): void {
    const about = Object.entries(this.#about).map(([name, value]) => `- ${name}: ${String(value)}`);
    const rows = this.#all.map(({ what, who, value, unit }) => `| ${what} | ${who} | ${rounded(value)} | ${unit} |`);
    const lacking = missing.length ? ["", "Not measured here:", "", ...missing.map((line) => `- ${line}`)] : [];
    const table = ["| what | who | figure | unit |", "| --- | --- | ---: | --- |", ...rows];
    writeFileSync(`${this.#file}.md`, ["# GPU figures", "", ...about, "", ...table, ...lacking, ""].join("\n"));
  }
}

const rounded = (value: number): string =>
  value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : String(Number(value.toPrecision(4)));

/** The least milliseconds of a few calls, each waited for; the first, which compiles, does not count if it is to warm up. */
export async function leastMs(
  call: () => Promise<void>,
  { repeats = 3, seconds = 20, warmUp = true } = {},
): Promise<number> {
  if (warmUp) await call();
  const end = performance.now() + seconds * 1000;
  let least = Infinity;
  for (let i = 0; i < repeats && (i === 0 || performance.now() < end); i++) {
    const start = performance.now();
    await call();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}
