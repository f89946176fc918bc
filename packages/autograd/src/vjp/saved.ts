import {
  type OpName,
  type Operand,
  POINTWISE,
  type PointwiseName,
  type Source,
  type Tensor,
  isTracked,
} from "@neolog/tensor";
import { pointwiseReads } from "./pointwise.ts";
import type { Saved } from "./rule.ts";

/** The tensors among operands, attributes and result whose values the rule of an op reads; of all others it needs the shape alone. */
type Reads<N extends OpName> = (saved: Saved<N>) => readonly (Operand | null | false)[];

const nothing = (): [] => [];
const result = ({ y }: { readonly y: Tensor }): Tensor[] => [y];
const everything = ({ inputs }: { readonly inputs: readonly Operand[] }): readonly Operand[] => inputs;
const ids = ({ attrs }: { readonly attrs: { readonly ids: Tensor } }): Tensor[] => [attrs.ids];

/** x where its gradient is wanted or the weight's, the weight where that of x is. */
const norm = ({ inputs: [x, weight] }: { readonly inputs: readonly Operand[] }): (Operand | false)[] => [
  (isTracked(x!) || isTracked(weight!)) && x!,
  isTracked(x!) && weight!,
];

const pointwise =
  (op: PointwiseName): Reads<PointwiseName> =>
  (saved) =>
    pointwiseReads(op, saved);

const POINTWISE_SAVED = Object.fromEntries(
  Object.keys(POINTWISE).map((op) => [op, pointwise(op as PointwiseName)]),
) as { readonly [N in PointwiseName]: Reads<N> };

/** What every rule of VJP reads. An op without an entry does not compile. */
export const SAVED: { readonly [N in OpName]: Reads<N> } = {
  ...POINTWISE_SAVED,
  sum: nothing,
  max: ({ inputs, y }) => [...inputs, y],
  min: ({ inputs, y }) => [...inputs, y],
  matmul: ({ inputs: [a, b] }) => [isTracked(b!) && a!, isTracked(a!) && b!],
  takeRows: ids,
  scatterRows: ids,
  overriddenRows: ({ inputs: [table, , ids, slots] }) => [isTracked(table!) && ids!, slots!],
  overrideColumns: nothing,
  cast: nothing,
  contiguous: nothing,
  reshape: nothing,
  permute: nothing,
  expand: nothing,
  slice: nothing,
  cat: nothing,
  softmax: result,
  logSoftmax: result,
  layerNorm: norm,
  rmsNorm: norm,
  rope: ({ inputs: [x, cos, sin] }) => {
    const angles = isTracked(cos!) || isTracked(sin!);
    return [angles && x!, isTracked(x!) && cos!, isTracked(x!) && sin!];
  },
  attention: ({ inputs: [q, k, v, mask], attrs: { past } }) => [q!, past?.key ?? k!, past?.value ?? v!, mask!],
  crossEntropy: everything,
  linearCrossEntropy: ({ inputs: [hidden, weight, targets, rows], attrs: { hiddenGrad, rowsGrad, logSumExp } }) => {
    const later = rows !== undefined && !rowsGrad && isTracked(rows);
    const again = later || isTracked(weight!);
    return [
      hiddenGrad,
      rowsGrad,
      ...(again ? [hidden!, targets!, logSumExp] : []),
      isTracked(weight!) && weight!,
      later && rows,
    ];
  },
  checkpoint: everything,
};

/** The tensors whose values the gradient of y by its inputs reads. */
export function savedBy(y: Tensor, { op, inputs, attrs }: Source): Tensor[] {
  const reads = SAVED[op] as Reads<OpName>;
  return reads({ inputs, attrs, y }).filter((x) => typeof x === "object" && x !== null);
}
