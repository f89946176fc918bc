import { CheckpointError, type StoredTensor, dtypeOf, valuesOf } from "@neolog/checkpoint";
import { nearest } from "@neolog/nn";
import { PREFIX } from "./keys.ts";
import type { AdapterFile } from "./readFolder.ts";
import type { OnWarning } from "./warnings.ts";

export interface LoadReport {
  readonly missingKeys: readonly string[];
  readonly unexpectedKeys: readonly string[];
  readonly mismatchedKeys: readonly string[];
}

/** Throws CheckpointError DTYPE. */
export function checkFloats(file: string, key: string, stored: StoredTensor): void {
  if (dtypeOf(stored, key) !== "int32") return;
  throw new CheckpointError("DTYPE", `${file}: ${key} must hold floats, found ${stored.dtype}`, {
    key,
    dtype: stored.dtype,
  });
}

/** Throws CheckpointError DTYPE or CORRUPT. */
export function checkFinite(file: string, key: string, stored: StoredTensor): void {
  checkFloats(file, key, stored);
  const at = valuesOf(stored, key, "float32").findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  throw new CheckpointError("CORRUPT", `${file}: ${key} must be finite, found NaN or infinity at element ${at}`, {
    key,
    at,
  });
}

/** Tied modules have equal copies. Throws CheckpointError TIED_DISAGREE. */
export function checkCopiesAgree(
  file: string,
  keys: readonly string[],
  tensors: ReadonlyMap<string, StoredTensor>,
): void {
  const first = tensors.get(keys[0]!)!;
  for (const key of keys.slice(1)) {
    const other = tensors.get(key)!;
    const at = other.bytes.findIndex((byte, i) => byte !== first.bytes[i]);
    if (at < 0 && other.bytes.length === first.bytes.length) continue;
    const row = Math.floor(Math.max(0, at) / (first.bytes.length / first.shape[0]!));
    throw new CheckpointError(
      "TIED_DISAGREE",
      `${file}: ${keys[0]} and ${key} are tied and must be equal, found them different from row ${row} on`,
      { keys: [keys[0], key], row },
    );
  }
}

/** Missing and unexpected keys: errors where `strict`, else warnings. Throws CheckpointError MISSING or UNEXPECTED. */
export function checkKeys(
  { name, tensors, foreign }: AdapterFile,
  { missingKeys, unexpectedKeys }: LoadReport,
  strict: boolean,
  onWarning: OnWarning,
): void {
  if (missingKeys.length > 0) {
    const found = [...foreign, ...[...tensors.keys()].map((key) => PREFIX + key)];
    const near = nearest(missingKeys[0]!, found);
    const hint = near.length > 0 ? ` (nearest: ${near[0]}; map it with keyMapping)` : "";
    const message = `${name}: must hold ${missingKeys.join(", ")}, found ${found.join(", ") || "nothing"}${hint}`;
    if (strict) throw new CheckpointError("MISSING", message, { missing: missingKeys, found });
    onWarning({ code: "SKIPPED_TENSORS", message });
  }
  if (unexpectedKeys.length > 0) {
    const message = `${name}: holds ${unexpectedKeys.join(", ")}, which this adapter has no place for`;
    if (strict) throw new CheckpointError("UNEXPECTED", message, { unexpected: unexpectedKeys });
    onWarning({ code: "SKIPPED_TENSORS", message });
  }
}
