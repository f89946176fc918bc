import {
  CheckpointError,
  type RevisionOptions,
  openFolder,
  parseJson,
  readText,
  resolveModelFolder,
  writeFolder,
} from "@neolog/checkpoint";
import { Tokenizer as Encoder } from "@huggingface/tokenizers";
import { type ChatMessage, type ChatTemplateOptions, type RenderedChat, renderChat } from "./chatTemplate.ts";
import { type AddedTokenSpec, addTokens, addToConfig } from "./tokenizerFiles.ts";
import { checkSupported } from "./tokenizerSupport.ts";
import { VocabularyError, positionsOf, trimTokenizer, trimTokenizerConfig, withPieces } from "./trimTokenizer.ts";

export interface EncodeOptions {
  /** Let the post-processor add its tokens (begin of sequence, …); true by default. */
  readonly addSpecialTokens?: boolean;
}
export interface DecodeOptions {
  /** Leave out special tokens; true by default. */
  readonly skipSpecialTokens?: boolean;
}

const CHAT_TEMPLATE = "chat_template.jinja";
const SPECIAL = ["bos_token", "eos_token", "pad_token", "unk_token"] as const;

/** A tokenizer.json with its tokenizer_config.json and chat_template.jinja. Adding tokens edits the documents; everything else in them stays. */
export class Tokenizer {
  readonly #name: string;
  #config: string;
  readonly #chatTemplate: string | null;
  #document: string;
  #encoder: Encoder;

  constructor(document: string, config = "{}", name = "tokenizer.json", chatTemplate: string | null = null) {
    this.#name = name;
    this.#config = config;
    this.#chatTemplate = chatTemplate;
    this.#document = document;
    this.#encoder = this.#build();
  }

