import { BackendError } from "../../../errors.ts";
import type { Engine } from "../engine.ts";
import { N_BLOCK, packedLength } from "./gemm.ts";
import { TILES, type TileName, leftPacker, multiplier } from "./tiles.ts";

/** Products of one turn of a tile: about a millisecond, or a few before the engine has compiled it to fast code. */
const TURN = 8;
/** Turns that a tile gets at least, and without getting faster, before it counts as compiled. */
const TURNS = 12;
const PATIENCE = 8;
const MOST_TURNS = 200;
/** What is gained by less is noise. */
const FASTER = 0.97;

/**
 * The fastest tile that multiplies right, on this engine and processor; all tiles compute the same bytes. Tiles take turns until none
 * gets faster any more: code that the engine has not optimised yet says nothing of what it will be.
 */
export function fastestTile(engine: Engine): TileName {
  const names = (Object.keys(TILES) as TileName[]).filter((name) => multipliesRight(engine, name));
  if (names.length === 0) throw new BackendError("wasm: a matrix product must agree with a scalar loop, none did");
  const times = names.map(() => Infinity);
  let since = 0;
  for (let turn = 0; turn < MOST_TURNS && (turn < TURNS || since < PATIENCE); turn++, since++) {
    names.forEach((name, i) => {
      const time = fastestOfTurn(engine, name);
      if (time < FASTER * times[i]!) since = 0;
      times[i] = Math.min(times[i]!, time);
    });
  }
  return names[times.indexOf(Math.min(...times))]!;
}

/** Milliseconds of the fastest of TURN products [48, 384] · [384, N_BLOCK]. */
function fastestOfTurn(engine: Engine, tile: TileName): number {
  let fastest = Infinity;
  withProduct(engine, tile, { m: 48, n: N_BLOCK, k: 384 }, (multiply) => {
    for (let i = 0; i < TURN; i++) {
      const started = performance.now();
      multiply();
      fastest = Math.min(fastest, performance.now() - started);
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
    const args = [packed, b, c, m, n, k, 4 * k, 4, 4 * n, blocks, m, 0];
    const definition = multiplier(tile, "float32", "alongK");
    use(() => engine.run(definition, "gemm", args, { items: blocks, work: 0 }), operands);
  });
}
