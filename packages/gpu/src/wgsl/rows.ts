import { type FloatDType, scalars } from "./elements.ts";
import type { KernelStyle, TunedKernel } from "./tunedKernel.ts";
import { walkOf } from "./walk.ts";

/** Ops on the last axis. */
export type RowOp = keyof typeof ROWS;

interface RowKernel {
  /** Inputs of the result's shape [rows, n], then those of one row's [n]. */
  readonly rows: readonly string[];
  readonly vectors: readonly string[];
  /** Statements; `each` runs one for every element j of the row, ROW(j) of input x is x(j). */
  readonly body: (each: (statement: string) => string) => string;
}

const LARGEST = (each: (statement: string) => string): string => `
  var m = -3.4028234e38;
  ${each("m = max(m, x(j));")}
  let largest = largest_of(m, lane);`;

const SUM_OF_EXPS = (each: (statement: string) => string): string => `${LARGEST(each)}
  var s = 0.0;
  ${each("s += expOf(x(j) - largest);")}
  let total = sum_of(s, lane);`;

const CENTRED = (each: (statement: string) => string): string => `
  var s = 0.0;
  ${each("s += x(j);")}
  let mean = sum_of(s, lane) / f32(params.n);
  var squares = 0.0;
  ${each("let c = x(j) - mean; squares += c * c;")}
  let scale = inverseSqrt(sum_of(squares, lane) / f32(params.n) + params.eps);`;

const SCALED = (each: (statement: string) => string): string => `
  var squares = 0.0;
  ${each("let c = x(j); squares += c * c;")}
  let scale = inverseSqrt(sum_of(squares, lane) / f32(params.n) + params.eps);`;

/** Each is the composite of its name in tensor's ops/, in as many passes over the row as it has sums. */
const ROWS = {
  softmax: {
    rows: ["x"],
    vectors: [],
    body: (each) => `${SUM_OF_EXPS(each)}
  ${each("put(j, expOf(x(j) - largest) / total);")}`,
  },
  logSoftmax: {
    rows: ["x"],
    vectors: [],
    body: (each) => `${SUM_OF_EXPS(each)}
  let logarithm = logOf(total);
  ${each("put(j, x(j) - largest - logarithm);")}`,
  },
  softmaxGrad: {
    rows: ["y", "g"],
    vectors: [],
    body: (each) => `
  var s = 0.0;
  ${each("s += g(j) * y(j);")}
  let along = sum_of(s, lane);
  ${each("put(j, g(j) * y(j) - y(j) * along);")}`,
  },
  logSoftmaxGrad: {
    rows: ["y", "g"],
    vectors: [],
    body: (each) => `
  var s = 0.0;
  ${each("s += g(j);")}
  let total = sum_of(s, lane);
  ${each("put(j, g(j) - expOf(y(j)) * total);")}`,
  },
  layerNorm: {
    rows: ["x"],
    vectors: ["w", "b"],
    body: (each) => `${CENTRED(each)}
  ${each("put(j, (x(j) - mean) * scale * w(j) + b(j));")}`,
  },
  rmsNorm: {
    rows: ["x"],
    vectors: ["w"],
    body: (each) => `${SCALED(each)}
  ${each("put(j, x(j) * scale * w(j));")}`,
  },
  layerNormGrad: {
    rows: ["x", "g"],
    vectors: ["w"],
    body: (each) => `${CENTRED(each)}
  var straight = 0.0;
  var along = 0.0;
  ${each("let gw = g(j) * w(j); straight += gw; along += gw * (x(j) - mean) * scale;")}
  let first = sum_of(straight, lane) / f32(params.n);
  let second = sum_of(along, lane) / f32(params.n);
  ${each("put(j, (g(j) * w(j) - first - (x(j) - mean) * scale * second) * scale);")}`,
  },
  rmsNormGrad: {
    rows: ["x", "g"],
    vectors: ["w"],
    body: (each) => `${SCALED(each)}
  var along = 0.0;
  ${each("along += g(j) * w(j) * x(j) * scale;")}
  let second = sum_of(along, lane) / f32(params.n);
  ${each("put(j, (g(j) * w(j) - x(j) * scale * second) * scale);")}`,
  },
} satisfies Record<string, RowKernel>;

/** A row op on inputs of these dtypes, in the order of `rows` and `vectors`. Long rows get 256 lanes, short ones 64. */
export function rowKernel(op: RowOp, dtypes: readonly FloatDType[], long: boolean, style: KernelStyle): TunedKernel {
  const { rows, vectors, body }: RowKernel = ROWS[op];
  const inputs = [...rows, ...vectors];
  const walk = walkOf(style, long ? 256 : 64);
  const loads = inputs.map((name, i) => ({ name: `${name}s`, ...scalars(`${name}s`, dtypes[i]!) }));
  const start = (name: string): string => (rows.includes(name) ? `row_start + ` : "") + `params.${name}At`;
  return {
    key: [op, style, ...dtypes, ...walk.workgroup].join(":"),
    arrays: loads.map(({ name, element }) => ({ name, element })),
    result: "f32",
    integers: ["n", "rows", ...inputs.map((x) => `${x}At`), "outAt"],
    floats: ["eps"],
    workgroup: walk.workgroup,
    declarations: [
      ...loads.map(({ declaration }) => declaration),
      walk.declarations,
      "var<private> row_start : i32;",
      ...inputs.map((x) => `fn ${x}(j : i32) -> f32 { return ${x}s_at(${start(x)} + j); }`),
      "fn put(j : i32, value : f32) { result[params.outAt + row_start + j] = value; }",
    ].join("\n"),
    body: `
  let row = ${walk.row};
  if (row >= params.rows) { return; }
  row_start = row * params.n;
  ${body(walk.each)}`,
    groups: walk.groups,
  };
}
