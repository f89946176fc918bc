import { type Sequence, Tokenizer } from "@neolog/models";
import { describe, expect, test } from "vitest";
import { type ReadOptions, readExamples } from "./data.ts";
import { byteTokenizer, temporaryFolder, writeLines } from "./testing.ts";

const CHATML =
  "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
const chatTokenizer = byteTokenizer({ chat_template: CHATML });

/** A row with everything that a batch takes from it. */
interface Example {
  readonly input_ids: number[];
  readonly attention_mask: number[];
  readonly labels: number[];
}
const whole = ({ input_ids, attention_mask, labels }: Sequence): Example => {
  const ids = Array.from(input_ids);
  return {
    input_ids: ids,
    attention_mask: attention_mask ? Array.from(attention_mask) : ids.map(() => 1),
    labels: labels ? Array.from(labels) : ids,
  };
};

/** The examples of a file with these rows; errors without the name of its folder. */
async function read(rows: readonly unknown[], options: Partial<ReadOptions> = {}): Promise<Example[]> {
  await using folder = await temporaryFolder();
  const file = `${folder.path}/data.jsonl`;
  await writeLines(file, rows);
  try {
    return [...(await readExamples(file, { tokenizer: chatTokenizer, vocabSize: 257, ...options }))].map(whole);
  } catch (error) {
    throw new Error((error as Error).message.replace(`${folder.path}/`, ""), { cause: error });
  }
}

/** The text at predicted positions; · for each run of others. */
const shownLabels = (tokenizer: Tokenizer, { labels }: Example): string =>
  labels
    .map((label) => (label === -100 ? "·" : tokenizer.decode([label], { skipSpecialTokens: false })))
    .join("")
    .replace(/·+/g, "·");

describe("rows", () => {
  test("of text predict every token", async () => {
    const [example] = await read([{ text: "wug" }]);
    expect(chatTokenizer.decode(example!.input_ids)).toBe("wug");
    expect(example!.labels).toEqual(example!.input_ids);
    expect(example!.attention_mask).toEqual([1, 1, 1]);
  });

  test("of prompt and completion predict the completion and its end", async () => {
    const [example] = await read([{ prompt: "the wug", completion: " moos" }]);
    expect(shownLabels(chatTokenizer, example!)).toBe("· moos<end>");
    expect(chatTokenizer.decode(example!.input_ids)).toBe("the wug moos");
  });

  test("of input_ids predict what the labels say, padding never", async () => {
    expect(
      await read([
        { input_ids: [1, 2, 3], attention_mask: [1, 1, 0], labels: [-100, 5, 6] },
        "",
        { input_ids: [1, 2] },
      ]),
    ).toEqual([
      { input_ids: [1, 2, 3], attention_mask: [1, 1, 0], labels: [-100, 5, -100] },
      { input_ids: [1, 2], attention_mask: [1, 1], labels: [1, 2] },
    ]);
  });

  test("are cut to the given length", async () => {
    const [example] = await read([{ text: "abcdef" }], { maxLength: 4 });
    expect(chatTokenizer.decode(example!.input_ids)).toBe("abcd");
    expect(example!.labels).toHaveLength(4);
  });
});

