import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openGpu } from "@neolog/gpu";
import { describe } from "vitest";
import { whyNoWebGpu } from "../../packages/gpu/src/webgpu/testing.ts";
import { goldenSuite } from "../goldenSuite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const beside = `${root}../shared/golden/models`;
if (!existsSync(beside)) console.log("reference data: ../shared/golden is absent, testing on fixtures/models alone");
const models = existsSync(beside) ? beside : `${root}fixtures/models`;
const names = ["gpt2", "llama"].filter((name) => existsSync(`${models}/${name}/peft.json`));

const why = await whyNoWebGpu();
if (why) console.log(`skipped on webgpu: ${why}`);

describe.each(why ? (["webasm"] as const) : (["webasm", "webgpu"] as const))("on %s", (mode) => {
  goldenSuite(models, names, () => openGpu({ mode, allowSoftware: true }));
});

describe.skipIf(why)("on webgpu, lanes that share", () => {
  goldenSuite(models, names.slice(0, 1), () => openGpu({ mode: "webgpu", allowSoftware: true, style: "shared" }));
});
