import { SINGLE_ARITHMETIC, conformance } from "@neolog/tensor/testing";
import { openGpu } from "./open.ts";

const tolerances = {
  ...SINGLE_ARITHMETIC,
  int32: "whole",
  // e to a rounded product, times a number up to 3e38
  ops: { geglu: { relative: 4e-6, absolute: 2 ** -22 }, swiglu: { relative: 4e-6, absolute: 2 ** -22 } },
} as const;

conformance("gpu", () => openGpu({ mode: "webasm" }), { tolerances, setting: "webasm" });
