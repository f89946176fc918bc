import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { AddedToken, Tokenizer as Rust, byteLevelAlphabet } from "tokenizers";
import { afterAll, describe, expect, test } from "vitest";
import { Tokenizer } from "./tokenizer.ts";
import { type AddedTokenSpec, addTokens } from "./tokenizerFiles.ts";

/** Text to learn merges and pieces from: words, numbers, punctuation, other scripts. */
const CORPUS = Array.from({ length: 120 }, (_, i) => {
  const [who, what] = [
    ["The wug", "A dax", "Her blicket", "Ein Käfer"][i % 4]!,
    ["runs", "didn't run", "will've run"][i % 3]!,
  ];
  return `${who} ${what} ${i * 37} miles, past the river (slowly) — déjà vu; "naïve" café #${i}! 你好世界 привет мир ${"la".repeat(i % 5)}\n`;
}).join("");

type Json = Readonly<Record<string, unknown>>;
const space = { type: "Replace", pattern: { String: " " }, content: "▁" };
const underscore = { type: "Replace", pattern: { String: "▁" }, content: " " };
const byteLevel = (add_prefix_space: boolean, use_regex: boolean): Json => ({
  type: "ByteLevel",
  add_prefix_space,
  trim_offsets: true,
  use_regex,
});
const isolated = (Regex: string): Json => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const sequence = (type: "normalizers" | "pretokenizers" | "decoders" | "processors", ...parts: Json[]): Json => ({
  type: "Sequence",
  [type]: parts,
});
const template = (before: readonly string[], after: readonly string[]): Json => {
  const special = (id: string): Json => ({ SpecialToken: { id, type_id: 0 } });
  const single = [...before.map(special), { Sequence: { id: "A", type_id: 0 } }, ...after.map(special)];
  const ids = (id: string): number => SPECIAL.indexOf(id);
  return {
    type: "TemplateProcessing",
    single,
    pair: single,
    special_tokens: Object.fromEntries([...before, ...after].map((id) => [id, { id, ids: [ids(id)], tokens: [id] }])),
  };
};
const SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "[CLS]", "[SEP]"];
const LLAMA3 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN2 = LLAMA3.replace("{1,3}", "");
const BYTES = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
const byteDecoder = sequence("decoders", underscore, { type: "ByteFallback" }, { type: "Fuse" });

/** One tokenizer per family, as its converter in transformers lays it out; `byte_fallback` ones get the 256 byte tokens. */
const FAMILIES: Readonly<Record<string, Json & { readonly model: Json }>> = {
  gpt2: {
    pre_tokenizer: byteLevel(false, true),
    post_processor: byteLevel(false, true),
    decoder: byteLevel(true, true),
    model: { type: "BPE" },
  },
  opt: {
    pre_tokenizer: byteLevel(false, true),
    post_processor: template(["</s>"], []),
    decoder: byteLevel(true, true),
    model: { type: "BPE" },
  },
  llama3: {
    pre_tokenizer: sequence("pretokenizers", isolated(LLAMA3), byteLevel(false, false)),
    post_processor: sequence("processors", byteLevel(true, true), template(["<s>"], [])),
    decoder: byteLevel(true, true),
    model: { type: "BPE", ignore_merges: true },
  },
  qwen2: {
    normalizer: { type: "NFC" },
    pre_tokenizer: sequence("pretokenizers", isolated(QWEN2), byteLevel(false, false)),
    post_processor: byteLevel(false, false),
    decoder: byteLevel(false, false),
    model: { type: "BPE" },
  },
  llama2: {
    normalizer: sequence("normalizers", { type: "Prepend", prepend: "▁" }, space),
    post_processor: template(["<s>"], []),
    decoder: sequence(
      "decoders",
      underscore,
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ),
    model: { type: "BPE", byte_fallback: true, unk_token: "<unk>", fuse_unk: true },
  },
  mistral: {
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: false },
    post_processor: template(["<s>"], []),
    decoder: sequence(
      "decoders",
      underscore,
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ),
    model: { type: "BPE", byte_fallback: true, unk_token: "<unk>", fuse_unk: true },
  },
  gemma: {
    normalizer: space,
    pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false },
    post_processor: template(["<s>"], []),
    decoder: byteDecoder,
    model: { type: "BPE", byte_fallback: true, unk_token: "<unk>", fuse_unk: true },
  },
  t5: {
    normalizer: sequence(
      "normalizers",
      { type: "NFKC" },
      { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
    ),
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    post_processor: template([], ["</s>"]),
    decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    model: { type: "Unigram" },
  },
  bert: {
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: template(["[CLS]"], ["[SEP]"]),
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: { type: "WordPiece", unk_token: "<unk>", continuing_subword_prefix: "##", max_input_chars_per_word: 100 },
  },
};

const scratch = mkdtempSync(join(tmpdir(), "neolog-tokenizers-"));
afterAll(() => rmSync(scratch, { recursive: true }));

