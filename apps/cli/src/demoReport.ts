import type { CausalLM } from "@neolog/models";
import { HELD_OUT, TOLD, WORDS } from "@neolog/stories";
import { backendLine } from "./backend.ts";
import { lossCurve } from "./chart.ts";
import { type Answer, RECIPE } from "./lesson.ts";
import type { Report } from "./report.ts";
import { bytes, columns, thousands } from "./text.ts";

export function showModel(report: Report, base: CausalLM, writing: readonly string[]): void {
  const parameters = base.parameters().reduce((sum, t) => sum + t.size, 0);
  report.section("The model");
  report.facts([
    ["meadow", `a Llama of ${thousands(parameters)} parameters that this project trained on stories about animals`],
    [
      "table",
      `${thousands(base.config.vocab_size)} tokens × ${String(base.config["hidden_size"])} numbers; the output head is tied to it`,
    ],
    ["it runs on", backendLine()],
    ["it writes", writing[0]!],
  ]);
}

export function showWords(report: Report, ids: readonly number[], lesson: readonly string[]): void {
  report.section("Three new words");
  report.facts(Object.entries(WORDS).map(([word, animal], i) => [word, `token ${ids[i]}`, `stands for ${animal}`]));
  report.lines("");
  report.text(
    `Nobody tells the model so. It reads ${lesson.length} sentences that give each one's ${TOLD.join(" and ")}, such as`,
  );
  report.dim(...lesson.filter((_, i) => i % Math.ceil(lesson.length / 3) === 0));
  report.text(`It has to find out by itself about ${HELD_OUT.slice(0, -1).join(", ")} and ${HELD_OUT.at(-1)}.`);
}

export const showWriting = (report: Report, texts: readonly string[]): void => report.dim(...texts);

export function showTraining(report: Report, losses: readonly number[]): void {
  report.lines(...lossCurve(losses, { width: report.width }));
  report.dim(
    `loss of ${losses.length} steps of ${RECIPE.batch_size} sentences: ${losses[0]!.toFixed(3)} → ${losses.at(-1)!.toFixed(3)}`,
  );
}

/** One question per word and aspect, and how many of all are right. */
export function showAnswers(report: Report, before: readonly Answer[], after: readonly Answer[]): void {
  const shown = after.flatMap((answer, i) =>
    after.findIndex(({ word, aspect }) => word === answer.word && aspect === answer.aspect) === i ? [i] : [],
  );
  const rows = shown.map((i) => [after[i]!.prompt, before[i]!.given, after[i]!.given]);
  const [head, ...lines] = columns([["never told", "before", "after"], ...rows]);
  report.lines("");
  report.dim(head!);
  const width = Math.max(...lines.map((line) => line.length));
  lines.forEach((line, at) => report.lines(`${line.padEnd(width)}  ${report.mark(after[shown[at]!]!.right)}`));
  report.lines("", `held-out questions right: ${scoreOf(before)} before, ${scoreOf(after)} after`);
}

const scoreOf = (answers: readonly Answer[]): string =>
  `${answers.filter(({ right }) => right).length} of ${answers.length}`;

export function showUnchanged(
  report: Report,
  { equal, total }: { equal: number; total: number },
  stories: number,
): void {
  report.section("What did not change");
  report.check(
    "isolation",
    equal === total,
    `${thousands(equal)} of ${thousands(total)} logits bit-equal in ${stories} stories without the new words`,
  );
  report.text(
    "Counted are the logits of all old tokens. The head is tied, so the new words' own logits do change there, and with them the probabilities.",
  );
}

export function showDisk(
  report: Report,
  folders: { readonly adapter: string; readonly merged: string },
  adapterBytes: number,
  tableBytes: number,
): void {
  report.section("On disk");
  report.facts([
    [
      "adapter",
      `${folders.adapter}/`,
      `rows ${bytes(adapterBytes)}; the full table is ${bytes(tableBytes)}, ${Math.round(tableBytes / adapterBytes)} times as much`,
    ],
    ["merged", `${folders.merged}/`, "a plain checkpoint"],
  ]);
}

export function showPython(report: Report, base: string, adapter: string): void {
  report.section("The same adapter in Python");
  report.dim(
    "from peft import PeftModel",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    `tokenizer = AutoTokenizer.from_pretrained("${adapter}")`,
    `base = AutoModelForCausalLM.from_pretrained("${base}")`,
    "base.resize_token_embeddings(len(tokenizer))",
    `model = PeftModel.from_pretrained(base, "${adapter}")`,
  );
}
