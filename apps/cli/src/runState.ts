import {
  CheckpointError,
  type StoredTensor,
  fromTensor,
  openFolder,
  openSafetensors,
  readJsonObject,
  toTensor,
  writeFolder,
  writeSafetensors,
} from "@neolog/checkpoint";
import { Scope } from "@neolog/tensor";
import { readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { CliError } from "./errors.ts";
import type { FineTuning, Recipe } from "./fineTune.ts";
import { PARTIAL } from "./publish.ts";

const JSON_FILE = "training_state.json";
const TENSOR_FILE = "training_state.safetensors";
const FORMAT = "neolog training state 1";
const CHECKPOINT = /^checkpoint-(\d+)$/;

/** What makes a run go on where it stopped, beside the rows: they are in the adapter next to it. */
export interface RunState {
  readonly recipe: Recipe;
  /** Rows were cut to this many tokens; null for never. */
  readonly max_length: number | null;
  /** Of the training file, in hexadecimal. */
  readonly data_sha256: string;
  /** Loss of every step so far. */
  readonly losses: readonly number[];
}

export interface SavedRun {
  /** The folder that it was read from: an adapter with the state beside it. */
  readonly dir: string;
  readonly state: RunState;
  /** AdamW's state by the names that it gave. */
  readonly moments: ReadonlyMap<string, StoredTensor>;
}

/** Writes the state beside the adapter in `dir`. */
export async function writeRunState(
  dir: string,
  run: FineTuning,
  rest: Pick<RunState, "max_length" | "data_sha256">,
): Promise<void> {
  const state: RunState = { recipe: run.recipe, ...rest, losses: run.losses };
  const moments: [string, StoredTensor][] = [];
  {
    using _scope = new Scope();
    for (const [name, t] of run.optimizer.stateDict()) moments.push([name, await fromTensor(t)]);
  }
  await writeFolder(
    dir,
    new Map<string, Uint8Array | string>([
      [TENSOR_FILE, writeSafetensors(moments)],
      [JSON_FILE, `${JSON.stringify({ format: FORMAT, ...state }, null, 2)}\n`],
    ]),
  );
}

/** The newest state of a run: in the last checkpoint of its --out folder, or of a checkpoint itself. Throws CliError where there is none. */
export async function readRunState(dir: string): Promise<SavedRun> {
  const [newest] = await checkpointsIn(dir);
  const from = newest ?? dir;
  const folder = await openFolder(from);
  if (!(await folder.has(JSON_FILE))) {
    throw new CliError(
      `--resume ${dir}: must hold ${JSON_FILE} or a checkpoint, found neither; neolog train writes them into --out`,
    );
  }
  const json = await readJsonObject(folder, JSON_FILE);
  if (json["format"] !== FORMAT) {
    throw new CheckpointError(
      "CORRUPT",
      `${from}/${JSON_FILE}: "format" must be "${FORMAT}", found ${JSON.stringify(json["format"])}`,
    );
  }
  const file = await openSafetensors(await folder.open(TENSOR_FILE));
  const moments = new Map<string, StoredTensor>();
  for (const name of file.tensors.keys()) moments.set(name, await file.read(name));
  await file.close();
  return { dir: from, state: json as unknown as RunState, moments };
}

/** Puts AdamW where it was. Throws OptimizerError where the state is of other rows. */
export async function restoreOptimizer(run: FineTuning, { moments }: SavedRun): Promise<void> {
  using _scope = new Scope();
  await run.optimizer.loadStateDict(new Map([...moments].map(([name, stored]) => [name, toTensor(stored, { name })])));
}

export const checkpointPath = (out: string, step: number): string => join(out, `checkpoint-${step}`);

/** Removes every checkpoint in `out` that we wrote, whole or begun, except one. A kill leaves none that is half removed. */
export async function removeCheckpoints(out: string, except: string): Promise<void> {
  const names: string[] = await readdir(out).catch(() => []);
  const hidden = names.filter((name) => name.endsWith(PARTIAL) && CHECKPOINT.test(name.slice(0, -PARTIAL.length)));
  for (const name of hidden) await rm(join(out, name), { recursive: true, force: true });
  for (const path of await checkpointsIn(out)) {
    if (path === except) continue;
    await rename(path, `${path}${PARTIAL}`);
    await rm(`${path}${PARTIAL}`, { recursive: true, force: true });
  }
}

/** Checkpoints with a state of ours, newest first. */
async function checkpointsIn(dir: string): Promise<string[]> {
  const names = await readdir(dir, { withFileTypes: true }).catch(() => []);
  const steps = names.flatMap(({ name }) => (CHECKPOINT.test(name) ? [Number(CHECKPOINT.exec(name)![1])] : []));
  const paths = steps.toSorted((a, b) => b - a).map((step) => checkpointPath(dir, step));
  const ours: string[] = [];
  for (const path of paths) if (await (await openFolder(path)).has(JSON_FILE)) ours.push(path);
  return ours;
}
