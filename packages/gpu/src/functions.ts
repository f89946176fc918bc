import type { GpuFunction } from "./facade.ts";

/** A function that kernels call: its gpu.js source, and a WGSL body where gpu.js cannot say it or drivers say it badly. */
interface KernelFunction {
  readonly parameters: string;
  readonly body: string;
  /** Takes and gives integers, or gives one for a float. */
  readonly integer?: true | "of a float";
  readonly wgsl?: string;
}

/** The polynomial with these coefficients in x, highest power first. */
const horner = (x: string, coefficients: readonly number[]): string =>
  coefficients.map(String).reduce((y, c) => `(${y} * ${x} + ${c})`);

/** expm1(x) / x for |x| < 1 by Taylor's series: off by 3e-9 at most. */
const EXPM1 = horner(
  "x",
  Array.from({ length: 12 }, (_, i) => 12 - i).map(
    (n) => 1 / Array.from({ length: n }, (_, k) => k + 1).reduce((a, b) => a * b, 1),
  ),
);
/** log((1 + s) / (1 − s)) / 2s in powers of s², for |s| < 0.2. */
const ATANH = horner("q", [1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1]);
/** erf(x) / x − 1 in powers of x² for |x| ≤ 475/512, and log(1 − erf(x)) / x + 1 beyond; N. Juffa, https://stackoverflow.com/q/35148198 */
const ERF = horner("q", [-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1]);
const ERFC = horner(
  "q",
  [-1.7285347e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1],
);
/**
 * Integer arguments and results are exact up to 2³¹ on WebGPU, where whole numbers of expressions are i32 but `/` and `%` are float32;
 * elsewhere up to 2²². WGSL may assume that no number is NaN or infinite: its bodies look at bits.
 */
