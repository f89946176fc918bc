import { ACTIVATIONS, ROPE_TYPES, type RopeParameters } from "@neolog/nn";
import * as v from "valibot";

/** config.json as it stands in the file; keys that we do not know are kept. */
export interface PretrainedConfig {
  readonly model_type: string;
  readonly vocab_size: number;
  readonly tie_word_embeddings?: boolean | undefined;
  readonly architectures?: readonly string[] | undefined;
  readonly bos_token_id?: number | null | undefined;
  readonly eos_token_id?: number | readonly number[] | null | undefined;
  readonly pad_token_id?: number | null | undefined;
  readonly [key: string]: unknown;
}

/** config.json does not describe a model that we can build. */
export class ModelConfigError extends Error {
  override readonly name = "ModelConfigError";
  readonly key: string;

  constructor(file: string, key: string, mustHold: string) {
    super(`${file}: ${key ? `"${key}": ` : ""}${mustHold}`);
    this.key = key;
  }
}

export const size = v.pipe(v.number(), v.integer(), v.minValue(1));
export const positive = v.pipe(v.number(), v.gtValue(0));
export const activation = v.picklist(Object.keys(ACTIVATIONS));
export const tokenId = v.nullish(v.pipe(v.number(), v.integer()));

/** Keys that every causal language model has; unknown keys pass through. */
export const COMMON_KEYS = {
  model_type: v.string(),
  vocab_size: size,
  tie_word_embeddings: v.optional(v.boolean()),
  architectures: v.nullish(v.array(v.string())),
  bos_token_id: tokenId,
  eos_token_id: v.nullish(v.union([v.number(), v.array(v.number())])),
  pad_token_id: tokenId,
};

/** Checks a config against its schema. Throws ModelConfigError that names file, key, what was expected and what was found. */
export function parseConfig<S extends v.GenericSchema>(schema: S, config: unknown, file: string): v.InferOutput<S> {
  const result = v.safeParse(schema, config);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new ModelConfigError(file, v.getDotPath(issue) ?? "", issue.message);
}

const ropeSchema = v.looseObject({
  rope_type: v.optional(v.picklist(ROPE_TYPES)),
  type: v.optional(v.picklist(ROPE_TYPES)),
  rope_theta: v.optional(positive),
  factor: v.optional(positive),
  low_freq_factor: v.optional(positive),
  high_freq_factor: v.optional(positive),
  original_max_position_embeddings: v.optional(size),
  attention_factor: v.optional(positive),
  beta_fast: v.optional(positive),
  beta_slow: v.optional(positive),
});

/** `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (transformers 4). */
export const ROPE_KEYS = {
  rope_theta: v.optional(positive),
  rope_parameters: v.nullish(ropeSchema),
  rope_scaling: v.nullish(ropeSchema),
};

type RopeKeys = v.InferOutput<v.ObjectSchema<typeof ROPE_KEYS, undefined>>;

/** Both spellings as one. */
export function ropeParametersOf(
  { rope_parameters, rope_scaling, rope_theta }: RopeKeys,
  file: string,
): RopeParameters {
  const given = rope_parameters ?? rope_scaling ?? {};
  const rope_type = given.rope_type ?? given.type ?? "default";
  if (rope_type !== "default" && given.factor === undefined) {
    throw new ModelConfigError(file, "rope_parameters.factor", `must be set for rope_type "${rope_type}", found none`);
  }
  return { ...given, rope_type, rope_theta: given.rope_theta ?? rope_theta ?? 10_000 };
}
