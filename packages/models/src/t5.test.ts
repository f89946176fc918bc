import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { noGrad } from "@neolog/autograd";
import { Linear, stateDict } from "@neolog/nn";
import { Scope, type Tensor, defaultBackend } from "@neolog/tensor";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM } from "./autoModel.ts";
import { parseGenerationConfig } from "./config.ts";
import { EncoderDecoderCache } from "./encoderDecoderCache.ts";
import type { Seq2SeqLM, Seq2SeqLMInputs } from "./seq2SeqLm.ts";
import { type T5Stack, relativePositionBucket } from "./t5.ts";
import { TINY_GPT2, TINY_T5, worstExcess } from "./testing.ts";

const { fromConfig, fromPretrained } = AutoModelForSeq2SeqLM;
const build = (changes: object = {}): Seq2SeqLM => fromConfig({ ...TINY_T5, ...changes }, { seed: 5, std: 0.3 });
const read = (t: Tensor): number[] => [...t.dataSync()];
const logitsOf = (model: Seq2SeqLM, inputs: Seq2SeqLMInputs): number[] => read(model.forward(inputs).logits);
const input_ids = [[3, 1, 4, 1, 5, 9]];
const decoder_input_ids = [[0, 2, 6, 5, 3]];

const fixtures = fileURLToPath(new URL("../../../fixtures/t5", import.meta.url));
const json = (file: string) => JSON.parse(readFileSync(`${fixtures}/${file}`, "utf8"));

interface BucketCase {
  readonly bidirectional: boolean;
  readonly buckets: number;
  readonly maxDistance: number;
  /** The first distance of each run of equal buckets. */
  readonly runs: readonly (readonly [distance: number, bucket: number])[];
}
test.each(json("buckets.json") as BucketCase[])(
  "$buckets buckets up to $maxDistance, both ways: $bidirectional, are transformers'",
  ({ runs, ...options }) => {
    let [next, bucket] = [0, NaN];
    for (let distance = runs[0]![0]; distance <= -runs[0]![0]; distance++) {
      if (runs[next]?.[0] === distance) bucket = runs[next++]![1];
      expect(relativePositionBucket(distance, options), `${distance}`).toBe(bucket);
    }
  },
);

test("T5 1.1 as transformers 5 saves it: gated, its own head, no scale, more layers in the decoder", async () => {
  const model = await fromPretrained(fixtures);
  const { inputs, logits, loss, output_ids } = json("expected.json");
  const output = model.forward(inputs);
  const tolerance = { atol: 1e-4, rtol: 1e-5 };
  expect(worstExcess(output.logits.dataSync(), logits, tolerance)).toBeLessThanOrEqual(0);
  expect(Math.abs((await output.loss!.item()) - loss)).toBeLessThanOrEqual(1e-5);
  const { labels: _, ...prompt } = inputs;
  expect(await model.generate({ ...prompt, max_new_tokens: 8, eos_token_id: null })).toEqual(output_ids);
  expect(model.moduleAt("lm_head")).toBeInstanceOf(Linear);
  expect(model.tiedPaths).toEqual(["encoder.embed_tokens", "decoder.embed_tokens"]);
});

describe("the decoder", () => {
  test("sees all of the encoder's input but padding, and of its own what came before", () => {
    const model = build();
    const logits = (ids: number[], mask: number[], own: number[]): number[] =>
      logitsOf(model, { input_ids: [ids], attention_mask: [mask], decoder_input_ids: [own] });
    const base = logits([1, 2, 3], [1, 1, 1], [0, 4]);
    expect(logits([1, 2, 9], [1, 1, 1], [0, 4]).slice(0, 23)).not.toEqual(base.slice(0, 23));
    expect(logits([1, 2, 9], [1, 1, 0], [0, 4])).toEqual(logits([1, 2, 3], [1, 1, 0], [0, 4]));
    expect(logits([1, 2, 3], [1, 1, 1], [0, 9]).slice(0, 23)).toEqual(base.slice(0, 23));
  });

  test("reads the labels one place to the right, padding for what is not counted", () => {
    const model = build({ decoder_start_token_id: 7, pad_token_id: 8 });
    const labelled = model.forward({ input_ids, labels: [[4, -100, 6, 2]] });
    expect(read(labelled.logits)).toEqual(logitsOf(model, { input_ids, decoder_input_ids: [[7, 4, 8, 6]] }));
  });

  test("decodes with the cache as without, to 1e-5, and runs the encoder once", () => {
    const model = build();
    const batch = {
      input_ids: [[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]], // prettier-ignore
      attention_mask: [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], // prettier-ignore
    };
    const rows = [[0, 2, 6, 5, 3], [0, 5, 8, 9, 7]]; // prettier-ignore
    const whole = logitsOf(model, { ...batch, decoder_input_ids: rows });
    const cache = new EncoderDecoderCache();
    const run = vi.spyOn(model.moduleAt("encoder") as T5Stack, "forward");
    const steps = noGrad(() => {
      const { encoder_last_hidden_state: encoder_outputs } = model.forward({ ...batch, decoder_input_ids: [[0], [0]] });
      return [
        [0, 1],
        [1, 2],
        [2, 5],
      ].map(([from, to]) =>
        // prettier-ignore
        model.forward({
          attention_mask: batch.attention_mask,
          encoder_outputs,
          decoder_input_ids: rows.map((row) => row.slice(from, to)),
          past_key_values: cache,
        }),
      );
    });
    expect(run).toHaveBeenCalledTimes(1);
    const last = read(steps.at(-1)!.logits);
    const expected = [0, 1].flatMap((row) => whole.slice((row * 5 + 2) * 23, (row + 1) * 5 * 23));
    expect(worstExcess(last, expected, { atol: 1e-5, rtol: 1e-5 })).toBeLessThanOrEqual(0);
    cache.dispose();
  });
});

