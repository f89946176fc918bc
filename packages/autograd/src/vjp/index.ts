import type { OpName } from "@neolog/tensor";
import { replayed } from "../checkpoint.ts";
import { ATTENTION_VJP } from "./attention.ts";
import { LOSS_VJP } from "./loss.ts";
import { MATMUL_VJP } from "./matmul.ts";
import { MOVEMENT_VJP } from "./movement.ts";
import { NORM_VJP } from "./norm.ts";
import { POINTWISE_VJP } from "./pointwise.ts";
import { REDUCE_VJP } from "./reduce.ts";
import { ROPE_VJP } from "./rope.ts";
import { ROWS_VJP } from "./rows.ts";
import type { Vjp } from "./rule.ts";
import { SOFTMAX_VJP } from "./softmax.ts";

/** The gradient of every op. An op without a rule does not compile. */
export const VJP: { readonly [N in OpName]: Vjp<N> } = {
  ...POINTWISE_VJP,
  ...REDUCE_VJP,
  ...MATMUL_VJP,
  ...ROWS_VJP,
  ...MOVEMENT_VJP,
  ...SOFTMAX_VJP,
  ...NORM_VJP,
  ...ROPE_VJP,
  ...ATTENTION_VJP,
  ...LOSS_VJP,
  checkpoint: replayed,
};
