import {
  AutoModelWithLMHead,
  EncoderDecoderCache,
  type LanguageModel,
  type PretrainedConfig,
  type Seq2SeqLM,
} from "@neolog/models";
import { noGrad } from "@neolog/autograd";
import { Random, Scope, type Tensor, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { TrainableTokensConfig, getPeftModel, tokenParameters } from "./index.ts";
import { put } from "./testing.ts";

const upTo = (max: number, min = 1): fc.Arbitrary<number> => fc.integer({ min, max });
const activation = fc.constantFrom("gelu", "gelu_new", "relu", "silu");

const bert: fc.Arbitrary<PretrainedConfig> = fc
  .record({
    vocab_size: upTo(19, 5),
    heads: upTo(3),
    width: upTo(4),
    intermediate_size: upTo(9),
    num_hidden_layers: upTo(3),
    type_vocab_size: upTo(3),
    hidden_act: activation,
    tie_word_embeddings: fc.boolean(),
    pad_token_id: fc.option(upTo(4, 0)),
  })
  .map(({ heads, width, ...config }) => ({
    ...config,
    model_type: "bert",
    hidden_size: heads * width,
    num_attention_heads: heads,
    max_position_embeddings: 32,
  }));

const t5: fc.Arbitrary<PretrainedConfig> = fc.record({
  model_type: fc.constant("t5"),
  vocab_size: upTo(19, 5),
  d_model: upTo(9),
  d_kv: upTo(4),
  d_ff: upTo(9),
  num_layers: upTo(3),
  num_decoder_layers: upTo(3),
  num_heads: upTo(3),
  relative_attention_num_buckets: upTo(9, 4),
  relative_attention_max_distance: upTo(20, 5),
  feed_forward_proj: fc.tuple(fc.constantFrom("", "gated-"), activation).map(([gate, name]) => gate + name),
  tie_word_embeddings: fc.boolean(),
  decoder_start_token_id: fc.constant(0),
});

/** A model and a batch whose rows hold as much padding as they like, on one side. */
interface Case {
  readonly config: PretrainedConfig;
  readonly seed: number;
  readonly rows: number[][];
  readonly pads: number[];
  readonly left: boolean;
  /** For the decoder; all of one length. */
  readonly own: number[][];
}
const cases = (configs: fc.Arbitrary<PretrainedConfig>): fc.Arbitrary<Case> =>
  fc
    .record({ config: configs, seed: fc.nat(), left: fc.boolean(), batch: upTo(3), length: upTo(7), decoded: upTo(6) })
    .map(({ config, seed, left, batch, length, decoded }) => {
      const random = new Random(seed);
      const below = (n: number): number => Math.floor(random.next() * n);
      const ids = (n: number): number[] => Array.from({ length: n }, () => below(config.vocab_size));
      const pads = Array.from({ length: batch }, () => below(length));
      return {
        config,
        seed,
        left,
        pads,
        rows: pads.map((pad) => ids(length - pad)),
        own: pads.map(() => ids(decoded)),
      };
    });

/** What the model reads of some of the rows, in any order. */
function inputsOf({ config, rows, pads, left, own }: Case, order: readonly number[] = [...rows.keys()]): object {
  const padded = (value: (b: number) => number[]): number[][] =>
    order.map((b) => {
      const padding = Array.from({ length: pads[b]! }, () => 0);
      return left && config.model_type === "t5" ? [...padding, ...value(b)] : [...value(b), ...padding]; // BERT counts padding's positions
    });
  return {
    input_ids: padded((b) => rows[b]!),
    attention_mask: padded((b) => rows[b]!.map(() => 1)),
    ...(config.model_type === "t5" ? { decoder_input_ids: order.map((b) => own[b]!) } : {}),
  };
}
/** Logits of each row, at the encoder's own positions without padding. */
function logitsOf(model: object, drawn: Case, inputs: object, order: readonly number[] = [...drawn.rows.keys()]) {
  const { logits } = (model as { forward(inputs: object): { logits: Tensor } }).forward(inputs);
  const [, columns, vocab] = logits.shape as [number, number, number];
  const data = logits.dataSync();
  return order.map((b, i) => {
    const counted = drawn.config.model_type === "t5" ? columns : drawn.rows[b]!.length;
    return [...data.subarray(i * columns * vocab, (i * columns + counted) * vocab)];
  });
}
function expectNear(actual: readonly number[][], expected: readonly number[][]): void {
  const [a, b] = [actual.flat(), expected.flat()];
  expect(a.length).toBe(b.length);
  a.forEach((x, i) => expect(Math.abs(x - b[i]!)).toBeLessThanOrEqual(1e-5 * Math.max(1, Math.abs(b[i]!))));
}
const build = ({ config, seed }: Case): LanguageModel => AutoModelWithLMHead.fromConfig(config, { seed, std: 0.5 });

const worlds = (await computingBackends()).flatMap((on) =>
  Object.entries({ bert, t5 }).map(([type, configs]) => ({ type, configs, ...on })),
);

describe.each(worlds)("random $type on $title", ({ type, configs, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const always = (holds: (drawn: Case) => Promise<void> | void): Promise<void> =>
    fc.assert(
      fc.asyncProperty(cases(configs), async (drawn) => {
        using _scope = new Scope();
        await holds(drawn);
      }),
      { numRuns: 15 },
    );

  test("permuting the rows of a batch permutes what comes out", () =>
    always((drawn) => {
      const model = build(drawn);
      const order = drawn.rows.map((_, b) => b);
      const turned = [...order.slice(1), 0];
      const logits = logitsOf(model, drawn, inputsOf(drawn));
      expect(logitsOf(model, drawn, inputsOf(drawn, turned), turned)).toEqual(turned.map((b) => logits[b]!));
    }));

  test("padding changes no row", () =>
    always((drawn) => {
      const model = build(drawn);
      const alone = drawn.rows.flatMap((_, b) => {
        const bare = { ...drawn, pads: drawn.pads.map(() => 0) };
        return logitsOf(model, bare, inputsOf(bare, [b]), [b]);
      });
      expectNear(logitsOf(model, drawn, inputsOf(drawn)), alone);
    }));

  test("merging an adapter of tokens changes no logit", () =>
    always(async (drawn) => {
      const base = build(drawn);
      const random = new Random(drawn.seed);
      const ids = Array.from({ length: drawn.config.vocab_size }, (_, id) => id).filter(() => random.next() < 0.4);
      const config = new TrainableTokensConfig({ token_indices: ids.length > 0 ? ids : [0] });
      const peft = getPeftModel(base, config, { onWarning: ({ message }) => expect.fail(message) });
      for (const rows of tokenParameters(peft))
        put(
          rows,
          Array.from({ length: rows.size }, (_, i) => Math.sin(i)),
        );
      const adapted = logitsOf(peft, drawn, inputsOf(drawn));
      const merged = await peft.mergeAndUnload();
      expect(logitsOf(merged, drawn, inputsOf(drawn))).toEqual(adapted);
    }));

  test.runIf(type === "t5")("decoding with the cache, in pieces, gives what one pass gives", () =>
    always((drawn) => {
      const model = build(drawn) as Seq2SeqLM;
      const whole = logitsOf(model, drawn, inputsOf(drawn));
      const past_key_values = new EncoderDecoderCache();
      const random = new Random(drawn.seed);
      const pieces: number[][][] = [];
      noGrad(() => {
        for (let start = 0; start < drawn.own[0]!.length;) {
          const end = Math.min(drawn.own[0]!.length, start + 1 + Math.floor(3 * random.next()));
          const decoder_input_ids = drawn.own.map((row) => row.slice(start, end));
          pieces.push(logitsOf(model, drawn, { ...inputsOf(drawn), decoder_input_ids, past_key_values }));
          start = end;
        }
      });
      past_key_values.dispose();
      expectNear(
        drawn.rows.map((_, b) => pieces.flatMap((rows) => rows[b]!)),
        whole,
      );
    }),
  );
});
