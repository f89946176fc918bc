import { SINGLE_ARITHMETIC, type Tolerances } from "@neolog/tensor/testing";

/** float32 arithmetic; whole numbers lie on the device as float32, numbers below 2⁻¹²⁶ count as 0, and xʸ goes by y·log x. */
export const GPU_ARITHMETIC: Tolerances = {
  ...SINGLE_ARITHMETIC,
  int32: "whole",
  denormals: "flushed",
  ops: { pow: { relative: 2e-5, absolute: 1e-37 } },
};
