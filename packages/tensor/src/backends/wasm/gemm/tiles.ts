import { cached } from "../../cpu/generate.ts";
import type { FloatDType } from "../widening.ts";
import { gemm, packLeft } from "./gemm.ts";
import { gemvColumns, gemvRows } from "./gemv.ts";
import type { Tile } from "./microkernel.ts";
import type { Order } from "./pack.ts";

/**
 * The register tiles that may be fastest. Each fits an engine: 4×8 fifteen registers (V8 up to 12), 6×8 and 3×12 engines that keep
 * the order of instructions (V8 13 on), 6×16 the revectorizer. All compute the same bytes.
 */
export const TILES = {
  "4x8": { rows: 4, vectors: 2, unroll: 2 },
  "6x8": { rows: 6, vectors: 2, unroll: 2 },
  "3x12": { rows: 3, vectors: 3, unroll: 4 },
  "6x16": { rows: 6, vectors: 4, unroll: 1 },
} as const satisfies Readonly<Record<string, Tile>>;
export type TileName = keyof typeof TILES;

export const leftPacker = cached((tile, dtype, order) =>
  packLeft(TILES[tile as TileName], dtype as FloatDType, order as Order),
);
export const multiplier = cached((tile, dtype, order) =>
  gemm(TILES[tile as TileName], dtype as FloatDType, order as Order),
);
export const rowMultiplier = cached((dtype) => gemvRows(dtype as FloatDType));
export const columnMultiplier = cached((dtype) => gemvColumns(dtype as FloatDType));
