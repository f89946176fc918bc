import type { Figure } from "../figure.ts";
import { digits } from "../report.ts";
import { type Race, racesOf } from "./races.ts";

/** A bar that was set, and what was measured. */
export interface Judged {
  readonly what: string;
  readonly bar: string;
  readonly measured: string;
  readonly met: boolean;
}

const OURS = "neolog";
const PEFT = "PEFT on torch";
const JAVASCRIPT: readonly string[] = ["tfjs-wasm", "jax-js"];
/** Times PEFT's speed, of every shape but the one that is there to be quick: in the steady state on two threads, by the case and Node's version. */
const SPEED: { readonly [version: string]: { readonly [name: string]: number } } = {
  20: { a: 1.1, b: 2, c: 2 },
  24: { a: 1.8, b: 3.5, c: 3.5 },
};
const JAVASCRIPT_SPEED = 3;
const MEMORY = 0.6;
const MEMORY_SHAPES: readonly string[] = ["gpt2", "qwen2.5-0.5b"];
const ROWS_OF_PEFT = 1e-4;
const ROWS_WITHOUT_REUSE = 1e-6;
const TOKENS_GROWTH = 1.03;
/** The head's product is timed by itself, on a machine that is never quite quiet. */
const HEAD_MARGIN = 1.1;
/** Resident memory of a long run, since it is warm. */
const GROWN = 1.02;
const WHOLE_TABLE_GIB = 4.8;

/** For people. */
export const judgedLine = ({ what, bar, measured, met }: Judged): string =>
  `${met ? "met" : "MISSED"}: ${what}: ${bar}, measured ${measured}`;

/** Every bar that the figures tell something of. */
export const judge = (figures: readonly Figure[]): Judged[] => racesOf(figures).flatMap(judgeRace);

function judgeRace(race: Race): Judged[] {
  const [, shape = "", name = "", resident] = /^step (\S+) ([abc])( resident)?$/.exec(race.name) ?? [];
  if (resident) return MEMORY_SHAPES.includes(shape) ? memory(race) : [];
  if (name) return shape === "tiny" ? [] : speed(race, name);
  if (race.name.startsWith("peers ")) return javascript(race);
  if (race.name.startsWith("rows after")) return rows(race);
  if (race.name.endsWith("differences")) return differences(race);
  if (race.name.startsWith("scaling")) return scaling(race);
  if (race.name.endsWith(": grown")) return race.figures.map(({ median }) => atMost(race.name, GROWN, median, "×"));
  return [];
}

const named = ({ figures }: Race, name: string, threads = 2): Figure | undefined =>
  figures.find((figure) => figure.contender === name && figure.threads === threads);
const titleOf = ({ name, shape }: Race): string => `${name}, ${shape.join("×")}`;
const atLeast = (what: string, bar: number, measured: number, unit = "×"): Judged => ({
  what,
  bar: `≥ ${bar} ${unit}`,
  measured: `${digits(measured)} ${unit}`,
  met: measured >= bar,
});
const atMost = (what: string, bar: number, measured: number, unit = ""): Judged => ({
  what,
  bar: `≤ ${digits(bar)} ${unit}`.trim(),
  measured: `${digits(measured)} ${unit}`.trim(),
  met: measured <= bar,
});

const versionOf = ({ runtime }: Figure): string => /\d+/.exec(runtime)?.[0] ?? "";

function speed(race: Race, name: string): Judged[] {
  const [ours, peft] = [named(race, OURS), named(race, PEFT)];
  const bar = ours && SPEED[versionOf(ours)]?.[name];
  if (!ours || !peft || bar === undefined) return [];
  return [atLeast(`${titleOf(race)}, Node ${versionOf(ours)}: PEFT's speed`, bar, peft.median / ours.median)];
}

function javascript(race: Race): Judged[] {
  const ours = named(race, OURS);
  const best = Math.min(...race.figures.filter((f) => JAVASCRIPT.includes(f.contender)).map((f) => f.median));
  if (!ours || !Number.isFinite(best)) return [];
  const what = `${titleOf(race)}, Node ${versionOf(ours)}: speed of the best in JavaScript`;
  return [atLeast(what, JAVASCRIPT_SPEED, best / ours.median)];
}

function memory(race: Race): Judged[] {
  const [ours, peft] = [named(race, OURS), named(race, PEFT)];
  if (!ours || !peft) return [];
  return [atMost(`${titleOf(race)}, ${ours.runtime}: of PEFT's memory`, MEMORY, ours.median / peft.median, "×")];
}

function rows(race: Race): Judged[] {
  return race.figures.flatMap(({ contender, median }) => {
    if (contender === `${OURS} against ${PEFT}`) return [atMost(`${titleOf(race)}: from PEFT's`, ROWS_OF_PEFT, median)];
    if (contender === `${OURS} against ${OURS} without reuse`) {
      return [atMost(`${titleOf(race)}: with caches and without`, ROWS_WITHOUT_REUSE, median)];
    }
    return [];
  });
}

function differences(race: Race): Judged[] {
  const of = (begin: string, not = "\n"): Figure | undefined =>
    race.figures.find(({ contender }) => contender.startsWith(begin) && !contender.includes(not));
  const [rowsMore, bound, full] = [of("b − a", "bound"), of("b − a, the bound"), of("d − b")];
  return [
    ...(rowsMore && bound
      ? [atMost(`${titleOf(race)}: rows beside forward`, bound.median, rowsMore.median, "MiB")]
      : []),
    ...(full
      ? [
          atLeast(
            `${titleOf(race)}: the whole table${full.contender.includes("computed") ? " (computed)" : ""} beside rows`,
            WHOLE_TABLE_GIB,
            full.median / 1024,
            "GiB",
          ),
        ]
      : []),
  ];
}

/** Sizes are in the names, such as "T = 256". */
function scaling({ name, figures }: Race): Judged[] {
  const sizes = figures.flatMap(({ contender, median }) => {
    const [, size] = /^[TkV] = (\d+)$/.exec(contender) ?? [];
    return size === undefined ? [] : [{ size: Number(size), median }];
  });
  const [first, last] = [sizes[0], sizes.at(-1)];
  if (!first || !last || first === last) return [];
  const grown = last.median / first.median;
  const span = `${first.size} to ${last.size}`;
  if (name === "scaling length") return [atMost(`${name}: from ${span}`, last.size / first.size, grown, "×")];
  if (name.startsWith("scaling tokens")) return [atMost(`${name}: from ${span}`, TOKENS_GROWTH, grown, "×")];
  const head = figures.find(({ contender }) => contender.startsWith("the head"));
  return head
    ? [atMost(`${name}: more from ${span} than`, HEAD_MARGIN * head.median, last.median - first.median, "ms")]
    : [];
}
