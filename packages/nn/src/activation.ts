import { type Tensor, geglu, gelu, geluTanh, mul, quickGelu, relu, sigmoid, silu, swiglu, tanh } from "@neolog/tensor";

/** Activations under the names that configs use. */
export const ACTIVATIONS: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  gelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  gelu_fast: geluTanh,
  quick_gelu: quickGelu,
  relu,
  sigmoid,
  silu,
  swish: silu,
  tanh,
};

/** activation(gate)·up. Shazeer 2020, https://arxiv.org/abs/2002.05202 */
export type GatedActivation = (gate: Tensor, up: Tensor) => Tensor;

/** Those that are one op, and keep gate and up alone for the gradient. */
const ONE_OP = new Map<(x: Tensor) => Tensor, GatedActivation>([
  [silu, swiglu],
  [geluTanh, geglu],
]);

/** The gated form of the activation that configs call `name`. */
export function gatedActivation(name: string): GatedActivation {
  const activation = ACTIVATIONS[name]!;
  return ONE_OP.get(activation) ?? ((gate, up) => mul(activation(gate), up));
}
