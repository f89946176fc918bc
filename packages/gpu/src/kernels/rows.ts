import { type Buffer, type View, sizeOf } from "@neolog/tensor";
import { type Executor, type Kernel, type Parameter, array, int } from "../kernel.ts";

/** A kernel, and on WebGL2 the same for four elements of a row at a time. */
interface Pair {
  readonly plain: Kernel;
  readonly texels: Kernel;
}
const pair = (plain: Kernel, glsl: string): Pair => ({
  plain,
  texels: { ...plain, key: `${plain.key}, in texels`, glsl },
});

/** The one for rows of these arrays: in texels where each starts with one. */
function chosen({ mode }: Executor, { plain, texels }: Pair, width: number, arrays: readonly View[]): Kernel {
  const whole = [width, ...arrays.map(({ layout }) => layout.offset)].every((x) => x % 4 === 0);
  return mode === "webgl2" && whole ? texels : plain;
}

const fetch = (name: string, at: string): string => `fetch4(user_${name}, user_${name}Dim.y, ${at})`;
const whole = (name: string, at: string): string => `int(element(user_${name}, user_${name}Dim.y, ${at}))`;
const PLACE = "int row = first / user_width; int column = first % user_width;";

/** out[i] = table[ids[i]]; zeros for a negative id. */
export function takeRows(executor: Executor, out: View, table: View, ids: View): void {
  const width = sizeOf(table.layout.shape.slice(1));
  const args = [table.buffer, table.layout.offset, ids.buffer, ids.layout.offset, width];
  executor.run({ kernel: chosen(executor, TAKE_ROWS, width, [table]), args, out });
}

const TAKE_ROWS = pair(
  {
    key: "takeRows",
    parameters: [array("table"), int("offset"), array("ids"), int("idsOffset"), int("width")],
    body: `if (ids[idsOffset + idiv(this.thread.x, width)] < 0) { return 0; }
    return table[offset + integer(ids[idsOffset + idiv(this.thread.x, width)]) * width + imod(this.thread.x, width)];`,
  },
  `${PLACE}
  int id = ${whole("ids", "user_idsOffset + row")};
  vec4 x = ${fetch("table", "user_offset + max(id, 0) * user_width + column")};
  return id < 0 ? vec4(0.0) : x;`,
);

/** out[i] = rows[slots[i]] where slots[i] ≥ 0, else table[ids[i]]; zeros where both are negative. */
export function overriddenRows(executor: Executor, out: View, inputs: readonly View[]): void {
  const args = inputs.flatMap(({ buffer, layout }) => [buffer, layout.offset]);
  const width = out.layout.shape[1]!;
  executor.run({ kernel: chosen(executor, OVERRIDDEN_ROWS, width, inputs.slice(0, 2)), args: [...args, width], out });
}

const SLOT = "slots[slotsOffset + idiv(this.thread.x, width)]";
const ID = "ids[idsOffset + idiv(this.thread.x, width)]";
const OVERRIDDEN_ROWS = pair(
  {
    key: "overriddenRows",
    parameters: [
      ...["table", "rows", "ids", "slots"].flatMap((name) => [array(name), int(`${name}Offset`)]),
      int("width"),
    ],
    body: `if (${SLOT} >= 0) { return rows[rowsOffset + integer(${SLOT}) * width + imod(this.thread.x, width)]; }
    if (${ID} < 0) { return 0; }
    return table[tableOffset + integer(${ID}) * width + imod(this.thread.x, width)];`,
  },
  `${PLACE}
  int slot = ${whole("slots", "user_slotsOffset + row")};
  int id = ${whole("ids", "user_idsOffset + row")};
  vec4 own = ${fetch("rows", "user_rowsOffset + max(slot, 0) * user_width + column")};
  vec4 x = ${fetch("table", "user_tableOffset + max(id, 0) * user_width + column")};
  return slot >= 0 ? own : id < 0 ? vec4(0.0) : x;`,
);

/** x [..., n] with column columns[j] replaced by column j of values [..., k]. */
export function overrideColumns(executor: Executor, out: View, x: View, values: View, columns: Int32Array): void {
  const k = columns.length;
  const order = Int32Array.from(columns.keys()).toSorted((i, j) => columns[i]! - columns[j]!);
  const index = Int32Array.from({ length: 2 * k }, (_, i) => (i < k ? columns[order[i]!]! : order[i - k]!));
  const buffer = executor.allocate("int32", index.length);
  executor.write(buffer, index, 0);
  const operands = [x, values].flatMap((view) => [view.buffer, view.layout.offset]);
  const args = [...operands, buffer, k, Math.ceil(Math.log2(k + 1)), out.layout.shape.at(-1)!];
  executor.run({ kernel: OVERRIDE_COLUMNS, args, out });
  executor.free(buffer);
}

