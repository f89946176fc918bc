import { type FloatDType, fours, scalars } from "./elements.ts";
import type { KernelStyle, TunedKernel } from "./tunedKernel.ts";
import { LARGEST_AXIS } from "./walk.ts";

/**
 * What one pass computes: attention itself; the statistics of each query that its gradients need (largest score, 1 / Σ exp, Σ p·gp, and
 * 1 where it may attend nowhere); the gradients of q, k and v, the last two for each query head.
 */
export type AttentionRole = "out" | "stats" | "gq" | "gk" | "gv";
export type AttentionArray = "q" | "k" | "v" | "g";

export interface AttentionVariant {
  readonly role: AttentionRole;
  readonly dtypes: Readonly<Record<AttentionArray, FloatDType>>;
  /** True where a head's elements lie beside one another, and D, E, all starts and other steps are multiples of 4. */
  readonly fours: boolean;
  /** Columns of the result that one call gives, from `left` on, in runs of 32. */
  readonly runs: number;
}

/** Rows and columns of scores that a workgroup holds at a time; 13 KiB of workgroup memory, whatever the width of a head. */
const TILE = 32;
/** Lanes: 8×8, each with 4×4 of the scores. */
const LANES = 64;
/** Elements of a head that lie in workgroup memory at a time. */
const INNER = 16;

const INTEGERS = [
  "H",
  "G",
  "T",
  "S",
  "D",
  "E",
  "heads",
  "outAt",
  "left",
  "maskAt",
  "maskB",
  "maskH",
  "maskT",
  "maskS",
  ...["q", "k", "v", "g"].flatMap((x) => [`${x}At`, `${x}B`, `${x}H`, `${x}Row`, `${x}Column`]),
];

/** Where the arrays begin for a query head; G of them share one of k and v. */
export const STARTS = `
  let key_head = head % params.H / params.G;
  let sample = head / params.H;
  let q_start = params.qAt + sample * params.qB + head % params.H * params.qH;
  let k_start = params.kAt + sample * params.kB + key_head * params.kH;
  let v_start = params.vAt + sample * params.vB + key_head * params.vH;
  let g_start = params.gAt + sample * params.gB + head % params.H * params.gH;`;

/** What each role multiplies: scores x·yᵀ over D, slopes of the weights u·wᵀ over E, the result its tile times z. */
export const ROLES = {
  out: { rows: "T", arrays: ["q", "k", "v"], scores: ["q", "k"], slopes: null, z: "v" },
  stats: { rows: "T", arrays: ["q", "k", "v", "g"], scores: ["q", "k"], slopes: ["g", "v"], z: null },
  gq: { rows: "T", arrays: ["q", "k", "v", "g"], scores: ["q", "k"], slopes: ["g", "v"], z: "k" },
  gk: { rows: "S", arrays: ["q", "k", "v", "g"], scores: ["k", "q"], slopes: ["v", "g"], z: "q" },
  gv: { rows: "S", arrays: ["q", "k", "g"], scores: ["k", "q"], slopes: null, z: "g" },
} as const;

export const ARRAYS = {
  q: { rows: "T", width: "D" },
  k: { rows: "S", width: "D" },
  v: { rows: "S", width: "E" },
  g: { rows: "T", width: "E" },
} as const;

/**
 * One pass over the scores of a head, a tile at a time: no [T, S] is ever stored, tiles where nothing is allowed are skipped, and what
 * is summed is summed in one order. Of any strides: q [B, H, T, D], k [B, K, S, D], v [B, K, S, E], g [B, H, T, E]; G = H / K, heads = B·H.
 * Dao et al. 2022, https://arxiv.org/abs/2205.14135
 */
export function attention(variant: AttentionVariant): TunedKernel {
  const { rows } = ROLES[variant.role];
  const { loads, ...bindings } = bindingsOf(variant, "shared");
  return {
    ...bindings,
    workgroup: [LANES, 1, 1],
    declarations: `${loads}\n${DECLARATIONS}`,
    body: bodyOf(variant),
    groups: (sizes) => {
      const { heads } = sizes as { heads: number };
      const deep = Math.ceil(heads / LARGEST_AXIS);
      return [Math.ceil(sizes[rows]! / TILE), Math.ceil(heads / deep), deep];
    },
  };
}

