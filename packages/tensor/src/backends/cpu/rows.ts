import type { View } from "../../backend.ts";
import type { DType } from "../../dtype.ts";
import { IndexError } from "../../errors.ts";
import { sizeOf } from "../../layout.ts";
import { dataOf } from "../hostMemory.ts";
import { cached, compile, load, store } from "./generate.ts";

/** out[i] = table[ids[i]]; zeros for a negative id. */
export function takeRows(out: View, table: View, ids: View): void {
  const [count, width] = rowsOf(table);
  take(out.buffer.dtype, table.buffer.dtype)(
    dataOf(out.buffer),
    out.layout.offset,
    dataOf(table.buffer),
    table.layout.offset,
    checkedIds("takeRows", ids, count),
    width,
  );
}

/** out[ids[i]] += rows[i], in ascending i. */
export function addRows(out: View, rows: View, ids: View): void {
  const [count, width] = rowsOf(out);
  add(out.buffer.dtype, rows.buffer.dtype)(
    dataOf(out.buffer),
    out.layout.offset,
    dataOf(rows.buffer),
    rows.layout.offset,
    checkedIds("addRows", ids, count),
    width,
  );
}

const PARAMETERS = ["out", "outAt", "x", "xAt", "ids", "width"];

const take = cached((outDType, dtype) =>
  compile(
    PARAMETERS,
    `for (let i = 0; i < ids.length; i++, outAt += width) {
      const from = xAt + ids[i] * width;
      if (ids[i] < 0) out.fill(0, outAt, outAt + width);
      else for (let j = 0; j < width; j++) { ${store(outDType as DType, "out", "outAt + j", load(dtype as DType, "x", "from + j"))} }
    }`,
  ),
);

const add = cached((outDType, dtype) => {
  const sum = `${load(outDType as DType, "out", "to + j")} + ${load(dtype as DType, "x", "xAt + j")}`;
  return compile(
    PARAMETERS,
    `for (let i = 0; i < ids.length; i++, xAt += width) {
      const to = outAt + ids[i] * width;
      if (ids[i] >= 0) for (let j = 0; j < width; j++) { ${store(outDType as DType, "out", "to + j", sum)} }
    }`,
  );
});

/** Row numbers as the host sees them. Throws IndexError that names `op` for one that is not below `count`. */
export function checkedIds(op: string, { buffer, layout }: View, count: number): Int32Array {
  const ids = dataOf(buffer).subarray(layout.offset, layout.offset + layout.shape[0]!) as Int32Array;
  for (let i = 0; i < ids.length; i++)
    if (ids[i]! >= count) throw new IndexError(op, `ids must be below ${count}`, ids[i]!);
  return ids;
}

const rowsOf = ({ layout: { shape } }: View): [count: number, width: number] => [shape[0]!, sizeOf(shape.slice(1))];
