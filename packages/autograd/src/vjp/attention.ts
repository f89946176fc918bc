import {
  MASKED_SCORE,
  type Tensor,
  div,
  matmul,
  mul,
  reshape,
  softmax,
  square,
  sub,
  sum,
  tanh,
  transpose,
  where,
} from "@neolog/tensor";
import type { Vjp } from "./rule.ts";

/** Scores are computed again rather than kept: only q, k, v and the mask are saved. */
export const ATTENTION_VJP: { readonly attention: Vjp<"attention"> } = {
  attention: ({ inputs, attrs: { scale, softcap } }, g) => {
    const [q, k, v, mask] = inputs as readonly [Tensor, Tensor, Tensor, Tensor];
    const [B, H, T] = q.shape as [number, number, number];
    const [, K, S] = k.shape as [number, number, number];
    const grouped = (x: Tensor): Tensor => reshape(x, [B, K, x.shape[1]! / K, x.shape[2]!, x.shape[3]!]);
    const groups = (x: Tensor): Tensor => reshape(sum(x, 2), [B, K, S, -1].with(3, x.shape[4]!));
    const [qg, kg, vg, gg] = [grouped(q), grouped(k), grouped(v), grouped(g)];

    const raw = mul(matmul(qg, transpose(kg)), scale); // [B, K, H/K, T, S]
    const capped = softcap === null ? raw : mul(tanh(div(raw, softcap)), softcap);
    const p = grouped(softmax(where(mask, reshape(capped, [B, H, T, S]), MASKED_SCORE)));
    const gv = v.tracked ? groups(matmul(transpose(p), gg)) : null;
    if (!q.tracked && !k.tracked) return [null, null, gv, null];

    const gp = mul(p, matmul(gg, transpose(vg)));
    const gMasked = sub(gp, mul(p, sum(gp, -1, true)));
    const gCapped = grouped(where(mask, reshape(gMasked, [B, H, T, S]), 0));
    const gRaw = softcap === null ? gCapped : mul(gCapped, sub(1, square(div(capped, softcap))));
    const gScores = mul(gRaw, scale);
    return [
      q.tracked ? reshape(matmul(gScores, kg), q.shape) : null,
      k.tracked ? groups(matmul(transpose(gScores), qg)) : null,
      gv,
      null,
    ];
  },
};
