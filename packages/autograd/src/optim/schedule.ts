export const SCHEDULES = ["constant", "linear", "cosine"] as const;
export type ScheduleName = (typeof SCHEDULES)[number];

export interface ScheduleOptions {
  /** Steps over which the factor grows linearly from 0 to 1. */
  readonly warmupSteps?: number;
  /** Steps of the whole run; needed by linear and cosine. */
  readonly totalSteps: number;
}

/** The factor of the learning rate at each step from 0 on; equal to transformers' get_*_schedule_with_warmup. */
export function schedule(
  name: ScheduleName,
  { warmupSteps = 0, totalSteps }: ScheduleOptions,
): (step: number) => number {
  const decaySteps = Math.max(1, totalSteps - warmupSteps);
  return (step) => {
    if (step < warmupSteps) return step / Math.max(1, warmupSteps);
    const progress = (step - warmupSteps) / decaySteps;
    switch (name) {
      case "constant":
        return 1;
      case "linear":
        return Math.max(0, (totalSteps - step) / decaySteps);
      case "cosine":
        return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
    }
  };
}
