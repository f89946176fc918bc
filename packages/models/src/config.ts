import { parseJson } from "@neolog/checkpoint";
import { ACTIVATIONS, ROPE_TYPES, type RopeParameters, rotaryDim } from "@neolog/nn";
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
export const fraction = v.pipe(v.number(), v.gtValue(0), v.maxValue(1));
export const activation = v.picklist(Object.keys(ACTIVATIONS));
export const tokenId = v.nullish(v.pipe(v.number(), v.integer()));
const endTokenIds = v.nullish(v.union([v.number(), v.array(v.number())]));

/** Keys that every model has; unknown keys pass through. */
export const COMMON_KEYS = {
  model_type: v.string(),
  quantization_config: v.nullish(v.null()),
  vocab_size: size,
  tie_word_embeddings: v.optional(v.boolean()),
  architectures: v.nullish(v.array(v.string())),
  bos_token_id: tokenId,
  eos_token_id: endTokenIds,
  pad_token_id: tokenId,
};

/** Checks a config against its schema. Throws ModelConfigError that names file, key, what was expected and what was found. */
export function parseConfig<S extends v.GenericSchema>(schema: S, config: unknown, file: string): v.InferOutput<S> {
  const result = v.safeParse(schema, config);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const mustHold =
    issue.received === "undefined" ? "must be set, found none" : `must be ${issue.expected}, found ${issue.received}`;
  throw new ModelConfigError(file, v.getDotPath(issue) ?? "", mustHold);
}

/** Throws ModelConfigError unless `count`, the value of `key`, divides `whole`, which `what` names. */
export function checkDivides(file: string, key: string, count: number, what: string, whole: number): void {
  if (whole % count !== 0) throw new ModelConfigError(file, key, `must divide ${what} (${whole}), found ${count}`);
}

/** The row of the table whose lookups give no gradient, or null; torch counts a negative one from the end. Throws ModelConfigError. */
export function paddingIdxOf(
  { pad_token_id, vocab_size }: { readonly pad_token_id?: number | null | undefined; readonly vocab_size: number },
  file: string,
): number | null {
  if (pad_token_id == null) return null;
  if (pad_token_id >= vocab_size || pad_token_id < -vocab_size) {
    throw new ModelConfigError(file, "pad_token_id", `must be below vocab_size (${vocab_size}), found ${pad_token_id}`);
  }
  return pad_token_id < 0 ? vocab_size + pad_token_id : pad_token_id;
}

/** generation_config.json: the keys that `generate` reads, and the file itself, which is saved as it was. */
export interface GenerationConfig {
  readonly eos_token_id?: number | readonly number[] | null | undefined;
  readonly pad_token_id?: number | null | undefined;
  readonly decoder_start_token_id?: number | null | undefined;
  readonly text: string;
}

const generationSchema = v.looseObject({
  eos_token_id: endTokenIds,
  pad_token_id: tokenId,
  decoder_start_token_id: tokenId,
});

/** Throws CheckpointError where `text` is no JSON, ModelConfigError where a token id is none. */
export function parseGenerationConfig(text: string, file: string): GenerationConfig {
  const { eos_token_id, pad_token_id, decoder_start_token_id } = parseConfig(
    generationSchema,
    parseJson(text, file),
    file,
  );
  return { eos_token_id, pad_token_id, decoder_start_token_id, text };
}

const ropeEntries = {
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
  mscale: v.optional(positive),
  mscale_all_dim: v.optional(positive),
  truncate: v.optional(v.boolean()),
  short_factor: v.optional(v.array(positive)),
  long_factor: v.optional(v.array(positive)),
};
const wholeRotary = { partial_rotary_factor: v.optional(v.literal(1)) };
const partialRotary = { partial_rotary_factor: v.optional(fraction) };
const ropeSchema = v.looseObject({ ...ropeEntries, ...wholeRotary });
const partialRopeSchema = v.looseObject({ ...ropeEntries, ...partialRotary });

