import { type Code, type Expr, type Operand, add, i32, op } from "./expression.ts";
import { type LaneOp, type MemoryOp, VALUE_TYPE, type ValueType, lane, memory, unsigned } from "./opcodes.ts";

/** A parameter or variable of a function; as an expression, its value. */
export class Local implements Expr {
  readonly type: ValueType;
  readonly code: Code;
  readonly index: number;

  constructor(type: ValueType, index: number) {
    this.type = type;
    this.index = index;
    this.code = [0x20, ...unsigned(index)];
  }
}

const expr = (x: Operand): Expr => (typeof x === "number" ? i32(x) : x);

/** The body of a function under construction; each method appends an instruction or a structure around what `body` appends. */
export class FunctionBuilder {
  readonly params: readonly Local[];
  /** Runs before everything else: constants, arguments. */
  readonly prologue: Code[] = [];
  readonly #code: Code[] = [];
  readonly #locals: ValueType[] = [];

  constructor(params: readonly ValueType[]) {
    this.params = params.map((type, i) => new Local(type, i));
  }

  /** A fresh variable, 0 at first. */
  local(type: ValueType, initial?: Expr): Local {
    this.#locals.push(type);
    const made = new Local(type, this.params.length + this.#locals.length - 1);
    if (initial) this.set(made, initial);
    return made;
  }
  locals(n: number, type: ValueType): Local[] {
    return Array.from({ length: n }, () => this.local(type));
  }
  set(target: Local, value: Operand): void {
    this.#code.push([expr(value).code, 0x21, unsigned(target.index)]);
  }
  /** target += n, of i32. */
  advance(target: Local, n: Operand): void {
    this.set(target, add(target, n));
  }
  store(name: MemoryOp, address: Operand, value: Expr, offset = 0): void {
    this.#code.push([expr(address).code, value.code, memory(name), 0, unsigned(offset)]);
  }
  /** Stores one lane of a vector. */
  storeLane(name: LaneOp, address: Operand, value: Expr, index: number, offset = 0): void {
    this.#code.push([expr(address).code, value.code, lane(name), 0, unsigned(offset), index]);
  }
  /** Sets lane `index` of `target` to what lies at `address` + `offset`. */
  loadLane(target: Local, address: Operand, index: number, offset = 0): void {
    const loaded = [expr(address).code, target.code, lane("v128.load32_lane"), 0, unsigned(offset), index];
    this.#code.push([loaded, 0x21, unsigned(target.index)]);
  }
  /** Zeroes `bytes` bytes from `address`. */
  zero(address: Expr, bytes: Expr): void {
    this.#code.push([address.code, i32(0).code, bytes.code, 0xfc, 11, 0]);
  }
  copy(to: Expr, from: Expr, bytes: Expr): void {
    this.#code.push([to.code, from.code, bytes.code, 0xfc, 10, 0, 0]);
  }
  /** Calls a function of the module that returns nothing. */
  call({ index }: { readonly index: number }, ...args: readonly Operand[]): void {
    this.#code.push([args.map((arg) => expr(arg).code), 0x10, unsigned(index)]);
  }
  if(condition: Expr, then: () => void, otherwise?: () => void): void {
    this.#code.push([condition.code, 0x04, 0x40]);
    then();
    if (otherwise) {
      this.#code.push([0x05]);
      otherwise();
    }
    this.#code.push([0x0b]);
  }
  /** A block that `leave(depth)` leaves. */
  block(body: () => void): void {
    this.#code.push([0x02, 0x40]);
    body();
    this.#code.push([0x0b]);
  }
  /** Repeats `body` while the condition that it returns holds: a loop that runs at least once. */
  repeat(body: () => Expr): void {
    this.#code.push([0x03, 0x40]);
    const again = body();
    this.#code.push([again.code, 0x0d, 0, 0x0b]);
  }
  /** Leaves the `depth`-th block around (0: the innermost) when `condition` is not 0. */
  leaveIf(condition: Expr, depth: number): void {
    this.#code.push([condition.code, 0x0d, unsigned(depth)]);
  }
  /** for (i = start; i < end; i += step) of signed i32. */
  for(i: Local, start: Operand, end: Operand, step: Operand, body: () => void): void {
    this.set(i, start);
    this.if(op("i32.lt_s", i, end), () =>
      this.repeat(() => {
        body();
        this.advance(i, step);
        return op("i32.lt_s", i, end);
      }),
    );
  }
  /** while (p < end) { body(); p += step; …, as unsigned addresses; `others` advance by the same step. */
  while(p: Local, end: Expr, step: number, others: readonly Local[], body: () => void): void {
    this.if(op("i32.lt_u", p, end), () =>
      this.repeat(() => {
        body();
        for (const other of others) this.advance(other, step);
        this.advance(p, step);
        return op("i32.lt_u", p, end);
      }),
    );
  }
  return(): void {
    this.#code.push([0x0f]);
  }

  /** The body as a module holds it: its variables, then its instructions. */
  encode(): number[] {
    const locals = this.#locals.map((type) => [1, VALUE_TYPE[type]]);
    const body: number[] = [];
    append(body, [...unsigned(locals.length), locals, this.prologue, this.#code, 0x0b]);
    return [...unsigned(body.length), ...body];
  }
}

function append(bytes: number[], code: Code): void {
  for (const part of code) {
    if (typeof part === "number") bytes.push(part);
    else append(bytes, part);
  }
}
