/** The factor of the learning rate at each step from 0 on. */
export type Schedule = (step: number) => number;

export const SCHEDULES = ["constant", "linear", "cosine"] as const;
export type ScheduleName = (typeof SCHEDULES)[number];

export interface ScheduleOptions {
  /** Steps over which the factor grows linearly from 0 to 1. */
  readonly warmupSteps?: number;
  /** Steps of the whole run; constant ignores it. */
  readonly totalSteps: number;
}

/** Warm-up, then constant, linear or cosine decay to 0; equal to transformers' get_*_schedule_with_warmup, also beyond the last step. */
export function schedule(name: ScheduleName, { warmupSteps = 0, totalSteps }: ScheduleOptions): Schedule {
  const decaySteps = Math.max(1, totalSteps - warmupSteps);
  const decay = DECAY[name];
  return (step) =>
    step < warmupSteps ? step / Math.max(1, warmupSteps) : Math.max(0, decay((step - warmupSteps) / decaySteps));
}

/** The factor at each part of the decay, 0 at its start and 1 at its end. */
const DECAY: { readonly [N in ScheduleName]: (progress: number) => number } = {
  constant: () => 1,
  linear: (progress) => 1 - progress,
  cosine: (progress) => 0.5 * (1 + Math.cos(Math.PI * progress)),
};

/** torch's CosineAnnealingLR: from 1 to `minFactor` over totalSteps steps. Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983 */
export const cosineAnnealing =
  ({ totalSteps, minFactor = 0 }: { readonly totalSteps: number; readonly minFactor?: number }): Schedule =>
  (step) =>
    minFactor + (1 - minFactor) * 0.5 * (1 + Math.cos((Math.PI * step) / totalSteps));

/** torch's StepLR: × gamma after every `every` steps; with every = 1, ExponentialLR. */
export const stepDecay =
  ({ every, gamma = 0.1 }: { readonly every: number; readonly gamma?: number }): Schedule =>
  (step) =>
    gamma ** Math.floor(step / every);
