import { AdamW, backward } from "@neolog/autograd";
import { AutoModelForCausalLM } from "@neolog/models";
import { Embedding } from "@neolog/nn";
import { Scope, type Tensor, defaultBackend, mul, randn, setDefaultBackend, sum, takeRows } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { TrainableTokensConfig, getPeftModel, tokenParameters } from "./index.ts";

const V = 50_000;
const D = 16;
const IDS = [7, 49_999, 3, 20_000, 11, 12, 13, 14];
const config = (tie_word_embeddings: boolean) => ({
  model_type: "llama",
  vocab_size: V,
  hidden_size: D,
  intermediate_size: 24,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  tie_word_embeddings,
});
/** Four of the ids, one of them twice, between others; T < D, so that logits are smaller than the table. */
const input_ids = [[1, 7, 30, 49_999, 7, 20_000, 3, 2]];

describe.each(await computingBackends())("A-84 row-only work, $title", ({ backend: tested }) => {
  beforeAll(() => setDefaultBackend(tested));
  afterEach(() => vi.restoreAllMocks());

  test.each([
    ["untied", false],
    ["tied", true],
  ])("a training step on 50,000 tokens, %s, allocates nothing as large as the table", (_, tied) => {
    const model = AutoModelForCausalLM.fromConfig(config(tied), { seed: 1, std: 0.3 });
    const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: IDS }));
    const optimizer = new AdamW(tokenParameters(peft));
    const backend = defaultBackend();
    const allocate = vi.spyOn(backend, "allocate");
    {
      using _step = new Scope();
      peft.backward(peft.forward({ input_ids, labels: input_ids }).loss!);
      optimizer.step();
    }
    const lengths = allocate.mock.calls.map(([, length]) => length);
    const T = input_ids[0]!.length;
    expect(lengths.length).toBeGreaterThan(10);
    expect(Math.max(...lengths)).toBe(T * V); // the logits
    expect(lengths.filter((length) => length >= V && length !== T * V && length !== (T - 1) * V)).toEqual([]);
  });

  test("a lookup and its gradient allocate T·D and k·D only", () => {
    const model = AutoModelForCausalLM.fromConfig(config(false), { seed: 1, std: 0.3 });
    const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: IDS }));
    const layer = peft.layers().get(model.embeddingPath)!;
    const allocate = vi.spyOn(defaultBackend(), "allocate");
    {
      using _step = new Scope();
      backward(weighted(layer.forward(Int32Array.from(input_ids[0]!))));
    }
    const lengths = allocate.mock.calls.map(([, length]) => length);
    expect(Math.max(...lengths)).toBe(Math.max(input_ids[0]!.length, IDS.length) * D);
  });

  test.each([
    ["untied", false],
    ["tied", true],
  ])("the gradient of the rows, %s, is the dense table's at those rows", (_, tied) => {
    using _all = new Scope();
    const dense = AutoModelForCausalLM.fromConfig(config(tied), { seed: 1, std: 0.3 });
    for (const p of dense.parameters()) p.requiresGrad = false;
    const table = (dense.moduleAt(dense.embeddingPath) as Embedding).weight;
    table.requiresGrad = true;
    backward(dense.forward({ input_ids, labels: input_ids }).loss!);
    const expected = takeRows(table.grad!, Int32Array.from(IDS)).dataSync();

    const model = AutoModelForCausalLM.fromConfig(config(tied), { seed: 1, std: 0.3 });
    const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: IDS }));
    const [rows] = tokenParameters(peft);
    backward(peft.forward({ input_ids, labels: input_ids }).loss!);
    const largest = Math.max(...Array.from(expected, Math.abs));
    rows!.grad!.dataSync().forEach((value, i) => {
      expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(1e-5 * largest);
    });
  });
});

/** A sum whose gradient differs from element to element. */
function weighted(x: Tensor): Tensor {
  return sum(mul(x, randn(x.shape, 5)));
}
