import { AutoModelForCausalLM } from "@neolog/models";
import { Scope } from "@neolog/tensor";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { byteTokenizer, flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

const TEXTS = ["the wug says moo", "a wug", "the wug lives in the pond , they say", "moo", "wug wug"];

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let model: string;
let data: string;

beforeAll(async () => {
  folder = await temporaryFolder();
  model = await writeTinyModel(join(folder.path, "model"));
  data = join(folder.path, "data.jsonl");
  await writeLines(
    data,
    TEXTS.map((text) => ({ text })),
  );
});
afterAll(() => folder[Symbol.asyncDispose]());

interface Evaluated {
  readonly loss: number;
  readonly perplexity: number;
  readonly tokens: number;
}

async function evaluated(options: Parameters<typeof flags>[0] = {}): Promise<Evaluated> {
  const { code, stdout } = await neolog(["eval", ...flags({ model, data, ...options, json: true })]);
  expect(code).toBe(0);
  return JSON.parse(stdout) as Evaluated;
}

describe("neolog eval", () => {
  test("is the mean over all predicted tokens", async () => {
    const tokenizer = byteTokenizer();
    const base = await AutoModelForCausalLM.fromPretrained(model);
    using _scope = new Scope();
    let total = 0;
    let tokens = 0;
    for (const text of TEXTS) {
      const ids = tokenizer.encode(text);
      total += (await base.forward({ input_ids: [ids], labels: [ids] }).loss!.item()) * (ids.length - 1);
      tokens += ids.length - 1;
    }
    const found = await evaluated();
    expect(Object.keys(found)).toEqual(["loss", "perplexity", "tokens", "backend"]);
    expect(found.tokens).toBe(tokens);
    // float32 means of batches against float32 means of rows
    expect(found.loss).toBeCloseTo(total / tokens, 5);
    expect(found.perplexity).toBe(Math.exp(found.loss));
  });

  test("does not depend on the batches", async () => {
    const { loss } = await evaluated({ "batch-size": 1 });
    // float32 sums in another order
    for (const size of [2, 3, 100]) expect((await evaluated({ "batch-size": size })).loss).toBeCloseTo(loss, 5);
  });

  test("counts what is left of longer rows", async () => {
    expect((await evaluated({ "max-length": 3 })).tokens).toBe(TEXTS.length * 2);
  });

  test("sees what an adapter learned, and its new tokens", async () => {
    const out = join(folder.path, "adapter");
    await neolog(["train", ...flags({ model, data, tokens: "wug", steps: 20, lr: 0.05, out, quiet: true })]);
    const adapted = await evaluated({ adapter: out });
    const plain = await evaluated();
    expect(adapted.tokens).toBe(plain.tokens - 2 * 5);
    const untrained = join(folder.path, "untrained");
    await neolog(["train", ...flags({ model, data, tokens: "wug", steps: 1, lr: 1e-9, out: untrained, quiet: true })]);
    expect(adapted.loss).toBeLessThan((await evaluated({ adapter: untrained })).loss);
  });

  test("tells people in three lines", async () => {
    const { stdout, stderr } = await neolog(["eval", ...flags({ model, data })]);
    expect(stdout).toMatch(/^loss +\d\.\d{6}\nperplexity +\d+\.\d{4}\ntokens +\d+\n$/);
    expect(stderr).toBe("");
  });

  test("stops when it is told to", async () => {
    const { code, stdout, stderr } = await neolog(["eval", ...flags({ model, data })], {
      signal: AbortSignal.abort(),
      tty: true,
      env: { NO_COLOR: "1" },
    });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/error: stopped\n$/);
  });
});