const FUNCTIONS = {
  idiv: {
    parameters: "x, n",
    body: "return Math.floor((x + 0.5) / n);",
    integer: true,
    wgsl: "return user_x / user_n;",
  },
  imod: {
    parameters: "x, n",
    body: "return x - Math.floor((x + 0.5) / n) * n;",
    integer: true,
    wgsl: "return user_x % user_n;",
  },
  /** A whole number in an array, as an index. */
  integer: { parameters: "x", body: "return Math.floor(x);", integer: "of a float", wgsl: "return i32(user_x);" },
  /** How much of [part·length, n) is in [0, length). */
  lengthOf: {
    parameters: "n, length, part",
    body: "if (n - part * length < length) { return n - part * length; } return length;",
    integer: true,
  },
  isNan: {
    parameters: "x",
    body: "if (x !== x) { return 1; } return 0;",
    wgsl: "return select(0.0, 1.0, nanBits(user_x));",
  },
  /** NaN differs from everything. */
  differs: {
    parameters: "x, y",
    body: "if (x !== y) { return 1; } return 0;",
    wgsl: "return select(0.0, 1.0, user_x != user_y || nanBits(user_x) || nanBits(user_y));",
  },
  largest: {
    parameters: "x, y",
    body: "if (isNan(x) > 0) { return x; } if (isNan(y) > 0) { return y; } if (x > y) { return x; } return y;",
  },
  smallest: {
    parameters: "x, y",
    body: "if (isNan(x) > 0) { return x; } if (isNan(y) > 0) { return y; } if (x < y) { return x; } return y;",
  },
  /** Toward zero, as int32 stores it; 0 for what is no number. */
  truncated: {
    parameters: "x",
    body: "if (x > -2147483648 && x < 2147483648) { if (x < 0) { return 0 - Math.floor(0 - x); } return Math.floor(x); } return 0;",
    wgsl: "if (abs(user_x) < 2147483648.0) { return trunc(user_x); } return 0.0;",
  },
  /** Half to even. */
  rounded: {
    parameters: "x",
    body: `if (x > 8388608 || x < -8388608 || isNan(x) > 0) { return x; }
      const below = Math.floor(x);
      const part = x - below;
      if (part < 0.5) { return below; }
      if (part > 0.5) { return below + 1; }
      return 2 * Math.floor(below * 0.5 + 0.5);`,
    wgsl: "if (!(abs(user_x) < 8388608.0)) { return user_x; } return round(user_x);",
  },
  signed: {
    parameters: "x",
    body: "if (x > 0) { return 1; } if (x < 0) { return -1; } return x;",
  },
  exponential: { parameters: "x", body: "return Math.exp(x);", wgsl: "return expOf(user_x);" },
  exponentialMinus1: {
    parameters: "x",
    body: `if (x > -1 && x < 1) { return x * ${EXPM1}; } return exponential(x) - 1;`,
  },
  logarithm: {
    parameters: "x",
    body: `if (x > 0.7 && x < 1.4) { const s = (x - 1) / (x + 1); const q = s * s; return 2 * s * ${ATANH}; } return Math.log(x);`,
    wgsl: "return logOf(user_x);",
  },
  logarithm1: {
    parameters: "x",
    body: `if (x > -0.29 && x < 0.41) { const s = x / (x + 2); const q = s * s; return 2 * s * ${ATANH}; } return logarithm(1 + x);`,
  },
  tangent: {
    parameters: "x",
    body: `if (x > 10) { return 1; }
      if (x < -10) { return -1; }
      const t = exponentialMinus1(2 * Math.abs(x));
      if (x < 0) { return 0 - t / (t + 2); }
      return t / (t + 2);`,
  },
  /** 1 + tanh(x), to full precision where it is almost 0. */
  onePlusTangent: { parameters: "x", body: "return 2 / (1 + exponential(0 - 2 * x));" },
  errorFunction: {
    parameters: "x",
    body: `if (x > 4) { return 1; }
      if (x < -4) { return -1; }
      if (x > -0.927734375 && x < 0.927734375) { return nearErrorFunction(x, x * x); }
      if (x < 0) { return exponential(tailErrorFunction(0 - x)) - 1; }
      return 1 - exponential(tailErrorFunction(x));`,
  },
  nearErrorFunction: { parameters: "x, q", body: `return ${ERF} * x + x;` },
  tailErrorFunction: { parameters: "q", body: `return ${ERFC} * q - q;` },
  sine: { parameters: "x", body: "return Math.sin(x);", wgsl: `return trigonometric(user_x, 0u);` },
  cosine: { parameters: "x", body: "return Math.cos(x);", wgsl: `return trigonometric(user_x, 1u);` },
  power: { parameters: "x, y", body: "return Math.pow(x, y);", wgsl: "return powerOf(user_x, user_y);" },
} satisfies Readonly<Record<string, KernelFunction>>;

const table: Readonly<Record<string, KernelFunction>> = FUNCTIONS;

/** The functions that a text calls, and those that they call. */
function called(text: string, found = new Set<string>()): Set<string> {
  for (const [name, { body, wgsl }] of Object.entries(table)) {
    if (found.has(name) || !new RegExp(`\\b(?:fn_)?${name}\\(`).test(text)) continue;
    found.add(name);
    called(`${body} ${wgsl ?? ""}`, found);
  }
  return found;
}

/** The gpu.js functions that a kernel's body needs. */
export const functionsOf = (body: string): GpuFunction[] =>
  [...called(body)].map((name) => {
    const { parameters, body: lines, integer } = table[name]!;
    const taken = integer === true ? "Integer" : "Number";
    return {
      source: `function ${name}(${parameters}) { ${lines} }`,
      settings: {
        returnType: integer ? "Integer" : "Number",
        argumentTypes: Object.fromEntries(parameters.split(", ").map((parameter) => [parameter, taken])),
      },
    };
  });

/** WGSL with the bodies of functions that have one in WGSL in the place of those that gpu.js wrote. */
export function withWgslBodies(code: string): string {
  let out = code;
  for (const [name, { wgsl }] of Object.entries(table)) {
    if (wgsl === undefined) continue;
    const declaration = new RegExp(`(fn fn_${name}\\([^)]*\\) -> \\w+ \\{\\n)[\\s\\S]*?\\n\\}`);
    out = out.replace(declaration, (_, head: string) => `${head}  ${wgsl}\n}`);
  }
  return out;
}
