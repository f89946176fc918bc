import { AdamW, backward, clipGradNorm } from "@neolog/autograd";
import { openFolder, openSafetensors, readJson, toTypedArray } from "@neolog/checkpoint";
import { AutoModelForCausalLM, type CausalLM, type ModelInputs } from "@neolog/models";
import { stateDict } from "@neolog/nn";
import { PeftModel, TrainableTokensConfig, getPeftModel, tokenParameters } from "@neolog/peft-tokens";
import { type Backend, Scope, openBackend, setDefaultBackend } from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";

/** The recorded models of a folder or a URL, each as fixtures/models has them, on a backend: what transformers and PEFT gave. */
export function goldenSuite(models: string, names: readonly string[], open: () => Promise<Backend>): void {
  describe.each(names)("golden %s", (name) => {
    let backend: Backend;
    beforeAll(async () => setDefaultBackend((backend = await open())));
    const folder = `${models}/${name}`;
    // oxlint-disable-next-line typescript/no-explicit-any
    const json = async (file: string): Promise<any> => readJson(await openFolder(folder), file);
    const load = () => AutoModelForCausalLM.fromPretrained(`${folder}/base`) as Promise<CausalLM>;
    const casesOf = async (): Promise<Record<string, ModelInputs>> => (await json("inputs.json")).cases;

    test("logits and losses equal transformers'", async () => {
      const model = await load();
      const recorded = await json("expected.json");
      const expected = await read(folder, "expected.safetensors");
      for (const [key, inputs] of Object.entries(await casesOf())) {
        using _scope = new Scope();
        const { logits, loss } = model.forward(inputs);
        const [valid, width] = [expected.get(`${key}/valid`)!, logits.shape[2]!];
        const counted = (i: number) => valid[Math.floor(i / width)] !== 0;
        expect(excess(await logits.data(), expected.get(`${key}/logits`)!, 1e-4, 1e-5, counted), key).toBe(0);
        if (loss) expect(Math.abs((await loss.item()) - recorded.cases[key].loss), key).toBeLessThanOrEqual(1e-5);
      }
    });

    test("every gradient equals torch's", async () => {
      using _scope = new Scope();
      const model = await load();
      for (const p of model.parameters()) p.requiresGrad = true;
      const { gradients } = await json("expected.json");
      backward(model.forward((await casesOf())["plain"]!).loss!);
      const own = stateDict(model);
      for (const [key, data] of await read(folder, "grads.safetensors")) {
        const atol = 2e-5 * gradients.largest_gradient + 1e-6;
        expect(excess(await own.get(key)!.grad!.data(), data, atol), key).toBe(0);
      }
    });

    test("20 steps of AdamW give PEFT's losses and rows; the adapter says the same elsewhere", async () => {
      const { tt } = await json("peft.json");
      const { plan, loss: losses, lr: rates, abs_error_after_step } = tt.train_adamw;
      const [expected, cases] = [await read(folder, "tt.safetensors"), await casesOf()];
      const { token_indices, target_modules } = tt;
      const onWarning = ({ message }: { message: string }) => expect.fail(message);
      const config = new TrainableTokensConfig({ token_indices, target_modules });
      const peft = getPeftModel(await load(), config, { onWarning });
      const [delta] = tokenParameters(peft);
      const optimizer = new AdamW([delta!], plan);
      const row = [...expected.keys()].find((key) => key.startsWith("train_adamw/step1/"))!.split("/")[2]!;
      expect(plan.steps).toBeGreaterThanOrEqual(20);
      for (let step = 0; step < plan.steps; step++) {
        using _step = new Scope();
        const { loss } = peft.forward(cases[plan.batches[step % plan.batches.length]]!);
        backward(loss!);
        if (plan.clip !== null) clipGradNorm([delta!], plan.clip);
        optimizer.lr = rates[step];
        optimizer.step();
        expect(Math.abs((await loss!.item()) - losses[step]), `loss ${step}`).toBeLessThanOrEqual(2e-4);
        const rows = expected.get(`train_adamw/step${step + 1}/${row}`);
        if (!rows) continue;
        const atol = 20 * abs_error_after_step[String(step + 1)] + 2e-5;
        expect(excess(await delta!.data(), rows, atol), `rows after ${step + 1}`).toBe(0);
      }
      const files = new Map<string, Uint8Array>();
      await peft.savePretrained(files);
      const trained = await delta!.data();
      const said = await peft.forward(cases["no_mask"]!).logits.data();
      for (const other of ["cpu", "wasm"] as const) {
        setDefaultBackend(await openBackend(other));
        try {
          const loaded = await PeftModel.fromPretrained(await load(), files, { isTrainable: true });
          expect(await tokenParameters(loaded)[0]!.data(), other).toEqual(trained);
          const { logits } = loaded.forward(cases["no_mask"]!);
          expect(excess(said, await logits.data(), 1e-4, 1e-5), other).toBe(0);
        } finally {
          setDefaultBackend(backend);
        }
      }
    });
  });
}

async function read(folder: string, file: string): Promise<Map<string, Float32Array>> {
  const stored = await openSafetensors(await (await openFolder(folder)).open(file));
  const found = new Map<string, Float32Array>();
  for (const name of stored.tensors.keys()) {
    const t = await stored.read(name);
    found.set(name, t.dtype === "BOOL" ? Float32Array.from(t.bytes) : (toTypedArray(t, name) as Float32Array));
  }
  await stored.close();
  return found;
}

/** How much further than atol + rtol·|expected| the worst counted element is off; 0 where none is. */
function excess(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  atol: number,
  rtol = 0,
  counted: (i: number) => boolean = () => true,
): number {
  expect(actual.length).toBe(expected.length);
  let most = 0;
  for (let i = 0; i < expected.length; i++) {
    if (!counted(i)) continue;
    const over = Math.abs(actual[i]! - expected[i]!) - atol - rtol * Math.abs(expected[i]!);
    if (!(over <= most)) most = Number.isNaN(over) ? Infinity : over;
  }
  return most;
}
