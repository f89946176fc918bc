import { AdamW, backward } from "@neolog/autograd";
import type { PretrainedConfig } from "@neolog/models";
import { TrainableTokensConfig, getPeftModel, tokenParameters } from "@neolog/peft-tokens";
import { type Backend, Scope, add, matmul, randn, setDefaultBackend } from "@neolog/tensor";
import { randomBfloat16Model } from "../step/randomBfloat16.ts";
import { type Figures, leastMs } from "./figures.ts";

export interface Multiplier {
  readonly who: string;
  readonly backend: Backend;
  /** No larger product is measured: one call must stay well under the few seconds that drivers of cards allow. */
  readonly largest: number;
  /** Larger ones are measured once, by a kernel that smaller ones compiled; in software they take tens of seconds. */
  readonly often?: number;
}

/** GFLOP/s of [n, n]·[n, n] in float32. */
export async function measureMatmul(
  backends: readonly Multiplier[],
  sizes: readonly number[],
  figures: Figures,
): Promise<void> {
  for (const n of sizes) {
    for (const { who, backend, largest, often = Infinity } of backends) {
      if (n > largest) continue;
      using _scope = new Scope();
      const [a, b] = [randn([n, n], 1, "float32", backend), randn([n, n], 2, "float32", backend)];
      const ms = await leastMs(
        async () => {
          using _call = new Scope();
          const c = matmul(a, b);
          await backend.read(c.view("benchmark").buffer, 0, 1);
        },
        n > often ? { repeats: 1, warmUp: false } : {},
      );
      figures.add(`matmul ${n}³`, who, (2 * n ** 3) / ms / 1e6, "GFLOP/s");
    }
  }
}

/** Microseconds of an op on a tensor of 64 elements, of many in a row: what the host takes to record them, and until all are done. */
export async function measureOverhead(backend: Backend, figures: Figures): Promise<void> {
  const COUNT = 2000;
  using _scope = new Scope();
  const one = randn([64], 1, "float32", backend);
  let recording = Infinity;
  const ms = await leastMs(
    async () => {
      using _call = new Scope();
      const start = performance.now();
      let y = one;
      for (let i = 0; i < COUNT; i++) y = add(y, one);
      recording = Math.min(recording, performance.now() - start);
      await y.data();
    },
    { repeats: 8 },
  );
  figures.add("an op of 64 elements, recorded", "neolog", (recording / COUNT) * 1000, "µs");
  figures.add("an op of 64 elements, done", "neolog", (ms / COUNT) * 1000, "µs");
}

export interface StepShape {
  readonly name: string;
  readonly config: PretrainedConfig;
  readonly batch: number;
  readonly length: number;
}

/** Milliseconds of a training step of four token rows of a model with random bfloat16 weights, and its bytes on the device. */
export async function measureStep(
  backend: Backend,
  { name, config, batch, length }: StepShape,
  figures: Figures,
): Promise<void> {
  setDefaultBackend(backend);
  const before = backend.bytes.live;
  const model = randomBfloat16Model(config);
  try {
    const token_indices = [1, 2, 3, 4];
    const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices }));
    const [rows] = tokenParameters(peft);
    const optimizer = new AdamW([rows!], { lr: 1e-3 });
    const input_ids = Array.from({ length: batch }, (_, i) =>
      Array.from({ length }, (_, j) => (j % 16 === 0 ? token_indices[j % 4]! : (i * 977 + j * 131) % 1000)),
    );
    const ms = await leastMs(async () => {
      using _step = new Scope();
      const loss = peft.loss({ input_ids, labels: input_ids });
      backward(loss);
      optimizer.step();
      optimizer.zeroGrad();
      await rows!.data();
    });
    figures.add(`step, ${name}, ${batch}×${length}`, "neolog", ms, "ms");
    figures.add(`step, ${name}, ${batch}×${length}`, "neolog", (batch * length * 1000) / ms, "tokens/s");
    figures.add(
      `step, ${name}, ${batch}×${length}, most memory`,
      "neolog",
      (backend.bytes.peak - before) / 2 ** 20,
      "MiB",
    );
    optimizer.dispose();
  } finally {
    for (const t of model.parameters()) t.dispose();
  }
}
