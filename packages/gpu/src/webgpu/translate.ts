import type { DType } from "@neolog/tensor";
import type { ArgumentType, GpuJs, WebGpuKernel } from "../facade.ts";
import { withWgslBodies } from "../functions.ts";
import { PRELUDE } from "./prelude.ts";
import { type Kernel, int, settingsOf, sourceOf } from "../kernel.ts";

/** How an array lies on the device: in how many buffers of `partWords` words each, the last one shorter. */
export interface Stored {
  readonly dtype: DType;
  readonly parts: number;
}
/** Where element i of a dense result goes: to i, i + an offset, or by the strides of as many axes. */
export type Placement = "whole" | "offset" | number;

/** WGSL and what its parameters are. */
export interface Translation {
  readonly code: string;
  readonly layout: WebGpuKernel["paramsLayout"];
}

/** Translates through gpu.js, then binds arrays as they are stored and writes where the result goes. */
export class Translator {
  readonly #lib: GpuJs;

  constructor(lib: GpuJs) {
    this.#lib = lib;
  }

  translate(
    kernel: Kernel,
    arrays: readonly Stored[],
    out: Stored,
    placement: Placement,
    partWords: number,
  ): Translation {
    const parameters = [...kernel.parameters, ...placementParameters(placement).map(int)];
    const translated = this.#translated({ ...kernel, parameters });
    const names = parameters.filter(({ type }) => type === "Input").map(({ name }) => name);
    let code = withWgslBodies(translated.compiledSource);
    let binding = 1;
    names.forEach((name, i) => {
      const stored = arrays[i]!;
      const bindings = declared(`user_${name}`, "read", wordOf(stored), stored.parts, binding);
      binding += stored.parts;
      code = code
        .replace(new RegExp(`@group\\(0\\) @binding\\(\\d+\\) var<storage, read> user_${name} : array<f32>;`), bindings)
        .replace(new RegExp(`fn get_user_${name}\\([\\s\\S]*?\\n\\}`), () =>
          accessor(`user_${name}`, stored, partWords),
        );
    });
    const result = declared("result", "read_write", wordOf(out), out.parts, binding);
    code = code
      .replace(/@group\(0\) @binding\(\d+\) var<storage, read_write> result : array<f32>;/, result)
      .replaceAll(/result\[data_index\] = ([^;]*);return;/g, "put(data_index, $1);return;");
    const entry = code.indexOf("@compute");
    const head = `${code.slice(0, entry)}${PRELUDE}${writer(out, placement, partWords)}`;
    return {
      code: head + (kernel.wgsl ? tunedEntry(kernel.wgsl) : code.slice(entry)),
      layout: translated.paramsLayout,
    };
  }

  #translated(kernel: Kernel): WebGpuKernel {
    const { Input, WebGPUKernel, GPU } = this.#lib;
    const gpu = new GPU({ mode: "webasm" });
    gpu.Kernel = class extends WebGPUKernel {
      override _buildAsync(): Promise<void> {
        return Promise.resolve(); // the pipeline is ours
      }
    };
    const call = gpu.createKernel(sourceOf(kernel), settingsOf(kernel)) as unknown as { kernel: WebGpuKernel };
    const sample: Record<ArgumentType, unknown> = {
      Input: new Input(new Float32Array(1), [1]),
      Integer: 1,
      Float: 0.5,
    };
    void call.kernel.build(...(kernel.parameters.map(({ type }) => sample[type]) as never[]));
    return call.kernel;
  }
}

const isHalf = ({ dtype }: Stored): boolean => dtype === "bfloat16" || dtype === "float16";
const wordOf = (stored: Stored): string => (isHalf(stored) ? "u32" : "f32");
const partName = (name: string, part: number): string => (part === 0 ? name : `${name}_${part}`);

const declared = (name: string, access: string, word: string, parts: number, binding: number): string =>
  Array.from(
    { length: parts },
    (_, part) =>
      `@group(0) @binding(${binding + part}) var<storage, ${access}> ${partName(name, part)} : array<${word}>;`,
  ).join("\n");

/** Statements that use element `index` of an array, in the part where it lies. */
const inParts = (
  name: string,
  parts: number,
  index: string,
  length: number,
  use: (part: string, at: string) => string,
): string =>
  Array.from({ length: parts }, (_, part) => {
    const statement = use(partName(name, part), part === 0 ? index : `${index} - ${part * length}u`);
    return part < parts - 1 ? `if (${index} < ${(part + 1) * length}u) { ${statement} }` : statement;
  }).join("\n  ");

function accessor(name: string, stored: Stored, partWords: number): string {
  const head = `fn get_${name}(z : i32, y : i32, x : i32) -> f32 {\n  let i = u32(x);\n  `;
  if (!isHalf(stored))
    return `${head}${inParts(name, stored.parts, "i", partWords, (part, at) => `return ${part}[${at}];`)}\n}`;
  const convert = stored.dtype === "bfloat16" ? "fromBfloat16" : "fromFloat16";
  const use = (part: string, at: string): string => `return ${convert}((${part}[${at}] >> shift) & 0xffffu);`;
  return `${head}let shift = (i & 1u) * 16u;\n  let word = i >> 1u;\n  ${inParts(name, stored.parts, "word", partWords, use)}\n}`;
}

/** put(i, value) writes element i of the dense result where it goes; putWord(i, bits) writes two halves. */
function writer(out: Stored, placement: Placement, partWords: number): string {
  if (isHalf(out)) {
    const write = inParts("result", out.parts, "i", partWords, (part, at) => `${part}[${at}] = bits; return;`);
    return `fn putWord(i : u32, bits : u32) {\n  ${write}\n}\n`;
  }
  const write = inParts("result", out.parts, "at", partWords, (part, at) => `${part}[${at}] = value; return;`);
  return `fn put(i : i32, value : f32) {\n  let at = u32(${place(placement)});\n  ${write}\n}\n`;
}

function place(placement: Placement): string {
  if (placement === "whole") return "i";
  const terms = ["params.user_outOffset"];
  if (placement === "offset") terms.push("i");
  else
    for (let axis = 0, rank = placement; axis < rank; axis++) {
      const inner = Array.from({ length: rank - 1 - axis }, (_, i) => `params.user_outSize${axis + 1 + i}`).join(" * ");
      const row = inner ? `i / (${inner})` : "i";
      terms.push(`${axis === 0 ? row : `(${row}) % params.user_outSize${axis}`} * params.user_outStride${axis}`);
    }
  return terms.join(" + ");
}

/** In the order in which `Recorder` is given their values: offset, strides, sizes but the first. */
export function placementParameters(placement: Placement): string[] {
  if (placement === "whole") return [];
  if (placement === "offset") return ["outOffset"];
  const axes = Array.from({ length: placement }, (_, axis) => axis);
  return ["outOffset", ...axes.map((axis) => `outStride${axis}`), ...axes.slice(1).map((axis) => `outSize${axis}`)];
}

const tunedEntry = ({ prelude = "", body, workgroup }: NonNullable<Kernel["wgsl"]>): string =>
  `${prelude}
@compute @workgroup_size(${workgroup.join(", ")})
fn main(@builtin(workgroup_id) wg : vec3<u32>, @builtin(local_invocation_id) lid : vec3<u32>, @builtin(global_invocation_id) gid : vec3<u32>) {
${body}
}
`;
