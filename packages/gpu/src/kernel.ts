import type { Buffer, DType, TypedArray, View } from "@neolog/tensor";
import type { ArgumentType, GpuFunction, KernelSettings } from "./facade.ts";
import { functionsOf } from "./functions.ts";
import type { KernelStyle, TunedCall } from "./wgsl/tunedKernel.ts";

export type Mode = "webgpu" | "webgl2" | "webasm";

/** Parameters of a kernel: arrays are buffers, the others numbers. */
export interface Parameter {
  readonly name: string;
  readonly type: ArgumentType;
}
export const array = (name: string): Parameter => ({ name, type: "Input" });
export const int = (name: string): Parameter => ({ name, type: "Integer" });
export const float = (name: string): Parameter => ({ name, type: "Float" });

/** A body in WGSL for a kernel that is hot. It reads and writes what the source does; the source stays its specification. */
export interface TunedBody {
  /** Declarations at module scope. */
  readonly prelude?: string;
  /** Statements of the entry point, which has `wg`, `lid` and `gid`. Element i of array A is get_user_A(0, 0, i), and put(i, value) writes. */
  readonly body: string;
  readonly workgroup: readonly [number, number, number];
  /** How many workgroups cover `size` results, by the call's numbers in the order of the parameters. */
  readonly groups: (size: number, numbers: readonly number[]) => readonly [number, number, number];
}

/** One kernel for all shapes. */
export interface Kernel {
  /** The op and what its source depends on; never a shape. */
  readonly key: string;
  readonly parameters: readonly Parameter[];
  /** Statements of a gpu.js kernel that return element `this.thread.x` of the dense, row-major result. */
  readonly body: string;
  /** Functions of its own beside those of functions.ts. */
  readonly functions?: readonly GpuFunction[];
  readonly wgsl?: TunedBody;
  /**
   * In GLSL, for mode webgl2: statements of a function of `first` that returns elements first … first + 3, a texel. Arrays are the
   * samplers user_A, read by fetch4(user_A, user_ADim.y, at) and element(…); plain(first) runs the source.
   */
  readonly glsl?: string;
  /** Functions that `glsl` calls. */
  readonly glslFunctions?: string;
  /** The same for four rows of [.., M, N] at a time: statements that set data0 … data3 to four elements of each, for `first` of [.., ⌈M / 4⌉, N]. */
  readonly glslRows?: string;
}

/** Puts the kernel's result, of as many elements as the view has, into the view; the arguments may share its buffer. */
export interface Launch {
  readonly kernel: Kernel;
  readonly args: readonly (Buffer | number)[];
  readonly out: View;
}

/** Memory and dispatch of one mode. Every call returns at once but `read`. */
export interface Executor {
  readonly mode: Mode;
  /** The adapter, its limits, and why other modes were refused. */
  readonly info: Readonly<Record<string, string | number | boolean>>;
  /** Bytes that a buffer of `length` elements takes on the device. */
  bytesOf(dtype: DType, length: number): number;
  allocate(dtype: DType, length: number): Buffer;
  write(buffer: Buffer, data: TypedArray, at: number): void;
  read(buffer: Buffer, at: number, length: number): Promise<TypedArray>;
  free(buffer: Buffer): void;
  run(launch: Launch): void;
  /** Compiles what `run` launches, which then does nothing, without stopping the thread; absent in modes that compile in no time. */
  prepare?(run: () => void): Promise<void>;
  /** Kernels that are compiled. */
  readonly compiled: number;
  /** Runs a kernel's `glslRows` into four buffers of one length, or those that are given of them; absent in modes that have none. */
  runRows?(kernel: Kernel, args: Launch["args"], outs: readonly Buffer[]): void;
  /** In how many buffers an array lies, where kernels of wgsl/ need one, and how many a kernel may bind; absent in modes where all lie in one. */
  readonly pieces?: { readonly of: (dtype: DType, length: number) => number; readonly most: number };
  /** Runs a kernel of wgsl/, or gives false for arrays that lie in several buffers; absent in modes that have none. */
  runTuned?(call: TunedCall): boolean;
  /** As `TunedExecutor` has it. */
  pieceOf?(view: View): View;
  /** How those kernels work; absent where there are none. */
  readonly style?: KernelStyle;
  /** Kernels started so far; absent in modes that do not count them. */
  readonly dispatches?: number;
  /** Bytes on the device: in use or not, and those that wait for reuse. */
  readonly deviceBytes: { readonly total: number; readonly waiting: number };
  /** Gives the device back. */
  destroy(): void;
}

/** An executor that fills several buffers at once. */
export type RowsExecutor = Executor & Required<Pick<Executor, "runRows">>;

/** The gpu.js function of a kernel. */
export const sourceOf = ({ parameters, body }: Kernel): string =>
  `function(${parameters.map(({ name }) => name).join(", ")}) {\n${body}\n}`;

/** The settings that every kernel is created with; a loop that gpu.js bounds is never cut short (its default is 1000). */
export const settingsOf = (kernel: Kernel): KernelSettings => ({
  output: [1],
  argumentTypes: Object.fromEntries(kernel.parameters.map(({ name, type }) => [name, type])),
  functions: [
    ...functionsOf([kernel.body, ...(kernel.functions ?? []).map(({ source }) => source)].join(" ")),
    ...(kernel.functions ?? []),
  ],
  precision: "single",
  tactic: "precision",
  dynamicOutput: true,
  dynamicArguments: true,
  loopMaxIterations: 2 ** 30,
});
