import { type AdamWArrays, type AdamWNumbers, type View, sizeOf } from "@neolog/tensor";
import { type Kernel, type RowsExecutor, array, float, int } from "../kernel.ts";
import { cached } from "../kernels/cached.ts";
import { COPY } from "../kernels/pointwise.ts";
import { adamwFactors } from "../wgsl/adamw.ts";

/** A step of AdamW into three arrays at once: what p, exp_avg and exp_avg_sq become. `whole` where all start with a texel. */
const kernelOf = cached((whole, toward): Kernel => {
  const names = ["p", "avg", "avgSq", "grad", ...(toward ? ["toward"] : [])];
  const load = (name: string): string => {
    const at = (c: number): string => `user_${name}, user_${name}Dim.y, user_${name}At + first + ${c}`;
    const four = whole ? `fetch4(${at(0)})` : `vec4(${[0, 1, 2, 3].map((c) => `element(${at(c)})`).join(", ")})`;
    return `vec4 ${name} = ${four};`;
  };
  return {
    key: `adamw ${whole} ${toward}`,
    parameters: [
      ...names.map(array),
      ...names.map((name) => int(`${name}At`)),
      ...Object.keys(adamwFactors(NUMBERS)).map(float),
    ],
    body: "return 0;",
    glslRows: `${names.map(load).join(" ")}
  data1 = avg * user_keep1 + grad * user_take1;
  data2 = avgSq * user_keep2 + grad * grad * user_take2;
  vec4 decayed = ${toward ? "p - user_decay * (p - toward)" : "p * user_kept"};
  data0 = decayed - user_rate * (data1 / (sqrt(data2) / user_correction + user_eps));`,
  };
});
const NUMBERS: AdamWNumbers = { lr: 0, betas: [0, 0], eps: 0, weight_decay: 0, maximize: false, step: 1 };

/** tensor's ops/adamw.ts in one pass where the arrays are all of their buffers; else what it gives is copied into them. */
export function adamwInPlace(
  executor: RowsExecutor,
  { p, grad, exp_avg, exp_avg_sq, toward }: AdamWArrays<View>,
  numbers: AdamWNumbers,
): void {
  const written = [p, exp_avg, exp_avg_sq];
  const views = [...written, grad, ...(toward ? [toward] : [])];
  const offsets = views.map(({ layout }) => layout.offset);
  const kernel = kernelOf(offsets.every((at) => at % 4 === 0) ? "whole" : "", toward ? "toward" : "");
  const args = [...views.map(({ buffer }) => buffer), ...offsets, ...Object.values(adamwFactors(numbers))];
  const size = sizeOf(p.layout.shape);
  const isAll = ({ buffer }: View): boolean => buffer.length === size && buffer.dtype === "float32";
  if (written.every(isAll)) {
    executor.runRows(
      kernel,
      args,
      written.map(({ buffer }) => buffer),
    );
    return;
  }
  const results = written.map(() => executor.allocate("float32", size));
  executor.runRows(kernel, args, results);
  results.forEach((buffer, i) => {
    executor.run({ kernel: COPY, args: [buffer, 0], out: written[i]! });
    executor.free(buffer);
  });
}
