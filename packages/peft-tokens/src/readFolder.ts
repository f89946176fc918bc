import {
  CheckpointError,
  type Folder,
  type FolderSource,
  type StoredTensor,
  openFolder,
  openSafetensors,
  readJsonObject,
} from "@neolog/checkpoint";
import { CONFIG_FILE, TENSOR_FILE, normalizeKey } from "./keys.ts";
import { METHODS, type PeftConfig, type PeftType } from "./registry.ts";
import type { OnWarning } from "./warnings.ts";

async function adapterFolder(
  source: FolderSource,
  subfolder?: string,
): Promise<{ folder: Folder; path: (file: string) => string }> {
  const folder = await openFolder(source);
  return { folder, path: (file) => (subfolder ? `${subfolder}/${file}` : file) };
}

/** The config of an adapter folder. Throws CheckpointError NOT_FOUND, CORRUPT or PEFT_TYPE, or ConfigError. */
export async function readConfig(
  source: FolderSource,
  subfolder: string | undefined,
  onWarning: OnWarning,
): Promise<PeftConfig> {
  const { folder, path } = await adapterFolder(source, subfolder);
  const file = path(CONFIG_FILE);
  const json = await readJsonObject(folder, file);
  const { peft_type } = json;
  if (typeof peft_type !== "string" || !Object.hasOwn(METHODS, peft_type)) {
    const found = peft_type === undefined ? "none" : JSON.stringify(peft_type);
    throw new CheckpointError(
      "PEFT_TYPE",
      `${folder.name}/${file}: "peft_type" must be one of ${Object.keys(METHODS).join(", ")}, found ${found}`,
      { peft_type },
    );
  }
  return METHODS[peft_type as PeftType].fromFile(json, onWarning);
}

/** The tensors of an adapter's file. */
export interface AdapterFile {
  /** What messages call it. */
  readonly name: string;
  /** By their names in the base model. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Keys that name nothing there. */
  readonly foreign: readonly string[];
}

/** Reads all tensors. Throws CheckpointError. */
export async function readTensors(
  source: FolderSource,
  subfolder: string | undefined,
  keyMapping: Readonly<Record<string, string>> = {},
): Promise<AdapterFile> {
  const { folder, path } = await adapterFolder(source, subfolder);
  if (!(await folder.has(path(TENSOR_FILE))) && (await folder.has(path("adapter_model.bin")))) {
    throw new CheckpointError(
      "PICKLE",
      `${folder.name}: must hold ${TENSOR_FILE}, found adapter_model.bin; save it again as safetensors`,
    );
  }
  const stored = await openSafetensors(await folder.open(path(TENSOR_FILE)));
  const tensors = new Map<string, StoredTensor>();
  const name = `${folder.name}/${path(TENSOR_FILE)}`;
  const foreign: string[] = [];
  try {
    for (const key of stored.tensors.keys()) {
      const inner = normalizeKey(key, keyMapping);
      if (inner === null) foreign.push(key);
      else if (tensors.has(inner)) {
        throw new CheckpointError("UNEXPECTED", `${name}: must hold ${inner} once, found it under several keys`, {
          unexpected: [inner],
        });
      } else tensors.set(inner, await stored.read(key));
    }
  } finally {
    await stored.close();
  }
  return { name, tensors, foreign };
}