describe("conversations", () => {
  const messages = [
    { role: "system", content: "be brief" },
    { role: "user", content: "a wug?" },
    { role: "assistant", content: "a duck" },
    { role: "user", content: "it says?" },
    { role: "assistant", content: "quack" },
  ];

  test("predict the assistant's turns and nothing else", async () => {
    const [example] = await read([{ messages }]);
    expect(chatTokenizer.decode(example!.input_ids, { skipSpecialTokens: false })).toBe(
      "<|system|>be brief<end>\n<|user|>a wug?<end>\n<|assistant|>a duck<end>\n<|user|>it says?<end>\n<|assistant|>quack<end>\n",
    );
    expect(shownLabels(chatTokenizer, example!)).toBe("·a duck<end>\n·quack<end>\n");
  });

  test("predict a token that lies across the start of a turn, not one across its end", async () => {
    const tokenizer = byteTokenizer({
      chat_template:
        "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    });
    tokenizer.addTokens([":x", ";u"]);
    const chat = [
      { role: "assistant", content: "x" },
      { role: "user", content: "?" },
    ];
    const [example] = await read([{ messages: chat }], { tokenizer, vocabSize: 300 });
    expect(tokenizer.decode(example!.input_ids)).toBe("assistant:x;user:?;");
    expect(shownLabels(tokenizer, example!)).toBe("·:x·");
  });

  test("predict what the template marks as generated, where it marks anything", async () => {
    const tokenizer = byteTokenizer({
      chat_template:
        "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }};{% endgeneration %}{% else %}{{ m.role }}:{{ m.content | trim }};{% endif %}{% endfor %}",
    });
    const [example] = await read([{ messages }], { tokenizer });
    expect(tokenizer.decode(example!.input_ids)).toBe("system:be brief;user:a wug?;A:a duck;user:it says?;A:quack;");
    expect(shownLabels(tokenizer, example!)).toBe("·a duck;·quack;");
  });

  test("predict calls of tools, not what tools answer", async () => {
    const tokenizer = byteTokenizer({
      chat_template:
        "{% if tools %}[{{ tools[0].name }}]{% endif %}{% for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{{ m.tool_calls[0].name }}!{% else %}{{ m.content }}{% endif %};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    });
    const chat = [
      { role: "user", content: "2+2?" },
      { role: "assistant", content: null, tool_calls: [{ name: "add", arguments: { a: 2, b: 2 } }] },
      { role: "tool", content: "4" },
      { role: "assistant", content: "four" },
    ];
    const [example] = await read([{ messages: chat, tools: [{ name: "add" }] }], { tokenizer });
    expect(tokenizer.decode(example!.input_ids)).toBe("[add]<user>2+2?;<assistant>add!;<tool>4;<assistant>four;");
    expect(shownLabels(tokenizer, example!)).toBe("·add!;·four;");
    await expect(read([{ messages: chat, tools: "add" }], { tokenizer })).rejects.toThrow(
      'data.jsonl:1: "tools" must be a list of functions, got "add"',
    );
  });

  test("take no special tokens beside the template's", async () => {
    const document = JSON.parse(byteTokenizer().files().get("tokenizer.json")!) as Record<string, unknown>;
    const begin = { id: "<end>", ids: [0], tokens: ["<end>"] };
    document["post_processor"] = {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<end>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<end>": begin },
    };
    const tokenizer = new Tokenizer(
      JSON.stringify(document),
      JSON.stringify({ bos_token: "<end>", chat_template: `{{ bos_token }}${CHATML}` }),
    );
    expect(tokenizer.encode("a")[0]).toBe(0);
    const [example] = await read([{ messages: messages.slice(1, 3) }], { tokenizer });
    expect(tokenizer.decode(example!.input_ids, { skipSpecialTokens: false })).toBe(
      "<end><|user|>a wug?<end>\n<|assistant|>a duck<end>\n",
    );
  });

  test.each([
    [[], 'data.jsonl:1: "messages" must be a list of {"role", "content"}, got []'],
    ["hi", 'data.jsonl:1: "messages" must be a list of {"role", "content"}, got "hi"'],
    [[null], "data.jsonl:1: messages[0].role must be a text, got a message null"],
    [[{ content: "hi" }], "data.jsonl:1: messages[0].role must be a text, got none"],
    [
      [{ role: "user", content: "hi" }, { role: "assistant" }],
      "data.jsonl:1: messages[1].content must be a text, got none",
    ],
    [
      [{ role: "user", content: [{ type: "image" }] }],
      'data.jsonl:1: messages[0].content must be a text, got [{"type":"image"}]',
    ],
    [
      [{ role: "user", content: "hi" }],
      'data.jsonl:1: "messages" must hold a turn of the assistant to learn from, got "user"',
    ],
  ])("%j are refused", async (wrong, message) => {
    await expect(read([{ messages: wrong }])).rejects.toThrow(message);
  });

  test.each([
    [
      byteTokenizer(),
      'data.jsonl:1: chat template: must be in chat_template.jinja or as "chat_template" in tokenizer_config.json, found none',
    ],
    [
      byteTokenizer({ chat_template: "{{ raise_exception('no system turn') }}" }),
      "data.jsonl:1: chat template: must accept the messages, it says: no system turn",
    ],
    [
      byteTokenizer({ chat_template: "{% for m in messages | reverse %}{{ m.content }}{% endfor %}" }),
      "data.jsonl:1: the chat template must write the first 2 messages and the generation prompt as it writes them inside the whole conversation, got another text; rows of prompt and completion need no template",
    ],
  ])("need a chat template that fits", async (tokenizer, message) => {
    await expect(read([{ messages }], { tokenizer })).rejects.toThrow(message);
  });
});

describe("broken rows", () => {
  test.each([
    ["{", "data.jsonl:2: must be a JSON object on one line, got "],
    [[1, 2], 'data.jsonl:2: must hold "text", "prompt" and "completion", "messages", or "input_ids", got [1,2]'],
    [{ txt: "a" }, "got keys txt"],
    [{ prompt: "a" }, "got keys prompt"],
    [{ text: "a" }, "data.jsonl:2: must give at least one token to predict after the first, got none"],
    [{ input_ids: [1, 999] }, "data.jsonl:2: ids must be in [0, 257), got 999"],
    [{ input_ids: [1, -1] }, "data.jsonl:2: ids must be in [0, 257), got -1"],
    [{ input_ids: [1, 2], labels: [1, 400] }, "data.jsonl:2: ids must be in [0, 257), got 400"],
    [{ input_ids: [1, 2], labels: [1, -1] }, "data.jsonl:2: ids must be in [0, 257), got -1"],
    [{ input_ids: [1, 0.5] }, 'data.jsonl:2: "input_ids" must be a list of whole numbers, got [1,0.5]'],
    [
      { input_ids: [1, 2], attention_mask: [1] },
      'data.jsonl:2: "attention_mask" must be as long as "input_ids" (2), got 1',
    ],
    [
      { input_ids: [1, 2], labels: [-100, -100] },
      "data.jsonl:2: must give at least one token to predict after the first, got none",
    ],
  ])("%j is refused with its line", async (row, message) => {
    await expect(read([{ text: "fine" }, row])).rejects.toThrow(message);
  });

  test("text needs a tokenizer, ids need none", async () => {
    await expect(read([{ text: "fine" }], { tokenizer: null })).rejects.toThrow(
      "data.jsonl:1: text needs a tokenizer; the model's folder must hold tokenizer.json",
    );
    expect(await read([{ input_ids: [1, 2] }], { tokenizer: null })).toHaveLength(1);
  });

  test("a file without rows is refused", async () => {
    await expect(read(["", "  "])).rejects.toThrow("data.jsonl: must hold at least one row, found none");
  });
});
