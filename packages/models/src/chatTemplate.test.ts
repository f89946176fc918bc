import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ChatMessage } from "./chatTemplate.ts";
import { AutoTokenizer, Tokenizer } from "./tokenizer.ts";

const DOCUMENT = JSON.stringify({
  version: "1.0",
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  model: { type: "BPE", vocab: { a: 0, b: 1 }, merges: [] },
});

/** As Qwen's first models had it. */
const CHATML = `{% for message in messages %}
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
    {{ '<|im_start|>assistant\\n' }}
{%- endif %}`;

const { cases: recorded } = JSON.parse(
  readFileSync(new URL("../../../fixtures/chat/templates.json", import.meta.url), "utf8"),
) as {
  cases: {
    name: string;
    template: string;
    messages: ChatMessage[];
    tools: unknown[] | null;
    text: string;
    assistant: [number, number][] | null;
  }[];
};

const HELLO = [
  { role: "user", content: "hi" },
  { role: "assistant", content: "ho" },
];

const tokenizer = (config: object, file: string | null = null): Tokenizer =>
  new Tokenizer(DOCUMENT, JSON.stringify(config), "tokenizer.json", file);

describe("applyChatTemplate", () => {
  test("strips the blanks around blocks, as transformers sets Jinja up", () => {
    // text from Jinja 3.1.6: Environment(trim_blocks=True, lstrip_blocks=True)
    expect(tokenizer({ chat_template: CHATML }).applyChatTemplate(HELLO)).toBe(
      "    <|im_start|>user\nhi<|im_end|>\n\n    <|im_start|>assistant\nho<|im_end|>\n\n",
    );
  });

  test("ends with the generation prompt on request only", () => {
    const chat = tokenizer({ chat_template: "{{ messages | length }}{% if add_generation_prompt %}>{% endif %}" });
    expect(chat.applyChatTemplate(HELLO)).toBe("2");
    expect(chat.applyChatTemplate(HELLO, { addGenerationPrompt: true })).toBe("2>");
  });

  test("knows the special tokens, written as texts or as objects; the others are undefined", () => {
    const chat = tokenizer({
      bos_token: "<s>",
      eos_token: { content: "</s>", lstrip: false },
      pad_token: null,
      chat_template:
        "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ tools is none }}{{ documents is none }}",
    });
    expect(chat.applyChatTemplate(HELLO)).toBe("<s></s>falsetruetrue");
  });

  // text and spans from transformers' render_jinja_template, fixtures/chat/templates.py
  test.each(recorded)("$name: as transformers renders it", ({ template, messages, tools, text, assistant }) => {
    const rendered = tokenizer({ chat_template: template }).renderChat(messages, { tools });
    expect(rendered).toEqual({ text, assistant });
  });

  test("marks no turn where the conversation has none, which is not a template without marks", () => {
    const { template } = recorded.find(({ assistant }) => assistant !== null)!;
    expect(tokenizer({ chat_template: template }).renderChat(HELLO.slice(0, 1)).assistant).toEqual([]);
    expect(tokenizer({ chat_template: CHATML }).renderChat(HELLO).assistant).toBe(null);
  });

  test("passes further keys of a message on", () => {
    const chat = tokenizer({ chat_template: "{% for m in messages %}{{ m.name or '?' }}{% endfor %}" });
    const named = { role: "user", content: "hi", name: "Ada" };
    expect(chat.applyChatTemplate([named, HELLO[1]!])).toBe("Ada?");
  });

  test("takes the template named default from a list", () => {
    const chat_template = [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "plain" },
    ];
    expect(tokenizer({ chat_template }).applyChatTemplate(HELLO)).toBe("plain");
    expect(tokenizer({ chat_template }).applyChatTemplate(HELLO, { tools: [] })).toBe("plain");
    expect(tokenizer({ chat_template }).applyChatTemplate(HELLO, { tools: [{ name: "add" }] })).toBe("tools");
    expect(() => tokenizer({ chat_template: chat_template.slice(0, 1) }).applyChatTemplate(HELLO)).toThrow(
      'chat template: must be in chat_template.jinja or as "chat_template" in tokenizer_config.json, found only tool_use',
    );
  });

  test("chat_template.jinja wins over tokenizer_config.json", () => {
    expect(tokenizer({ chat_template: "config" }, "file").applyChatTemplate(HELLO)).toBe("file");
  });

  test.each([
    [
      {},
      "NOT_FOUND",
      'chat template: must be in chat_template.jinja or as "chat_template" in tokenizer_config.json, found none',
    ],
    [{ chat_template: "{% if %}" }, "CORRUPT", /^chat template: must be a Jinja template, found ./],
    [
      { chat_template: "{{ raise_exception('roles must alternate') }}" },
      "UNEXPECTED",
      "chat template: must accept the messages, it says: roles must alternate",
    ],
  ])("%j throws %s", (config, code, message) => {
    expect(() => tokenizer(config).applyChatTemplate(HELLO)).toThrow(
      expect.objectContaining({
        code,
        message: typeof message === "string" ? message : (expect.stringMatching(message) as string),
      }) as Error,
    );
  });

  test("the template file is read, and saved as it was", async () => {
    const dir = await mkdtemp(join(tmpdir(), "neolog-"));
    try {
      await writeFile(join(dir, "tokenizer.json"), DOCUMENT);
      await writeFile(join(dir, "chat_template.jinja"), CHATML);
      const read = await AutoTokenizer.fromPretrained(dir);
      expect(read.applyChatTemplate(HELLO)).toContain("<|im_start|>user\nhi<|im_end|>");
      await read.savePretrained(join(dir, "saved"));
      expect(await readFile(join(dir, "saved", "chat_template.jinja"), "utf8")).toBe(CHATML);
      expect([...tokenizer({}).files().keys()]).toEqual(["tokenizer.json", "tokenizer_config.json"]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
