import { openBackend } from "@neolog/tensor";
import * as fc from "fast-check";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openFolder } from "./folder.ts";
import { type Checkpoint, openCheckpoint } from "./sharded.ts";
import { blobSource } from "./source/browser.ts";
import { fileSource } from "./source/node.ts";
import { memorySource } from "./source/source.ts";
import type { StoredDType, StoredTensor } from "./storedDtype.ts";
import { fromTensor, readTensor } from "./tensors.ts";
import { writeSafetensors } from "./writeSafetensors.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "neolog-"));
});
afterAll(() => rm(folder, { recursive: true }));

const bits = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 37) % 251);
const STORED: readonly [string, StoredTensor][] = [
  ["f32", { dtype: "F32", shape: [3, 5], bytes: bits(60) }],
  ["bf16", { dtype: "BF16", shape: [7], bytes: bits(14) }],
  ["f16", { dtype: "F16", shape: [2, 2], bytes: bits(8) }],
  ["i32", { dtype: "I32", shape: [2], bytes: bits(8) }],
  ["empty", { dtype: "F32", shape: [0, 4], bytes: bits(0) }],
];

describe.each(["reference", "cpu", "wasm"])("readTensor on %s", (name) => {
  test("brings every dtype into the backend's memory, byte for byte", async () => {
    await writeFile(join(folder, "model.safetensors"), writeSafetensors(STORED));
    const backend = await openBackend(name);
    const checkpoint = await openCheckpoint(await openFolder(folder));
    for (const [key, stored] of STORED) {
      const t = await readTensor(checkpoint, key, { backend });
      expect(await fromTensor(t)).toEqual(stored);
      t.dispose();
    }
    await checkpoint.close();
    expect(backend.live).toBe(0);
  });

  test("reads what needs no conversion once, into the tensor itself", async () => {
    const backend = await openBackend(name);
    const [, stored] = STORED[0]!;
    const targets: Uint8Array[] = [];
    const checkpoint = {
      info: () => ({ name: "w", dtype: stored.dtype, shape: stored.shape, byteOffset: 0, byteLength: 60 }),
      readInto: async (_, target) => void targets.push(target),
    } satisfies Pick<Checkpoint, "info" | "readInto">;
    const t = await readTensor(checkpoint, "w", { backend });
    targets[0]!.set(stored.bytes);
    expect((await fromTensor(t)).bytes).toEqual(stored.bytes);
    t.dispose();
  });

  test.each(["BF16", "F16", "F32"] as const)("converts %s as its values go by, in pieces", async (dtype) => {
    const backend = await openBackend(name);
    const size = 2 ** 20 + 3;
    const bytes = new Uint8Array(size * (dtype === "F32" ? 4 : 2));
    const half = dtype === "BF16" ? 0x3fc0 : 0x3e00;
    const last = dtype === "F32" ? Uint8Array.of(0, 0, 0xc0, 0x3f) : Uint8Array.of(half & 0xff, half >> 8);
    for (const at of [0, 2 ** 20, size - 1]) bytes.set(last, at * last.length); // 1.5 in every piece
    let largest = 0;
    const checkpoint = {
      info: () => ({ name: "w", dtype, shape: [size], byteOffset: 0, byteLength: bytes.byteLength }),
      async readInto(_, target, begin = 0) {
        largest = Math.max(largest, target.byteLength);
        target.set(bytes.subarray(begin, begin + target.byteLength));
      },
    } satisfies Pick<Checkpoint, "info" | "readInto">;
    const wanted = dtype === "F32" ? "bfloat16" : "float32";
    const t = await readTensor(checkpoint, "w", { backend, dtype: wanted });
    const values = await t.data();
    const expected = wanted === "bfloat16" ? 0x3fc0 : 1.5;
    for (let i = 0; i < size; i++) {
      const wants = i === 0 || i === 2 ** 20 || i === size - 1 ? expected : 0;
      if (values[i] !== wants) expect.fail(`element ${i} must be ${wants}, got ${values[i]}`);
    }
    expect(largest).toBeLessThan(bytes.byteLength);
    expect(backend.bytes.peak).toBe(t.size * (wanted === "float32" ? 4 : 2));
    t.dispose();
  });

  test("a read that fails leaves nothing allocated", async () => {
    const backend = await openBackend(name);
    const file = join(folder, "short");
    await writeFile(file, bits(16));
    const source = await fileSource(file);
    const checkpoint = {
      info: () => ({ name: "w", dtype: "F32" as StoredDType, shape: [8], byteOffset: 0, byteLength: 32 }),
      readInto: (_, target) => source.readInto(0, target),
    } satisfies Pick<Checkpoint, "info" | "readInto">;
    await expect(readTensor(checkpoint, "w", { backend })).rejects.toThrow("32 bytes must follow offset 0, found 16");
    await source.close();
    expect(backend.live).toBe(0);
  });
});

describe("readInto", () => {
  test.each([
    ["memory", async (bytes: Uint8Array<ArrayBuffer>) => memorySource("x", bytes)],
    ["blob", async (bytes: Uint8Array<ArrayBuffer>) => blobSource("x", new Blob([bytes]))],
    [
      "file",
      async (bytes: Uint8Array<ArrayBuffer>) => {
        const file = await open(join(folder, "bytes"), "w");
        await file.write(bytes);
        await file.close();
        return fileSource(join(folder, "bytes"));
      },
    ],
  ])("gives what read gives, from %s", async (_, openSource) => {
    const range = fc.tuple(fc.nat(40), fc.nat(40));
    await fc.assert(
      fc.asyncProperty(range, async ([offset, length]) => {
        const source = await openSource(Uint8Array.from(bits(64)));
        const target = new Uint8Array(length);
        const [read, written] = await Promise.allSettled([
          source.read(offset, length),
          source.readInto(offset, target),
        ]);
        expect(written.status).toBe(read.status);
        if (read.status === "fulfilled") expect(target).toEqual(Uint8Array.from(read.value));
        else expect(String((written as PromiseRejectedResult).reason)).toBe(String(read.reason));
        await source.close();
      }),
      { numRuns: 40 },
    );
  });
});
