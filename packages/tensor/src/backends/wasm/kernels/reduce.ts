import type { Reduction, View } from "../../../backend.ts";
import { type Engine, addressOf, isLocalFloat32, memoryOf } from "../engine.ts";
import { COLUMNS, MOST_COLUMNS } from "./reduceColumns.ts";
import { CHUNK, ROWS } from "./reduceRows.ts";

/** Rows longer than this, and fewer than FEW, are shared among threads in chunks. */
const LONG = 1 << 17;
const FEW = 8;

/** x [outer, n, inner] → out [outer, inner]; true when done, false where no SIMD kernel fits. */
export function reduce(engine: Engine, reduction: Reduction, out: View, x: View): boolean {
  const [outer, n, inner] = x.layout.shape as [number, number, number];
  if (!isLocalFloat32(x) || memoryOf(out) !== 0) return false;
  if (outer * inner === 0) return true;
  if (inner === 1) alongRows(engine, reduction, addressOf(out), addressOf(x), [outer, n]);
  else if (reduction === "argmax") return false;
  else alongColumns(engine, reduction, [addressOf(out), addressOf(x)], [outer, n, inner]);
  return true;
}

function alongRows(engine: Engine, reduction: Reduction, out: number, x: number, [outer, n]: [number, number]): void {
  if (outer >= FEW || n < LONG || reduction === "argmax") {
    engine.run(ROWS, reduction, [out, x, n], { items: outer, work: n });
    return;
  }
  const chunks = Math.ceil(n / CHUNK);
  // a chunk leaves a float64 where it sums, a float32 else
  engine.withTemporary(0, 2 * outer * chunks, (partial) => {
    engine.run(ROWS, `${reduction} of chunks`, [partial, x, n, chunks], { items: outer * chunks, work: CHUNK });
    if (reduction === "sum") engine.run(ROWS, "total", [out, partial, chunks], { items: outer, work: chunks });
    else engine.run(ROWS, reduction, [out, partial, chunks], { items: outer, work: chunks });
  });
}

function alongColumns(
  engine: Engine,
  reduction: Reduction,
  addresses: readonly number[],
  [outer, n, inner]: readonly [number, number, number],
): void {
  const fair = Math.ceil(inner / (64 * engine.pool.threads)) * 64;
  const columns = Math.min(MOST_COLUMNS, outer < engine.pool.threads ? fair : inner);
  const blocks = Math.ceil(inner / columns);
  const items = outer * blocks;
  engine.run(COLUMNS, reduction, [...addresses, n, inner, columns, blocks], { items, work: n * columns });
}
