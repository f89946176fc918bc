import { type Case, matches, nameOf } from "../case.ts";
import { UsageError } from "../options.ts";

/** Products of a transformer of GPT-2 small's sizes on 128 tokens, [m, k] · [k, n], and three cubes. */
const PRODUCTS = [
  [256, 256, 256],
  [512, 512, 512],
  [1024, 1024, 1024],
  [128, 768, 768],
  [128, 768, 3072],
  [128, 3072, 768],
  [128, 768, 50257],
] as const;
/** The gradients of those by their inputs: weights [out, in] read as they lie. */
const INPUT_GRADIENTS = [
  [128, 3072, 768],
  [128, 50257, 768],
] as const;
const LENGTHS = [128, 256, 512, 1024, 2048];

const ACTIVATIONS = [128, 768] as const;
const LOGITS = [128, 50257] as const;

/** Memory that an elementwise kernel touches in each element, and what its roof is. */
interface Elementwise {
  readonly kernel: string;
  readonly shape: readonly number[];
  /** Read and written. */
  readonly bytes: number;
}

const elementwise: readonly Elementwise[] = [
  { kernel: "add", shape: ACTIVATIONS, bytes: 12 },
  { kernel: "mul", shape: ACTIVATIONS, bytes: 12 },
  { kernel: "addRow", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "exp", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "tanh", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "geluTanh", shape: [128, 3072], bytes: 8 },
  { kernel: "geluTanhGrad", shape: [128, 3072], bytes: 16 },
  { kernel: "gelu", shape: [128, 3072], bytes: 8 },
  { kernel: "silu", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "swiglu", shape: ACTIVATIONS, bytes: 12 },
  { kernel: "softmax", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "softmaxGrad", shape: ACTIVATIONS, bytes: 12 },
  { kernel: "logSoftmax", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "layerNorm", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "layerNormGrad", shape: ACTIVATIONS, bytes: 12 },
  { kernel: "rmsNorm", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "rmsNormGrad", shape: ACTIVATIONS, bytes: 12 },
  { kernel: "rope", shape: [12, 128, 64], bytes: 8 },
  { kernel: "sumRows", shape: ACTIVATIONS, bytes: 4 },
  { kernel: "sumColumns", shape: ACTIVATIONS, bytes: 4 },
  { kernel: "maxRows", shape: ACTIVATIONS, bytes: 4 },
  { kernel: "argmaxRows", shape: ACTIVATIONS, bytes: 4 },
  { kernel: "transpose", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "fromBfloat16", shape: ACTIVATIONS, bytes: 6 },
  { kernel: "toBfloat16", shape: ACTIVATIONS, bytes: 6 },
  { kernel: "takeRows", shape: ACTIVATIONS, bytes: 8 },
  { kernel: "adamw", shape: ACTIVATIONS, bytes: 28 },
  { kernel: "softmax", shape: LOGITS, bytes: 8 },
  { kernel: "logSumExp", shape: LOGITS, bytes: 4 },
  { kernel: "crossEntropy", shape: LOGITS, bytes: 4 },
  { kernel: "crossEntropyGrad", shape: LOGITS, bytes: 8 },
  { kernel: "add", shape: [20_000, 768], bytes: 12 },
];

/** Working sets above this do not stay in a core's cache. */
const CACHED = 8 << 20;

const size = (shape: readonly number[]): number => shape.reduce((product, d) => product * d, 1);

function product(kernel: string, shape: readonly [number, number, number], dtype?: "bfloat16"): Case {
  const [m, k, n] = shape;
  const common = { kernel, shape, ...(dtype ? { dtype } : {}) };
  if (m > 1) return { ...common, amount: 2 * m * k * n, roof: "arithmetic", unit: "GFLOP/s" };
  return { ...common, amount: k * n * (dtype ? 2 : 4), roof: "readMemory", unit: "GB/s" };
}

/** 4·T²·D operations a head forward, 2.5 times that in the backward pass, half of it above the diagonal. */
function attention(kernel: string, length: number): Case {
  const passes = kernel.endsWith("Backward") ? 3.5 : 1;
  const shape = [1, 12, length, 64];
  return { kernel, shape, amount: passes * 2 * 12 * length * length * 64, roof: "arithmetic", unit: "ms" };
}

/** The cases whose names hold every word of a filter. Throws UsageError where there is none. */
export function casesLeft(filter: readonly string[], dir: string, bytes: number): Case[] {
  const all = kernelCases(dir, bytes);
  const left = all.filter((c) => matches(nameOf(c), filter));
  if (left.length > 0) return left;
  const example = nameOf(all[0]!);
  throw new UsageError(`no case has all of "${filter.join(" ")}" in its name; one is called "${example}"`);
}

/** Every case of `bench kernels`; `dir` holds a checkpoint of `bytes`. */
function kernelCases(dir: string, bytes: number): Case[] {
  return [
    ...PRODUCTS.flatMap((shape) => [product("matmulT", shape), product("matmulT", shape, "bfloat16")]),
    ...PRODUCTS.slice(0, 6).map((shape) => product("matmul", shape)),
    ...INPUT_GRADIENTS.flatMap((shape) => [product("matmul", shape, "bfloat16")]),
    product("matmulT", [1, 768, 50257]),
    product("matmulT", [1, 768, 50257], "bfloat16"),
    ...LENGTHS.flatMap((length) =>
      ["attention", "composedAttention", "attentionBackward", "composedAttentionBackward"].map((kernel) =>
        attention(kernel, length),
      ),
    ),
    ...elementwise.map(({ kernel, shape, bytes: each }): Case => ({
      kernel,
      shape,
      amount: each * size(shape),
      roof: each * size(shape) > CACHED ? "addMemory" : "addCached",
      unit: "ns/element",
      elements: size(shape),
    })),
    {
      kernel: "linearCrossEntropy",
      shape: [128, 768, 50257],
      amount: 4 * 128 * 768 * 50257,
      roof: "arithmetic",
      unit: "ms",
    },
    ...["tokenRows", "denseTable"].map((kernel): Case => ({
      kernel,
      shape: [128, 50_000, 768, 8],
      amount: 0,
      roof: "none",
      unit: "ms",
    })),
    { kernel: "forkJoin", shape: [1 << 17], amount: 0, roof: "none", unit: "µs" },
    { kernel: "wakeUp", shape: [1 << 17], amount: 0, roof: "none", unit: "µs" },
    { kernel: "fromPretrained", shape: [bytes], dir, amount: bytes, roof: "readMemory", unit: "GB/s" },
  ];
}
