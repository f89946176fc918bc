import { compareBufferSources, concatBufferSources } from "typed-array-utils";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CheckpointError } from "./errors.ts";
import { openSafetensors } from "./safetensors.ts";
import { memorySource } from "./source/source.ts";
import { SAFETENSORS_BITS, type StoredDType, type StoredTensor } from "./storedDtype.ts";
import { streamSafetensors, writeSafetensors } from "./writeSafetensors.ts";

const ascii = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

/** A file with any header text, true or not, and `dataLength` zero bytes. */
function fileOf(header: string | Uint8Array<ArrayBuffer>, dataLength = 0, claimed?: bigint): Uint8Array {
  const bytes = typeof header === "string" ? ascii(header) : header;
  const prefix = new DataView(new ArrayBuffer(8));
  prefix.setBigUint64(0, claimed ?? BigInt(bytes.byteLength), true);
  return concatBufferSources(prefix, bytes, new Uint8Array(dataLength));
}

const open = (file: Uint8Array) => openSafetensors(memorySource("x.safetensors", file));
const f32 = (shape: unknown, begin: unknown, end: unknown): unknown => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});
const header = (entries: Record<string, unknown>): string => JSON.stringify(entries);

describe("a bad file is refused with what must hold and what was found", () => {
  const cases: [name: string, file: Uint8Array, message: string][] = [
    ["shorter than the length prefix", new Uint8Array(7), "a safetensors file must have at least 8 bytes, got 7"],
    ["header longer than the file", fileOf("{}", 0, 3n), "the file must hold a header of 3 bytes, got 10 bytes in all"],
    ["header length of 2^64 - 1", fileOf("{}", 0, 2n ** 64n - 1n), "the header must take at most 100000000 bytes"],
    ["header length that cuts the JSON", fileOf("{}", 0, 1n), "the header must be a JSON object in UTF-8"],
    ["no header", fileOf(""), 'the header must start with "{", got nothing'],
    ["array", fileOf("[]"), 'the header must start with "{", got byte 91'],
    ["leading space", fileOf(" {}"), 'the header must start with "{", got byte 32'],
    ["byte order mark", fileOf("\ufeff{}"), 'the header must start with "{", got byte 239'],
    ["not UTF-8", fileOf(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])), "the header must be a JSON object in UTF-8"],
    ["text after the header", fileOf("{} x"), 'the text must end, got "x" at line 1, column 4'],
    ["hole", fileOf(header({ a: f32([1], 0, 4), b: f32([1], 8, 12) }), 12), '"b": tensors must not leave a hole'],
    ["hole at the start", fileOf(header({ a: f32([1], 4, 8) }), 8), '"a": tensors must not leave a hole'],
    ["overlap", fileOf(header({ a: f32([2], 0, 8), b: f32([2], 4, 12) }), 12), '"b": tensors must not overlap'],
    ["two tensors on the same bytes", fileOf(header({ a: f32([1], 0, 4), b: f32([1], 0, 4) }), 4), "must not overlap"],
    ["trailing bytes", fileOf(header({ a: f32([1], 0, 4) }), 5), "the file must end with its last tensor"],
    ["truncated", fileOf(header({ a: f32([4], 0, 16) }), 15), "the file must end with its last tensor"],
    ["size ≠ shape", fileOf(header({ a: f32([3], 0, 16) }), 16), '"a": F32 [3] must take 12 bytes, got 16'],
    [
      "negative dimensions",
      fileOf(header({ a: f32([-1, -1], 0, 4) }), 4),
      '"a": shape must be a list of sizes, got [-1,-1]',
    ],
    [
      "negative offset",
      fileOf(header({ a: f32([2], -4, 4) }), 4),
      '"a": data_offsets must be [begin, end], got [-4,4]',
    ],
    ["end before begin", fileOf(header({ a: f32([1], 4, 0) }), 4), '"a": F32 [1] must take 4 bytes, got -4'],
    [
      "one offset",
      fileOf(header({ a: { dtype: "U8", shape: [], data_offsets: [0] } })),
      "data_offsets must be [begin, end]",
    ],
    [
      "2^80 elements",
      fileOf(header({ a: f32([2 ** 40, 2 ** 40], 0, 4) }), 4),
      '"a": F32 must take a whole number of bytes',
    ],
    [
      "2^80 elements times 0",
      fileOf(header({ a: f32([2 ** 40, 2 ** 40, 0], 0, 0) })),
      "must take a whole number of bytes",
    ],
    [
      "fraction of a byte",
      fileOf('{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}', 1),
      "must take a whole number of bytes",
    ],
    [
      "dtype __proto__",
      fileOf('{"a":{"dtype":"__proto__","shape":[],"data_offsets":[0,0]}}'),
      '"a": dtype must be one of BOOL, F4',
    ],
    ["no dtype", fileOf('{"a":{"shape":[],"data_offsets":[0,0]}}'), '"a": dtype must be one of'],
    [
      "entry that is a list",
      fileOf('{"a":[]}'),
      '"a": an entry must be an object with dtype, shape and data_offsets, got []',
    ],
    [
      "duplicate tensor",
      fileOf('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
      'keys must be unique, got "a" twice',
    ],
    ["duplicate field", fileOf('{"a":{"dtype":"U8","dtype":"U8"}}'), 'keys must be unique, got "dtype" twice'],
    [
      "lone surrogate",
      fileOf('{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
      "must be well-formed Unicode",
    ],
    [
      "metadata that is a number",
      fileOf('{"__metadata__":{"n":1}}'),
      '__metadata__ must map strings to strings, also "n", got 1',
    ],
    [
      "metadata that is a list",
      fileOf('{"__metadata__":["n"]}'),
      '__metadata__ must be an object of strings, got ["n"]',
    ],
    ["NaN", fileOf('{"a":NaN}'), "NaN is Python's, not JSON's"],
    ["deep nesting", fileOf(`{"a":${"[".repeat(100_000)}`), "nesting must be at most 128 deep"],
  ];

  test.each(cases)("%s", async (_, file, message) => {
    const error = await open(file).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error).toMatchObject({ code: "CORRUPT", fields: { file: "x.safetensors" } });
    expect((error as Error).message).toMatch(/^x\.safetensors: /);
    expect((error as Error).message).toContain(message);
  });

  test("however long what was found is, the message is short", async () => {
    const long = "x".repeat(100_000);
    const ones = Array.from({ length: 100_000 }, () => 1);
    for (const text of [
      header({ [long]: f32([3], 0, 16) }),
      header({ a: f32(ones, 0, 16) }),
      `{"a":${long}}`,
      `{"${long}":{},"${long}":{}}`,
    ]) {
      const error = await open(fileOf(text, 16)).catch((thrown: Error) => thrown);
      expect(error).toBeInstanceOf(CheckpointError);
      expect((error as Error).message.length).toBeLessThan(500);
    }
  });

  test("the fields name the tensor", async () => {
    await expect(open(fileOf(header({ a: f32([3], 0, 16) }), 16))).rejects.toMatchObject({ fields: { tensor: "a" } });
  });

  test("its source is closed", async () => {
    let closed = 0;
    const source = { ...memorySource("x", new Uint8Array(3)), close: async () => void closed++ };
    await expect(openSafetensors(source)).rejects.toThrow(CheckpointError);
    expect(closed).toBe(1);
  });
});

