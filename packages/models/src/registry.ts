import { initWeights } from "@neolog/nn";
import { BertForMaskedLM } from "./bert.ts";
import { ModelConfigError, type PretrainedConfig } from "./config.ts";
import { GemmaForCausalLM } from "./gemma.ts";
import { Gemma2ForCausalLM } from "./gemma2.ts";
import { Gemma3ForCausalLM } from "./gemma3_text.ts";
import { Gpt2LMHeadModel } from "./gpt2.ts";
import { GptNeoXForCausalLM } from "./gpt_neox.ts";
import { LlamaForCausalLM } from "./llama.ts";
import { MistralForCausalLM } from "./mistral.ts";
import { OptForCausalLM } from "./opt.ts";
import { Phi3ForCausalLM } from "./phi3.ts";
import type { PreTrainedModel } from "./preTrainedModel.ts";
import { Qwen2ForCausalLM } from "./qwen2.ts";
import { Qwen3ForCausalLM } from "./qwen3.ts";
import { T5ForConditionalGeneration } from "./t5.ts";

export interface Architecture {
  readonly create: (config: PretrainedConfig, file: string) => PreTrainedModel;
  /** The class and module that transformers has for it, as adapter files record them. */
  readonly transformers: { readonly base_model_class: string; readonly parent_library: string };
  /** What checkpoint keys of the base model without a head lack. */
  readonly basePrefix: string;
  /** Keys that some checkpoints store and no model needs. */
  readonly ignored?: RegExp;
  /** Today's name of a key that old checkpoints spell otherwise. */
  readonly renamed?: (name: string) => string;
}

type ModelClass = new (config: PretrainedConfig, file: string) => PreTrainedModel;

/** The row of a family with Llama's skeleton; `name` is how transformers spells it in its classes. */
function llamaLike(model_type: string, name: string, Model: ModelClass): Architecture {
  return {
    create: (config, file) => new Model(config, file),
    transformers: {
      base_model_class: `${name}ForCausalLM`,
      parent_library: `transformers.models.${model_type}.modeling_${model_type}`,
    },
    basePrefix: "model.",
    ignored: /\.rotary_emb\.inv_freq$/,
  };
}

/** One row per architecture, by `model_type`. */
export const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  bert: {
    create: (config, file) => new BertForMaskedLM(config, file),
    transformers: { base_model_class: "BertForMaskedLM", parent_library: "transformers.models.bert.modeling_bert" },
    basePrefix: "bert.",
    ignored: /\.(position_ids$|pooler\.|seq_relationship\.)/,
    renamed: (name) =>
      name.replace(/\.LayerNorm\.gamma$/, ".LayerNorm.weight").replace(/\.LayerNorm\.beta$/, ".LayerNorm.bias"),
  },
  gemma: {
    create: (config, file) => new GemmaForCausalLM(config, file),
    transformers: { base_model_class: "GemmaForCausalLM", parent_library: "transformers.models.gemma.modeling_gemma" },
    basePrefix: "model.",
    ignored: /\.rotary_emb\.inv_freq$/,
  },
  gemma2: {
    create: (config, file) => new Gemma2ForCausalLM(config, file),
    transformers: {
      base_model_class: "Gemma2ForCausalLM",
      parent_library: "transformers.models.gemma2.modeling_gemma2",
    },
    basePrefix: "model.",
  },
  gemma3_text: {
    create: (config, file) => new Gemma3ForCausalLM(config, file),
    transformers: {
      base_model_class: "Gemma3ForCausalLM",
      parent_library: "transformers.models.gemma3.modeling_gemma3",
    },
    basePrefix: "model.",
  },
  gpt2: {
    create: (config, file) => new Gpt2LMHeadModel(config, file),
    transformers: { base_model_class: "GPT2LMHeadModel", parent_library: "transformers.models.gpt2.modeling_gpt2" },
    basePrefix: "transformer.",
    ignored: /\.attn\.(masked_)?bias$/,
  },
  gpt_neox: {
    create: (config, file) => new GptNeoXForCausalLM(config, file),
    transformers: {
      base_model_class: "GPTNeoXForCausalLM",
      parent_library: "transformers.models.gpt_neox.modeling_gpt_neox",
    },
    basePrefix: "gpt_neox.",
    ignored: /\.attention\.((masked_)?bias|rotary_emb\.inv_freq)$/,
  },
  llama: llamaLike("llama", "Llama", LlamaForCausalLM),
  mistral: llamaLike("mistral", "Mistral", MistralForCausalLM),
  opt: {
    create: (config, file) => new OptForCausalLM(config, file),
    transformers: { base_model_class: "OPTForCausalLM", parent_library: "transformers.models.opt.modeling_opt" },
    basePrefix: "model.",
  },
  phi3: llamaLike("phi3", "Phi3", Phi3ForCausalLM),
  qwen2: llamaLike("qwen2", "Qwen2", Qwen2ForCausalLM),
  qwen3: llamaLike("qwen3", "Qwen3", Qwen3ForCausalLM),
  t5: {
    create: (config, file) => new T5ForConditionalGeneration(config, file),
    transformers: {
      base_model_class: "T5ForConditionalGeneration",
      parent_library: "transformers.models.t5.modeling_t5",
    },
    basePrefix: "",
    ignored: /\.EncDecAttention\.relative_attention_bias\./,
  },
};

/** The row of a model_type. Throws ModelConfigError that lists the known ones. */
export function architectureOf(config: { readonly model_type?: unknown }, file = "config.json"): Architecture {
  const { model_type } = config;
  const known = Object.keys(ARCHITECTURES).join(", ");
  if (typeof model_type !== "string")
    throw new ModelConfigError(file, "model_type", `must be one of ${known}, found none`);
  if (!Object.hasOwn(ARCHITECTURES, model_type)) {
    throw new ModelConfigError(file, "model_type", `must be one of ${known}, found "${model_type}"`);
  }
  return ARCHITECTURES[model_type]!;
}

export interface InitOptions {
  readonly seed?: number;
  readonly std?: number;
}

/** A model with random weights that `accept` takes: GPT-2's initialisation from `seed`. */
export function fromConfig<M extends PreTrainedModel>(
  config: PretrainedConfig,
  { seed = 0, std = 0.02 }: InitOptions,
  accept: (model: PreTrainedModel, file: string) => M,
): M {
  const model = accept(architectureOf(config).create(config, "config.json"), "config.json");
  initWeights(model, seed, std);
  return model;
}
