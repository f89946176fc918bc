import type { Backend, Buffer, View } from "./backend.ts";
import { type DType, type TypedArray, hostArray } from "./dtype.ts";
import { BackendError, DisposedError, type Shape, ShapeError, formatShape } from "./errors.ts";
import { type Layout, contiguousLayout, isContiguous, sizeOf } from "./layout.ts";
import type { Operand, Source } from "./op.ts";
import { adopt } from "./scope.ts";

/** A buffer and how many tensors see it. */
class Storage {
  readonly backend: Backend;
  readonly buffer: Buffer;
  /** How often `assign` or an optimizer wrote into it. */
  version = 0;
  #users = 0;

  constructor(backend: Backend, buffer: Buffer) {
    this.backend = backend;
    this.buffer = buffer;
  }
  get shared(): boolean {
    return this.#users > 1;
  }
  retain(): void {
    this.#users++;
  }
  release(): void {
    if (--this.#users === 0) this.backend.free(this.buffer);
  }
}

/** An n-dimensional array on a backend. Ops never change a tensor; `assign` and optimizers write into leaves. */
export class Tensor {
  readonly layout: Layout;
  readonly dtype: DType;
  /** The op and inputs this came from, where gradients need it. Cleared by `backward`. */
  source: Source | null;
  /** A leaf whose gradient `backward` collects in `grad`. */
  requiresGrad = false;
  readonly #storage: Storage;
  #grad: Tensor | null = null;
  #disposed = false;
  #forgotten = false;

  private constructor(storage: Storage, layout: Layout, source: Source | null) {
    storage.retain();
    this.#storage = storage;
    this.layout = layout;
    this.dtype = storage.buffer.dtype;
    this.source = source;
    adopt(this);
  }

  /** A tensor over a fresh buffer, row-major where no layout is given. */
  static over(
    backend: Backend,
    buffer: Buffer,
    shape: Shape,
    source: Source | null = null,
    layout = contiguousLayout(shape),
  ): Tensor {
    return new Tensor(new Storage(backend, buffer), layout, source);
  }
  /** A tensor over the buffer of `t`, seen through `layout`. */
  static viewing(t: Tensor, layout: Layout, source: Source | null = null): Tensor {
    t.#assertAlive("view");
    return new Tensor(t.#storage, layout, source);
  }

  get shape(): Shape {
    return this.layout.shape;
  }
  get size(): number {
    return sizeOf(this.layout.shape);
  }
  get backend(): Backend {
    return this.#storage.backend;
  }
  /** How often `assign` or an optimizer wrote into the buffer, through this tensor or another that sees it. */
  get version(): number {
    return this.#storage.version;
  }
  /** Whether another tensor sees the buffer. */
  get shared(): boolean {
    return this.#storage.shared;
  }
  /** Counts a write into the buffer. */
  written(): void {
    this.#storage.version++;
  }
  get disposed(): boolean {
    return this.#disposed;
  }
  /** True when a gradient may flow through this tensor. */
  get tracked(): boolean {
    return this.requiresGrad || this.source !== null;
  }
  /** The gradient of the last `backward`, or null; it lives as long as the scope in which `backward` ran. */
  get grad(): Tensor | null {
    return this.#grad?.disposed ? null : this.#grad;
  }
  set grad(grad: Tensor | null) {
    this.#grad = grad;
  }

  /** The buffer and layout for a kernel. Throws DisposedError that names `op`. */
  view(op: string): View {
    this.#assertAlive(op);
    return { buffer: this.#storage.buffer, layout: this.layout };
  }

  /** The elements in row-major order, as the host array of the dtype. Works on every backend. */
  async data(): Promise<TypedArray> {
    const { buffer } = this.view("data");
    const [start, length] = this.#span();
    return this.#gather(await this.backend.read(buffer, start, length), start);
  }
  /** The same at once. Throws BackendError where the backend cannot read synchronously. */
  dataSync(): TypedArray {
    const { buffer } = this.view("dataSync");
    const { backend } = this;
    const [start, length] = this.#span();
    const data = backend.readSync?.(buffer, start, length) ?? backend.hostCopy?.(buffer, start, length);
    if (!data) throw new BackendError(`${backend.name} cannot read synchronously; use await t.data()`);
    return this.#gather(data, start);
  }
  /** The value of a tensor of one element. */
  async item(): Promise<number> {
    if (this.size !== 1) throw new ShapeError("item", "a tensor of one element is needed", this.shape);
    return (await this.data())[0]!;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.forget();
    this.#disposed = true;
    this.source = null;
  }

  /** Gives up the elements alone: gradients still pass, and an op that would read them throws DisposedError. */
  forget(): void {
    if (this.#forgotten) return;
    this.#forgotten = true;
    this.#storage.release();
  }

  toString(): string {
    return `Tensor(${formatShape(this.shape)}, ${this.dtype}, ${this.backend.name})`;
  }

  #assertAlive(op: string): void {
    if (this.#forgotten) throw new DisposedError(op, this.shape);
  }
  /** First element and length of the part of the buffer that the layout touches. */
  #span(): [start: number, length: number] {
    const { shape, strides, offset } = this.layout;
    if (sizeOf(shape) === 0) return [0, 0];
    return [offset, shape.reduce((last, d, i) => last + (d - 1) * strides[i]!, 0) + 1];
  }
  #gather(span: TypedArray, start: number): TypedArray {
    if (isContiguous(this.layout)) return span;
    const { shape, strides, offset } = this.layout;
    const out = hostArray(this.dtype, sizeOf(shape));
    const index = new Array<number>(shape.length).fill(0);
    for (let i = 0, at = offset - start; i < out.length; i++) {
      out[i] = span[at]!;
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        at += strides[axis]!;
        if (++index[axis]! < shape[axis]!) break;
        at -= strides[axis]! * shape[axis]!;
        index[axis] = 0;
      }
    }
    return out;
  }
}

/** True when a gradient may flow into this operand. */
export const isTracked = (x: Operand): boolean => typeof x !== "number" && x.tracked;
