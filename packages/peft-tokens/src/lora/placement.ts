import { Conv1D, Embedding, type Linear, type Module, type TiedHead, replaceModule } from "@neolog/nn";
import { type Shape, isStorageDType, randomBits } from "@neolog/tensor";
import type { Adapters } from "../adapters.ts";
import { ConfigError } from "../errors.ts";
import type { Placement } from "../registry.ts";
import { grownShape } from "../tables.ts";
import { layerAt, plainAt, weightAt } from "../wrap.ts";
import type { LoraConfig } from "./config.ts";
import { LoraEmbedding } from "./embedding.ts";
import { type LoraShape, embeddingMatrices, linearMatrices } from "./init.ts";
import { LoraLayer } from "./layer.ts";
import { byPattern, patternOf } from "./targets.ts";

/** Whether a module's weight is [in, out]. */
export const storesInFirst = (module: Module): boolean => module instanceof Conv1D;

export interface LoraOptionsInCode {
  readonly autocastAdapterDtype: boolean;
  readonly seed: number;
  /** The how-manieth target it is: targets start from different numbers. */
  readonly index: number;
  /** Rows that the vocabulary will have; as it is now, by default. */
  readonly vocabSize?: number | undefined;
}

/** LoRA's matrices at one module. */
export function loraPlacement(
  adapters: Adapters,
  path: string,
  config: LoraConfig,
  { autocastAdapterDtype, seed, index, vocabSize }: LoraOptionsInCode,
  name: string,
): Placement {
  const { root } = adapters;
  const base = plainAt(root, path)!;
  const weight = weightAt(root, path);
  const size = grownShape(adapters, path, weight.shape, vocabSize);
  const shape = loraShape(base, size, byPattern(path, config, "rank_pattern", config.r));
  checkSize(path, shape, config);
  const alpha = byPattern(path, config, "alpha_pattern", config.lora_alpha);
  const scale = alpha / (config.use_rslora ? Math.sqrt(shape.r) : shape.r);
  const keys = base instanceof Embedding ? EMBEDDING_KEYS : LINEAR_KEYS;
  const { r, in_features, out_features } = shape;
  const shapes: readonly Shape[] = [
    [r, in_features],
    [out_features, r],
  ];
  return {
    path,
    tensors: new Map(keys.map((key, i) => [key, shapes[i]!])),
    attach() {
      const dtype = isStorageDType(weight.dtype) && autocastAdapterDtype ? "float32" : weight.dtype;
      const start = { init: config.init_lora_weights, seed: randomBits(seed, index), dtype, like: weight };
      const [A, B] = base instanceof Embedding ? embeddingMatrices(shape, start) : linearMatrices(shape, start);
      loraLayerAt(adapters, path).add(name, { A, B, scale, dropout: config.lora_dropout });
    },
  };
}

const LINEAR_KEYS = ["lora_A.weight", "lora_B.weight"];
const EMBEDDING_KEYS = ["lora_embedding_A", "lora_embedding_B"];

/** Elements of a matrix: what 4 GiB hold in float32, the most that one memory has. */
const MAX_ELEMENTS = 2 ** 30;

function checkSize(path: string, { r, in_features, out_features }: LoraShape, config: LoraConfig): void {
  const elements = r * Math.max(in_features, out_features);
  if (elements < MAX_ELEMENTS) return;
  const pattern = patternOf(path, config, "rank_pattern");
  const key = pattern === undefined ? "r" : `rank_pattern["${pattern}"]`;
  throw new ConfigError(
    "RANK",
    `${key}: must give matrices of fewer than ${MAX_ELEMENTS} elements, got ${r} at ${path} of [${out_features}, ${in_features}]`,
    { key, value: r, path },
  );
}

/** Linear and tied heads store [out, in], Conv1D [in, out]; an Embedding maps the vocabulary to its width. */
function loraShape(base: Module, shape: Shape, r: number): LoraShape {
  const [rows, columns] = shape as [number, number];
  return base instanceof Conv1D || base instanceof Embedding
    ? { r, in_features: rows, out_features: columns }
    : { r, in_features: columns, out_features: rows };
}

/** The LoRA layer at a path; wraps the module there where it is still plain. */
function loraLayerAt({ root, state }: Adapters, path: string): LoraLayer | LoraEmbedding {
  const there = layerAt(root, path);
  if (there) return there as LoraLayer | LoraEmbedding;
  const context = { state, path, weight: () => weightAt(root, path) };
  return replaceModule<LoraLayer | LoraEmbedding>(root, path, (base) =>
    base instanceof Embedding
      ? new LoraEmbedding(base, context)
      : new LoraLayer(base as Linear | Conv1D | TiedHead, context),
  );
}
