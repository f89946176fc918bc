import { AdamW, backward, prepareStep } from "@neolog/autograd";
import type { GpuBackend } from "@neolog/gpu";
import { AutoModelForCausalLM, type CausalLM } from "@neolog/models";
import { TrainableTokensConfig, getPeftModel, tokenParameters } from "@neolog/peft-tokens";
import { Scope, setDefaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";

const IDS = Array.from({ length: 16 }, (_, i) => (7 * i + 3) % 40);

/** What `prepare` compiles ahead of a training step on a recorded model; `open` gives a fresh backend at each call. */
export function prepareSuite(model: string, open: () => Promise<GpuBackend>): void {
  /** A run of one step, and what it needs. */
  const started = async () => {
    const backend = await open();
    setDefaultBackend(backend);
    const base = (await AutoModelForCausalLM.fromPretrained(model)) as CausalLM;
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: [IDS[2]!, IDS[9]!] }));
    const [rows] = tokenParameters(peft);
    const optimizer = new AdamW([rows!], { lr: 0.01 });
    const loss = () => peft.loss({ input_ids: [IDS], labels: [IDS] });
    const step = async () => {
      using _step = new Scope();
      const value = loss();
      backward(value);
      optimizer.step();
      optimizer.zeroGrad();
      return [await value.item(), ...((await rows!.data()) as Float32Array)];
    };
    return { backend, rows: rows!, optimizer, loss, step };
  };

  describe("prepare", () => {
    test("compiles all that a step needs, and changes nothing", async () => {
      const plain = await started();
      const expected = [await plain.step(), await plain.step()];
      const { backend, rows, optimizer, loss, step } = await started();
      const before = await rows.data();
      const { live, dispatches } = backend;
      await prepareStep(optimizer, loss);
      const { compiled } = backend;
      expect(compiled).toBeGreaterThan(20);
      expect(backend).toMatchObject({ live, dispatches });
      expect(rows.grad).toBeNull();
      expect(await rows.data()).toEqual(before);
      expect(optimizer.stateDict().size).toBe(0);
      expect([await step(), await step()]).toEqual(expected);
      expect(backend.compiled).toBe(compiled);
      expect(plain.backend.compiled).toBe(compiled);
    });

    test("of a run that fails leaves a backend that computes", async () => {
      const { backend, optimizer, step } = await started();
      const failed = prepareStep(optimizer, () => {
        throw new RangeError("no loss");
      });
      await expect(failed).rejects.toThrow("no loss");
      expect((await step()).every(Number.isFinite)).toBe(true);
      expect(backend.compiled).toBeGreaterThan(20);
    });
  });
}
