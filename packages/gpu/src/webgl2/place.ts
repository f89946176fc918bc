import { type Layout, sizeOf } from "@neolog/tensor";
import { link } from "./program.ts";
import type { Texture } from "./textures.ts";

const MAX_AXES = 8;

/** A point for each element, in the texel where it belongs; only those of one channel are drawn, so that the others stay. */
const VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
uniform sampler2D source;
uniform int sourceWidth;
uniform int channel;
uniform ivec2 size;
uniform int rank;
uniform int offset;
uniform int shape[${MAX_AXES}];
uniform int strides[${MAX_AXES}];
flat out float value;
void main() {
  int at = offset;
  int rest = gl_VertexID;
  for (int axis = rank - 1; axis >= 0; axis--) {
    at += (rest % shape[axis]) * strides[axis];
    rest /= shape[axis];
  }
  int from = gl_VertexID >> 2;
  value = texelFetch(source, ivec2(from & (sourceWidth - 1), from / sourceWidth), 0)[gl_VertexID & 3];
  int texel = at >> 2;
  vec2 centre = vec2(float(texel & (size.x - 1)), float(texel / size.x)) + 0.5;
  gl_Position = (at & 3) == channel ? vec4(centre / vec2(size) * 2.0 - 1.0, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = 1.0;
}`;
const FRAGMENT = `#version 300 es
precision highp float;
flat in float value;
out vec4 texel;
void main() {
  texel = vec4(value);
}`;

/** Writes a dense result into a view of a buffer, the rest of which stays. */
export class Placer {
  readonly #gl: WebGL2RenderingContext;
  readonly #program: WebGLProgram;
  readonly #at: (name: string) => WebGLUniformLocation | null;

  constructor(gl: WebGL2RenderingContext) {
    this.#gl = gl;
    const program = link(gl, "place", VERTEX, FRAGMENT);
    this.#program = program;
    const found = new Map<string, WebGLUniformLocation | null>();
    this.#at = (name) => {
      if (!found.has(name)) found.set(name, gl.getUniformLocation(program, name));
      return found.get(name)!;
    };
  }

  place(target: Texture, source: Texture, layout: Layout): void {
    const gl = this.#gl;
    const [shape, strides] = mergeAxes(layout);
    gl.useProgram(this.#program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, source.texture);
    gl.uniform1i(this.#at("source"), 0);
    gl.uniform1i(this.#at("sourceWidth"), source.width);
    gl.uniform2i(this.#at("size"), target.width, target.height);
    gl.uniform1i(this.#at("rank"), shape.length);
    gl.uniform1i(this.#at("offset"), layout.offset);
    if (shape.length > 0) {
      gl.uniform1iv(this.#at("shape[0]"), shape);
      gl.uniform1iv(this.#at("strides[0]"), strides);
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.viewport(0, 0, target.width, target.height);
    for (let channel = 0; channel < 4; channel++) {
      gl.colorMask(channel === 0, channel === 1, channel === 2, channel === 3);
      gl.uniform1i(this.#at("channel"), channel);
      gl.drawArrays(gl.POINTS, 0, sizeOf(layout.shape));
    }
    gl.colorMask(true, true, true, true);
  }
}

/** The same positions with as few axes as can be. */
function mergeAxes({ shape, strides }: Layout): [shape: number[], strides: number[]] {
  const sizes: number[] = [];
  const steps: number[] = [];
  shape.forEach((size, axis) => {
    if (size === 1) return;
    if (sizes.length > 0 && steps.at(-1) === size * strides[axis]!) {
      sizes.push(sizes.pop()! * size);
      steps.splice(-1, 1, strides[axis]!);
    } else {
      sizes.push(size);
      steps.push(strides[axis]!);
    }
  });
  return [sizes, steps];
}
