import { type FolderTarget, fromTensor, stringifyPythonJson, writeFolder, writeSafetensors } from "@neolog/checkpoint";
import { stateDict } from "@neolog/nn";
import type { CausalLM } from "./causalLm.ts";

/**
 * Writes config.json, model.safetensors and, where the model came with one, generation_config.json; none is ever seen
 * half-written. A tied head is not stored. Throws CheckpointError where the target is a file.
 */
export async function savePretrained(model: CausalLM, dir: FolderTarget): Promise<void> {
  const tensors = [];
  for (const [name, t] of stateDict(model)) tensors.push([name, await fromTensor(t)] as const);
  const files = new Map<string, Uint8Array | string>([
    ["config.json", `${stringifyPythonJson(model.config)}\n`],
    ["model.safetensors", writeSafetensors(tensors)],
  ]);
  if (model.generationConfig) files.set("generation_config.json", model.generationConfig.text);
  await writeFolder(dir, files);
}
