import { BackendError } from "@neolog/tensor";
import type { GpuJs, WebGpuKernel } from "../facade.ts";
import { type TunedCall, type TunedKernel, argumentTypesOf, moduleOf, signatureOf } from "./tunedKernel.ts";
import { LARGEST_AXIS } from "./walk.ts";

/** A tuned kernel on a device. */
export interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly bindings: GPUBindGroupLayout;
  readonly params: WebGpuKernel["paramsLayout"];
}

/** GPUShaderStage.COMPUTE, which is no global everywhere. */
const COMPUTE = 4;

/** gpu.js's own WebGPU kernel with our module for the one it would emit; everything else of it, `Params` included, stays. */
export function compileTuned(lib: GpuJs, device: GPUDevice, kernel: TunedKernel): Compiled {
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
  const last = kernel.arrays.length + 1;
  const bindings = device.createBindGroupLayout({
    label: kernel.key,
    entries: [
      { binding: 0, visibility: COMPUTE, buffer: { type: "uniform" } },
      ...kernel.arrays.map(
        ({ written }, i) =>
          ({
            binding: i + 1,
            visibility: COMPUTE,
            buffer: { type: written ? "storage" : "read-only-storage" },
          }) as const,
      ),
      { binding: last, visibility: COMPUTE, buffer: { type: "storage" } },
    ],
  });
  const pipeline = device.createComputePipeline({
    label: kernel.key,
    layout: device.createPipelineLayout({ bindGroupLayouts: [bindings] }),
    compute: {
      module: device.createShaderModule({ label: kernel.key, code: tuned.compiledSource }),
      entryPoint: "main",
    },
  });
  return { pipeline, bindings, params: tuned.paramsLayout };
}

/** Writes a call's numbers into its `Params` at byte `at`. */
export function writeParams(params: Compiled["params"], { kernel, sizes }: TunedCall, to: DataView, at: number): void {
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
