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

  test("draws as the flags say, at temperature 1 unless another is given", async () => {
    const tokenizer = byteTokenizer();
    const base = await AutoModelForCausalLM.fromPretrained(model);
    const draw = { input_ids: [tokenizer.encode("the wug")], max_new_tokens: 12, do_sample: true, seed: 5 };
    const shaped = { top_k: 40, top_p: 0.9, min_p: 0.01, temperature: 1.3, repetition_penalty: 1.2 };
    const given = { "top-k": 40, "top-p": 0.9, "min-p": 0.01, temperature: 1.3, "repetition-penalty": 1.2, seed: 5 };
    expect([(await generated(given)).ids]).toEqual(await base.generate({ ...draw, ...shaped }));
    expect([(await generated({ "top-k": 40, seed: 5 })).ids]).toEqual(await base.generate({ ...draw, top_k: 40 }));
  });

  test("lets no run of tokens occur twice", async () => {
    const { ids } = await generated({ "no-repeat-ngram-size": 1, "max-new-tokens": 40 });
    expect(new Set(ids.slice(7)).size).toBe(40);
  });

  test("ends with the token that completes one of the stop texts", async () => {
    const unlike = { "no-repeat-ngram-size": 1, "max-new-tokens": 40 };
    const { text, ids } = await generated(unlike);
    const stop = /[a-z]/i.exec(text.slice("the wug".length))![0];
    const end = ids.indexOf(byteTokenizer().encode(stop)[0]!, 7) + 1;
    const argv = ["generate", ...flags({ model, prompt: "the wug", json: true, ...unlike })];
    const { stdout } = await neolog([...argv, "--stop", "the wug", "--stop", stop]);
    expect(JSON.parse(stdout)).toMatchObject({ ids: ids.slice(0, end) });
    expect(end).toBeLessThan(ids.length);
  });

  test("streams what it would print at the end", async () => {
    const pieces: string[] = [];
    const argv = ["generate", ...flags({ model, prompt: "the wug", "max-new-tokens": 12 })];
    const streamed = await neolog([...argv, "--stream"], { onStdout: (text) => pieces.push(text) });
    expect(streamed).toEqual({ code: 0, stdout: (await generate({})).stdout, stderr: "" });
    expect(pieces.length).toBeGreaterThan(6);
    const json = await neolog([...argv, "--stream", "--json"]);
    expect(json.stderr).toBe(streamed.stdout);
    expect(JSON.parse(json.stdout)).toMatchObject({ text: streamed.stdout.slice(0, -1) });
  });

  test("a stream stops between two tokens when it is told to, with the line ended", async () => {
    const stop = new AbortController();
    let pieces = 0;
    const argv = ["generate", ...flags({ model, prompt: "the wug", "max-new-tokens": 9999, stream: true })];
    const onStdout = (): void => {
      if (++pieces === 4) stop.abort();
    };
    const { code, stdout, stderr } = await neolog(argv, { signal: stop.signal, onStdout });
    expect({ code, stderr }).toEqual({ code: 1, stderr: "error: stopped\n" });
    expect(stdout).toMatch(/^the wug[^]*\n$/);
    expect(pieces).toBeLessThan(8);
  });

  test("a draw at temperature 0 is wrong usage", async () => {
    const { code, stderr } = await generate({ temperature: 0, "top-p": 0.9 });
    expect(code).toBe(2);
    expect(stderr).toBe(
      "error: --top-p: must come with a temperature above 0, got --temperature 0, which does not draw\n",
    );
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
