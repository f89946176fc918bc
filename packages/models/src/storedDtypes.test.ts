import { backward } from "@neolog/autograd";
import { stateDict } from "@neolog/nn";
import { type DType, Scope } from "@neolog/tensor";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ModelOutput, PreTrainedModel } from "./preTrainedModel.ts";
import { fromPretrained } from "./pretrained.ts";
import { ARCHITECTURES, fromConfig } from "./registry.ts";
import { TINY, worstExcess } from "./testing.ts";

type AnyModel = PreTrainedModel<object, ModelOutput>;
const any = (model: PreTrainedModel): AnyModel => model as AnyModel;
const ids = [
  [1, 2, 3, 4, 5],
  [6, 7, 8, 9, 10],
];

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "neolog-dtypes-"));
});
afterAll(() => rm(dir, { recursive: true }));

/** Gemma rounds √hidden to the table's dtype, as transformers does; the root of 16 is the same in every dtype. */
const squareOf = (type: string): object => (type.startsWith("gemma") ? { hidden_size: 16 } : {});

describe.each(Object.keys(ARCHITECTURES))("%s", (type) => {
  test.each(["bfloat16", "float16"] as const)(
    "%s weights stay as they are, and compute what the same values do in float32",
    async (dtype) => {
      const folder = join(dir, `${type} ${dtype}`);
      await fromConfig({ ...TINY[type]!, ...squareOf(type) }, { seed: 3, std: 0.3 }, any).savePretrained(folder);
      const rounded = await fromPretrained(folder, { dtype }, any);
      await rounded.savePretrained(folder);
      const [stored, widened] = await Promise.all(
        ([undefined, "float32"] as (DType | undefined)[]).map((wanted) =>
          fromPretrained(folder, { dtype: wanted }, any),
        ),
      );
      expect(new Set(stored!.parameters().map((t) => t.dtype))).toEqual(new Set([dtype]));
      const [a, b] = [stored!, widened!].map(computed);
      const close = (x: ArrayLike<number>, y: ArrayLike<number>): number =>
        worstExcess(x, y, { atol: 1e-5, rtol: 1e-5 });
      expect(close(a!.logits, b!.logits)).toBeLessThanOrEqual(0);
      expect(a!.loss).toBeCloseTo(b!.loss, 5);
      expect([...a!.gradients.keys()]).toEqual([...stateDict(widened!).keys()]);
      for (const [key, gradient] of a!.gradients) {
        expect(gradient, key).toBeInstanceOf(Float32Array);
        const other = b!.gradients.get(key)!;
        const largest = Math.max(...Array.from(other, Math.abs));
        expect(worstExcess(gradient, other, { atol: 2e-5 * largest + 1e-6 }), key).toBeLessThanOrEqual(0);
      }
    },
  );
});

interface Computed {
  readonly logits: ArrayLike<number>;
  readonly loss: number;
  readonly gradients: ReadonlyMap<string, ArrayLike<number>>;
}

/** What a training step of everything computes. */
function computed(model: AnyModel): Computed {
  for (const t of model.parameters()) t.requiresGrad = true;
  using _scope = new Scope();
  const { logits, loss } = model.forward({ input_ids: ids, labels: ids });
  backward(loss!);
  const gradients = new Map([...stateDict(model)].map(([key, t]) => [key, t.grad!.dataSync()] as const));
  return { logits: logits.dataSync(), loss: loss!.dataSync()[0]!, gradients };
}
