import { type Element, type FloatDType, fours, scalars } from "./elements.ts";
import type { TunedKernel } from "./tunedKernel.ts";

/** The axis of an operand that is read four elements at a time: the product's row or column, the inner one, or none. */
export type Vector = "outer" | "inner" | "none";

export interface Operand {
  readonly dtype: FloatDType;
  /** Fours need step 1 along the axis, its size and every other step and start multiples of 4. */
  readonly vector: Vector;
}

/** A thread computes register×register elements, a workgroup threads×threads of such blocks. */
export interface Tile {
  readonly threads: 8 | 16;
  readonly register: 4 | 8;
}

export interface Product {
  readonly a: Operand;
  readonly b: Operand;
  /** True where four elements of a row are stored at once: step 1, sizes, steps and starts multiples of 4. */
  readonly stores: boolean;
  /** True where the product joins what c was, times a factor for each row: c = c·factor + a·b. Without batches. */
  readonly adds?: boolean | undefined;
}

export interface MatmulVariant extends Product {
  readonly tile: Tile;
}

/** Steps of the inner axis that lie in workgroup memory at a time: 16 KiB of both operands for the largest tile. */
const INNER = 16;

const operandArguments = (x: string): string[] => [`${x}At`, `${x}Outer`, `${x}Inner`, `${x}0`, `${x}1`, `${x}2`];

const INTEGERS = ["m", "n", "k", "d1", "d2", ...operandArguments("a"), ...operandArguments("b")].concat([
  "cAt",
  "cRow",
  "cColumn",
  "c0",
  "c1",
  "c2",
]);

/** What a product reads and writes, its operands by these elements; a kernel that `adds` reads a factor for each row beside. */
export const signatureOf = (
  { stores, adds }: Pick<Product, "stores" | "adds">,
  a: Element,
  b: Element,
): Pick<TunedKernel, "arrays" | "result" | "integers" | "floats"> => ({
  arrays: [
    { name: "a", element: a },
    { name: "b", element: b },
    ...(adds ? [{ name: "factor", element: "f32" as const }] : []),
  ],
  result: stores ? "vec4<f32>" : "f32",
  integers: adds ? [...INTEGERS, "factorAt", "factorRow"] : INTEGERS,
  floats: [],
});

/** What is stored at index `at` of c, in this row. */
export const storedValue = (adds: boolean | undefined, at: string, row: string, value: string): string =>
  adds ? `result[${at}] * factor[params.factorAt + (${row}) * params.factorRow] + ${value}` : value;

/**
 * c = a·b by register tiles over workgroup memory. a [d0, d1, d2, m, k], b [d0, d1, d2, k, n], c [d0, d1, d2, m, n] by steps: element
 * (i, p) of a is at aAt + batch + i·aOuter + p·aInner, (p, j) of b at bAt + batch + j·bOuter + p·bInner. Every element is one
 * sum in ascending order of the inner axis, whatever the tile.
 */
export function matmul({ a, b, stores, adds, tile }: MatmulVariant): TunedKernel {
  const size = tile.threads * tile.register;
  const lanes = tile.threads * tile.threads;
  const loads = [operand("a", a, "m"), operand("b", b, "n")] as const;
  return {
    key: [
      "matmul",
      a.dtype,
      a.vector,
      b.dtype,
      b.vector,
      stores ? "fours" : "ones",
      size,
      ...(adds ? ["adds"] : []),
    ].join(":"),
    ...signatureOf({ stores, adds }, loads[0].element, loads[1].element),
    workgroup: [lanes, 1, 1],
    declarations: [
      ...loads.map((load) => load.declaration),
      `var<workgroup> a_tile : array<vec4<f32>, ${(INNER * size) / 4}>;`,
      `var<workgroup> b_tile : array<vec4<f32>, ${(INNER * size) / 4}>;`,
    ].join("\n"),
    body: bodyOf({ a, b, stores, adds, tile }),
    groups: ({ m, n, batches }) => [Math.ceil(n! / size), Math.ceil(m! / size), batches!],
  };
}

/** Where the operands and the result of the workgroup's batch begin. */
export const STARTS = `
  let batch = i32(group.z);
  let i0 = batch / (params.d1 * params.d2);
  let i1 = batch / params.d2 % params.d1;
  let i2 = batch % params.d2;
  let a_start = params.aAt + i0 * params.a0 + i1 * params.a1 + i2 * params.a2;
  let b_start = params.bAt + i0 * params.b0 + i1 * params.b1 + i2 * params.b2;
  let c_start = params.cAt + i0 * params.c0 + i1 * params.c1 + i2 * params.c2;`;

