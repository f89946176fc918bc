import { CheckpointError, parseJson } from "@neolog/checkpoint";
import { Template } from "@huggingface/jinja";

/** One turn of a conversation. Further keys reach the template as they are. */
export interface ChatMessage {
  /** system, user, assistant, or what else the template knows. */
  readonly role: string;
  readonly content: string;
}
export interface ChatTemplateOptions {
  /** End with what opens an assistant's turn; false by default. */
  readonly addGenerationPrompt?: boolean;
}

const SPECIAL_TOKENS = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

interface TokenizerConfig {
  readonly chat_template?: string | readonly { readonly name: string; readonly template: string }[] | null;
  readonly [key: string]: unknown;
}

/**
 * Renders messages with a tokenizer's chat template, a Jinja text: `file`, that of chat_template.jinja, where there is one, else
 * `chat_template` in tokenizer_config.json, a text or a list with one named "default". Throws CheckpointError NOT_FOUND where there
 * is none, CORRUPT where it is no Jinja, UNEXPECTED where it refuses the messages.
 * https://huggingface.co/docs/transformers/chat_templating
 */
export function renderChat(
  messages: readonly ChatMessage[],
  config: string,
  file: string | null,
  { addGenerationPrompt = false }: ChatTemplateOptions,
): string {
  const settings = parseJson(config, "tokenizer_config.json") as TokenizerConfig;
  const template = compile(file ?? defaultTemplate(settings));
  try {
    return template.render({
      messages,
      add_generation_prompt: addGenerationPrompt,
      tools: null,
      documents: null,
      ...specialTokens(settings),
    });
  } catch (error) {
    throw new CheckpointError(
      "UNEXPECTED",
      `chat template: must accept the messages, it says: ${(error as Error).message}`,
    );
  }
}

function defaultTemplate({ chat_template: given }: TokenizerConfig): string {
  if (typeof given === "string") return given;
  const named = Array.isArray(given) ? (given as { name: string; template: string }[]) : [];
  const found = named.find(({ name }) => name === "default");
  if (found) return found.template;
  const others = named.length > 0 ? `only ${named.map(({ name }) => name).join(", ")}` : "none";
  throw new CheckpointError(
    "NOT_FOUND",
    `chat template: must be in chat_template.jinja or as "chat_template" in tokenizer_config.json, found ${others}`,
  );
}

function compile(text: string): Template {
  try {
    return new Template(text);
  } catch (error) {
    throw new CheckpointError("CORRUPT", `chat template: must be a Jinja template, found ${(error as Error).message}`);
  }
}

/** bos_token and its like, as texts; those that are not set are undefined in the template. */
const specialTokens = (settings: TokenizerConfig): Record<string, string> =>
  Object.fromEntries(
    SPECIAL_TOKENS.flatMap((key) => {
      const token = settings[key] as string | { content: string } | null | undefined;
      return token ? [[key, typeof token === "string" ? token : token.content]] : [];
    }),
  );
