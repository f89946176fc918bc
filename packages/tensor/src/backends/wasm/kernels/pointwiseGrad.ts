import type { View } from "../../../backend.ts";
import { parseExpression } from "../../../expression.ts";
import { sizeOf } from "../../../layout.ts";
import type { OpAttrs } from "../../../op.ts";
import { at, sub } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import { type Engine, type ModuleDefinition, addressOf } from "../engine.ts";
import { mathOf, printVectors, workOf } from "../vectorExpression.ts";
import { Vectors } from "../vectors.ts";

interface Kernel {
  readonly definition: ModuleDefinition;
  /** About how many multiply-adds an element costs. */
  readonly work: number;
}

const kernels = new Map<string, Kernel>();

/** out[0] = expressions[0](a, b, c), out[1] = expressions[1](a, b, c), element by element; what both have in common is computed once. */
export function pointwiseGrad(
  engine: Engine,
  out: View,
  [a, b, c]: readonly View[],
  { expressions }: OpAttrs["pointwiseGrad"],
): void {
  const key = expressions.join("; ");
  let kernel = kernels.get(key);
  if (!kernel) kernels.set(key, (kernel = compile(expressions)));
  const n = sizeOf(a!.layout.shape);
  const args = [addressOf(out), (addressOf(out) + 4 * n) | 0, addressOf(a!), addressOf(b!), addressOf(c!)];
  engine.run(kernel.definition, "pointwiseGrad", args, { items: n, work: kernel.work, grain: 16 });
}

function compile(expressions: OpAttrs["pointwiseGrad"]["expressions"]): Kernel {
  const roots = expressions.map((expression) => parseExpression(expression));
  const definition: ModuleDefinition = {
    math: [...new Set(roots.flatMap(mathOf))],
    build(m, { madd }) {
      const params = { out: "i32", out2: "i32", a: "i32", b: "i32", c: "i32" } as const;
      m.kernel("pointwiseGrad", params, (f, { out, out2, a, b, c, from, to }) => {
        const [p, ...others] = [a, b, c, out, out2].map((x) => f.local("i32", at(x, from, 4))) as [Local, ...Local[]];
        const end = f.local("i32", at(p, sub(to, from), 4));
        new Vectors(f, 4, madd).walk(p, end, others, (u) => {
          const inputs = [p, ...others.slice(0, 2)].map((x) => u.load(x));
          const both = printVectors(m, u, roots, inputs, false);
          both.forEach((y, i) => u.store(others[2 + i]!, y));
        });
      });
    },
  };
  return { definition, work: roots.reduce((work, root) => work + workOf(root), 0) };
}