const COLUMN = "imod(this.thread.x, n)";
/** Finds the column among those that are replaced, which ascend, in `steps` halvings of what is left to search. */
const OVERRIDE_COLUMNS: Kernel = {
  key: "overrideColumns",
  parameters: [
    ...["x", "values"].flatMap((name) => [array(`${name}Data`), int(`${name}Offset`)]),
    array("index"),
    ...["k", "steps", "n"].map(int),
  ],
  body: `let low = 0;
    let left = k;
    for (let i = 0; i < steps; i++) {
      const half = Math.floor(left / 2);
      if (left > 0) {
        if (integer(index[integer(low + half)]) < ${COLUMN}) {
          low = low + half + 1;
          left = left - half - 1;
        } else {
          left = half;
        }
      }
    }
    if (low < k && integer(index[integer(low)]) === ${COLUMN}) {
      return valuesData[valuesOffset + idiv(this.thread.x, n) * k + integer(index[integer(k + low)])];
    }
    return xData[xOffset + this.thread.x];`,
};

/** out[r] = Σ rows[i] over all i with ids[i] = r, in ascending i. `known` as for `addRows`. */
export function scatterRows(executor: Executor, out: View, rows: View, ids: View, known: Int32Array | null): void {
  const [count, ...row] = out.layout.shape as [number, ...number[]];
  const operands = [rows.buffer, rows.layout.offset, sizeOf(row)];
  const n = ids.layout.shape[0]!;
  const kernel = chosen(executor, SUM_ROWS, sizeOf(row), [rows]);
  if (known) withIndex(executor, known, count, (index) => executor.run({ kernel, args: [...operands, ...index], out }));
  else executor.run({ kernel: SEARCH_AND_SUM_ROWS, args: [...operands, ids.buffer, ids.layout.offset, n], out });
}

/** Lends what `byRow` finds, and where `order` begins in it. */
function withIndex(executor: Executor, ids: Int32Array, count: number, use: (index: [Buffer, number]) => void): void {
  const { order, starts } = byRow(ids, count);
  const index = new Int32Array(starts.length + order.length);
  index.set(starts);
  index.set(order, starts.length);
  const buffer = executor.allocate("int32", index.length);
  executor.write(buffer, index, 0);
  use([buffer, starts.length]);
  executor.free(buffer);
}

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
  const kernel = chosen(executor, ADD_ROWS, width, [out, rows]);
  withIndex(executor, known, count, (index) => executor.run({ kernel, args: [...operands, ...index], out }));
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

const ROWS = [array("rows"), int("rowsOffset"), int("width")];
const OLD = [array("old"), int("offset")];
const HERE = { row: "idiv(this.thread.x, width)", column: "imod(this.thread.x, width)" };

/** Adds to an old one, where there is one. */
const summed = (key: string, old: boolean): Pair =>
  pair(
    {
      key,
      parameters: [...(old ? OLD : []), ...ROWS, array("index"), int("starts")],
      body: `let total = ${old ? "old[offset + this.thread.x]" : "0"};
    for (let i = 0; i < integer(index[${HERE.row} + 1]) - integer(index[${HERE.row}]); i++) {
      total += rows[rowsOffset + integer(index[starts + integer(index[${HERE.row}]) + i]) * width + ${HERE.column}];
    }
    return total;`,
    },
    `${PLACE}
  vec4 total = ${old ? fetch("old", "user_offset + first") : "vec4(0.0)"};
  int last = ${whole("index", "row + 1")};
  for (int i = ${whole("index", "row")}; i < last; i++) {
    total += ${fetch("rows", `user_rowsOffset + ${whole("index", "user_starts + i")} * user_width + column`)};
  }
  return total;`,
  );
const searched = (key: string, before: readonly Parameter[], first: string): Kernel => ({
  key,
  parameters: [...before, ...ROWS, array("ids"), int("idsOffset"), int("n")],
  body: `let total = ${first};
    for (let i = 0; i < n; i++) {
      if (integer(ids[idsOffset + i]) === ${HERE.row}) { total += rows[rowsOffset + i * width + ${HERE.column}]; }
    }
    return total;`,
});

const ADD_ROWS = summed("addRows", true);
const SUM_ROWS = summed("scatterRows", false);
const SEARCH_ROWS = searched("addRows, searching", OLD, "old[offset + this.thread.x]");
const SEARCH_AND_SUM_ROWS = searched("scatterRows, searching", [], "0");
