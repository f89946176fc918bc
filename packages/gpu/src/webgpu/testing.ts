import { existsSync } from "node:fs";
import { SINGLE_ARITHMETIC } from "@neolog/tensor/testing";
import { loadGpuJs } from "../facade.ts";
import { openWebGpu } from "./open.ts";

/** Where Debian's Chromium keeps a Vulkan driver that computes in software. */
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";

/** Null where WebGPU opens in Node, with Chromium's software driver if no other is named; else why it does not. */
export async function whyNoWebGpu(): Promise<string | null> {
  if (!process.env["VK_ICD_FILENAMES"] && existsSync(SWIFTSHADER)) process.env["VK_ICD_FILENAMES"] = SWIFTSHADER;
  const opened = await openWebGpu(await loadGpuJs(), { allowSoftware: true });
  return "refused" in opened ? `WebGPU does not open in Node: ${opened.refused}` : null;
}

/**
 * x to the power of y by way of y·log x, or of products. A product's element is one float32 sum in ascending order, as registers
 * allow: 1030 terms were 17 ulps off where a driver fuses no multiplication with its addition.
 */
export const TOLERANCES = {
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
