import { conformance } from "@neolog/tensor/testing";
import fc from "fast-check";
import { describe, test } from "vitest";
import { openGpu } from "../open.ts";
import { toleranceOf } from "../testing.ts";
import { whyNoWebGpu } from "./testing.ts";

fc.configureGlobal({ numRuns: 2 }); // in software a barrier switches every lane, and kernels with barriers compile for a second

const why = await whyNoWebGpu();
if (why) describe("webgpu, lanes that share", () => test.skip(why));
else
  conformance("gpu", () => openGpu({ mode: "webgpu", allowSoftware: true, style: "shared" }), {
    tolerances: toleranceOf("webgpu"),
    setting: "webgpu, lanes that share",
  });