/** `NAME_block(start, outer, inner)`: a 4×4 block as four columns along the inner axis, 0 beyond the edges. */
function operand(x: string, { dtype, vector }: Operand, outer: string) {
  const { element, declaration } = (vector === "none" ? scalars : fours)(x, dtype);
  const blocks = {
    outer: `
  for (var c = 0; c < 4; c++) {
    if (outer < params.${outer} && inner + c < params.k) { block[c] = ${x}_four(start + (inner + c) * params.${x}Inner + outer); }
  }
  return block;`,
    inner: `
  for (var r = 0; r < 4; r++) {
    if (outer + r < params.${outer} && inner < params.k) { block[r] = ${x}_four(start + (outer + r) * params.${x}Outer + inner); }
  }
  return transpose(block);`,
    none: `
  for (var c = 0; c < 4; c++) {
    for (var r = 0; r < 4; r++) {
      if (outer + r < params.${outer} && inner + c < params.k) {
        block[c][r] = ${x}_at(start + (outer + r) * params.${x}Outer + (inner + c) * params.${x}Inner);
      }
    }
  }
  return block;`,
  };
  return {
    element,
    declaration: `${declaration}
fn ${x}_block(start : i32, outer : i32, inner : i32) -> mat4x4<f32> {
  var block = mat4x4<f32>();${blocks[vector]}
}`,
  };
}

function bodyOf({ a, b, stores, adds, tile: { threads, register } }: MatmulVariant): string {
  const size = threads * register;
  const fourths = size / 4;
  const lanes = threads * threads;
  const quarters = range(register / 4);
  const rows = range(register);
  // lanes beside one another read beside one another
  const load = (x: string, { vector }: Operand, from: string): string => `
    for (var t = lane; t < ${fourths * (INNER / 4)}; t += ${lanes}) {
      let outer = ${vector === "outer" ? `t % ${fourths}` : `t / ${INNER / 4}`};
      let inner = ${vector === "outer" ? `t / ${fourths}` : `t % ${INNER / 4}`};
      let block = ${x}_block(${x}_start, ${from} + outer * 4, first + inner * 4);
      for (var c = 0; c < 4; c++) { ${x}_tile[(inner * 4 + c) * ${fourths} + outer] = block[c]; }
    }`;
  const accumulator = (r: number, q: number): string => `s${r}_${q}`;
  return `${STARTS}
  let row = i32(group.y) * ${size};
  let column = i32(group.x) * ${size};
  let y = lane / ${threads};
  let x = lane % ${threads};
  ${rows.flatMap((r) => quarters.map((q) => `var ${accumulator(r, q)} = vec4<f32>();`)).join(" ")}
  for (var first = 0; first < params.k; first += ${INNER}) {${load("a", a, "row")}${load("b", b, "column")}
    workgroupBarrier();
    for (var i = 0; i < ${INNER}; i++) {
      ${quarters.map((q) => `let a${q} = a_tile[i * ${fourths} + ${q * threads} + y];`).join(" ")}
      ${quarters.map((q) => `let b${q} = b_tile[i * ${fourths} + ${q * threads} + x];`).join(" ")}
      ${rows.flatMap((r) => quarters.map((q) => `${accumulator(r, q)} += a${r >> 2}[${r & 3}] * b${q};`)).join("\n      ")}
    }
    workgroupBarrier();
  }
  ${rows.flatMap((r) => quarters.map((q) => store(r, q))).join("\n  ")}`;

  function store(r: number, q: number): string {
    const at = `row + ${(r >> 2) * threads * 4 + (r & 3)} + y * 4`;
    const to = `column + ${q * threads * 4} + x * 4`;
    const put = (index: string, value: string): string =>
      `let at = ${index}; result[at] = ${storedValue(adds, "at", at, value)};`;
    if (stores)
      return `if (${at} < params.m && ${to} < params.n) { ${put(`(c_start + (${at}) * params.cRow + ${to}) >> 2u`, accumulator(r, q))} }`;
    return `if (${at} < params.m) { for (var j = 0; j < 4; j++) { if (${to} + j < params.n) { ${put(`c_start + (${at}) * params.cRow + (${to} + j) * params.cColumn`, `${accumulator(r, q)}[j]`)} } } }`;
  }
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
