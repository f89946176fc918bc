import type { View } from "../../../backend.ts";
import { type Node, parseExpression } from "../../../expression.ts";
import { isContiguous, sizeOf } from "../../../layout.ts";
import { type Nest, collapse } from "../../cpu/strided.ts";
import { type Expr, add, at, i32, load, mul, op, sub } from "../asm/expression.ts";
import type { Local } from "../asm/function.ts";
import type { ModuleBuilder } from "../asm/module.ts";
import { type Engine, type ModuleDefinition, addressOf, memoryOf } from "../engine.ts";
import { type Place, forEachIndex } from "../loops.ts";
import { isIntegral, mathOf, printVectors, workOf } from "../vectorExpression.ts";
import { type Lanes, Vectors } from "../vectors.ts";

/** How an operand is read: a number, or elements that lie still, next to each other, or far apart in the inner loop. */
const NUMBER = 0;
const STILL = 1;
const NEXT = 2;
const FAR = 3;
/** Added to the last three for int32. */
const INT32 = 4;
const KINDS = 8;

/** Operands of a kernel, `out` first, and how many loops are around the inner one. */
interface Signature {
  readonly kinds: readonly number[];
  readonly outer: number;
}

interface Kernel {
  readonly definition: ModuleDefinition;
  /** About how many multiply-adds an element costs. */
  readonly work: number;
}

/** Kernels by expression, then by signature; null where none fits. */
const kernels = new Map<string, Map<number, Kernel | null>>();
/** The arguments of the call that is being made: an array for each call would cost more than a small call. */
const args: number[] = [];

/** out[i] = expression(inputs[0][i], …); true when done, false where no SIMD kernel fits. */
export function pointwise(engine: Engine, expression: string, out: View, inputs: readonly (View | number)[]): boolean {
  const size = sizeOf(out.layout.shape);
  if (size === 0) return true;
  const nest = isFlat(out, inputs) ? null : nestOf(out, inputs);
  const outer = nest ? nest.sizes.length : 0;
  const n = nest ? nest.n : size;
  args.length = 0;
  args.push(n);
  for (let axis = 0; axis < outer; axis++) args.push(nest!.sizes[axis]!);
  let signature = outer * KINDS + describe(out, nest, 0);
  let view = 1;
  for (const x of inputs) {
    if (typeof x === "number") args.push(x);
    signature = signature * KINDS + (typeof x === "number" ? NUMBER : describe(x, nest, view++));
  }
  const kernel = Number.isNaN(signature) ? null : kernelFor(expression, signature, 1 + inputs.length);
  if (!kernel || (out.buffer.dtype === "int32" && !inputs.every(isInt32))) return false;
  const { definition, work } = kernel;
  if (outer === 0) engine.run(definition, "pointwise", args, { items: n, work, grain: 16 });
  else engine.run(definition, "pointwise", args, { items: size / n, work: n * work });
  return true;
}

/** True when all operands are numbers or lie row-major: one loop over all elements. */
function isFlat(out: View, inputs: readonly (View | number)[]): boolean {
  if (!isContiguous(out.layout)) return false;
  for (const x of inputs) if (typeof x !== "number" && !isContiguous(x.layout)) return false;
  return true;
}

function nestOf(out: View, inputs: readonly (View | number)[]): Nest {
  const layouts = [out.layout];
  for (const x of inputs) if (typeof x !== "number") layouts.push(x.layout);
  return collapse(out.layout.shape, layouts);
}

/** The kind of an operand; appends its address, its step and its strides to the arguments. NaN where no kernel reads it. */
function describe(view: View, nest: Nest | null, i: number): number {
  const { dtype } = view.buffer;
  if ((dtype !== "float32" && dtype !== "int32") || memoryOf(view) !== 0) return NaN;
  const step = nest ? nest.steps[i]! : 1;
  const kind = step === 0 ? STILL : step === 1 ? NEXT : FAR;
  args.push(addressOf(view));
  if (kind === FAR) args.push(4 * step);
  if (nest) for (const stride of nest.strides[i]!) args.push(4 * stride);
  return dtype === "int32" ? kind + INT32 : kind;
}

/** True for what int32 arithmetic takes: int32 tensors and whole numbers. */
const isInt32 = (x: View | number): boolean => (typeof x === "number" ? (x | 0) === x : x.buffer.dtype === "int32");

function kernelFor(expression: string, signature: number, operands: number): Kernel | null {
  let known = kernels.get(expression);
  if (!known) kernels.set(expression, (known = new Map()));
  let kernel = known.get(signature);
  if (kernel === undefined) known.set(signature, (kernel = compile(expression, decode(signature, operands))));
  return kernel;
}

