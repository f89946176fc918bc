import { fours, scalars } from "./elements.ts";
import { type Operand, type Product, STARTS, signatureOf, storedValue } from "./matmul.ts";
import type { TunedKernel } from "./tunedKernel.ts";

/** Lanes of a workgroup, beside one another along the columns: all read the same elements of a at a time. */
const LANES = 8;

/**
 * The product of matmul.ts without workgroup memory: a lane holds four columns of several rows in registers and reads both operands from
 * where they lie. Every element is one sum in ascending order of the inner axis. Beyond the edges the last row and column are read
 * again and nothing is stored; branches would cost more.
 */
export function matmulAlone({ a, b, stores, adds }: Product, m: number): TunedKernel {
  const rows = m > 4 ? 8 : 4;
  const loads = [
    (a.vector === "none" ? scalars : fours)("a", a.dtype),
    (b.vector === "none" ? scalars : fours)("b", b.dtype),
  ] as const;
  return {
    key: [
      "matmul",
      "alone",
      a.dtype,
      a.vector,
      b.dtype,
      b.vector,
      stores ? "fours" : "ones",
      rows,
      ...(adds ? ["adds"] : []),
    ].join(":"),
    ...signatureOf({ stores, adds }, loads[0].element, loads[1].element),
    workgroup: [LANES, 1, 1],
    declarations: loads.map(({ declaration }) => declaration).join("\n"),
    body: bodyOf({ a, b, stores, adds }, rows),
    groups: ({ m: height, n, batches }) => [Math.ceil(n! / (4 * LANES)), Math.ceil(height! / rows), batches!],
  };
}

interface Reads {
  /** Statements before the loop: where the rows or columns begin. */
  readonly starts: string;
  /** Statements that give NAME0 … NAME3, the four elements at inner, inner + 1, …: vec4s across rows or columns. */
  readonly fours: string;
  /** Of those, NAME0 alone. */
  readonly one: string;
}

/** Four rows of a, or columns of b, from `outer` on. What does not depend on the inner axis is outside its loop: it is not moved there by itself. */
function reads(x: "a" | "b", name: string, { vector }: Operand, size: string, outer: string): Reads {
  const last = (r: number): string => `${name}_start${r}`;
  const start = (r: number): string =>
    `let ${last(r)} = ${x}_start + min(${outer} + ${r}, ${size} - 1) * params.${x}Outer;`;
  if (vector === "inner")
    return {
      starts: FOUR.map(start).join(" "),
      fours: `let ${name}_block = transpose(mat4x4<f32>(${FOUR.map((r) => `${x}_four(${last(r)} + inner)`).join(", ")})); ${FOUR.map((c) => `let ${name}${c} = ${name}_block[${c}];`).join(" ")}`,
      one: "",
    };
  const column =
    vector === "outer"
      ? (c: number): string => `let ${name}${c} = ${x}_four(${last(0)} + (inner + ${c}) * ${x}_step);`
      : (c: number): string =>
          `let ${name}${c} = vec4<f32>(${FOUR.map((r) => `${x}_at(${last(r)} + (inner + ${c}) * ${x}_step)`).join(", ")});`;
  return {
    starts:
      vector === "outer" ? `let ${last(0)} = ${x}_start + min(${outer}, ${size} - 4);` : FOUR.map(start).join(" "),
    fours: FOUR.map(column).join(" "),
    one: column(0),
  };
}

function bodyOf({ a, b, stores, adds }: Product, rows: number): string {
  const blocks = FOUR.slice(0, rows / 4);
  const left = blocks.map((q) => reads("a", `x${q}_`, a, "m", `row + ${4 * q}`));
  const right = reads("b", "y", b, "n", "column");
  const steps = (c: number): string =>
    blocks.flatMap((q) => FOUR.map((r) => `s${4 * q + r} += x${q}_${c}[${r}] * y${c};`)).join(" ");
  const put = (row: number, index: string, value: string): string =>
    `let at = ${index}; result[at] = ${storedValue(adds, "at", `row + ${row}`, value)};`;
  const store = (row: number): string =>
    stores
      ? `if (row + ${row} < m && column < n) { ${put(row, `(c_start + (row + ${row}) * params.cRow + column) >> 2u`, `s${row}`)} }`
      : `if (row + ${row} < m) { for (var j = 0; j < 4; j++) { if (column + j < n) { ${put(row, `c_start + (row + ${row}) * params.cRow + (column + j) * params.cColumn`, `s${row}[j]`)} } } }`;
  // an operand read by fours along the inner axis leaves no rest of it
  const rest =
    a.vector === "inner" || b.vector === "inner"
      ? ""
      : `
  for (; inner < k; inner++) {
    ${right.one} ${left.map(({ one }) => one).join(" ")}
    ${steps(0)}
  }`;
  return `${STARTS}
  let m = params.m;
  let n = params.n;
  let k = params.k;
  let a_step = params.aInner;
  let b_step = params.bInner;
  let row = i32(group.y) * ${rows};
  let column = (i32(group.x) * ${LANES} + lane) * 4;
  ${[right, ...left].map(({ starts }) => starts).join("\n  ")}
  ${blocks.flatMap((q) => FOUR.map((r) => `var s${4 * q + r} = vec4<f32>();`)).join(" ")}
  var inner = 0;
  for (; inner + 3 < k; inner += 4) {
    ${[right, ...left].map(({ fours: load }) => load).join("\n    ")}
    ${FOUR.map(steps).join("\n    ")}
  }${rest}
  ${blocks.flatMap((q) => FOUR.map((r) => store(4 * q + r))).join("\n  ")}`;
}

const FOUR = [0, 1, 2, 3] as const;