/** tokenizer.json of a family, its model trained on CORPUS by the reference. */
function documentOf(name: string): string {
  const { model, ...rest } = FAMILIES[name]!;
  const empty = {
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    vocab: {},
    merges: [],
  };
  const blank =
    model["type"] === "Unigram"
      ? { ...model, unk_id: 0, vocab: [["<unk>", 0]] }
      : model["type"] === "BPE"
        ? { ...empty, ...model }
        : { ...model, vocab: { "<unk>": 0 } };
  const added_tokens = SPECIAL.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const skeleton = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...rest,
    model: blank,
  };
  const [corpus, saved] = [join(scratch, "corpus.txt"), join(scratch, `${name}.json`)];
  writeFileSync(corpus, CORPUS);
  const rust = Rust.fromString(JSON.stringify({ ...skeleton, post_processor: null }));
  rust.train([corpus]);
  rust.save(saved);
  const trained = JSON.parse(readFileSync(saved, "utf8")).model;
  const isByteLevel = JSON.stringify(rest.pre_tokenizer ?? null).includes("ByteLevel");
  const first = [...SPECIAL, ...(model["byte_fallback"] ? BYTES : isByteLevel ? byteLevelAlphabet().toSorted() : [])];
  return JSON.stringify(
    { ...skeleton, added_tokens, model: { ...trained, ...model, ...renumbered(trained, first) } },
    null,
    2,
  );
}

/** The vocabulary with `first` before what was learnt. */
function renumbered(model: { vocab: Json | [string, number][] }, first: readonly string[]): Json {
  if (Array.isArray(model.vocab)) {
    const learnt = model.vocab.filter(([piece]) => !first.includes(piece));
    return { unk_id: 0, vocab: [...first.map((piece) => [piece, 0]), ...learnt] };
  }
  const learnt = Object.entries(model.vocab).toSorted(([, a], [, b]) => (a as number) - (b as number));
  const pieces = [...first, ...learnt.map(([piece]) => piece).filter((piece) => !first.includes(piece))];
  return { vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])) };
}

const words = fc.constantFrom(
  ..."The|wug|wugs| runs|didn't|  |\n|\t|123|4567|déjà|naïve|café|你好|世界|привет|мир|é|e\u0301|ﬁ|Å|ß|🙂|👩‍👧|<wug>|<s>|</s>|[CLS]|<pad>|▁|##s|#1|...|(x)|I'll|we've| ,|\u00a0|a_b|__init__|HELLO|ǅ".split(
    "|",
  ),
);
const text = fc
  .array(
    fc.oneof({ weight: 4, arbitrary: words }, { weight: 2, arbitrary: fc.constant(" ") }, fc.string({ maxLength: 3 })),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(""));

const ADDED: readonly AddedTokenSpec[] = [
  { content: "<wug>" },
  { content: "<mask>", special: true, lstrip: true },
  { content: "[blicket]", rstrip: true, normalized: false },
];

describe.each(Object.keys(FAMILIES))("%s", (name) => {
  const plain = documentOf(name);
  const runs = { numRuns: 150, seed: 7 };

  test("encodes and decodes as the reference does", async () => {
    const [ours, rust] = [new Tokenizer(plain, CONFIG), Rust.fromString(plain)];
    await fc.assert(
      fc.asyncProperty(text, (line) => same(ours, rust, line)),
      runs,
    );
  });

  test("with added tokens, too; and writes the file that the reference writes", async () => {
    const ours = new Tokenizer(plain, CONFIG);
    const ids = ours.addTokens(ADDED);
    const rust = Rust.fromString(plain);
    rust.addAddedTokens(ADDED.map(rustToken));
    expect(ids).toEqual(ADDED.map(({ content }) => rust.tokenToId(content)));
    const again = Rust.fromString(ours.files().get("tokenizer.json")!);
    expect(savedBy(again)).toEqual(savedBy(rust));
    const mixed = fc
      .array(fc.oneof(text, fc.constantFrom(...ADDED.map(({ content }) => content), " <wug> ", "a<wug>b")), {
        maxLength: 4,
      })
      .map((parts) => parts.join(""));
    await fc.assert(
      fc.asyncProperty(mixed, (line) => same(ours, rust, line)),
      runs,
    );
  });
});

const CONFIG = '{"clean_up_tokenization_spaces": false}';

async function same(ours: Tokenizer, rust: Rust, line: string): Promise<void> {
  for (const addSpecialTokens of [true, false]) {
    const expected = (await rust.encode(line, null, { addSpecialTokens })).getIds();
    expect(ours.encode(line, { addSpecialTokens }), JSON.stringify(line)).toEqual(expected);
    for (const skipSpecialTokens of [true, false]) {
      if (expected.length > 0)
        expect(ours.decode(expected, { skipSpecialTokens })).toBe(await rust.decode(expected, skipSpecialTokens));
    }
  }
}

const rustToken = ({
  content,
  special = false,
  lstrip = false,
  rstrip = false,
  normalized = !special,
}: AddedTokenSpec): AddedToken =>
  new AddedToken(content, special, { leftStrip: lstrip, rightStrip: rstrip, normalized });

function savedBy(rust: Rust): unknown {
  const file = join(scratch, "saved.json");
  rust.save(file);
  return JSON.parse(readFileSync(file, "utf8"));
}

test("adding any tokens gives the reference's ids and file", () => {
  const plain = documentOf("gpt2");
  const spec = fc.record({
    content: fc.constantFrom("<wug>", "<dax>", "The", "Ġthe", "a", "<s>", "x y", "é", "🙂"),
    special: fc.boolean(),
    lstrip: fc.boolean(),
    rstrip: fc.boolean(),
    normalized: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(fc.array(spec, { minLength: 1, maxLength: 3 }), { maxLength: 3 }), (calls) => {
      const rust = Rust.fromString(plain);
      let document = plain;
      for (const specs of calls) {
        rust.addAddedTokens(specs.map(rustToken));
        const { text, ids } = addTokens(document, specs);
        document = text;
        expect(ids).toEqual(specs.map(({ content }) => rust.tokenToId(content)));
      }
      expect(savedBy(Rust.fromString(document))).toEqual(savedBy(rust));
    }),
    { numRuns: 60, seed: 3 },
  );
});
