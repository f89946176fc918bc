import type { Adapters } from "./adapters.ts";
import type { Call, Samples } from "./effective.ts";
import { AdapterError, ConfigError } from "./errors.ts";
import { checkOverlap } from "./overlap.ts";

/** What a sample of a mixed batch runs with: an adapter, several of them, or the base. */
export type SampleAdapters = string | readonly string[];

export interface CallOptions {
  /** One for each sample: an adapter's name, a list of names with different ids, or "__base__". The active ones, where absent. */
  readonly adapterNames?: readonly SampleAdapters[] | undefined;
}

const BASE = "__base__";

/**
 * The call that gives each of `batch` samples its own adapters. Disabled adapters stay so. Throws ConfigError ARGUMENT, AdapterError
 * UNKNOWN, OVERLAP or MERGED.
 */
export function mixedCall(adapters: Adapters, adapterNames: readonly SampleAdapters[], batch: number): Call {
  const { state } = adapters;
  if (!Array.isArray(adapterNames) || adapterNames.length !== batch) {
    const given = Array.isArray(adapterNames) ? String(adapterNames.length) : JSON.stringify(adapterNames);
    throw new ConfigError(
      "ARGUMENT",
      `adapterNames: must name one adapter for each of ${batch} samples, got ${given}`,
      {
        batch,
        given: adapterNames.length,
      },
    );
  }
  const sets = adapterNames.map((names) => [...new Set([names].flat() as string[])].filter((name) => name !== BASE));
  const names = [...new Set(sets.flat())];
  const unknown = names.filter((name) => !adapters.entries.has(name));
  if (unknown.length > 0) {
    const known = adapters.names;
    throw new AdapterError(
      "UNKNOWN",
      `adapterNames: adapters must be among ${[BASE, ...known].join(", ")}, got ${unknown.join(", ")}`,
      { names: unknown, known },
    );
  }
  if (state.merged.length > 0) {
    throw new AdapterError(
      "MERGED",
      `adapterNames: nothing may be merged in a mixed batch, got ${state.merged.join(", ")}; unmerge first`,
      { merged: state.merged },
    );
  }
  for (const set of sets) checkOverlap(adapters, set);
  const samples = new Map<string, Samples>(names.map((name) => [name, sets.map((set) => set.includes(name))]));
  const applied = state.enabled ? names : [];
  return {
    enabled: state.enabled,
    effective: applied,
    active: applied,
    applied,
    overlap: "error",
    samples,
    parts: new Map(),
  };
}

/** How many samples the inputs of a model hold. Throws ConfigError UNSUPPORTED for a model without input_ids. */
export function batchOf(inputs: unknown): number {
  const ids = (inputs as { input_ids?: unknown } | null)?.input_ids;
  if (Array.isArray(ids)) return ids.length;
  const { shape, rows = shape?.[0] } = (ids ?? {}) as { shape?: readonly number[]; rows?: number };
  if (rows !== undefined) return rows;
  throw new ConfigError("UNSUPPORTED", "adapterNames: the model's inputs must hold input_ids [B, T], got none", {});
}
