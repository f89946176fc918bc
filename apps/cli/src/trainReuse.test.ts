import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let model: string;
let data: string;
const at = (name: string): string => join(folder.path, name);

beforeAll(async () => {
  folder = await temporaryFolder();
  model = await writeTinyModel(at("model"));
  data = at("data.jsonl");
  await writeLines(data, [
    { input_ids: [5, 6, 7, 8, 9, 10] },
    { input_ids: [6, 5, 8, 7] },
    { input_ids: [7, 5, 6, 8, 9] },
    { input_ids: [8, 9, 6] },
  ]);
});
afterAll(() => folder[Symbol.asyncDispose]());

type Options = Parameters<typeof flags>[0];
interface Result {
  readonly losses: number[];
  readonly reuse: Record<string, unknown>;
}
const train = (options: Options) =>
  neolog(["train", ...flags({ model, data, "token-indices": "7", lr: 0.05, "batch-size": 2, steps: 6, ...options })]);
async function trained(options: Options): Promise<Result> {
  const { stdout, stderr, code } = await train({ json: true, ...options });
  expect(stderr, stderr).not.toContain("Error");
  expect(code).toBe(0);
  return JSON.parse(stdout) as Result;
}
const bytesOf = (name: string): Promise<Buffer> => readFile(join(at(name), "adapter_model.safetensors"));

describe("train --reuse-bytes, --no-reuse", () => {
  test("give the same losses; what is dropped early changes no byte", async () => {
    const kept = await trained({ out: at("kept") });
    const dropped = await trained({ out: at("dropped"), "reuse-bytes": 0 });
    const plain = await trained({ out: at("plain"), "no-reuse": true });
    expect(kept.reuse).toMatchObject({
      on: true,
      why: null,
      hits: 6,
      misses: 3,
      evictions: 0,
      plain_steps: 0,
      max_bytes: 2 ** 30,
    });
    expect(kept.reuse["bytes"]).toBe(kept.reuse["estimate"]);
    expect(dropped.reuse).toMatchObject({ on: true, hits: 0, misses: 9, bytes: 0, max_bytes: 0 });
    expect(plain.reuse).toEqual({ on: false, why: "--no-reuse" });
    expect(await bytesOf("dropped")).toEqual(await bytesOf("kept"));
    expect(dropped.losses).toEqual(kept.losses);
    expect(kept.losses[0]).toBe(plain.losses[0]);
    kept.losses.forEach((loss, i) => expect(loss).toBeCloseTo(plain.losses[i]!, 5));
  });

  test("are told before the run", async () => {
    const { stdout } = await train({ out: at("told") });
    expect(stdout).toMatch(/^reuse +what comes before the first trained token of each row, 660 B$/m);
    const small = await train({ out: at("small"), "reuse-bytes": 500 });
    expect(small.stdout).toMatch(/^reuse +what comes .* of each row, 660 B, of which 500 B fit$/m);
    const first = await train({ out: at("first"), "token-indices": "5,6,7,8" });
    expect(first.stdout).toMatch(/^reuse +nothing: every row begins with a trained token$/m);
  });

  test("are off where rows hold several texts, and say so", async () => {
    const short = at("short.jsonl");
    await writeLines(short, [{ input_ids: [5, 6, 7, 8, 9, 10] }, { input_ids: [6, 5] }, { input_ids: [7, 5, 6] }]);
    const options = { data: short, "batch-size": 3, packing: true, out: at("packed") } as const;
    const { reuse } = await trained(options);
    expect(reuse).toMatchObject({ on: false, why: "a row holds several texts", plain_steps: 6, estimate: null });
    const { stdout } = await train(options);
    expect(stdout).toMatch(/^reuse +off: --packing puts several texts into a row$/m);
  });
  test("refuse what is no number of bytes", async () => {
    const { stderr, code } = await train({ out: at("never"), "reuse-bytes": -1 });
    expect(code).toBe(2);
    expect(stderr).toContain("a whole number, 0 or more");
  });
});

test("train --skip-empty-steps leaves rows alone where a batch touches none", async () => {
  const untied = await writeTinyModel(at("untied"), { tied: false });
  const absent = at("absent.jsonl");
  await writeLines(absent, [{ input_ids: [5, 6, 8, 9] }]);
  const options = { model: untied, data: absent, "weight-decay": 0.5, steps: 2 };
  await trained({ ...options, out: at("still"), "skip-empty-steps": true });
  await trained({ ...options, out: at("decayed") });
  await trained({ ...options, out: at("start"), lr: 1e-30 });
  expect(await bytesOf("still")).toEqual(await bytesOf("start"));
  expect(await bytesOf("decayed")).not.toEqual(await bytesOf("start"));
});
