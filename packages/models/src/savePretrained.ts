import {
  type FileContent,
  type FolderTarget,
  STORED_DTYPE,
  fromTensor,
  streamSafetensors,
  stringifyPythonJson,
  writeFolder,
} from "@neolog/checkpoint";
import { stateDict } from "@neolog/nn";
import type { PreTrainedModel } from "./preTrainedModel.ts";

/**
 * Writes config.json, model.safetensors and, where the model came with one, generation_config.json; none is ever seen
 * half-written. A tied head is not stored. Throws CheckpointError where the target is a file.
 */
export async function savePretrained(model: PreTrainedModel, dir: FolderTarget): Promise<void> {
  const tensors = [...stateDict(model)].map(([name, t]) => {
    const read = async (): Promise<Uint8Array> => (await fromTensor(t)).bytes;
    return [name, { dtype: STORED_DTYPE[t.dtype], shape: t.shape, read }] as const;
  });
  const files = new Map<string, FileContent>([
    ["config.json", `${stringifyPythonJson(model.config)}\n`],
    ["model.safetensors", streamSafetensors(tensors)],
  ]);
  if (model.generationConfig) files.set("generation_config.json", model.generationConfig.text);
  await writeFolder(dir, files);
}
