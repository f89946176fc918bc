import type { Buffer } from "../backend.ts";
import { BYTES_PER_ELEMENT, type DType, type TypedArray, hostArray } from "../dtype.ts";

/** A buffer whose elements are a JavaScript array. */
export interface HostBuffer extends Buffer {
  readonly data: TypedArray;
}

/** The memory calls of backends that keep their buffers in JavaScript arrays. */
export class HostMemory {
  #live = 0;
  #bytes = 0;
  #peak = 0;

  get live(): number {
    return this.#live;
  }
  get bytes(): { readonly live: number; readonly peak: number } {
    return { live: this.#bytes, peak: this.#peak };
  }
  allocate(dtype: DType, length: number): HostBuffer {
    const data = hostArray(dtype, length);
    this.#live++;
    this.#bytes += length * BYTES_PER_ELEMENT[dtype];
    this.#peak = Math.max(this.#peak, this.#bytes);
    return { dtype, length, data };
  }
  write(buffer: Buffer, data: TypedArray, at = 0): void {
    dataOf(buffer).set(data, at);
  }
  readSync(buffer: Buffer, at: number, length: number): TypedArray {
    return dataOf(buffer).slice(at, at + length);
  }
  async read(buffer: Buffer, at: number, length: number): Promise<TypedArray> {
    return this.readSync(buffer, at, length);
  }
  hostBytes(buffer: Buffer): Uint8Array {
    const { buffer: memory, byteOffset, byteLength } = dataOf(buffer);
    return new Uint8Array(memory, byteOffset, byteLength);
  }
  free(buffer: Buffer): void {
    this.#live--;
    this.#bytes -= buffer.length * BYTES_PER_ELEMENT[buffer.dtype];
  }
}

/** The array behind a buffer of a host backend. */
export const dataOf = (buffer: Buffer): TypedArray => (buffer as HostBuffer).data;
