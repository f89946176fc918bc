import { type Shape, type View, collapse, expandLayout } from "@neolog/tensor";
import type { FloatDType } from "./elements.ts";
import { type Operand, type Tile, matmul } from "./matmul.ts";
import { matmulAlone } from "./matmulAlone.ts";
import type { KernelStyle, TunedCall } from "./tunedKernel.ts";

/** Batch axes that the kernel walks, once axes that lie one in another are one. */
const BATCH_AXES = 3;

/** Elements of the result from which a workgroup's tile is 128×128: enough of them to occupy a large card. */
const LARGE = 1024 * 1024;

/**
 * The call for out = a·b, or out = out·factor + a·b where a factor [m, 1] is given; null where more than three batch axes are left: the
 * plain kernel's.
 */
export function matmulCall(out: View, a: View, b: View, style: KernelStyle, factor?: View): TunedCall | null {
  const batch = out.layout.shape.slice(0, -2);
  const nest = collapse(
    batch,
    [out, a, b].map(({ layout }) => batchOf(layout, batch)),
  );
  if (nest.sizes.length >= BATCH_AXES) return null;
  const missing = Array<number>(BATCH_AXES - 1 - nest.sizes.length).fill(0);
  const sizes = [...missing.map(() => 1), ...nest.sizes, nest.n] as [number, number, number];
  const [cSteps, aSteps, bSteps] = nest.strides.map((strides, i) => [...missing, ...strides, nest.steps[i]!]) as [
    number[],
    number[],
    number[],
  ];
  const [m, n] = out.layout.shape.slice(-2) as [number, number];
  const k = a.layout.shape.at(-1)!;
  const [cRow, cColumn] = out.layout.strides.slice(-2) as [number, number];
  const [aOuter, aInner] = a.layout.strides.slice(-2) as [number, number];
  const [bInner, bOuter] = b.layout.strides.slice(-2) as [number, number];
  const stores = cColumn === 1 && inFours([n, cRow, out.layout.offset, ...cSteps]);
  const variant = {
    a: operand(a, m, aOuter, aInner, k, aSteps),
    b: operand(b, n, bOuter, bInner, k, bSteps),
    stores,
    adds: factor !== undefined,
  };
  const kernel =
    style === "alone"
      ? matmulAlone(variant, m)
      : matmul({ ...variant, tile: tileFor(m, n, sizes[0] * sizes[1] * sizes[2]) });
  return {
    kernel,
    arrays: [a.buffer, b.buffer, ...(factor ? [factor.buffer] : [])],
    out: out.buffer,
    sizes: {
      m,
      n,
      k,
      d1: sizes[1],
      d2: sizes[2],
      batches: sizes[0] * sizes[1] * sizes[2],
      aAt: a.layout.offset,
      aOuter,
      aInner,
      a0: aSteps[0]!,
      a1: aSteps[1]!,
      a2: aSteps[2]!,
      bAt: b.layout.offset,
      bOuter,
      bInner,
      b0: bSteps[0]!,
      b1: bSteps[1]!,
      b2: bSteps[2]!,
      cAt: out.layout.offset,
      cRow,
      cColumn,
      c0: cSteps[0]!,
      c1: cSteps[1]!,
      c2: cSteps[2]!,
      ...(factor ? { factorAt: factor.layout.offset, factorRow: factor.layout.strides[0]! } : {}),
    },
  };
}

const inFours = (numbers: readonly number[]): boolean => numbers.every((x) => x % 4 === 0);

function operand(
  { buffer, layout }: View,
  size: number,
  outer: number,
  inner: number,
  k: number,
  steps: readonly number[],
): Operand {
  const dtype = buffer.dtype as FloatDType;
  if (inner === 1 && inFours([k, outer, layout.offset, ...steps])) return { dtype, vector: "inner" };
  if (outer === 1 && inFours([size, inner, layout.offset, ...steps])) return { dtype, vector: "outer" };
  return { dtype, vector: "none" };
}

/** The largest tile that leaves no more than half of itself empty and work for many workgroups. */
function tileFor(m: number, n: number, batches: number): Tile {
  if (m * n * batches >= LARGE && Math.min(m, n) > 64) return { threads: 16, register: 8 };
  if (Math.min(m, n) > 32) return { threads: 8, register: 8 };
  return { threads: 8, register: 4 };
}

const batchOf = (layout: View["layout"], batch: Shape): View["layout"] =>
  expandLayout(
    { shape: layout.shape.slice(0, -2), strides: layout.strides.slice(0, -2), offset: layout.offset },
    batch,
  );
