import type { Arguments, Groups, KernelStyle, TunedKernel } from "./tunedKernel.ts";

/** How a kernel goes along rows, and sums over them: a workgroup a row through workgroup memory, or a lane a row. */
export interface Walk {
  readonly workgroup: Groups;
  /** Module-scope WGSL: `sum_of(value, lane)` and `largest_of(value, lane)`, of what was found along the row. */
  readonly declarations: string;
  /** The number of the row that this lane works on. */
  readonly row: string;
  /** True in the one lane that stores what is one number a row. */
  readonly stores: string;
  /** Runs a statement for every i (j by default) below a length (the row's by default). What it adds to by `+=` is 0 before. */
  readonly each: (statement: string, i?: string, length?: string) => string;
  readonly groups: TunedKernel["groups"];
}

/** Workgroups along one axis. */
export const LARGEST_AXIS = 65_535;

/** Workgroups for so many, within what an axis may have. */
export const groupsFor = (count: number): Groups => {
  const deep = Math.max(1, Math.ceil(count / LARGEST_AXIS));
  return [Math.ceil(count / deep), deep, 1];
};

export function walkOf(style: KernelStyle, lanes: 64 | 256): Walk {
  return style === "alone" ? ALONE : together(lanes);
}

const together = (lanes: number): Walk => ({
  workgroup: [lanes, 1, 1],
  declarations: reductions(lanes),
  row: "i32(group.x + group.y * groups.x)",
  stores: "lane == 0",
  each: (statement, i = "j", length = "params.n") =>
    `for (var ${i} = lane; ${i} < ${length}; ${i} += ${lanes}) { ${statement} }`,
  groups: ({ rows }: Arguments) => groupsFor(rows!),
});

/** Rows that lie beside one another in a vector of the processor. */
export const BESIDE = 4;
/** Terms that are summed before they join the total: rounding grows with n / BLOCK + BLOCK, not with n. */
const BLOCK = 256;

const ALONE: Walk = {
  workgroup: [BESIDE, 1, 1],
  declarations: `
fn sum_of(value : f32, lane : i32) -> f32 { return value; }
fn largest_of(value : f32, lane : i32) -> f32 { return value; }`,
  row: `i32(group.x + group.y * groups.x) * ${BESIDE} + lane`,
  stores: "true",
  each: (statement, i = "j", length = "params.n") => {
    const sums = [...statement.matchAll(/(\w+) \+= /g)].map(([, name]) => name!);
    return `for (var block = 0; block < ${length}; block += ${BLOCK}) {
    ${sums.map((name) => `let ${name}_before = ${name}; ${name} = 0.0;`).join(" ")}
    for (var ${i} = block; ${i} < min(block + ${BLOCK}, ${length}); ${i}++) { ${statement} }
    ${sums.map((name) => `${name} += ${name}_before;`).join(" ")}
  }`;
  },
  groups: ({ rows }: Arguments) => groupsFor(Math.ceil(rows! / BESIDE)),
};

/** `sum_of` and `largest_of` what the lanes hold: a tree, in one order. */
const reductions = (lanes: number): string => `
var<workgroup> partial : array<f32, ${lanes}>;
fn sum_of(value : f32, lane : i32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = ${lanes / 2}; half > 0; half >>= 1u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier();
  return total;
}
fn largest_of(value : f32, lane : i32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = ${lanes / 2}; half > 0; half >>= 1u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier();
  return total;
}`;
