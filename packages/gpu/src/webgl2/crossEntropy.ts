import { type Backend, type Buffer, type OpAttrs, type View, contiguousLayout } from "@neolog/tensor";
import { type Executor, type Kernel, array, int } from "../kernel.ts";
import { cached } from "../kernels/cached.ts";
import { COPY } from "../kernels/pointwise.ts";
import { VECTORS } from "./vectors.ts";

/** Logits that one fragment looks at: a row over a vocabulary keeps many busy. */
export const PART = 512;
/** Elements that are summed before they join the total. */
const BLOCK = 256;

export const LEAST = "-3.4028234e38";

/** Part p of row r of x [rows, n]: its largest logit and Σ exp(logit − largest). `whole` where rows start with a texel. */
export const partsOf = cached((whole): Kernel => {
  const [T, fetch, step] = whole ? ["vec4", "fetch4", 4] : ["float", "element", 1];
  const blocks = (before: string, statement: string, after: string): string => `
  for (int p = from; p < last; p += ${BLOCK}) {
    ${before}
    for (int j = p; j < min(p + ${BLOCK}, last); j += ${step}) { ${T} x = ${fetch}(user_x, user_xDim.y, at + j); ${statement} }
    ${after}
  }`;
  return {
    key: `crossEntropy parts ${whole}`,
    parameters: [array("x"), int("xAt"), int("n"), int("parts")],
    body: "return 0;",
    glslFunctions: VECTORS,
    glsl: `int at = user_xAt + first / 4 / user_parts * user_n;
  int from = first / 4 % user_parts * ${PART};
  int last = min(from + ${PART}, user_n);
  ${T} most = ${T}(${LEAST});
  ${blocks("", "most = max(most, x);", "")}
  float largest = largestOf(most);
  ${T} total = ${T}(0.0);
  ${blocks(`${T} part = ${T}(0.0);`, "part += expOf(x - largest);", "total += part;")}
  return vec4(largest, summed(total), 0.0, 0.0);`,
  };
});

/** GLSL that gives `largest` and `total` of `row`: its largest logit and Σ exp(logit − largest), from those before on, over its parts. */
export const joinedParts = (largest: string, total: string): string => `float largest = ${largest};
  for (int p = 0; p < user_parts; p++) { largest = max(largest, element(user_part, user_partDim.y, 4 * (row * user_parts + p))); }
  float total = ${total};
  for (int q = 0; q < user_parts; q++) {
    vec4 seen = fetch4(user_part, user_partDim.y, 4 * (row * user_parts + q));
    total += seen.y * expOf(seen.x - largest);
  }`;

/** Of each row: its largest logit, Σ exp(logit − largest), its loss, and 1 where it counts. */
const ROWS: Kernel = {
  key: "crossEntropy rows",
  parameters: [array("x"), array("ids"), array("part"), ...["xAt", "idsAt", "n", "parts", "ignore"].map(int)],
  body: "return 0;",
  glslFunctions: VECTORS,
  glsl: `int row = first / 4;
  ${joinedParts(LEAST, "0.0")}
  int id = int(element(user_ids, user_idsDim.y, user_idsAt + row));
  float x = element(user_x, user_xDim.y, user_xAt + row * user_n + max(id, 0));
  float loss = logOf(total) - (x - largest);
  return id == user_ignore ? vec4(largest, total, 0.0, 0.0) : vec4(largest, total, loss, 1.0);`,
};

/** The mean loss of the rows that count, and how many do. */
const MEAN: Kernel = {
  key: "crossEntropy mean",
  parameters: [array("row"), int("rows")],
  body: "return 0;",
  glsl: `vec4 total = vec4(0.0);
  for (int p = 0; p < user_rows; p += ${BLOCK}) {
    vec4 part = vec4(0.0);
    for (int i = p; i < min(p + ${BLOCK}, user_rows); i++) { part += fetch4(user_row, user_rowDim.y, 4 * i); }
    total += part;
  }
  return vec4(total.z / total.w, total.w, 0.0, 0.0);`,
};

