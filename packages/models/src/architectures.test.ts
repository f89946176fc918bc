import { backward } from "@neolog/autograd";
import { Embedding, Linear, Module, replaceModule, stateDict } from "@neolog/nn";
import { type Tensor, add, div, mul, ones, tanh } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import type { CausalLM } from "./causalLm.ts";
import type { PretrainedConfig } from "./config.ts";
import { KvCache } from "./kvCache.ts";
import { RaggedPositions } from "./raggedPositions.ts";
import { ARCHITECTURES } from "./registry.ts";
import { AdaptedEmbeddingError } from "./resize.ts";
import {
  DECODERS,
  TINY,
  TINY_GEMMA,
  TINY_GEMMA2,
  TINY_GEMMA3_TEXT,
  TINY_GPT2,
  TINY_GPT_NEOX,
  TINY_LLAMA,
  TINY_OPT,
  worstExcess,
} from "./testing.ts";

const { fromConfig } = AutoModelForCausalLM;

const softcap = (x: Tensor, cap: number | null): Tensor => (cap === null ? x : mul(tanh(div(x, cap)), cap));

/** Adds one to what the embedding gives, and two to what the tied head gives. */
class Shifted extends Module {
  readonly base_layer: Embedding;
  constructor(base: Module) {
    super();
    this.base_layer = base as Embedding;
  }
  forward(ids: Int32Array): Tensor {
    return add(this.base_layer.forward(ids), 1);
  }
  unembed(x: Tensor): Tensor {
    return add(this.base_layer.unembed(x), 2);
  }
}

test("every registered architecture has a tiny config here", () => {
  expect(Object.keys(TINY).toSorted()).toEqual(Object.keys(ARCHITECTURES).toSorted());
});

