import { type Backend, type View, contiguousLayout, sizeOf } from "@neolog/tensor";
import { type Executor, type Kernel, array, float, int } from "../kernel.ts";
import { cached } from "../kernels/cached.ts";
import { VECTORS } from "./vectors.ts";

/** Elements that are summed before they join the total: rounding grows with n / BLOCK + BLOCK, not with n. */
const BLOCK = 256;

interface RowOp {
  /** Inputs of the result's shape [rows, n], then those of one row's [n]. */
  readonly rows: readonly string[];
  readonly vectors: readonly string[];
  /** Statements that return four numbers of a row. `sum` declares floats: each the sum of its term over the row. */
  readonly stats: (sum: (terms: Readonly<Record<string, string>>) => string, largest: string) => string;
  /** An element, by those of the inputs and the row's numbers s. */
  readonly value: string;
}

type Sum = Parameters<RowOp["stats"]>[0];

const centred = (sum: Sum): string => `${sum({ total: "x" })}
  float mean = total / float(user_n);
  ${sum({ squares: "(x - mean) * (x - mean)" })}
  float scale = 1.0 / sqrt(squares / float(user_n) + user_eps);`;

const scaled = (sum: Sum): string => `${sum({ squares: "x * x" })}
  float scale = 1.0 / sqrt(squares / float(user_n) + user_eps);`;

/** Each is the composite of its name in tensor's ops/: a pass that gives four numbers of each row, and one that gives the elements. */
const ROWS = {
  softmax: {
    rows: ["x"],
    vectors: [],
    stats: (sum, largest) =>
      `${largest} ${sum({ total: "expOf(x - largest)" })} return vec4(largest, total, 0.0, 0.0);`,
    value: "expOf(x - s.x) / s.y",
  },
  logSoftmax: {
    rows: ["x"],
    vectors: [],
    stats: (sum, largest) =>
      `${largest} ${sum({ total: "expOf(x - largest)" })} return vec4(largest, logOf(total), 0.0, 0.0);`,
    value: "x - s.x - s.y",
  },
  softmaxGrad: {
    rows: ["y", "g"],
    vectors: [],
    stats: (sum) => `${sum({ along: "g * y" })} return vec4(along);`,
    value: "g * y - y * s.x",
  },
  logSoftmaxGrad: {
    rows: ["y", "g"],
    vectors: [],
    stats: (sum) => `${sum({ straight: "g" })} return vec4(straight);`,
    value: "g - expOf(y) * s.x",
  },
  layerNorm: {
    rows: ["x"],
    vectors: ["w", "b"],
    stats: (sum) => `${centred(sum)} return vec4(mean, scale, 0.0, 0.0);`,
    value: "(x - s.x) * s.y * w + b",
  },
  rmsNorm: {
    rows: ["x"],
    vectors: ["w"],
    stats: (sum) => `${scaled(sum)} return vec4(0.0, scale, 0.0, 0.0);`,
    value: "x * s.y * w",
  },
  layerNormGrad: {
    rows: ["x", "g"],
    vectors: ["w"],
    stats: (sum) => `${centred(sum)} ${sum({ straight: "g * w", along: "g * w * (x - mean) * scale" })}
  return vec4(mean, scale, straight / float(user_n), along / float(user_n));`,
    value: "(g * w - s.z - (x - s.x) * s.y * s.w) * s.y",
  },
  rmsNormGrad: {
    rows: ["x", "g"],
    vectors: ["w"],
    stats: (sum) => `${scaled(sum)} ${sum({ along: "g * w * x * scale" })}
  return vec4(0.0, scale, 0.0, along / float(user_n));`,
    value: "(g * w - x * s.y * s.w) * s.y",
  },
} satisfies Record<string, RowOp>;

