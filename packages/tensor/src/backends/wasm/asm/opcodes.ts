/** A value of WebAssembly. */
export type ValueType = "i32" | "f32" | "f64" | "v128";

export const VALUE_TYPE: { readonly [T in ValueType]: number } = { i32: 0x7f, f32: 0x7d, f64: 0x7c, v128: 0x7b };

/** Instructions without immediates by their names in the specification; those of SIMD follow the prefix 0xfd. */
const SCALAR = {
  drop: 0x1a,
  "i32.eqz": 0x45,
  "i32.eq": 0x46,
  "i32.ne": 0x47,
  "i32.lt_s": 0x48,
  "i32.lt_u": 0x49,
  "i32.gt_s": 0x4a,
  "i32.gt_u": 0x4b,
  "i32.le_s": 0x4c,
  "i32.le_u": 0x4d,
  "i32.ge_s": 0x4e,
  "i32.ge_u": 0x4f,
  "f32.eq": 0x5b,
  "f32.ne": 0x5c,
  "f32.lt": 0x5d,
  "f32.gt": 0x5e,
  "f32.le": 0x5f,
  "f32.ge": 0x60,
  "i32.add": 0x6a,
  "i32.sub": 0x6b,
  "i32.mul": 0x6c,
  "i32.div_s": 0x6d,
  "i32.div_u": 0x6e,
  "i32.rem_s": 0x6f,
  "i32.rem_u": 0x70,
  "i32.and": 0x71,
  "i32.or": 0x72,
  "i32.xor": 0x73,
  "i32.shl": 0x74,
  "i32.shr_s": 0x75,
  "i32.shr_u": 0x76,
  "f32.abs": 0x8b,
  "f32.neg": 0x8c,
  "f32.sqrt": 0x91,
  "f32.add": 0x92,
  "f32.sub": 0x93,
  "f32.mul": 0x94,
  "f32.div": 0x95,
  "f32.min": 0x96,
  "f32.max": 0x97,
  "f64.add": 0xa0,
  "f64.sub": 0xa1,
  "f64.mul": 0xa2,
  "f64.div": 0xa3,
  "f32.convert_i32_s": 0xb2,
  "f32.demote_f64": 0xb6,
  "f64.convert_i32_s": 0xb7,
  "f64.promote_f32": 0xbb,
  "i32.reinterpret_f32": 0xbc,
  "f32.reinterpret_i32": 0xbe,
} as const;

const SIMD = {
  "i8x16.swizzle": 0x0e,
  "i32x4.splat": 0x11,
  "f32x4.splat": 0x13,
  "f64x2.splat": 0x14,
  "i32x4.eq": 0x37,
  "i32x4.ne": 0x38,
  "i32x4.lt_s": 0x39,
  "i32x4.gt_s": 0x3b,
  "i32x4.le_s": 0x3d,
  "i32x4.ge_s": 0x3f,
  "f32x4.eq": 0x41,
  "f32x4.ne": 0x42,
  "f32x4.lt": 0x43,
  "f32x4.gt": 0x44,
  "f32x4.le": 0x45,
  "f32x4.ge": 0x46,
  "v128.not": 0x4d,
  "v128.and": 0x4e,
  "v128.andnot": 0x4f,
  "v128.or": 0x50,
  "v128.xor": 0x51,
  "v128.bitselect": 0x52,
  "v128.any_true": 0x53,
  "f32x4.demote_f64x2_zero": 0x5e,
  "f64x2.promote_low_f32x4": 0x5f,
  "f32x4.ceil": 0x67,
  "f32x4.floor": 0x68,
  "f32x4.trunc": 0x69,
  "f32x4.nearest": 0x6a,
  "i16x8.narrow_i32x4_u": 0x86,
  "i32x4.abs": 0xa0,
  "i32x4.neg": 0xa1,
  "i32x4.all_true": 0xa3,
  "i32x4.bitmask": 0xa4,
  "i32x4.extend_low_i16x8_s": 0xa7,
  "i32x4.extend_high_i16x8_s": 0xa8,
  "i32x4.extend_low_i16x8_u": 0xa9,
  "i32x4.extend_high_i16x8_u": 0xaa,
  "i32x4.shl": 0xab,
  "i32x4.shr_s": 0xac,
  "i32x4.shr_u": 0xad,
  "i32x4.add": 0xae,
  "i32x4.sub": 0xb1,
  "i32x4.mul": 0xb5,
  "i32x4.min_s": 0xb6,
  "i32x4.max_s": 0xb8,
  "f32x4.abs": 0xe0,
  "f32x4.neg": 0xe1,
  "f32x4.sqrt": 0xe3,
  "f32x4.add": 0xe4,
  "f32x4.sub": 0xe5,
  "f32x4.mul": 0xe6,
  "f32x4.div": 0xe7,
  "f32x4.min": 0xe8,
  "f32x4.max": 0xe9,
  "f32x4.pmin": 0xea,
  "f32x4.pmax": 0xeb,
  "f64x2.add": 0xf0,
  "f64x2.sub": 0xf1,
  "f64x2.mul": 0xf2,
  "f64x2.div": 0xf3,
  "i32x4.trunc_sat_f32x4_s": 0xf8,
  "f32x4.convert_i32x4_s": 0xfa,
  "f32x4.relaxed_madd": 0x105,
  "f32x4.relaxed_nmadd": 0x106,
} as const;

