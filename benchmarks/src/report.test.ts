import { describe, expect, test } from "vitest";
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

test("digits are three, or those before the point", () => {
  expect([0.000_012_3, 0.0123, 1, 12.34, 123.4, 12_345].map(digits)).toEqual([
    "0.0000123",
    "0.0123",
    "1.00",
    "12.3",
    "123",
    "12345",
  ]);
});

test("a command line that cannot be is named", () => {
  expect(() => parseOptions(["--rounds", "0"])).toThrow(new UsageError("--rounds must be a positive integer, got 0"));
  expect(() => parseOptions(["--frobnicate"])).toThrow(UsageError);
  expect(() => parseOptions(["--node", "/no/such/node"])).toThrow("--node must be here: /no/such/node");
});
