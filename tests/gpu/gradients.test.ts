import { openGpu } from "@neolog/gpu";
import { describe } from "vitest";
import { singleGradients } from "../../packages/autograd/src/testing/singleGradients.ts";
import { whyNoWebGpu } from "../../packages/gpu/src/webgpu/testing.ts";

const why = await whyNoWebGpu();
if (why) console.log(`skipped on webgpu: ${why}`);

describe.each(why ? (["webasm"] as const) : (["webasm", "webgpu"] as const))("on %s", (mode) => {
  singleGradients(() => openGpu({ mode, allowSoftware: true }), { numRuns: 10 });
});

describe.skipIf(why)("on webgpu, lanes that share", () => {
  singleGradients(() => openGpu({ mode: "webgpu", allowSoftware: true, style: "shared" }), { numRuns: 2 });
});
