import { existsSync } from "node:fs";
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
