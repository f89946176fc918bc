import {
  type Buffer,
  type DType,
  type TypedArray,
  contiguousLayout,
  isContiguous,
  sizeOf,
  toBfloat16,
  toFloat16,
} from "@neolog/tensor";
import { DeviceLostError } from "../errors.ts";
import type { GpuJs } from "../facade.ts";
import type { Executor, Kernel, Launch } from "../kernel.ts";
import { COPY } from "../kernels/pointwise.ts";
import type { WebGl2 } from "./open.ts";
import { FORMATS, type Format, formatOf, texelsOf } from "./formats.ts";
import { Placer } from "./place.ts";
import { readTexture } from "./read.ts";
import { type Texture, Textures, bytesFor } from "./textures.ts";
import { Programs } from "./programs.ts";
import type { Program } from "./translate.ts";

/** Halves as the host wrote them; what kernels gave, and numbers of other dtypes, as float32. No texture until something is written. */
interface TextureBuffer extends Buffer {
  texture: Texture | null;
}

/** WebGL2: a kernel is a fragment shader that gpu.js wrote, which renders its result into a texture. */
export class WebGl2Executor implements Executor {
  readonly mode = "webgl2";
  readonly info: Executor["info"];
  readonly #gl: WebGL2RenderingContext;
  readonly #textures: Textures;
  readonly #placer: Placer;
  readonly #programs: Programs;
  /** For kernels that render into several textures. */
  #rows: WebGLFramebuffer | null = null;

  constructor(lib: GpuJs, context: WebGl2, refused: Readonly<Record<string, string>>) {
    this.#gl = context.gl;
    this.#textures = new Textures(context.gl, context.maxTextureSize);
    this.#placer = new Placer(context.gl);
    this.#programs = new Programs(lib, context);
    this.info = {
      adapter: context.adapter,
      software: context.software,
      arithmetic: "float32",
      maxTextureSize: context.maxTextureSize,
      ...Object.fromEntries(Object.entries(refused).map(([mode, reason]) => [`${mode} refused`, reason])),
    };
  }

