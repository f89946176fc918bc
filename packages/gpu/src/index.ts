import { registerBackend } from "@neolog/tensor";
import { openGpu } from "./open.ts";

registerBackend("gpu", openGpu);

export { GpuBackend } from "./backend.ts";
export { DeviceError, DeviceLostError, NoGpuError } from "./errors.ts";
export type * from "./kernel.ts";
export { type GpuOptions, openGpu } from "./open.ts";
