import { type Kernel, type Parameter, array, float, int } from "../kernel.ts";
import { cached } from "../kernels/cached.ts";
import { VECTORS } from "./vectors.ts";

/**
 * The passes of attention, four rows of four elements a fragment. A matrix of theirs, [heads, rows, columns], lies as they compute it:
 * row r in the array r mod 4, columns filled up to whole texels. Arrays of the caller are read with any strides.
 */

/** What a forbidden score counts as in a maximum: finite, as in the composite; and what no other score is below. */
const MASKED = "-3.4028234e38";
const FORBIDDEN = "-3.4e38";
/** Products that are summed before they join the total. */
const BLOCK = 32;
const R = [0, 1, 2, 3] as const;
const each = (text: (r: number) => string, between = " "): string => R.map(text).join(between);
const four = (text: (r: number) => string): string => `vec4(${each(text, ", ")})`;

const fours = (name: string): Parameter[] => R.map((r) => array(`${name}${r}`));
const SIZES = [int("groups"), int("T"), int("S"), int("Sp")];

interface Strided {
  readonly parameters: readonly Parameter[];
  /** `NAME_at(head)` is where a head starts, `NAME_quad(at, column)` four elements of the row there, 0 beyond its width. */
  readonly functions: string;
}

/** An array [B, H, rows, width], or of fewer heads that G of H share. `whole` where every quad lies in a texel. */
function strided(name: string, width: string, whole: boolean, shared = false): Strided {
  const user = `user_${name}`;
  const at = `${user}, ${user}Dim.y, at`;
  const quad = whole
    ? `return fetch4(${at} + column);`
    : `return mix(vec4(0.0), ${four((c) => `element(${at} + (column + ${c}) * ${user}C)`)}, lessThan(ivec4(column) + LANES, ivec4(user_${width})));`;
  return {
    parameters: [array(name), ...["At", "B", "H", "R", "C"].map((suffix) => int(name + suffix))],
    functions: `
int ${name}_at(int head) { return ${user}At + head / user_H * ${user}B + head % user_H${shared ? " / user_G" : ""} * ${user}H; }
vec4 ${name}_quad(int at, int column) { ${quad} }`,
  };
}

/** t0 … t3: what the statements add to s0 … s3 for every `i` below `of`, a block of them before it joins the total. */
const summed = (of: string, step: number, statements: string): string => `
  ${each((r) => `vec4 t${r} = vec4(0.0);`)}
  for (int p = 0; p < ${of}; p += ${step}) {
    ${each((r) => `vec4 s${r} = vec4(0.0);`)}
    for (int i = p; i < min(p + ${step}, ${of}); i += ${step === BLOCK ? 4 : 1}) { ${statements} }
    ${each((r) => `t${r} += s${r};`)}
  }`;

const kernel = (key: string, parameters: readonly Parameter[], glslRows: string, functions = ""): Kernel => ({
  key,
  parameters,
  body: "return 0;",
  glslRows,
  glslFunctions: `${VECTORS}const ivec4 LANES = ivec4(0, 1, 2, 3);${functions}`,
});

/** Where the fragment is in a matrix of `columns` columns: a row of its rows of four, and a column. */
const place = (columns: string): string => `int place = first / user_${columns}; int column = first % user_${columns};`;

/** x·yᵀ over their width W: [heads, T, S]; as scores, scaled, capped and masked, or as they are. */
export const productOfRows = cached((what, flags): Kernel => {
  const [xWhole, yWhole, maskWhole] = [0, 1, 2].map((i) => flags[i] === "w") as [boolean, boolean, boolean];
  const [x, y] = [strided("x", "W", xWhole), strided("y", "W", yWhole, true)];
  const mask = strided("mask", "S", maskWhole);
  const isScores = what !== "slopes";
  const capped = (r: number): string =>
    what === "capped" ? `t${r} = user_softcap * tangentOf(t${r} / user_softcap);` : "";
  const allowed = (
    r: number,
  ): string => `vec4 m${r} = mask_quad(mask_at(head) + min(t + ${r}, user_T - 1) * user_maskR, column);
  t${r} = mix(vec4(-infinity()), mix(vec4(${MASKED}), t${r}, notEqual(m${r}, vec4(0.0))), exist);`;
  const epilogue = each((r) => `t${r} *= user_scale; ${capped(r)} ${allowed(r)}`, "\n  ");
  return kernel(
    `attention ${what} ${flags}`,
    [
      ...[x, y, ...(isScores ? [mask] : [])].flatMap(({ parameters }) => parameters),
      int("H"),
      int("G"),
      ...SIZES,
      int("W"),
      float("scale"),
      float("softcap"),
    ],
    `${place("Sp")} int head = place / user_groups; int t = place % user_groups * 4;
  ${each((r) => `int x${r}At = x_at(head) + min(t + ${r}, user_T - 1) * user_xR;`)}
  ${each((c) => `int y${c}At = y_at(head) + min(column + ${c}, user_S - 1) * user_yR;`)}
  ${summed(
    "user_W",
    BLOCK,
    `${each((c) => `vec4 y${c} = y_quad(y${c}At, i);`)}
      ${each((r) => `vec4 x${r} = x_quad(x${r}At, i); s${r} += ${four((c) => `dot(x${r}, y${c})`)};`, "\n      ")}`,
  )}
  ${isScores ? `bvec4 exist = lessThan(ivec4(column) + LANES, ivec4(user_S)); ${epilogue}` : ""}
  ${each((r) => `data${r} = t${r};`)}`,
    x.functions + y.functions + (isScores ? mask.functions : ""),
  );
});