/** What each type cannot do without; transformers has no defaults for these. */
const NEEDED: Readonly<Record<string, readonly (keyof RopeParameters)[]>> = {
  linear: ["factor"],
  dynamic: ["factor"],
  llama3: ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
  yarn: ["factor"],
  longrope: ["short_factor", "long_factor", "original_max_position_embeddings"],
};
/** Types that know how long the texts were that the model was first trained on. */
const STRETCHED = ["llama3", "yarn", "longrope"];

/** `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (transformers 4). */
export const ROPE_KEYS = {
  rope_theta: v.optional(positive),
  rope_parameters: v.nullish(ropeSchema),
  rope_scaling: v.nullish(ropeSchema),
  original_max_position_embeddings: v.optional(size),
  ...wholeRotary,
};

/** The same for models that may turn a part of each head. */
export const PARTIAL_ROPE_KEYS = {
  ...ROPE_KEYS,
  rope_parameters: v.nullish(partialRopeSchema),
  rope_scaling: v.nullish(partialRopeSchema),
  ...partialRotary,
};

type RopeKeys = v.InferOutput<v.ObjectSchema<typeof PARTIAL_ROPE_KEYS, undefined>>;

/** Both spellings as one. Throws ModelConfigError where something is missing, or where both are given and disagree. */
export function ropeParametersOf(config: RopeKeys, file: string): RopeParameters {
  const { rope_parameters, rope_scaling, rope_theta, partial_rotary_factor, original_max_position_embeddings } = config;
  if (rope_parameters && rope_scaling) checkAgree(rope_parameters, rope_scaling, file);
  const inside = rope_parameters ?? rope_scaling ?? {};
  const rope_type = inside.rope_type ?? inside.type ?? "default";
  // Phi-3 has it beside the others, where transformers lets it win
  const given =
    original_max_position_embeddings !== undefined && STRETCHED.includes(rope_type)
      ? { ...inside, original_max_position_embeddings }
      : inside;
  const spelling = rope_parameters ? "rope_parameters" : "rope_scaling";
  for (const key of NEEDED[rope_type] ?? []) {
    if (given[key] !== undefined) continue;
    throw new ModelConfigError(file, `${spelling}.${key}`, `must be set for rope_type "${rope_type}", found none`);
  }
  return {
    ...given,
    rope_type,
    rope_theta: given.rope_theta ?? rope_theta ?? 10_000,
    partial_rotary_factor: given.partial_rotary_factor ?? partial_rotary_factor,
  };
}

type Rope = NonNullable<RopeKeys["rope_parameters"]>;

function checkAgree(now: Rope, old: Rope, file: string): void {
  const one = ({ type = "default", rope_type = type, ...rest }: Rope) =>
    ({ ...rest, rope_type }) as Record<string, unknown>;
  for (const [key, value] of Object.entries(one(old))) {
    const [found, expected] = [JSON.stringify(value), JSON.stringify(one(now)[key])];
    if (found === expected) continue;
    throw new ModelConfigError(
      file,
      `rope_scaling.${key}`,
      `must be what rope_parameters says (${expected}), found ${found}`,
    );
  }
}

/** Throws ModelConfigError unless the elements that turn make pairs, each with its factor where the type has factors. */
export function checkRotaryPairs(file: string, key: string, rope: RopeParameters, headDim: number): void {
  const turned = rotaryDim(rope, headDim);
  if (turned <= 0 || turned % 2 !== 0) {
    const of = turned === headDim ? "" : ` of ${headDim}`;
    throw new ModelConfigError(file, key, `must turn an even number of elements of each head, found ${turned}${of}`);
  }
  if (rope.rope_type === "dynamic" && turned === 2) {
    const mustHold = `must turn more than one pair of each head for rope_type "dynamic", which divides by the others, found 1`;
    throw new ModelConfigError(file, key, mustHold);
  }
  for (const factors of ["short_factor", "long_factor"] as const) {
    const found = rope.rope_type === "longrope" ? rope[factors]!.length : turned / 2;
    if (found !== turned / 2) {
      const mustHold = `must have one factor for each of the ${turned / 2} pairs that turn, found ${found}`;
      throw new ModelConfigError(file, factors, mustHold);
    }
  }
}