describe("a legal oddity is read", () => {
  test("no tensors at all, padding, null metadata", async () => {
    const file = await open(fileOf('{"__metadata__":null}   '));
    expect([file.tensors.size, file.metadata.size]).toEqual([0, 0]);
  });

  test("empty, rank 0, and a tensor named __proto__", async () => {
    const text = `{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"__proto__":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}}`;
    const file = await open(fileOf(text, 6));
    expect([...file.tensors.keys()]).toEqual(["s", "e", "__proto__"]);
    expect(await file.read("__proto__")).toMatchObject({ dtype: "U8", shape: [2] });
    expect((await file.read("e")).bytes.byteLength).toBe(0);
    expect((await file.read("s")).shape).toEqual([]);
  });

  test("a name that looks like an index, in the order of the bytes", async () => {
    const file = await open(fileOf(header({ b: f32([1], 0, 4), 7: f32([1], 4, 8) }), 8));
    expect([...file.tensors.keys()]).toEqual(["b", "7"]);
  });

  test("bytes are a view where aligned, an aligned copy where not", async () => {
    const aligned = writeSafetensors([["a", { dtype: "F32", shape: [1], bytes: new Uint8Array(4) }]]);
    expect((await (await open(aligned)).read("a")).bytes.buffer).toBe(aligned.buffer);
    const shifted = fileOf(header({ a: f32([1], 0, 4) }), 4);
    const { bytes } = await (await open(shifted)).read("a");
    expect(bytes.buffer).not.toBe(shifted.buffer);
    expect(new Float32Array(bytes.buffer, bytes.byteOffset, 1)).toEqual(new Float32Array(1));
  });

  test("an unknown tensor is named", async () => {
    const file = await open(fileOf("{}"));
    await expect(file.read("wte.weight")).rejects.toMatchObject({
      code: "MISSING",
      message: 'x.safetensors: must hold tensor "wte.weight", found none',
    });
  });
});

