import { type AdamWArrays, type AdamWNumbers, type View, sizeOf } from "@neolog/tensor";
import { type FloatDType, scalars } from "./elements.ts";
import type { TunedCall, TunedKernel } from "./tunedKernel.ts";
import { groupsFor } from "./walk.ts";

const LANES = 64;

/** A step of AdamW, an element a lane: the composite of tensor's ops/adamw.ts in one pass. */
export function adamwKernel(grad: FloatDType, toward: FloatDType | null): TunedKernel {
  const reads = [{ name: "grad", ...scalars("grad", grad) }];
  if (toward) reads.push({ name: "toward", ...scalars("toward", toward) });
  const decayed = toward ? "x - params.decay * (x - toward_at(params.towardAt + i))" : "x * params.kept";
  return {
    key: `adamw:${grad}:${toward}`,
    arrays: [
      { name: "exp_avg", element: "f32", written: true },
      { name: "exp_avg_sq", element: "f32", written: true },
      ...reads.map(({ name, element }) => ({ name, element })),
    ],
    result: "f32",
    integers: ["n", "pAt", "avgAt", "avgSqAt", "gradAt", "towardAt"],
    floats: ["keep1", "take1", "keep2", "take2", "correction", "eps", "decay", "kept", "rate"],
    workgroup: [LANES, 1, 1],
    declarations: reads.map(({ declaration }) => declaration).join("\n"),
    body: `
  let i = i32(group.x + group.y * groups.x) * ${LANES} + lane;
  if (i >= params.n) { return; }
  let g = grad_at(params.gradAt + i);
  let m = exp_avg[params.avgAt + i] * params.keep1 + g * params.take1;
  let v = exp_avg_sq[params.avgSqAt + i] * params.keep2 + g * g * params.take2;
  exp_avg[params.avgAt + i] = m;
  exp_avg_sq[params.avgSqAt + i] = v;
  let x = result[params.pAt + i];
  result[params.pAt + i] = ${decayed} - params.rate * (m / (sqrt(v) / params.correction + params.eps));`,
    groups: ({ n }) => groupsFor(Math.ceil(n! / LANES)),
  };
}

/** What no element needs is worked out here, in float64. */
export const adamwFactors = ({ lr, betas: [beta1, beta2], eps, weight_decay, maximize, step }: AdamWNumbers) => ({
  keep1: beta1,
  take1: maximize ? beta1 - 1 : 1 - beta1,
  keep2: beta2,
  take2: 1 - beta2,
  correction: Math.sqrt(1 - beta2 ** step),
  eps,
  decay: lr * weight_decay,
  kept: 1 - lr * weight_decay,
  rate: lr / (1 - beta1 ** step),
});

/** The call for a step. */
export function adamwCall(
  { p, grad, exp_avg, exp_avg_sq, toward }: AdamWArrays<View>,
  numbers: AdamWNumbers,
): TunedCall {
  const dtypeOf = ({ buffer }: View): FloatDType => buffer.dtype as FloatDType;
  return {
    kernel: adamwKernel(dtypeOf(grad), toward && dtypeOf(toward)),
    arrays: [exp_avg, exp_avg_sq, grad, ...(toward ? [toward] : [])].map(({ buffer }) => buffer),
    out: p.buffer,
    sizes: {
      n: sizeOf(p.layout.shape),
      pAt: p.layout.offset,
      avgAt: exp_avg.layout.offset,
      avgSqAt: exp_avg_sq.layout.offset,
      gradAt: grad.layout.offset,
      towardAt: toward?.layout.offset ?? 0,
      ...adamwFactors(numbers),
    },
  };
}
