import { Scope, type Tensor, mul, parameter, persist, randn, slice, tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { AdamW, type AdamWOptions } from "./adamw.ts";
import type { Optimizer } from "./optimizer.ts";
import { runsOf } from "./rows.ts";
import { SGD } from "./sgd.ts";

const ROWS = 5;
/** Which rows each step touches. */
const PLAN = [
  [1, 1, 0, 0, 1],
  [0, 1, 0, 1, 1],
  [1, 0, 0, 1, 1],
  [0, 0, 0, 0, 0],
  [1, 1, 0, 1, 1],
];
const start = (): Tensor => parameter(randn([ROWS, 3], 4));
const gradAt = (step: number): Tensor => randn([ROWS, 3], 100 + step);

function run(optimizer: Optimizer, p: Tensor, from = 0, to = PLAN.length): void {
  for (let step = from; step < to; step++) {
    using _ = new Scope();
    p.grad = gradAt(step);
    optimizer.step(new Map([[p, PLAN[step]!]]));
  }
}
const OPTIMIZERS: [string, (p: Tensor, lazy: "all" | "lazy") => Optimizer][] = [
  ["AdamW", (p, rows) => new AdamW([p], { rows, lr: 0.1, weight_decay: 0.3 })],
  ["SGD", (p, rows) => new SGD([p], { rows, lr: 0.1, momentum: 0.9, weight_decay: 0.3 })],
];

describe.each(OPTIMIZERS)("A-88 %s over lazy rows", (_, make) => {
  test("treats each row as a parameter of its own that has a gradient only when touched", () => {
    const p = start();
    run(make(p, "lazy"), p);
    for (let row = 0; row < ROWS; row++) {
      const alone = parameter(mul(slice(start(), 0, row, row + 1), 1));
      const optimizer = make(alone, "all");
      PLAN.forEach((touched, step) => {
        alone.grad = touched[row] ? slice(gradAt(step), 0, row, row + 1) : null;
        optimizer.step();
      });
      expect(slice(p, 0, row, row + 1).dataSync()).toEqual(alone.dataSync());
    }
  });
  test("leaves what is never touched as it was, and equals the dense optimizer where all rows are", () => {
    const p = start();
    run(make(p, "lazy"), p);
    expect(slice(p, 0, 2, 3).dataSync()).toEqual(slice(start(), 0, 2, 3).dataSync());

    const [every, dense] = [start(), start()];
    const [lazy, all] = [make(every, "lazy"), make(dense, "all")];
    for (let step = 0; step < 4; step++) {
      [every.grad, dense.grad] = [gradAt(step), gradAt(step)];
      lazy.step(new Map([[every, new Uint8Array(ROWS).fill(1)]]));
      all.step();
    }
    expect(every.dataSync()).toEqual(dense.dataSync());
  });
  test("A-91 resumes bit for bit, with a count of steps for each row", async () => {
    const [through, p] = [start(), start()];
    run(make(through, "lazy"), through);
    const first = make(p, "lazy");
    run(first, p, 0, 3);
    const saved = new Map([...first.stateDict()].map(([key, t]) => [key, persist(mul(t, 1))]));
    expect([...saved.get("0.step")!.dataSync()]).toEqual([2, 2, 0, 2, 3]);
    const resumed = make(p, "lazy");
    await resumed.loadStateDict(saved);
    run(resumed, p, 3);
    expect(p.dataSync()).toEqual(through.dataSync());
  });
  test("follows rows into another parameter; rows without a past start anew", () => {
    const p = start();
    const optimizer = make(p, "lazy");
    run(optimizer, p, 0, 3);
    const before = new Map([...optimizer.stateDict()].map(([key, t]) => [key, t.dataSync()]));
    const replacement = parameter(randn([3, 3], 9));
    optimizer.replaceParameter(p, replacement, Int32Array.of(4, -1, 0));
    const after = optimizer.stateDict();
    expect(optimizer.params).toEqual([replacement]);
    expect([...after.get("0.step")!.dataSync()]).toEqual([3, 0, 2]);
    for (const [key, t] of after) {
      if (key === "0.step") continue;
      const old = before.get(key)!;
      expect([...t.dataSync()]).toEqual([...old.slice(12, 15), 0, 0, 0, ...old.slice(0, 3)]);
    }
    optimizer.replaceParameter(replacement, p);
    expect(optimizer.stateDict().size).toBe(0);
    expect(optimizer.params).toEqual([p]);
    optimizer.replaceParameter(replacement, start()); // not this optimizer's: nothing to do
    expect(optimizer.params).toEqual([p]);
  });
  test("frees what it replaces", () => {
    const p = start();
    const optimizer = make(p, "lazy");
    run(optimizer, p);
    const replacement = start();
    const { live } = p.backend;
    optimizer.replaceParameter(p, replacement, Int32Array.of(0, 1, 2, 3, 4));
    expect(p.backend.live).toBe(live);
    optimizer.replaceParameter(replacement, p);
    expect(p.backend.live).toBeLessThan(live);
  });
});

describe("AdamW", () => {
  const options: AdamWOptions = { lr: 0.1, weight_decay: 0.5 };

  test("A-88 decays toward an origin: there it stays as it is, elsewhere it comes nearer by lr · decay", () => {
    const origin = tensor([1, 0.1, -3], [3, 1]);
    const p = parameter(tensor([1, 0.1, 5], [3, 1]));
    const optimizer = new AdamW([p], { ...options, decayToward: () => origin });
    p.grad = tensor([0, 0, 0], [3, 1]);
    optimizer.step();
    expect([...p.dataSync()]).toEqual([1, Math.fround(0.1), Math.fround(5 - 0.05 * 8)]);
  });
  test("A-88 decays only touched rows toward their origin", () => {
    const origin = tensor([1, 2, 3, 4], [4, 1]);
    const p = parameter(tensor([0, 0, 0, 0], [4, 1]));
    p.grad = tensor([0, 0, 0, 0], [4, 1]);
    const optimizer = new AdamW([p], { ...options, rows: "lazy", decayToward: () => origin });
    optimizer.step(new Map([[p, [0, 1, 0, 1]]]));
    expect([...p.dataSync()]).toEqual([0, 0.1, 0, 0.2].map(Math.fround));
  });
  test("has groups with options of their own, in one state", async () => {
    const [a, b, c] = [start(), start(), start()];
    const groups = [
      { params: [a], weight_decay: 0 },
      { params: [b, c], lr: 0.3 },
    ];
    const optimizer = new AdamW(groups, options);
    const alone = [start(), start(), start()];
    const others = [
      new AdamW([alone[0]!], { ...options, weight_decay: 0 }),
      new AdamW([alone[1]!], { ...options, lr: 0.3 }),
      new AdamW([alone[2]!], { ...options, lr: 0.3 }),
    ];
    expect([optimizer.lr, ...optimizer.groups.map(({ lr }) => lr)]).toEqual([0.1, 0.1, 0.3]);
    for (let step = 0; step < 3; step++) {
      [a, b, c, ...alone].forEach((p) => (p.grad = gradAt(step)));
      optimizer.step();
      for (const each of others) each.step();
    }
    expect([a, b, c].map((p) => p.dataSync())).toEqual(alone.map((p) => p.dataSync()));
    expect([...optimizer.stateDict().keys()]).toContain("2.exp_avg_sq");
    optimizer.lr = 0.7;
    expect(optimizer.groups.map(({ lr }) => lr)).toEqual([0.7, 0.7]);
  });

  test("says what it lacks", async () => {
    const p = start();
    const lazy = new AdamW([p], { rows: "lazy" });
    p.grad = gradAt(0);
    const before = p.dataSync();
    expect(() => lazy.step()).toThrow(
      'step: rows: "lazy" must be told which of 5 rows were touched, got none; pass them: step(touched)',
    );
    expect(() => lazy.step(new Map([[p, [1, 1]]]))).toThrow("which of 5 rows were touched, got 2 rows");
    expect(p.dataSync()).toEqual(before);
    expect(() => new AdamW([p, p])).toThrow("AdamW: a parameter must be in one group, got one twice");
    expect(() => new AdamW([parameter(tensor([1], []))], { rows: "lazy" })).toThrow(
      "AdamW: lazy parameters must have rows, got a scalar",
    );
    expect(() => new AdamW([p], { rows: "some" as "lazy" })).toThrow('AdamW: rows must be "all" or "lazy", got some');
    expect(() => new AdamW([{ params: [p], lr: -1 }])).toThrow("AdamW: lr must be at least 0, got -1");

    const dense = new AdamW([p]);
    dense.step();
    await expect(lazy.loadStateDict(dense.stateDict())).rejects.toThrow(
      'loadStateDict: 0.step must count the steps of 5, got 1; rows: "lazy" counts for each row, "all" once',
    );
    const other = new AdamW([parameter(randn([2, 3], 1))]);
    await expect(other.loadStateDict(dense.stateDict())).rejects.toThrow(
      "loadStateDict: 0.exp_avg must be as large as its parameter (6)",
    );
  });
  test("joins neighbours of the same count", () => {
    expect(runsOf([1, 1, 0, 1, 1, 1], Int32Array.of(2, 2, 9, 2, 2, 3))).toEqual([
      { start: 0, end: 2, step: 2 },
      { start: 3, end: 5, step: 2 },
      { start: 5, end: 6, step: 3 },
    ]);
  });
});
