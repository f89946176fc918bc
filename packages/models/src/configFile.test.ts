import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { configText } from "./configFile.ts";
import { TINY_GEMMA2 } from "./testing.ts";

test("what transformers wants as a float is written as one", () => {
  const config = { ...TINY_GEMMA2, final_logit_softcapping: 30, attn_logit_softcapping: null };
  const text = configText(AutoModelForCausalLM.fromConfig(config));
  expect(text).toContain('"final_logit_softcapping": 30.0,');
  expect(text).toContain('"attn_logit_softcapping": null,');
  expect(text).toContain('"rms_norm_eps": 1e-06,');
  expect(text).toContain('"vocab_size": 23\n');
});

test("a saved config keeps floats, integers and what no number holds as they were, and takes what changed", async () => {
  const dir = mkdtempSync(join(tmpdir(), "neolog-"));
  try {
    const config = {
      ...TINY_GEMMA2,
      mine: { whole: "WHOLE", list: ["WHOLE", 0, null], big: "BIG", none: null, zero: 0 },
    };
    await AutoModelForCausalLM.fromConfig(config).savePretrained(dir);
    const file = join(dir, "config.json");
    const text = readFileSync(file, "utf8").replaceAll('"WHOLE"', "2.0").replace('"BIG"', "9007199254740993");
    writeFileSync(file, text);
    const model = await AutoModelForCausalLM.fromPretrained(dir);
    await model.savePretrained(dir);
    expect(readFileSync(file, "utf8")).toBe(text);
    model.resizeTokenEmbeddings(25);
    await model.savePretrained(dir);
    expect(readFileSync(file, "utf8")).toBe(text.replace('"vocab_size": 23', '"vocab_size": 25'));
  } finally {
    rmSync(dir, { recursive: true });
  }
});
