import type { View } from "../../../backend.ts";
import { collapse } from "../../cpu/strided.ts";
import { type Expr, add, at, i32, load, mul, op, shuffle, smaller, sub } from "../asm/expression.ts";
import type { FunctionBuilder, Local } from "../asm/function.ts";
import { type Engine, type ModuleDefinition, addressOf, memoryOf } from "../engine.ts";
import { forEachIndex } from "../loops.ts";

/** Rows of `out` that are written side by side: a cache line of x. */
const BAND = 16;

/**
 * out[…, i, j] = x[…, j, i] for elements of four bytes that lie next to each other along j in `out` and along i in x; true when done,
 * false where the views lie otherwise or have no four by four elements.
 */
export function transpose(engine: Engine, out: View, x: View): boolean {
  if (memoryOf(out) !== memoryOf(x)) return false;
  const nest = collapse(out.layout.shape, [out.layout, x.layout]);
  const sizes = [...nest.sizes, nest.n];
  const [outStrides, xStrides] = nest.strides.map((strides, i) => [...strides, nest.steps[i]!]) as [number[], number[]];
  const [column, row] = [outStrides.indexOf(1), xStrides.indexOf(1)];
  if (column < 0 || row < 0 || column === row) return false;
  const [rows, columns] = [sizes[row]!, sizes[column]!];
  if (rows < 4 || columns < 4) return false;
  const batch = sizes.map((_, axis) => axis).filter((axis) => axis !== row && axis !== column);
  const bands = Math.ceil(rows / BAND);
  const args = [addressOf(out), addressOf(x), rows, columns, 4 * outStrides[row]!, 4 * xStrides[column]!, bands];
  for (const axis of batch) args.push(sizes[axis]!, 4 * outStrides[axis]!, 4 * xStrides[axis]!);
  const items = batch.reduce((product, axis) => product * sizes[axis]!, bands);
  engine.run(definitionFor(batch.length), "transpose", args, {
    items,
    work: 2 * Math.min(rows, BAND) * columns,
    memory: memoryOf(out),
  });
  return true;
}

const definitions: ModuleDefinition[] = [];

/** The kernel for this many axes around the matrix. */
function definitionFor(batchAxes: number): ModuleDefinition {
  return (definitions[batchAxes] ??= {
    build(m) {
      const axes = Array.from({ length: batchAxes }, (_, axis) => axis);
      const names = axes.flatMap((axis) => [`size${axis}`, `out${axis}`, `x${axis}`]);
      const params = ["out", "x", "rows", "columns", "outStep", "xStep", "bands", ...names];
      m.kernel(
        "transpose",
        Object.fromEntries(params.map((name): [string, "i32"] => [name, "i32"])),
        (f, { from, to, ...given }) => {
          const local = (name: string): Local => given[name]!;
          const [rows, columns, outStep, xStep] = ["rows", "columns", "outStep", "xStep"].map(local) as [
            Local,
            Local,
            Local,
            Local,
          ];
          const along = (name: string, band: Expr) => ({
            start: local(name),
            strides: [...axes.map((axis) => local(`${name}${axis}`)), f.local("i32", band)],
          });
          const [out, x] = [along("out", mul(outStep, BAND)), along("x", i32(4 * BAND))];
          forEachIndex(
            f,
            [out, x],
            [...axes.map((axis) => local(`size${axis}`)), local("bands")],
            [from, to],
            (index) => {
              const height = f.local("i32", smaller(f.local("i32", sub(rows, mul(index.at(-1)!, BAND))), i32(BAND)));
              transposeBand(f, out.start, x.start, { height, columns, outStep, xStep });
            },
          );
        },
      );
    },
  });
}

interface Band {
  readonly height: Local;
  readonly columns: Local;
  /** Bytes from row to row of `out`, and from column to column of x. */
  readonly outStep: Local;
  readonly xStep: Local;
}

/** Up to BAND rows of `out`: by blocks of four by four, the rest element by element. */
function transposeBand(f: FunctionBuilder, out: Local, x: Local, { height, columns, outStep, xStep }: Band): void {
  const [r, c] = [f.local("i32"), f.local("i32")];
  const fullRows = f.local("i32", op("i32.and", height, -4));
  const fullColumns = f.local("i32", op("i32.and", columns, -4));
  f.for(c, 0, fullColumns, 4, () => {
    const p = f.local("i32", at(x, c, xStep));
    const q = f.local("i32", at(out, c, 4));
    f.for(r, 0, fullRows, 4, () => {
      const from = f.local("i32", p);
      const block = [0, 1, 2, 3].map(() => {
        const four = f.local("v128", load("v128.load", from));
        f.advance(from, xStep);
        return four;
      });
      for (const four of turned(f, block)) {
        f.store("v128.store", q, four);
        f.advance(q, outStep);
      }
      f.advance(p, 16);
    });
  });
  const move = (): void => {
    f.store("i32.store", add(at(out, r, outStep), mul(c, 4)), load("i32.load", add(at(x, c, xStep), mul(r, 4))));
  };
  f.for(c, fullColumns, columns, 1, () => f.for(r, 0, fullRows, 1, move));
  f.for(r, fullRows, height, 1, () => f.for(c, 0, columns, 1, move));
}

/** The columns of four rows of four. */
function turned(f: FunctionBuilder, [a, b, c, d]: readonly Local[]): Local[] {
  const pair = (x: Local, y: Local, ...lanes: [number, number, number, number]): Local =>
    f.local("v128", shuffle(x, y, ...lanes));
  const [lowAB, lowCD] = [pair(a!, b!, 0, 4, 1, 5), pair(c!, d!, 0, 4, 1, 5)];
  const [highAB, highCD] = [pair(a!, b!, 2, 6, 3, 7), pair(c!, d!, 2, 6, 3, 7)];
  return [
    pair(lowAB, lowCD, 0, 1, 4, 5),
    pair(lowAB, lowCD, 2, 3, 6, 7),
    pair(highAB, highCD, 0, 1, 4, 5),
    pair(highAB, highCD, 2, 3, 6, 7),
  ];
}
