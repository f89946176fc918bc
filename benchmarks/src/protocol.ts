import type { Case } from "./case.ts";

/** What the suite asks a contender, one line of JSON each. */
export type Request =
  | { readonly prepare: Case }
  /** Run the prepared case for about so many milliseconds. */
  | { readonly sample: number }
  | { readonly release: true };

/** What a contender says first. */
export interface Hello {
  readonly name: string;
  readonly runtime: string;
  /** Bits of the widest vectors that its arithmetic can use: which roof it is measured by. */
  readonly vectorBits: 128 | 256;
  readonly info?: Readonly<Record<string, unknown>>;
}

/** What a contender answers, one line of JSON each. */
export type Reply =
  | { readonly hello: Hello }
  /** A package that is needed is not there. */
  | { readonly missing: string }
  /** Some elements of the result: contenders must agree. */
  | { readonly prepared: readonly number[] }
  /** It has nothing for this case. */
  | { readonly declined: true }
  /** Mean nanoseconds of a call, and the most memory that the process has had. */
  | { readonly ns: number; readonly maxRss: number }
  | { readonly released: true }
  | { readonly error: string };
