import { type Layout, sizeOf } from "@neolog/tensor";
import { link } from "./program.ts";
import type { Texture } from "./textures.ts";

const MAX_AXES = 8;

/** A point for each texel of the source where they lie whole in the target; else for each element, of which those of one channel are drawn. */
const vertex = (whole: boolean): string => `#version 300 es
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
flat out vec4 value;
void main() {
  int at = offset;
  int rest = gl_VertexID;
  for (int axis = rank - 1; axis >= 0; axis--) {
    at += (rest % shape[axis]) * strides[axis];
    rest /= shape[axis];
  }
  int from = ${whole ? "gl_VertexID" : "gl_VertexID >> 2"};
  vec4 four = texelFetch(source, ivec2(from & (sourceWidth - 1), from / sourceWidth), 0);
  value = ${whole ? "four" : "vec4(four[gl_VertexID & 3])"};
  int texel = ${whole ? "at" : "at >> 2"};
  vec2 centre = vec2(float(texel & (size.x - 1)), float(texel / size.x)) + 0.5;
  vec4 place = vec4(centre / vec2(size) * 2.0 - 1.0, 0.0, 1.0);
  gl_Position = ${whole ? "place" : "(at & 3) == channel ? place : vec4(2.0, 2.0, 2.0, 1.0)"};
  gl_PointSize = 1.0;
}`;
const FRAGMENT = `#version 300 es
precision highp float;
flat in vec4 value;
out vec4 texel;
void main() {
  texel = value;
}`;

/** Writes a dense result into a view of a buffer, the rest of which stays. */
export class Placer {
  readonly #gl: WebGL2RenderingContext;
  readonly #elements: Drawing;
  readonly #texels: Drawing;

  constructor(gl: WebGL2RenderingContext) {
    this.#gl = gl;
    this.#elements = drawing(gl, false);
    this.#texels = drawing(gl, true);
  }

  place(target: Texture, source: Texture, layout: Layout): void {
    const gl = this.#gl;
    const merged = mergeAxes(layout);
    const texels = inTexels(merged, layout.offset);
    const [shape, strides] = texels ?? merged;
    const { program, at } = texels ? this.#texels : this.#elements;
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, source.texture);
    gl.uniform1i(at("source"), 0);
    gl.uniform1i(at("sourceWidth"), source.width);
    gl.uniform2i(at("size"), target.width, target.height);
    gl.uniform1i(at("rank"), shape.length);
    gl.uniform1i(at("offset"), texels ? layout.offset / 4 : layout.offset);
    if (shape.length > 0) {
      gl.uniform1iv(at("shape[0]"), shape);
      gl.uniform1iv(at("strides[0]"), strides);
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.viewport(0, 0, target.width, target.height);
    if (texels) return gl.drawArrays(gl.POINTS, 0, sizeOf(shape));
    for (let channel = 0; channel < 4; channel++) {
      gl.colorMask(channel === 0, channel === 1, channel === 2, channel === 3);
      gl.uniform1i(at("channel"), channel);
      gl.drawArrays(gl.POINTS, 0, sizeOf(layout.shape));
    }
    gl.colorMask(true, true, true, true);
  }
}

interface Drawing {
  readonly program: WebGLProgram;
  readonly at: (name: string) => WebGLUniformLocation | null;
}

function drawing(gl: WebGL2RenderingContext, whole: boolean): Drawing {
  const program = link(gl, "place", vertex(whole), FRAGMENT);
  const found = new Map<string, WebGLUniformLocation | null>();
  const at = (name: string): WebGLUniformLocation | null => {
    if (!found.has(name)) found.set(name, gl.getUniformLocation(program, name));
    return found.get(name)!;
  };
  return { program, at };
}

type Axes = readonly [shape: number[], strides: number[]];

/** The positions of texels, or null where elements do not lie in whole ones. */
function inTexels([shape, strides]: Axes, offset: number): Axes | null {
  const last = shape.length - 1;
  if (strides[last] !== 1 || [offset, shape[last]!, ...strides.slice(0, last)].some((x) => x % 4 !== 0)) return null;
  return [shape.with(last, shape[last]! / 4), strides.map((x, axis) => (axis === last ? 1 : x / 4))];
}

/** The same positions with as few axes as can be. */
function mergeAxes({ shape, strides }: Layout): Axes {
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
