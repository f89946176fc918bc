import {
  type Checkpoint,
  type Folder,
  type StoredTensor,
  openCheckpoint,
  openFolder,
  openSafetensors,
  readJsonObject,
  resolveModelFolder,
  toTypedArray,
} from "@neolog/checkpoint";
import type { Tokenizer } from "@neolog/models";
import { byteCount, parameterCount, row, shown } from "./inspectText.ts";
import { tokenizerOf } from "./load.ts";
import type { Output } from "./output.ts";
import { bytes, columns, indent, trainableLine } from "./text.ts";
import { drawTree, treeOf } from "./tree.ts";

/** What an adapter holds: its config, its tensors, and the length of every trained row. */
export async function inspectAdapter(folder: Folder, output: Output): Promise<void> {
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
    ...indent(
      drawTree(
        treeOf(infos, () => null),
        "adapter",
        output.width - 2,
      ),
    ),
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
