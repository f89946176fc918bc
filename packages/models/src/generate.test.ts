import { setImmediate } from "node:timers/promises";
import type { Linear } from "@neolog/nn";
import { assign, defaultBackend, full } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import type { CausalLM } from "./causalLm.ts";
import { parseGenerationConfig } from "./config.ts";
import { GenerateOptionError } from "./generateOptions.ts";
import { SamplingError } from "./sampling.ts";
import { TINY_GPT2, TINY_LLAMA } from "./testing.ts";

const model = (): CausalLM => AutoModelForCausalLM.fromConfig(TINY_LLAMA, { seed: 3, std: 0.5 });

describe("generate", () => {
  test("a left-padded row continues as it does alone", async () => {
    const llama = model();
    const [short, long] = [
      [5, 6],
      [1, 2, 3, 4, 5],
    ];
    const [, padded] = await llama.generate({
      input_ids: [long, [0, 0, 0, ...short]],
      attention_mask: [
        [1, 1, 1, 1, 1],
        [0, 0, 0, 1, 1],
      ],
      max_new_tokens: 6,
    });
    const [alone] = await llama.generate({ input_ids: [short], max_new_tokens: 6 });
    expect(padded!.slice(3)).toEqual(alone);
  });

  test("decoding with the cache gives what running the whole sequence again gives", async () => {
    const llama = model();
    const [ids] = await llama.generate({ input_ids: [[1, 2, 3]], max_new_tokens: 8 });
    for (let t = 3; t < ids!.length; t++) {
      const logits = llama.forward({ input_ids: [ids!.slice(0, t)], logits_to_keep: 1 }).logits.dataSync();
      expect(logits.indexOf(Math.max(...logits))).toBe(ids![t]);
    }
  });

  test("a row ends where its options, else generation_config.json, else config.json say", async () => {
    const prompt = { input_ids: [[1, 2, 3]], max_new_tokens: 5 };
    const [free] = await model().generate(prompt);
    const [first, second] = free!.slice(3) as [number, number];
    expect(first).not.toBe(second);
    const ended = AutoModelForCausalLM.fromConfig({ ...TINY_LLAMA, eos_token_id: [second] }, { seed: 3, std: 0.5 });
    expect(await ended.generate(prompt)).toEqual([[1, 2, 3, first, second]]);
    ended.generationConfig = parseGenerationConfig(`{"eos_token_id": ${first}}`, "generation_config.json");
    expect(await ended.generate(prompt)).toEqual([[1, 2, 3, first]]);
    expect(await ended.generate({ ...prompt, eos_token_id: second })).toEqual([[1, 2, 3, first, second]]);
    expect(await ended.generate({ ...prompt, eos_token_id: null })).toEqual([free]);
  });

  test("rows that ended are filled with the padding id", async () => {
    const llama = model();
    const rows = [[1], [2]];
    const [free] = await llama.generate({ input_ids: rows, max_new_tokens: 6 });
    const eos = free![1]!;
    const [done, other] = await llama.generate({
      input_ids: rows,
      max_new_tokens: 6,
      eos_token_id: eos,
      pad_token_id: 7,
    });
    expect(done!.slice(2)).toEqual(Array.from({ length: other!.length - 2 }, () => 7));
    expect(other!.length).toBeGreaterThan(2);
  });

  test("the same seed draws the same ids, another seed others", async () => {
    const llama = model();
    const draw = (seed: number) =>
      llama.generate({ input_ids: [[1], [1]], do_sample: true, temperature: 1.5, top_k: 10, seed, max_new_tokens: 12 });
    expect(await draw(1)).toEqual(await draw(1));
    expect(await draw(1)).not.toEqual(await draw(2));
    const [row, twin] = await draw(1);
    expect(row).not.toEqual(twin);
  });

  test("draws follow the distribution", async () => {
    const llama = model();
    const logits = llama.forward({ input_ids: [[4]] }).logits.dataSync();
    const exponentials = Array.from(logits, Math.exp);
    const total = exponentials.reduce((a, b) => a + b);
    const draws = 4000;
    const ids = await llama.generate({
      input_ids: Array.from({ length: draws }, () => [4]),
      do_sample: true,
      max_new_tokens: 1,
    });
    exponentials.forEach((e, id) => {
      const p = e / total;
      const count = ids.filter((row) => row[1] === id).length;
      expect(Math.abs(count - draws * p)).toBeLessThanOrEqual(5 * Math.sqrt(draws * p * (1 - p)) + 1);
    });
  });

  test("top_k 1 is greedy", async () => {
    const options = { input_ids: [[1, 2]], max_new_tokens: 6 };
    const sampled = await model().generate({ ...options, do_sample: true, top_k: 1 });
    expect(sampled).toEqual(await model().generate(options));
  });

  test("processors act on greedy decoding too", async () => {
    const llama = model();
    const [row] = await llama.generate({ input_ids: [[1]], max_new_tokens: 16, no_repeat_ngram_size: 1 });
    expect(new Set(row).size).toBe(row!.length);
    const eos_token_id = (await llama.generate({ input_ids: [[1]], max_new_tokens: 1 }))[0]![1]!;
    const [long] = await llama.generate({ input_ids: [[1]], max_new_tokens: 9, min_length: 8, eos_token_id });
    expect(long!.slice(0, 8)).not.toContain(eos_token_id);
  });

  test("every step reports its ids, and a signal stops between steps", async () => {
    const llama = model();
    const seen: number[] = [];
    const options = { input_ids: [[1, 2]], max_new_tokens: 5 };
    const [row] = await llama.generate({ ...options, onToken: ([id]) => seen.push(id!) });
    expect(seen).toEqual(row!.slice(2));
    const stop = new AbortController();
    const stopped = llama.generate({ ...options, signal: stop.signal, onToken: () => stop.abort() });
    await expect(stopped).rejects.toThrow("aborted");
  });

  test("the next step waits for onToken", async () => {
    const events: string[] = [];
    const onToken = async (): Promise<void> => {
      events.push("begun");
      await setImmediate();
      events.push("ended");
    };
    await model().generate({ input_ids: [[1]], max_new_tokens: 3, eos_token_id: null, onToken });
    expect(events).toEqual(["begun", "ended", "begun", "ended", "begun", "ended"]);
  });

  test("live buffers stay flat over steps, and all are freed at the end or on failure", async () => {
    const llama = model();
    const backend = defaultBackend();
    const before = backend.live;
    const during: number[] = [];
    await llama.generate({ input_ids: [[1, 2], [3, 4]], max_new_tokens: 20, onToken: () => during.push(backend.live) }); // prettier-ignore
    expect(new Set(during)).toEqual(new Set([before + 2 * TINY_LLAMA.num_hidden_layers]));
    expect(backend.live).toBe(before);
    const gpt2 = AutoModelForCausalLM.fromConfig(TINY_GPT2);
    const loaded = backend.live;
    await expect(gpt2.generate({ input_ids: [[1, 2]], max_new_tokens: 99 })).rejects.toThrow(
      "gpt2: positions must be below n_positions (16); shorten the input, got 16",
    );
    expect(backend.live).toBe(loaded);
  });

  test("max_length counts the prompt, and max_new_tokens goes before it", async () => {
    const prompt = { input_ids: [[1, 2, 3]], eos_token_id: null };
    const lengthOf = async (options: object): Promise<number> =>
      (await model().generate({ ...prompt, ...options }))[0]!.length;
    expect(await lengthOf({ max_length: 7 })).toBe(7);
    expect(await lengthOf({ max_length: 7, max_new_tokens: 6 })).toBe(9);
    expect(await lengthOf({})).toBe(23);
    const gpt2 = AutoModelForCausalLM.fromConfig(TINY_GPT2); // 16 positions
    expect((await gpt2.generate(prompt))[0]!.length).toBe(16);
    await expect(lengthOf({ max_length: 3 })).rejects.toThrow(
      "generate: max_length must be above the length of input_ids (3); set max_new_tokens, got 3",
    );
  });

  test("min_new_tokens keeps a row from ending before", async () => {
    const llama = model();
    const eos_token_id = (await llama.generate({ input_ids: [[1]], max_new_tokens: 1 }))[0]![1]!;
    const [row] = await llama.generate({ input_ids: [[1]], max_new_tokens: 9, min_new_tokens: 4, eos_token_id });
    expect(row!.slice(1, 5)).not.toContain(eos_token_id);
    expect(row!.length).toBeGreaterThanOrEqual(5);
  });

  test("num_return_sequences draws several continuations of each row, one after the other", async () => {
    const input_ids = [[1, 2], [0, 3]]; // prettier-ignore
    const attention_mask = [[1, 1], [0, 1]]; // prettier-ignore
    const options = { do_sample: true, seed: 4, max_new_tokens: 8, eos_token_id: null };
    const rows = await model().generate({ ...options, input_ids, attention_mask, num_return_sequences: 3 });
    expect(rows.map((row) => row.slice(0, 2))).toEqual([0, 0, 0, 1, 1, 1].map((b) => input_ids[b]));
    expect(new Set(rows.map(String)).size).toBe(6);
    const twice = (x: number[][]): number[][] => x.flatMap((row) => [row, row, row]);
    expect(
      await model().generate({ ...options, input_ids: twice(input_ids), attention_mask: twice(attention_mask) }),
    ).toEqual(rows);
  });

  test("a stop string ends the row whose token completes it", async () => {
    const llama = model();
    const tokenizer = { decode: (ids: readonly number[]) => ids.map((id) => `<${id}>`).join("") };
    const options = { input_ids: [[1], [2]], max_new_tokens: 8, eos_token_id: null, pad_token_id: 0 };
    const [row, other] = await llama.generate(options);
    const stop = `${row![3]}><${row![4]}`;
    const expected = [...row!.slice(0, 5), ...Array.from({ length: 4 }, () => 0)];
    const [stopped, free] = await llama.generate({ ...options, tokenizer, stop_strings: ["never", stop] });
    expect(stopped).toEqual(expected);
    expect(free).toEqual(other);
    const alone = await llama.generate({ ...options, input_ids: [[1]], tokenizer, stop_strings: stop });
    expect(alone).toEqual([row!.slice(0, 5)]);
  });

  test("timers have their turn between two tokens", async () => {
    const turns: number[] = [];
    let step = 0;
    const timer = setInterval(() => turns.push(step), 0);
    await model().generate({ input_ids: [[1]], max_new_tokens: 200, eos_token_id: null, onToken: () => void step++ });
    clearInterval(timer);
    expect(new Set(turns).size).toBeGreaterThan(10);
  });

  test("a signal that is aborted already lets nothing run", async () => {
    const llama = model();
    const live = defaultBackend().live;
    const reason = new Error("no time");
    const stopped = llama.generate({ input_ids: [[1]], signal: AbortSignal.abort(reason) });
    await expect(stopped).rejects.toBe(reason);
    expect(defaultBackend().live).toBe(live);
  });

  test("scores that are no numbers are not drawn from", async () => {
    const llama = model();
    const head = llama.moduleAt(llama.headPath) as Linear;
    assign(head.weight, full(head.weight.shape, NaN));
    const live = defaultBackend().live;
    const drawn = llama.generate({ input_ids: [[1]], do_sample: true });
    await expect(drawn).rejects.toThrow(SamplingError);
    await expect(llama.generate({ input_ids: [[1]], do_sample: true, top_k: 3, top_p: 0.5 })).rejects.toThrow(
      "generate: scores must be numbers, one of them above -Infinity, to draw from them; got NaN, or none that is left",
    );
    expect(defaultBackend().live).toBe(live);
  });

  test("zero new tokens give the prompt back", async () => {
    expect(await model().generate({ input_ids: [[1, 2]], max_new_tokens: 0 })).toEqual([[1, 2]]);
  });

  test.each([
    ["max_new_tokens", -1, "an integer of at least 0"],
    ["temperature", 0, "above 0 (for greedy decoding leave do_sample out)"],
    ["top_p", 1.5, "above 0 and at most 1"],
    ["top_k", 0.5, "an integer of at least 0"],
    ["min_p", -0.1, "between 0 and 1"],
    ["repetition_penalty", 0, "above 0"],
    ["no_repeat_ngram_size", -1, "an integer of at least 0"],
    ["max_length", 0, "an integer of at least 1"],
    ["min_new_tokens", 0.5, "an integer of at least 0"],
    ["num_return_sequences", 0, "an integer of at least 1"],
    ["seed", Number.NaN, "an integer"],
    ["num_return_sequences", 2, "1 without do_sample (greedy continuations of a row are all the same)"],
    ["num_beams", 4, "left out: it is not supported"],
    ["length_penalty", 2, "left out: it is not supported"],
  ])("%s %d is refused", async (option, value, mustHold) => {
    const error = await model()
      .generate({ input_ids: [[1]], [option]: value })
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(GenerateOptionError);
    expect(error).toMatchObject({ option, message: `generate: ${option} must be ${mustHold}, got ${value}` });
  });

  test("what transformers has and we have not is taken where it changes nothing", async () => {
    const options = { input_ids: [[1]], max_new_tokens: 2, num_beams: 1, guidance_scale: null, typical_p: 1 };
    expect(await model().generate(options)).toEqual(await model().generate({ input_ids: [[1]], max_new_tokens: 2 }));
  });

  test("stop strings need a tokenizer, and a character", async () => {
    const options = { input_ids: [[1]], stop_strings: ["a"] };
    await expect(model().generate(options)).rejects.toThrow(
      "generate: tokenizer must be given together with stop_strings, got undefined",
    );
    await expect(model().generate({ ...options, stop_strings: ["a", ""] })).rejects.toThrow(
      'generate: stop_strings must be texts of at least one character, got ""',
    );
  });
});
