/** What a cache holds. */
export interface Sized {
  readonly bytes: number;
  dispose(): void;
}

/** Values by key, of at most `maxBytes` together: the least recently used goes first. */
export class ByteBudget<T extends Sized> {
  readonly maxBytes: number;
  readonly #values = new Map<string, T>();
  #bytes = 0;
  #evictions = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }
  get evictions(): number {
    return this.#evictions;
  }

  get(key: string): T | undefined {
    const value = this.#values.get(key);
    if (value) {
      this.#values.delete(key);
      this.#values.set(key, value);
    }
    return value;
  }

  /** Keeps a new value, and says whether: one that is larger than the whole budget stays the caller's. */
  put(key: string, value: T): boolean {
    if (value.bytes > this.maxBytes) return false;
    this.#values.set(key, value);
    this.#bytes += value.bytes;
    for (const [oldest, { bytes }] of this.#values) {
      if (this.#bytes <= this.maxBytes) break;
      this.#remove(oldest, bytes);
      this.#evictions++;
    }
    return true;
  }

  clear(): void {
    for (const [key, { bytes }] of this.#values) this.#remove(key, bytes);
  }

  #remove(key: string, bytes: number): void {
    this.#values.get(key)!.dispose();
    this.#values.delete(key);
    this.#bytes -= bytes;
  }
}