describe("generate", () => {
  test("begins with the start token, of generation_config.json before config.json", async () => {
    const model = build({ decoder_start_token_id: 3 });
    expect((await model.generate({ input_ids, max_new_tokens: 2 }))[0]![0]).toBe(3);
    model.generationConfig = parseGenerationConfig('{"decoder_start_token_id": 4}', "generation_config.json");
    expect((await model.generate({ input_ids, max_new_tokens: 2 }))[0]![0]).toBe(4);
  });

  test("gives the argmax of a run over all so far, computes the encoder once, and leaves nothing behind", async () => {
    const model = build();
    const run = vi.spyOn(model.moduleAt("encoder") as T5Stack, "forward");
    const { live } = defaultBackend();
    const [ids] = await model.generate({ input_ids, max_new_tokens: 6, eos_token_id: null });
    expect(run).toHaveBeenCalledTimes(1);
    expect(defaultBackend().live).toBe(live);
    expect(ids).toHaveLength(7);
    for (let t = 1; t < 7; t++) {
      using _scope = new Scope();
      const logits = logitsOf(model, { input_ids, decoder_input_ids: [ids!.slice(0, t)], logits_to_keep: 1 });
      expect(logits.indexOf(Math.max(...logits))).toBe(ids![t]);
    }
  });

  test("draws the same ids from the same seed, others from another", async () => {
    const draw = (seed: number): Promise<number[][]> =>
      build().generate({ input_ids, max_new_tokens: 12, do_sample: true, seed, eos_token_id: null });
    expect(await draw(1)).toEqual(await draw(1));
    expect(await draw(1)).not.toEqual(await draw(2));
  });

  test("continues the rows of a batch as each alone", async () => {
    const model = build();
    const options = { max_new_tokens: 6, eos_token_id: null };
    const both = await model.generate({
      input_ids: [[3, 1, 4, 1], [2, 6, 0, 0]], // prettier-ignore
      attention_mask: [[1, 1, 1, 1], [1, 1, 0, 0]], // prettier-ignore
      ...options,
    });
    expect(both[0]).toEqual((await model.generate({ input_ids: [[3, 1, 4, 1]], ...options }))[0]);
    expect(both[1]).toEqual((await model.generate({ input_ids: [[2, 6]], ...options }))[0]);
  });
});

describe("the shared table", () => {
  test("has four users, or three where the head is untied", () => {
    expect(build().tiedPaths).toEqual(["encoder.embed_tokens", "decoder.embed_tokens", "lm_head"]);
    const [tied, untied] = [build(), build({ tie_word_embeddings: false })].map((model) => [
      ...stateDict(model).keys(),
    ]);
    expect(tied!.filter((key) => /shared|embed_tokens|lm_head/.test(key))).toEqual(["shared.weight"]);
    expect(untied!.filter((key) => /shared|embed_tokens|lm_head/.test(key))).toEqual([
      "shared.weight",
      "lm_head.weight",
    ]);
  });

  test("grows for all of them", () => {
    for (const tie_word_embeddings of [true, false]) {
      const model = build({ tie_word_embeddings });
      model.resizeTokenEmbeddings(25);
      const { logits } = model.forward({ input_ids: [[24]], decoder_input_ids: [[24]] });
      expect(logits.shape).toEqual([1, 1, 25]);
    }
  });

  test("keeps the head's scale where the head is untied later", () => {
    const scaleOf = (config: object): unknown => {
      const model = build(config);
      model.config = { ...model.config, tie_word_embeddings: false };
      return model.config["scale_decoder_outputs"];
    };
    expect(scaleOf({})).toBe(true);
    expect(scaleOf({ scale_decoder_outputs: true })).toBe(true);
    expect(scaleOf({ tie_word_embeddings: false })).toBeUndefined();
    const scaled = build({ tie_word_embeddings: false, scale_decoder_outputs: true });
    const plain = build({ tie_word_embeddings: false });
    const inputs = { input_ids, decoder_input_ids };
    const expected = logitsOf(plain, inputs).map((x) => x / Math.sqrt(12));
    expect(worstExcess(logitsOf(scaled, inputs), expected, { atol: 1e-6, rtol: 1e-6 })).toBeLessThanOrEqual(0);
  });
});

