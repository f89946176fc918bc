import {
  type Backend,
  type FusedName,
  type OpAttrs,
  Scope,
  type Tensor,
  type View,
  attention,
  contiguousLayout,
  crossEntropy,
  layerNorm,
  logSoftmax,
  openBackend,
  overriddenRows,
  rmsNorm,
  rope,
  sizeOf,
  softmax,
  tensor,
  untracked,
} from "@neolog/tensor";

/** `backend` with some of its members replaced. */
export function replacing(backend: Backend, members: Partial<Backend>): Backend {
  return new Proxy(backend, {
    get(target, key) {
      if (Object.hasOwn(members, key)) return members[key as keyof Backend];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** A backend that counts how often a kernel runs. */
export async function counting(
  kernel: "matmul" | "pointwise" | "reduce",
): Promise<{ backend: Backend; calls: () => number }> {
  const plain = await openBackend("reference");
  let calls = 0;
  const run = (...args: unknown[]): void => {
    calls++;
    (plain[kernel] as (...args: unknown[]) => void).apply(plain, args);
  };
  return { backend: replacing(plain, { [kernel]: run }), calls: () => calls };
}

const COMPOSITES: { readonly [N in FusedName]: (inputs: readonly Tensor[], attrs: OpAttrs[N]) => Tensor } = {
  softmax: ([x]) => softmax(x!),
  logSoftmax: ([x]) => logSoftmax(x!),
  layerNorm: ([x, weight, bias], { eps }) => layerNorm(x!, weight!, bias!, eps),
  rmsNorm: ([x, weight], { eps }) => rmsNorm(x!, weight!, eps),
  rope: ([x, cos, sin], { interleaved }) => rope(x!, cos!, sin!, interleaved),
  attention: ([q, k, v, mask], options) => attention(q!, k!, v!, mask!, options),
  overriddenRows: ([table, rows, ids, slots]) => overriddenRows(table!, ids!, rows!, slots!),
  crossEntropy: ([logits, targets], { ignoreIndex }) => crossEntropy(logits!, targets!, ignoreIndex),
};

/** A float64 backend with every fused kernel, each run as its composite elsewhere: it brings the rules of fused ops into play. */
export async function fusedReference(): Promise<Backend> {
  const plain = await openBackend("reference");
  const memory = await openBackend("reference");
  const kernel =
    <N extends FusedName>(name: N) =>
    (out: View, views: readonly View[], attrs: OpAttrs[N]): void => {
      using _ = new Scope();
      const inputs = views.map((view) => {
        const { dtype } = view.buffer;
        const { shape } = view.layout;
        const rows = memory.allocate(dtype, sizeOf(shape)); // kernels may get views of any strides
        memory.copy({ buffer: rows, layout: contiguousLayout(shape) }, view);
        const elements = memory.readSync!(rows, 0, sizeOf(shape));
        memory.free(rows);
        return tensor(elements, shape, dtype, plain);
      });
      const y = untracked(() => COMPOSITES[name](inputs, attrs));
      memory.write(out.buffer, y.dataSync(), out.layout.offset);
    };
  const fused: Backend["fused"] = {
    softmax: kernel("softmax"),
    logSoftmax: kernel("logSoftmax"),
    layerNorm: kernel("layerNorm"),
    rmsNorm: kernel("rmsNorm"),
    rope: kernel("rope"),
    attention: kernel("attention"),
    crossEntropy: kernel("crossEntropy"),
    overriddenRows: kernel("overriddenRows"),
  };
  return replacing(memory, { fused });
}
