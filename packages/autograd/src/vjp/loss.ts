import {
  type Tensor,
  add,
  arange,
  div,
  mul,
  neg,
  notEqual,
  reshape,
  softmax,
  sum,
  unsqueeze,
  where,
} from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** ∂logits = (softmax − one-hot target)·g / counted rows; ignored rows give 0. One pass over [N, V] beside the softmax. */
export const LOSS_VJP: { readonly crossEntropy: Vjp<"crossEntropy"> } = {
  crossEntropy: ({ inputs, attrs: { ignoreIndex } }, g) => {
    const [logits, targets] = inputs as readonly [Tensor, Tensor];
    const [N, V] = logits.shape as [number, number];
    const counted = notEqual(targets, ignoreIndex);
    const share = div(mul(counted, g), sum(counted)); // [N]
    const gx = mul(softmax(logits), unsqueeze(share, 1)); // [N, V]
    const position = where(counted, add(mul(arange(N, "int32", logits.backend), V), targets), -1);
    const [cells, taken] = [reshape(gx, [N * V, 1]), reshape(neg(share), [N, 1])];
    logits.backend.addRows(cells.view("crossEntropy"), taken.view("crossEntropy"), position.view("crossEntropy"));
    return [gx, null];
  },
};
