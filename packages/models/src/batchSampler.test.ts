import { Random } from "@neolog/tensor";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BatchSampler } from "./batchSampler.ts";

const setting = fc.record({
  lengths: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 130 }),
  batchSize: fc.integer({ min: 1, max: 12 }),
  shuffle: fc.boolean(),
  bucketed: fc.boolean(),
  seed: fc.nat(),
  epoch: fc.nat(20),
});
interface Setting {
  readonly lengths: number[];
  readonly batchSize: number;
  readonly shuffle: boolean;
  readonly bucketed: boolean;
  readonly seed: number;
}
const samplerOf = ({ lengths, bucketed, ...options }: Setting): BatchSampler =>
  new BatchSampler(lengths.length, { ...options, lengths: bucketed ? lengths : undefined });
const padding = (batches: readonly (readonly number[])[], lengths: readonly number[]): number =>
  batches.reduce((sum, batch) => {
    const longest = Math.max(...batch.map((i) => lengths[i]!));
    return sum + batch.reduce((free, i) => free + longest - lengths[i]!, 0);
  }, 0);

describe("BatchSampler", () => {
  test("gives every example exactly once an epoch, in full batches but for one", () => {
    fc.assert(
      fc.property(setting, ({ epoch, ...options }) => {
        const sampler = samplerOf(options);
        const batches = sampler.epoch(epoch);
        expect(batches).toHaveLength(sampler.length);
        expect(batches.flat().toSorted((a, b) => a - b)).toEqual(options.lengths.map((_, i) => i));
        const sizes = batches.map(({ length }) => length).toSorted((a, b) => b - a);
        expect(new Set(sizes.slice(0, -1)).size).toBeLessThanOrEqual(1);
        expect(sizes[0]).toBeLessThanOrEqual(options.batchSize);
      }),
    );
  });

  test("gives each step the same, from wherever the run goes on", () => {
    fc.assert(
      fc.property(setting, fc.nat(60), (options, step) => {
        const whole = samplerOf(options);
        for (let i = 0; i < step; i++) whole.at(i);
        expect(whole.at(step)).toEqual(samplerOf(options).at(step));
      }),
    );
  });

  test("by length never pads more than as drawn, where all batches are full and one sorting holds all", () => {
    fc.assert(
      fc.property(setting, ({ epoch, ...options }) => {
        const full = Math.min(50, Math.floor(options.lengths.length / options.batchSize)) * options.batchSize;
        const lengths = options.lengths.slice(0, full);
        fc.pre(full > 0);
        const free = (bucketed: boolean) => padding(samplerOf({ ...options, lengths, bucketed }).epoch(epoch), lengths);
        expect(free(true)).toBeLessThanOrEqual(free(false));
      }),
    );
  });

  test("without lengths, the order is the permutation of seed and epoch", () => {
    const sampler = new BatchSampler(5, { batchSize: 2, shuffle: true, seed: 3 });
    const order = new Random(3, 2 * 5).permutation(5);
    expect(sampler.epoch(2)).toEqual([order.slice(0, 2), order.slice(2, 4), order.slice(4)]);
    expect(sampler.at(7)).toEqual(order.slice(2, 4));
  });

  test("by length, epochs and seeds differ, and long batches stand anywhere", () => {
    const lengths = Array.from({ length: 64 }, (_, i) => i + 1);
    const epochs = [0, 1].flatMap((seed) => {
      const sampler = new BatchSampler(64, { batchSize: 4, shuffle: true, seed, lengths });
      return [sampler.epoch(0), sampler.epoch(1)];
    });
    expect(new Set(epochs.map((epoch) => JSON.stringify(epoch))).size).toBe(4);
    const places = epochs.map((epoch) => epoch.findIndex((batch) => batch.includes(63)));
    expect(new Set(places).size).toBeGreaterThan(1);
    for (const batch of epochs.flat()) expect(Math.max(...batch) - Math.min(...batch)).toBe(3);
  });

  test("says what it cannot take", () => {
    expect(() => new BatchSampler(0, { batchSize: 2 })).toThrow("BatchSampler: size must be a positive integer, got 0");
    expect(() => new BatchSampler(3, { batchSize: 1.5 })).toThrow(
      "BatchSampler: batchSize must be a positive integer, got 1.5",
    );
    expect(() => new BatchSampler(3, { batchSize: 1, lengths: [1] })).toThrow(
      "BatchSampler: lengths must hold one of each example (3), got 1",
    );
  });
});
