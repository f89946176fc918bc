import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Figure, linesOf } from "../figure.ts";
import { type Options, UsageError } from "../options.ts";
import { judge } from "./acceptance.ts";
import { markdown } from "./markdown.ts";
import { plot } from "./plot.ts";
import { type Race, racesOf } from "./races.ts";

const FOLDER = fileURLToPath(new URL("../../report/", import.meta.url));
/** What is plotted: a picture for each first word that the names of races share, and their unit. */
const PLOTTED = /^(step \S+|peers \S+|forward \S+|memory \S+|scaling)/;

/** Writes report/NAME.md, the lines as NAME.jsonl, and NAME-….svg of what files of JSON lines hold. */
export async function writeReport({ filter: [name, ...files] }: Options): Promise<void> {
  if (name === undefined || files.length === 0) throw new UsageError("report needs a name and files of JSON lines");
  const figures = files.flatMap((file) => linesOf(readFileSync(file, "utf8")));
  if (figures.length === 0) throw new UsageError(`no figure is in ${files.join(", ")}`);
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(`${FOLDER}${name}.jsonl`, figures.map((figure) => `${JSON.stringify(figure)}\n`).join(""));

  const pictures: string[] = [];
  for (const [title, races] of picturesOf(figures)) {
    const file = `${name}-${title.replace(/[^a-z0-9.]+/gi, "-")}.svg`;
    writeFileSync(`${FOLDER}${file}`, await plot(title, races));
    pictures.push(`![${title}](${file})`);
  }
  const parts = [`# ${name}`, judged(figures), ...pictures, markdown(figures)];
  writeFileSync(`${FOLDER}${name}.md`, `${parts.filter((part) => part !== "").join("\n\n")}\n`);
  console.error(`report: wrote ${FOLDER}${name}.md, ${figures.length} figures, ${pictures.length} plots`);
}

function picturesOf(figures: readonly Figure[]): Map<string, Race[]> {
  const found = new Map<string, Race[]>();
  for (const race of racesOf(figures)) {
    const [begin] = PLOTTED.exec(race.name) ?? [];
    if (begin === undefined) continue;
    const title = `${begin}, ${race.unit}`;
    found.set(title, [...(found.get(title) ?? []), race]);
  }
  return found;
}

/** Bars that are met and missed; nothing where the figures tell of none. */
function judged(figures: readonly Figure[]): string {
  const rows = judge(figures);
  if (rows.length === 0) return "";
  const missed = rows.filter(({ met }) => !met).length;
  const lines = rows.map(
    ({ what, bar, measured, met }) => `| ${what} | ${bar} | ${measured} | ${met ? "yes" : "**no**"} |`,
  );
  const summary = missed === 0 ? `All ${rows.length} bars are met.` : `${missed} of ${rows.length} bars are missed.`;
  return ["## Acceptance", "", summary, "", "| | bar | measured | met |", "|---|---|---|---|", ...lines].join("\n");
}
