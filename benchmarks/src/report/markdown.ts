import { readFileSync } from "node:fs";
import { type Figure, linesOf } from "../figure.ts";
import { type Options, UsageError } from "../options.ts";
import { digits, disturbed } from "../report.ts";

/** Prints recorded lines of JSON as Markdown: a table for each benchmark, and where the figures are from. */
export function render({ filter: files }: Options): void {
  if (files.length === 0) throw new UsageError("render needs files of JSON lines, got none");
  const figures = files.flatMap((file) => linesOf(readFileSync(file, "utf8")));
  console.log(markdown(figures));
}

export function markdown(figures: readonly Figure[]): string {
  const distinct = (of: (figure: Figure) => string): string => distinctIn(figures.map(of).join("; "));
  const head = [
    `Machine: ${distinct(({ machine }) => machine)}.`,
    `Runtimes: ${distinct(({ runtime }) => runtime)}.`,
    `Commit: ${distinct(({ commit }) => commit)}.`,
    "Medians, with the tenth and the ninetieth percentile where there are several samples; percent of what a native loop reached in the same run, or on another machine where it is marked as stored; disturbed: other programs took a share of the machine.",
  ];
  const cases = new Map<string, Figure[]>();
  for (const figure of figures) {
    const title = `${figure.name} ${figure.shape.join("×")}, ${figure.unit}`;
    cases.set(title, [...(cases.get(title) ?? []), figure]);
  }
  return [...head, ...[...cases].map(([title, rows]) => table(title, rows))].join("\n\n");
}

/** Names that are separated by "; ", each once. */
const distinctIn = (names: string): string => [...new Set(names.split("; "))].join("; ");

function table(title: string, rows: readonly Figure[]): string {
  const lines = rows.map((figure) => {
    const { contender, threads, runtime, median, p10, p90, percent, roof } = figure;
    const share = roof ? `${percent!.toFixed(0)} % of ${digits(roof.value)} ${roof.unit}, ${roof.name}` : "";
    const marked = roof && !roof.measured ? `${share} (stored)` : share;
    const notes = [marked, disturbed(figure)].filter((note) => note !== "").join(", ");
    const spread = p10 === p90 ? "" : `${digits(p10)} to ${digits(p90)}`;
    return `| ${contender} | ${threads} | ${digits(median)} | ${spread} | ${notes} | ${distinctIn(runtime)} |`;
  });
  const header = ["| | threads | median | spread | roof | runtime |", "|---|---|---|---|---|---|"];
  return [`### ${title}`, "", ...header, ...lines].join("\n");
}
