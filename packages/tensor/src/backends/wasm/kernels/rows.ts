import type { View } from "../../../backend.ts";
import { BYTES_PER_ELEMENT } from "../../../dtype.ts";
import { contiguousLayout, sizeOf } from "../../../layout.ts";
import * as plain from "../../cpu/index.ts";
import { dataOf } from "../../hostMemory.ts";
import { add, at, i32, load, mul, op, sub } from "../asm/expression.ts";
import { type Engine, type ModuleDefinition, addressOf, isLocalFloat32, memoryOf } from "../engine.ts";
import { Vectors } from "../vectors.ts";
import { convertRun, copy } from "./copy.ts";

/** Elements of rows from another memory that are staged at a time. */
const STAGED = 1 << 20;

/** out[i] = table[ids[i]]; true when done, false where no SIMD kernel fits. */
export function takeRows(engine: Engine, out: View, table: View, ids: View): boolean {
  const [count, width] = rowsOf(table);
  const { dtype } = table.buffer;
  const kernel =
    out.buffer.dtype === dtype && BYTES_PER_ELEMENT[dtype] === 4 ? "words" : `${dtype} ${out.buffer.dtype}`;
  if (!TAKES.includes(kernel) || memoryOf(out) !== 0) return false;
  const checked = plain.checkedIds("takeRows", ids, count);
  if (memoryOf(table) !== 0 || memoryOf(ids) !== 0) {
    takeStaged(engine, out, table, checked, width);
    return true;
  }
  const args = [addressOf(out), addressOf(table), addressOf(ids), width];
  engine.run(ROWS, kernel, args, { items: checked.length, work: width });
  return true;
}

/** The same where the table lies in another memory: rows come over as they are stored, some at a time. */
function takeStaged(engine: Engine, out: View, table: View, ids: Int32Array, width: number): void {
  const rows = Math.max(1, Math.min(ids.length, Math.floor(STAGED / Math.max(1, width))));
  const buffer = engine.heap.allocateIn(0, table.buffer.dtype, rows * width);
  const [staged, stored] = [dataOf(buffer), dataOf(table.buffer)];
  try {
    for (let first = 0; first < ids.length; first += rows) {
      const here = ids.subarray(first, first + rows);
      here.forEach((id, i) => {
        const from = table.layout.offset + id * width;
        if (id < 0) staged.fill(0, i * width, (i + 1) * width);
        else staged.set(stored.subarray(from, from + width), i * width);
      });
      const layout = contiguousLayout([here.length * width]);
      copy(
        engine,
        { buffer: out.buffer, layout: { ...layout, offset: out.layout.offset + first * width } },
        { buffer, layout },
      );
    }
  } finally {
    engine.heap.free(buffer);
  }
}

/** out[ids[i]] += rows[i], in ascending i; true when done, false where no SIMD kernel fits. */
export function addRows(engine: Engine, out: View, rows: View, ids: View): boolean {
  if (!isLocalFloat32(out) || !isLocalFloat32(rows) || memoryOf(ids) !== 0) return false;
  const [count, width] = rowsOf(out);
  const { length } = plain.checkedIds("addRows", ids, count);
  const args = [addressOf(out), addressOf(rows), addressOf(ids), width, length];
  // two pieces a thread: shorter ones read rows at a third of the speed
  const grain = 16 * Math.ceil(width / (32 * engine.pool.threads));
  engine.run(ROWS, "add", args, { items: width, work: length, grain });
  return true;
}

const rowsOf = ({ layout: { shape } }: View): [count: number, width: number] => [shape[0]!, sizeOf(shape.slice(1))];

/** Kernels of takeRows: elements of four bytes as they are, or a conversion of copy.ts. */
const TAKES: readonly string[] = ["words", "bfloat16 float32", "float16 float32"];

const ROWS: ModuleDefinition = {
  build(m, { madd }) {
    for (const name of TAKES) {
      m.kernel(
        name,
        { out: "i32", table: "i32", ids: "i32", width: "i32" },
        (f, { out, table, ids, width, from, to }) => {
          const v = new Vectors(f, 4, madd);
          const bytes = f.local("i32", mul(width, name === "words" ? 4 : 2));
          const item = f.local("i32");
          f.for(item, from, to, 1, () => {
            const y = f.local("i32", at(out, item, mul(width, 4)));
            const end = f.local("i32", add(y, mul(width, 4)));
            const id = f.local("i32", load("i32.load", at(ids, item, 4)));
            const x = f.local("i32", at(table, id, bytes));
            f.if(
              op("i32.lt_s", id, 0),
              () => v.walk(y, end, [], (u) => u.store(y, u.zeros())),
              () => {
                if (name === "words") v.walk(y, end, [x], (u) => u.store(y, u.load(x)));
                else convertRun(f, name, { out: y, x, from: f.local("i32", i32(0)), to: width });
              },
            );
          });
        },
      );
    }
    // items are columns: threads never meet in an element, whatever the ids
    m.kernel(
      "add",
      { out: "i32", rows: "i32", ids: "i32", width: "i32", count: "i32" },
      (f, { out, rows, ids, width, count, from, to }) => {
        const v = new Vectors(f, 4, madd);
        const bytes = f.local("i32", mul(sub(to, from), 4));
        const row = f.local("i32");
        f.for(row, 0, count, 1, () => {
          const id = f.local("i32", load("i32.load", at(ids, row, 4)));
          f.if(op("i32.ge_s", id, 0), () => {
            const y = f.local("i32", at(out, add(mul(id, width), from), 4));
            const x = f.local("i32", at(rows, add(mul(row, width), from), 4));
            v.walk(y, f.local("i32", add(y, bytes)), [x], (u) => u.store(y, u.add(u.load(y), u.load(x))));
          });
        });
      },
    );
  },
};
