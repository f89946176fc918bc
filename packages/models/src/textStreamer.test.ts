import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TextStreamer } from "./textStreamer.ts";
import { realData } from "./testing.ts";
import { AutoTokenizer, Tokenizer } from "./tokenizer.ts";

const bpe = (vocab: readonly string[], more: object, model: object = {}): Tokenizer =>
  new Tokenizer(
    JSON.stringify({
      version: "1.0",
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      ...more,
      model: { type: "BPE", vocab: Object.fromEntries(vocab.map((token, id) => [token, id])), merges: [], ...model },
    }),
    '{"clean_up_tokenization_spaces": false}',
  );

/** How byte-level BPE writes each byte: itself where it can be printed, else a letter beyond 255. */
const byteLetters = (): string[] => {
  const printable = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
};
const byteLevel = bpe(byteLetters(), {
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
});

const byteTokens = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
const spaced = { type: "Replace", pattern: { String: " " }, content: "▁" };
/** Llama's way: spaces are ▁, one before the text; bytes for what has no token. */
const sentencePiece = bpe(
  ["<unk>", ...byteTokens, ..."▁abcdefghijklmnopqrstuvwxyz"],
  {
    normalizer: { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, spaced] },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
  },
  { byte_fallback: true, fuse_unk: true, unk_token: "<unk>" },
);
const stories = realData("stories260K");

const tokenizers: Record<string, Tokenizer> = {
  "byte-level BPE": byteLevel,
  "SentencePiece-like BPE with byte fallback": sentencePiece,
  ...(stories ? { stories260K: await AutoTokenizer.fromPretrained(stories) } : {}),
};

const words = fc.constantFrom(" ", "  ", " a", "the", "\n", "é", " ß", "日本", "😀", "👩‍👩‍👧", " 🇩🇪", "ñandú", "<", "x");
const texts = fc.oneof(
  fc.array(words, { maxLength: 12 }).map((parts) => parts.join("")),
  fc.string({ unit: "binary", maxLength: 12 }).filter((text) => !text.includes("\uFFFD")),
);

describe.each(Object.keys(tokenizers))("TextStreamer over %s", (name) => {
  const tokenizer = tokenizers[name]!;
  const piecesOf = (prompt: readonly number[], ids: readonly number[]): string[] => {
    const streamer = new TextStreamer(tokenizer, { prompt });
    return [...ids.map((id) => streamer.put(id)), streamer.end()];
  };

  test("pieces are whole characters, and together the text of the new ids", () => {
    fc.assert(
      fc.property(texts, texts, (before, after) => {
        const ids = tokenizer.encode(before + after);
        const all = tokenizer.decode(ids);
        for (let n = 0; n <= ids.length; n++) {
          const prompt = tokenizer.decode(ids.slice(0, n)).replace(/\uFFFD+$/, "");
          if (!all.startsWith(prompt)) continue; // cut within a character that the decoder takes apart
          const pieces = piecesOf(ids.slice(0, n), ids.slice(n));
          expect(pieces.join("")).toBe(all.slice(prompt.length));
          for (const piece of pieces) {
            expect(piece).not.toContain("\uFFFD");
            expect(piece).not.toMatch(/\p{Surrogate}/u);
          }
        }
      }),
      { numRuns: 40 },
    );
  });

  test("what never becomes a character comes at the end", () => {
    const ids = tokenizer.encode("ab😀");
    const pieces = piecesOf([], ids.slice(0, -1));
    expect(pieces.slice(0, -1).join("")).toBe("ab");
    expect(pieces.at(-1)).toMatch(/^\uFFFD+$/);
  });
});

test("bytes that are no character are not held back longer than one could take", () => {
  const streamer = new TextStreamer(byteLevel);
  const noise = byteLevel.encode("é")[1]!; // a byte that only goes on
  const pieces = Array.from({ length: 20 }, () => streamer.put(noise));
  expect(pieces.join("").length).toBeGreaterThanOrEqual(17);
  const smile = byteLevel.encode("😀").map((id) => streamer.put(id));
  expect([...pieces, ...smile, streamer.end()].join("")).toBe(`${"\uFFFD".repeat(20)}😀`);
});

test("special tokens give no text unless asked for, and take no space along", () => {
  const tokenizer = tokenizers["SentencePiece-like BPE with byte fallback"]!;
  const [pause] = tokenizer.addTokens([{ content: "<pause>", special: true }]) as [number];
  const [, a] = tokenizer.encode("a") as [number, number];
  const [space, b] = tokenizer.encode("b") as [number, number];
  const pieces = (skipSpecialTokens: boolean): string[] => {
    const streamer = new TextStreamer(tokenizer, { prompt: [space, a], skipSpecialTokens });
    return [pause, pause, space, b].map((id) => streamer.put(id));
  };
  expect(pieces(true)).toEqual(["", "", " ", "b"]);
  expect(pieces(false)).toEqual(["<pause>", "<pause>", " ", "b"]);
});
