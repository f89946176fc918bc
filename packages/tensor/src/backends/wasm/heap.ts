import type { Buffer } from "../../backend.ts";
import { BYTES_PER_ELEMENT, type DType, type TypedArray } from "../../dtype.ts";
import { BackendError } from "../../errors.ts";
import { MAX_PAGES } from "./asm/module.ts";
import { writeConstants } from "./constants.ts";
import { heapStart } from "./layoutOfMemory.ts";

const PAGE = 65_536;
/** Memory grows by at least this much. */
const GROWTH = 32 << 20;
/**
 * How much more of it is touched before free blocks are joined again, where `top` bytes are: texts of ever other lengths leave blocks of
 * ever other sizes, and what was touched stays resident.
 */
const stepOf = (top: number): number => Math.max(1 << 20, top / 64);
const LARGE = 1 << 20;
/** A buffer lies in one memory, whose last page stays unused. */
const MAX_BYTES = (MAX_PAGES - 1) * PAGE;
/** What the first memory takes of weights of half size, and of anything large: the rest is for what is computed. */
const HALVES_IN_FIRST = 1.5 * 2 ** 30;
const LARGE_IN_FIRST = 3.5 * 2 ** 30;

/** Where a buffer goes first: 0, or 1 for any memory but the first, which holds `held` bytes. */
export type Placement = (dtype: DType, bytes: number, held: number) => 0 | 1;

/** Kernels compute in the first memory; products also where their weight lies, which is what may be large. */
const placeLarge: Placement = (dtype, bytes, held) =>
  bytes >= LARGE && held + bytes > (BYTES_PER_ELEMENT[dtype] === 2 ? HALVES_IN_FIRST : LARGE_IN_FIRST) ? 1 : 0;

/** A shared memory of up to 4 GiB with the views that JavaScript reads it through. */
export class WasmMemory {
  readonly index: number;
  readonly memory: WebAssembly.Memory;
  f32!: Float32Array<SharedArrayBuffer>;
  i32!: Int32Array<SharedArrayBuffer>;
  /** Freed blocks by their rounded size, the last freed on top. */
  readonly #free = new Map<number, number[]>();
  /** Merged free space, by address. */
  #spans: { start: number; size: number }[] = [];
  /** Behind all blocks, live and free. */
  #top: number;
  /** Where the top must stop until free blocks are joined. */
  #stop = 0;
  /** How far blocks ever reached: what may be resident. */
  #touched: number;

