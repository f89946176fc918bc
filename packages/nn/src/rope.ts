import { type Tensor, cat, rope as turn, slice, tensor } from "@neolog/tensor";

/** The rope part of a config: `rope_parameters` of transformers 5, or `rope_theta` with `rope_scaling` of transformers 4. */
export interface RopeParameters {
  readonly rope_type: string;
  readonly rope_theta: number;
  readonly factor?: number | undefined;
  readonly low_freq_factor?: number | undefined;
  readonly high_freq_factor?: number | undefined;
  readonly original_max_position_embeddings?: number | undefined;
  readonly attention_factor?: number | undefined;
  readonly beta_fast?: number | undefined;
  readonly beta_slow?: number | undefined;
  readonly mscale?: number | undefined;
  readonly mscale_all_dim?: number | undefined;
  /** Round the borders of yarn's ramp to whole pairs; true by default. */
  readonly truncate?: boolean | undefined;
  /** Divisors of the frequencies for texts up to original_max_position_embeddings and for longer ones; one per pair. */
  readonly short_factor?: readonly number[] | undefined;
  readonly long_factor?: readonly number[] | undefined;
  /** The part of each head that turns; 1 by default. */
  readonly partial_rotary_factor?: number | undefined;
}

export const ROPE_TYPES = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"] as const;

export interface RopeFrequencies {
  /** Radians per position of each pair, [rotaryDim / 2]. */
  readonly inv_freq: Float32Array;
  /** Factor of cos and sin. */
  readonly attention_scaling: number;
}

/** How many elements of each head turn. */
export const rotaryDim = (rope: RopeParameters, headDim: number): number =>
  Math.trunc(headDim * (rope.partial_rotary_factor ?? 1));

/**
 * Inverse frequencies as transformers computes them, in float32. `length` is the longest sequence so far: only "dynamic" and
 * "longrope" depend on it. Su et al. 2021, https://arxiv.org/abs/2104.09864; yarn: Peng et al. 2023,
 * https://arxiv.org/abs/2309.00071; longrope: Ding et al. 2024, https://arxiv.org/abs/2402.13753
 */
export function ropeFrequencies(
  rope: RopeParameters,
  headDim: number,
  maxPositions: number,
  length: number = maxPositions,
): RopeFrequencies {
  const factor = rope.factor ?? 1;
  const dim = rotaryDim(rope, headDim);
  const plain = powers(rope.rope_theta, dim);
  switch (rope.rope_type) {
    case "linear":
      return { inv_freq: plain.map((f) => f / factor), attention_scaling: 1 };
    case "dynamic": {
      const longest = Math.max(length, maxPositions);
      const stretch = ((factor * longest) / maxPositions - (factor - 1)) ** (dim / (dim - 2));
      return { inv_freq: powers(rope.rope_theta * stretch, dim), attention_scaling: 1 };
    }
    case "llama3":
      return { inv_freq: plain.map((f) => llama3Frequency(f, rope, maxPositions)), attention_scaling: 1 };
    case "yarn":
      return yarnFrequencies(plain, rope, dim, maxPositions);
    case "longrope":
      return longropeFrequencies(rope, dim, maxPositions, length);
    default:
      return { inv_freq: plain, attention_scaling: 1 };
  }
}

/** theta^(−2i/dim) for i < dim/2, each divided by its factor where there are some */
const powers = (theta: number, dim: number, factors?: readonly number[]): Float32Array =>
  Float32Array.from({ length: dim / 2 }, (_, i) => {
    const power = Math.fround(theta ** Math.fround((2 * i) / dim));
    return 1 / (factors ? Math.fround(Math.fround(factors[i]!) * power) : power);
  });

/** Long wavelengths are stretched by `factor`, short ones kept, those between blended. */
function llama3Frequency(frequency: number, rope: RopeParameters, maxPositions: number): number {
  const { factor = 1, low_freq_factor: low = 1, high_freq_factor: high = 4 } = rope;
  const original = rope.original_max_position_embeddings ?? maxPositions;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const smooth = (original / wavelength - low) / (high - low);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

function yarnFrequencies(
  plain: Float32Array,
  rope: RopeParameters,
  dim: number,
  maxPositions: number,
): RopeFrequencies {
  const { factor = 1, beta_fast = 32, beta_slow = 1, truncate = true, rope_theta } = rope;
  const original = rope.original_max_position_embeddings ?? maxPositions;
  const pairTurning = (turns: number): number =>
    (dim * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(rope_theta));
  const [first, last] = [pairTurning(beta_fast), pairTurning(beta_slow)];
  const low = Math.max(0, truncate ? Math.floor(first) : first);
  const high = Math.min(dim - 1, truncate ? Math.ceil(last) : last);
  const inv_freq = plain.map((frequency, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / (high === low ? 0.001 : high - low)));
    return (frequency / factor) * ramp + frequency * (1 - ramp);
  });
  return { inv_freq, attention_scaling: rope.attention_factor ?? yarnScaling(factor, rope) };
}

/** What keeps the entropy of attention over longer texts; models after DeepSeek-V2 give two weights for it. */
function yarnScaling(factor: number, { mscale, mscale_all_dim }: RopeParameters): number {
  const scaling = (weight: number): number => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  return mscale && mscale_all_dim ? scaling(mscale) / scaling(mscale_all_dim) : scaling(1);
}

/** Two sets of divisors: one for texts as long as the model was first trained on, one for longer texts. */
function longropeFrequencies(rope: RopeParameters, dim: number, maxPositions: number, length: number): RopeFrequencies {
  const original = rope.original_max_position_embeddings ?? maxPositions;
  const stretch = rope.factor ?? maxPositions / original;
  const scaling = stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(original));
  const factors = length > original ? rope.long_factor : rope.short_factor;
  return { inv_freq: powers(rope.rope_theta, dim, factors), attention_scaling: rope.attention_factor ?? scaling };
}

export interface RopeAngles {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** cos and sin of position × frequency for positions given row by row; each [rows, 1, T, rotaryDim / 2]. */
export function ropeAngles(
  { inv_freq, attention_scaling }: RopeFrequencies,
  positions: Int32Array,
  rows: number,
): RopeAngles {
  const pairs = inv_freq.length;
  const cos = new Float32Array(positions.length * pairs);
  const sin = new Float32Array(positions.length * pairs);
  positions.forEach((position, t) => {
    for (let i = 0; i < pairs; i++) {
      const angle = Math.fround(position * inv_freq[i]!);
      cos[t * pairs + i] = Math.cos(angle) * attention_scaling;
      sin[t * pairs + i] = Math.sin(angle) * attention_scaling;
    }
  });
  const shape = [rows, 1, positions.length / rows, pairs];
  return { cos: tensor(cos, shape), sin: tensor(sin, shape) };
}

/**
 * x [B, H, T, D] turned by its positions' angles. Where there are fewer than D / 2 pairs, the last elements of each head stay as
 * they are: partial rotary, https://github.com/EleutherAI/gpt-neox
 */
export function applyRotary(x: Tensor, { cos, sin }: RopeAngles): Tensor {
  const turned = 2 * cos.shape.at(-1)!;
  if (turned === x.shape.at(-1)) return turn(x, cos, sin);
  return cat([turn(slice(x, -1, 0, turned), cos, sin), slice(x, -1, turned)], -1);
}
