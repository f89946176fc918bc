import {
  type Checkpoint,
  type Folder,
  openCheckpoint,
  openFolder,
  openSafetensors,
  readJsonObject,
  resolveModelFolder,
  type StoredTensor,
  type TensorInfo,
  toTypedArray,
} from "@neolog/checkpoint";
import type { Tokenizer } from "@neolog/models";
import { formatShape } from "@neolog/tensor";
import { command } from "./command.ts";
import { CliError } from "./errors.ts";
import { modelFolder } from "./hub.ts";
import type { Io } from "./io.ts";
import { tokenizerOf } from "./load.ts";
import { Output } from "./output.ts";
import { bytes, columns, indent, thousands, trainableLine } from "./text.ts";

/** neolog inspect: what a folder holds. Of a model only headers are read. */
export const inspectCommand = (io: Io) =>
  command("inspect", "Show a checkpoint or an adapter: shapes, dtypes, token rows, trainable line.", [
    "inspect ./llama",
    "inspect ./my-adapter --json",
  ])
    .argument("<dir>", "folder of a model or an adapter")
    .action(async (dir, flags) => {
      const output = new Output(io, flags);
      const folder = await openFolder(await modelFolder(dir, output));
      if (await folder.has("adapter_config.json")) await inspectAdapter(folder, output);
      else if (await folder.has("config.json")) await inspectModel(folder, output);
      else
        throw new CliError(
          `${dir}: must hold config.json (a model) or adapter_config.json (an adapter), found neither`,
        );
    });

async function inspectModel(folder: Folder, output: Output): Promise<void> {
  const config = await readJsonObject(folder, "config.json");
  const checkpoint = await openCheckpoint(folder);
  await checkpoint.close();
  const infos = [...checkpoint.tensors.values()];
  const all = parameterCount(infos);
  const size = byteCount(infos);
  const tokens = (await tokenizerOf(folder.name))?.vocabSize ?? null;
  output.result(
    { kind: "model", dir: folder.name, config, tokens, tensors: infos.map(row), trainable: 0, all, bytes: size },
    `model ${folder.name}`,
    ...indent(
      columns([
        ["model_type", shown(config["model_type"])],
        ["vocab_size", thousands(Number(config["vocab_size"]))],
        ["tokenizer", tokens === null ? "none" : `${thousands(tokens)} tokens`],
        ["weights", bytes(size)],
      ]),
    ),
    "",
    ...indent(tensorTable(infos)),
    "",
    trainableLine(0, all),
  );
}

async function inspectAdapter(folder: Folder, output: Output): Promise<void> {
  const config = await readJsonObject(folder, "adapter_config.json");
  const checkpoint = await openSafetensors(await folder.open("adapter_model.safetensors"));
  const infos = [...checkpoint.tensors.values()];
  const stored = await Promise.all(infos.map(async ({ name }) => [name, await checkpoint.read(name)] as const));
  await checkpoint.close();
  const trainable = parameterCount(withoutCopies(stored));
  const base = await baseParameterCount(config["base_model_name_or_path"]);
  const all = base === null ? null : base + trainable;
  const rows = tokenRows(await tokenizerOf(folder.name), config, stored);
  const size = byteCount(infos);
  output.result(
    { kind: "adapter", dir: folder.name, config, rows, tensors: infos.map(row), trainable, all, bytes: size },
    `adapter ${folder.name}`,
    ...indent(
      columns([
        ["peft_type", shown(config["peft_type"])],
        ["base", shown(config["base_model_name_or_path"], "not recorded")],
        ["target", shown(config["target_modules"], "the input embedding")],
        ["weights", bytes(size)],
      ]),
    ),
    "",
    ...indent(tensorTable(infos)),
    "",
    ...indent(
      columns(
        [["id", "norm", "token"], ...rows.map(({ id, norm, token }) => [String(id), norm.toFixed(3), token ?? "?"])],
        [0, 1],
      ),
    ),
    "",
    trainableLine(trainable, all),
  );
}

interface TokenRow {
  readonly id: number;
  readonly token: string | null;
  /** Euclidean length of the trained row. */
  readonly norm: number;
}

/** The trained rows of the first token tensor, in the file's order. */
function tokenRows(
  tokenizer: Tokenizer | null,
  config: Record<string, unknown>,
  stored: readonly (readonly [string, StoredTensor])[],
): TokenRow[] {
  const given = config["token_indices"] ?? config["trainable_token_indices"];
  const ids = (Array.isArray(given) ? given : (Object.values(given ?? {})[0] ?? [])) as number[];
  const [name, rows] =
    stored.find(([key, { shape }]) => key.includes("trainable_tokens_delta") && shape[0] === ids.length) ?? [];
  if (!name || !rows) return [];
  const width = rows.shape[1]!;
  const values = rows.dtype === "F32" || rows.dtype === "F64" ? toTypedArray(rows, name) : null;
  return ids.map((id, i) => ({
    id,
    token: tokenizer?.idToToken(id) ?? null,
    norm: values ? Math.hypot(...values.subarray(i * width, (i + 1) * width)) : NaN,
  }));
}

/** A tied head's copy of the rows is in the file but trains once. */
function withoutCopies(stored: readonly (readonly [string, StoredTensor])[]): StoredTensor[] {
  return stored
    .map(([, t]) => t)
    .filter((t, i, all) => all.findIndex((other) => Buffer.compare(other.bytes, t.bytes) === 0) === i);
}

/** Parameters of the base that an adapter names, or null where it is not on this machine. */
async function baseParameterCount(name: unknown): Promise<number | null> {
  if (typeof name !== "string") return null;
  const folder = await resolveModelFolder(name).then(openFolder, () => null);
  const checkpoint: Checkpoint | null = folder && (await openCheckpoint(folder).catch(() => null));
  if (!checkpoint) return null;
  await checkpoint.close();
  return parameterCount([...checkpoint.tensors.values()]);
}

/** A value of a config for people. */
const shown = (value: unknown, absent = "not given"): string =>
  typeof value === "string" ? value : value === undefined || value === null ? absent : JSON.stringify(value);

const row = ({ name, dtype, shape }: TensorInfo) => ({ name, dtype, shape });

const tensorTable = (infos: readonly TensorInfo[]): string[] =>
  columns(infos.map(({ name, dtype, shape }) => [name, dtype, formatShape(shape)]));

const parameterCount = (tensors: readonly { readonly shape: readonly number[] }[]): number =>
  tensors.reduce((sum, { shape }) => sum + shape.reduce((product, d) => product * d, 1), 0);

const byteCount = (infos: readonly TensorInfo[]): number => infos.reduce((sum, { byteLength }) => sum + byteLength, 0);
