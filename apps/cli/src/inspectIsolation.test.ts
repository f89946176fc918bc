import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const at = (name: string): string => join(folder.path, name);
beforeAll(async () => {
  folder = await temporaryFolder();
  await writeLines(at("data.jsonl"), [{ text: "the wug says moo" }]);
  for (const [name, tied] of [
    ["tied", true],
    ["untied", false],
  ] as const) {
    const model = await writeTinyModel(at(name), { tied });
    const run = { model, data: at("data.jsonl"), out: at(`${name}-rows`), tokens: "w,m", steps: 2, lr: 0.1 };
    await neolog(["train", ...flags(run)]);
  }
});
afterAll(() => folder[Symbol.asyncDispose]());

describe("inspect --isolation", () => {
  test.each([
    ["tied", "changed"],
    ["untied", "same"],
  ])("A-93 shows what a trained %s adapter leaves alone", async (name, trainedTokens) => {
    const { code, stdout } = await neolog(["inspect", at(`${name}-rows`), "--isolation", "--json"]);
    expect(code).toBe(0);
    const { holds, rows } = JSON.parse(stdout) as {
      holds: boolean;
      rows: { prompt: string; what: string; observed: string }[];
    };
    expect(holds).toBe(true);
    const seen = (prompt: string, what: string) =>
      rows.find((row) => row.prompt === prompt && row.what === what)!.observed;
    expect(seen("base", "parameters")).toBe("same");
    expect(seen("untouched", "hidden states")).toBe("same");
    expect(seen("untouched", "logits of trained tokens")).toBe(trainedTokens);
    expect(seen("touched", "hidden states from it on")).toBe("changed");
  });

  test("prints the table, for another base too", async () => {
    const { stdout } = await neolog(["inspect", at("untied-rows"), "--isolation", "--model", at("tied")]);
    expect(stdout).toContain(`adapter ${at("untied-rows")} on ${at("tied")}`);
    expect(stdout).toMatch(/prompt +what +promised +seen\n/);
    expect(stdout).toMatch(/untouched +logits of trained tokens +may change +changed\n/);
  });

  test("needs an adapter", async () => {
    const { code, stderr } = await neolog(["inspect", at("tied"), "--isolation"]);
    expect(code).toBe(1);
    expect(stderr).toContain("must hold adapter_config.json for --isolation, found none");
  });
});
