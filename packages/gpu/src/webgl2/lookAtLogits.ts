import { type LogitsArrays, type LogitsNumbers, type View, contiguousLayout, sizeOf } from "@neolog/tensor";
import { type Executor, type Kernel, array, float, int } from "../kernel.ts";
import { cached } from "../kernels/cached.ts";
import { LEAST, PART, isWhole, joinedParts, partsOf } from "./crossEntropy.ts";
import { VECTORS } from "./vectors.ts";

const LANES = "ivec4(0, 1, 2, 3)";

/** `four` computes elements from `column` of `row` on, in vec4 x; `whole` where they lie in a texel. */
const elementwise = (whole: string | undefined, four: string): string =>
  whole
    ? `int row = first / user_n; int column = first % user_n;
  vec4 x = fetch4(user_x, user_xDim.y, user_xAt + first);
  ${four}
  return x;`
    : `vec4 found;
  for (int i = 0; i < 4; i++) {
    int here = min(first + i, uOutputDim.x - 1);
    int row = here / user_n; int column = here % user_n;
    vec4 x = vec4(element(user_x, user_xDim.y, user_xAt + here));
    ${four}
    found[i] = x.x;
  }
  return found;`;

/** Logits under the soft cap, and what no logit is below in dead columns. */
const settledOf = cached((whole, capped): Kernel => ({
  key: `logits settled ${whole} ${capped}`,
  parameters: [...["x", "dead"].map(array), ...["xAt", "deadAt", "n", "deads"].map(int), float("softcap")],
  body: "return 0;",
  glslFunctions: VECTORS,
  glsl: elementwise(
    whole,
    `${capped ? "x = user_softcap * tangentOf(x / user_softcap);" : ""}
    for (int d = 0; d < user_deads; d++) {
      int gone = int(element(user_dead, user_deadDim.y, user_deadAt + d));
      x = mix(x, vec4(${LEAST}), equal(ivec4(column) + ${LANES}, ivec4(gone)));
    }`,
  ),
}));

/** Of each row: its largest logit so far, Σ exp(logit − largest), the target's logit, and what earlier sums are multiplied by. */
const STATS: Kernel = {
  key: "logits seen",
  parameters: [
    ...["x", "ids", "part", "seen"].map(array),
    ...["xAt", "idsAt", "seenAt", "n", "parts", "start", "fresh"].map(int),
  ],
  body: "return 0;",
  glslFunctions: VECTORS,
  glsl: `int row = first / 4;
  vec4 before = vec4(${[0, 1, 2, 3].map((c) => `element(user_seen, user_seenDim.y, user_seenAt + first + ${c})`).join(", ")});
  if (user_fresh != 0) { before = vec4(${LEAST}, 0.0, 0.0, 0.0); }
  ${joinedParts("before.x", "before.y * expOf(before.x - largest)")}
  int id = int(element(user_ids, user_idsDim.y, user_idsAt + row)) - user_start;
  float picked = element(user_x, user_xDim.y, user_xAt + row * user_n + clamp(id, 0, user_n - 1));
  return vec4(largest, total, before.z + (id >= 0 && id < user_n ? picked : 0.0), expOf(before.x - largest));`,
};

/** exp(logit − largest)·∂logit/∂raw */
const exponentialsOf = cached((whole, capped): Kernel => ({
  key: `logits exponentials ${whole} ${capped}`,
  parameters: [...["x", "seen"].map(array), ...["xAt", "seenAt", "n"].map(int), float("softcap")],
  body: "return 0;",
  glslFunctions: VECTORS,
  glsl: elementwise(
    whole,
    `vec4 flatter = ${capped ? "max(vec4(0.0), 1.0 - x / user_softcap * (x / user_softcap))" : "vec4(1.0)"};
    x = expOf(x - element(user_seen, user_seenDim.y, user_seenAt + 4 * row)) * flatter;`,
  ),
}));

/** `lookAt` of tensor's ops/lookAt.ts without its products, in three passes, or four where logits are capped or columns dead. */
export function lookAtLogits(
  executor: Executor,
  { logits, stats, targets, dead }: LogitsArrays<View>,
  { first, softcap, fresh, exponentials }: LogitsNumbers,
): void {
  const [count, n] = logits.layout.shape as [number, number];
  if (count * n === 0) return;
  const [whole, capped] = [isWhole(logits) ? "whole" : "", softcap === null ? "" : "capped"];
  const [xAt, seenAt] = [logits.layout.offset, stats.layout.offset];
  if (dead || capped) {
    const { buffer, layout } = dead ?? targets;
    const args = [logits.buffer, buffer, xAt, layout.offset, n, dead ? sizeOf(layout.shape) : 0, softcap ?? 0];
    executor.run({ kernel: settledOf(whole, capped), args, out: logits });
  }
  const parts = Math.ceil(n / PART);
  const layout = contiguousLayout([count * parts * 4]);
  const part = executor.allocate("float32", count * parts * 4);
  executor.run({ kernel: partsOf(whole), args: [logits.buffer, xAt, n, parts], out: { buffer: part, layout } });
  const arrays = [logits.buffer, targets.buffer, part, stats.buffer];
  const numbers = [xAt, targets.layout.offset, seenAt, n, parts, first, Number(fresh)];
  executor.run({ kernel: STATS, args: [...arrays, ...numbers], out: stats });
  executor.free(part);
  if (!exponentials) return;
  const args = [logits.buffer, stats.buffer, xAt, seenAt, n, softcap ?? 0];
  executor.run({ kernel: exponentialsOf(whole, capped), args, out: logits });
}
