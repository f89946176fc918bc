import { conformance } from "@neolog/tensor/testing";
import { describe, test } from "vitest";
import { openGpu } from "../open.ts";
import { toleranceOf } from "../testing.ts";
import { whyNoWebGpu } from "./testing.ts";

const why = await whyNoWebGpu();
if (why) describe("webgpu", () => test.skip(why));
else
  conformance("gpu", () => openGpu({ mode: "webgpu", allowSoftware: true }), {
    tolerances: toleranceOf("webgpu"),
    setting: "webgpu",
  });
