import {
  type Buffer,
  type Shape,
  type View,
  collapse,
  contiguousLayout,
  expandLayout,
  isContiguous,
  sizeOf,
} from "@neolog/tensor";
import { type Executor, type Kernel, array, int } from "../kernel.ts";
import { cached } from "./cached.ts";
import { LOOK_UP, ROW_BY_ROW, interleaved, type Packed, packedFor, packedMatmul } from "../webgl2/matmul.ts";
import { coordinate } from "./pointwise.ts";

/** Products that are summed before they join the total: rounding grows with K / BLOCK + BLOCK, not with K. */
const BLOCK = 32;

/** out[…, i, j] = Σ_p a[…, i, p]·b[…, p, j], any strides, batches broadcast; the sum runs in ascending p. */
export function matmul(executor: Executor, out: View, a: View, b: View): void {
  const { kernel, args, byRows, length, M, N } = productOf(executor, out, a, b);
  if (!byRows) return executor.run({ kernel, args, out });
  inFours(executor, { kernel, args, length }, (rows) =>
    executor.run({
      kernel: N % 4 === 0 ? INTERLEAVE : INTERLEAVE_RAGGED,
      args: [...rows, Math.ceil(M / 4), M, N],
      out,
    }),
  );
}

/** out = out·factor + a·b on WebGL2, factor [M, 1] of any strides. False, and nothing done, where texels do not allow it in that many passes. */
export function addMatmul(executor: Executor, out: View, a: View, b: View, factor: View): boolean {
  const { buffer, layout } = out;
  const { kernel, args, byRows, length, M, N } = productOf(executor, out, a, b);
  if (!byRows || N % 4 !== 0 || layout.shape.length !== 2 || !isContiguous(layout) || layout.offset % 4 !== 0)
    return false;
  const old = [buffer, layout.offset, factor.buffer, factor.layout.offset, factor.layout.strides[0]!];
  inFours(executor, { kernel, args, length }, (rows) =>
    executor.run({ kernel: INTERLEAVE_AND_ADD, args: [...rows, Math.ceil(M / 4), M, N, ...old], out }),
  );
  return true;
}

/** Lends four arrays that hold what the kernel gives. */
function inFours(
  executor: Executor,
  { kernel, args, length }: { readonly kernel: Kernel; readonly args: Args; readonly length: number },
  use: (rows: readonly Buffer[]) => void,
): void {
  const rows = [0, 1, 2, 3].map(() => executor.allocate("float32", length));
  executor.runRows!(kernel, args, rows);
  use(rows);
  for (const buffer of rows) executor.free(buffer);
}
type Args = Parameters<Executor["run"]>[0]["args"];

/** The kernel for a product; `byRows` where it gives rows in four arrays of `length`. */
function productOf(executor: Executor, out: View, a: View, b: View) {
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
  const operands = [...operand(a, 1), ...operand(b, 2)];
  const packed = executor.runRows ? packedOf(a, b, nest, [M, N, K]) : null;
  const way = packed ? [String(packed.rows), packed.a, packed.b, packed.ragged ? "ragged" : ""] : [];
  const columns = packed ? 4 * Math.ceil(N / 4) : N;
  return {
    kernel: kernelOf(String(sizes.length), ...way),
    args: [...operands, K, Math.ceil(K / BLOCK), ...sizes.slice(1), M, columns],
    byRows: packed?.rows === 4,
    length: sizeOf(batch) * Math.ceil(M / 4) * columns,
    M,
    N,
  };
}

function packedOf(
  a: View,
  b: View,
  nest: ReturnType<typeof collapse>,
  [M, N, K]: readonly [number, number, number],
): Packed | null {
  const others = ({ layout }: View, i: number): number[] => [layout.offset, ...nest.strides[i]!, nest.steps[i]!];
  const [aRow, aColumn] = a.layout.strides.slice(-2) as [number, number];
  const [bRow, bColumn] = b.layout.strides.slice(-2) as [number, number];
  const batches = nest.sizes.reduce((n, size) => n * size, nest.n);
  return packedFor({ batches, M, N, K, aRow, aColumn, aOthers: others(a, 1), bRow, bColumn, bOthers: others(b, 2) });
}

const batchOf = (layout: View["layout"], batch: Shape): View["layout"] =>
  expandLayout(
    { shape: layout.shape.slice(0, -2), strides: layout.strides.slice(0, -2), offset: layout.offset },
    batch,
  );

const kernelOf = cached((rankText, rows, a, b, ragged): Kernel => {
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
    key: ["matmul", rank, rows, a, b, ragged].filter((x) => x !== undefined).join(" "),
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
    ...(rows === undefined
      ? {}
      : {
          [rows === "4" ? "glslRows" : "glsl"]: packedMatmul(
            { rows: Number(rows), a, b, ragged: ragged !== "" } as Packed,
            rank,
            BLOCK,
          ),
        }),
  };
});

const FROM =
  "(idiv(this.thread.x, M * N) * groups + idiv(imod(idiv(this.thread.x, N), M), 4)) * N + imod(this.thread.x, N)";
const ROW = "imod(imod(idiv(this.thread.x, N), M), 4)";

/** A product [.., M, N] whose rows lie in four arrays [.., groups, N] in turn. */
const INTERLEAVE: Kernel = {
  key: "interleave",
  parameters: [...["x0", "x1", "x2", "x3"].map(array), int("groups"), int("M"), int("N")],
  body: `${[0, 1, 2].map((row) => `if (${ROW} < ${row + 1}) { return x${row}[${FROM}]; }`).join(" ")} return x3[${FROM}];`,
  glsl: interleaved(),
};

const INTERLEAVE_RAGGED: Kernel = {
  ...INTERLEAVE,
  key: "interleave ragged",
  body: "return 0;",
  glsl: ROW_BY_ROW,
  glslFunctions: LOOK_UP,
};

/** INTERLEAVE beside what was there, times a number for each row. */
const INTERLEAVE_AND_ADD: Kernel = {
  key: "interleave and add",
  parameters: [
    ...INTERLEAVE.parameters,
    array("old"),
    int("oldAt"),
    array("factor"),
    ...["factorAt", "factorRow"].map(int),
  ],
  body: "return 0;",
  glsl: interleaved(
    "fetch4(user_old, user_oldDim.y, user_oldAt + first) * element(user_factor, user_factorDim.y, user_factorAt + row * user_factorRow) + x",
  ),
};
