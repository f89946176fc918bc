import type { Buffer, DType, View } from "@neolog/tensor";
import type { ArgumentType } from "../facade.ts";
import { PRELUDE } from "../webgpu/prelude.ts";
import type { Element } from "./elements.ts";

/** Sizes, strides and factors of one call, by name. */
export type Arguments = Readonly<Record<string, number>>;

/** Workgroups along x, y and z. */
export type Groups = readonly [x: number, y: number, z: number];

/**
 * A kernel written in WGSL by hand on gpu.js's own bindings and Params: a uniform, the arrays in order, the result. No two are one buffer. What it computes is
 * said by the plain kernel in kernels/, or by the composite in tensor's ops/, of the same name.
 */
export interface TunedKernel {
  /** Two kernels of one key have one WGSL. Never a shape. */
  readonly key: string;
  /** Those that are `written` are read too, like the result: the kernel changes them in place. */
  readonly arrays: readonly { readonly name: string; readonly element: Element; readonly written?: true }[];
  readonly result: Element;
  /** int32 arguments, in order. */
  readonly integers: readonly string[];
  /** float32 arguments, after the integers. */
  readonly floats: readonly string[];
  readonly workgroup: Groups;
  /** Module-scope WGSL: workgroup memory and functions. */
  readonly declarations: string;
  /** The body of `main`; `group` of `groups` is its workgroup's id (vec3<u32>), `lane` its number in the workgroup (i32). */
  readonly body: string;
  readonly groups: (sizes: Arguments) => Groups;
}

/** The WGSL module of a kernel. Its `Params` is laid out as gpu.js fills it: output sizes, one vec4 per array, then the scalars. */
export function moduleOf({ arrays, result, integers, floats, workgroup, declarations, body }: TunedKernel): string {
  const binding = (i: number, access: string, name: string, element: Element): string =>
    `@group(0) @binding(${i}) var<storage, ${access}> ${name} : array<${element}>;`;
  return [
    "struct Params {",
    "  outputX : u32, outputY : u32, outputZ : u32, dispatchWidth : u32,",
    ...arrays.map(({ name }) => `  ${name}_dims : vec4<u32>,`),
    ...integers.map((name) => `  ${name} : i32,`),
    ...floats.map((name) => `  ${name} : f32,`),
    "}",
    "@group(0) @binding(0) var<uniform> params : Params;",
    ...arrays.map(({ name, element, written }, i) => binding(i + 1, written ? "read_write" : "read", name, element)),
    binding(arrays.length + 1, "read_write", "result", result),
    PRELUDE,
    declarations,
    `@compute @workgroup_size(${workgroup.join(", ")})`,
    "fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(num_workgroups) groups : vec3<u32>, @builtin(local_invocation_index) index : u32) {",
    "  let lane = i32(index);",
    body,
    "}",
  ].join("\n");
}

/** The gpu.js function that has the kernel's parameters: gpu.js lays out `Params` by it, and `moduleOf` stands in for what it would emit. */
export const signatureOf = ({ arrays, integers, floats }: TunedKernel): string =>
  `function(${[...arrays.map(({ name }) => name), ...integers, ...floats].join(", ")}) { return 0; }`;

/** How gpu.js is to type them. */
export const argumentTypesOf = ({ arrays, integers, floats }: TunedKernel): Record<string, ArgumentType> =>
  Object.fromEntries<ArgumentType>([
    ...arrays.map(({ name }) => [name, "Input"] as const),
    ...integers.map((name) => [name, "Integer"] as const),
    ...floats.map((name) => [name, "Float"] as const),
  ]);

/** One call: `sizes` has every integer and float of the kernel, and what `groups` reads beside them. */
export interface TunedCall {
  readonly kernel: TunedKernel;
  readonly arrays: readonly Buffer[];
  readonly sizes: Arguments;
  readonly out: Buffer;
}

/**
 * How the lanes of a workgroup work: `shared` through workgroup memory, as suits a GPU; `alone`, each on a part of the result of its
 * own. An adapter that computes in software switches between lanes at each barrier, and was 2 to 30 times slower with them.
 */
export type KernelStyle = "shared" | "alone";

/** What runs tuned kernels, and lends memory for what one leaves for the next. */
export interface TunedExecutor {
  readonly style: KernelStyle;
  /** False, and nothing done, where an array lies in several buffers: such kernels read and write one. */
  runTuned(call: TunedCall): boolean;
  /** A view that lies in one of several buffers as a view of that one; any other as it is. Absent where all arrays lie in one. */
  pieceOf?(view: View): View;
  allocate(dtype: DType, length: number): Buffer;
  free(buffer: Buffer): void;
}
