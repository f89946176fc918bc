import { type Backend, type OpAttrs, type View, expandLayout, sizeOf, sliceLayout } from "@neolog/tensor";
import { type AttentionArray, type AttentionRole, attention as attentionKernel } from "./attention.ts";
import { attentionAlone } from "./attentionAlone.ts";
import { crossEntropyGradient, meanLoss, tokenLosses } from "./crossEntropy.ts";
import type { FloatDType } from "./elements.ts";
import { type RowOp, rowKernel } from "./rows.ts";
import type { Arguments, TunedExecutor } from "./tunedKernel.ts";

/** Columns of attention's result that a lane's registers hold: 8 runs of 32. A wider head takes several calls. */
const WIDEST = 256;

/** Rows longer than this get a workgroup of 256 lanes. */
const LONG = 512;

const dtypeOf = ({ buffer }: View): FloatDType => buffer.dtype as FloatDType;

/** The fused kernels that are tuned: each one's specification is its composite. No plain kernel stands in: the executor throws where it cannot. */
export function tunedFused(executor: TunedExecutor): NonNullable<Backend["fused"]> {
  /** `inputs` are the op's rows, then its vectors, as rows.ts names them. */
  const alongRows =
    (op: RowOp, names: readonly string[], order: readonly number[] = names.map((_, i) => i)) =>
    (out: View, inputs: readonly View[], attrs: { readonly eps: number } | null): void => {
      const n = out.layout.shape.at(-1) ?? 1;
      const size = sizeOf(out.layout.shape);
      if (size === 0) return;
      const views = order.map((i) => inputs[i]!);
      const starts = names.map((name, i) => [`${name}At`, views[i]!.layout.offset] as const);
      executor.runTuned({
        kernel: rowKernel(op, views.map(dtypeOf), n > LONG, executor.style),
        arrays: views.map(({ buffer }) => buffer),
        out: out.buffer,
        sizes: { n, rows: size / n, outAt: out.layout.offset, eps: attrs?.eps ?? 0, ...Object.fromEntries(starts) },
      });
    };

  return {
    softmax: alongRows("softmax", ["x"]),
    logSoftmax: alongRows("logSoftmax", ["x"]),
    softmaxGrad: alongRows("softmaxGrad", ["y", "g"]),
    logSoftmaxGrad: alongRows("logSoftmaxGrad", ["y", "g"]),
    layerNorm: alongRows("layerNorm", ["x", "w", "b"]),
    rmsNorm: alongRows("rmsNorm", ["x", "w"]),
    layerNormGrad: alongRows("layerNormGrad", ["x", "g", "w"], [0, 2, 1]),
    rmsNormGrad: alongRows("rmsNormGrad", ["x", "g", "w"], [0, 2, 1]),
    attention: (out, [q, k, v, mask], attrs) =>
      attend(out, out.layout.offset, "out", { q: q!, k: k!, v: v! }, mask!, attrs),
    attentionGrad: (out, inputs, attrs) => attentionGrad(out, inputs, attrs),
    crossEntropy,
    crossEntropyGrad,
  };

  function attend(
    out: Pick<View, "buffer">,
    outAt: number,
    role: AttentionRole,
    views: Readonly<Partial<Record<AttentionArray, View>> & { q: View; k: View }>,
    mask: View,
    { scale, softcap }: OpAttrs["attention"],
    given: { readonly stats?: View["buffer"]; readonly E?: number } = {},
  ): void {
    const [B, H, T, D] = views.q.layout.shape as [number, number, number, number];
    const [, K, S] = views.k.layout.shape as [number, number, number];
    const E = (views.v ?? views.g)!.layout.shape[3]!;
    const allowed = expandLayout(mask.layout, [B, H, T, S]);
    const [maskB, maskH, maskT, maskS] = allowed.strides as [number, number, number, number];
    const layouts = (["q", "k", "v", "g"] as const).map((name) => [name, views[name]?.layout] as const);
    const steps = layouts.map(([name, layout]) => {
      const [b, h, row, column] = layout?.strides ?? [0, 0, 0, 1];
      return [name, { At: layout?.offset ?? 0, B: b!, H: h!, Row: row!, Column: column! }] as const;
    });
    const sizes: Arguments = {
      H,
      G: H / K,
      T,
      S,
      D,
      E,
      heads: B * H,
      scale,
      softcap: softcap ?? 0,
      outAt,
      ...Object.fromEntries(
        steps.flatMap(([name, each]) => Object.entries(each).map(([step, value]) => [`${name}${step}`, value])),
      ),
      maskAt: allowed.offset,
      maskB,
      maskH,
      maskT,
      maskS,
    };
    const beside = steps.every(([, { Column }]) => Column === 1);
    const fours = [D, E, ...steps.flatMap(([, { At, B: b, H: h, Row }]) => [At, b, h, Row])];
    const width = role === "stats" ? 1 : role === "gq" || role === "gk" ? D : E;
    for (let left = 0; left < width; left += WIDEST) {
      const kernel = (executor.style === "alone" ? attentionAlone : attentionKernel)({
        role,
        dtypes: {
          q: dtypeOf(views.q),
          k: dtypeOf(views.k),
          v: views.v ? dtypeOf(views.v) : "float32",
          g: views.g ? dtypeOf(views.g) : "float32",
        },
        fours: beside && fours.every((x) => x % 4 === 0),
        runs: Math.ceil(Math.min(WIDEST, width - left) / 32),
      });
      const buffers: Record<string, View["buffer"] | undefined> = {
        q: views.q.buffer,
        k: views.k.buffer,
        v: views.v?.buffer,
        g: views.g?.buffer,
        mask: mask.buffer,
        stats: given.stats,
      };
      const arrays = kernel.arrays.map(({ name }) => buffers[name]!);
      executor.runTuned({ kernel, arrays, out: out.buffer, sizes: { ...sizes, left } });
    }
  }

  function attentionGrad(
    out: View,
    [q, k, v, mask, g]: readonly View[],
    { wanted, past = 0, ...attrs }: OpAttrs["attentionGrad"],
  ): void {
    const [B, H, T, D] = q!.layout.shape as [number, number, number, number];
    const [S, E] = v!.layout.shape.slice(2) as [number, number];
    const views = { q: q!, k: k!, v: v!, g: g! };
    // the rows of a pass over keys depend on the queries' statistics alone: the others are as if they were not there
    const later = (x: View, axis: number): View => ({
      buffer: x.buffer,
      layout: (x.layout.shape.at(axis) ?? 1) === 1 ? x.layout : sliceLayout(x.layout, axis, past, S - past),
    });
    const behind = past > 0 ? { q: q!, k: later(k!, 2), v: later(v!, 2), g: g! } : views;
    const seen = past > 0 ? later(mask!, mask!.layout.shape.length - 1) : mask!;
    const stats = executor.allocate("float32", Math.max(1, B * H * T) * 4);
    if (B * H * T * S > 0) attend({ buffer: stats }, 0, "stats", views, mask!, attrs);
    let at = out.layout.offset;
    const parts = [
      ["gq", B * H * T * D],
      ["gk", B * H * (S - past) * D],
      ["gv", B * H * (S - past) * E],
    ] as const;
    parts.forEach(([role, size], i) => {
      if (!wanted[i]) return;
      const { v: _, ...withoutValues } = behind;
      const given = role === "gq" ? views : role === "gk" ? behind : withoutValues;
      if (size > 0) attend(out, at, role, given, role === "gq" ? mask! : seen, attrs, { stats });
      at += size;
    });
    executor.free(stats);
  }

  function crossEntropy(out: View, [x, ids]: readonly View[], { ignoreIndex }: OpAttrs["crossEntropy"]): void {
    const [rows, n] = x!.layout.shape as [number, number];
    const losses = executor.allocate("float32", Math.max(1, rows));
    const sizes = { n, rows, xAt: x!.layout.offset, idsAt: ids!.layout.offset, gAt: 0, outAt: 0, ignore: ignoreIndex };
    if (rows > 0)
      executor.runTuned({
        kernel: tokenLosses(dtypeOf(x!), executor.style),
        arrays: [x!.buffer, ids!.buffer],
        out: losses,
        sizes,
      });
    executor.runTuned({
      kernel: meanLoss(executor.style),
      arrays: [losses, ids!.buffer],
      out: out.buffer,
      sizes: { ...sizes, xAt: 0, outAt: out.layout.offset },
    });
    executor.free(losses);
  }

  function crossEntropyGrad(
    out: View,
    [x, ids, g]: readonly View[],
    { ignoreIndex }: OpAttrs["crossEntropyGrad"],
  ): void {
    const [rows, n] = x!.layout.shape as [number, number];
    if (rows * n === 0) return;
    executor.runTuned({
      kernel: crossEntropyGradient(dtypeOf(x!), executor.style),
      arrays: [x!.buffer, ids!.buffer, g!.buffer],
      out: out.buffer,
      sizes: {
        n,
        rows,
        xAt: x!.layout.offset,
        idsAt: ids!.layout.offset,
        gAt: g!.layout.offset,
        outAt: out.layout.offset,
        ignore: ignoreIndex,
      },
    });
  }
}