  constructor(index: number, threads: number) {
    this.index = index;
    this.#top = this.#touched = heapStart(threads);
    const initial = Math.ceil(this.#top / PAGE);
    this.memory = new WebAssembly.Memory({ initial, maximum: MAX_PAGES, shared: true });
    this.#refresh();
    writeConstants(this.i32);
  }

  get buffer(): SharedArrayBuffer {
    return this.memory.buffer as unknown as SharedArrayBuffer;
  }
  get size(): number {
    return this.buffer.byteLength;
  }
  get touched(): number {
    return this.#touched;
  }

  /** The address of a block of `bytes` (rounded), or 0 where none can be had. */
  allocate(bytes: number): number {
    const size = rounded(bytes);
    return this.#free.get(size)?.pop() ?? this.#fromSpans(size) ?? this.#fromTop(size) ?? 0;
  }
  free(address: number, bytes: number): void {
    const size = rounded(bytes);
    const list = this.#free.get(size);
    if (list) list.push(address);
    else this.#free.set(size, [address]);
  }

  #fromSpans(size: number): number | undefined {
    const at = this.#spans.findIndex((span) => span.size >= size);
    if (at < 0) return undefined;
    const span = this.#spans[at]!;
    const { start } = span;
    span.start += size;
    span.size -= size;
    if (span.size === 0) this.#spans.splice(at, 1);
    return start;
  }
  /** The last page stays unused: kernels may read a little past the end of a buffer. */
  #fromTop(size: number): number | undefined {
    if (this.#top + size > Math.min(this.#stop, this.size - PAGE)) {
      this.#merge();
      const merged = this.#fromSpans(size);
      if (merged !== undefined) return merged;
      if (this.#top + size + PAGE > this.size && !this.#grow(this.#top + size + PAGE)) return undefined;
      this.#stop = this.#top + size + stepOf(this.#top);
    }
    const start = this.#top;
    this.#top += size;
    this.#touched = Math.max(this.#touched, this.#top);
    return start;
  }
  /** Joins all free blocks that touch; what touches the top goes back to it. */
  #merge(): void {
    const blocks = [...this.#spans];
    for (const [size, list] of this.#free) for (const start of list) blocks.push({ start, size });
    this.#free.clear();
    blocks.sort((a, b) => a.start - b.start);
    this.#spans = [];
    for (const { start, size } of blocks) {
      const last = this.#spans.at(-1);
      if (last && last.start + last.size === start) last.size += size;
      else this.#spans.push({ start, size });
    }
    const last = this.#spans.at(-1);
    if (last && last.start + last.size === this.#top) this.#top = this.#spans.pop()!.start;
  }
  #grow(end: number): boolean {
    const wanted = [Math.max(end, this.size + GROWTH), end].map((bytes) => Math.ceil(bytes / PAGE));
    for (const pages of wanted) {
      if (pages > MAX_PAGES) continue;
      try {
        this.memory.grow(pages - this.size / PAGE);
      } catch {
        continue; // RangeError: the engine refuses
      }
      this.#refresh();
      return true;
    }
    return false;
  }
  #refresh(): void {
    this.f32 = new Float32Array(this.buffer);
    this.i32 = new Int32Array(this.buffer);
  }
}

/** Blocks come in multiples of 64 bytes; above 1 KiB in eighths of a power of two; from 1 MiB on in pages. */
function rounded(bytes: number): number {
  if (bytes <= 1024) return Math.max(64, Math.ceil(bytes / 64) * 64);
  const step = bytes >= LARGE ? PAGE : 2 ** (Math.floor(Math.log2(bytes)) - 3);
  return Math.ceil(bytes / step) * step;
}

/** A buffer in WebAssembly memory. `data` is its part of that memory. */
export class WasmBuffer implements Buffer {
  readonly dtype: DType;
  readonly length: number;
  readonly memory: WasmMemory;
  readonly address: number;
  #data: TypedArray | null = null;

  constructor(dtype: DType, length: number, memory: WasmMemory, address: number) {
    this.dtype = dtype;
    this.length = length;
    this.memory = memory;
    this.address = address;
  }
  get data(): TypedArray {
    this.#data ??= arrayOver(this.dtype, this.memory.buffer, this.address, this.length);
    return this.#data;
  }
}

function arrayOver(dtype: DType, buffer: SharedArrayBuffer, address: number, length: number): TypedArray {
  if (dtype === "float32") return new Float32Array(buffer, address, length);
  if (dtype === "int32") return new Int32Array(buffer, address, length);
  return new Uint16Array(buffer, address, length);
}

export interface MemoryReport {
  /** Bytes in live buffers, now and at most so far. */
  readonly live: number;
  readonly peak: number;
  /** Bytes that the memories have grown to. */
  readonly reserved: number;
  /** Of which blocks ever reached: what may be resident. */
  readonly touched: number;
  readonly byDType: Readonly<Record<string, number>>;
  readonly memories: number;
}

/** All buffers, in one or several memories. Throws BackendError when there is no room. */
export class Heap {
  readonly memories: WasmMemory[] = [];
  readonly #threads: number;
  readonly #maxBytes: number;
  readonly #placement: Placement;
  readonly #byDType = new Map<DType, number>();
  #live = 0;
  #bytes = 0;
  #peak = 0;
  #firstBytes = 0;

