import { type DType, openBackend, setDefaultBackend, tensor, transpose } from "@neolog/tensor";
import * as fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import type { StoredDType, StoredTensor } from "./storedDtype.ts";
import { fromTensor, toTensor } from "./tensors.ts";

beforeAll(async () => setDefaultBackend(await openBackend("reference")));

const stored = (dtype: StoredDType, data: ArrayBufferView<ArrayBuffer> & { length: number }): StoredTensor => ({
  dtype,
  shape: [data.length],
  bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
});
const read = async (from: StoredTensor, dtype?: DType): Promise<[DType, number[]]> => {
  const t = toTensor(from, { name: "w", dtype });
  const values = [...(await t.data())];
  t.dispose();
  return [t.dtype, values];
};

describe("toTensor", () => {
  test.each<[StoredTensor, DType, number[]]>([
    [stored("F32", Float32Array.of(1.5, -0)), "float32", [1.5, -0]],
    [stored("F64", Float64Array.of(1.5)), "float32", [1.5]],
    [stored("BF16", Uint16Array.of(0x3fc0)), "bfloat16", [0x3fc0]],
    [stored("F16", Uint16Array.of(0x3e00)), "float16", [0x3e00]],
    [stored("I32", Int32Array.of(-7)), "int32", [-7]],
    [stored("I64", BigInt64Array.of(-7n, 2n ** 31n - 1n)), "int32", [-7, 2 ** 31 - 1]],
    [stored("U8", Uint8Array.of(0, 255)), "int32", [0, 255]],
    [stored("BOOL", Uint8Array.of(0, 1, 2)), "int32", [0, 1, 1]],
  ])("$dtype is held as %s", async (from, dtype, values) => {
    expect(await read(from)).toEqual([dtype, values]);
  });

  test("converts to the dtype asked for", async () => {
    expect(await read(stored("BF16", Uint16Array.of(0x3fc0)), "float32")).toEqual(["float32", [1.5]]);
    expect(await read(stored("BF16", Uint16Array.of(0x3fc0)), "float16")).toEqual(["float16", [0x3e00]]);
    expect(await read(stored("F16", Uint16Array.of(0x3e00)), "float64")).toEqual(["float64", [1.5]]);
    expect(await read(stored("F32", Float32Array.of(1.5)), "bfloat16")).toEqual(["bfloat16", [0x3fc0]]);
    expect(await read(stored("F64", Float64Array.of(0.1)), "float64")).toEqual(["float64", [0.1]]);
    expect(await read(stored("U8", Uint8Array.of(3)), "float32")).toEqual(["float32", [3]]);
  });

  test.each<[StoredTensor, DType | undefined, string]>([
    [
      stored("F8_E4M3", Uint8Array.of(0)),
      undefined,
      '"w": dtype must be one of F64, F32, F16, BF16, I64, I32, U8, BOOL, got F8_E4M3',
    ],
    [
      stored("I64", BigInt64Array.of(0n, 2n ** 31n)),
      undefined,
      '"w": I64 values must fit 32 bits, got 2147483648 at element 1',
    ],
    [stored("F32", Float32Array.of(1)), "int32", '"w": must hold integers to be int32, got F32'],
  ])("refuses $dtype as %s", (from, dtype, message) => {
    expect(() => toTensor(from, { name: "w", dtype })).toThrow(expect.objectContaining({ code: "DTYPE", message }));
  });
});

describe("fromTensor", () => {
  test("gives back the bytes of any bit pattern", async () => {
    const kinds: StoredDType[] = ["F32", "BF16", "F16", "I32"];
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 6 }).map((x) => new Uint8Array([...x, ...x, ...x, ...x]));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...kinds), bytes, async (dtype, content) => {
        const width = dtype === "F32" || dtype === "I32" ? 4 : 2;
        const original = { dtype, shape: [content.byteLength / width], bytes: content };
        expect(await fromTensor(toTensor(original))).toEqual(original);
      }),
    );
  });

  test("writes a transposed view row-major", async () => {
    const { shape, bytes } = await fromTensor(transpose(tensor([1, 2, 3, 4, 5, 6], [2, 3])));
    expect(shape).toEqual([3, 2]);
    expect([...new Float32Array(bytes.buffer, bytes.byteOffset, 6)]).toEqual([1, 4, 2, 5, 3, 6]);
  });
});
