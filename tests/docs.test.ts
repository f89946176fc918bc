import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as peftTokens from "@neolog/peft-tokens";
import { expect, test, vi } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const page = readFileSync(join(root, "docs/coming-from-peft.md"), "utf8");
const blocksOf = (markdown: string) =>
  [...markdown.matchAll(/```(\w*)\n([\s\S]*?)```/g)].map(([, language, text]) => ({ language, text: text! }));
const programsOf = (markdown: string): string[] =>
  blocksOf(markdown).flatMap(({ language, text }) => (language === "ts" ? [text] : []));
const blocks = blocksOf(page);
const programs = programsOf(page);

/** What a program prints. */
async function printed(program: string): Promise<string[]> {
  mkdirSync(join(root, "out"), { recursive: true });
  const folder = mkdtempSync(join(root, "out", "docs-")); // inside the workspace, so that its packages resolve
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    writeFileSync(join(folder, "program.ts"), program);
    await import(/* @vite-ignore */ pathToFileURL(join(folder, "program.ts")).href);
    return log.mock.calls.flat().map((item) => (typeof item === "string" ? item : JSON.stringify(item)));
  } finally {
    log.mockRestore();
    rmSync(folder, { recursive: true });
  }
}

test("the programs of the page for people who know PEFT run and print what it says", async () => {
  expect(programs).toHaveLength(2);
  const line = blocks.find(({ text }) => text.startsWith("trainable params"))!.text.trim();
  expect(await printed(programs[0]!)).toEqual([line]);
  expect(await printed(programs[1]!)).toEqual(['["default"]']);
});

test("every name in its table is there", () => {
  const names = page.slice(page.indexOf("## Names"), page.indexOf("## What differs"));
  const here = names.split("\n").flatMap((line) => [...(line.split("|")[2] ?? "").matchAll(/`([^`@]+)`/g)]);
  const known = new Set([
    ...Object.keys(peftTokens),
    ...Object.getOwnPropertyNames(peftTokens.PeftModel),
    ...Object.getOwnPropertyNames(peftTokens.PeftModel.prototype),
    "AdamW",
  ]);
  const called = here.flatMap(([, code]) =>
    [...code!.matchAll(/(?<![{\w] ?)\b([a-zA-Z]+)(?=\(|$)/g)].map(([, name]) => name!),
  );
  expect(called.length).toBeGreaterThan(30);
  for (const name of called) expect(known, name).toContain(name);
});

test("it tells every documented difference once", () => {
  const rows = [...page.matchAll(/^\| (T-\d+) /gm)].map(([, row]) => row);
  expect(rows).toEqual(Array.from({ length: 23 }, (_, i) => `T-${i + 1}`));
});

test("the program of the page on generation streams the text that it generates", async () => {
  const [program, ...others] = programsOf(readFileSync(join(root, "docs/generation.md"), "utf8"));
  expect(others).toEqual([]);
  const [generated, streamed, ...rest] = await printed(program!);
  expect(rest).toEqual([]);
  expect(generated).toMatch(/^ a fox sees the .* roar$/);
  expect(streamed).toBe(generated);
});

test("the program of the page on training prints the losses that it says", async () => {
  const training = readFileSync(join(root, "docs/training.md"), "utf8");
  const [program, ...others] = programsOf(training);
  expect(others).toEqual([]);
  const said = blocksOf(training)
    .find(({ language }) => language === "")!
    .text.trim();
  expect((await printed(program!)).join("\n")).toBe(said);
});