describe.each(DECODERS)("%s", (type) => {
  const build = (changes: object = {}) => fromConfig({ ...TINY[type]!, ...changes }, { seed: 5, std: 0.3 });
  const read = (t: Tensor): number[] => [...t.dataSync()];

  test("the same seed gives the same model, another seed another", () => {
    const values = (seed: number) => fromConfig(TINY[type]!, { seed }).parameters().map(read);
    expect(values(1)).toEqual(values(1));
    expect(values(1)).not.toEqual(values(2));
  });

  test("what wraps the embedding sees the lookup, and the tied head's logits", () => {
    for (const tie_word_embeddings of [true, false]) {
      const model = build({ tie_word_embeddings });
      const input = { input_ids: [[1, 2, 3]], output_hidden_states: true };
      const before = model.forward(input);
      replaceModule(model, model.embeddingPath, (base) => new Shifted(base));
      const after = model.forward(input);
      const shifted = read(add(before.hidden_states![0]!, type.startsWith("gemma") ? Math.sqrt(12) : 1));
      expect(worstExcess(read(after.hidden_states![0]!), shifted, { atol: 1e-6 })).toBeLessThanOrEqual(0); // sums in another order
      const head = model.moduleAt(model.headPath) as Module & { forward(x: Tensor): Tensor };
      const plain = tie_word_embeddings
        ? (model.moduleAt(`${model.embeddingPath}.base_layer`) as Embedding).unembed(after.hidden_states!.at(-1)!)
        : head.forward(after.hidden_states!.at(-1)!);
      const cap = (TINY[type]!["final_logit_softcapping"] ?? null) as number | null;
      expect(read(after.logits)).toEqual(read(softcap(tie_word_embeddings ? add(plain, 2) : plain, cap)));
    }
  });

  test("a tied head has no parameter; an untied one is the last", () => {
    const [tied, untied] = [true, false].map((tie_word_embeddings) => build({ tie_word_embeddings })) as [
      CausalLM,
      CausalLM,
    ];
    const key = `${tied.headPath}.weight`;
    expect(stateDict(tied).has(key)).toBe(false);
    expect([...stateDict(untied).keys()].at(-1)).toBe(key);
    expect(untied.tiedPaths).toEqual([]);
    expect(tied.tiedPaths).toEqual([tied.headPath]);
  });

  test("a query sees neither later tokens nor padding", () => {
    const model = build();
    const logits = (ids: number[], mask: number[]) =>
      read(model.forward({ input_ids: [ids], attention_mask: [mask] }).logits);
    const [a, b] = [logits([1, 2, 3, 4], [1, 1, 1, 1]), logits([1, 2, 9, 9], [1, 1, 0, 0])];
    expect(a.slice(0, 2 * 23)).toEqual(b.slice(0, 2 * 23));
    const [c, d] = [logits([7, 2, 3, 4], [0, 1, 1, 1]), logits([8, 2, 3, 4], [0, 1, 1, 1])];
    expect(c.slice(23)).toEqual(d.slice(23));
  });

  test("left, right and no padding give the same logits", () => {
    const model = build();
    const ids = [1, 2, 3, 4, 5, 6];
    const plain = read(model.forward({ input_ids: [ids] }).logits);
    const right = { input_ids: [[...ids, 0, 0]], attention_mask: [[1, 1, 1, 1, 1, 1, 0, 0]] };
    const left = {
      input_ids: [[0, 0, ...ids]],
      attention_mask: [[0, 0, 1, 1, 1, 1, 1, 1]],
      position_ids: [[1, 1, 0, 1, 2, 3, 4, 5]], // as generate passes them
    };
    const close = { atol: 1e-5 };
    expect(worstExcess(read(model.forward(right).logits).slice(0, plain.length), plain, close)).toBeLessThanOrEqual(0);
    expect(worstExcess(read(model.forward(left).logits).slice(2 * 23), plain, close)).toBeLessThanOrEqual(0);
  });

  test("left padding gives finite gradients", () => {
    const model = build();
    for (const p of model.parameters()) p.requiresGrad = true;
    const { loss } = model.forward({
      input_ids: [[0, 0, 3, 4]],
      attention_mask: [[0, 0, 1, 1]],
      labels: [[-100, -100, 3, 4]],
    });
    backward(loss!);
    for (const [key, p] of stateDict(model)) expect(read(p.grad!).every(Number.isFinite), key).toBe(true);
  });

  test("logits_to_keep gives the last logits, bit for bit", () => {
    const model = build();
    const input = { input_ids: [[1, 2, 3], [4, 5, 6]] }; // prettier-ignore
    const all = model.forward(input).logits;
    const kept = model.forward({ ...input, logits_to_keep: 2 }).logits;
    expect(kept.shape).toEqual([2, 2, 23]);
    const rows = [1, 2, 4, 5].flatMap((row) => read(all).slice(row * 23, (row + 1) * 23));
    expect(read(kept)).toEqual(rows);
    expect(() => model.forward({ ...input, labels: input.input_ids, logits_to_keep: 1 })).toThrow(
      "forward: labels need the logits of all positions; leave logits_to_keep out",
    );
  });

  test("padded batches decode with the cache as without, bit for bit", () => {
    const model = build();
    const ids = [[0, 0, 3, 4, 5], [1, 2, 3, 4, 5]]; // prettier-ignore
    const attention_mask = [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]; // prettier-ignore
    const whole = read(model.forward({ input_ids: ids, attention_mask }).logits);
    const cache = new KvCache();
    const head = (n: number, rows: number[][]): number[][] => rows.map((row) => row.slice(0, n));
    model.forward({ input_ids: head(3, ids), attention_mask: head(3, attention_mask), past_key_values: cache });
    const rest = model.forward({ input_ids: ids.map((row) => row.slice(3)), attention_mask, past_key_values: cache });
    const rows = [3, 4, 8, 9].flatMap((row) => whole.slice(row * 23, (row + 1) * 23));
    expect(read(rest.logits)).toEqual(rows);
  });

  test("texts of any lengths in one row, behind caches of their own, are as they are alone, bit for bit", () => {
    const model = build();
    const texts = [[3, 4, 5, 6, 7], [1, 2], [9, 8, 7, 6]]; // prettier-ignore
    const alone = texts.map((ids) => read(model.forward({ input_ids: [ids] }).logits));
    const cached = [3, 0, 1];
    const rests = texts.map((ids, i) => ids.slice(cached[i]));
    const past = texts.map((ids, i) => {
      if (cached[i] === 0) return null;
      const cache = new KvCache();
      model.forward({ input_ids: [ids.slice(0, cached[i])], past_key_values: cache });
      return cache;
    });
    const ragged = new RaggedPositions(rests.map(({ length }, i) => ({ length, past: past[i]! })));
    const position_ids = [rests.flatMap((ids, i) => ids.map((_, t) => cached[i]! + t))];
    const inputs = { input_ids: [rests.flat()], position_ids, past_key_values: ragged };
    expect(read(model.forward(inputs).logits)).toEqual(alone.flatMap((logits, i) => logits.slice(23 * cached[i]!)));
    expect(() => model.forward({ ...inputs, input_ids: [[1, 2]], position_ids: [[0, 1]] })).toThrow(
      "ragged positions: input_ids must be one row of all texts, got [1, 7] and [1, 2]",
    );
    expect(() => model.forward({ ...inputs, attention_mask: position_ids })).toThrow(
      "ragged positions: texts have no padding; leave attention_mask out, got [1, 7]",
    );
  });

  test("resizing keeps the old rows and adds their mean", () => {
    const model = build({ tie_word_embeddings: false });
    const table = (path: string) => (model.moduleAt(path) as Embedding | Linear).weight;
    const before = [model.embeddingPath, model.headPath].map((path) => read(table(path)));
    model.resizeTokenEmbeddings(25);
    expect(model.config.vocab_size).toBe(25);
    expect(model.forward({ input_ids: [[24]] }).logits.shape).toEqual([1, 1, 25]);
    [model.embeddingPath, model.headPath].forEach((path, i) => {
      const after = read(table(path));
      expect(after.slice(0, 23 * 12)).toEqual(before[i]);
      for (let j = 0; j < 12; j++) {
        const mean = before[i]!.filter((_, k) => k % 12 === j).reduce((a, b) => a + b) / 23;
        expect(after[23 * 12 + j]).toBeCloseTo(mean, 6);
        expect(after[24 * 12 + j]).toBe(after[23 * 12 + j]);
      }
    });
    model.resizeTokenEmbeddings(23);
    expect([model.embeddingPath, model.headPath].map((path) => read(table(path)))).toEqual(before);
  });

  test("resizing refuses sizes that are none, and an adapter's embedding", () => {
    const model = build();
    expect(() => model.resizeTokenEmbeddings(0)).toThrow("resizeTokenEmbeddings: n must be a positive integer, got 0");
    replaceModule(model, model.embeddingPath, (base) => new Shifted(base));
    expect(() => model.resizeTokenEmbeddings(30)).toThrow(AdaptedEmbeddingError);
  });

  test.each<[string, object, string]>([
    ["uneven rows", { input_ids: [[1, 2], [3]] }, "input_ids: rows must have one length; pad them, got [2] and [1]"],
    ["no ids", { input_ids: [[]] }, "input_ids: at least one row and one column are needed, got [1, 0]"],
    ["a fraction", { input_ids: [[1.5]] }, "input_ids: values must be integers, got 1.5"],
    ["an id of no row", { input_ids: [[23]] }, "Embedding: token ids must be in [0, 23), got 23"],
    ["a negative id", { input_ids: [[-1]] }, "Embedding: token ids must be in [0, 23), got -1"],
    [
      "a mask of another size",
      { input_ids: [[1, 2]], attention_mask: [[1]] },
      "attention_mask: the size must be [1, 2] to go with input_ids, got [1, 1]",
    ],
    [
      "a label of no column",
      { input_ids: [[1, 2]], labels: [[1, 23]] },
      "crossEntropy: targets must be in [0, 23) or -100, got 23",
    ],
    ["a tensor of one axis", { input_ids: ones([3], "int32") }, "input_ids: a tensor [B, T] is needed, got [3]"],
  ])("refuses %s", (_, inputs, message) => {
    expect(() => build().forward(inputs as never)).toThrow(message);
  });
});

