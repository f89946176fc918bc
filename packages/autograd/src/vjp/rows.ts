import {
  type Tensor,
  greaterEqual,
  isTracked,
  overrideColumns,
  scatterRows,
  takeColumns,
  takeRows,
  where,
  zerosLike,
} from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const ROWS_VJP: {
  readonly takeRows: Vjp<"takeRows">;
  readonly scatterRows: Vjp<"scatterRows">;
  readonly overriddenRows: Vjp<"overriddenRows">;
  readonly overrideColumns: Vjp<"overrideColumns">;
} = {
  takeRows: ({ inputs, attrs: { ids } }, g) => [scatterRows(g, ids, (inputs[0] as Tensor).shape[0]!)],
  scatterRows: ({ attrs: { ids } }, g) => [takeRows(g, ids)],
  overriddenRows: ({ inputs }, g) => {
    const [table, rows, ids, slots] = inputs as readonly [Tensor, Tensor, Tensor, Tensor];
    const looked = isTracked(table) ? where(greaterEqual(slots, 0), -1, ids) : null;
    return [
      looked && scatterRows(g, looked, table.shape[0]!),
      isTracked(rows) ? scatterRows(g, slots, rows.shape[0]!) : null,
      null,
      null,
    ];
  },
  overrideColumns: ({ inputs, attrs: { columns } }, g) => {
    const [x, values] = inputs as readonly [Tensor, Tensor];
    return [
      x.tracked ? overrideColumns(g, zerosLike(values), columns) : null,
      values.tracked ? takeColumns(g, columns) : null,
    ];
  },
};