describe("folders", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "neolog-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  test.each([true, false])("come back as they were, tied: %s", async (tie_word_embeddings) => {
    const model = build({ tie_word_embeddings });
    await model.savePretrained(dir);
    const again = stateDict(await fromPretrained(dir));
    for (const [key, t] of stateDict(model)) expect(again.get(key)!.dataSync(), key).toEqual(t.dataSync());
  });

  test("are opened by the class of their kind alone", async () => {
    await build().savePretrained(dir);
    const opened = 'found "t5", an encoder-decoder; open it with AutoModelForSeq2SeqLM';
    await expect(AutoModelForCausalLM.fromPretrained(dir)).rejects.toThrow(
      `config.json: "model_type": must name a causal language model for AutoModelForCausalLM, ${opened}`,
    );
    await expect(AutoModelForMaskedLM.fromPretrained(dir)).rejects.toThrow(opened);
    await AutoModelForCausalLM.fromConfig(TINY_GPT2).savePretrained(dir);
    await expect(fromPretrained(dir)).rejects.toMatchObject({
      name: "ModelConfigError",
      key: "model_type",
      message: expect.stringContaining(
        'must name an encoder-decoder for AutoModelForSeq2SeqLM, found "gpt2", a causal language model; open it with AutoModelForCausalLM',
      ) as string,
    });
  });
});

describe("refused", () => {
  test.each<[object, string]>([
    [{ d_kv: undefined }, '"d_kv": must be set, found none'],
    [{ feed_forward_proj: "gated-snake" }, '"feed_forward_proj": must be one of gelu, gelu_new,'],
    [{ feed_forward_proj: "gated-gelu-new" }, 'with or without "gated-" before it, found "gated-gelu-new"'],
    [{ dense_act_fn: "silu" }, '"dense_act_fn": must be "relu" to go with feed_forward_proj "relu", found "silu"'],
    [
      { feed_forward_proj: "gated-gelu", is_gated_act: false },
      '"is_gated_act": must be true to go with feed_forward_proj "gated-gelu", found false',
    ],
    [{ relative_attention_num_buckets: 2 }, '"relative_attention_num_buckets": must be >=4, found 2'],
    [
      { relative_attention_max_distance: 4 },
      '"relative_attention_max_distance": must be above half of relative_attention_num_buckets (8), found 4',
    ],
    [{ is_encoder_decoder: false }, '"is_encoder_decoder": must be true, found false'],
    [{ is_decoder: true }, '"is_decoder": must be false, found true'],
  ])("config %j", (changes, message) => {
    expect(() => build(changes)).toThrow(message);
  });

  test.each<[string, object, string]>([
    [
      "nothing for the decoder",
      { input_ids },
      "forward: decoder_input_ids or labels are needed beside the encoder's input_ids",
    ],
    ["nothing for the encoder", { decoder_input_ids }, "forward: input_ids or encoder_outputs are needed"],
    [
      "other rows",
      { input_ids: [[1], [2]], decoder_input_ids },
      "input_ids: must have as many rows as the decoder's input [1], got [2]",
    ],
    [
      "a mask of another size",
      { input_ids, decoder_input_ids, attention_mask: [[1]] },
      "attention_mask: the size must be [1, 6] to go with input_ids, got [1, 1]",
    ],
    [
      "labels of another size",
      { input_ids, decoder_input_ids, labels: [[1]] },
      "labels: the size must be [1, 5] to go with input_ids, got [1, 1]",
    ],
    ["an id of no row", { input_ids: [[23]], decoder_input_ids }, "Embedding: token ids must be in [0, 23), got 23"],
    [
      "few logits and labels",
      { input_ids, labels: [[1]], logits_to_keep: 1 },
      "forward: labels need the logits of all positions; leave logits_to_keep out",
    ],
  ])("%s", (_, inputs, message) => {
    expect(() => build().forward(inputs)).toThrow(message);
  });

  test("labels or prompts without a start token, labels of −100 without padding", async () => {
    const startless = build({ decoder_start_token_id: null });
    expect(() => startless.forward({ input_ids, labels: [[1]] })).toThrow(
      'config.json: "decoder_start_token_id": must be set to make the decoder\'s input from labels, found none',
    );
    await expect(startless.generate({ input_ids })).rejects.toThrow(
      'config.json: "decoder_start_token_id": must be set to generate, found none',
    );
    expect(() => build({ pad_token_id: null }).forward({ input_ids, labels: [[-100, 1]] })).toThrow(
      'config.json: "pad_token_id": must be set to make the decoder\'s input from labels, found none',
    );
  });
});