/** What a pass is called, reads and writes, however its lanes work; `loads` are the declarations of `NAME_quad` and `NAME_block`. */
export function bindingsOf({ role, dtypes, fours: wide, runs }: AttentionVariant, style: KernelStyle) {
  const { arrays, z } = ROLES[role];
  const loads = arrays.map((name) => ({ name, ...quads(name, dtypes[name], wide) }));
  const backward = role === "gq" || role === "gk" || role === "gv";
  const dtype = arrays.map((name) => dtypes[name]);
  return {
    key: ["attention", style, role, ...dtype, wide ? "fours" : "ones", z ? runs : 0].join(":"),
    arrays: [
      ...loads.map(({ name, element }) => ({ name, element })),
      { name: "mask", element: "f32" },
      ...(backward ? [{ name: "stats", element: "vec4<f32>" } as const] : []),
    ],
    result: role === "stats" ? "vec4<f32>" : "f32",
    integers: INTEGERS,
    floats: ["scale", "softcap"],
    loads: loads.map(({ declaration }) => declaration).join("\n"),
  } as const;
}

/** `NAME_quad(start, row, column)`: four elements of a row, 0 beyond the edges. */
function quads(name: AttentionArray, dtype: FloatDType, wide: boolean) {
  const { element, declaration } = (wide ? fours : scalars)(name, dtype);
  const { rows, width } = ARRAYS[name];
  const load = wide
    ? `if (column < params.${width}) { quad = ${name}_four(start + row * params.${name}Row + column); }`
    : `for (var c = 0; c < 4; c++) { if (column + c < params.${width}) { quad[c] = ${name}_at(start + row * params.${name}Row + (column + c) * params.${name}Column); } }`;
  return {
    element,
    declaration: `${declaration}
fn ${name}_quad(start : i32, row : i32, column : i32) -> vec4<f32> {
  var quad = vec4<f32>();
  if (row < params.${rows}) { ${load} }
  return quad;
}
fn ${name}_block(start : i32, row : i32, column : i32) -> mat4x4<f32> {
  var block = mat4x4<f32>();
  for (var r = 0; r < 4; r++) { block[r] = ${name}_quad(start, row + r, column); }
  return transpose(block);
}`,
  };
}

/** What a forbidden score counts as in a maximum: finite, as in the composite. */
export const MASKED = "-3.4028234e38";

const DECLARATIONS = `
var<workgroup> x_tile : array<vec4<f32>, ${(INNER * TILE) / 4}>;
var<workgroup> y_tile : array<vec4<f32>, ${(INNER * TILE) / 4}>;
var<workgroup> w_tile : array<vec4<f32>, ${(TILE * TILE) / 4}>;
var<workgroup> z_tile : array<vec4<f32>, ${(TILE * TILE) / 4}>;
var<workgroup> partial : array<vec4<f32>, ${LANES}>;
var<workgroup> opens : array<u32, ${LANES}>;
var<workgroup> open : u32;
fn is_allowed(base : i32, t : i32, s : i32) -> bool {
  if (t >= params.T || s >= params.S) { return false; }
  return mask[base + t * params.maskT + s * params.maskS] != 0.0;
}
fn capped(x : vec4<f32>) -> vec4<f32> {
  return 1.0 - 2.0 / (exp(clamp(2.0 * x / params.softcap, vec4<f32>(-40.0), vec4<f32>(40.0))) + 1.0);
}
fn bits_of(bits : u32, r : u32) -> vec4<bool> { return (vec4<u32>(bits >> (r * 4u)) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>(); }
fn row_sums(value : vec4<f32>, lane : i32) -> vec4<f32> {
  partial[lane] = value;
  workgroupBarrier();
  var total = vec4<f32>();
  for (var i = 0; i < 8; i++) { total += partial[(lane & 56) + i]; }
  workgroupBarrier();
  return total;
}
fn row_maxima(value : vec4<f32>, lane : i32) -> vec4<f32> {
  partial[lane] = value;
  workgroupBarrier();
  var largest = partial[lane & 56];
  for (var i = 1; i < 8; i++) { largest = max(largest, partial[(lane & 56) + i]); }
  workgroupBarrier();
  return largest;
}
fn any_open(mine : bool, lane : i32) -> bool {
  opens[lane] = u32(mine);
  workgroupBarrier();
  if (lane < 8) { for (var i = 1; i < 8; i++) { opens[lane] |= opens[lane + i * 8]; } }
  workgroupBarrier();
  if (lane == 0) {
    open = opens[0];
    for (var i = 1; i < 8; i++) { open |= opens[i]; }
  }
  return workgroupUniformLoad(&open) != 0u;
}`;

