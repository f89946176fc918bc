import { DeviceError } from "../errors.ts";

/** A program of two shaders. Throws DeviceError with the compiler's words. */
export function link(gl: WebGL2RenderingContext, name: string, vertex: string, fragment: string): WebGLProgram {
  const program = gl.createProgram();
  const shaders = ([gl.VERTEX_SHADER, gl.FRAGMENT_SHADER] as const).map((type, i) => {
    const shader = gl.createShader(type)!;
    gl.shaderSource(shader, [vertex, fragment][i]!);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    return shader;
  });
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const words = [...shaders.map((shader) => gl.getShaderInfoLog(shader)), gl.getProgramInfoLog(program)];
    throw new DeviceError(`kernel ${name}: ${words.filter(Boolean).join("; ")}`);
  }
  for (const shader of shaders) gl.deleteShader(shader);
  return program;
}
