import {
  CheckpointError,
  type FolderSource,
  type StoredTensor,
  fromTensor,
  openFolder,
  openSafetensors,
  readJsonObject,
  toTensor,
  writeSafetensors,
} from "@neolog/checkpoint";
import { Random, Scope, type Tensor } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import type { Side } from "./effective.ts";
import { applyRequiresGrad } from "./flags.ts";
import type { AnyPeftModel } from "./model.ts";
import { oneSidedPlace } from "./oneSided.ts";

const JSON_FILE = "training_state.json";
const TENSOR_FILE = "training_state.safetensors";
const FORMAT = "neolog adapter state 1";

/** What makes training go on to the same bits, beside the adapter. */
export interface TrainingState {
  readonly optimizer?: { stateDict(): ReadonlyMap<string, Tensor> };
  /** Schedule position, data cursor, whatever else the run needs; plain JSON. */
  readonly progress?: unknown;
}
export interface RestoreOptions {
  readonly adapterName?: string;
  readonly subfolder?: string;
  readonly optimizer?: { loadStateDict(entries: ReadonlyMap<string, Tensor>): Promise<void> };
}

/** The two files beside an adapter's; PEFT ignores them, and no output depends on them. */
export async function trainingStateFiles(
  adapters: Adapters,
  name: string,
  { optimizer, progress = null }: TrainingState,
): Promise<Map<string, Uint8Array | string>> {
  const { training, dropout } = adapters.state;
  const state = {
    format: FORMAT,
    requires_grad: adapters.known(name).requiresGrad,
    training,
    dropout: { seed: dropout.seed, counter: dropout.counter },
    sides: oneSidedPlace(adapters, name)?.side ?? null,
    init: adapters.known(name).init ?? null,
    progress,
  };
  const moments: [string, StoredTensor][] = [];
  {
    using _scope = new Scope();
    for (const [key, t] of optimizer?.stateDict() ?? []) moments.push([key, await fromTensor(t)]);
  }
  return new Map<string, Uint8Array | string>([
    [TENSOR_FILE, writeSafetensors(moments)],
    [JSON_FILE, `${JSON.stringify(state, null, 2)}\n`],
  ]);
}

async function readState(source: FolderSource, subfolder?: string): Promise<Record<string, unknown> | null> {
  const folder = await openFolder(source);
  const file = subfolder ? `${subfolder}/${JSON_FILE}` : JSON_FILE;
  if (!(await folder.has(file))) return null;
  const json = await readJsonObject(folder, file);
  return json["format"] === FORMAT ? json : null;
}

/** The side of a tie on which the rows of a folder held, where it has a training state that says so. */
export async function readSide(source: FolderSource, subfolder?: string): Promise<Side | null> {
  const side = (await readState(source, subfolder))?.["sides"];
  return side === "input" || side === "output" ? side : null;
}

/**
 * Puts flags, dropout and optimizer where `savePretrained({ trainingState })` found them, for an adapter that is loaded; returns the
 * progress that was saved. Throws CheckpointError NOT_FOUND without a state, OptimizerError where it is of other parameters.
 */
export async function loadTrainingState(
  peft: AnyPeftModel,
  source: FolderSource,
  { adapterName = "default", subfolder, optimizer }: RestoreOptions = {},
): Promise<unknown> {
  const entry = peft.adapters.known(adapterName);
  const folder = await openFolder(source);
  const json = await readState(source, subfolder);
  if (!json) {
    throw new CheckpointError(
      "NOT_FOUND",
      `${folder.name}: must hold ${JSON_FILE} of savePretrained({ trainingState }), found none`,
      {
        folder: folder.name,
      },
    );
  }
  const stored = await openSafetensors(await folder.open(subfolder ? `${subfolder}/${TENSOR_FILE}` : TENSOR_FILE));
  try {
    using _scope = new Scope();
    const moments = new Map<string, Tensor>();
    for (const name of stored.tensors.keys()) moments.set(name, toTensor(await stored.read(name), { name }));
    await optimizer?.loadStateDict(moments);
  } finally {
    await stored.close();
  }
  const { seed, counter } = json["dropout"] as { seed: number; counter: number };
  peft.adapters.state.dropout = new Random(seed, counter);
  peft.adapters.state.training = json["training"] === true;
  entry.requiresGrad = json["requires_grad"] === true;
  applyRequiresGrad(peft.adapters);
  return json["progress"];
}