/** (softmax − one-hot target)·g / the number of rows that count, 0 in the others. */
const gradientOf = cached((whole): Kernel => {
  const at = (first: string): string => `int row = ${first} / user_n; int column = ${first} % user_n;
    vec4 s = fetch4(user_row, user_rowDim.y, 4 * row);
    int id = int(element(user_ids, user_idsDim.y, user_idsAt + row));`;
  return {
    key: `crossEntropy gradient ${whole}`,
    parameters: [...["x", "ids", "row", "mean", "g"].map(array), ...["xAt", "idsAt", "gAt", "n"].map(int)],
    body: "return 0;",
    glslFunctions: VECTORS,
    glsl: `float share = element(user_g, user_gDim.y, user_gAt) / element(user_mean, user_meanDim.y, 1);
  ${
    whole
      ? `${at("first")}
  vec4 off = expOf(fetch4(user_x, user_xDim.y, user_xAt + first) - s.x) / s.y - vec4(equal(ivec4(column) + ivec4(0, 1, 2, 3), ivec4(id)));
  return s.w == 0.0 ? vec4(0.0) : off * share;`
      : `vec4 four;
  for (int i = 0; i < 4; i++) {
    int here = min(first + i, uOutputDim.x - 1);
    ${at("here")}
    float off = expOf(element(user_x, user_xDim.y, user_xAt + here) - s.x) / s.y - float(column == id);
    four[i] = s.w == 0.0 ? 0.0 : off * share;
  }
  return four;`
  }`,
  };
});

/** True where every row of [rows, n] starts with a texel. */
export const isWhole = ({ layout }: View): boolean => [layout.offset, layout.shape[1]!].every((x) => x % 4 === 0);

/** Cross-entropy on WebGL2: parts of rows, then rows, then their mean or the gradient. */
export function fusedCrossEntropy(
  executor: Executor,
): Required<Pick<NonNullable<Backend["fused"]>, "crossEntropy" | "crossEntropyGrad">> {
  const made = (kernel: Kernel, args: readonly (Buffer | number)[], texels: number): Buffer => {
    const layout = contiguousLayout([4 * texels]);
    const buffer = executor.allocate("float32", 4 * texels);
    executor.run({ kernel, args, out: { buffer, layout } });
    return buffer;
  };
  /** What ROWS gives, and what MEAN does. */
  function seenIn(x: View, ids: View, ignore: number): readonly [rows: Buffer, mean: Buffer] {
    const [count, n] = x.layout.shape as [number, number];
    const parts = Math.ceil(n / PART);
    const [xAt, idsAt] = [x.layout.offset, ids.layout.offset];
    const part = made(partsOf(isWhole(x) ? "whole" : ""), [x.buffer, xAt, n, parts], count * parts);
    const rows = made(ROWS, [x.buffer, ids.buffer, part, xAt, idsAt, n, parts, ignore], count);
    executor.free(part);
    return [rows, made(MEAN, [rows, count], 1)];
  }

  return {
    crossEntropy(out, [x, ids]: readonly View[], { ignoreIndex }: OpAttrs["crossEntropy"]) {
      const [rows, mean] = seenIn(x!, ids!, ignoreIndex);
      executor.run({ kernel: COPY, args: [mean, 0], out });
      for (const buffer of [rows, mean]) executor.free(buffer);
    },
    crossEntropyGrad(out, [x, ids, g]: readonly View[], { ignoreIndex }: OpAttrs["crossEntropyGrad"]) {
      const [count, n] = x!.layout.shape as [number, number];
      if (count * n === 0) return;
      const [rows, mean] = seenIn(x!, ids!, ignoreIndex);
      const starts = [x!, ids!, g!].map(({ layout }) => layout.offset);
      const kernel = gradientOf(isWhole(x!) ? "whole" : "");
      executor.run({ kernel, args: [x!.buffer, ids!.buffer, rows, mean, g!.buffer, ...starts, n], out });
      for (const buffer of [rows, mean]) executor.free(buffer);
    },
  };
}
