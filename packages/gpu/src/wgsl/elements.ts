import type { DType } from "@neolog/tensor";

/** How a storage buffer is bound: what one index of it loads. */
export type Element = "f32" | "i32" | "u32" | "vec4<f32>" | "vec2<u32>";

/** dtypes that kernels read as floats. */
export type FloatDType = Extract<DType, "float32" | "bfloat16" | "float16">;

const HALVES = {
  bfloat16: (word: string) => [`fromBfloat16(${word})`, `bitcast<f32>(${word} & 0xffff0000u)`] as const,
  float16: (word: string) => [`fromFloat16(${word} & 0xffffu)`, `fromFloat16(${word} >> 16u)`] as const,
};

/** An array of single elements, and `NAME_at(i: i32) -> f32` that reads one. 16-bit floats lie two in a word. */
export function scalars(name: string, dtype: FloatDType): { readonly element: Element; readonly declaration: string } {
  if (dtype === "float32")
    return { element: "f32", declaration: `fn ${name}_at(i : i32) -> f32 { return ${name}[i]; }` };
  const [low, high] = HALVES[dtype]("word");
  const declaration = `fn ${name}_at(i : i32) -> f32 {
  let word = ${name}[i >> 1u];
  return select(${low}, ${high}, (i & 1) == 1);
}`;
  return { element: "u32", declaration };
}

/** An array of four elements at a time, and `NAME_four(i: i32) -> vec4<f32>` that reads those from i, a multiple of 4. */
export function fours(name: string, dtype: FloatDType): { readonly element: Element; readonly declaration: string } {
  if (dtype === "float32")
    return {
      element: "vec4<f32>",
      declaration: `fn ${name}_four(i : i32) -> vec4<f32> { return ${name}[i >> 2u]; }`,
    };
  const [x, y] = HALVES[dtype]("words.x");
  const [z, w] = HALVES[dtype]("words.y");
  const declaration = `fn ${name}_four(i : i32) -> vec4<f32> {
  let words = ${name}[i >> 2u];
  return vec4<f32>(${x}, ${y}, ${z}, ${w});
}`;
  return { element: "vec2<u32>", declaration };
}
