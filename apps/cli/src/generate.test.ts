import { AutoModelForCausalLM } from "@neolog/models";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { byteTokenizer, flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let model: string;

beforeAll(async () => {
  folder = await temporaryFolder();
  model = await writeTinyModel(join(folder.path, "model"));
});
afterAll(() => folder[Symbol.asyncDispose]());

interface Generated {
  readonly text: string;
  readonly ids: number[];
  readonly tokens_per_second: number;
}

const generate = (options: Parameters<typeof flags>[0]) =>
  neolog(["generate", ...flags({ model, prompt: "the wug", "max-new-tokens": 12, ...options })]);

async function generated(options: Parameters<typeof flags>[0] = {}): Promise<Generated> {
  const { code, stdout } = await generate({ ...options, json: true });
  expect(code).toBe(0);
  return JSON.parse(stdout) as Generated;
}

describe("neolog generate", () => {
  test("is greedy unless a temperature is given", async () => {
    const tokenizer = byteTokenizer();
    const base = await AutoModelForCausalLM.fromPretrained(model);
    const [ids] = await base.generate({ input_ids: [tokenizer.encode("the wug")], max_new_tokens: 12 });
    const found = await generated();
    expect(Object.keys(found)).toEqual(["text", "ids", "tokens_per_second", "backend"]);
    expect(found.ids).toEqual(ids);
    expect(found.text).toBe(tokenizer.decode(ids!));
    expect(found.tokens_per_second).toBeGreaterThan(0);
    expect((await generated({ seed: 9 })).ids).toEqual(ids);
  });

  test("draws the same for the same seed, other texts for other seeds", async () => {
    const draw = async (seed: number): Promise<string> =>
      JSON.stringify((await generated({ temperature: 1, seed })).ids);
    const draws = [await draw(1), await draw(1), await draw(2), await draw(3)];
    expect(draws[1]).toBe(draws[0]);
    expect(new Set(draws).size).toBe(3);
  });

  test("prints the text for people", async () => {
    const { text } = await generated();
    expect((await generate({})).stdout).toBe(`${text}\n`);
  });

  test("writes with an adapter's tokens", async () => {
    const data = join(folder.path, "data.jsonl");
    await writeLines(data, [{ text: "a wug wug wug wug wug wug" }]);
    const out = join(folder.path, "adapter");
    await neolog(["train", ...flags({ model, data, tokens: " wug", steps: 40, lr: 0.1, out, quiet: true })]);
    const { text, ids } = await generated({ adapter: out, prompt: "a wug wug" });
    expect(ids.filter((id) => id === 257).length).toBeGreaterThan(4);
    expect(text).toMatch(/^a wug wug wug wug/);
  });

  test("needs a prompt with a token in it", async () => {
    const { code, stderr } = await generate({ prompt: "" });
    expect(code).toBe(1);
    expect(stderr).toBe("error: --prompt: must give at least one token, got none\n");
  });

  test("stops when it is told to", async () => {
    const { code, stdout, stderr } = await neolog(["generate", ...flags({ model, prompt: "a" })], {
      signal: AbortSignal.abort(),
    });
    expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: "", stderr: "error: stopped\n" });
  });
});
