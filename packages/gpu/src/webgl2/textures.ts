import { BackendError } from "@neolog/tensor";
import { FORMATS, type Format } from "./formats.ts";

/** Bytes of textures that wait to be used again, at most; the oldest go. */
const IDLE_BYTES = 2 ** 28;

/** Numbers in the order of their buffer, four or eight to a texel, row by row. */
export interface Texture {
  readonly format: Format;
  readonly texture: WebGLTexture;
  /** Renders into it. */
  readonly framebuffer: WebGLFramebuffer;
  readonly width: number;
  readonly height: number;
}

/**
 * Width and height in texels of a texture for `length` numbers: the width is a power of two, the height at most a quarter more than
 * what is needed, so that textures of about the same length can stand in for each other.
 */
export function sizeFor(length: number, format: Format = "float32"): readonly [width: number, height: number] {
  const texels = Math.max(1, Math.ceil(length / FORMATS[format].perTexel));
  const width = 2 ** Math.ceil(Math.log2(texels) / 2);
  const rows = Math.ceil(texels / width);
  const step = 2 ** Math.max(0, Math.floor(Math.log2(rows)) - 2);
  return [width, Math.ceil(rows / step) * step];
}

export function bytesFor(length: number, format: Format = "float32"): number {
  const [width, height] = sizeFor(length, format);
  return 16 * width * height;
}

/** Textures by size; given back, they are kept to be taken again. */
export class Textures {
  readonly #gl: WebGL2RenderingContext;
  readonly #largest: number;
  readonly #idle = new Map<string, Texture[]>();
  #idleBytes = 0;
  #bytes = 0;

  constructor(gl: WebGL2RenderingContext, largest: number) {
    this.#gl = gl;
    this.#largest = largest;
  }

  /** Bytes of all textures. */
  get bytes(): number {
    return this.#bytes;
  }
  /** Bytes that no buffer uses. */
  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** A texture with room for `length` numbers; what it holds is anything. Throws BackendError where the device has none so large. */
  take(length: number, format: Format = "float32"): Texture {
    const [width, height] = sizeFor(length, format);
    const idle = this.#idle.get(`${format} ${width} ${height}`)?.pop();
    if (idle) {
      this.#idleBytes -= bytesOf(idle);
      return idle;
    }
    if (width > this.#largest || height > this.#largest)
      throw new BackendError(
        `gpu (webgl2): a buffer must have at most ${FORMATS[format].perTexel * this.#largest ** 2} elements, got ${length}; use webgpu or wasm`,
      );
    return this.#create(format, width, height);
  }
  give(texture: Texture): void {
    const key = `${texture.format} ${texture.width} ${texture.height}`;
    const list = this.#idle.get(key) ?? [];
    this.#idle.delete(key);
    this.#idle.set(key, [...list, texture]);
    this.#idleBytes += bytesOf(texture);
    for (const [name, textures] of this.#idle) {
      while (this.#idleBytes > IDLE_BYTES && textures.length > 0) this.#delete(textures.shift()!);
      if (textures.length === 0) this.#idle.delete(name);
    }
  }

  #create(format: Format, width: number, height: number): Texture {
    const gl = this.#gl;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
      gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, wrap, gl.CLAMP_TO_EDGE);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl[FORMATS[format].internal], width, height);
    const framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    this.#bytes += 16 * width * height;
    return { format, texture, framebuffer, width, height };
  }
  #delete(texture: Texture): void {
    this.#idleBytes -= bytesOf(texture);
    this.#bytes -= bytesOf(texture);
    this.#gl.deleteFramebuffer(texture.framebuffer);
    this.#gl.deleteTexture(texture.texture);
  }
}

const bytesOf = ({ width, height }: Texture): number => 16 * width * height;
