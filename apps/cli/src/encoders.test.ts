import { openFolder, openSafetensors, toTypedArray } from "@neolog/checkpoint";
import { AutoModelForSeq2SeqLM, AutoModelWithLMHead, type LanguageModel } from "@neolog/models";
import { PeftModel } from "@neolog/peft-tokens";
import { Scope } from "@neolog/tensor";
import { join } from "node:path";
import { writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TINY_VOCABULARY, byteTokenizer, flags, neolog, temporaryFolder, writeLines } from "./testing.ts";

const CONFIGS = {
  bert: {
    model_type: "bert",
    vocab_size: TINY_VOCABULARY,
    hidden_size: 12,
    intermediate_size: 20,
    num_hidden_layers: 1,
    num_attention_heads: 3,
    max_position_embeddings: 32,
    type_vocab_size: 2,
  },
  t5: {
    model_type: "t5",
    vocab_size: TINY_VOCABULARY,
    d_model: 12,
    d_kv: 4,
    d_ff: 20,
    num_layers: 1,
    num_heads: 3,
    decoder_start_token_id: 0,
  },
};
type Kind = keyof typeof CONFIGS;
interface Row {
  readonly input_ids?: number[];
  readonly labels?: number[];
  readonly prompt?: string;
  readonly completion?: string;
}
const ROWS: Readonly<Record<Kind, readonly Row[]>> = {
  bert: [
    { input_ids: [5, 3, 7, 3], labels: [-100, 9, -100, 11] },
    { input_ids: [3, 8, 2], labels: [6, -100, -100] },
    { input_ids: [1, 2, 3, 4, 5], labels: [1, -100, 30, -100, 5] },
  ],
  t5: [
    { input_ids: [5, 3, 7, 30], labels: [9, 30] },
    { input_ids: [3, 8, 2], labels: [6, 5, 30, 2] },
    { prompt: "wug?", completion: "moo" },
  ],
};
const KINDS: readonly Kind[] = ["bert", "t5"];

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const at = (...path: string[]): string => join(folder.path, ...path);
beforeAll(async () => {
  folder = await temporaryFolder();
  for (const kind of KINDS) {
    await AutoModelWithLMHead.fromConfig(CONFIGS[kind], { seed: 2, std: 0.4 }).savePretrained(at(kind));
    await writeLines(at(`${kind}.jsonl`), ROWS[kind]);
  }
  await byteTokenizer().savePretrained(at("t5"));
});
afterAll(() => folder[Symbol.asyncDispose]());

async function result<T>(argv: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await neolog([...argv, "--json"]);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as T;
}
/** The one line of a command that fails. */
async function complaint(argv: readonly string[]): Promise<string> {
  const { code, stderr } = await neolog(argv);
  expect(code).toBe(1);
  return stderr.trim();
}
const run = (model: LanguageModel, inputs: object) =>
  (model as { forward(inputs: object): ReturnType<LanguageModel["forward"]> }).forward(inputs);

/** The rows as the model reads them. */
function rowsOf(kind: Kind): { input_ids: number[]; labels: number[] }[] {
  const ids = (text: string): number[] => [...byteTokenizer().encode(text), 0];
  return ROWS[kind].map(({ input_ids, labels, prompt, completion }) => ({
    input_ids: input_ids ?? ids(prompt!),
    labels: labels ?? ids(completion!),
  }));
}

