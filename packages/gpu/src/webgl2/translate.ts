import type { GpuJs } from "../facade.ts";
import { type Kernel, settingsOf, sourceOf } from "../kernel.ts";
import { FETCH, FORMATS, type Format } from "./formats.ts";
import type { WebGl2 } from "./open.ts";
import { type Linking, startLinking } from "./program.ts";
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

/** A kernel that the driver compiles by itself. */
export interface Compiling extends Pick<Linking, "isDone"> {
  /** Waits for the compiler. Throws DeviceError with its words. */
  finish(): Program;
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

const ELEMENT = "return element(tex, texDim.y, x);";

/** What a fragment is: four neighbours, each by itself, or as `glsl` has them; or four rows of them. */
const mainOf = ({ glsl, glslRows }: Kernel): string =>
  glslRows === undefined
    ? texelMain(glsl)
    : `
layout(location = 1) out vec4 data1;
layout(location = 2) out vec4 data2;
layout(location = 3) out vec4 data3;
void main(void) {
  int first = 4 * (int(gl_FragCoord.y) * uTexSize.x + int(gl_FragCoord.x));
  ${glslRows}
}`;

const texelMain = (glsl: string | undefined): string => `
vec4 plain(int first) {
  vec4 four;
  for (int i = 0; i < 4; i++) {
    threadId = ivec3(min(first + i, uOutputDim.x - 1), 0, 0);
    kernel();
    four[i] = kernelResult;
  }
  return four;
}
vec4 texelAt(int first) {
  ${glsl ?? "return plain(first);"}
}
void main(void) {
  vec4 four = texelAt(4 * (int(gl_FragCoord.y) * uTexSize.x + int(gl_FragCoord.x)));
  data0 = vec4(asStored(four.x), asStored(four.y), asStored(four.z), asStored(four.w));
}`;

/** Has a kernel compiled for arrays in these formats, null for numbers: gpu.js translates its source to GLSL, where indices are then made exact. */
export function startCompiling(
  lib: GpuJs,
  { gl, canvas }: WebGl2,
  kernel: Kernel,
  formats: readonly (Format | null)[],
): Compiling {
  const linking = startLinking(
    gl,
    kernel.key,
    VERTEX,
    withFormats(fragmentOf(lib, gl, canvas, kernel), kernel, formats),
  );
  return { isDone: () => linking.isDone(), finish: () => programOf(gl, linking.finish(), kernel) };
}

function programOf(gl: WebGL2RenderingContext, program: WebGLProgram, kernel: Kernel): Program {
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

/** The shader for arrays that lie in these formats. */
const withFormats = (code: string, { parameters }: Kernel, formats: readonly (Format | null)[]): string =>
  formats.reduce(
    (out, format, i) =>
      format
        ? out.replace(
            `sampler2D user_${parameters[i]!.name};`,
            `${FORMATS[format].sampler} user_${parameters[i]!.name};`,
          )
        : out,
    code,
  );

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
  const code = withGlslBodies(written).replace(
    /^(?:layout\(location = 0\) )?out vec4 data0/m,
    "layout(location = 0) out vec4 data0",
  );
  const [helpers, functions, entry] = ["float getMemoryOptimized32", "vec4 actualColor", "void main(void)"].map(
    (text) => code.indexOf(text),
  ) as [number, number, number];
  return [
    code.slice(0, helpers),
    FETCH,
    replaceBody(code.slice(helpers, functions), "getMemoryOptimized32", ELEMENT),
    PRELUDE,
    AS_STORED,
    code.slice(functions, entry),
    kernel.glslFunctions,
    mainOf(kernel),
  ].join("\n");
}
