import { type GpuBackend, openGpu } from "@neolog/gpu";
import {
  type Backend,
  Scope,
  type Tensor,
  adamw,
  intTensor,
  linearCrossEntropy,
  overriddenRows,
  randn,
  scatterRows,
  zeros,
} from "@neolog/tensor";
import { type Figures, leastMs } from "./figures.ts";

export interface FusionShape {
  readonly tokens: number;
  readonly width: number;
  readonly vocab: number;
}

/** The backend without its kernels of several ops in one: what the composites cost. */
function unfused(backend: GpuBackend): Backend {
  const { overriddenRows: _, scatterRows: __, ...fused } = backend.fused;
  return new Proxy<Backend>(backend, {
    get(target, key) {
      if (key === "fused") return fused;
      if (key === "updates") return undefined;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** What rows, their optimizer and the head's loss take in kernels of their own and as composites: milliseconds and dispatches. */
export async function measureFusion(
  options: Parameters<typeof openGpu>[0],
  { tokens, width, vocab }: FusionShape,
  figures: Figures,
): Promise<void> {
  const gpu = await openGpu(options);
  const shape = `${tokens} tokens, width ${width}, vocabulary ${vocab}`;
  for (const [who, backend] of [
    ["neolog", gpu],
    ["neolog, composites", unfused(gpu)],
  ] as const) {
    using _scope = new Scope();
    const of = (size: readonly number[], seed: number): Tensor => randn(size, seed, "float32", backend);
    const ids = Int32Array.from({ length: tokens }, (_, i) => (i * 7919) % vocab);
    const [table, rows, hidden] = [of([vocab, width], 1), of([4, width], 2), of([tokens, width], 3)];
    const [index, slots, targets] = [ids, ids.map((id) => (id % 4 === 0 ? id % 3 : -1)), ids].map((list) =>
      intTensor(list, [tokens], backend),
    ) as [Tensor, Tensor, Tensor];
    const [grad, exp_avg, exp_avg_sq] = [
      of([4, width], 5),
      zeros([4, width], "float32", backend),
      zeros([4, width], "float32", backend),
    ];
    const numbers = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, maximize: false, step: 1 } as const;
    const override = { rows: of([4, width], 4), columns: Int32Array.of(0, 5, 9, vocab - 1) };
    const loss = (wanted: boolean) => (): Tensor => {
      hidden.requiresGrad = wanted;
      return linearCrossEntropy(hidden, table, targets, { override });
    };
    const cases: readonly (readonly [what: string, run: () => Tensor])[] = [
      ["rows looked up, four overridden", () => overriddenRows(table, index, rows, slots)],
      ["their gradient", () => scatterRows(hidden, slots, 4)],
      [
        "AdamW on four rows",
        () => {
          adamw({ p: rows, grad, exp_avg, exp_avg_sq, toward: null }, numbers);
          return rows;
        },
      ],
      ["linear cross entropy", loss(false)],
      ["linear cross entropy and its gradient", loss(true)],
    ];
    for (const [what, run] of cases) {
      const started = gpu.dispatches;
      {
        using _call = new Scope();
        run();
      }
      figures.add(what, who, gpu.dispatches - started, "dispatches");
      const ms = await leastMs(async () => {
        using _call = new Scope();
        await gpu.read(run().view("benchmark").buffer, 0, 1);
      });
      figures.add(`${what}, ${shape}`, who, ms, "ms");
    }
  }
}
