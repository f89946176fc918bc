/** The kernels of the cpu backend, for backends whose buffers are JavaScript arrays too. */
export * from "./copy.ts";
export { fused } from "./fused.ts";
export * from "./matmul.ts";
export * from "./pointwise.ts";
export * from "./random.ts";
export * from "./reduce.ts";
export * from "./rows.ts";
