export { type LabelledBatch, accumulateGradients } from "./accumulateGradients.ts";
export {
  AutoModelForCausalLM,
  AutoModelForMaskedLM,
  AutoModelForSeq2SeqLM,
  AutoModelWithLMHead,
  type LanguageModel,
} from "./autoModel.ts";
export { BatchSampler, type BatchSamplerOptions } from "./batchSampler.ts";
export { BertForMaskedLM } from "./bert.ts";
export { CausalLM, type CausalLMOutput, type ModelInputs } from "./causalLm.ts";
export type { ChatMessage, ChatTemplateOptions, RenderedChat } from "./chatTemplate.ts";
export { type GenerationConfig, ModelConfigError, type PretrainedConfig } from "./config.ts";
export { GemmaForCausalLM } from "./gemma.ts";
export { Gemma2ForCausalLM } from "./gemma2.ts";
export { Gemma3ForCausalLM } from "./gemma3_text.ts";
export type { Decoding, Prompt } from "./decoding.ts";
export { type Generator, generate } from "./generate.ts";
export { type GenerateOptions, GenerateOptionError } from "./generateOptions.ts";
export { type StreamOptions, generateStream } from "./generateStream.ts";
export { Gpt2LMHeadModel } from "./gpt2.ts";
export { GptNeoXForCausalLM } from "./gpt_neox.ts";
export { CacheGradientError } from "./cachedPositions.ts";
export { type HostMatrix, type IdMatrix, shiftedTargets, toHost, toHostLike } from "./inputs.ts";
export { DataLoader, type DataLoaderOptions, type Dataset } from "./dataLoader.ts";
export { EncoderDecoderCache } from "./encoderDecoderCache.ts";
export type { DecoderCache } from "./cachedAttention.ts";
export { KvCache, type PositionCache } from "./kvCache.ts";
export { LlamaForCausalLM } from "./llama.ts";
export * from "./logits.ts";
export { MistralForCausalLM } from "./mistral.ts";
export { MaskedLM, type MaskedLMInputs, type MaskedLMOutput } from "./maskedLm.ts";
export { RaggedPositions, type RaggedText } from "./raggedPositions.ts";
export { type PackedSequences, packSequences } from "./packSequences.ts";
export { type PaddedSequences, type Sequence, padSequences } from "./padSequences.ts";
export { Phi3ForCausalLM } from "./phi3.ts";
export { type ModelOutput, PreTrainedModel } from "./preTrainedModel.ts";
export { nextTask } from "./nextTask.ts";
export { OptForCausalLM } from "./opt.ts";
export { type GradientCheckpointing, GradientCheckpointingError } from "./gradientCheckpointing.ts";
export { type MemoryEstimate, estimateMemory } from "./memory.ts";
export type { FromPretrainedOptions } from "./pretrained.ts";
export { Qwen2ForCausalLM } from "./qwen2.ts";
export { Qwen3ForCausalLM } from "./qwen3.ts";
export { SamplingError } from "./sampling.ts";
export { ARCHITECTURES, architectureOf } from "./registry.ts";
export { loadedVocabSize } from "./resize.ts";
export { AdaptedEmbeddingError } from "./resize.ts";
export type { SavePretrainedOptions } from "./savePretrained.ts";
export type { TokenEmbedding, TokenHead } from "./tokenModules.ts";
export { type Ragged, type SequenceColumns, SequenceDataset } from "./sequenceDataset.ts";
export { Seq2SeqLM, type Seq2SeqLMInputs, type Seq2SeqLMOutput } from "./seq2SeqLm.ts";
export { T5ForConditionalGeneration } from "./t5.ts";
export { type TokenDecoder, TextStreamer, type TextStreamerOptions } from "./textStreamer.ts";
export { AutoTokenizer, type DecodeOptions, type EncodeOptions, Tokenizer } from "./tokenizer.ts";
export { type AddedTokenSpec, addTokens } from "./tokenizerFiles.ts";
export { VocabularyError, positionsOf } from "./trimTokenizer.ts";
