import { type Folder, type TensorInfo, openCheckpoint, readJsonObject } from "@neolog/checkpoint";
import {
  ModelConfigError,
  type PreTrainedModel,
  type PretrainedConfig,
  architectureOf,
  estimateMemory,
} from "@neolog/models";
import { withShapesOnly } from "@neolog/tensor";
import { byteCount, parameterCount, row, shown } from "./inspectText.ts";
import { tokenizerOf } from "./load.ts";
import type { Output } from "./output.ts";
import { bytes, columns, count, indent, thousands, trainableLine } from "./text.ts";
import { drawTree, treeOf } from "./tree.ts";

/** What a model folder holds: the model as people draw it, and what it takes to load, run and train. */
export async function inspectModel(folder: Folder, output: Output, context: number): Promise<void> {
  const config = await readJsonObject(folder, "config.json");
  const checkpoint = await openCheckpoint(folder);
  await checkpoint.close();
  const { model, problem } = modelOf(config, `${folder.name}/config.json`);
  const places = model && placesOf(model, config);
  const infos = [...checkpoint.tensors.values()];
  const drawn = inOrder(infos, places);
  const [all, size] = [parameterCount(drawn), byteCount(infos)];
  const tokens = (await tokenizerOf(folder.name))?.vocabSize ?? null;
  const tree = treeOf(drawn, (path) => places?.classOf(path) ?? null);
  const memory = memoryOf(model, size, context);
  const dtypes = bytesByDtype(infos);
  output.result(
    {
      kind: "model",
      dir: folder.name,
      config,
      tokens,
      tensors: infos.map(row),
      trainable: 0,
      all,
      bytes: size,
      dtypes,
      tree,
      memory,
      problem,
    },
    `model ${folder.name}`,
    ...indent(
      columns([
        ["model_type", [shown(config["model_type"]), ...classes(config)].join(", ")],
        ["built of", structure(config)],
        ["vocab_size", vocabulary(config, model)],
        ["tokenizer", tokens === null ? "none" : `${thousands(tokens)} tokens`],
        ["weights", weights(size, dtypes)],
        ...(problem === null ? [] : [["note", problem]]),
      ]),
    ),
    "",
    ...indent(drawTree(tree, "model", output.width - 2)),
    "",
    ...indent(memoryLines(memory, context)),
    "",
    trainableLine(0, all),
  );
}

/** The model without its weights, or why there is none: then names alone tell what is drawn. */
function modelOf(
  config: Record<string, unknown>,
  file: string,
): { readonly model: PreTrainedModel | null; readonly problem: string | null } {
  try {
    const model = withShapesOnly(() => architectureOf(config, file).create(config as PretrainedConfig, file));
    return { model, problem: null };
  } catch (error) {
    if (!(error instanceof ModelConfigError)) throw error;
    return { model: null, problem: `this program cannot run it: ${error.message}` };
  }
}

interface Places {
  /** Class of the module at a path of the checkpoint. */
  classOf(path: string): string | null;
  /** When the model uses a tensor of the checkpoint; the unknown come last. */
  rankOf(name: string): number;
  isBuffer(name: string): boolean;
}

/** The model's modules by the names in the checkpoint, which may lack the base model's prefix. */
function placesOf(model: PreTrainedModel, config: Record<string, unknown>): Places {
  const { basePrefix, ignored } = architectureOf(config);
  const stored = (path: string): string => model.checkpointName(`${path}.weight`).replace(/\.weight$/, "");
  const classes = new Map([...model.namedModules()].map(([path, module]) => [stored(path), module.constructor.name]));
  const ranks = new Map([...model.namedParameters()].map(([key], i) => [model.checkpointName(key), i]));
  const rankOf = (name: string): number => ranks.get(name) ?? ranks.get(basePrefix + name) ?? ranks.size;
  return {
    classOf: (path) => classes.get(path) ?? classes.get(basePrefix + path) ?? null,
    rankOf,
    isBuffer: (name) => rankOf(name) === ranks.size && ignored?.test(`.${name}`) === true,
  };
}

/** In the order of the model, where that is known, without buffers that no model needs. */
function inOrder(infos: readonly TensorInfo[], places: Places | null): readonly TensorInfo[] {
  if (!places) return infos;
  return infos
    .filter(({ name }) => !places.isBuffer(name))
    .toSorted((a, b) => places.rankOf(a.name) - places.rankOf(b.name));
}

interface Memory {
  readonly load: number;
  readonly context: number;
  readonly run: number | null;
  readonly cache: number | null;
  readonly train: number | null;
}

function memoryOf(model: PreTrainedModel | null, load: number, context: number): Memory {
  if (!model) return { load, context, run: null, cache: null, train: null };
  const { cache, run, train } = estimateMemory(model, context);
  return { load, context, run: load + cache + run, cache, train: load + train };
}

function memoryLines({ load, run, cache, train }: Memory, context: number): string[] {
  const rows = [["memory to load", bytes(load), "the weights, as they are stored"]];
  if (run !== null && cache !== null && train !== null) {
    const sequence = count(context, "token");
    const held = cache === 0 ? "with what a block computes" : `${bytes(cache)} of them keys and values`;
    rows.push([`to run ${sequence}`, `~${bytes(run)}`, held]);
    rows.push([`to train on ${sequence}`, `~${bytes(train)}`, "an estimate: token rows, all else frozen"]);
  }
  return columns(rows, [1]);
}

/** Bytes of each stored dtype, the largest part first. */
function bytesByDtype(infos: readonly TensorInfo[]): Record<string, number> {
  const sums = new Map<string, number>();
  for (const { dtype, byteLength } of infos) sums.set(dtype, (sums.get(dtype) ?? 0) + byteLength);
  return Object.fromEntries([...sums].toSorted(([, a], [, b]) => b - a));
}

function weights(size: number, dtypes: Readonly<Record<string, number>>): string {
  const names = Object.keys(dtypes);
  if (names.length === 1) return `${bytes(size)} ${names[0]}`;
  return `${bytes(size)}: ${names.map((name) => `${bytes(dtypes[name]!)} ${name}`).join(", ")}`;
}

const classes = ({ architectures }: Record<string, unknown>): string[] =>
  Array.isArray(architectures) ? architectures.map(String) : [];

function vocabulary(config: Record<string, unknown>, model: PreTrainedModel | null): string {
  const rows = config["vocab_size"];
  const text = typeof rows === "number" ? thousands(rows) : shown(rows);
  if (!model) return text;
  return model.tiedPaths.length > 0 ? `${text}, ${model.tiedPaths.join(" and ")} tied to ${model.embeddingPath}` : text;
}

/** `16 layers of width 2,048, 32 heads (8 for keys and values), 131,072 positions`, of what the config says. */
function structure(config: Record<string, unknown>): string {
  const of = (...keys: string[]): string | null => {
    const value = keys.map((key) => config[key]).find((x) => typeof x === "number");
    return value === undefined ? null : thousands(value);
  };
  const layers = of("num_hidden_layers", "n_layer", "num_layers");
  const width = of("hidden_size", "n_embd", "d_model");
  const heads = of("num_attention_heads", "n_head", "num_heads");
  const shared = of("num_key_value_heads");
  const positions = of("max_position_embeddings", "n_positions");
  const parts = [
    layers === null ? null : `${layers} layers${width === null ? "" : ` of width ${width}`}`,
    heads === null ? null : `${heads} heads${shared === null || shared === heads ? "" : ` (${shared} for keys)`}`,
    positions === null ? null : `${positions} positions`,
  ].filter((part) => part !== null);
  return parts.length === 0 ? "not given" : parts.join(", ");
}
