import { setTimeout } from "node:timers/promises";
import { defaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import type { CausalLM } from "./causalLm.ts";
import { generateStream } from "./generateStream.ts";
import { TINY_LLAMA } from "./testing.ts";

const model = (): CausalLM => AutoModelForCausalLM.fromConfig(TINY_LLAMA, { seed: 3, std: 0.5 });
const tokenizer = { decode: (ids: readonly number[]) => ids.map((id) => `<${id}>`).join("") };
const options = { input_ids: [[1, 2]], max_new_tokens: 9, eos_token_id: null, tokenizer };

describe("generateStream", () => {
  test("gives the text that generate's ids decode to, a piece for each token", async () => {
    const [ids] = await model().generate(options);
    const pieces: string[] = [];
    for await (const piece of generateStream(model(), options)) pieces.push(piece);
    expect(pieces).toEqual(ids!.slice(2).map((id) => `<${id}>`));
  });

  test("the next token waits until the loop asks for it", async () => {
    let made = 0;
    const stream = generateStream(model(), { ...options, onToken: () => void made++ });
    await stream.next();
    await setTimeout(20);
    expect(made).toBeLessThanOrEqual(1);
    await stream.next();
    await setTimeout(20);
    expect(made).toBeLessThanOrEqual(2);
    await stream.return();
  });

  test("leaving the loop frees what the run held", async () => {
    const llama = model();
    const live = defaultBackend().live;
    for await (const piece of generateStream(llama, options)) {
      expect(defaultBackend().live).toBeGreaterThan(live);
      expect(piece).not.toBe("");
      break;
    }
    expect(defaultBackend().live).toBe(live);
  });

  test("a signal ends it with its reason, also while nobody asks for more", async () => {
    const llama = model();
    const live = defaultBackend().live;
    const stop = new AbortController();
    const stream = generateStream(llama, { ...options, signal: stop.signal });
    await stream.next();
    expect(defaultBackend().live).toBeGreaterThan(live);
    stop.abort(new Error("enough"));
    await setTimeout(20);
    expect(defaultBackend().live).toBe(live);
    await expect(stream.next()).rejects.toThrow("enough");
    expect((await stream.next()).done).toBe(true);
  });

  test("passes on what generate throws", async () => {
    const wrong = generateStream(model(), { ...options, top_p: 2 });
    await expect(wrong.next()).rejects.toThrow("generate: top_p must be above 0 and at most 1, got 2");
  });

  test("streams one row", async () => {
    const two = generateStream(model(), { ...options, input_ids: [[1], [2]] });
    await expect(two.next()).rejects.toThrow('generate: input_ids must be one row, to stream its text, got "2 rows"');
    const several = generateStream(model(), { ...options, do_sample: true, num_return_sequences: 2 });
    await expect(several.next()).rejects.toThrow("generate: num_return_sequences must be 1, to stream a text, got 2");
  });
});
