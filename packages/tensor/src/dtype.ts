/** float64 exists on the reference backend; bfloat16 and float16 only store: every op widens them to float32 first. */
export type DType = "float64" | "float32" | "int32" | "bfloat16" | "float16";

/** The host array of each dtype; 16-bit floats are raw bits. */
export type TypedArray =
  | Float64Array<ArrayBufferLike>
  | Float32Array<ArrayBufferLike>
  | Int32Array<ArrayBufferLike>
  | Uint16Array<ArrayBufferLike>;

export const BYTES_PER_ELEMENT: { readonly [D in DType]: number } = {
  float64: 8,
  float32: 4,
  int32: 4,
  bfloat16: 2,
  float16: 2,
};

export const isStorageDType = (dtype: DType): boolean => dtype === "bfloat16" || dtype === "float16";

/** A zeroed host array of `length` elements. */
export function hostArray(dtype: DType, length: number): TypedArray {
  switch (dtype) {
    case "float64":
      return new Float64Array(length);
    case "float32":
      return new Float32Array(length);
    case "int32":
      return new Int32Array(length);
    case "bfloat16":
    case "float16":
      return new Uint16Array(length);
  }
}

/** True when `data` is the host array of `dtype`. */
export function isHostArray(data: unknown, dtype: DType): data is TypedArray {
  switch (dtype) {
    case "float64":
      return data instanceof Float64Array;
    case "float32":
      return data instanceof Float32Array;
    case "int32":
      return data instanceof Int32Array;
    case "bfloat16":
    case "float16":
      return data instanceof Uint16Array;
  }
}

/** The dtype in which a pointwise op on these inputs computes and answers: the widest float, else int32. */
export function resultDType(dtypes: readonly DType[]): DType {
  if (dtypes.includes("float64")) return "float64";
  return dtypes.every((dtype) => dtype === "int32") ? "int32" : "float32";
}
