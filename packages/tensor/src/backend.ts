import type { DType, TypedArray } from "./dtype.ts";
import type { Layout } from "./layout.ts";
import type { KernelName, OpAttrs } from "./op.ts";
import type { AdamWArrays, AdamWNumbers } from "./ops/adamw.ts";
import type { LogitsArrays, LogitsNumbers } from "./ops/lookAtInPlace.ts";

/** A run of `length` elements that a backend owns. */
export interface Buffer {
  readonly dtype: DType;
  readonly length: number;
}

/** A buffer seen through a layout: what kernels take. */
export interface View {
  readonly buffer: Buffer;
  readonly layout: Layout;
}

export type Reduction = "sum" | "max" | "min" | "argmax";
export type Distribution = "uniform" | "normal";

/**
 * Four memory calls and eight kernels. Kernels write `out`, allocate nothing that outlives them and do not check: ops did.
 * Only pointwise, copy, fill and matmul see arbitrary strides; all other views are contiguous.
 */
export interface Backend {
  readonly name: string;
  /** What was chosen and why, for people. */
  readonly info: Readonly<Record<string, string | number | boolean>>;
  /** Keeps K1 and K2: an element's bytes depend neither on other sizes of the call nor on threads. */
  readonly exact: boolean;
  /** Buffers allocated and not yet freed. */
  readonly live: number;
  /** Bytes in live buffers, now and at most so far. */
  readonly bytes: { readonly live: number; readonly peak: number };
  readonly dtypes: readonly DType[];

  allocate(dtype: DType, length: number): Buffer;
  /** Copies `data` into the buffer from element `at`. */
  write(buffer: Buffer, data: TypedArray, at?: number): void;
  /** A copy of `length` elements from element `at`. */
  read(buffer: Buffer, at: number, length: number): Promise<TypedArray>;
  /** The same at once; absent where a device cannot. */
  readSync?(buffer: Buffer, at: number, length: number): TypedArray;
  /** What the host wrote, where the backend has kept it and no kernel has changed it; null else. For devices without `readSync`. */
  hostCopy?(buffer: Buffer, at: number, length: number): TypedArray | null;
  free(buffer: Buffer): void;
  /** The memory of a buffer where the host can reach it: files are read straight into it. Absent where a device cannot. */
  hostBytes?(buffer: Buffer): Uint8Array;

  /** out[i] = expression(inputs[0][i], …); inputs are expanded to out's shape, or numbers. `out` may be one of the inputs. */
  pointwise(expression: string, out: View, inputs: readonly (View | number)[]): void;
  /** x [outer, n, inner] → out [outer, inner]; argmax gives the first index (int32) of the maximum, NaN counting as largest. */
  reduce(reduction: Reduction, out: View, x: View): void;
  /** out[…, i, j] = Σ_p a[…, i, p]·b[…, p, j]; a and b are expanded to out's batch axes; any may be bfloat16 or float16. */
  matmul(out: View, a: View, b: View): void;
  /** out[i] = table[ids[i]]; a negative id gives a row of zeros. table [V, D] of any float dtype, ids int32 [n], out [n, D]. */
  takeRows(out: View, table: View, ids: View): void;
  /** out[ids[i]] += rows[i] in ascending i; negative ids are skipped. out [V, D], rows [n, D]. */
  addRows(out: View, rows: View, ids: View): void;
  /** out[i] = x[i], converting the dtype; the shapes agree. */
  copy(out: View, x: View): void;
  fill(out: View, value: number): void;
  /** Element i depends on (seed, i) only; see random.ts. */
  random(distribution: Distribution, out: View, seed: number): void;
  /**
   * Optional one-pass kernels; each is defined by the composite of the same name in ops/. Inputs and out are contiguous, but the
   * heads of attention's k and v may lie apart (`rowsPerHead`), and inputs of ops named in `strided` lie anyhow.
   */
  readonly fused?: {
    readonly [N in KernelName]?: (out: View, inputs: readonly View[], attrs: OpAttrs[N]) => void;
  };
  /** Those of `fused` that take inputs of any strides; the others get copies of what is not contiguous. */
  readonly strided?: readonly KernelName[];
  /** Those of attention's kernels that read the rows of q and g, and write the result's, wherever strides put them. */
  readonly rowsAnywhere?: readonly KernelName[];
  /** Optional kernels that change arrays in place, each defined like those of `fused`. Views are contiguous, no two of one buffer. */
  readonly updates?: {
    readonly adamw?: (arrays: AdamWArrays<View>, numbers: AdamWNumbers) => void;
    readonly lookAtLogits?: (arrays: LogitsArrays<View>, numbers: LogitsNumbers) => void;
    /** out = out·factor + a·b of matrices, factor [m, 1] of any strides or null for 1. False, and nothing done, where it cannot. */
    readonly addMatmul?: (out: View, a: View, b: View, factor: View | null) => boolean;
  };
  /**
   * Compiles the kernels that `run` calls, without stopping the thread, for backends that would do so at their first call. Arrays stay as
   * they are: no kernel computes, and what `run` allocates holds anything. `run` is synchronous.
   */
  prepare?(run: () => void): Promise<void>;
  /** False where the kernels of `fused` and `updates` cannot take such arrays, inputs and result: composites then run. Absent where they take all. */
  fuses?(op: string, arrays: readonly Buffer[]): boolean;
}