const LONGROPE = { type: "longrope", short_factor: [1.5], long_factor: [4] };

describe("configs that we cannot honour are refused", () => {
  test.each<[object, string]>([
    [{ ...TINY_LLAMA, hidden_act: "snake" }, '"hidden_act": must be ("gelu" |'],
    [{ ...TINY_LLAMA, hidden_act: undefined }, '"hidden_act": must be set, found none'],
    [{ ...TINY_LLAMA, hidden_size: -1 }, '"hidden_size": must be >=1, found -1'],
    [{ ...TINY_LLAMA, hidden_size: "12" }, '"hidden_size": must be number, found "12"'],
    [
      { ...TINY_LLAMA, quantization_config: { quant_method: "gptq" } },
      '"quantization_config": must be null, found Object',
    ],
    [{ ...TINY_LLAMA, pretraining_tp: 2 }, '"pretraining_tp": must be 1, found 2'],
    [{ ...TINY_LLAMA, num_key_value_heads: 4 }, '"num_key_value_heads": must divide num_attention_heads (6), found 4'],
    [
      { ...TINY_LLAMA, head_dim: null, num_attention_heads: 5 },
      '"num_attention_heads": must divide hidden_size (12), found 5',
    ],
    [{ ...TINY_LLAMA, head_dim: 3 }, '"head_dim": must turn an even number of elements of each head, found 3'],
    [{ ...TINY_LLAMA, pad_token_id: 23 }, '"pad_token_id": must be below vocab_size (23), found 23'],
    [
      { ...TINY_LLAMA, rope_scaling: { type: "spiral", factor: 2 } },
      '"rope_scaling.type": must be ("default" | "linear" | "dynamic" | "llama3" | "yarn" | "longrope"), found "spiral"',
    ],
    [
      { ...TINY_LLAMA, rope_scaling: { type: "linear" } },
      '"rope_scaling.factor": must be set for rope_type "linear", found none',
    ],
    [
      { ...TINY_LLAMA, rope_parameters: { rope_type: "llama3", factor: 8 } },
      '"rope_parameters.low_freq_factor": must be set for rope_type "llama3", found none',
    ],
    [
      {
        ...TINY_LLAMA,
        rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 100 },
        rope_scaling: { type: "linear", factor: 4 },
      },
      '"rope_scaling.factor": must be what rope_parameters says (2), found 4',
    ],
    [
      { ...TINY_LLAMA, rope_parameters: { rope_theta: 100 }, rope_scaling: { type: "linear", factor: 4 } },
      '"rope_scaling.factor": must be what rope_parameters says (undefined), found 4',
    ],
    [
      { ...TINY_LLAMA, head_dim: 2, rope_scaling: { type: "dynamic", factor: 2 } },
      '"head_dim": must turn more than one pair of each head for rope_type "dynamic"',
    ],
    [{ ...TINY_LLAMA, partial_rotary_factor: 0.5 }, '"partial_rotary_factor": must be 1, found 0.5'],
    [{ ...TINY_GPT_NEOX, rotary_pct: 0 }, '"rotary_pct": must be >0, found 0'],
    [{ ...TINY_GPT_NEOX, rotary_pct: 1.5 }, '"rotary_pct": must be <=1, found 1.5'],
    [
      { ...TINY_GPT_NEOX, rotary_pct: 0.5 },
      '"partial_rotary_factor": must turn an even number of elements of each head, found 3 of 6',
    ],
    [{ ...TINY_GPT_NEOX, partial_rotary_factor: 1 }, '"partial_rotary_factor": must equal rotary_pct (0.7), found 1'],
    [
      { ...TINY_GPT_NEOX, rotary_emb_base: 100, rope_theta: 10 },
      '"rope_theta": must equal rotary_emb_base (100), found 10',
    ],
    [{ ...TINY_GPT_NEOX, hidden_act: "swoosh" }, '"hidden_act": must be ("gelu" |'],
    [{ ...TINY_GPT_NEOX, num_attention_heads: 5 }, '"num_attention_heads": must divide hidden_size (12), found 5'],
    [{ ...TINY_GEMMA, head_dim: undefined }, '"head_dim": must be set, found none'],
    [{ ...TINY_GEMMA, head_dim: 7 }, '"head_dim": must turn an even number of elements of each head, found 7'],
    [{ ...TINY_GEMMA, num_key_value_heads: 3 }, '"num_key_value_heads": must divide num_attention_heads (2), found 3'],
    [{ ...TINY_GEMMA, use_bidirectional_attention: true }, '"use_bidirectional_attention": must be false, found true'],
    [
      { ...TINY_GEMMA, hidden_act: "gelu", hidden_activation: "gelu" },
      '"hidden_activation": must be what hidden_act means (gelu_pytorch_tanh), found "gelu"',
    ],
    [{ ...TINY_GEMMA2, query_pre_attn_scalar: undefined }, '"query_pre_attn_scalar": must be set, found none'],
    [{ ...TINY_GEMMA2, final_logit_softcapping: undefined }, '"final_logit_softcapping": must be set, found none'],
    [{ ...TINY_GEMMA2, attn_logit_softcapping: 0 }, '"attn_logit_softcapping": must be >0, found 0'],
    [
      { ...TINY_GEMMA2, sliding_window: null },
      '"sliding_window": must be set for layer 0, which has a window, found none',
    ],
    [
      { ...TINY_GEMMA2, layer_types: ["full_attention", "chunked_attention"] },
      '"layer_types.1": must be ("full_attention" | "sliding_attention"), found "chunked_attention"',
    ],
    [{ ...TINY_GEMMA3_TEXT, attn_logit_softcapping: 50 }, '"attn_logit_softcapping": must be null, found 50'],
    [
      { ...TINY_GEMMA3_TEXT, use_bidirectional_attention: true },
      '"use_bidirectional_attention": must be false, found true',
    ],
    [
      { ...TINY_GEMMA3_TEXT, rope_parameters: { rope_type: "default", rope_theta: 10_000 } },
      '"rope_parameters": must hold full_attention and sliding_attention alone, found "rope_type"',
    ],
    [
      { ...TINY_GEMMA3_TEXT, rope_scaling: { rope_type: "linear" } },
      '"rope_scaling.factor": must be set for rope_type "linear", found none',
    ],
    [{ ...TINY_OPT, num_attention_heads: 5 }, '"num_attention_heads": must divide hidden_size (12), found 5'],
    [{ ...TINY_OPT, ffn_dim: undefined }, '"ffn_dim": must be set, found none'],
    [{ ...TINY_OPT, pad_token_id: 23 }, '"pad_token_id": must be below vocab_size (23), found 23'],
    [{ ...TINY_OPT, do_layer_norm_before: "no" }, '"do_layer_norm_before": must be boolean, found "no"'],
    [{ ...TINY["mistral"], sliding_window: undefined }, '"sliding_window": must be set, found none'],
    [{ ...TINY["mistral"], num_key_value_heads: undefined }, '"num_key_value_heads": must be set, found none'],
    [{ ...TINY["mistral"], sliding_window: 0 }, '"sliding_window": must be >=1, found 0'],
    [
      { ...TINY["mistral"], layer_types: ["sliding_attention", "full_attention"] },
      '"layer_types": must say the same of every layer as "sliding_window" (3): here layers are alike',
    ],
    [
      { ...TINY["qwen3"], layer_types: ["sliding_attention", "chunked_attention"] },
      '"layer_types.1": must be ("full_attention" | "sliding_attention"), found "chunked_attention"',
    ],
    [{ ...TINY["qwen2"], num_key_value_heads: undefined }, '"num_key_value_heads": must be set, found none'],
    [
      { ...TINY["qwen2"], max_window_layers: undefined },
      '"max_window_layers": must be set with "use_sliding_window", found none',
    ],
    [
      { ...TINY["qwen2"], sliding_window: undefined },
      '"sliding_window": must be set for layer 1, which has a window, found none',
    ],
    [{ ...TINY["qwen3"], head_dim: undefined }, '"head_dim": must be set, found none'],
    [{ ...TINY["phi3"], pad_token_id: undefined }, '"pad_token_id": must be below vocab_size (23), found 32000'],
    [
      { ...TINY["phi3"], rope_scaling: { type: "linear", factor: 2 } },
      '"rope_type": must be "default" or "longrope" for phi3, found "linear"',
    ],
    [
      { ...TINY["phi3"], rope_scaling: { type: "su", short_factor: [1], long_factor: [2] } },
      '"rope_scaling.original_max_position_embeddings": must be set for rope_type "longrope", found none',
    ],
    [
      { ...TINY["phi3"], rope_scaling: LONGROPE, original_max_position_embeddings: 8, partial_rotary_factor: 1 },
      '"short_factor": must have one factor for each of the 2 pairs that turn, found 1',
    ],
    [{ ...TINY_GPT2, n_head: 5 }, '"n_head": must divide n_embd (12), found 5'],
    [{ ...TINY_GPT2, add_cross_attention: true }, '"add_cross_attention": must be false, found true'],
  ])("%j", (config, message) => {
    expect(() => fromConfig(config as PretrainedConfig)).toThrow(`config.json: ${message}`);
  });
});

