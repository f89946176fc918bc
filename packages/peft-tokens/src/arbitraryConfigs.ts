import type { PretrainedConfig } from "@neolog/models";
import fc from "fast-check";

/** Sizes of a tiny decoder with grouped queries. */
interface Sizes {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly tie_word_embeddings: boolean;
}

const upTo = (max: number, min = 1): fc.Arbitrary<number> => fc.integer({ min, max });
const sizes: fc.Arbitrary<Sizes> = fc
  .record({
    vocab_size: upTo(19, 5),
    hidden_size: upTo(9),
    intermediate_size: upTo(9),
    num_hidden_layers: upTo(3),
    num_key_value_heads: upTo(3),
    group: upTo(3),
    pairs: upTo(3),
    tie_word_embeddings: fc.boolean(),
  })
  .map(({ group, pairs, ...rest }) => ({
    ...rest,
    num_attention_heads: group * rest.num_key_value_heads,
    head_dim: 2 * pairs,
  }));
const window = upTo(6);
const padding = fc.option(upTo(4, 0)).map((pad_token_id) => ({ pad_token_id }));
const layerTypes = ({ num_hidden_layers: n }: Sizes): fc.Arbitrary<string[]> =>
  fc.array(fc.constantFrom("full_attention", "sliding_attention"), { minLength: n, maxLength: n });

/** Angles of `turned` elements of each head; the dynamic ones need more than a pair. */
const rope = (turned: number): fc.Arbitrary<object> =>
  fc.constantFrom<object[]>(
    {},
    { rope_theta: 500 },
    { rope_scaling: { type: "linear", factor: 3 } },
    { rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 } },
    ...(turned > 2 ? [{ rope_parameters: { rope_type: "dynamic", rope_theta: 1000, factor: 2 } }] : []),
    {
      rope_parameters: {
        rope_type: "llama3",
        rope_theta: 1000,
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 8,
      },
    },
  );

/** A family's own keys beside the sizes, its positions and its activation. */
const family = (model_type: string, own: (sizes: Sizes) => fc.Arbitrary<object>): fc.Arbitrary<PretrainedConfig> =>
  sizes.chain((config) =>
    fc.tuple(own(config), padding).map(([keys, pad]) => ({
      ...config,
      ...pad,
      model_type,
      max_position_embeddings: 32,
      rms_norm_eps: 1e-6,
      hidden_act: "silu",
      ...keys,
    })),
  );
const merged = (...parts: fc.Arbitrary<object>[]): fc.Arbitrary<object> =>
  fc.tuple(...parts).map((objects) => Object.assign({}, ...objects) as object);

/** The width of all heads together: families without grouped queries or a head width of their own. */
const whole = ({ num_attention_heads, head_dim }: Sizes): object => ({ hidden_size: num_attention_heads * head_dim });

const gemma = (sizes: Sizes): fc.Arbitrary<object> =>
  fc.record({ hidden_activation: fc.constant("gelu_pytorch_tanh"), attention_bias: fc.boolean() }).map((keys) => ({
    ...keys,
    hidden_act: "gelu_pytorch_tanh",
    query_pre_attn_scalar: sizes.head_dim + 1,
    sliding_window: 3,
  }));

