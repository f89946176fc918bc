import { CheckpointError } from "@neolog/checkpoint";
import type { Tokenizer } from "@neolog/models";
import { type Example, IGNORED } from "./example.ts";
import { CliError } from "./errors.ts";

interface Message {
  readonly role: string;
  readonly content: string;
}

/**
 * A conversation as the tokenizer's chat template writes it; predicted are the assistant's turns, from what follows the generation
 * prompt to the end of the turn. A token that lies across the end of a turn is not predicted, one across its start is. Throws
 * CliError that begins with `where`.
 */
export function encodeChat(json: unknown, tokenizer: Tokenizer, where: string): Example {
  const messages = toMessages(json, where);
  const render = (count: number, addGenerationPrompt: boolean): string =>
    rendered(tokenizer, messages.slice(0, count), addGenerationPrompt, where);
  const encode = (text: string): number[] => tokenizer.encode(text, { addSpecialTokens: false });
  const whole = render(messages.length, false);
  const ids = encode(whole);

  /** How many tokens of the whole a shorter conversation has. */
  const lengthOf = (count: number, addGenerationPrompt: boolean): number => {
    const prefix = render(count, addGenerationPrompt);
    if (!whole.startsWith(prefix)) throw new CliError(notAPrefix(where, count, addGenerationPrompt));
    return sharedLength(encode(prefix), ids);
  };
  const labels = ids.map(() => IGNORED);
  messages.forEach(({ role }, i) => {
    if (role !== "assistant") return;
    for (let at = lengthOf(i, true); at < lengthOf(i + 1, false); at++) labels[at] = ids[at]!;
  });
  return { input_ids: ids, attention_mask: ids.map(() => 1), labels };
}

function toMessages(json: unknown, where: string): Message[] {
  if (!Array.isArray(json) || json.length === 0) {
    throw new CliError(`${where}: "messages" must be a list of {"role", "content"}, got ${brief(json)}`);
  }
  json.forEach((message: unknown, i) => {
    for (const key of ["role", "content"]) {
      const value = (message as Record<string, unknown> | null)?.[key];
      if (typeof value === "string") continue;
      const got = typeof message === "object" && message !== null ? brief(value) : `a message ${brief(message)}`;
      throw new CliError(`${where}: messages[${i}].${key} must be a text, got ${got}`);
    }
  });
  const messages = json as Message[];
  if (!messages.some(({ role }) => role === "assistant")) {
    const roles = messages.map(({ role }) => role).join(", ");
    throw new CliError(`${where}: "messages" must hold a turn of the assistant to learn from, got ${brief(roles)}`);
  }
  return messages;
}

function rendered(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  addGenerationPrompt: boolean,
  where: string,
): string {
  try {
    return tokenizer.applyChatTemplate(messages, { addGenerationPrompt });
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