  get deviceBytes(): Executor["deviceBytes"] {
    return { total: this.#textures.bytes, waiting: this.#textures.idleBytes };
  }
  destroy(): void {
    this.#gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
  get compiled(): number {
    return this.#programs.size;
  }
  async prepare(run: () => void): Promise<void> {
    this.#check();
    const compiled = await this.#programs.compileAhead(run);
    this.#check();
    if (compiled.length > 0) await this.#drawNothing(compiled);
    this.#check();
  }
  /** Drivers end compiling at the first draw: one of a triangle without area, by each program, and waits until they are done. */
  async #drawNothing(compiled: Awaited<ReturnType<Programs["compileAhead"]>>): Promise<void> {
    const gl = this.#gl;
    const targets = Array.from({ length: 5 }, () => this.#textures.take(1));
    const [source, ...outs] = targets as [Texture, ...Texture[]];
    const halves = { bfloat16: this.#textures.take(1, "bfloat16"), float16: this.#textures.take(1, "float16") };
    const sources = { float32: source, ...halves };
    for (const { kernel, rows, program, formats } of compiled) {
      gl.useProgram(program.program);
      kernel.parameters.forEach((_, i) => {
        gl.activeTexture(gl.TEXTURE0 + i);
        gl.bindTexture(gl.TEXTURE_2D, sources[formats[i] ?? "float32"].texture);
        if (formats[i]) gl.uniform1i(program.parameters[i]!.value, i);
      });
      if (rows === 0) gl.bindFramebuffer(gl.FRAMEBUFFER, outs[0]!.framebuffer);
      else this.#bindRows(outs.slice(0, rows));
      gl.viewport(0, 0, 1, 1);
      gl.drawArrays(gl.TRIANGLES, 3, 3);
    }
    await readTexture(gl, outs[0]!, 0, 1);
    for (const texture of [...targets, ...Object.values(halves)]) this.#textures.give(texture);
  }
  /** Of a buffer that the host writes. */
  bytesOf(dtype: DType, length: number): number {
    return bytesFor(length, formatOf(dtype));
  }
  allocate(dtype: DType, length: number): TextureBuffer {
    return { dtype, length, texture: null };
  }
  free(buffer: Buffer): void {
    const { texture } = buffer as TextureBuffer;
    if (texture) this.#textures.give(texture);
    (buffer as TextureBuffer).texture = null;
  }
  write(buffer: Buffer, data: TypedArray, at: number): void {
    this.#check();
    const format = formatOf(buffer.dtype);
    const values = format === "float32" ? asFloats(data) : data;
    if (data.length === buffer.length) {
      const fresh = this.#textures.take(data.length, format);
      this.#upload(fresh, values);
      return this.#replace(buffer, fresh);
    }
    const fresh: TextureBuffer = {
      dtype: buffer.dtype,
      length: data.length,
      texture: this.#textures.take(data.length, format),
    };
    this.#upload(fresh.texture!, values);
    const { shape, strides } = contiguousLayout([data.length]);
    this.#placer.place(this.#floatsOf(buffer), this.#floatsOf(fresh), { shape, strides, offset: at });
    this.free(fresh);
  }
  async read(buffer: Buffer, at: number, length: number): Promise<TypedArray> {
    this.#check();
    const values = await readTexture(this.#gl, this.#textureOf(buffer), at, length);
    return values instanceof Uint16Array ? values : narrowed(buffer.dtype, values);
  }

  run({ kernel, args, out }: Launch): void {
    this.#check();
    const program = this.#programs.of(kernel, formatsOf(args));
    if (!program) return;
    const size = sizeOf(out.layout.shape);
    const result = this.#textures.take(size);
    this.#draw(program, kernel, args, size, result, result.framebuffer, ROUNDING[out.buffer.dtype] ?? 0);
    if (size === out.buffer.length && out.layout.offset === 0 && isContiguous(out.layout))
      this.#replace(out.buffer, result);
    else {
      this.#placer.place(this.#floatsOf(out.buffer), result, out.layout);
      this.#textures.give(result);
    }
  }
  runRows(kernel: Kernel, args: Launch["args"], outs: readonly Buffer[]): void {
    this.#check();
    const program = this.#programs.of(kernel, formatsOf(args), outs.length);
    if (!program) return;
    const targets = outs.map(({ length }) => this.#textures.take(length));
    const framebuffer = this.#bindRows(targets);
    this.#draw(program, kernel, args, outs[0]!.length, targets[0]!, framebuffer, 0);
    outs.forEach((buffer, i) => this.#replace(buffer, targets[i]!));
  }

  #bindRows(targets: readonly Texture[]): WebGLFramebuffer {
    const gl = this.#gl;
    const framebuffer = (this.#rows ??= gl.createFramebuffer());
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    for (let i = 0; i < 4; i++)
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + i, gl.TEXTURE_2D, targets[i]?.texture ?? null, 0);
    gl.drawBuffers(targets.map((_, i) => gl.COLOR_ATTACHMENT0 + i));
    return framebuffer;
  }
  /** Renders `size` numbers into a texture, or into as many of its size as the framebuffer has. */
  #draw(
    program: Program,
    kernel: Kernel,
    args: Launch["args"],
    size: number,
    { width, height }: Texture,
    framebuffer: WebGLFramebuffer,
    rounding: number,
  ): void {
    const gl = this.#gl;
    const textures = args.map((x) => (typeof x === "number" ? null : this.#textureOf(x)));
    gl.useProgram(program.program);
    gl.uniform3i(program.outputDim, size, 1, 1);
    gl.uniform2i(program.texSize, width, height);
    gl.uniform1i(program.rounding, rounding);
    let unit = 0;
    program.parameters.forEach((parameter, i) => {
      const texture = textures[i];
      if (texture) {
        gl.activeTexture(gl.TEXTURE0 + unit);
        gl.bindTexture(gl.TEXTURE_2D, texture.texture);
        gl.uniform1i(parameter.value, unit++);
        gl.uniform2i(parameter.size, texture.width, texture.height);
        gl.uniform3i(parameter.dim, (args[i] as Buffer).length, Math.log2(texture.width), 1);
      } else if (kernel.parameters[i]!.type === "Integer") gl.uniform1i(parameter.value, args[i] as number);
      else gl.uniform1f(parameter.value, args[i] as number);
    });
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.viewport(0, 0, width, Math.ceil(size / 4 / width));
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
  #replace(buffer: Buffer, texture: Texture): void {
    this.free(buffer);
    (buffer as TextureBuffer).texture = texture;
  }
  /** The buffer's texture; zeros where nothing was written. */
  #textureOf(buffer: Buffer): Texture {
    const own = buffer as TextureBuffer;
    if (!own.texture) {
      own.texture = this.#textures.take(buffer.length);
      this.#gl.bindFramebuffer(this.#gl.FRAMEBUFFER, own.texture.framebuffer);
      this.#gl.clearBufferfv(this.#gl.COLOR, 0, [0, 0, 0, 0]);
    }
    return own.texture;
  }
  /** The buffer's texture, as float32 from now on. */
  #floatsOf(buffer: Buffer): Texture {
    if (this.#textureOf(buffer).format !== "float32")
      this.run({ kernel: COPY, args: [buffer, 0], out: { buffer, layout: contiguousLayout([buffer.length]) } });
    return this.#textureOf(buffer);
  }
  /** Whole rows of the texture at once, then the part of a row that is left. */
  #upload({ texture, width, format }: Texture, values: TypedArray): void {
    const gl = this.#gl;
    const words = texelsOf(format, values);
    const rows = Math.floor(words.length / (4 * width));
    const left = words.length / 4 - rows * width;
    const [layout, type] = [gl[FORMATS[format].format], gl[FORMATS[format].type]];
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    if (rows > 0) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, rows, layout, type, words);
    if (left > 0) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, rows, left, 1, layout, type, words, 4 * width * rows);
  }
  #check(): void {
    if (this.#gl.isContextLost()) throw new DeviceLostError("WebGL context lost");
  }
}

const ROUNDING: { readonly [D in DType]?: number } = { bfloat16: 1, float16: 2 };
const NARROW: { readonly [D in DType]?: (x: number) => number } = { bfloat16: toBfloat16, float16: toFloat16 };

const formatsOf = (args: Launch["args"]): (Format | null)[] =>
  args.map((x) => (typeof x === "number" ? null : ((x as TextureBuffer).texture?.format ?? "float32")));

const asFloats = (data: TypedArray): Float32Array => (data instanceof Float32Array ? data : Float32Array.from(data));

function narrowed(dtype: DType, values: Float32Array): TypedArray {
  if (dtype === "int32") return Int32Array.from(values);
  const narrow = NARROW[dtype];
  return narrow ? Uint16Array.from(values, narrow) : values;
}
