import { AdamW, backward } from "@neolog/autograd";
import type { GpuBackend } from "@neolog/gpu";
import { AutoModelForCausalLM, type CausalLM } from "@neolog/models";
import { TrainableTokensConfig, getPeftModel, tokenParameters } from "@neolog/peft-tokens";
import { Scope, setDefaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";

const IDS = Array.from({ length: 16 }, (_, i) => (7 * i + 3) % 40);
/** Steps after which everything that is kept has been made. */
const WARM = 5;
/** Steps after which what is held is looked at, beside the last. */
const LOOKS = [100, 1000];

/** What a run held after a step: buffers, their bytes, and bytes on the device with those that wait for reuse. */
export interface Held {
  readonly step: number;
  readonly live: number;
  readonly bytes: number;
  readonly device: number;
}

/** A training run on a recorded model: what it holds must not grow, and a device that is lost must be told of. */
export function steadySuite(
  model: string,
  steps: number,
  open: () => Promise<GpuBackend>,
  tell: (held: Held) => void,
): void {
  const prepare = async () => {
    const backend = await open();
    setDefaultBackend(backend);
    const base = (await AutoModelForCausalLM.fromPretrained(model)) as CausalLM;
    const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: [IDS[2]!, IDS[9]!] }));
    const optimizer = new AdamW(tokenParameters(peft), { lr: 0.01 });
    const step = async (): Promise<number> => {
      using _step = new Scope();
      const loss = peft.loss({ input_ids: [IDS], labels: [IDS] });
      backward(loss);
      optimizer.step();
      optimizer.zeroGrad();
      return loss.item();
    };
    return { backend, step };
  };

  describe("a training run", () => {
    test(`holds after ${steps} steps what it held after ${WARM}`, { timeout: 3_600_000 }, async () => {
      const { backend, step } = await prepare();
      const losses: number[] = [];
      const run = async (until: number) => {
        while (losses.length < until) losses.push(await step());
        const held = { live: backend.live, bytes: backend.bytes.live, device: backend.deviceBytes.total };
        tell({ step: until, ...held });
        return held;
      };
      const before = await run(WARM);
      for (const until of [...LOOKS.filter((look) => look < steps), steps])
        expect(await run(until), `after ${until}`).toEqual(before);
      expect(losses.at(-1)).toBeLessThan(losses[0]!);
    });

    test("ends in an error that says so where the device is lost", async () => {
      const { backend, step } = await prepare();
      await step();
      const running = step();
      backend.destroy();
      await expect(running.then(() => step())).rejects.toMatchObject({ code: "device-lost" });
      await expect(step()).rejects.toThrow(/the device must be there, got a lost one .*; open a new backend/);
    });
  });
}
