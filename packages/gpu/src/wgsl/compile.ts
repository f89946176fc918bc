import { BackendError } from "@neolog/tensor";
import type { GpuJs, WebGpuKernel } from "../facade.ts";
import type { Module } from "../webgpu/pipelines.ts";
import { type TunedCall, type TunedKernel, argumentTypesOf, moduleOf, signatureOf } from "./tunedKernel.ts";
import { LARGEST_AXIS } from "./walk.ts";

/** gpu.js's own WebGPU kernel with our module for the one it would emit; everything else of it, `Params` included, stays. */
export function moduleOfTuned(lib: GpuJs, kernel: TunedKernel): Module {
  class Tuned extends lib.WebGPUKernel {
    override assembleWGSL(): string {
      return moduleOf(kernel);
    }
    // gpu.js would wait for the compiler; the device reports what it finds wrong
    override async _buildAsync(): Promise<void> {}
  }
  const gpu = new lib.GPU({ mode: "webasm" });
  gpu.Kernel = Tuned;
  const call = gpu.createKernel(signatureOf(kernel), {
    output: [1],
    argumentTypes: argumentTypesOf(kernel),
    functions: [],
    precision: "single",
    tactic: "precision",
    dynamicOutput: true,
    dynamicArguments: true,
    loopMaxIterations: 2 ** 30,
  });
  const tuned = call.kernel as unknown as WebGpuKernel;
  const nothing = new lib.Input(new Float32Array(1), [1]);
  void tuned.build(...kernel.arrays.map(() => nothing), ...[...kernel.integers, ...kernel.floats].map(() => 0));
  const arrays = kernel.arrays.map(({ written }) => (written ? "storage" : "read-only-storage"));
  return {
    label: kernel.key,
    code: tuned.compiledSource,
    bindings: ["uniform", ...arrays, "storage"],
    params: tuned.paramsLayout,
  };
}

/** Writes a call's numbers into its `Params` at byte `at`. */
export function writeParams(params: Module["params"], { kernel, sizes }: TunedCall, to: DataView, at: number): void {
  const names = [...kernel.integers, ...kernel.floats];
  for (const { index, type, offset } of params.scalarArgs) {
    const value = sizes[names[index - kernel.arrays.length]!]!;
    if (type === "Integer") to.setInt32(at + offset, value, true);
    else to.setFloat32(at + offset, value, true);
  }
}

/** The workgroups of a call. Throws BackendError where a device cannot dispatch as many at once. */
export function groupsOf({ kernel, sizes }: TunedCall): [number, number, number] {
  const groups = kernel.groups(sizes);
  if (groups.some((n) => n > LARGEST_AXIS))
    throw new BackendError(
      `gpu (webgpu): ${kernel.key} must have at most ${LARGEST_AXIS} workgroups along an axis, got ${groups.join("×")}; use smaller batches`,
    );
  return [...groups];
}
