import {
  type Backend,
  DisposedError,
  type FusedName,
  Scope,
  Tensor,
  detach,
  mul,
  openBackend,
  randn,
  square,
  tensor,
} from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GradientError, backward } from "./backward.ts";
import { gradcheck, gradientsOf } from "./gradcheck.ts";
import { graphBelow, lean } from "./lean.ts";
import { fusedReference } from "./testing/backends.ts";
import { singleGradients } from "./testing/singleGradients.ts";
import { CASES, type Case, type CaseMaker } from "./testing/cases.ts";
import { VJP } from "./vjp/index.ts";
import { savedBy } from "./vjp/saved.ts";

const FUSED: readonly FusedName[] = [
  "softmax",
  "logSoftmax",
  "layerNorm",
  "rmsNorm",
  "rope",
  "attention",
  "crossEntropy",
];

const backend = await openBackend("reference");
const withKernels = await fusedReference();

function checkAll(cases: CaseMaker, on: Backend): void {
  fc.assert(
    fc.property(cases, ({ inputs, f }) => {
      using _ = new Scope();
      gradcheck(
        f,
        inputs.map((x) => x.on(on, "float64")),
      );
    }),
    { numRuns: 25 },
  );
}

describe("the gradient agrees with differences", () => {
  test.each(Object.entries(CASES))("%s", (_, cases) => checkAll(cases, backend));
  test.each(FUSED)("%s, of the fused kernel", (op) => checkAll(CASES[op], withKernels));
});

/** f of copies that f's caller does not hold, with a gradient through those that `passes` lets through, and through one at least. */
const ofCopies =
  (f: Case["f"], passes: readonly boolean[]): Case["f"] =>
  (...inputs) => {
    const some = inputs.some((_, i) => passes[i]);
    return f(...inputs.map((x, i) => mul(passes[i] || (!some && i === 0) ? x : detach(x), 1)));
  };

describe.each([
  ["composites", backend],
  ["fused kernels", withKernels],
])("what SAVED names, of %s", (_, on) => {
  const pairs = (cases: CaseMaker): CaseMaker =>
    fc
      .tuple(cases, fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }))
      .map(([{ inputs, f }, passes]) => ({ f: ofCopies(f, passes), inputs }));

  test.each(Object.entries(CASES))("is enough for the gradient of %s", (_, cases) => {
    fc.assert(
      fc.property(pairs(cases), ({ inputs, f }) => {
        using _ = new Scope();
        const points = inputs.map((x) => x.on(on, "float64"));
        const all = gradientsOf(f, points);
        expect(
          gradientsOf((...xs) => lean(() => f(...xs)), points),
          "the gradient that reads less",
        ).toEqual(all);
      }),
      { numRuns: 25 },
    );
  });

  test.each(Object.entries(CASES))("is all read by the gradient of %s", (op, cases) => {
    fc.assert(
      fc.property(pairs(cases), ({ inputs, f }) => {
        const points = inputs.map((x) => x.on(on, "float64"));
        for (let i = 0; ; i++) {
          using scope = new Scope();
          const leaves = points.map((x) => Object.assign(Tensor.viewing(x, x.layout), { requiresGrad: true }));
          const y = f(...leaves);
          const node = [...graphBelow(y, scope).made].find(({ source }) => source?.op === op);
          const saved = node ? savedBy(node, node.source!) : [];
          if (i >= saved.length) return;
          const gradient = randn(y.shape, 1, y.dtype, on);
          saved[i]!.forget();
          expect(() => backward(y, gradient), `value ${i} of ${op}`).toThrow(DisposedError);
        }
      }),
      { numRuns: 5 },
    );
  });
});

describe.each(await computingBackends())("$title", ({ backend: tested }) => {
  singleGradients(async () => tested);
});

describe("gradcheck", () => {
  test("finds a wrong rule, and names the element", () => {
    const broken = { ...VJP };
    const rule = VJP.square;
    try {
      Object.assign(VJP, { square: VJP.neg });
      const x = tensor([1, 2], [2], "float64", backend);
      expect(() => gradcheck(square, [x])).toThrow(GradientError);
      expect(() => gradcheck(square, [x])).toThrow(
        /^gradcheck: the gradient of element 0 of input 0 must be .+ by differences, got /,
      );
    } finally {
      Object.assign(VJP, { square: rule });
    }
    expect(VJP).toEqual(broken);
  });
  test("wants float64", () => {
    expect(() => gradcheck(square, [tensor([1])])).toThrow("gradcheck: inputs must be float64, got float32");
  });
});
