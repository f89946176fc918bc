import { VOCABULARY } from "@neolog/stories";

/** Begins and ends every text, and pads. */
export const END_OF_TEXT = "<|endoftext|>";

/** GPT-2's printable stand-ins for the 256 bytes, https://github.com/openai/gpt-2/blob/master/src/encoder.py */
function byteCharacters(): string[] {
  const printable = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : 256 + others++));
}

/**
 * A byte-level BPE in which every word of the stories is one token: its merges build each word, with its leading space, from left
 * to right. Any other text falls back to bytes.
 */
export function makeTokenizer(): { readonly document: string; readonly config: string } {
  const bytes = byteCharacters();
  const space = bytes[32]!;
  const vocab = [END_OF_TEXT, ...bytes];
  const known = new Set(vocab);
  const merges: [string, string][] = [];
  for (const word of VOCABULARY) {
    let prefix = space;
    for (const letter of word) {
      if (!known.has(prefix + letter)) {
        known.add(prefix + letter);
        vocab.push(prefix + letter);
        merges.push([prefix, letter]);
      }
      prefix += letter;
    }
  }
  const endOfText = {
    id: 0,
    content: END_OF_TEXT,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  };
  const byteLevel = { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true };
  const special = { SpecialToken: { id: END_OF_TEXT, type_id: 0 } };
  const document = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [endOfText],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: "TemplateProcessing",
      single: [special, { Sequence: { id: "A", type_id: 0 } }],
      pair: [special, { Sequence: { id: "A", type_id: 0 } }, special, { Sequence: { id: "B", type_id: 0 } }],
      special_tokens: { [END_OF_TEXT]: { id: END_OF_TEXT, ids: [0], tokens: [END_OF_TEXT] } },
    },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab.map((token, id) => [token, id])),
      merges,
    },
  };
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: END_OF_TEXT,
    eos_token: END_OF_TEXT,
    pad_token: END_OF_TEXT,
    clean_up_tokenization_spaces: false,
    model_max_length: 128,
  };
  return { document: JSON.stringify(document, null, 1), config: JSON.stringify(config, null, 2) };
}
