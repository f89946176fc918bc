import { existsSync, readdirSync } from "node:fs";
import { backward } from "@neolog/autograd";
import type { Embedding } from "@neolog/nn";
import { Scope, openBackend, overrideRows, parameter, setDefaultBackend, zeros } from "@neolog/tensor";
import { describe, expect, test, vi } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import type { PretrainedConfig } from "./config.ts";
import { KvCache } from "./kvCache.ts";
import { estimateMemory } from "./memory.ts";
import type { CausalLM } from "./causalLm.ts";
import { readObject, referenceFolders } from "./testing.ts";

const { path } = referenceFolders("models");
const names = readdirSync(path).filter((name) => existsSync(`${path}/${name}/base`) && !/^(bert|t5)/.test(name));

/** The config of a golden model with a feed-forward part as wide as in practice. */
async function configOf(name: string): Promise<PretrainedConfig> {
  const config = await readObject<PretrainedConfig>(`${path}/${name}/base`, "config.json");
  const key = ["intermediate_size", "ffn_dim", "n_inner"].find((key) => key in config)!;
  return { ...config, [key]: 240 };
}

describe.each(names)("%s", (name) => {
  const TOKENS = 36;
  const input_ids = [Array.from({ length: TOKENS }, (_, i) => 3 + (i % 5))];

  async function fresh(): Promise<{ model: CausalLM; allocated: () => number }> {
    const backend = await openBackend("cpu");
    setDefaultBackend(backend);
    const model = AutoModelForCausalLM.fromConfig(await configOf(name));
    const before = backend.bytes.live;
    return { model, allocated: () => backend.bytes.peak - before };
  }

  test("a training step takes what is estimated, within 15%", async () => {
    const { model, allocated } = await fresh();
    const table = model.moduleAt(model.embeddingPath) as Embedding;
    const lookup = table.forward.bind(table);
    {
      using _step = new Scope();
      const rows = parameter(zeros([1, table.embedding_dim]));
      const slots = (ids: Int32Array): Int32Array => ids.map((id) => (id === input_ids[0]![0] ? 0 : -1));
      vi.spyOn(table, "forward").mockImplementation((ids) => overrideRows(lookup(ids), rows, slots(ids)));
      backward(model.loss({ input_ids, labels: input_ids }));
    }
    const { train } = estimateMemory(model, TOKENS);
    expect(allocated() / train).toBeLessThan(1.15);
  });

  test("the cache holds what is said", async () => {
    const { model } = await fresh();
    const cache = new KvCache();
    model.forward({ input_ids, past_key_values: cache });
    let held = 0;
    for (let layer = 0; cache.at(layer); layer++) {
      const { key, value } = cache.at(layer)!;
      held += 4 * (key.size + value.size);
    }
    expect(estimateMemory(model, TOKENS).cache).toBeGreaterThanOrEqual(held);
    if (!JSON.stringify(model.config).includes("sliding")) expect(estimateMemory(model, TOKENS).cache).toBe(held);
  });
});