function decode(signature: number, operands: number): Signature {
  const kinds: number[] = [];
  let rest = signature;
  for (let i = 0; i < operands; i++) {
    kinds.unshift(rest % KINDS);
    rest = Math.floor(rest / KINDS);
  }
  return { kinds, outer: rest };
}

function compile(expression: string, signature: Signature): Kernel | null {
  const root = parseExpression(expression);
  if (signature.kinds[0]! > INT32 && !isIntegral(root)) return null;
  const definition: ModuleDefinition = {
    math: mathOf(root),
    build(m, { madd }) {
      m.kernel("pointwise", parametersOf(signature), (f, { from, to, ...params }) =>
        buildLoops(m, new Vectors(f, 4, madd), root, signature, params, [from, to]),
      );
    },
  };
  return { definition, work: workOf(root) };
}

/** The arguments in the order in which `pointwise` pushes them. */
function parametersOf({ kinds, outer }: Signature): Record<string, "i32" | "f32"> {
  const axes = Array.from({ length: outer }, (_, axis) => axis);
  const integer = kinds[0]! > INT32;
  const names: [string, "i32" | "f32"][] = [
    ["n", "i32"],
    ...axes.map((axis): [string, "i32"] => [`size${axis}`, "i32"]),
  ];
  kinds.forEach((kind, i) => {
    names.push([`x${i}`, kind === NUMBER && !integer ? "f32" : "i32"]);
    if (kind % INT32 === FAR) names.push([`step${i}`, "i32"]);
    if (kind !== NUMBER) for (const axis of axes) names.push([`stride${i},${axis}`, "i32"]);
  });
  return Object.fromEntries(names);
}

/** An operand of the inner loop: its number, or where it lies. */
interface Operand extends Place {
  readonly kind: number;
  readonly x: Local;
  readonly step: Local | undefined;
}

function buildLoops(
  m: ModuleBuilder,
  v: Vectors,
  root: Node,
  { kinds, outer }: Signature,
  params: { readonly [name: string]: Local },
  [from, to]: readonly [Local, Local],
): void {
  const { f } = v;
  const operands = kinds.map((kind, i): Operand => {
    const strides = kind === NUMBER ? [] : Array.from({ length: outer }, (_, axis) => params[`stride${i},${axis}`]!);
    const start = params[`x${i}`]!;
    return { kind, start, x: kind === NUMBER ? start : f.local("i32"), step: params[`step${i}`], strides };
  });
  const places = operands.filter(({ kind }) => kind !== NUMBER);
  if (outer === 0) {
    for (const { kind, x, start, step } of places)
      f.set(x, kind % INT32 === STILL ? start : at(start, from, step ?? 4));
    buildRow(m, v, root, operands, sub(to, from));
    return;
  }
  const sizes = Array.from({ length: outer }, (_, axis) => params[`size${axis}`]!);
  forEachIndex(f, places, sizes, [from, to], () => {
    for (const { x, start } of places) f.set(x, start);
    buildRow(m, v, root, operands, params["n"]!);
  });
}

/** The inner loop over n elements, which moves the operands. */
function buildRow(m: ModuleBuilder, v: Vectors, root: Node, operands: readonly Operand[], n: Expr): void {
  const { f } = v;
  const [out, ...inputs] = operands as [Operand, ...Operand[]];
  const integer = out.kind > INT32;
  const still = inputs.map(({ kind, x }) => {
    if (kind === NUMBER) return f.local("v128", op(integer ? "i32x4.splat" : "f32x4.splat", x));
    return kind % INT32 === STILL
      ? converted(new Vectors(f, 1, v.madds), kind, integer, [f.local("v128", load("v128.load32_splat", x))])[0]!
      : null;
  });
  const moving = operands.filter(({ kind }) => kind % INT32 === NEXT).map(({ x }) => x);
  const driver = moving.shift() ?? f.local("i32", i32(0));
  const end = f.local("i32", add(driver, mul(n, 4)));
  v.walk(driver, end, moving, (u) => {
    const lanes = inputs.map((input, i) =>
      still[i] ? u.same(still[i]) : converted(u, input.kind, integer, read(u, input)),
    );
    const y = printVectors(m, u, [root], lanes, integer)[0]!;
    if (out.kind % INT32 === FAR) u.scatter(out.x, out.step!, y);
    else u.store(out.x, y);
  });
}

const read = (v: Vectors, { kind, x, step }: Operand): Lanes => (kind % INT32 === FAR ? v.gather(x, step!) : v.load(x));

/** int32 lanes as float32, where the kernel computes in float32. */
const converted = (v: Vectors, kind: number, integer: boolean, x: Lanes): Lanes =>
  kind > INT32 && !integer ? v.apply("f32x4.convert_i32x4_s", x) : x;
