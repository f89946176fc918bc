import { ARRAYS, type AttentionVariant, MASKED, ROLES, STARTS, bindingsOf } from "./attention.ts";
import type { TunedKernel } from "./tunedKernel.ts";
import { BESIDE, groupsFor } from "./walk.ts";

/**
 * The passes of attention.ts without workgroup memory: a lane goes along all keys of one query (`out`, `stats`, `gq`) or all queries of
 * one key (`gk`, `gv`), skips what is forbidden, and keeps its row of the result to itself.
 */
export function attentionAlone(variant: AttentionVariant): TunedKernel {
  const { role, runs } = variant;
  const { loads, ...bindings } = bindingsOf(variant, "alone");
  return {
    ...bindings,
    workgroup: [BESIDE, 1, 1],
    declarations: loads,
    body: bodyOf(role, runs),
    groups: (sizes) => groupsFor(Math.ceil((sizes["heads"]! * sizes[ROLES[role].rows]!) / BESIDE)),
  };
}

/** A row of the result, as quads of it from `left` on. */
const alongResult = (quadCount: number, statement: string): string =>
  `for (var i = 0; i < ${quadCount}; i++) { ${statement} }`;

function bodyOf(role: AttentionVariant["role"], runs: number): string {
  const { rows, scores, slopes, z } = ROLES[role];
  const byQuery = rows === "T";
  const count = runs * 8;
  const online = role === "out" || role === "stats";
  const product = (name: string, [x, y]: readonly [keyof typeof ARRAYS, keyof typeof ARRAYS]): string => `
    var ${name} = 0.0;
    for (var i = 0; i < params.${ARRAYS[x].width}; i += 4) { ${name} += dot(${x}_quad(${x}_start, mine, i), ${y}_quad(${y}_start, other, i)); }`;
  const add = z ? alongResult(count, `sums[i] += weight * ${z}_quad(${z}_start, other, params.left + i * 4);`) : "";
  const weights = {
    out: `
    if (score > largest) {
      let factor = exp(max(largest - score, -200.0));
      total *= factor;
      ${alongResult(count, "sums[i] *= factor;")}
      largest = score;
    }
    let weight = exp(max(score - largest, -200.0));
    total += weight;`,
    stats: `
    if (score > largest) {
      let factor = exp(max(largest - score, -200.0));
      total *= factor;
      slope *= factor;
      largest = score;
    }
    let weight = exp(max(score - largest, -200.0));
    total += weight;
    slope += weight * along;`,
    gq: "let weight = exp(min(score - stat.x, 0.0)) * stat.y * (along - stat.z) * bend * params.scale;",
    gk: "let weight = exp(min(score - stat.x, 0.0)) * stat.y * (along - stat.z) * bend * params.scale;",
    gv: "let weight = exp(min(score - stat.x, 0.0)) * stat.y;",
  };
  const forbidden =
    role === "gv"
      ? `{
      if (stat.w != 0.0) { let weight = stat.y; ${add} }
      continue;
    }`
      : "{ continue; }";
  return `
  let place = i32(group.x + group.y * groups.x) * ${BESIDE} + lane;
  if (place >= params.heads * params.${rows}) { return; }
  let head = place / params.${rows};
  let mine = place % params.${rows};
  ${STARTS}
  let mask_start = params.maskAt + head / params.H * params.maskB + head % params.H * params.maskH + mine * params.mask${rows};
  let mask_step = params.mask${byQuery ? "S" : "T"};
  ${z ? `var sums : array<vec4<f32>, ${count}>;` : ""}
  ${online ? `var largest = ${MASKED}; var total = 0.0;` : ""}
  ${role === "stats" ? "var slope = 0.0;" : ""}
  ${!online && byQuery ? "let stat = stats[place];" : ""}
  for (var other = 0; other < params.${byQuery ? "S" : "T"}; other++) {
    ${!online && !byQuery ? "let stat = stats[head * params.T + other];" : ""}
    if (mask[mask_start + other * mask_step] == 0.0) ${forbidden}
    ${product("score", scores)}
    score *= params.scale;
    var bend = 1.0;
    if (params.softcap > 0.0) {
      bend = 1.0 - 2.0 / (exp(clamp(2.0 * score / params.softcap, -40.0, 40.0)) + 1.0);
      score = params.softcap * bend;
      bend = 1.0 - bend * bend;
    }
    ${slopes ? product("along", slopes) : ""}
    ${weights[role]}
    ${add}
  }
  ${finish(role, count)}`;
}

function finish(role: AttentionVariant["role"], count: number): string {
  const { rows, z } = ROLES[role];
  if (!z)
    return `
  let never = largest == ${MASKED};
  let share = 1.0 / select(total, f32(max(params.S, 1)), never);
  result[params.outAt + place] = vec4<f32>(largest, share, slope * share, f32(never));`;
  return `
  ${role === "out" ? nowhere(count) : ""}
  let width = params.${ARRAYS[z].width};
  let at = params.outAt + (head * params.${rows} + mine) * width + params.left;
  ${alongResult(count, "for (var c = 0; c < 4; c++) { if (params.left + i * 4 + c < width) { result[at + i * 4 + c] = sums[i][c]; } }")}`;
}

/** Divides by what the weights sum to; a query that may attend nowhere gets the mean of all values, as in the composite. */
const nowhere = (count: number): string => `
  if (largest == ${MASKED}) {
    for (var s = 0; s < params.S; s++) { ${alongResult(count, "sums[i] += v_quad(v_start, s, params.left + i * 4);")} }
    total = f32(max(params.S, 1));
  }
  ${alongResult(count, "sums[i] /= total;")}`;
