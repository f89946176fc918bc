import { describe, expect, test } from "vitest";
import type { Figure } from "../figure.ts";
import { judge, judgedLine } from "./acceptance.ts";
import { plot } from "./plot.ts";
import { racesOf } from "./races.ts";

const figure = (name: string, contender: string, median: number, unit = "ms", runtime = "Node 20.20.2"): Figure => ({
  name,
  shape: [1, 128, 4],
  contender,
  threads: 2,
  unit,
  median,
  min: median,
  p10: median,
  p90: median,
  percent: null,
  roof: null,
  disturbance: 0,
  machine: "m",
  runtime,
  commit: "c",
});

describe("a bar", () => {
  test("of speed is the case's and Node's, met or missed in its own race", () => {
    const judged = judge([
      figure("step gpt2 b", "neolog", 100),
      figure("step gpt2 b", "PEFT on torch", 300),
      figure("step gpt2 b", "neolog", 100, "ms", "Node 24.21.0"),
      figure("step gpt2 b", "PEFT on torch", 320),
      figure("step tiny b", "neolog", 100),
      figure("step tiny b", "PEFT on torch", 10),
    ]);
    expect(judged).toEqual([
      { what: "step gpt2 b, 1×128×4, Node 20: PEFT's speed", bar: "≥ 2 ×", measured: "3.00 ×", met: true },
      { what: "step gpt2 b, 1×128×4, Node 24: PEFT's speed", bar: "≥ 3.5 ×", measured: "3.20 ×", met: false },
    ]);
  });
  test("against JavaScript is that of the fastest", () => {
    const judged = judge([
      figure("peers gpt2", "neolog", 100),
      figure("peers gpt2", "tfjs-wasm", 290),
      figure("peers gpt2", "jax-js", 400),
    ]);
    expect(judged).toMatchObject([{ bar: "≥ 3 ×", measured: "2.90 ×", met: false }]);
  });
  test("of memory and of rows is an upper one", () => {
    const judged = judge([
      figure("step gpt2 a resident", "neolog", 70, "MiB"),
      figure("step gpt2 a resident", "PEFT on torch", 100, "MiB"),
      figure("rows after 50 steps, tiny b", "neolog against PEFT on torch", 1e-5, "max |Δ|"),
      figure("rows after 50 steps, tiny b", "neolog against neolog without reuse", 2e-6, "max |Δ|"),
    ]);
    expect(judged.map(({ met }) => met)).toEqual([false, true, false]);
  });
  test("of what trains beside forward is measured in the run", () => {
    const name = "memory gemma-2-2b differences";
    const judged = judge([
      figure(name, "b − a", 16, "MiB"),
      figure(name, "b − a, the bound: 1.1 × (kept for backward + 4·k·D·4)", 900, "MiB"),
      figure(name, "d − b (d computed)", 4.7 * 1024, "MiB"),
    ]);
    expect(judged.map(({ bar, met }) => [bar, met])).toEqual([
      ["≤ 900 MiB", true],
      ["≥ 4.8 GiB", false],
    ]);
    expect(judged[1]!.what).toContain("the whole table (computed) beside rows");
  });
});

test("a long run's memory is judged, and said in a line", () => {
  const [kept, lost] = judge([
    figure("tiny, 5000 steps: grown", "neolog wasm", 1.019, "×"),
    figure("gpt2, 5000 steps: grown", "neolog wasm", 1.03, "×"),
  ]);
  expect(judgedLine(kept!)).toBe("met: tiny, 5000 steps: grown: ≤ 1.02 ×, measured 1.02 ×");
  expect(judgedLine(lost!)).toBe("MISSED: gpt2, 5000 steps: grown: ≤ 1.02 ×, measured 1.03 ×");
});

test("growth is judged from the least size to the largest", () => {
  const judged = judge([
    figure("scaling length", "T = 256", 100),
    figure("scaling length", "T = 512", 300),
    figure("scaling length", "T = 2048", 799),
    figure("scaling tokens, T = 128", "k = 4", 100),
    figure("scaling tokens, T = 128", "k = 64", 104),
    figure("scaling vocabulary", "V = 50", 100),
    figure("scaling vocabulary", "V = 100", 130),
    figure("scaling vocabulary", "the head of V = 50 alone", 28),
  ]);
  expect(judged.map(({ measured, met }) => [measured, met])).toEqual([
    ["7.99 ×", true],
    ["1.04 ×", false],
    ["30.0 ms", true],
  ]);
});

test("a plot has a panel for each race and a bar for each contender", async () => {
  const figures = [figure("step gpt2 a", "neolog", 100), figure("step gpt2 a", "PEFT on torch", 300)];
  const svg = await plot("step gpt2", racesOf([...figures, figure("step gpt2 b", "neolog", 50)]));
  expect(svg).toMatch(/^<svg[\s\S]*<\/svg>\s*$/);
  expect(svg).toContain("step gpt2 b 1×128×4");
  expect(svg.match(/aria-roledescription="bar"/g)).toHaveLength(3);
});
