import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Shape } from "@neolog/tensor";

const root = fileURLToPath(new URL("../../../../", import.meta.url));

/** A tensor of a reference file; masks are int32. */
export interface Stored {
  readonly shape: Shape;
  readonly data: Float32Array | Int32Array;
}

/** The folders of reference data: the part that is committed, and all of it where it lies beside the checkout. */
export function opsFolders(): { readonly name: string; readonly path: string }[] {
  const committed = { name: "fixtures", path: `${root}fixtures/ops` };
  const beside = { name: "golden", path: `${root}../shared/golden/ops` };
  if (existsSync(beside.path)) return [committed, beside];
  console.log("skipped: ../shared/golden/ops is absent, testing on fixtures/ops alone");
  return [committed];
}

export const readJson = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"));

/** Every tensor of a safetensors file. */
export function readSafetensors(path: string): Map<string, Stored> {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, start)) as Record<string, Entry>;
  delete header["__metadata__"];
  return new Map(
    Object.entries(header).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => {
        const raw = Uint8Array.prototype.slice.call(bytes, start + from, start + to);
        return [name, { shape, data: dtype === "BOOL" ? Int32Array.from(raw) : new ARRAYS[dtype](raw.buffer) }];
      },
    ),
  );
}

interface Entry {
  readonly dtype: "BOOL" | keyof typeof ARRAYS;
  readonly shape: Shape;
  readonly data_offsets: readonly [from: number, to: number];
}
const ARRAYS = { F32: Float32Array, I32: Int32Array };
