/** What we use of gpu.js 2.24.1, whose own types lag behind: GPU.md tells which exports they miss. */
export interface GpuJs {
  readonly GPU: new (options: { readonly mode: string }) => Gpu;
  readonly Input: new (value: Float32Array, size: readonly number[]) => GpuInput;
  readonly WebGL2Kernel: new (source: string, settings: WebGl2KernelSettings) => WebGl2Kernel;
  readonly WebGPUKernel: new (source: string, settings: KernelSettings) => WebGpuKernel;
}

export interface GpuInput {
  readonly value: Float32Array;
}

export interface Gpu {
  readonly mode: string;
  /** The class of the kernels that `createKernel` makes. */
  Kernel: unknown;
  createKernel(source: string, settings: KernelSettings): GpuKernel;
  destroy(): Promise<void>;
}

/** How the source's parameters are typed. */
export type ArgumentType = "Input" | "Integer" | "Float";

/** A function that kernels call. */
export interface GpuFunction {
  readonly source: string;
  readonly settings: {
    readonly returnType: "Number" | "Integer";
    readonly argumentTypes: Readonly<Record<string, "Number" | "Integer">>;
  };
}

export interface KernelSettings {
  readonly output: readonly number[];
  readonly argumentTypes: Readonly<Record<string, ArgumentType>>;
  readonly functions: readonly GpuFunction[];
  readonly precision: "single";
  readonly tactic: "precision";
  readonly dynamicOutput: boolean;
  readonly dynamicArguments: boolean;
  readonly loopMaxIterations: number;
  readonly pipeline?: boolean;
  readonly immutable?: boolean;
}

/** Calls the kernel; `kernel` is the object behind the call. */
export interface GpuKernel {
  (...args: readonly (GpuInput | number)[]): Float32Array;
  readonly kernel: { readonly constructor: { readonly mode: string }; readonly fallbackReason?: string | null };
  setOutput(output: readonly number[]): void;
}

/** The translator of gpu.js to WGSL; everything up to `_buildAsync` happens at once and needs no device. */
export interface WebGpuKernel {
  compiledSource: string;
  paramsLayout: {
    readonly arrayArgs: readonly { readonly index: number; readonly dimsOffset: number }[];
    readonly scalarArgs: readonly { readonly index: number; readonly type: ArgumentType; readonly offset: number }[];
    readonly byteLength: number;
  };
  build(...args: readonly (GpuInput | number)[]): Promise<void>;
  assembleWGSL(): string;
  _buildAsync(): Promise<void>;
}

export interface WebGl2KernelSettings extends Omit<KernelSettings, "argumentTypes"> {
  readonly argumentTypes: readonly (ArgumentType | "MemoryOptimizedNumberTexture")[];
  readonly optimizeFloatMemory: boolean;
  readonly validate: boolean;
  readonly context: WebGL2RenderingContext;
  readonly canvas: OffscreenCanvas;
}

/** The translator of gpu.js to GLSL: the steps of its `build` before anything is compiled. */
export interface WebGl2Kernel {
  threadDim: readonly number[];
  initExtensions(): void;
  validateSettings(args: readonly unknown[]): void;
  setupConstants(args: readonly unknown[]): void;
  setupArguments(args: readonly unknown[]): void;
  translateSource(): void;
  getFragmentShader(args: readonly unknown[]): string;
}

/** Loads gpu.js, when a backend is opened and not before. */
export async function loadGpuJs(): Promise<GpuJs> {
  const found = (await import("gpu.js")) as unknown as GpuJs | { readonly default: GpuJs };
  return "GPU" in found ? found : found.default; // bundlers know no names of a CommonJS module
}
