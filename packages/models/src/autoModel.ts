import { CausalLM } from "./causalLm.ts";
import { ModelConfigError, type PretrainedConfig } from "./config.ts";
import { MaskedLM } from "./maskedLm.ts";
import type { PreTrainedModel } from "./preTrainedModel.ts";
import { Seq2SeqLM } from "./seq2SeqLm.ts";
import { type FromPretrainedOptions, fromPretrained } from "./pretrained.ts";
import { type InitOptions, fromConfig } from "./registry.ts";

/** A kind of model: its class, what it is called, and what opens it. */
interface Kind<M extends PreTrainedModel> {
  readonly base: abstract new (...args: never[]) => M;
  readonly name: string;
  readonly auto: string;
}
const CAUSAL_LM: Kind<CausalLM> = { base: CausalLM, name: "a causal language model", auto: "AutoModelForCausalLM" };
const MASKED_LM: Kind<MaskedLM> = { base: MaskedLM, name: "a masked language model", auto: "AutoModelForMaskedLM" };
const SEQ2SEQ_LM: Kind<Seq2SeqLM> = { base: Seq2SeqLM, name: "an encoder-decoder", auto: "AutoModelForSeq2SeqLM" };
const KINDS: readonly Kind<PreTrainedModel>[] = [CAUSAL_LM, MASKED_LM, SEQ2SEQ_LM];

/** The model as the kind that was asked for. Throws ModelConfigError that says what opens it. */
function accept<M extends PreTrainedModel>(kind: Kind<M>, model: PreTrainedModel, file: string): M {
  if (model instanceof kind.base) return model;
  const { name, auto } = KINDS.find(({ base }) => model instanceof base)!;
  const found = `found "${model.config.model_type}", ${name}; open it with ${auto}`;
  throw new ModelConfigError(file, "model_type", `must name ${kind.name} for ${kind.auto}, ${found}`);
}

const autoModel = <M extends PreTrainedModel>(kind: Kind<M>) => ({
  /** Loads a folder of this kind; see `fromPretrained`. Throws ModelConfigError where it is of another. */
  fromPretrained: (dirOrRepo: string, options: FromPretrainedOptions = {}): Promise<M> =>
    fromPretrained(dirOrRepo, options, (model, file) => accept(kind, model, file)),
  /** A model of this kind with random weights. */
  fromConfig: (config: PretrainedConfig, options: InitOptions = {}): M =>
    fromConfig(config, options, (model, file) => accept(kind, model, file)),
});

/** Picks the architecture by config.json's `model_type`. */
export const AutoModelForCausalLM = autoModel(CAUSAL_LM);
export const AutoModelForMaskedLM = autoModel(MASKED_LM);
export const AutoModelForSeq2SeqLM = autoModel(SEQ2SEQ_LM);

/** A model of any kind whose head gives logits over the vocabulary. */
export type LanguageModel = CausalLM | MaskedLM | Seq2SeqLM;

const anyKind = (model: PreTrainedModel): LanguageModel => model as LanguageModel;

/** Takes every kind. */
export const AutoModelWithLMHead = {
  fromPretrained: (dirOrRepo: string, options: FromPretrainedOptions = {}): Promise<LanguageModel> =>
    fromPretrained(dirOrRepo, options, anyKind),
  fromConfig: (config: PretrainedConfig, options: InitOptions = {}): LanguageModel =>
    fromConfig(config, options, anyKind),
};
