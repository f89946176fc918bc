import type { Engine } from "../engine.ts";

/** Rows of float32 in a memory, each contiguous, `rowStep` bytes apart. */
export interface Rows {
  readonly memory: number;
  readonly address: number;
  readonly rowStep: number;
  readonly rows: number;
  readonly columns: number;
}

/** Calls `use` with x where `memory` is: x itself, or a copy. */
export function readIn(engine: Engine, memory: number, x: Rows, use: (address: number, rowStep: number) => void): void {
  if (x.memory === memory) return use(x.address, x.rowStep);
  engine.withTemporary(memory, x.rows * x.columns, (address) => {
    const there = { ...x, memory, address, rowStep: 4 * x.columns };
    copyRows(engine, there, x);
    use(address, there.rowStep);
  });
}

/** Calls `use` with where to write rows of x in `memory`: x itself, or a temporary that is copied to x afterwards. */
export function writeIn(
  engine: Engine,
  memory: number,
  x: Rows,
  use: (address: number, rowStep: number) => void,
): void {
  if (x.memory === memory) return use(x.address, x.rowStep);
  engine.withTemporary(memory, x.rows * x.columns, (address) => {
    const there = { ...x, memory, address, rowStep: 4 * x.columns };
    use(address, there.rowStep);
    copyRows(engine, x, there);
  });
}

function copyRows(engine: Engine, to: Rows, from: Rows): void {
  const [target, source] = [to, from].map(({ memory }) => engine.heap.memories[memory]!.f32);
  for (let i = 0; i < from.rows; i++) {
    const start = (from.address + i * from.rowStep) / 4;
    target!.set(source!.subarray(start, start + from.columns), (to.address + i * to.rowStep) / 4);
  }
}