  /** text → ids */
  encode(text: string, { addSpecialTokens = true }: EncodeOptions = {}): number[] {
    return this.#encoder.encode(text, { add_special_tokens: addSpecialTokens }).ids;
  }
  /** ids → text */
  decode(ids: readonly number[], { skipSpecialTokens = true }: DecodeOptions = {}): string {
    return ids.length === 0 ? "" : this.#encoder.decode([...ids], { skip_special_tokens: skipSpecialTokens });
  }
  tokenToId(token: string): number | undefined {
    return this.#encoder.token_to_id(token);
  }
  idToToken(id: number): string | undefined {
    return this.#encoder.get_added_tokens_decoder().get(id)?.content ?? this.#encoder.id_to_token(id);
  }
  /** One more than the largest id, added tokens included. */
  get vocabSize(): number {
    let largest = -1;
    for (const id of this.#encoder.get_vocab(true).values()) largest = Math.max(largest, id);
    return largest + 1;
  }
  get bosTokenId(): number | undefined {
    return this.#specialId("bos_token");
  }
  get eosTokenId(): number | undefined {
    return this.#specialId("eos_token");
  }
  get padTokenId(): number | undefined {
    return this.#specialId("pad_token");
  }

  /**
   * A conversation as the text that the model was trained on, special tokens included: encode it without adding any. Throws
   * CheckpointError where there is no chat template, or where it refuses the messages.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    return this.renderChat(messages, options).text;
  }
  /** The same text, and which of it the template marks as the assistant's with {% generation %}. */
  renderChat(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): RenderedChat {
    return renderChat(messages, this.#config, this.#chatTemplate, options);
  }

  /** Adds tokens, or finds those that are there, and returns their ids. */
  addTokens(tokens: readonly (string | AddedTokenSpec)[]): number[] {
    const specs = tokens.map((token) => (typeof token === "string" ? { content: token } : token));
    if (specs.some(({ content }) => content === "")) throw new RangeError("addTokens: a token must not be empty");
    const { text, ids } = addTokens(this.#document, specs);
    this.#document = text;
    this.#config = addToConfig(this.#config, text, ids);
    this.#encoder = this.#build();
    return ids;
  }

  /** `ids` and those of the pieces that their tokens are built from, which `trimmed` must keep too. */
  withPieces(ids: readonly number[]): number[] {
    return withPieces(this.#document, ids);
  }
  /** A tokenizer with the kept tokens alone, numbered by their places in the list; text of kept tokens is split as before. Throws VocabularyError. */
  trimmed(keepIds: readonly number[]): Tokenizer {
    const positions = positionsOf(keepIds, this.vocabSize);
    for (const key of SPECIAL) {
      const id = this.#specialId(key);
      if (id === undefined || positions.has(id)) continue;
      throw new VocabularyError(`trim: ${key} of tokenizer_config.json (id ${id}) must be kept`, [id]);
    }
    return new Tokenizer(
      trimTokenizer(this.#document, positions),
      trimTokenizerConfig(this.#config, positions),
      this.#name,
      this.#chatTemplate,
    );
  }

  /** tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja as they would be written. */
  files(): Map<string, string> {
    const files = new Map([
      ["tokenizer.json", this.#document],
      ["tokenizer_config.json", this.#config],
    ]);
    if (this.#chatTemplate !== null) files.set(CHAT_TEMPLATE, this.#chatTemplate);
    return files;
  }
  async savePretrained(dir: string): Promise<void> {
    await writeFolder(dir, this.files());
  }

  #build(): Encoder {
    const document = parseJson(this.#document, this.#name) as { readonly model?: { readonly type?: string } };
    checkSupported(document, this.#name);
    const config = parseJson(this.#config, "tokenizer_config.json") as Readonly<Record<string, unknown>>;
    // as transformers 5: off unless asked for, never after BPE, where it would take blanks that are in the text
    const clean_up_tokenization_spaces =
      config["clean_up_tokenization_spaces"] === true && document.model?.type !== "BPE";
    // what these ask of slow tokenizers, the normalizer of tokenizer.json does
    const slow = { remove_space: false, do_lowercase_and_remove_accent: false };
    try {
      return asWritten(new Encoder(document, { ...config, ...slow, clean_up_tokenization_spaces }));
    } catch (error) {
      throw new CheckpointError(
        "CORRUPT",
        `${this.#name}: must be a tokenizer of the tokenizers library, found that ${(error as Error).message}`,
      );
    }
  }
  #specialId(key: (typeof SPECIAL)[number]): number | undefined {
    const config = JSON.parse(this.#config) as Record<string, string | { content: string } | null>;
    const token = config[key];
    return token ? this.tokenToId(typeof token === "string" ? token : token.content) : undefined;
  }
}

/**
 * A normalized token stands in text as the normalizer writes it, "▁<wug>" with the space before it: it is found only so, and decodes
 * to that, as in Hugging Face's tokenizers. The encoder would also take a bare "<wug>" for it, and decode it without the space.
 */
function asWritten(encoder: Encoder): Encoder {
  const { normalizer, model, added_tokens_map } = encoder;
  if (!normalizer || !model) return encoder;
  for (const [id, token] of encoder.get_added_tokens_decoder()) {
    const { content, normalized, special } = token;
    const written = normalized ? normalizer.normalize(content) : content;
    if (written === content) continue;
    if (added_tokens_map.get(content) === token) added_tokens_map.delete(content);
    if (!special) model.vocab[id] = written;
  }
  return encoder;
}

/** Reads tokenizer.json, tokenizer_config.json and chat_template.jinja of a folder or a cached model. */
export const AutoTokenizer = {
  async fromPretrained(dirOrRepo: string, options: RevisionOptions = {}): Promise<Tokenizer> {
    const folder = await openFolder(await resolveModelFolder(dirOrRepo, options));
    if (!(await folder.has("tokenizer.json"))) {
      throw new CheckpointError("NOT_FOUND", `${folder.name}: must hold tokenizer.json, found none`, {
        folder: folder.name,
      });
    }
    const textOf = async (file: string): Promise<string | null> =>
      (await folder.has(file)) ? readText(folder, file) : null;
    return new Tokenizer(
      await readText(folder, "tokenizer.json"),
      (await textOf("tokenizer_config.json")) ?? "{}",
      `${folder.name}/tokenizer.json`,
      await textOf(CHAT_TEMPLATE),
    );
  },
} as const;
