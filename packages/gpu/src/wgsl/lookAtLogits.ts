import type { LogitsArrays, LogitsNumbers, View } from "@neolog/tensor";
import type { KernelStyle, TunedCall, TunedKernel } from "./tunedKernel.ts";
import { walkOf } from "./walk.ts";

const LANES = 256;

/** tanh x: its series, off by 1e-8 at most, where the difference of almost equal numbers would have no digits left. */
const TANGENT = `
fn tangentOf(x : f32) -> f32 {
  let q = x * x;
  if (q < 0.0625) { return x * fma(q, fma(q, fma(q, fma(q, 0.021869489, -0.053968254), 0.13333334), -0.33333334), 1.0); }
  return 1.0 - 2.0 / (expOf(2.0 * clamp(x, -20.0, 20.0)) + 1.0);
}`;

/**
 * An online softmax over a block of logits, in place: `lookAt` of tensor's ops/lookAt.ts without its products. A row is capped, its
 * maximum, sum and target join those of earlier blocks, and its logits become exponentials that were rescaled alike.
 */
export function lookAtKernel(style: KernelStyle): TunedKernel {
  const walk = walkOf(style, LANES);
  // what a lane wrote into the row, others read
  const settled = style === "shared" ? "storageBarrier();" : "";
  return {
    key: `lookAtLogits:${style}`,
    arrays: [
      { name: "stats", element: "f32", written: true },
      { name: "ids", element: "f32" },
      { name: "dead", element: "f32" },
    ],
    result: "f32",
    integers: ["n", "rows", "deads", "first", "fresh", "exponentials", "xAt", "statsAt", "idsAt", "deadAt"],
    floats: ["softcap"],
    workgroup: walk.workgroup,
    declarations: walk.declarations + TANGENT,
    body: `
  let row = ${walk.row};
  if (row >= params.rows) { return; }
  let start = params.xAt + row * params.n;
  let seen = params.statsAt + row * 4;
  if (params.softcap > 0.0) {
    ${walk.each("result[start + j] = params.softcap * tangentOf(result[start + j] / params.softcap);")}
  }
  ${settled}
  ${walk.each("result[start + i32(dead[params.deadAt + i])] = -3.4028234e38;", "i", "params.deads")}
  ${settled}
  let id = i32(ids[params.idsAt + row]) - params.first;
  var m = -3.4028234e38;
  var aim = 0.0;
  ${walk.each("let x = result[start + j]; m = max(m, x); aim += select(0.0, x, j == id);")}
  let picked = sum_of(aim, lane);
  var before = vec3<f32>(-3.4028234e38, 0.0, 0.0);
  if (params.fresh == 0) { before = vec3<f32>(stats[seen], stats[seen + 1], stats[seen + 2]); }
  let largest = max(before.x, largest_of(m, lane));
  var s = 0.0;
  ${walk.each(`let x = result[start + j];
    let e = expOf(x - largest);
    s += e;
    if (params.exponentials != 0) {
      let flat = select(0.0, x / params.softcap, params.softcap > 0.0);
      result[start + j] = e * max(0.0, 1.0 - flat * flat);
    }`)}
  let total = sum_of(s, lane);
  if (${walk.stores}) {
    let factor = expOf(before.x - largest);
    stats[seen] = largest;
    stats[seen + 1] = before.y * factor + total;
    stats[seen + 2] = before.z + picked;
    stats[seen + 3] = factor;
  }`,
    groups: walk.groups,
  };
}

/** The call for a block; ids stand in for columns that nobody counts. */
export function lookAtCall(
  { logits, stats, targets, dead }: LogitsArrays<View>,
  { first, softcap, fresh, exponentials }: LogitsNumbers,
  style: KernelStyle,
): TunedCall {
  const [rows, n] = logits.layout.shape as [number, number];
  return {
    kernel: lookAtKernel(style),
    arrays: [stats, targets, dead ?? targets].map(({ buffer }) => buffer),
    out: logits.buffer,
    sizes: {
      n,
      rows,
      deads: dead?.layout.shape[0] ?? 0,
      first,
      fresh: Number(fresh),
      exponentials: Number(exponentials),
      xAt: logits.layout.offset,
      statsAt: stats.layout.offset,
      idsAt: targets.layout.offset,
      deadAt: dead?.layout.offset ?? 0,
      softcap: softcap ?? 0,
    },
  };
}
