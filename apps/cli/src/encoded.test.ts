import { Tokenizer } from "@neolog/models";
import { readFile, readdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { ReadOptions } from "./data.ts";
import { type Encoded, encodedExamples } from "./encoded.ts";
import { sha256Of } from "./lines.ts";
import { Output } from "./output.ts";
import { byteTokenizer, temporaryFolder, writeLines } from "./testing.ts";

const tokenizer = byteTokenizer();
const SMALL = [
  { text: "the wug" },
  { prompt: "it says ", completion: "moo" },
  { input_ids: [1, 2], attention_mask: [1, 1] },
];
/** 1.2 MB: large enough to be kept. */
const LARGE = [...SMALL, ...Array.from({ length: 300 }, (_, i) => ({ text: `${i} `.repeat(1000) }))];

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let data: string;
let cache: string;
beforeEach(async () => {
  folder = await temporaryFolder();
  data = join(folder.path, "data.jsonl");
  cache = join(folder.path, "home", "neolog");
  vi.stubEnv("HF_HOME", join(folder.path, "home"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await folder[Symbol.asyncDispose]();
});

/** What is read, how often text became ids for it, and what was said. */
async function read(options: Partial<ReadOptions> = {}, how = { cache: true }) {
  let said = "";
  const sink = { write: (text: string) => (said += text) };
  const output = new Output({ stdout: sink, stderr: sink, env: {} }, {});
  const encode = vi.spyOn(Tokenizer.prototype, "encode");
  try {
    const encoded = await encodedExamples(data, { tokenizer, vocabSize: 257, kind: "causal", ...options }, output, how);
    return { ...encoded, encodings: encode.mock.calls.length, said };
  } finally {
    encode.mockRestore();
  }
}
const plain = ({ examples }: Encoded) =>
  Object.entries(examples.columns).map(([key, { values, lengths }]) => [key, [...lengths], [...values]]);
const kept = (): Promise<string[]> => readdir(cache).catch(() => []);

describe("rows of a large file", () => {
  beforeEach(() => writeLines(data, LARGE));

  test("become ids once, and are the same the next time", async () => {
    const first = await read();
    expect(first.encodings).toBeGreaterThan(300);
    expect(first.data_sha256).toBe(await sha256Of(data));
    expect(await kept()).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.safetensors$/)]);
    const second = await read();
    expect(second.encodings).toBe(0);
    expect(plain(second)).toEqual(plain(first));
    expect(second.said).toBe("");
  });

  test("become ids again for another file, tokenizer or option", async () => {
    const changed = byteTokenizer();
    changed.addTokens(["wug"]);
    const ways: Partial<ReadOptions>[] = [
      {},
      { tokenizer: changed, vocabSize: 258 },
      { vocabSize: 300 },
      { maxLength: 12 },
    ];
    for (const options of ways) expect((await read(options)).encodings).toBeGreaterThan(300);
    await writeLines(data, [...LARGE, SMALL[0]]);
    expect((await read()).encodings).toBeGreaterThan(300);
    expect(await kept()).toHaveLength(ways.length + 1);
  });

  test("are neither kept nor looked up where the user says so", async () => {
    await read({}, { cache: false });
    expect(await kept()).toEqual([]);
    await read();
    expect((await read({}, { cache: false })).encodings).toBeGreaterThan(300);
  });

  test("are read again, and a note says why, where what was kept is damaged", async () => {
    const first = await read();
    const [name] = await kept();
    const file = join(cache, name!);
    const whole = await readFile(file);
    await truncate(file, 1000);
    const again = await read();
    expect(again.said).toContain("note: ids kept from an earlier run cannot be read, so the text is: ");
    expect(again.encodings).toBe(first.encodings);
    expect(plain(again)).toEqual(plain(first));
    expect((await readFile(file)).equals(whole)).toBe(true);
  });

  test("are used, and a note says why, where they cannot be kept", async () => {
    await writeFile(join(folder.path, "home"), "in the way");
    const { examples, said } = await read();
    expect(examples.length).toBe(LARGE.length);
    expect(said).toContain(`note: the ids of ${data} are not kept for the next run: `);
  });

  test("that are broken are refused with their line and not kept", async () => {
    await writeLines(data, [...LARGE, { input_ids: [999] }]);
    await expect(read()).rejects.toThrow(`data.jsonl:${LARGE.length + 1}: ids must be in [0, 257), got 999`);
    expect(await kept()).toEqual([]);
  });
});

test("rows of a small file are not kept", async () => {
  await writeLines(data, SMALL);
  expect((await read()).examples.length).toBe(3);
  expect(await kept()).toEqual([]);
});
