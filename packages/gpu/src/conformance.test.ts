import { SINGLE_ARITHMETIC, conformance } from "@neolog/tensor/testing";
import { openGpu } from "./open.ts";

const tolerances = { ...SINGLE_ARITHMETIC, int32: "whole" } as const;

conformance("gpu", () => openGpu({ mode: "webasm" }), { tolerances, setting: "webasm" });
