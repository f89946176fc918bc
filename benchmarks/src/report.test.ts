import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import type { Case } from "./case.ts";
import type { Figure } from "./figure.ts";
import { UsageError, parseOptions } from "./options.ts";
import { markdown } from "./report/markdown.ts";
import { Report, digits } from "./report.ts";
import { Roofs } from "./roof.ts";

const PRODUCT: Case = { kernel: "matmul", shape: [2, 3, 4], amount: 48, roof: "arithmetic", unit: "GFLOP/s" };
const report = new Report(parseOptions(["--json"]).options);

describe("a figure", () => {
  const roof = { name: "128-bit FMA", value: 60, unit: "GFLOP/s", measured: true };
  const figure = report.figure(PRODUCT, [1, 2, 4], {
    contender: "a",
    threads: 1,
    roof,
    runtime: "r",
    disturbance: 0.03,
  });

  test("is in the unit of its case, percent of the roof", () => {
    expect(figure).toMatchObject({ name: "matmul", unit: "GFLOP/s", median: 24, min: 12, percent: 40 });
  });
  test("is a row of the report, marked where its roof is a stored one", () => {
    expect(markdown([figure])).toContain("| a | 1 | 24.0 | 14.4 to 43.2 | 40 % of 60.0 GFLOP/s, 128-bit FMA | r |");
    const stored: Figure = { ...figure, roof: { ...roof, measured: false } };
    expect(markdown([stored])).toContain("128-bit FMA (stored) |");
    expect(markdown([{ ...figure, disturbance: 0.5 }])).toContain("128-bit FMA, disturbed (50 %) |");
    expect(markdown([{ ...figure, roof: null, disturbance: 0.5 }])).toContain("| disturbed (50 %) |");
  });
  test("has no spread where there is one sample, and each runtime once", () => {
    const alone = { ...figure, p10: 24, p90: 24, runtime: "Node 20; Node 20; Python 3" };
    expect(markdown([alone, figure])).toContain(
      "| a | 1 | 24.0 |  | 40 % of 60.0 GFLOP/s, 128-bit FMA | Node 20; Python 3 |",
    );
    expect(markdown([alone, figure])).toContain("Runtimes: Node 20; Python 3; r.");
  });
});

test("without a compiler the stored roof stands in, and says so", async () => {
  const before = process.env["CC"];
  process.env["CC"] = "no-such-compiler";
  try {
    const roofs = await Roofs.measure({ threads: [1], wait: 0 });
    expect(roofs.of(PRODUCT, 1, 256)).toMatchObject({ name: "256-bit FMA", value: 117.1, measured: false });
    expect(roofs.of({ ...PRODUCT, roof: "none" }, 1, 256)).toBeNull();
    expect(roofs.lines()[0]).toContain("no C compiler");
  } finally {
    if (before === undefined) delete process.env["CC"];
    else process.env["CC"] = before;
  }
});

describe("a file that figures are added to", () => {
  const folder = mkdtempSync(join(tmpdir(), "neolog-report-"));
  const out = join(folder, "figures.jsonl");
  const add = (to: Report, runtime: string): void =>
    to.addValue("step tiny a", [1], { contender: "neolog", threads: 2, runtime }, "ms", 5);

  test("has what was measured at this commit, under this Node, at this size", async () => {
    const machine = await import("./machine.ts");
    const at = vi.spyOn(machine, "commit").mockReturnValue("abc");
    add(new Report({ json: true, out }), "Node 20.1.0");
    const again = new Report({ json: true, out });
    expect(again.has("step tiny a", [1], "Node 24")).toBe(false);
    expect(again.has("step tiny a", [2], "Node 20.1.0")).toBe(false);
    expect(again.has("step tiny b", [1], "Node 20.1.0")).toBe(false);
    expect(again.figures).toEqual([]);
    expect(again.has("step tiny a", [1], "Node 20.1.0")).toBe(true);
    expect(again.figures.map(({ median }) => median)).toEqual([5]);
    for (const other of ["def", "abc+"]) {
      at.mockReturnValue(other);
      expect(new Report({ json: true, out }).has("step tiny a", [1], "Node 20.1.0")).toBe(false);
    }
    at.mockRestore();
  });
  test("keeps its lines", () => {
    writeFileSync(out, "{}\n");
    add(new Report({ json: true, out }), "Node 20.1.0");
    expect(readFileSync(out, "utf8").split("\n")).toHaveLength(3);
    rmSync(folder, { recursive: true });
  });
});

test("digits are three, or those before the point, or a power of ten", () => {
  expect([0, 1e-6, 0.000_012_3, 0.0123, 1, 12.34, 123.4, 12_345].map(digits)).toEqual([
    "0",
    "1e-6",
    "1.23e-5",
    "0.0123",
    "1.00",
    "12.3",
    "123",
    "12345",
  ]);
});

test("a quick run is short, but for what is asked for", () => {
  const { options } = parseOptions(["step", "--quick", "--rounds", "4"]);
  expect(options).toMatchObject({ quick: true, rounds: 4, sample: 1, threads: [2] });
  expect(parseOptions(["step"]).options).toMatchObject({ quick: false, rounds: 11, sample: 40, threads: [1, 2] });
});

test("a command line that cannot be is named", () => {
  expect(() => parseOptions(["--rounds", "0"])).toThrow(new UsageError("--rounds must be a positive integer, got 0"));
  expect(() => parseOptions(["--frobnicate"])).toThrow(UsageError);
  expect(() => parseOptions(["--node", "/no/such/node"])).toThrow("--node must be here: /no/such/node");
});