test("both spellings of rotary positions may stand side by side where they agree", () => {
  const rope_parameters = { rope_type: "linear", factor: 4, rope_theta: 100 };
  const both = { ...TINY_LLAMA, rope_parameters, rope_scaling: { type: "linear", factor: 4 } };
  const logits = (config: PretrainedConfig) => [
    ...fromConfig(config, { seed: 2, std: 0.5 })
      .forward({ input_ids: [[1, 2, 3]] })
      .logits.dataSync(),
  ];
  expect(logits(both)).toEqual(logits({ ...TINY_LLAMA, rope_parameters }));
});

test("llama: a negative pad_token_id counts from the end of the table, as in torch", () => {
  const model = fromConfig({ ...TINY_LLAMA, pad_token_id: -1 });
  expect((model.moduleAt("model.embed_tokens") as Embedding).padding_idx).toBe(22);
});

test("gpt2: a layer's scale follows its index where the config says so", () => {
  const logits = (changes: object) => {
    const model = fromConfig({ ...TINY_GPT2, ...changes }, { seed: 2, std: 0.5 });
    return [...model.forward({ input_ids: [[1, 2, 3]] }).logits.dataSync()];
  };
  expect(logits({ scale_attn_by_inverse_layer_idx: true, n_layer: 1 })).toEqual(logits({ n_layer: 1 }));
  expect(logits({ scale_attn_by_inverse_layer_idx: true })).not.toEqual(logits({}));
  expect(logits({ scale_attn_weights: false })).not.toEqual(logits({}));
});