describe.each(KINDS)("%s", (kind) => {
  const model = (): Promise<LanguageModel> => AutoModelWithLMHead.fromPretrained(at(kind));

  test("eval is the mean over all labels that count", async () => {
    using _scope = new Scope();
    const base = await model();
    let [total, tokens] = [0, 0];
    for (const { input_ids, labels } of rowsOf(kind)) {
      const counted = labels.filter((label) => label !== -100).length;
      total += (await run(base, { input_ids: [input_ids], labels: [labels] }).loss!.item()) * counted;
      tokens += counted;
    }
    const found = await result<{ loss: number; tokens: number }>([
      "eval",
      ...flags({ model: at(kind), data: at(`${kind}.jsonl`), "batch-size": 2 }),
    ]);
    expect(found.tokens).toBe(tokens);
    expect(found.loss).toBeCloseTo(total / tokens, 5); // float32 means of batches against those of rows
  });

  test("train lowers the loss and writes an adapter that loads again", async () => {
    const out = at(`${kind}-adapter`);
    const { losses } = await result<{ losses: number[] }>([
      "train",
      ...flags({ model: at(kind), data: at(`${kind}.jsonl`), "token-indices": "3,30", out, steps: 12, lr: 0.05 }),
    ]);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    const peft = await PeftModel.fromPretrained(await model(), out, {
      onWarning: ({ message }) => expect.fail(message),
    });
    expect(peft.peftConfig["default"]).toMatchObject({ token_indices: [3, 30], task_type: null });
    const scored = (adapter?: string): Promise<{ loss: number }> =>
      result([
        "eval",
        ...flags({ model: at(kind), data: at(`${kind}.jsonl`), ...(adapter === undefined ? {} : { adapter }) }),
      ]);
    expect((await scored(out)).loss).toBeLessThan((await scored()).loss);
  });

  test("forward writes logits and loss", async () => {
    const [{ input_ids, labels }] = rowsOf(kind) as [{ input_ids: number[]; labels: number[] }];
    const batch = { input_ids: [input_ids], labels: [labels] };
    await writeFile(at("inputs.json"), JSON.stringify(batch));
    const out = at(`${kind}.safetensors`);
    await result(["forward", ...flags({ model: at(kind), input: at("inputs.json"), out })]);
    const source = await openSafetensors(await (await openFolder(folder.path)).open(`${kind}.safetensors`));
    const written = toTypedArray(await source.read("logits"), "logits");
    await source.close();
    using _scope = new Scope();
    expect(written).toEqual(run(await model(), batch).logits.dataSync());
  });

  test("inspect draws it", async () => {
    const { kind: what, problem } = await result<{ kind: string; problem: null }>(["inspect", at(kind)]);
    expect([what, problem]).toEqual(["model", null]);
  });
});

test("generate of an encoder-decoder gives the decoder's text alone", async () => {
  const argv = ["generate", ...flags({ model: at("t5"), prompt: "a wug", "max-new-tokens": 5 })];
  const { text, ids } = await result<{ text: string; ids: number[] }>(argv);
  const tokenizer = byteTokenizer();
  const base = await AutoModelForSeq2SeqLM.fromPretrained(at("t5"));
  const [expected] = await base.generate({ input_ids: [tokenizer.encode("a wug")], max_new_tokens: 5 });
  expect(ids).toEqual(expected!.slice(1));
  expect(text).toBe(tokenizer.decode(ids));
  const { stdout } = await neolog([...argv, "--stream"]);
  expect(stdout.trimEnd()).toBe(text.trimEnd());
});

describe("refused, in one line", () => {
  test("text of a masked language model", async () => {
    expect(await complaint(["generate", ...flags({ model: at("bert"), prompt: "a" })])).toBe(
      `error: ${at("bert")}: must be a model that continues text, found "bert", which fills gaps in a text`,
    );
  });

  test.each<[Kind, object, string]>([
    ["bert", { text: "a" }, 'must hold "input_ids" and "labels" for a masked language model, got keys text'],
    [
      "bert",
      { input_ids: [1, 2] },
      'must hold "input_ids" and "labels" for a masked language model, got keys input_ids',
    ],
    ["bert", { input_ids: [1, 2], labels: [-100, -100] }, "must give at least one token to predict, got none"],
    ["bert", { input_ids: [1, 2], labels: [1] }, '"labels" must be as long as "input_ids" (2), got 1'],
    [
      "t5",
      { text: "a" },
      'must hold "prompt" and "completion", or "input_ids" and "labels", for an encoder-decoder, got keys text',
    ],
    ["t5", { input_ids: [1], labels: [257] }, "ids must be in [0, 257), got 257"],
    ["t5", { input_ids: [1], labels: [] }, "must give at least one token to predict, got none"],
  ])("a row for %s: %j", async (kind, row, message) => {
    await writeLines(at("bad.jsonl"), [row]);
    const line = await complaint(["eval", ...flags({ model: at(kind), data: at("bad.jsonl") })]);
    expect(line).toBe(`error: ${at("bad.jsonl")}:1: ${message}`);
  });

  test.each<[Kind, object, string]>([
    [
      "bert",
      { input_ids: [[1]], decoder_input_ids: [[1]] },
      'keys must be of input_ids, attention_mask, position_ids, token_type_ids, labels for this model, found "decoder_input_ids"',
    ],
    [
      "t5",
      { input_ids: [[1]], position_ids: [[0]], labels: [[1]] },
      'keys must be of input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, labels for this model, found "position_ids"',
    ],
    ["t5", { input_ids: [[1]] }, "labels or decoder_input_ids must be there for an encoder-decoder, found neither"],
  ])("a batch for %s: %j", async (kind, batch, message) => {
    await writeFile(at("bad.json"), JSON.stringify(batch));
    const out = at("none.safetensors");
    const line = await complaint(["forward", ...flags({ model: at(kind), input: at("bad.json"), out })]);
    expect(line).toBe(`error: ${at("bad.json")}: ${message}`);
  });
});
