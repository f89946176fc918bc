/**
 * Everything that is to be known of a GPU in under ten minutes: `npm run bench:gpu -- [--software] [--out FILE] [--minutes N]`.
 * Writes FILE.jsonl and FILE.md. Exits with 1 when a kernel is off by more than 1e-5.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openGpu } from "@neolog/gpu";
import { openBackend } from "@neolog/tensor";
import { commit, machine } from "../machine.ts";
import { SHAPES } from "../step/shapes.ts";
import { checkAll } from "./correctness.ts";
import { Figures } from "./figures.ts";
import { measureFusion } from "./fusion.ts";
import { type StepShape, measureMatmul, measureOverhead, measureStep } from "./measures.ts";

const { values } = parseArgs({
  options: {
    software: { type: "boolean", default: false },
    out: { type: "string", default: "gpu" },
    minutes: { type: "string", default: "9" },
  },
});
const end = performance.now() + Number(values.minutes) * 60_000;
const { software } = values;
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
// bare Debian has no Vulkan driver but Chromium's own
if (software && existsSync(SWIFTSHADER)) process.env["VK_ICD_FILENAMES"] ??= SWIFTSHADER;
const gpu = await openGpu({ mode: "webgpu", allowSoftware: software });
const plain = await openGpu({ mode: "webgpu", allowSoftware: software, tuned: false });
const about = {
  adapter: String(gpu.info["adapter"]),
  software: Boolean(gpu.info["software"]),
  machine: machine(),
  node: process.versions.node,
  commit: commit(),
  date: new Date().toISOString().slice(0, 10),
};
const figures = new Figures(values.out, about);
const missing: string[] = [];

const wrong = await checkAll(gpu, await openBackend("cpu"), figures);
await measureOverhead(gpu, figures);

await measureMatmul(
  [
    { who: "neolog, tuned", backend: gpu, largest: Infinity },
    { who: "gpu.js, plain", backend: plain, largest: 2048, ...(software ? { often: 512 } : {}) },
  ],
  software ? [256, 512, 1024] : [1024, 2048, 4096, 8192],
  figures,
);

await measureFusion(
  { mode: "webgpu", allowSoftware: software },
  software ? { tokens: 64, width: 128, vocab: 8192 } : { tokens: 1024, width: 768, vocab: 50257 },
  figures,
);

const gpt2 = SHAPES.gpt2.config;
const small = { ...gpt2, vocab_size: 2048, n_embd: 128, n_layer: 2, n_head: 2, n_positions: 64 };
const steps: readonly StepShape[] = software
  ? [{ name: "GPT-2 of 2 layers, width 128, 2048 tokens", config: small, batch: 1, length: 32 }]
  : [
      { name: "GPT-2 small", config: gpt2, batch: 1, length: 128 },
      { name: "GPT-2 small", config: gpt2, batch: 8, length: 512 },
      { name: "GPT-2 small", config: gpt2, batch: 8, length: 1024 },
    ];
for (const shape of steps) await measureStep(gpu, shape, figures);

// ever larger models, until the device, the clock or the list ends
const LARGER = [
  { name: "GPT-2 medium, 0.4 billion", config: { ...gpt2, n_embd: 1024, n_layer: 24, n_head: 16 } },
  { name: "GPT-2 large, 0.8 billion", config: { ...gpt2, n_embd: 1280, n_layer: 36, n_head: 20 } },
  { name: "GPT-2 XL, 1.6 billion", config: { ...gpt2, n_embd: 1600, n_layer: 48, n_head: 25 } },
  { name: "GPT-2 of width 4096, 6.7 billion", config: { ...gpt2, n_embd: 4096, n_layer: 32, n_head: 32 } },
  { name: "GPT-2 of width 5120, 12.9 billion", config: { ...gpt2, n_embd: 5120, n_layer: 40, n_head: 40 } },
  { name: "GPT-2 of width 7168, 30 billion", config: { ...gpt2, n_embd: 7168, n_layer: 48, n_head: 56 } },
];
let fits = "none of the larger ones";
for (const { name, config } of software ? [] : LARGER) {
  if (performance.now() > end) {
    missing.push(`models from ${name} on: the time was up`);
    break;
  }
  try {
    await measureStep(gpu, { name, config, batch: 1, length: 128 }, figures);
    fits = name;
  } catch (error) {
    missing.push(`${name}: ${String(error).split("\n")[0]}`);
    break;
  }
}
if (software) missing.push("sizes of a real card, GPT-2 small and larger models: the adapter computes in software");
else console.log(`the largest model that trained: ${fits}`);

const python = process.env["NEOLOG_PYTHON"] ?? "python3";
const script = fileURLToPath(new URL("../../peers/torch_gpu.py", import.meta.url));
const torch = spawnSync(python, [script], {
  encoding: "utf8",
  timeout: Math.max(1000, Math.floor(end - performance.now())),
});
const said = torch.status === 0 ? torch.stdout.trim().split("\n") : [];
for (const line of said) {
  const { what, who, value, unit, missing: reason } = JSON.parse(line);
  if (reason) missing.push(String(reason));
  else figures.add(what, who, value, unit);
}
if (torch.status !== 0)
  missing.push(`PyTorch on the same card: ${torch.error?.message ?? torch.stderr.trim().split("\n").at(-1)}`);

figures.close(missing);
for (const line of [...wrong, ...missing]) console.error(line);
process.exit(wrong.length > 0 ? 1 : 0);
