import { DeviceError } from "../errors.ts";

/** A program that the driver compiles by itself. */
export interface Linking {
  /** Whether `finish` would not wait. */
  isDone(): boolean;
  /** Waits for the compiler. Throws DeviceError with its words. */
  finish(): WebGLProgram;
}

/** A program of two shaders. Throws DeviceError with the compiler's words. */
export const link = (gl: WebGL2RenderingContext, name: string, vertex: string, fragment: string): WebGLProgram =>
  startLinking(gl, name, vertex, fragment).finish();

/** The same; drivers with KHR_parallel_shader_compile compile several at a time. */
export function startLinking(gl: WebGL2RenderingContext, name: string, vertex: string, fragment: string): Linking {
  const parallel = gl.getExtension("KHR_parallel_shader_compile");
  const program = gl.createProgram();
  const shaders = ([gl.VERTEX_SHADER, gl.FRAGMENT_SHADER] as const).map((type, i) => {
    const shader = gl.createShader(type)!;
    gl.shaderSource(shader, [vertex, fragment][i]!);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    return shader;
  });
  gl.linkProgram(program);
  return {
    isDone: () => !parallel || gl.getProgramParameter(program, parallel.COMPLETION_STATUS_KHR) !== false,
    finish: () => {
      if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
        const words = [...shaders.map((shader) => gl.getShaderInfoLog(shader)), gl.getProgramInfoLog(program)];
        throw new DeviceError(`kernel ${name}: ${words.filter(Boolean).join("; ")}`);
      }
      for (const shader of shaders) gl.deleteShader(shader);
      return program;
    },
  };
}
