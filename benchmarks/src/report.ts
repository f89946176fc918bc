import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { type Case, nameOf } from "./case.ts";
import { type Figure, type Roof, linesOf, nameOfFigure, spreadOf } from "./figure.ts";
import { commit, machine } from "./machine.ts";
import type { Options } from "./options.ts";
import { racesOf } from "./report/races.ts";
import type { Result } from "./race.ts";
import type { Roofs } from "./roof.ts";
import { inUnit } from "./units.ts";

/** Who is measured. */
type Who = Pick<Figure, "contender" | "threads" | "runtime">;

/** Writes figures as they come: a table for people on stderr, lines of JSON on stdout unless a person looks at it. */
export class Report {
  /** What was measured, and what the file that figures are added to had of this run already. */
  readonly figures: Figure[] = [];
  readonly #lines: boolean;
  readonly #table: boolean;
  readonly #out: string;
  readonly #stored: readonly Figure[];
  readonly #machine = machine();
  readonly #commit = commit();

  constructor({ json, out }: Pick<Options, "json" | "out">) {
    this.#lines = json || !process.stdout.isTTY;
    this.#table = !json;
    this.#out = out;
    this.#stored = out !== "" && existsSync(out) ? linesOf(readFileSync(out, "utf8")) : [];
  }

  /**
   * Whether the file has a race of this name and shape with a figure of this runtime, of this commit: it counts as of this run. That
   * of a checkout with changes is never taken again.
   */
  has(name: string, shape: readonly number[], runtime: string): boolean {
    if (this.#commit.endsWith("+")) return false;
    const found = racesOf(this.#stored.filter((figure) => figure.commit === this.#commit)).filter(
      (other) =>
        other.name === name &&
        other.shape.join() === shape.join() &&
        other.figures.some((figure) => figure.runtime.startsWith(runtime)),
    );
    if (found.length === 0) return false;
    this.note(`\n${name} ${shape.join("×")}: in ${this.#out} already`);
    this.figures.push(...found.flatMap(({ figures }) => figures));
    return true;
  }

  /** A line for people. */
  note(text: string): void {
    if (this.#table) console.error(text);
  }

  /** The figures of one case, and how much faster than its first contender each is. */
  add(c: Case, results: readonly Result[], roofs: Roofs): void {
    if (!results[0]) return;
    this.note(`\n${nameOf(c)}  [${c.unit}; times ${results[0].contender.spec.name}]`);
    const first = spreadOf(results[0].ns).median;
    for (const { contender, ns, disturbance } of results) {
      const { name, threads } = contender.spec;
      const roof = roofs.of(c, threads, contender.hello.vectorBits);
      const figure = this.figure(c, ns, {
        contender: name,
        threads,
        roof,
        runtime: contender.hello.runtime,
        disturbance,
      });
      this.write(figure, first / spreadOf(ns).median);
    }
  }

  /** A figure of nanoseconds in the unit of its case. */
  figure(
    c: Case,
    ns: readonly number[],
    { roof, ...who }: Pick<Figure, "contender" | "threads" | "roof" | "runtime" | "disturbance">,
  ): Figure {
    const spread = spreadOf(ns.map((each) => inUnit(c, each)));
    const rate = c.amount / spreadOf(ns).median;
    return {
      name: nameOfFigure(c),
      shape: c.shape,
      ...who,
      unit: c.unit,
      ...spread,
      percent: roof ? (100 * rate) / roof.value : null,
      roof,
      machine: this.#machine,
      commit: this.#commit,
    };
  }

  /** Memory, of which there is one sample. */
  addBytes(name: string, shape: readonly number[], who: Who, bytes: number): void {
    this.addValue(name, shape, who, "MiB", bytes / 2 ** 20);
  }

  /** A figure of one sample. */
  addValue(name: string, shape: readonly number[], who: Who, unit: string, value: number): void {
    const spread = { median: value, min: value, p10: value, p90: value };
    const where = { machine: this.#machine, commit: this.#commit };
    this.write({ name, shape, ...who, unit, ...spread, percent: null, roof: null, disturbance: 0, ...where }, null);
  }

  /** `times`: how much faster than the first contender of its case, where one was raced. */
  write(figure: Figure, times: number | null): void {
    this.figures.push(figure);
    if (this.#lines) console.log(JSON.stringify(figure));
    if (this.#out) appendFileSync(this.#out, `${JSON.stringify(figure)}\n`);
    const { contender, threads, median, p10, p90, percent, roof } = figure;
    const who = `  ${contender}, ${threads} thread${threads > 1 ? "s" : ""}`.padEnd(36);
    const share = percent === null ? "" : `${percent.toFixed(0).padStart(5)} % of ${short(roof!)}`;
    const spread = (p10 === p90 ? "" : `(${digits(p10)} to ${digits(p90)})`).padEnd(20);
    const factor = times === null ? "" : `${times.toFixed(2).padStart(6)}x`;
    const mark = disturbed(figure);
    this.note(`${who}${digits(median).padStart(9)} ${spread}${factor}${share}${mark && `, ${mark}`}`);
  }
}

const short = ({ name, value, unit, measured }: Roof): string =>
  `${digits(value)} ${unit}, ${name}${measured ? "" : ", stored"}`;

/** A note at figures that other programs may have spoilt. */
export const disturbed = ({ disturbance }: Figure): string =>
  disturbance > 0.1 ? `disturbed (${(100 * disturbance).toFixed(0)} %)` : "";

/** Three significant digits; whole numbers from 100 on, powers of ten below a thousandth. */
export function digits(x: number): string {
  if (x === 0) return "0";
  if (Math.abs(x) < 1e-3) return x.toExponential(2).replace(".00e", "e");
  return Math.abs(x) >= 100 ? x.toFixed(0) : x.toPrecision(3);
}
