import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openGpu } from "@neolog/gpu";
import { describe } from "vitest";
import { whyNoWebGpu } from "../../packages/gpu/src/webgpu/testing.ts";
import { prepareSuite } from "../prepareSuite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const models = [`${root}../shared/golden/models`, `${root}fixtures/models`].find((folder) => existsSync(folder))!;

const why = await whyNoWebGpu();
if (why) console.log(`skipped on webgpu: ${why}`);

describe.skipIf(why)("on webgpu", () => {
  prepareSuite(`${models}/gpt2/base`, () => openGpu({ mode: "webgpu", allowSoftware: true }));
});
