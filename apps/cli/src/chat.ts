import { CheckpointError } from "@neolog/checkpoint";
import type { ChatMessage, ChatTemplateOptions, RenderedChat, Sequence, Tokenizer } from "@neolog/models";
import { IGNORED } from "./example.ts";
import { CliError } from "./errors.ts";

/**
 * A conversation as the tokenizer's chat template writes it; predicted are the assistant's turns: what the template marks with
 * {% generation %}, or, where it marks nothing, from what follows the generation prompt to the end of the turn. A token that lies
 * across the end of a turn is not predicted, one across its start is. Throws CliError that begins with `where`.
 */
export function encodeChat(row: ChatRow, tokenizer: Tokenizer, where: string): Sequence {
  const messages = toMessages(row.messages, where);
  const tools = toTools(row.tools, where);
  const render = (count: number, addGenerationPrompt: boolean): RenderedChat =>
    rendered(tokenizer, messages.slice(0, count), { addGenerationPrompt, tools }, where);
  const encode = (text: string): number[] => tokenizer.encode(text, { addSpecialTokens: false });
  const { text: whole, assistant } = render(messages.length, false);
  const ids = encode(whole);

  /** Where a shorter conversation ends in the whole. */
  const endOf = (count: number, addGenerationPrompt: boolean): number => {
    const { text } = render(count, addGenerationPrompt);
    if (!whole.startsWith(text)) throw new CliError(notAPrefix(where, count, addGenerationPrompt));
    return text.length;
  };
  const turns =
    assistant ??
    messages.flatMap(({ role }, i) => (role === "assistant" ? [[endOf(i, true), endOf(i + 1, false)] as const] : []));
  const tokensBefore = (end: number): number => sharedLength(encode(whole.slice(0, end)), ids);
  const labels = ids.map(() => IGNORED);
  for (const [begin, end] of turns) {
    const last = tokensBefore(end);
    for (let at = tokensBefore(begin); at < last; at++) labels[at] = ids[at]!;
  }
  return { input_ids: ids, labels };
}

/** What a row of data holds for a conversation. */
export interface ChatRow {
  readonly messages?: unknown;
  /** Functions that the assistant may call. */
  readonly tools?: unknown;
}

function toMessages(json: unknown, where: string): ChatMessage[] {
  if (!Array.isArray(json) || json.length === 0) {
    throw new CliError(`${where}: "messages" must be a list of {"role", "content"}, got ${brief(json)}`);
  }
  json.forEach((message: unknown, i) => {
    const { role, content, tool_calls } = (message ?? {}) as Record<string, unknown>;
    const got = (value: unknown): string =>
      typeof message === "object" && message !== null ? brief(value) : `a message ${brief(message)}`;
    if (typeof role !== "string") throw new CliError(`${where}: messages[${i}].role must be a text, got ${got(role)}`);
    if (typeof content === "string") return;
    if ((content === null || content === undefined) && Array.isArray(tool_calls)) return;
    throw new CliError(`${where}: messages[${i}].content must be a text, got ${got(content)}`);
  });
  const messages = json as ChatMessage[];
  if (!messages.some(({ role }) => role === "assistant")) {
    const roles = messages.map(({ role }) => role).join(", ");
    throw new CliError(`${where}: "messages" must hold a turn of the assistant to learn from, got ${brief(roles)}`);
  }
  return messages;
}

function toTools(json: unknown, where: string): readonly unknown[] | null {
  if (json === undefined || json === null) return null;
  if (Array.isArray(json)) return json;
  throw new CliError(`${where}: "tools" must be a list of functions, got ${brief(json)}`);
}

function rendered(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: ChatTemplateOptions,
  where: string,
): RenderedChat {
  try {
    return tokenizer.renderChat(messages, options);
  } catch (error) {
    throw error instanceof CheckpointError ? new CliError(`${where}: ${error.message}`) : error;
  }
}

const notAPrefix = (where: string, count: number, addGenerationPrompt: boolean): string =>
  `${where}: the chat template must write the first ${count} messages${addGenerationPrompt ? " and the generation prompt" : ""} ` +
  "as it writes them inside the whole conversation, got another text; rows of prompt and completion need no template";

function sharedLength(a: readonly number[], b: readonly number[]): number {
  const differs = a.findIndex((id, i) => id !== b[i]);
  return differs < 0 ? a.length : differs;
}

const brief = (json: unknown): string => (json === undefined ? "none" : JSON.stringify(json).slice(0, 60));