const load = (name: string, at: string): string =>
  each((r) => `vec4 ${name}${r} = fetch4(user_${name}${r}, user_${name}${r}Dim.y, ${at});`);

/** For each four rows a texel of their largest scores, one of 1 / Σ exp(score − largest), and one of Σ weight·slope. */
export const statistics = cached((slopes): Kernel => {
  const withSlopes = slopes !== undefined;
  const slope = (r: number): string => (withSlopes ? `a${r} += e * d${r};` : "");
  const block = (statements: string, arrays: readonly string[]): string =>
    `for (int i = p; i < min(p + ${BLOCK}, user_Sp); i += 4) { ${arrays.map((name) => load(name, "from + i")).join(" ")} ${statements} }`;
  const totals = withSlopes ? ["t", "a"] : ["t"];
  return kernel(
    `attention statistics ${slopes ?? ""}`,
    [...fours("x"), ...(withSlopes ? fours("d") : []), int("Sp")],
    `int from = first / 4 * user_Sp;
  ${each((r) => `vec4 m${r} = vec4(${MASKED});`)}
  for (int p = 0; p < user_Sp; p += ${BLOCK}) { ${block(
    each((r) => `m${r} = max(m${r}, x${r});`),
    ["x"],
  )} }
  vec4 largest = ${four((r) => `largestOf(m${r})`)};
  vec4 total = vec4(0.0); vec4 along = vec4(0.0);
  for (int p = 0; p < user_Sp; p += ${BLOCK}) {
    ${totals.map((name) => each((r) => `vec4 ${name}${r} = vec4(0.0);`)).join(" ")}
    ${block(
      each((r) => `{ vec4 e = expOf(x${r} - largest[${r}]); t${r} += e; ${slope(r)} }`),
      withSlopes ? ["x", "d"] : ["x"],
    )}
    total += ${four((r) => `summed(t${r})`)};
    ${withSlopes ? `along += ${four((r) => `summed(a${r})`)};` : ""}
  }
  data0 = largest; data1 = 1.0 / total; data2 = along / total;`,
  );
});

const STATISTICS = ["largest", "share", "along"] as const;
const loadStatistics = (names: readonly string[]): string =>
  names.map((name) => `vec4 ${name} = fetch4(user_${name}, user_${name}Dim.y, 4 * place);`).join(" ");
const ROW = "int t = place % user_groups * 4;";

/** exp(score − largest) / Σ, 0 in rows and columns that only fill up. */
export const weights: Kernel = kernel(
  "attention weights",
  [...fours("x"), array("largest"), array("share"), int("groups"), int("T"), int("Sp")],
  `int place = first / user_Sp; ${ROW}
  ${loadStatistics(["largest", "share"])} ${load("x", "first")}
  ${each((r) => `vec4 y${r} = expOf(x${r} - largest[${r}]) * share[${r}]; data${r} = t + ${r} < user_T ? y${r} : vec4(0.0);`, "\n  ")}`,
);

/** The gradient of the product that a score began as: weight·(slope − Σ weight·slope)·scale, bent by the soft cap; 0 where forbidden. */
export const productGradients = cached((capped): Kernel => {
  const bend = (r: number): string =>
    capped === undefined ? "" : ` * (1.0 - x${r} / user_softcap * (x${r} / user_softcap))`;
  return kernel(
    `attention product gradients ${capped ?? ""}`,
    [
      ...fours("x"),
      ...fours("d"),
      ...STATISTICS.map(array),
      int("groups"),
      int("T"),
      int("Sp"),
      float("scale"),
      float("softcap"),
    ],
    `int place = first / user_Sp; ${ROW}
  ${loadStatistics(STATISTICS)} ${load("x", "first")} ${load("d", "first")}
  ${each(
    (r) => `{
    vec4 y = expOf(x${r} - largest[${r}]) * share[${r}] * (d${r} - along[${r}])${bend(r)} * user_scale;
    data${r} = mix(t + ${r} < user_T ? y : vec4(0.0), vec4(0.0), lessThan(x${r}, vec4(${FORBIDDEN})));
  }`,
  )}`,
  );
});

