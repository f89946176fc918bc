import type { Backend } from "../../../backend.ts";

export const fused: NonNullable<Backend["fused"]> = {};
