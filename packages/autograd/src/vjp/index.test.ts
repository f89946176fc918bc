import { type OpName, POINTWISE } from "@neolog/tensor";
import { expect, test } from "vitest";
import { VJP } from "./index.ts";
import type { Vjp } from "./rule.ts";

type Table = { readonly [N in OpName]: Vjp<N> };

test("a table without the rule of one op does not compile", () => {
  const { matmul: _, ...incomplete } = VJP;
  // @ts-expect-error the rule of matmul is missing
  const table: Table = incomplete;
  expect(table.matmul).toBeUndefined();
});

test("a rule of an op that does not exist does not compile", () => {
  // @ts-expect-error there is no such op
  const table: Table = { ...VJP, transmogrify: VJP.neg };
  expect(Object.keys(table)).toContain("transmogrify");
});

test("every pointwise op has a rule at run time too", () => {
  expect(Object.keys(VJP)).toEqual(expect.arrayContaining(Object.keys(POINTWISE)));
});
