import { type MemoryOp, type PlainOp, type ValueType, memory, plain, resultType, signed, unsigned } from "./opcodes.ts";

/** Machine code, nested as it was put together. */
export type Code = readonly (number | Code)[];

/** Code that leaves one value on the stack. Its effects happen where it is put, in the order of its operands. */
export interface Expr {
  readonly type: ValueType;
  readonly code: Code;
}

/** A number where an instruction takes i32 or f32 stands for a constant. */
export type Operand = Expr | number;

const floatBytes = (x: number): number[] => [...new Uint8Array(Float32Array.of(x).buffer)];

export const i32 = (n: number): Expr => ({ type: "i32", code: [0x41, ...signed(n)] });
export const f32 = (x: number): Expr => ({ type: "f32", code: [0x43, ...floatBytes(x)] });
/** Four lanes of one float32. */
export const f32x4 = (x: number): Expr => {
  const lane = floatBytes(x);
  return { type: "v128", code: [0xfd, 0x0c, ...lane, ...lane, ...lane, ...lane] };
};
/** Four lanes of one int32. */
export const i32x4 = (n: number): Expr => {
  const lane = [...new Uint8Array(Int32Array.of(n).buffer)];
  return { type: "v128", code: [0xfd, 0x0c, ...lane, ...lane, ...lane, ...lane] };
};

/** What a number among the operands of `op` means: shifts count in i32. */
function constant(op: PlainOp, x: number): Expr {
  return op.startsWith("f32.") && !op.includes("i32") ? f32(x) : i32(x);
}

/** The result of an instruction: `op("f32x4.mul", a, b)`. */
export const op = (name: PlainOp, ...operands: readonly Operand[]): Expr => ({
  type: resultType(name),
  code: [operands.map((x) => (typeof x === "number" ? constant(name, x) : x).code), plain(name)],
});

/** What lies at `address` + `offset`: `load("v128.load", p, 16)`. */
export const load = (name: MemoryOp, address: Operand, offset = 0): Expr => ({
  type: resultType(name),
  code: [(typeof address === "number" ? i32(address) : address).code, memory(name), 0, unsigned(offset)],
});

export const add = (a: Operand, b: Operand): Expr => op("i32.add", a, b);
export const sub = (a: Operand, b: Operand): Expr => op("i32.sub", a, b);
export const mul = (a: Operand, b: Operand): Expr => op("i32.mul", a, b);
/** a + b·c, addresses mostly. */
export const at = (a: Operand, b: Operand, c: Operand): Expr => add(a, mul(b, c));

/** x where the i32 `condition` is not 0, else y; both are computed. */
export const select = (condition: Expr, x: Expr, y: Expr): Expr => ({
  type: x.type,
  code: x.type === "v128" ? [x.code, y.code, condition.code, 0x1c, 1, 0x7b] : [x.code, y.code, condition.code, 0x1b],
});
export const smaller = (a: Expr, b: Expr): Expr => select(op("i32.lt_s", a, b), a, b);
export const larger = (a: Expr, b: Expr): Expr => select(op("i32.gt_s", a, b), a, b);

/** Lane i of x, as f32. */
export const lane = (x: Expr, i: number): Expr => ({ type: "f32", code: [x.code, 0xfd, 31, i] });
/** x with the f32 `y` in lane i. */
export const withLane = (x: Expr, i: number, y: Expr): Expr => ({ type: "v128", code: [x.code, y.code, 0xfd, 32, i] });
/** Four 32-bit lanes out of the eight of x and y. */
export const shuffle = (x: Expr, y: Expr, ...lanes: readonly [number, number, number, number]): Expr => ({
  type: "v128",
  code: [x.code, y.code, 0xfd, 0x0d, lanes.flatMap((l) => [0, 1, 2, 3].map((byte) => 4 * l + byte))],
});
/** Sixteen bytes out of the thirty-two of x and y. */
export const shuffleBytes = (x: Expr, y: Expr, bytes: readonly number[]): Expr => ({
  type: "v128",
  code: [x.code, y.code, 0xfd, 0x0d, bytes],
});