describe("phi3 with longrope", () => {
  const config = { ...TINY["phi3"]!, rope_scaling: LONGROPE, original_max_position_embeddings: 4 };
  const logits = (changes: object, columns: number): number[] => {
    const input_ids = [Array.from({ length: columns }, (_, i) => i)];
    return [
      ...fromConfig({ ...config, ...changes }, { seed: 2, std: 0.5 })
        .forward({ input_ids })
        .logits.dataSync(),
    ];
  };

  test("takes the short factors up to the original length and the long ones beyond", () => {
    const other = { rope_scaling: { ...LONGROPE, long_factor: [7] } };
    expect(logits({}, 4)).toEqual(logits(other, 4));
    expect(logits({}, 5)).not.toEqual(logits(other, 5));
    const short = { rope_scaling: { ...LONGROPE, short_factor: [7] } };
    expect(logits({}, 4)).not.toEqual(logits(short, 4));
    expect(logits({}, 5)).toEqual(logits(short, 5));
  });

  test("a text that grows past the original length is decoded as if it had been given whole, padded or not", async () => {
    const model = fromConfig(config, { seed: 2, std: 0.5 });
    for (const mask of [
      [1, 1, 1],
      [0, 1, 1],
    ]) {
      // prettier-ignore
      const prompt = { ids: [[1, 2, 3]], attention: [mask] };
      const decoding = model.decoding(prompt);
      for (const id of [4, 5, 6, 7]) {
        const next = [...decoding.next().dataSync()];
        const ids = decoding.ids[0]!;
        const attention_mask = [ids.map((_, i) => mask[i] ?? 1)];
        const position_ids = mask[0] ? [ids.map((_, i) => i)] : [ids.map((_, i) => (i === 0 ? 1 : i - 1))];
        const inputs = { input_ids: [ids], attention_mask, position_ids, logits_to_keep: 1 };
        expect(next, `after ${ids.join(" ")}`).toEqual([...model.forward(inputs).logits.dataSync()]);
        (ids as number[]).push(id);
      }
      decoding.dispose();
    }
  });

  test.each(["su", "yarn"])("is what phi3 calls %s", (type) => {
    expect(logits({ rope_scaling: { ...LONGROPE, type } }, 5)).toEqual(logits({}, 5));
    const rope_parameters = { ...LONGROPE, type: undefined, rope_type: type, original_max_position_embeddings: 4 };
    expect(logits({ rope_scaling: undefined, rope_parameters }, 5)).toEqual(logits({}, 5));
  });
});
