import { type View, sizeOf } from "@neolog/tensor";
import { type Executor, type Kernel, array, int } from "../kernel.ts";

/** out[i] = table[ids[i]]; zeros for a negative id. */
export function takeRows(executor: Executor, out: View, table: View, ids: View): void {
  const width = sizeOf(table.layout.shape.slice(1));
  const args = [table.buffer, table.layout.offset, ids.buffer, ids.layout.offset, width];
  executor.run({ kernel: TAKE_ROWS, args, out });
}

const TAKE_ROWS: Kernel = {
  key: "takeRows",
  parameters: [array("table"), int("offset"), array("ids"), int("idsOffset"), int("width")],
  body: `if (ids[idsOffset + idiv(this.thread.x, width)] < 0) { return 0; }
    return table[offset + integer(ids[idsOffset + idiv(this.thread.x, width)]) * width + imod(this.thread.x, width)];`,
};

/** out[ids[i]] += rows[i] in ascending i. `known` are the ids where the host has them: rows are then looked up, not searched for. */
export function addRows(executor: Executor, out: View, rows: View, ids: View, known: Int32Array | null): void {
  const [count, ...row] = out.layout.shape as [number, ...number[]];
  const width = sizeOf(row);
  const n = ids.layout.shape[0]!;
  const operands = [out.buffer, out.layout.offset, rows.buffer, rows.layout.offset, width];
  if (!known) {
    executor.run({ kernel: SEARCH_ROWS, args: [...operands, ids.buffer, ids.layout.offset, n], out });
    return;
  }
  const { order, starts } = byRow(known, count);
  const buffer = executor.allocate("int32", starts.length + order.length);
  executor.write(buffer, starts, 0);
  if (order.length > 0) executor.write(buffer, order, starts.length);
  executor.run({ kernel: ADD_ROWS, args: [...operands, buffer, starts.length], out });
  executor.free(buffer);
}

/** For each row r the positions order[starts[r]] … order[starts[r + 1] − 1] at which r is named, ascending. */
export function byRow(ids: Int32Array, count: number): { readonly order: Int32Array; readonly starts: Int32Array } {
  const starts = new Int32Array(count + 1);
  for (const id of ids) if (id >= 0) starts[id + 1]!++;
  for (let r = 0; r < count; r++) starts[r + 1]! += starts[r]!;
  const next = starts.slice(0, count);
  const order = new Int32Array(starts[count]!);
  ids.forEach((id, i) => {
    if (id >= 0) order[next[id]!++] = i;
  });
  return { order, starts };
}

const OPERANDS = [array("old"), int("offset"), array("rows"), int("rowsOffset"), int("width")];
const HERE = { row: "idiv(this.thread.x, width)", column: "imod(this.thread.x, width)" };

const ADD_ROWS: Kernel = {
  key: "addRows",
  parameters: [...OPERANDS, array("index"), int("starts")],
  body: `let total = old[offset + this.thread.x];
    for (let i = 0; i < integer(index[${HERE.row} + 1]) - integer(index[${HERE.row}]); i++) {
      total += rows[rowsOffset + integer(index[starts + integer(index[${HERE.row}]) + i]) * width + ${HERE.column}];
    }
    return total;`,
};

const SEARCH_ROWS: Kernel = {
  key: "addRows, searching",
  parameters: [...OPERANDS, array("ids"), int("idsOffset"), int("n")],
  body: `let total = old[offset + this.thread.x];
    for (let i = 0; i < n; i++) {
      if (integer(ids[idsOffset + i]) === ${HERE.row}) { total += rows[rowsOffset + i * width + ${HERE.column}]; }
    }
    return total;`,
};
