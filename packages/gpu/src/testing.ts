import { SINGLE_ARITHMETIC, type Tolerances } from "@neolog/tensor/testing";

/** float32 arithmetic; whole numbers lie on the device as float32, numbers below 2⁻¹²⁶ count as 0, and xʸ goes by y·log x. */
const DEVICE_ARITHMETIC: Tolerances = {
  ...SINGLE_ARITHMETIC,
  int32: "whole",
  denormals: "flushed",
  ops: {
    pow: { relative: 1e-6, absolute: 1e-37 },
    // e to a rounded product, times a number up to 3e38
    geglu: { relative: 4e-6, absolute: 2 ** -22 },
    swiglu: { relative: 4e-6, absolute: 2 ** -22 },
  },
};

/**
 * On WebGPU an element of a product is one float32 sum in ascending order, as registers allow: 1030 terms were 17 ulps off where a driver
 * fuses no multiplication with its addition. On WebGL2 it is summed in blocks.
 */
export const toleranceOf = (mode: string | undefined): Tolerances =>
  mode === "webgl2" ? DEVICE_ARITHMETIC : { ...DEVICE_ARITHMETIC, sums: 2 ** -20 };
