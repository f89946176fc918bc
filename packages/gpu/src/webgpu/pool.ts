/** STORAGE | COPY_SRC | COPY_DST; the numbers of the WebGPU specification, which Node has no globals for. */
const USAGE = 0x0080 | 0x0004 | 0x0008;

/** A buffer on the device, and the submit that its last use waits for. */
export interface Slab {
  readonly buffer: GPUBuffer;
  readonly bytes: number;
  epoch: number;
}

/** Size classes 12 % apart: what a freed buffer held, one of about its size may hold. */
export function sizeClass(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(1, bytes))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/** Freed buffers wait here by size class for their next use, up to `limit` bytes of them. */
export class Pool {
  readonly #device: GPUDevice;
  readonly #limit: number;
  readonly #free = new Map<number, Slab[]>();
  #waiting = 0;
  #total = 0;

  constructor(device: GPUDevice, limit: number) {
    this.#device = device;
    this.#limit = limit;
  }
  /** Bytes on the device: in use, and waiting. */
  get bytes(): { readonly total: number; readonly waiting: number } {
    return { total: this.#total, waiting: this.#waiting };
  }

  /** Not one that was last used in epoch `but`. */
  take(bytes: number, but = -2): Slab {
    const size = sizeClass(bytes);
    const waiting = this.#free.get(size) ?? [];
    const last = waiting.findLastIndex(({ epoch }) => epoch !== but);
    const [slab] = last < 0 ? [] : waiting.splice(last, 1);
    if (slab) {
      this.#waiting -= size;
      return slab;
    }
    this.#total += size;
    return { buffer: this.#device.createBuffer({ size, usage: USAGE }), bytes: size, epoch: -1 };
  }
  /** `inUse` says whether commands that are not submitted yet name the slab: such a one is never destroyed. */
  give(slab: Slab, inUse: boolean): void {
    if (!inUse && this.#waiting + slab.bytes > this.#limit) {
      this.#total -= slab.bytes;
      slab.buffer.destroy();
      return;
    }
    this.#waiting += slab.bytes;
    const waiting = this.#free.get(slab.bytes);
    if (waiting) waiting.push(slab);
    else this.#free.set(slab.bytes, [slab]);
  }
  /** Destroys what waits. */
  clear(): void {
    for (const slabs of this.#free.values()) for (const { buffer } of slabs) buffer.destroy();
    this.#free.clear();
    this.#total -= this.#waiting;
    this.#waiting = 0;
  }
}
