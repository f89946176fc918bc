import { BackendError } from "../../../errors.ts";
import type { Engine } from "../engine.ts";
import { K_BLOCK, N_BLOCK, packedLength } from "./gemm.ts";
import { TILES, type TileName, leftPacker, multiplier } from "./tiles.ts";

/** How long each tile is tried: the engine compiles it to fast code within the first half. */
const TRIAL_MS = 6;

/** The fastest tile that multiplies right, on this engine and processor; all tiles compute the same bytes. */
export function fastestTile(engine: Engine): TileName {
  const names = (Object.keys(TILES) as TileName[]).filter((name) => multipliesRight(engine, name));
  if (names.length === 0) throw new BackendError("wasm: a matrix product must agree with a scalar loop, none did");
  const times = names.map((name) => trial(engine, name));
  return names[times.indexOf(Math.min(...times))]!;
}

/** Milliseconds of the fastest of many products [48, K_BLOCK] · [K_BLOCK, N_BLOCK]. */
function trial(engine: Engine, tile: TileName): number {
  let fastest = Infinity;
  withProduct(engine, tile, { m: 48, n: N_BLOCK, k: K_BLOCK }, (multiply) => {
    const started = performance.now();
    for (let now = started; now - started < TRIAL_MS;) {
      multiply();
      const after = performance.now();
      fastest = Math.min(fastest, after - now);
      now = after;
    }
  });
  return fastest;
}

/** Compares a product whose sizes fit no tile with float64 arithmetic. */
function multipliesRight(engine: Engine, tile: TileName): boolean {
  const sizes = { m: 7, n: 37, k: 11 };
  let right = true;
  withProduct(engine, tile, sizes, (multiply, { a, b, c }) => {
    multiply();
    for (let i = 0; i < sizes.m; i++) {
      for (let j = 0; j < sizes.n; j++) {
        let sum = 0;
        for (let p = 0; p < sizes.k; p++) sum += a[i * sizes.k + p]! * b[j * sizes.k + p]!;
        if (!(Math.abs(c[i * sizes.n + j]! - sum) < 1e-5)) right = false;
      }
    }
  });
  return right;
}

interface Operands {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly c: Float32Array;
}

/** Puts a [m, k] and b [n, k] of ordinary numbers into memory, with a function that computes c = a·bᵀ on this thread. */
function withProduct(
  engine: Engine,
  tile: TileName,
  { m, n, k }: { m: number; n: number; k: number },
  use: (multiply: () => void, operands: Operands) => void,
): void {
  const { rows } = TILES[tile];
  const length = packedLength(TILES[tile], m, k);
  engine.withTemporary(0, m * k + n * k + m * n + length, (a) => {
    const b = a + 4 * m * k;
    const c = b + 4 * n * k;
    const packed = c + 4 * m * n;
    const { f32 } = engine.heap.memories[0]!;
    const view = (address: number, size: number): Float32Array => f32.subarray(address / 4, address / 4 + size);
    const operands = { a: view(a, m * k), b: view(b, n * k), c: view(c, m * n) };
    for (const x of [operands.a, operands.b]) for (let i = 0; i < x.length; i++) x[i] = Math.sin(1 + i);
    engine.run(leftPacker(tile, "float32", "alongK"), "packLeft", [packed, a, 4 * k, 4, m, k], {
      items: Math.ceil(m / rows),
      work: 0,
    });
    const blocks = Math.ceil(n / N_BLOCK);
    const args = [packed, b, c, m, n, k, 4 * k, 4, 4 * n, blocks, m];
    const definition = multiplier(tile, "float32", "alongK");
    use(() => engine.run(definition, "gemm", args, { items: blocks, work: 0 }), operands);
  });
}
