import type { DType, TypedArray } from "@neolog/tensor";

/** How a texture holds numbers: four to a texel, or eight halves, two in each channel of 32 bits. */
export type Format = "float32" | "bfloat16" | "float16";

/** Unsigned and signed integers, so that the kind of sampler says how its bits are read; as floats, bits could change on the way. */
export const FORMATS = {
  float32: { perTexel: 4, internal: "RGBA32F", format: "RGBA", type: "FLOAT", sampler: "sampler2D" },
  bfloat16: {
    perTexel: 8,
    internal: "RGBA32UI",
    format: "RGBA_INTEGER",
    type: "UNSIGNED_INT",
    sampler: "usampler2D",
  },
  float16: { perTexel: 8, internal: "RGBA32I", format: "RGBA_INTEGER", type: "INT", sampler: "isampler2D" },
} as const satisfies Record<Format, unknown>;

/** The format in which the host's numbers of a dtype arrive. */
export const formatOf = (dtype: DType): Format => (dtype === "bfloat16" || dtype === "float16" ? dtype : "float32");

/** Numbers as the host has them, from the bytes of texels. */
export const hostView = (format: Format, bytes: ArrayBuffer): Float32Array | Uint16Array =>
  format === "float32" ? new Float32Array(bytes) : new Uint16Array(bytes);

/** The words of texels that hold such numbers, the last filled up with 0. */
export function texelsOf(format: Format, values: TypedArray): Float32Array | Uint32Array | Int32Array {
  const { perTexel } = FORMATS[format];
  const whole = Math.ceil(values.length / perTexel) * 16;
  let bytes: ArrayBuffer;
  let start = 0;
  if (values.byteLength === whole && values.byteOffset % 4 === 0 && values.buffer instanceof ArrayBuffer)
    [bytes, start] = [values.buffer, values.byteOffset];
  else {
    bytes = new ArrayBuffer(whole);
    new Uint8Array(bytes).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  const Words = { float32: Float32Array, bfloat16: Uint32Array, float16: Int32Array }[format];
  return new Words(bytes, start, whole / 4);
}

/**
 * `fetch4` and `element` for every kind of sampler, and gpu.js's own reading of an element. A texture's width is a power of two, of which
 * `shift` is the exponent: exact for every index, where gpu.js divides in float32.
 */
export const FETCH = `
precision highp usampler2D;
precision highp isampler2D;
vec4 fromHalves(uvec4 bits) {
  uvec4 size = bits & uvec4(0x7fffu);
  uvec4 exponent = 0x38000000u * (1u + uvec4(greaterThanEqual(size, uvec4(0x7c00u))));
  vec4 large = uintBitsToFloat(((bits & uvec4(0x8000u)) << 16u) | ((size << 13u) + exponent));
  vec4 small = vec4(size) * 5.9604644775390625e-8;
  small = mix(small, -small, notEqual(bits & uvec4(0x8000u), uvec4(0u)));
  return mix(large, small, lessThan(size, uvec4(0x400u)));
}
uvec4 halves(uvec4 words, int at) {
  uvec2 two = (at & 4) == 0 ? words.xy : words.zw;
  return uvec4(two.x & 0xffffu, two.x >> 16u, two.y & 0xffffu, two.y >> 16u);
}
ivec2 placeOf(int texel, int shift) { return ivec2(texel & ((1 << shift) - 1), texel >> shift); }
vec4 fetch4(sampler2D tex, int shift, int at) { return texelFetch(tex, placeOf(at >> 2, shift), 0); }
vec4 fetch4(usampler2D tex, int shift, int at) {
  return uintBitsToFloat(halves(texelFetch(tex, placeOf(at >> 3, shift), 0), at) << 16u);
}
vec4 fetch4(isampler2D tex, int shift, int at) {
  return fromHalves(halves(uvec4(texelFetch(tex, placeOf(at >> 3, shift), 0)), at));
}
${["sampler2D", "usampler2D", "isampler2D"]
  .map((sampler) => `float element(${sampler} tex, int shift, int at) { return fetch4(tex, shift, at)[at & 3]; }`)
  .join("\n")}
${["usampler2D", "isampler2D"]
  .map(
    (sampler) =>
      `float getMemoryOptimized32(${sampler} tex, ivec2 texSize, ivec3 texDim, int z, int y, int x) { return element(tex, texDim.y, x); }`,
  )
  .join("\n")}
`;