/** Any tensor of whole bytes, empty and rank 0 included. */
const storedTensor = fc
  .record({
    dtype: fc.constantFrom(...(Object.keys(SAFETENSORS_BITS) as StoredDType[])),
    shape: fc.array(fc.nat(3), { maxLength: 4 }),
  })
  .map(({ dtype, shape }) => ({ dtype, shape: SAFETENSORS_BITS[dtype] < 8 ? [...shape, 4] : shape }))
  .chain(({ dtype, shape }): fc.Arbitrary<StoredTensor> => {
    const length = (shape.reduce((n, d) => n * d, 1) * SAFETENSORS_BITS[dtype]) / 8;
    return fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => ({ dtype, shape, bytes }));
  });
const text = fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("__proto__", "0", 'é\n"\\\u2028', "𝄞"));
const tensors = fc
  .uniqueArray(fc.tuple(text, storedTensor), { selector: ([name]) => name, maxLength: 6 })
  .filter((entries) => entries.every(([name]) => name !== "__metadata__"));
const metadata = fc.uniqueArray(fc.tuple(text, text), { selector: ([key]) => key, maxLength: 3 });

describe("writeSafetensors", () => {
  test("what is written is read back, any names, dtypes and shapes", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, metadata, async (entries, notes) => {
        const file = await open(writeSafetensors(entries, new Map(notes)));
        expect(new Map(file.metadata)).toEqual(new Map(notes));
        expect(new Set(file.tensors.keys())).toEqual(new Set(entries.map(([name]) => name)));
        for (const [name, { dtype, shape, bytes }] of entries) {
          const stored = await file.read(name);
          expect({ dtype: stored.dtype, shape: stored.shape }).toEqual({ dtype, shape });
          expect(compareBufferSources(stored.bytes as Uint8Array<ArrayBuffer>, bytes as Uint8Array<ArrayBuffer>)).toBe(
            true,
          );
          expect(stored.bytes.byteOffset % 8).toBe(0);
        }
      }),
    );
  });

  test("the stream gives the same bytes", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, async (entries) => {
        const lazy = entries.map(([name, t]) => [name, { ...t, read: async () => t.bytes }] as const);
        const pieces: Uint8Array[] = [];
        for await (const piece of streamSafetensors(lazy)) pieces.push(piece);
        expect(concatBufferSources(...(pieces as Uint8Array<ArrayBuffer>[]))).toEqual(writeSafetensors(entries));
      }),
    );
  });

  test("a damaged byte of the header gives a CheckpointError or a file that holds together", async () => {
    const file = writeSafetensors([
      ["h.0.attn.bias", { dtype: "I64", shape: [2, 1], bytes: new Uint8Array(16) }],
      ["wte.weight", { dtype: "F32", shape: [3, 2], bytes: new Uint8Array(24) }],
    ]);
    const headerEnd = file.byteLength - 40;
    await fc.assert(
      fc.asyncProperty(fc.nat(headerEnd - 1), fc.integer({ min: 1, max: 255 }), async (position, flip) => {
        const damaged = file.map((byte, i) => (i === position ? byte ^ flip : byte));
        try {
          const { tensors } = await open(damaged);
          expect([...tensors.values()].reduce((n, { byteLength }) => n + byteLength, headerEnd)).toBe(file.byteLength);
        } catch (error) {
          expect(error).toBeInstanceOf(CheckpointError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  const one: StoredTensor = { dtype: "F32", shape: [1], bytes: new Uint8Array(4) };
  test.each<[string, [string, StoredTensor][], string, string]>([
    [
      "a name twice",
      [
        ["a", one],
        ["a", one],
      ],
      "UNEXPECTED",
      'a tensor name must be unique, got "a"',
    ],
    ["the name __metadata__", [["__metadata__", one]], "UNEXPECTED", "a tensor name must not be the format's own"],
    ["a lone surrogate", [["\ud800", one]], "UNEXPECTED", "a tensor name must be well-formed Unicode"],
    ["too few bytes", [["a", { ...one, shape: [2] }]], "SHAPE", '"a": F32 [2] must take 8 bytes, got 4'],
    ["half a byte", [["a", { ...one, dtype: "F4" }]], "SHAPE", '"a": F4 must fill whole bytes, got shape [1]'],
    [
      "a negative dimension",
      [["a", { ...one, shape: [-1] }]],
      "SHAPE",
      '"a": F32 must fill whole bytes, got shape [-1]',
    ],
  ])("refuses %s", (_, entries, code, message) => {
    expect(() => writeSafetensors(entries)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    );
  });
});