  constructor(threads: number, maxBytes = Infinity, placement = placeLarge) {
    this.#threads = threads;
    this.#maxBytes = maxBytes;
    this.#placement = placement;
    const first = this.#newMemory();
    if (!first) throw new BackendError("wasm: a shared memory must be to be had, the engine gave none; use cpu");
    this.memories.push(first);
  }

  get live(): number {
    return this.#live;
  }
  get bytes(): { readonly live: number; readonly peak: number } {
    return { live: this.#bytes, peak: this.#peak };
  }
  report(): MemoryReport {
    return {
      live: this.#bytes,
      peak: this.#peak,
      reserved: this.memories.reduce((sum, memory) => sum + memory.size, 0),
      touched: this.memories.reduce((sum, memory) => sum + memory.touched, 0),
      byDType: Object.fromEntries(this.#byDType),
      memories: this.memories.length,
    };
  }

  allocate(dtype: DType, length: number): WasmBuffer {
    const bytes = length * BYTES_PER_ELEMENT[dtype];
    if (this.#bytes + bytes > this.#maxBytes || bytes > MAX_BYTES) throw this.#full(dtype, length, bytes);
    const first = this.#placement(dtype, bytes, this.#firstBytes);
    const buffer = this.#place(dtype, length, bytes, first) ?? this.#place(dtype, length, bytes, 0);
    if (!buffer) throw this.#full(dtype, length, bytes);
    return this.#counted(buffer, bytes);
  }
  /** The same in one memory. */
  allocateIn(memory: number, dtype: DType, length: number): WasmBuffer {
    const bytes = length * BYTES_PER_ELEMENT[dtype];
    const address = this.#bytes + bytes > this.#maxBytes ? 0 : this.memories[memory]!.allocate(bytes);
    if (address === 0) throw this.#full(dtype, length, bytes);
    return this.#counted(new WasmBuffer(dtype, length, this.memories[memory]!, address), bytes);
  }
  free(buffer: WasmBuffer): void {
    const bytes = buffer.length * BYTES_PER_ELEMENT[buffer.dtype];
    buffer.memory.free(buffer.address, bytes);
    this.#count(buffer, -1, bytes);
  }

  /** In the first memory from `first` on that has room, else a new one; null where the engine gives none. */
  #place(dtype: DType, length: number, bytes: number, first: number): WasmBuffer | null {
    for (const memory of this.memories.slice(first)) {
      const address = memory.allocate(bytes);
      if (address > 0) return new WasmBuffer(dtype, length, memory, address);
    }
    const memory = this.#newMemory();
    const address = memory?.allocate(bytes) ?? 0;
    if (!memory || address === 0) return null;
    this.memories.push(memory);
    return new WasmBuffer(dtype, length, memory, address);
  }
  #newMemory(): WasmMemory | null {
    try {
      return new WasmMemory(this.memories.length, this.#threads);
    } catch {
      return null; // RangeError: the engine gives no more address space
    }
  }
  #full(dtype: DType, length: number, bytes: number): BackendError {
    const limit = Number.isFinite(this.#maxBytes) ? ` of at most ${this.#maxBytes}` : "";
    return new BackendError(
      `wasm: out of memory: ${bytes} bytes are needed for ${length} elements of ${dtype}, ${this.#bytes} bytes are in use${limit}`,
    );
  }
  #counted(buffer: WasmBuffer, bytes: number): WasmBuffer {
    this.#count(buffer, 1, bytes);
    this.#peak = Math.max(this.#peak, this.#bytes);
    return buffer;
  }
  #count({ dtype, memory }: WasmBuffer, sign: 1 | -1, bytes: number): void {
    this.#live += sign;
    this.#bytes += sign * bytes;
    if (memory.index === 0) this.#firstBytes += sign * bytes;
    this.#byDType.set(dtype, (this.#byDType.get(dtype) ?? 0) + sign * bytes);
  }
}
