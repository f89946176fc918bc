import { SINGLE_ARITHMETIC, conformance } from "@neolog/tensor/testing";
import { describe, test } from "vitest";
import { openGpu } from "../open.ts";
import { whyNoWebGpu } from "./testing.ts";

/**
 * x to the power of y by way of y·log x, or of products. A product's element is one float32 sum in ascending order, as registers
 * allow: 1030 terms were 17 ulps off where a driver fuses no multiplication with its addition.
 */
const tolerances = {
  ...SINGLE_ARITHMETIC,
  sums: 2 ** -20,
  int32: "whole",
  denormals: "flushed",
  ops: {
    pow: { relative: 1e-6, absolute: 1e-37 },
    // e to a rounded product, times a number up to 3e38
    geglu: { relative: 4e-6, absolute: 2 ** -22 },
    swiglu: { relative: 4e-6, absolute: 2 ** -22 },
  },
} as const;

const why = await whyNoWebGpu();
if (why) describe("webgpu", () => test.skip(why));
else conformance("gpu", () => openGpu({ mode: "webgpu", allowSoftware: true }), { tolerances, setting: "webgpu" });
