import { type Tensor, overrideColumns, scatterRows, takeColumns, takeRows, zerosLike } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

export const ROWS_VJP: {
  readonly takeRows: Vjp<"takeRows">;
  readonly scatterRows: Vjp<"scatterRows">;
  readonly overrideColumns: Vjp<"overrideColumns">;
} = {
  takeRows: ({ inputs, attrs: { ids } }, g) => [scatterRows(g, ids, (inputs[0] as Tensor).shape[0]!)],
  scatterRows: ({ attrs: { ids } }, g) => [takeRows(g, ids)],
  overrideColumns: ({ inputs, attrs: { columns } }, g) => {
    const [x, values] = inputs as readonly [Tensor, Tensor];
    return [
      x.tracked ? overrideColumns(g, zerosLike(values), columns) : null,
      values.tracked ? takeColumns(g, columns) : null,
    ];
  },
};
