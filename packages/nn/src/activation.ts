import { type Tensor, gelu, geluTanh, quickGelu, relu, sigmoid, silu, tanh } from "@neolog/tensor";

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