/** `whole` where every row and input starts with a texel: four elements at a time, else one. */
const kernelsOf = cached((op, whole): readonly [stats: Kernel, values: Kernel] => {
  const { rows, vectors, stats, value }: RowOp = ROWS[op as keyof typeof ROWS];
  const inputs = [...rows, ...vectors];
  const [T, fetch, step] = whole ? ["vec4", "fetch4", 4] : ["float", "element", 1];
  const load = (row: string, j: string) => (x: string) =>
    `${T} ${x} = ${fetch}(user_${x}, user_${x}Dim.y, user_${x}At + ${rows.includes(x) ? `${row} * user_n + ` : ""}${j});`;
  const each = (used: readonly string[], statements: string): string => `
    for (int j = p; j < min(p + ${BLOCK}, user_n); j += ${step}) { ${used.map(load("row", "j")).join(" ")} ${statements} }`;
  const usedBy = (text: string): string[] => inputs.filter((x) => new RegExp(`\\b${x}\\b`).test(text));
  const sum: Sum = (terms) => {
    const names = Object.keys(terms);
    return `${names.map((name) => `${T} ${name}Total = ${T}(0.0);`).join(" ")}
  for (int p = 0; p < user_n; p += ${BLOCK}) {
    ${names.map((name) => `${T} ${name}Part = ${T}(0.0);`).join(" ")}
    ${each(usedBy(Object.values(terms).join(" ")), names.map((name) => `${name}Part += ${terms[name]};`).join(" "))}
    ${names.map((name) => `${name}Total += ${name}Part;`).join(" ")}
  }
  ${names.map((name) => `float ${name} = summed(${name}Total);`).join(" ")}`;
  };
  const largest = `${T} most = ${T}(-3.4028234e38);
  for (int p = 0; p < user_n; p += ${BLOCK}) { ${each(["x"], "most = max(most, x);")} }
  float largest = largestOf(most);`;
  const parameters = [...inputs.map(array), ...inputs.map((x) => int(`${x}At`)), int("n"), float("eps")];
  const at = (first: string): string => `int row = ${first} / user_n; int column = ${first} % user_n;
  vec4 s = fetch4(user_stats, user_statsDim.y, 4 * row);
  ${inputs.map(load("row", "column")).join(" ")}`;
  const shared = { body: "return 0;", glslFunctions: VECTORS };
  return [
    {
      ...shared,
      key: `${op} stats ${whole}`,
      parameters,
      glsl: `int row = first / 4;\n  ${stats(sum, largest)}`,
    },
    {
      ...shared,
      key: `${op} ${whole}`,
      parameters: [...parameters, array("stats")],
      glsl: whole
        ? `${at("first")}\n  return ${value};`
        : `vec4 four;
  for (int i = 0; i < 4; i++) { int here = min(first + i, uOutputDim.x - 1); ${at("here")} four[i] = ${value}; }
  return four;`,
    },
  ];
});

/** The fused ops along rows that WebGL2 has: each one's specification is its composite. */
export function fusedRows(executor: Executor): NonNullable<Backend["fused"]> {
  /** `order` is where the op has the inputs that ROWS names. */
  const alongRows =
    (op: keyof typeof ROWS, order: readonly number[]) =>
    (out: View, inputs: readonly View[], attrs: { readonly eps: number } | null): void => {
      const size = sizeOf(out.layout.shape);
      if (size === 0) return;
      const n = out.layout.shape.at(-1) ?? 1;
      const views = order.map((i) => inputs[i]!);
      const offsets = views.map(({ layout }) => layout.offset);
      const whole = [n, ...offsets].every((x) => x % 4 === 0);
      const [stats, values] = kernelsOf(op, whole ? "whole" : "");
      const args = [...views.map(({ buffer }) => buffer), ...offsets, n, attrs?.eps ?? 0];
      const shape = [size / n, 4];
      const buffer = executor.allocate("float32", sizeOf(shape));
      executor.run({ kernel: stats, args, out: { buffer, layout: contiguousLayout(shape) } });
      executor.run({ kernel: values, args: [...args, buffer], out });
      executor.free(buffer);
    };
  return {
    softmax: alongRows("softmax", [0]),
    logSoftmax: alongRows("logSoftmax", [0]),
    softmaxGrad: alongRows("softmaxGrad", [0, 1]),
    logSoftmaxGrad: alongRows("logSoftmaxGrad", [0, 1]),
    layerNorm: alongRows("layerNorm", [0, 1, 2]),
    rmsNorm: alongRows("rmsNorm", [0, 1]),
    layerNormGrad: alongRows("layerNormGrad", [0, 2, 1]),
    rmsNormGrad: alongRows("rmsNormGrad", [0, 2, 1]),
  };
}
