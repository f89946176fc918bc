import { fours, scalars } from "./elements.ts";
import { INTEGERS, type Operand, type Product, STARTS } from "./matmul.ts";
import type { TunedKernel } from "./tunedKernel.ts";

/** Lanes of a workgroup, beside one another along the columns: all read the same elements of a at a time. */
const LANES = 8;

/**
 * The product of matmul.ts without workgroup memory: a lane holds four columns of several rows in registers and reads both operands from
 * where they lie. Every element is one sum in ascending order of the inner axis. Beyond the edges the last row and column are read
 * again and nothing is stored; branches would cost more.
 */
export function matmulAlone({ a, b, stores }: Product, m: number): TunedKernel {
  const rows = m > 4 ? 8 : 4;
  const loads = [operand("a", a, "m"), operand("b", b, "n")] as const;
  return {
    key: ["matmul", "alone", a.dtype, a.vector, b.dtype, b.vector, stores ? "fours" : "ones", rows].join(":"),
    arrays: [
      { name: "a", element: loads[0].element },
      { name: "b", element: loads[1].element },
    ],
    result: stores ? "vec4<f32>" : "f32",
    integers: INTEGERS,
    floats: [],
    workgroup: [LANES, 1, 1],
    declarations: loads.map(({ declaration }) => declaration).join("\n"),
    body: bodyOf(stores, rows),
    groups: ({ m: height, n, batches }) => [Math.ceil(n! / (4 * LANES)), Math.ceil(height! / rows), batches!],
  };
}

/** `NAME_block(start, outer, inner)`: a 4×4 block as four columns along the inner axis; 0 beyond that axis, and anything beyond the other. */
function operand(x: string, { dtype, vector }: Operand, outer: string) {
  const { element, declaration } = (vector === "none" ? scalars : fours)(x, dtype);
  const last = `params.${outer} - 1`;
  const inside = (c: number, column: string): string => `select(vec4<f32>(), ${column}, inner + ${c} < params.k)`;
  const along = (c: number): string => `min(inner + ${c}, params.k - 1) * params.${x}Inner`;
  const across = (r: number): string => `min(outer + ${r}, ${last}) * params.${x}Outer`;
  const blocks = {
    outer: `mat4x4<f32>(${FOUR.map((c) => inside(c, `${x}_four(start + ${along(c)} + min(outer, params.${outer} - 4))`)).join(", ")})`,
    inner: `transpose(mat4x4<f32>(${FOUR.map((r) => `${x}_four(start + ${across(r)} + inner)`).join(", ")}))`,
    none: `mat4x4<f32>(${FOUR.map((c) =>
      inside(c, `vec4<f32>(${FOUR.map((r) => `${x}_at(start + ${across(r)} + ${along(c)})`).join(", ")})`),
    ).join(", ")})`,
  };
  return {
    element,
    declaration: `${declaration}
fn ${x}_block(start : i32, outer : i32, inner : i32) -> mat4x4<f32> { return ${blocks[vector]}; }`,
  };
}

function bodyOf(stores: boolean, rows: number): string {
  const blocks = FOUR.slice(0, rows / 4);
  const store = (row: number): string =>
    stores
      ? `if (row + ${row} < params.m && column < params.n) { result[(c_start + (row + ${row}) * params.cRow + column) >> 2u] = s${row}; }`
      : `if (row + ${row} < params.m) { for (var j = 0; j < 4; j++) { if (column + j < params.n) { result[c_start + (row + ${row}) * params.cRow + (column + j) * params.cColumn] = s${row}[j]; } } }`;
  return `${STARTS}
  let row = i32(group.y) * ${rows};
  let column = (i32(group.x) * ${LANES} + lane) * 4;
  ${blocks.flatMap((q) => FOUR.map((r) => `var s${4 * q + r} = vec4<f32>();`)).join(" ")}
  for (var first = 0; first < params.k; first += 4) {
    let y = b_block(b_start, column, first);
    ${blocks
      .map(
        (q) => `let x${q} = a_block(a_start, row + ${4 * q}, first);
    ${FOUR.flatMap((c) => FOUR.map((r) => `s${4 * q + r} += x${q}[${c}][${r}] * y[${c}];`)).join(" ")}`,
      )
      .join("\n    ")}
  }
  ${blocks.flatMap((q) => FOUR.map((r) => store(4 * q + r))).join("\n  ")}`;
}

const FOUR = [0, 1, 2, 3] as const;
