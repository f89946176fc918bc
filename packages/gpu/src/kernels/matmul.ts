import { type Shape, type View, collapse, contiguousLayout, expandLayout } from "@neolog/tensor";
import { type Executor, type Kernel, array, int } from "../kernel.ts";
import { cached } from "./cached.ts";
import { packedMatmul } from "../webgl2/matmul.ts";
import { coordinate } from "./pointwise.ts";

/** Products that are summed before they join the total: rounding grows with K / BLOCK + BLOCK, not with K. */
const BLOCK = 32;

/** out[…, i, j] = Σ_p a[…, i, p]·b[…, p, j], any strides, batches broadcast; the sum runs in ascending p. */
export function matmul(executor: Executor, out: View, a: View, b: View): void {
  const { shape } = out.layout;
  const [M, N] = shape.slice(-2) as [number, number];
  const K = a.layout.shape.at(-1)!;
  const batch = shape.slice(0, -2);
  const [aBatch, bBatch] = [a, b].map(({ layout }) => batchOf(layout, batch)) as [typeof a.layout, typeof b.layout];
  const nest = collapse(batch, [contiguousLayout(batch), aBatch, bBatch]);
  const sizes = [...nest.sizes, nest.n];
  const operand = ({ buffer, layout }: View, i: number) => {
    const strides = [...nest.strides[i]!, nest.steps[i]!];
    return [buffer, layout.offset, ...layout.strides.slice(-2), ...strides] as const;
  };
  const kernel = kernelOf(String(sizes.length));
  executor.run({
    kernel,
    args: [...operand(a, 1), ...operand(b, 2), K, Math.ceil(K / BLOCK), ...sizes.slice(1), M, N],
    out,
  });
}

const batchOf = (layout: View["layout"], batch: Shape): View["layout"] =>
  expandLayout(
    { shape: layout.shape.slice(0, -2), strides: layout.strides.slice(0, -2), offset: layout.offset },
    batch,
  );

const kernelOf = cached((rankText): Kernel => {
  const rank = Number(rankText);
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const parametersOf = (name: string) => [
    array(name),
    ...["Offset", "Row", "Column", ...axes.map((axis) => `Batch${axis}`)].map((suffix) => int(name + suffix)),
  ];
  const size = (axis: number): string => (axis < rank ? `size${axis}` : axis === rank ? "M" : "N");
  const at = (axis: number): string => coordinate(axis, rank + 2, size);
  const start = (name: string): string =>
    [`${name}Offset`, ...axes.map((axis) => `${at(axis)} * ${name}Batch${axis}`)].join(" + ");
  const p = `(block * ${BLOCK} + i)`;
  return {
    key: `matmul ${rank}`,
    parameters: [
      ...parametersOf("a"),
      ...parametersOf("b"),
      int("K"),
      int("blocks"),
      ...axes.slice(1).map((i) => int(`size${i}`)),
      int("M"),
      int("N"),
    ],
    body: `let total = 0;
      for (let block = 0; block < blocks; block++) {
        let part = 0;
        for (let i = 0; i < ${BLOCK}; i++) {
          if (block * ${BLOCK} + i < K) {
            part += a[${start("a")} + ${at(rank)} * aRow + ${p} * aColumn] * b[${start("b")} + ${p} * bRow + ${at(rank + 1)} * bColumn];
          }
        }
        total += part;
      }
      return total;`,
    glsl: packedMatmul(rank, BLOCK),
  };
});
