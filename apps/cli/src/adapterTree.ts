import { type Folder, openFolder, openSafetensors, readJsonObject } from "@neolog/checkpoint";
import { readdir } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";

/** What an adapter folder says of itself, without its base. */
export interface AdapterEntry {
  /** Relative to the folder that was asked for; "." is that folder. */
  readonly path: string;
  readonly peft_type: string | null;
  readonly base: string | null;
  /** Rank of the LoRA part, or null without one. */
  readonly r: number | null;
  /** Module → the tokens whose rows the file holds for it. */
  readonly modules: ReadonlyMap<string, readonly number[]>;
  readonly bytes: number;
  /** Why the folder cannot be read as an adapter, or null. */
  readonly error: string | null;
}

/** Two adapters of one base that replace the same rows of a module: they cannot be in effect together. */
export interface Conflict {
  readonly adapters: readonly [string, string];
  readonly module: string;
  readonly ids: readonly number[];
}

const CONFIG = "adapter_config.json";
const TENSORS = "adapter_model.safetensors";

/** Every adapter folder in `dir` and below, by path, without training checkpoints below an adapter and hidden folders. */
export async function findAdapters(dir: string): Promise<AdapterEntry[]> {
  await openFolder(dir);
  const files = await readdir(dir, { recursive: true, withFileTypes: true });
  const folders = files
    .filter((file) => file.isFile() && file.name === CONFIG)
    .map((file) => relative(dir, file.parentPath) || ".")
    .filter((path) => !path.split(/[/\\]/).some((part) => /^(\.[^.]|node_modules$)/.test(part)));
  const isCheckpoint = (path: string): boolean =>
    /^checkpoint-\d+$/.test(basename(path)) && folders.includes(dirname(path));
  return Promise.all(
    folders
      .filter((path) => !isCheckpoint(path))
      .toSorted()
      .map((path) => readEntry(dir, path)),
  );
}

async function readEntry(dir: string, path: string): Promise<AdapterEntry> {
  const nothing = { path, peft_type: null, base: null, r: null, modules: new Map<string, number[]>(), bytes: 0 };
  try {
    const folder = await openFolder(join(dir, path));
    const config = await readJsonObject(folder, CONFIG);
    const { peft_type, base_model_name_or_path: base, r } = config;
    return {
      path,
      peft_type: typeof peft_type === "string" ? peft_type : null,
      base: typeof base === "string" ? base : null,
      r: typeof r === "number" ? r : null,
      ...(await readRows(folder, config)),
      error: null,
    };
  } catch (error) {
    return { ...nothing, error: (error as Error).message };
  }
}

async function readRows(
  folder: Folder,
  config: Readonly<Record<string, unknown>>,
): Promise<Pick<AdapterEntry, "modules" | "bytes">> {
  const file = await openSafetensors(await folder.open(TENSORS));
  await file.close();
  const infos = [...file.tensors.values()];
  const modules = infos.flatMap(({ name }) => {
    const module = /^(?:base_model\.model\.)?(.+?)(?:\.token_adapter)?\.trainable_tokens_delta/.exec(name)?.[1];
    return module === undefined ? [] : [[module, idsOf(config, module)] as const];
  });
  return { modules: new Map(modules), bytes: infos.reduce((sum, { byteLength }) => sum + byteLength, 0) };
}

/** The tokens that a config trains on a module. */
function idsOf(config: Readonly<Record<string, unknown>>, module: string): number[] {
  const given = config["token_indices"] ?? config["trainable_token_indices"];
  const ids =
    typeof given === "object" && given !== null && !Array.isArray(given)
      ? Object.entries(given).find(([name]) => module === name || module.endsWith(`.${name}`))?.[1]
      : given;
  return Array.isArray(ids) ? ids.filter((id): id is number => typeof id === "number") : [];
}

/** Pairs that share rows; adapters of different known bases never meet. */
export function conflictsOf(entries: readonly AdapterEntry[]): Conflict[] {
  return entries.flatMap((a, i) =>
    entries.slice(i + 1).flatMap((b) => {
      if (a.base !== null && b.base !== null && a.base !== b.base) return [];
      return [...a.modules].flatMap(([module, own]): Conflict[] => {
        const ids = own.filter((id) => b.modules.get(module)?.includes(id));
        return ids.length === 0 ? [] : [{ adapters: [a.path, b.path], module, ids }];
      });
    }),
  );
}
