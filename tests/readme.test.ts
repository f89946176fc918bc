import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { AutoModelForCausalLM } from "@neolog/models";
import { PeftModel, tokensOf } from "@neolog/peft-tokens";
import { expect, test, vi } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");
const blocks = [...readme.matchAll(/```(\w*)\n([\s\S]*?)```/g)].map(([, language, text]) => ({
  language,
  text: text!,
}));
const only = (language: string): string => {
  const found = blocks.filter((block) => block.language === language);
  expect(found, `blocks of ${language}`).toHaveLength(1);
  return found[0]!.text;
};

test("the README's program runs, prints the README's line, and writes what its Python lines load", async () => {
  const line = blocks.find(({ text }) => text.startsWith("trainable params"))!.text.trim();
  mkdirSync(join(root, "out"), { recursive: true });
  const folder = mkdtempSync(join(root, "out", "readme-")); // inside the workspace, so that its packages resolve
  try {
    const program = only("ts").replace(
      'savePretrained("wug")',
      `savePretrained(${JSON.stringify(join(folder, "wug"))})`,
    );
    expect(program).toContain(folder);
    writeFileSync(join(folder, "program.ts"), program);
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    await import(/* @vite-ignore */ pathToFileURL(join(folder, "program.ts")).href);
    const printed = log.mock.calls.flat();
    log.mockRestore();
    expect(printed).toContain(line);

    const python = only("python");
    const rows = Number(/resize_token_embeddings\((\d+)\)/.exec(python)![1]);
    const base = await AutoModelForCausalLM.fromPretrained(
      join(root, /from_pretrained\("([^"]+)"\)/.exec(python)![1]!),
    );
    base.resizeTokenEmbeddings(rows);
    const peft = await PeftModel.fromPretrained(base, join(folder, "wug"), {
      onWarning: ({ message }) => expect.fail(message),
    });
    expect(tokensOf(peft.peftConfig["default"]!)).toEqual([rows - 1]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("every path, package and script that the README names is there", () => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  for (const [, script] of readme.matchAll(/npm run ([\w:]+)/g)) expect(Object.keys(scripts)).toContain(script);
  for (const [, path] of readme.matchAll(/`((?:packages|apps|benchmarks|tests|fixtures)\/[^`\s]*)`/g))
    expect(existsSync(join(root, path!)), path).toBe(true);
});
