import { type Tensor, attentionGrad, reshape, sum } from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** Scores are computed again rather than kept: only q, k, v and the mask are saved. */
export const ATTENTION_VJP: { readonly attention: Vjp<"attention"> } = {
  attention: ({ inputs, attrs: { past, ...scoring } }, g) => {
    const [q, k, v, mask] = inputs as readonly [Tensor, Tensor, Tensor, Tensor];
    const wanted = [q.tracked, k.tracked, v.tracked] as const;
    const { key, value } = past ?? { key: k, value: v };
    const constants = key.shape[2]! - k.shape[2]!;
    const [gq, gk, gv] = attentionGrad(q, key, value, mask, g, { ...scoring, wanted, past: constants });
    return [gq, gk && overGroups(gk, k), gv && overGroups(gv, v), null];
  },
};

/** g [B, H, S, n] of a head that H/K query heads share, summed over them → [B, K, S, n] */
function overGroups(g: Tensor, { shape: [B, K, S, n] }: Tensor): Tensor {
  return g.shape[1] === K ? g : sum(reshape(g, [B!, K!, g.shape[1]! / K!, S!, n!]), 2);
}
