import { ShapeError, Tensor, assign, cat, persist, records, slice, sliceLayout } from "@neolog/tensor";

/** A cache makes room for this many positions at a time. */
export const BLOCK = 64;

/** Keys and values were to be cached whose gradient is wanted: they are written into memory that is there already. */
export class CacheGradientError extends Error {
  override readonly name = "CacheGradientError";

  constructor() {
    super("KvCache: keys and values must need no gradient, got some that do; run the model inside noGrad(() => …)");
  }
}

/**
 * Keys, or values, of one layer, [B, K, n, D]: the end of a run of rows with room behind it, so that a new position is written where
 * it belongs and the others stay where they are.
 */
export class CachedPositions {
  #room: Tensor | null = null;
  /** The part of `#room` that is held. */
  #held: Tensor | null = null;
  #start = 0;
  #end = 0;

  get held(): Tensor | null {
    return this.#held;
  }

  /**
   * Appends x [B, K, T, D] and returns all positions that its queries may see; holds the last window − 1, all where that is null.
   * Throws ShapeError where x is not like what is held, CacheGradientError.
   */
  append(x: Tensor, window: number | null): Tensor {
    if (records([x])) throw new CacheGradientError();
    this.#check(x);
    const T = x.shape[2]!;
    if (window !== null && T > BLOCK) return this.#pass(x, window);
    if (!this.#room || this.#end + T > this.#room.shape[2]!) this.#move(x, window);
    this.#write(x, this.#end);
    this.#end += T;
    if (window === null || this.#end - this.#start < window) return this.#hold();
    const all = this.#rows(this.#start, this.#end);
    this.#start = this.#end - (window - 1);
    this.#hold();
    return all;
  }

  dispose(): void {
    this.#held?.dispose();
    this.#room?.dispose();
    this.#held = this.#room = null;
  }

  /** The same for many positions of which few are to be held: they do not come into the buffer. */
  #pass(x: Tensor, window: number): Tensor {
    const all = this.#held ? cat([this.#held, x], 2) : x;
    const last = slice(all, 2, Math.max(0, all.shape[2]! - (window - 1)));
    this.dispose();
    this.#move(last, window);
    this.#write(last, 0);
    this.#end = last.shape[2]!;
    this.#hold();
    return all;
  }

  /** To a new buffer with room for x behind what is held. Without a window it grows by a quarter at least: copies stay rare. */
  #move(x: Tensor, window: number | null): void {
    const [B, K, T, D] = x.shape as [number, number, number, number];
    const n = this.#held?.shape[2] ?? 0;
    const wanted = n + T + (window === null ? Math.floor(n / 4) : BLOCK - 1);
    const capacity = Math.ceil(wanted / BLOCK) * BLOCK;
    const buffer = x.backend.allocate(x.dtype, B * K * capacity * D);
    const before = this.#room;
    this.#room = persist(Tensor.over(x.backend, buffer, [B, K, capacity, D]));
    [this.#start, this.#end] = [0, n];
    if (this.#held) this.#write(this.#held, 0);
    before?.dispose();
  }

  /** Writes x [B, K, T, D] into the buffer, from a row on. */
  #write(x: Tensor, row: number): void {
    const rows = this.#rows(row, row + x.shape[2]!);
    assign(rows, x);
    rows.dispose();
  }
  #rows(start: number, end: number): Tensor {
    return Tensor.viewing(this.#room!, sliceLayout(this.#room!.layout, 2, start, end - start));
  }
  #hold(): Tensor {
    this.#held?.dispose();
    this.#held = persist(this.#rows(this.#start, this.#end));
    return this.#held;
  }
  #check(x: Tensor): void {
    if (!this.#held) return;
    const [B, K, , D] = this.#held.shape;
    if (x.shape[0] !== B || x.shape[1] !== K || x.shape[3] !== D) {
      const mustHold = "rows, heads and their width must stay those of the first call";
      throw new ShapeError("KvCache", mustHold, this.#held.shape, x.shape);
    }
  }
}
