import type { GpuJs } from "../facade.ts";
import { type Kernel, settingsOf, sourceOf } from "../kernel.ts";
import type { WebGl2 } from "./open.ts";
import { link } from "./program.ts";
import { PRELUDE, replaceBody, withGlslBodies } from "./prelude.ts";

/** A compiled kernel, and where its numbers and textures are set. */
export interface Program {
  readonly program: WebGLProgram;
  readonly outputDim: WebGLUniformLocation | null;
  readonly texSize: WebGLUniformLocation | null;
  readonly rounding: WebGLUniformLocation | null;
  readonly parameters: readonly {
    readonly value: WebGLUniformLocation | null;
    readonly size: WebGLUniformLocation | null;
    readonly dim: WebGLUniformLocation | null;
  }[];
}

/** Covers the viewport. */
export const VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}`;

/** To the nearest bfloat16 (1) or float16 (2), ties to even; as it is (0). */
const AS_STORED = `uniform int rounding;
float asStored(float x) { return rounding == 1 ? toBfloat16(x) : rounding == 2 ? toFloat16(x) : x; }
`;

/** Exact for every index: gpu.js divides in float32. The width is a power of two. */
const ELEMENT = `int texel = x >> 2;
  return texelFetch(tex, ivec2(texel & (texSize.x - 1), texel / texSize.x), 0)[x & 3];`;

/** Compiles a kernel: gpu.js translates its source to GLSL, where indices are then made exact. Throws BackendError. */
export function compile(lib: GpuJs, { gl, canvas }: WebGl2, kernel: Kernel): Program {
  const program = link(gl, kernel.key, VERTEX, fragmentOf(lib, gl, canvas, kernel));
  const at = (name: string): WebGLUniformLocation | null => gl.getUniformLocation(program, name);
  return {
    program,
    outputDim: at("uOutputDim"),
    texSize: at("uTexSize"),
    rounding: at("rounding"),
    parameters: kernel.parameters.map(({ name }) => ({
      value: at(`user_${name}`),
      size: at(`user_${name}Size`),
      dim: at(`user_${name}Dim`),
    })),
  };
}

/** The fragment shader of a kernel. */
function fragmentOf(lib: GpuJs, gl: WebGL2RenderingContext, canvas: OffscreenCanvas, kernel: Kernel): string {
  const settings = settingsOf(kernel);
  const argumentTypes = kernel.parameters.map(({ type }) => (type === "Input" ? "MemoryOptimizedNumberTexture" : type));
  const translator = new lib.WebGL2Kernel(sourceOf(kernel), {
    ...settings,
    argumentTypes,
    optimizeFloatMemory: true,
    pipeline: true,
    immutable: true,
    validate: false,
    context: gl,
    canvas,
  });
  const args = kernel.parameters.map(({ type }) =>
    type === "Input" ? { size: [1, 1], dimensions: [1, 1, 1], texture: null } : 1,
  );
  translator.initExtensions();
  translator.validateSettings(args);
  translator.setupConstants(args);
  translator.setupArguments(args);
  translator.translateSource();
  translator.threadDim = [1, 1, 1];
  const written = translator.getFragmentShader(args).replaceAll(/float (hoisted_\w+)=/g, "int $1="); // indices of indices
  const code = withGlslBodies(written);
  const [first, entry] = [code.indexOf("vec4 actualColor"), code.indexOf("void main(void)")];
  const head = replaceBody(code.slice(0, first), "getMemoryOptimized32", ELEMENT);
  const main = code
    .slice(entry)
    .replace(/index = int\(vTexCoord[^;]*;/, "index = int(gl_FragCoord.y) * uTexSize.x + int(gl_FragCoord.x);")
    .replace(
      /\}\s*$/,
      "  data0 = vec4(asStored(data0.r), asStored(data0.g), asStored(data0.b), asStored(data0.a));\n}",
    );
  return [
    replaceBody(head, "indexTo3D", "return ivec3(min(idx, texDim.x - 1), 0, 0);"),
    PRELUDE,
    AS_STORED,
    code.slice(first, entry),
    main,
  ].join("\n");
}
