import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { BatchSampler } from "./batchSampler.ts";
import { DataLoader } from "./dataLoader.ts";
import { nextTask } from "./nextTask.ts";

const letters = [..."abcdefg"];
const loaderOf = (collate: (rows: string[]) => string = (rows) => rows.join("")) =>
  new DataLoader(letters, { batchSampler: new BatchSampler(7, { batchSize: 3 }), collate });

async function first<T>(batches: AsyncIterable<T>, count: number): Promise<T[]> {
  const found: T[] = [];
  for await (const batch of batches) if (found.push(batch) === count) break;
  return found;
}

describe("DataLoader", () => {
  test("gives the batches of an epoch, whole or from one on", async () => {
    const loader = loaderOf();
    expect(loader.length).toBe(3);
    expect(await first(loader.epoch(0), 9)).toEqual(["abc", "def", "g"]);
    expect(await first(loader.epoch(4, 1), 9)).toEqual(["def", "g"]);
  });

  test("gives the batches of all steps from any on, epoch after epoch", async () => {
    const options = fc.record({ batchSize: fc.integer({ min: 1, max: 8 }), seed: fc.nat(), shuffle: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(options, fc.nat(30), async (options, from) => {
        const batchSampler = new BatchSampler(7, options);
        const loader = new DataLoader(letters, { batchSampler, collate: (rows) => rows });
        const expected = [0, 1, 2, 3, 4].map((i) => batchSampler.at(from + i).map((row) => letters[row]));
        expect(await first(loader.steps(from), 5)).toEqual(expected);
      }),
    );
  });

  test("makes the next batch while the one before is in use, and no more than that", async () => {
    const made: string[] = [];
    const loader = loaderOf((rows) => (made.push(rows.join("")), rows.join("")));
    const batches = loader.epoch(0);
    await batches.next();
    expect(made).toEqual(["abc"]);
    await nextTask();
    await nextTask();
    expect(made).toEqual(["abc", "def"]);
    expect((await batches.next()).value).toBe("def");
    expect((await batches.next()).value).toBe("g");
    await nextTask();
    await nextTask();
    expect(made).toEqual(["abc", "def", "g"]);
    expect((await batches.next()).done).toBe(true);
  });

  test("has one task on its way at most, where nobody lets the event loop go on", async () => {
    const tasks = vi.spyOn(globalThis, "setImmediate");
    await first(loaderOf().steps(), 50);
    const calls = tasks.mock.calls.length;
    tasks.mockRestore();
    expect(calls).toBe(1);
  });

  test("makes nothing after it was left", async () => {
    const made: string[] = [];
    await first(loaderOf((rows) => (made.push(rows.join("")), rows.join(""))).steps(), 1);
    await nextTask();
    await nextTask();
    expect(made).toEqual(["abc"]);
  });

  test("gives an error of collate to who asks for that batch", async () => {
    const batches = loaderOf((rows) => {
      if (rows.includes("d")) throw new RangeError("no d");
      return "";
    }).epoch(0);
    await batches.next();
    await nextTask();
    await nextTask();
    await expect(batches.next()).rejects.toThrow("no d");
  });

  test("refuses a sampler of other data", () => {
    const batchSampler = new BatchSampler(6, { batchSize: 2 });
    expect(() => new DataLoader(letters, { batchSampler, collate: (rows) => rows })).toThrow(
      "DataLoader: batchSampler must be for the 7 examples of dataset, got one for 6",
    );
  });
});
