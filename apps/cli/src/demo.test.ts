import { join } from "node:path";
import { expect, test } from "vitest";
import type { Check } from "./report.ts";
import { filesOf, neolog, temporaryFolder } from "./testing.ts";

test("neolog demo teaches the built-in model and checks every step", async () => {
  await using folder = await temporaryFolder();
  const out = join(folder.path, "demo");
  const { code, stdout, stderr } = await neolog(["demo", "--out", out, "--json"]);
  expect(code).toBe(0);
  const result = JSON.parse(stdout) as {
    readonly checks: readonly Check[];
    readonly losses: readonly number[];
    readonly before: { readonly right: number; readonly questions: number };
    readonly after: { readonly right: number; readonly questions: number };
    readonly unchanged: { readonly equal: number; readonly total: number };
    readonly adapter_bytes: number;
    readonly table_bytes: number;
  };
  expect(Object.keys(result)).toEqual([
    "out",
    "seconds",
    "steps",
    "losses",
    "trainable",
    "all",
    "before",
    "after",
    "unchanged",
    "adapter_bytes",
    "table_bytes",
    "checks",
    "backend",
  ]);
  expect(result.checks.map(({ name, ok }) => [name, ok])).toEqual([
    ["isolation", true],
    ["disabled", true],
    ["merged", true],
    ["merged", true],
    ["unmerged", true],
    ["unloaded", true],
    ["reloaded", true],
    ["merged copy", true],
  ]);
  expect(result.losses.at(-1)).toBeLessThan(0.5 * result.losses[0]!);
  expect(result.after.questions).toBe(result.before.questions);
  expect(result.before.right / result.before.questions).toBeLessThan(0.4);
  expect(result.after.right / result.after.questions).toBeGreaterThan(0.8);
  expect(result.unchanged.equal).toBe(result.unchanged.total);
  expect(result.unchanged.total).toBeGreaterThan(100_000);
  expect(result.table_bytes / result.adapter_bytes).toBeGreaterThan(50);

  expect(stderr).toContain("PeftModel.from_pretrained");
  expect(await filesOf(out)).toEqual([
    "adapter/README.md",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "adapter/tokenizer.json",
    "adapter/tokenizer_config.json",
    "merged/config.json",
    "merged/generation_config.json",
    "merged/model.safetensors",
    "merged/tokenizer.json",
    "merged/tokenizer_config.json",
  ]);
});

test("neolog demo reads well where it is piped", async () => {
  await using folder = await temporaryFolder();
  const { code, stdout } = await neolog(["demo", "--out", join(folder.path, "demo")]);
  expect(code).toBe(0);
  expect(stdout).not.toContain(String.fromCharCode(27));
  expect(stdout).not.toContain("\r");
  expect(stdout.match(/^ {3}✓ /gm)).toHaveLength(8);
  expect(stdout).toMatch(/^ {3}trainable params: 192 \|\| all params: [\d,]+ \|\| trainable%: /m);
  expect(stdout).toMatch(/\n8 of 8 checks hold\. \d+ s in all\.\n$/);
});