/** w·y over the keys: w [heads, T, S], y [.., S, W] → [heads, T, W] */
export const weighted = cached((flags): Kernel => {
  const y = strided("y", "W", flags === "w", true);
  return kernel(
    `attention weighted ${flags}`,
    [...fours("x"), ...y.parameters, int("H"), int("G"), ...SIZES, int("W"), int("Wp")],
    `${place("Wp")} int head = place / user_groups; int from = place * user_Sp; int yAt = y_at(head);
  ${summed(
    "user_Sp",
    BLOCK,
    `${load("x", "from + i")}
      ${each((c) => `vec4 y${c} = y_quad(yAt + min(i + ${c}, user_S - 1) * user_yR, column);`)}
      ${each((r) => `s${r} += ${each((c) => `x${r}[${c}] * y${c}`, " + ")};`, "\n      ")}`,
  )}
  ${each((r) => `data${r} = t${r};`)}`,
    y.functions,
  );
});

/**
 * wᵀ·y over the queries, added to an old one if there is one, for keys from `start`, a multiple of 4, on:
 * w [heads, T, S], y [.., T, W] → [heads, S − start, W]
 */
export const weightedBack = cached((flags, more): Kernel => {
  const y = strided("y", "W", flags === "w");
  const add = (r: number): string => (more === undefined ? "" : ` + fetch4(user_old${r}, user_old${r}Dim.y, first)`);
  return kernel(
    `attention weighted back ${flags} ${more ?? ""}`,
    [
      ...fours("x"),
      ...y.parameters,
      int("H"),
      int("G"),
      ...SIZES,
      int("W"),
      int("Wp"),
      int("start"),
      ...(more === undefined ? [] : fours("old")),
    ],
    `${place("Wp")} int keys = (user_Sp - user_start) / 4; int head = place / keys; int yAt = y_at(head);
  int from = head * user_groups * user_Sp + user_start + place % keys * 4;
  ${summed(
    "user_groups",
    BLOCK / 4,
    `${load("x", "from + i * user_Sp")}
      ${each((c) => `vec4 y${c} = y_quad(yAt + min(4 * i + ${c}, user_T - 1) * user_yR, column);`)}
      ${each((r) => `s${r} += ${each((c) => `x${c}[${r}] * y${c}`, " + ")};`, "\n      ")}`,
  )}
  ${each((r) => `data${r} = t${r}${add(r)};`)}`,
    y.functions,
  );
});

/** Matrices [.., rows, width] without the first `skip` rows of each, which are fewer than 4, one after another, row by row: `whole` where every width is a multiple of 4. */
export const rowByRow = cached((countText, whole): Kernel => {
  const parts = Array.from({ length: Number(countText) }, (_, part) => part);
  const fetch = (part: number, r: number): string => {
    const x = `user_x${part}row${r}`;
    return whole === "w" ? `fetch4(${x}, ${x}Dim.y, at)` : `vec4(element(${x}, ${x}Dim.y, at))`;
  };
  const lookUp = (part: number): string => `
  if (here >= user_start${part}) {
    int i = here - user_start${part};
    int row = i / user_W${part};
    int m = user_skip${part} + row % user_M${part};
    int at = (row / user_M${part} * ((user_skip${part} + user_M${part} + 3) / 4) + m / 4) * user_Wp${part} + i % user_W${part};
    int which = m & 3;
    vec4 low = which == 0 ? ${fetch(part, 0)} : ${fetch(part, 1)};
    vec4 high = which == 2 ? ${fetch(part, 2)} : ${fetch(part, 3)};
    found = which < 2 ? low : high;
  }`;
  return {
    key: `attention row by row ${countText} ${whole}`,
    parameters: parts.flatMap((part) => [
      ...R.map((r) => array(`x${part}row${r}`)),
      ...["start", "skip", "M", "W", "Wp"].map((name) => int(`${name}${part}`)),
    ]),
    body: "return 0;",
    glslFunctions: `vec4 lookUp(int here) { vec4 found = vec4(0.0); ${parts.map(lookUp).join("")} return found; }`,
    glsl:
      whole === "w"
        ? "return lookUp(first);"
        : `return ${four((c) => `lookUp(min(first + ${c}, uOutputDim.x - 1)).x`)};`,
  };
});
