import { readFileSync, statSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { AutoModelForCausalLM, AutoTokenizer } from "@neolog/models";
import { describe, expect, test } from "vitest";
import { type Quality, evaluate } from "./evaluate.ts";

const folder = fileURLToPath(new URL("../../../packages/models/pretrained/meadow", import.meta.url));

describe("the built-in model", () => {
  test("writes grammatical texts at least 95 % of the time, and is as good as its metrics.json says", async () => {
    const [model, tokenizer] = [
      await AutoModelForCausalLM.fromPretrained(folder),
      await AutoTokenizer.fromPretrained(folder),
    ];
    const quality = await evaluate(model, tokenizer);
    const recorded = JSON.parse(readFileSync(`${folder}/metrics.json`, "utf8")) as Quality;
    expect(quality.grammatical).toBeGreaterThanOrEqual(0.95);
    // a backend that rounds otherwise may draw a few other words
    expect(Math.abs(quality.grammatical - recorded.grammatical)).toBeLessThanOrEqual(0.01);
    expect(Math.abs(quality.grammatical_and_true - recorded.grammatical_and_true)).toBeLessThanOrEqual(0.015);
    expect(quality.held_out_loss).toBeCloseTo(recorded.held_out_loss, 4);
    expect(quality.probes).toBe(1);
  });
  test("is at most 3 MB", () => {
    const bytes = readdirSync(folder).reduce((sum, file) => sum + statSync(`${folder}/${file}`).size, 0);
    expect(bytes).toBeLessThanOrEqual(3_000_000);
  });
});
