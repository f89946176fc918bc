import { type Expr, load } from "./expression.ts";
import { FunctionBuilder, type Local } from "./function.ts";
import { VALUE_TYPE, type ValueType, unsigned } from "./opcodes.ts";

/** Pages of 64 KiB in the largest memory that 32-bit addresses reach. */
export const MAX_PAGES = 65_536;

/** What every kernel gets beside its own arguments: its share [from, to) of the items, and scratch memory of its thread. */
export interface Share {
  readonly from: Local;
  readonly to: Local;
  readonly scratch: Local;
}
export type Arguments<P extends string> = { readonly [K in P]: Local } & Share;

/** A kernel that can be called: its arguments, in order. */
export interface KernelSpec {
  readonly name: string;
  readonly types: readonly ("i32" | "f32")[];
}

/** What a module may import of Math: slow, one float64 at a time, right. */
export type MathName = "sin" | "cos" | "expm1" | "log1p" | "pow" | "log" | "tanh";
const ARITY: { readonly [N in MathName]: number } = { sin: 1, cos: 1, expm1: 1, log1p: 1, pow: 2, log: 1, tanh: 1 };

/** A function of the module under construction, to call. */
export interface Callee {
  readonly index: number;
}

/**
 * A WebAssembly module under construction. It imports the shared memory as env.memory, and what it names of Math; kernels are its
 * exports: (args, from, to, scratch), where args is the address of their arguments, four bytes each.
 */
export class ModuleBuilder {
  readonly kernels: KernelSpec[] = [];
  readonly #math: readonly MathName[];
  readonly #functions: FunctionBuilder[] = [];
  readonly #exported: number[] = [];

  constructor(math: readonly MathName[] = []) {
    this.#math = math;
  }

  /** A function that kernels of this module call. */
  function(params: readonly ValueType[], build: (f: FunctionBuilder, ...params: readonly Local[]) => void): Callee {
    const f = new FunctionBuilder(params);
    build(f, ...f.params);
    return { index: this.#math.length + this.#functions.push(f) - 1 };
  }

  /** A kernel and its arguments by name, i32 or f32. */
  kernel<P extends string>(
    name: string,
    params: { readonly [K in P]: "i32" | "f32" },
    build: (f: FunctionBuilder, args: Arguments<P>) => void,
  ): void {
    const f = new FunctionBuilder(["i32", "i32", "i32", "i32"]);
    const [args, from, to, scratch] = f.params as [Local, Local, Local, Local];
    const entries = Object.entries(params) as [P, "i32" | "f32"][];
    const named = entries.map(([key, type], i): [P, Local] => {
      const local = f.local(type);
      f.prologue.push([load(`${type}.load`, args, 4 * i).code, 0x21, unsigned(local.index)]);
      return [key, local];
    });
    this.kernels.push({ name, types: entries.map(([, type]) => type) });
    build(f, { ...Object.fromEntries(named), from, to, scratch } as Arguments<P>);
    this.#exported.push(this.#functions.push(f) - 1);
  }

  /** Math[name] of float32 operands. */
  math(name: MathName, ...operands: readonly Expr[]): Expr {
    const index = this.#math.indexOf(name);
    if (index < 0) throw new Error(`ModuleBuilder: Math.${name} must be imported, got ${this.#math.join(", ")}`);
    return { type: "f32", code: [operands.map((x) => [x.code, 0xbb]), 0x10, unsigned(index), 0xb6] };
  }

  build(): Uint8Array<ArrayBuffer> {
    const types: string[] = [];
    const typeOf = (params: readonly number[], results: readonly number[]): number => {
      const type = [0x60, ...unsigned(params.length), ...params, ...unsigned(results.length), ...results].join();
      const known = types.indexOf(type);
      return known >= 0 ? known : types.push(type) - 1;
    };
    const imports = this.#math.map((name) => {
      const params = Array.from({ length: ARITY[name] }, () => VALUE_TYPE.f64);
      return [...text("math"), ...text(name), 0, ...unsigned(typeOf(params, [VALUE_TYPE.f64]))];
    });
    const memory = [...text("env"), ...text("memory"), 2, 3, ...unsigned(1), ...unsigned(MAX_PAGES)];
    const functions = this.#functions.map((f) =>
      typeOf(
        f.params.map((p) => VALUE_TYPE[p.type]),
        [],
      ),
    );
    const exports = this.kernels.map(({ name }, i) => [
      ...text(name),
      0,
      ...unsigned(this.#math.length + this.#exported[i]!),
    ]);
    return Uint8Array.from([
      0,
      0x61,
      0x73,
      0x6d,
      1,
      0,
      0,
      0,
      ...section(
        1,
        types.map((type) => type.split(",").map(Number)),
      ),
      ...section(2, [memory, ...imports]),
      ...section(
        3,
        functions.map((type) => unsigned(type)),
      ),
      ...section(7, exports),
      ...section(
        10,
        this.#functions.map((f) => f.encode()),
      ),
    ]);
  }
}

const text = (s: string): number[] => {
  const bytes = new TextEncoder().encode(s);
  return [...unsigned(bytes.length), ...bytes];
};

const section = (id: number, items: readonly (readonly number[])[]): number[] => {
  const body = [...unsigned(items.length), ...items.flat()];
  return [id, ...unsigned(body.length), ...body];
};