/** Loads and stores: their bytes, then follow alignment and offset. */
const MEMORY = {
  "i32.load": [0x28],
  "f32.load": [0x2a],
  "f64.load": [0x2b],
  "i32.load16_u": [0x2f],
  "i32.store": [0x36],
  "f32.store": [0x38],
  "f64.store": [0x39],
  "i32.store16": [0x3b],
  "v128.load": [0xfd, 0x00],
  "v128.load16x4_u": [0xfd, 0x04],
  "v128.load32_splat": [0xfd, 0x09],
  "v128.store": [0xfd, 0x0b],
  "v128.load32_zero": [0xfd, 0x5c],
  "v128.load64_zero": [0xfd, 0x5d],
} as const;

/** Loads and stores of one lane: bytes, alignment, offset, lane. */
const LANE = {
  "v128.load32_lane": [0xfd, 0x56],
  "v128.store16_lane": [0xfd, 0x59],
  "v128.store32_lane": [0xfd, 0x5a],
  "v128.store64_lane": [0xfd, 0x5b],
} as const;

export type PlainOp = keyof typeof SCALAR | keyof typeof SIMD;
export type MemoryOp = keyof typeof MEMORY;
export type LaneOp = keyof typeof LANE;

/** Unsigned LEB128, of numbers up to 2⁵³. */
export function unsigned(n: number): number[] {
  const bytes: number[] = [];
  let rest = n;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest > 0 ? low | 0x80 : low);
  } while (rest > 0);
  return bytes;
}

/** Signed LEB128 of a 32-bit integer. */
export function signed(n: number): number[] {
  const bytes: number[] = [];
  for (let rest = n | 0; ; rest >>= 7) {
    const low = rest & 0x7f;
    if ((rest >> 6 === 0 && low < 0x40) || (rest >> 6 === -1 && low >= 0x40)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

export const plain = (op: PlainOp): readonly number[] =>
  op in SCALAR ? [SCALAR[op as keyof typeof SCALAR]] : [0xfd, ...unsigned(SIMD[op as keyof typeof SIMD])];
export const memory = (op: MemoryOp): readonly number[] => MEMORY[op];
export const lane = (op: LaneOp): readonly number[] => LANE[op];

/** The type of what an instruction leaves on the stack. */
export function resultType(op: PlainOp | MemoryOp): ValueType {
  const [type, what] = op.split(".") as [string, string | undefined];
  if (/^(i32x4|v128)$/.test(type) && /^(any_true|all_true|bitmask)$/.test(what!)) return "i32";
  if (/^f(32|64)$/.test(type)) return /^(eq|ne|lt|gt|le|ge)$/.test(what!) ? "i32" : (type as ValueType);
  return type === "i32" ? "i32" : "v128";
}