/** tile += x·yᵀ over the width of x: four rows of four. */
function product(tile: string, [x, y]: readonly [AttentionArray, AttentionArray]): string {
  const load = (name: string, to: string, from: string): string =>
    `let block = ${name}_block(${name}_start, ${from} + (lane & 31) / 4 * 4, first + (lane & 3) * 4);
        for (var c = 0; c < 4; c++) { ${to}_tile[((lane & 3) * 4 + c) * 8 + (lane & 31) / 4] = block[c]; }`;
  return `
    for (var first = 0; first < params.${ARRAYS[x].width}; first += ${INNER}) {
      if (lane < 32) {
        ${load(x, "x", "row")}
      } else {
        ${load(y, "y", "column")}
      }
      workgroupBarrier();
      for (var i = 0; i < ${INNER}; i++) {
        let a = x_tile[i * 8 + y];
        let b = y_tile[i * 8 + x];
        ${[0, 1, 2, 3].map((r) => `${tile}${r} += a[${r}] * b;`).join(" ")}
      }
      workgroupBarrier();
    }`;
}

const FOUR = [0, 1, 2, 3] as const;

function bodyOf({ role, runs }: AttentionVariant): string {
  const { rows, scores, slopes, z } = ROLES[role];
  const byQuery = rows === "T";
  const online = role === "out" || role === "stats";
  const accumulators = z ? FOUR.flatMap((r) => range(runs).map((q) => `sum${r}_${q}`)) : [];
  // the statistics of the query of element (r, c) of a lane's block
  const stat = (r: number, c: number): string => (byQuery ? `stat${r}` : `stat${c}`);
  const loadStats = FOUR.map((i) => {
    const t = byQuery ? `row + y * 4 + ${i}` : `column + x * 4 + ${i}`;
    return `var stat${i} = vec4<f32>(); if (${t} < params.T) { stat${i} = stats[head * params.T + ${t}]; }`;
  }).join("\n    ");
  const needsStats = !online;
  const [query, key] = byQuery ? ["row + y * 4 + r", "column + x * 4 + c"] : ["column + x * 4 + c", "row + y * 4 + r"];
  const look = `
    var bits = 0u;
    for (var i = 0; i < 16; i++) {
      let r = i / 4;
      let c = i % 4;
      if (is_allowed(mask_start, ${query}, ${key})) { bits |= 1u << u32(i); }
    }
    ${FOUR.map((r) => `let allowed${r} = bits_of(bits, ${r}u);`).join(" ")}
    ${needsStats ? FOUR.map((r) => `let never${r} = ${neverOf(r)};`).join(" ") : ""}`;
  const opens = `bits != 0u${needsStats ? FOUR.map((r) => ` || any(never${r})`).join("") : ""}`;

  return `
  let y = lane / 8;
  let x = lane % 8;
  let head = i32(group.z) * i32(groups.y) + i32(group.y);
  if (head >= params.heads) { return; }
  ${STARTS}
  let mask_start = params.maskAt + head / params.H * params.maskB + head % params.H * params.maskH;
  let row = i32(group.x) * ${TILE};
  ${accumulators.map((name) => `var ${name} = vec4<f32>();`).join(" ")}
  ${online ? `var largest = vec4<f32>(${MASKED}); var total = vec4<f32>(); var slope = vec4<f32>();` : ""}
  ${needsStats && byQuery ? loadStats : ""}
  for (var column = 0; column < params.${byQuery ? "S" : "T"}; column += ${TILE}) {
    ${needsStats && !byQuery ? loadStats : ""}
${look}
    if (!any_open(${opens}, lane)) { continue; }
    ${FOUR.map((r) => `var s${r} = vec4<f32>();`).join(" ")}${product("s", scores)}
    ${FOUR.map((r) => `s${r} *= params.scale;`).join(" ")}
    ${FOUR.map((r) => `var bend${r} = vec4<f32>(1.0);`).join(" ")}
    if (params.softcap > 0.0) {
      ${FOUR.map((r) => `bend${r} = capped(s${r}); s${r} = params.softcap * bend${r}; bend${r} = 1.0 - bend${r} * bend${r};`).join("\n      ")}
    }
    ${slopes ? `${FOUR.map((r) => `var d${r} = vec4<f32>();`).join(" ")}${product("d", slopes)}` : ""}
    ${online ? onlineWeights(role) : ""}
    ${role === "gv" ? FOUR.map((r) => `let w${r} = ${weight(r)};`).join("\n    ") : ""}
    ${
      role === "gq" || role === "gk"
        ? FOUR.map(
            (r) =>
              `let w${r} = select(vec4<f32>(), ${weight(r)} * (d${r} - vec4<f32>(${FOUR.map((c) => `${stat(r, c)}.z`).join(", ")})) * bend${r} * params.scale, allowed${r});`,
          ).join("\n    ")
        : ""
    }
    ${z ? accumulate(z) : ""}
  }
  ${finish()}`;

  /** Keys of a query that may attend nowhere. */
  function neverOf(r: number): string {
    const flags = `vec4<f32>(${FOUR.map((c) => `${stat(r, c)}.w`).join(", ")}) != vec4<f32>()`;
    const keys = byQuery ? "vec4<i32>(column + x * 4) + vec4<i32>(0, 1, 2, 3)" : `vec4<i32>(row + y * 4 + ${r})`;
    return `(${flags}) & (${keys} < vec4<i32>(params.S))`;
  }

  function weight(r: number): string {
    const of = (part: string): string => `vec4<f32>(${FOUR.map((c) => `${stat(r, c)}.${part}`).join(", ")})`;
    return `select(select(vec4<f32>(), exp(min(s${r} - ${of("x")}, vec4<f32>())) * ${of("y")}, allowed${r}), ${of("y")}, never${r})`;
  }

  function onlineWeights(of: AttentionRole): string {
    return `
    ${FOUR.map((r) => `let seen${r} = select(vec4<f32>(${MASKED}), s${r}, allowed${r});`).join(" ")}
    let before = largest;
    largest = max(before, row_maxima(vec4<f32>(${FOUR.map((r) => `max(max(seen${r}.x, seen${r}.y), max(seen${r}.z, seen${r}.w))`).join(", ")}), lane));
    let factor = exp(max(before - largest, vec4<f32>(-200.0)));
    ${FOUR.map((r) => `let w${r} = select(vec4<f32>(), exp(max(s${r} - largest[${r}], vec4<f32>(-200.0))), allowed${r});`).join("\n    ")}
    let ones = vec4<f32>(1.0);
    total = total * factor + row_sums(vec4<f32>(${FOUR.map((r) => `dot(w${r}, ones)`).join(", ")}), lane);
    ${
      of === "stats"
        ? `slope = slope * factor + row_sums(vec4<f32>(${FOUR.map((r) => `dot(w${r}, d${r})`).join(", ")}), lane);`
        : FOUR.flatMap((r) => range(runs).map((q) => `sum${r}_${q} *= factor[${r}];`)).join(" ")
    }`;
  }

  function accumulate(of: AttentionArray): string {
    return `
    ${FOUR.map((c) => `w_tile[(x * 4 + ${c}) * 8 + y] = vec4<f32>(w0[${c}], w1[${c}], w2[${c}], w3[${c}]);`).join(" ")}
    ${range(runs)
      .map(
        (q) => `
    for (var t = lane; t < ${TILE * 8}; t += ${LANES}) { z_tile[t] = ${of}_quad(${of}_start, column + t / 8, params.left + ${q * TILE} + t % 8 * 4); }
    workgroupBarrier();
    for (var i = 0; i < ${TILE}; i++) {
      let a = w_tile[i * 8 + y];
      let b = z_tile[i * 8 + x];
      ${FOUR.map((r) => `sum${r}_${q} += a[${r}] * b;`).join(" ")}
    }
    workgroupBarrier();`,
      )
      .join("\n")}`;
  }

  function finish(): string {
    if (role === "stats")
      return `
  if (x == 0) {
    ${FOUR.map(
      (r) => `if (row + y * 4 + ${r} < params.T) {
      let never = largest[${r}] == ${MASKED};
      let share = 1.0 / select(total[${r}], f32(max(params.S, 1)), never);
      result[params.outAt + head * params.T + row + y * 4 + ${r}] = vec4<f32>(largest[${r}], share, slope[${r}] * share, f32(never));
    }`,
    ).join("\n    ")}
  }`;
    return `
  let width = params.${ARRAYS[z!].width};${range(runs)
    .map(
      (q) => `
  {
    var sums = array<vec4<f32>, 4>(${FOUR.map((r) => `sum${r}_${q}`).join(", ")});
    let to = params.left + ${q * TILE} + x * 4;${role === "out" ? shares : ""}
    for (var r = 0; r < 4; r++) {
      if (row + y * 4 + r < params.${rows}) {
        let at = params.outAt + (head * params.${rows} + row + y * 4 + r) * width + to;
        for (var c = 0; c < 4; c++) { if (to + c < width) { result[at + c] = sums[r][c]; } }
      }
    }
  }`,
    )
    .join("")}`;
  }
}

/** Divides by what the weights sum to; a query that may attend nowhere gets the mean of all values, as in the composite. */
const shares = `
    let nowhere = largest == vec4<f32>(${MASKED});
    var mean = vec4<f32>();
    if (any(nowhere)) {
      for (var s = 0; s < params.S; s++) { mean += v_quad(v_start, s, to); }
      mean /= f32(max(params.S, 1));
    }
    for (var r = 0; r < 4; r++) { sums[r] = select(sums[r] / total[r], mean, nowhere[r]); }`;

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