/** A random tiny config of every architecture, by `model_type`. */
export const ARBITRARY_CONFIGS: Readonly<Record<string, fc.Arbitrary<PretrainedConfig>>> = {
  bert: family("bert", (sizes) => fc.constant({ ...whole(sizes), hidden_act: "gelu", type_vocab_size: 2 })),
  gemma: family("gemma", (sizes) => merged(gemma(sizes), rope(sizes.head_dim))),
  gemma2: family("gemma2", (sizes) =>
    merged(
      gemma(sizes),
      rope(sizes.head_dim),
      fc.record({
        sliding_window: window,
        layer_types: fc.option(layerTypes(sizes)),
        attn_logit_softcapping: fc.option(upTo(9, 2)),
        final_logit_softcapping: fc.option(upTo(9, 2)),
      }),
    ),
  ),
  gemma3_text: family("gemma3_text", (sizes) =>
    merged(
      gemma(sizes),
      fc.record({
        sliding_window: window,
        sliding_window_pattern: upTo(3),
        layer_types: fc.option(layerTypes(sizes)),
        final_logit_softcapping: fc.option(upTo(9, 2)),
        rope_local_base_freq: fc.constantFrom(10, 10_000),
        rope_scaling: fc.option(fc.constant({ type: "linear", factor: 8 })),
      }),
    ),
  ),
  gpt2: family("gpt2", ({ num_hidden_layers, num_attention_heads, head_dim, intermediate_size }) =>
    fc
      .record({
        n_inner: fc.option(fc.constant(intermediate_size)),
        scale_attn_weights: fc.boolean(),
        scale_attn_by_inverse_layer_idx: fc.boolean(),
      })
      .map((keys) => ({
        ...keys,
        n_embd: num_attention_heads * head_dim,
        n_layer: num_hidden_layers,
        n_head: num_attention_heads,
        n_positions: 32,
      })),
  ),
  gpt_neox: family("gpt_neox", (sizes) =>
    upTo(sizes.head_dim / 2).chain((pairs) =>
      merged(
        rope(2 * pairs),
        fc.constant({ ...whole(sizes), rotary_pct: (2 * pairs) / sizes.head_dim }),
        fc.record({ use_parallel_residual: fc.boolean(), attention_bias: fc.boolean() }),
      ),
    ),
  ),
  llama: family("llama", ({ head_dim }) =>
    merged(rope(head_dim), fc.record({ attention_bias: fc.boolean(), mlp_bias: fc.boolean() })),
  ),
  mistral: family("mistral", ({ head_dim }) =>
    merged(rope(head_dim), fc.record({ sliding_window: fc.option(window) })),
  ),
  opt: family("opt", (sizes) =>
    fc
      .record({
        word_embed_proj_dim: fc.option(upTo(6)),
        do_layer_norm_before: fc.boolean(),
        _remove_final_layer_norm: fc.boolean(),
        enable_bias: fc.boolean(),
        layer_norm_elementwise_affine: fc.boolean(),
      })
      .map((keys) => ({ ...keys, ...whole(sizes), ffn_dim: sizes.intermediate_size })),
  ),
  phi3: family("phi3", ({ head_dim }) =>
    fc
      .record({ turned: upTo(head_dim / 2), sliding_window: fc.option(window) })
      .map(({ turned, ...keys }) => ({ ...keys, partial_rotary_factor: (2 * turned) / head_dim })),
  ),
  qwen2: family("qwen2", ({ num_hidden_layers, head_dim }) =>
    merged(
      rope(head_dim),
      fc.record({
        use_sliding_window: fc.boolean(),
        sliding_window: window,
        max_window_layers: upTo(num_hidden_layers, 0),
      }),
    ),
  ),
  qwen3: family("qwen3", (sizes) =>
    merged(
      rope(sizes.head_dim),
      fc.record({
        use_sliding_window: fc.constant(true),
        sliding_window: window,
        layer_types: layerTypes(sizes),
        attention_bias: fc.boolean(),
      }),
    ),
  ),
  t5: family("t5", ({ hidden_size, num_attention_heads, head_dim, intermediate_size, num_hidden_layers }) =>
    fc
      .record({ num_decoder_layers: upTo(3), feed_forward_proj: fc.constantFrom("relu", "gated-gelu") })
      .map((keys) => ({
        ...keys,
        d_model: hidden_size,
        d_kv: head_dim,
        d_ff: intermediate_size,
        num_layers: num_hidden_layers,
        num_heads: num_attention_heads,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 16,
        decoder_start_token_id: 0,
      })),
  ),
};
