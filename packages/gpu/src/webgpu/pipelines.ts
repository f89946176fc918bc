import { DeviceError } from "../errors.ts";
import type { WebGpuKernel } from "../facade.ts";

/** A kernel that is not compiled yet. */
export interface Module {
  /** Names it in the driver's messages. */
  readonly label: string;
  readonly code: string;
  /** What it binds, in order: its numbers, its arrays, its result. */
  readonly bindings: readonly GPUBufferBindingType[];
  readonly params: WebGpuKernel["paramsLayout"];
}

/** A kernel on a device. */
export interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly params: Module["params"];
}

/** GPUShaderStage.COMPUTE, which is no global everywhere. */
const COMPUTE = 4;

/** Kernels of a device by key: compiled when they are first asked for, or all together, ahead, without stopping the thread. */
export class Pipelines {
  readonly #device: GPUDevice;
  readonly #compiled = new Map<string, Compiled>();
  /** What is missing, while kernels are collected. */
  #missing: Map<string, Module> | null = null;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** How many are compiled. */
  get size(): number {
    return this.#compiled.size;
  }
  /** While it is true, kernels must not be run. */
  get collecting(): boolean {
    return this.#missing !== null;
  }

  /** The kernel of that key; null while kernels are collected. */
  of(key: string, describe: () => Module): Compiled | null {
    const known = this.#compiled.get(key);
    if (this.#missing) {
      if (!known && !this.#missing.has(key)) this.#missing.set(key, describe());
      return null;
    }
    if (known) return known;
    const [descriptor, compiled] = this.#described(describe());
    return this.#keep(key, { ...compiled, pipeline: this.#device.createComputePipeline(descriptor) });
  }

  /** Compiles what `collect` asks for. Throws DeviceError with the driver's words. */
  async compileAhead(collect: () => void): Promise<void> {
    if (this.#missing) return collect(); // those around it compile
    const missing = (this.#missing = new Map<string, Module>());
    try {
      collect();
    } finally {
      this.#missing = null;
    }
    const compile = async ([key, module]: readonly [string, Module]): Promise<void> => {
      const [descriptor, compiled] = this.#described(module);
      const pipeline = await this.#device.createComputePipelineAsync(descriptor).catch(async (error: unknown) => {
        const { messages } = await descriptor.compute.module.getCompilationInfo();
        const words = [...messages.map(({ message }) => message), String(error)];
        throw new DeviceError(`kernel ${module.label}: ${words.join("; ")}`);
      });
      this.#keep(key, { ...compiled, pipeline });
    };
    await Promise.all([...missing].map(compile));
  }

  #keep(key: string, compiled: Compiled): Compiled {
    this.#compiled.set(key, compiled);
    return compiled;
  }
  #described({
    label,
    code,
    bindings,
    params,
  }: Module): [descriptor: GPUComputePipelineDescriptor, Omit<Compiled, "pipeline">] {
    const device = this.#device;
    const entries = bindings.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type } }));
    const layout = device.createBindGroupLayout({ label, entries });
    const descriptor = {
      label,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
    };
    return [descriptor, { layout, params }];
  }
}
