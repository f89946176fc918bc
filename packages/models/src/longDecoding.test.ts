import { readFileSync, readdirSync } from "node:fs";
import { noGrad } from "@neolog/autograd";
import { Scope, argmax, defaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { BLOCK } from "./cachedPositions.ts";
import type { PretrainedConfig } from "./config.ts";
import { referenceFolders } from "./testing.ts";

const { path } = referenceFolders("models");
const kindOf = (name: string): string =>
  (JSON.parse(readFileSync(`${path}/${name}/expected.json`, "utf8")) as { kind: string }).kind;
const names = readdirSync(path).filter((name) => kindOf(name) === "causal");

const configOf = (name: string): PretrainedConfig => {
  const config = JSON.parse(readFileSync(`${path}/${name}/base/config.json`, "utf8")) as PretrainedConfig;
  const positions = "n_positions" in config ? "n_positions" : "max_position_embeddings";
  return { ...config, [positions]: 4 * BLOCK, eos_token_id: null };
};

describe.each(names)("%s", (name) => {
  test("decodes past several blocks of the cache what running the whole rows again gives", async () => {
    const model = AutoModelForCausalLM.fromConfig(configOf(name), { seed: 11, std: 0.3 });
    const live = defaultBackend().live;
    const padding = 4;
    const input_ids = [[9, 8, 7, 6, 5, 4, 3], [0, 0, 0, 0, 11, 12, 13]]; // prettier-ignore
    const attention_mask = input_ids.map((row, b) => row.map((_, t) => Number(b === 0 || t >= padding)));
    const length = 2 * BLOCK + 5;
    const ids = await model.generate({ input_ids, attention_mask, max_length: length });
    expect(ids.map((row) => row.length)).toEqual([length, length]);
    expect(new Set(ids.flat()).size).toBeGreaterThan(4);
    {
      using _scope = new Scope();
      const attended = attention_mask.map((row) => [...row, ...Array.from({ length: length - row.length }, () => 1)]);
      const position_ids = attended.map((row, b) => row.map((_, t) => (b === 0 ? t : Math.max(t - padding, 0))));
      const inputs = { input_ids: ids, attention_mask: attended, position_ids };
      const likeliest = noGrad(() => argmax(model.forward(inputs).logits, -1)).dataSync();
      const start = input_ids[0]!.length;
      ids.forEach((row, b) => {
        const expected = Array.from(likeliest.subarray(b * length + start - 1, (b + 1) * length - 1));
        expect(row.slice(start)).toEqual(expected);
      });
    }
    expect(defaultBackend().live).toBe(live);
  });
});
