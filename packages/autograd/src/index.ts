export { GradientError, backward, noGrad } from "./backward.ts";
export { checkpoint } from "./checkpoint.ts";
export * from "./optim/adamw.ts";
export * from "./optim/clip.ts";
export * from "./optim/schedule.ts";
export * from "./optim/sgd.ts";
export { VJP } from "./vjp/index.ts";
export type { Saved, Vjp } from "./vjp/rule.ts";
