/** How an operand lies in texels: along the inner axis, along the other, or neither. */
export type Lie = "inner" | "outer" | "none";

/** One way to compute a product in whole texels. */
export interface Packed {
  /** Rows of the product that a fragment gives, four elements of each. */
  readonly rows: 1 | 4;
  readonly a: Lie;
  readonly b: Lie;
  /** True where the last texel along the inner axis is not full. */
  readonly ragged: boolean;
}

/** The numbers of a product that say how it can be read; `others` are an operand's start and the steps of its batches. */
export interface Operands {
  readonly batches: number;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly aRow: number;
  readonly aColumn: number;
  readonly aOthers: readonly number[];
  readonly bRow: number;
  readonly bColumn: number;
  readonly bOthers: readonly number[];
}

const whole = (...numbers: readonly number[]): boolean => numbers.every((x) => x % 4 === 0);

/** The way to compute a product, or null for single rows that lie beside others in a texel, or whose second operand is in none: the plain kernel's. */
export function packedFor({
  batches,
  M,
  N,
  K,
  aRow,
  aColumn,
  aOthers,
  bRow,
  bColumn,
  bOthers,
}: Operands): Packed | null {
  const rows = M > 1 ? 4 : 1;
  const ragged = !whole(K);
  const inRows = whole(N, bRow, ...bOthers) && bColumn === 1;
  const inColumns = whole(bColumn, ...bOthers) && bRow === 1;
  const b = inRows ? "outer" : inColumns ? "inner" : "none";
  if (rows === 1 && (b === "none" || (batches > 1 && !whole(N)))) return null;
  const inner = aColumn === 1 && whole(aRow, ...aOthers);
  const outer = aRow === 1 && rows === 4 && whole(aColumn, ...aOthers);
  return { rows, a: inner ? "inner" : outer ? "outer" : "none", b, ragged };
}

const FOUR = [0, 1, 2, 3] as const;
const XYZW = ["x", "y", "z", "w"] as const;

/**
 * Neighbours of one row, or of four rows, of a product at once: 64 multiplications for 8 texels read, instead of 1 for 2. What is
 * decided here is not decided by the shader: software runs both sides of every branch. Sums are those of the plain kernel: `block`
 * products are summed before they join the total.
 */
export function packedMatmul({ rows, a, b, ragged }: Packed, rank: number, block: number): string {
  const R = FOUR.slice(0, rows);
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const elementOfA = (r: number, c: number): string =>
    `element(user_a, user_aDim.y, a${r} + (q + ${c}) * user_aColumn)`;
  const loadA = {
    inner: () => R.map((r) => `vec4 x${r} = fetch4(user_a, user_aDim.y, a${r} + q);`),
    outer: () => [
      ...FOUR.map((c) => `vec4 p${c} = fetch4(user_a, user_aDim.y, a0 + (q + ${c}) * user_aColumn);`),
      ...R.map((r) => `vec4 x${r} = vec4(${FOUR.map((c) => `p${c}.${XYZW[r]}`).join(", ")});`),
    ],
    none: () => R.map((r) => `vec4 x${r} = vec4(${FOUR.map((c) => elementOfA(r, c)).join(", ")});`),
  }[a]();
  const loadB = {
    outer: (c: number) => `fetch4(user_b, user_bDim.y, b + (q + ${c}) * user_bRow)`,
    inner: (c: number) => `fetch4(user_b, user_bDim.y, b + q + ${c} * user_bColumn)`,
    none: (c: number) =>
      `vec4(${FOUR.map((d) => `element(user_b, user_bDim.y, b + (q + ${c}) * user_bRow + ${d} * user_bColumn)`).join(", ")})`,
  }[b];
  // beyond the inner axis lies anything, NaN too
  const masked = ragged
    ? [
        "bvec4 there = lessThan(ivec4(q) + ivec4(0, 1, 2, 3), ivec4(user_K));",
        ...R.map((r) => `x${r} = mix(vec4(0.0), x${r}, there);`),
        ...FOUR.map((c) => `y${c} = mix(vec4(0.0), y${c}, ${b === "inner" ? "there" : `bvec4(there.${XYZW[c]})`});`),
      ].join(" ")
    : "";
  const product = (r: number): string =>
    b === "inner"
      ? `vec4(${FOUR.map((c) => `dot(x${r}, y${c})`).join(", ")})`
      : FOUR.map((c) => `x${r}.${XYZW[c]} * y${c}`).join(" + ");
  const batches = axes.toReversed().map((axis) => {
    const [index, left] = axis === 0 ? ["rest", ""] : [`(rest % user_size${axis})`, `rest /= user_size${axis};`];
    return `a0 += ${index} * user_aBatch${axis}; b += ${index} * user_bBatch${axis}; ${left}`;
  });
  return `int groups = ${rows === 1 ? "user_M" : "(user_M + 3) / 4"};
  int group = first / user_N;
  int rest = group / groups;
  int i = ${rows} * (group % groups);
  int j = first % user_N;
  int a0 = user_aOffset;
  int b = user_bOffset + j * user_bColumn;
  ${batches.join("\n  ")}
  ${R.slice(1)
    .map((r) => `int a${r} = a0 + min(i + ${r}, user_M - 1) * user_aRow;`)
    .join(" ")}
  a0 += i * user_aRow;
  ${R.map((r) => `vec4 t${r} = vec4(0.0);`).join(" ")}
  for (int p = 0; p < user_K; p += ${block}) {
    int last = min(p + ${block}, user_K);
    ${R.map((r) => `vec4 s${r} = vec4(0.0);`).join(" ")}
    for (int q = p; q < last; q += 4) {
      ${loadA.join(" ")}
      ${FOUR.map((c) => `vec4 y${c} = ${loadB(c)};`).join(" ")}
      ${masked}
      ${R.map((r) => `s${r} += ${product(r)};`).join("\n      ")}
    }
    ${R.map((r) => `t${r} += s${r};`).join(" ")}
  }
  ${rows === 1 ? "return t0;" : R.map((r) => `data${r} = t${r};`).join(" ")}`;
}

/** Texel `first` of rows that lie in four arrays in turn; `joined` gives the result, from four elements x of a row. */
export const interleaved = (joined = "x"): string => `int row = first / user_N;
  int i = row % user_M;
  int from = (row / user_M * user_groups + i / 4) * user_N + first % user_N;
  int which = i & 3;
  vec4 low = which == 0 ? fetch4(user_x0, user_x0Dim.y, from) : fetch4(user_x1, user_x1Dim.y, from);
  vec4 high = which == 2 ? fetch4(user_x2, user_x2Dim.y, from) : fetch4(user_x3, user_x3Dim.y, from);
  vec4 x = which < 2 ? low : high;
  return ${joined};`;

/** The same for rows that are no whole texels, but lie in \`x0\` … \`x3\` as if they were: each filled up. */
export const ROW_BY_ROW = `return vec4(${FOUR.map((c) => `lookUp(min(first + ${c}, uOutputDim.x - 1))`).join(", ")});`;
export const LOOK_UP = `
float lookUp(int here) {
  int row = here / user_N;
  int i = row % user_M;
  int from = (row / user_M * user_groups + i / 4) * ((user_N + 3) / 4 * 4) + here % user_N;
  int which = i & 3;
  float low = which == 0 ? element(user_x0, user_x0Dim.y, from) : element(user_x1, user_x1Dim.y, from);
  float high = which == 2 ? element(user_x2, user_x2Dim.y, from) : element(user_x3, user_x3Dim.y, from);
  return which < 2 ? low : high;
}`;
