import {
  ARCHITECTURES,
  AutoModelForCausalLM,
  AutoModelForMaskedLM,
  AutoModelForSeq2SeqLM,
  type CausalLM,
  EncoderDecoderCache,
  KvCache,
  MaskedLM,
  type PretrainedConfig,
  Seq2SeqLM,
} from "@neolog/models";
import { Random, Scope, type Tensor, defaultBackend, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { ARBITRARY_CONFIGS } from "./arbitraryConfigs.ts";
import { TrainableTokensConfig, getPeftModel } from "./index.ts";
import { setRows } from "./testing.ts";

test("every architecture has an arbitrary config", () => {
  expect(Object.keys(ARBITRARY_CONFIGS).toSorted()).toEqual(Object.keys(ARCHITECTURES).toSorted());
});

/** Rows of one length that are padded on the left or on the right. */
interface Batch {
  readonly input_ids: number[][];
  readonly attention_mask: number[][];
}
interface Case extends Batch {
  readonly config: PretrainedConfig;
  readonly seed: number;
}

const cases = (config: fc.Arbitrary<PretrainedConfig>): fc.Arbitrary<Case> =>
  fc
    .record({
      config,
      seed: fc.nat(),
      length: fc.integer({ min: 2, max: 12 }),
      left: fc.boolean(),
      rows: fc.integer({ min: 1, max: 3 }),
    })
    .map(({ config: arbitrary, seed, length, left, rows }) => {
      const random = new Random(seed);
      const below = (n: number): number => Math.floor(random.next() * n);
      const row = <T>(f: (t: number) => T): T[] => Array.from({ length }, (_, t) => f(t));
      const pads = Array.from({ length: rows }, () => below(length));
      return {
        config: arbitrary,
        seed,
        input_ids: pads.map(() => row(() => below(arbitrary.vocab_size))),
        attention_mask: pads.map((pad) => row((t) => Number(left ? t >= pad : t < length - pad))),
      };
    });

type Model = CausalLM | MaskedLM | Seq2SeqLM;
const AUTO = { bert: AutoModelForMaskedLM, t5: AutoModelForSeq2SeqLM };
const build = ({ config, seed }: Case): Model =>
  (AUTO[config.model_type as keyof typeof AUTO] ?? AutoModelForCausalLM).fromConfig(config, { seed, std: 0.5 });

type Cache = KvCache & EncoderDecoderCache;
const cacheOf = (model: Model): Cache =>
  (model instanceof Seq2SeqLM ? new EncoderDecoderCache() : new KvCache()) as Cache;

/** Logits of a batch, or of the part of it that a cache does not hold; an encoder-decoder reads the whole on its encoder's side. */
function logitsOf(model: Model, whole: Batch, part: Batch = whole, past_key_values?: Cache): Tensor {
  if (!(model instanceof Seq2SeqLM)) return model.forward({ ...part, past_key_values }).logits;
  const [decoder_input_ids, decoder_attention_mask] = [part.input_ids, part.attention_mask];
  return model.forward({ ...whole, decoder_input_ids, decoder_attention_mask, past_key_values }).logits;
}

/** The logits of each row's positions that are no padding; the last columns of the mask are theirs. */
function rowsOf(logits: Tensor, attention_mask: readonly (readonly number[])[]): number[][][] {
  const [, columns, vocab] = logits.shape as [number, number, number];
  const data = logits.dataSync();
  return attention_mask.map((row, b) =>
    row.slice(-columns).flatMap((attended, t) => {
      const at = (b * columns + t) * vocab;
      return attended ? [Array.from(data.subarray(at, at + vocab))] : [];
    }),
  );
}

/** The same bytes where the backend keeps the order of its sums, else numbers as near as float32 is. */
function expectSame(actual: readonly number[][][], expected: readonly number[][][]): void {
  expect(expected.flat(2).every(Number.isFinite)).toBe(true);
  if (defaultBackend().exact) {
    expect(actual).toEqual(expected);
    return;
  }
  const [a, b] = [actual, expected].map((rows) => rows.flat(2)) as [number[], number[]];
  expect(a.length).toBe(b.length);
  a.forEach((x, i) => expect(Math.abs(x - b[i]!)).toBeLessThanOrEqual(1e-5 * Math.max(1, Math.abs(b[i]!))));
}

const worlds = (await computingBackends()).flatMap((on) =>
  Object.keys(ARBITRARY_CONFIGS).map((type) => ({ type, ...on })),
);

describe.each(worlds)("random $type on $title", ({ type, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const always = (holds: (drawn: Case) => Promise<void> | void): Promise<void> =>
    fc.assert(
      fc.asyncProperty(cases(ARBITRARY_CONFIGS[type]!), async (drawn) => {
        using _scope = new Scope();
        await holds(drawn);
      }),
      { numRuns: 12 },
    );

  // an encoder by itself has no cache
  test.skipIf(type === "bert")("decoding with the cache, in pieces, gives what one pass gives", () =>
    always((drawn) => {
      const { input_ids, attention_mask, seed } = drawn;
      const batch = { input_ids, attention_mask };
      const model = build(drawn);
      const random = new Random(seed);
      const past_key_values = cacheOf(model);
      const pieces: number[][][][] = [];
      for (let start = 0; start < input_ids[0]!.length;) {
        const end = Math.min(input_ids[0]!.length, start + 1 + Math.floor(4 * random.next()));
        const seen = attention_mask.map((row) => row.slice(0, end));
        const ids = input_ids.map((row) => row.slice(start, end));
        pieces.push(rowsOf(logitsOf(model, batch, { input_ids: ids, attention_mask: seen }, past_key_values), seen));
        start = end;
      }
      past_key_values.dispose();
      const joined = input_ids.map((_, b) => pieces.flatMap((rows) => rows[b]!));
      expectSame(joined, rowsOf(logitsOf(model, batch), attention_mask));
    }),
  );

  test("merging an adapter of tokens changes no logit", () =>
    always(async (drawn) => {
      const { attention_mask, config, seed } = drawn;
      const batch = { input_ids: drawn.input_ids, attention_mask };
      const base = build(drawn);
      const random = new Random(seed);
      const token_indices = Array.from({ length: config.vocab_size }, (_, id) => id).filter(() => random.next() < 0.4);
      const leaf = base.embeddingPath.split(".").at(-1)!;
      const adapter = new TrainableTokensConfig({
        token_indices: token_indices.length > 0 ? token_indices : [0],
        target_modules: [leaf],
      });
      const peft = getPeftModel(base, adapter, { onWarning: () => undefined });
      setRows(peft, "default");
      const adapted = rowsOf(logitsOf(base, batch), attention_mask);
      expectSame(rowsOf(logitsOf(await peft.mergeAndUnload(), batch), attention_mask), adapted);
    }));

  test("permuting the rows of a batch permutes what comes out", () =>
    always((drawn) => {
      const model = build(drawn);
      const logits = (order: readonly number[]): number[][][] => {
        const [input_ids, attention_mask] = [drawn.input_ids, drawn.attention_mask].map((x) => order.map((b) => x[b]!));
        return rowsOf(logitsOf(model, { input_ids: input_ids!, attention_mask: attention_mask! }), attention_mask!);
      };
      const order = drawn.input_ids.map((_, b) => b);
      const turned = [...order.slice(1), 0];
      const rows = logits(order);
      expectSame(
        logits(turned),
        turned.map((b) => rows[b]!),
      );
    }));
});
