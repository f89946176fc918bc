import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { AdamW, backward, clipGradNorm } from "@neolog/autograd";
import { openFolder, openSafetensors, toTypedArray } from "@neolog/checkpoint";
import { openGpu } from "@neolog/gpu";
import { AutoModelForCausalLM, type CausalLM, type ModelInputs } from "@neolog/models";
import { stateDict } from "@neolog/nn";
import { PeftModel, TrainableTokensConfig, getPeftModel, tokenParameters } from "@neolog/peft-tokens";
import { type Backend, Scope, openBackend, setDefaultBackend } from "@neolog/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { whyNoWebGpu } from "../../packages/gpu/src/webgpu/testing.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const beside = `${root}../shared/golden/models`;
if (!existsSync(beside)) console.log("reference data: ../shared/golden is absent, testing on fixtures/models alone");
const models = existsSync(beside) ? beside : `${root}fixtures/models`;
const names = ["gpt2", "llama"].filter((name) => existsSync(`${models}/${name}/peft.json`));
const json = (path: string) => JSON.parse(readFileSync(path, "utf8"));

const why = await whyNoWebGpu();
if (why) console.log(`skipped on webgpu: ${why}`);
const modes = why ? (["webasm"] as const) : (["webasm", "webgpu"] as const);

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

/** How much further than atol + rtol·|expected| the worst counted element is off. */
const worst = (
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  atol: number,
  rtol = 0,
  counted?: (i: number) => boolean,
) => {
  expect(actual.length).toBe(expected.length);
  return Math.max(
    ...Array.from(actual, (x, i) =>
      counted?.(i) === false
        ? -1
        : Number.isFinite(x)
          ? Math.abs(x - expected[i]!) - atol - rtol * Math.abs(expected[i]!)
          : Infinity,
    ),
  );
};

const silent = { onWarning: ({ message }: { message: string }) => expect.fail(message) };

describe.each(modes)("golden on %s", (mode) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openGpu({ mode, allowSoftware: true });
  });
  afterAll(() => setDefaultBackend(backend));

  describe.each(names)("%s", (name) => {
    beforeAll(() => setDefaultBackend(backend));
    const folder = `${models}/${name}`;
    const cases: Record<string, ModelInputs> = json(`${folder}/inputs.json`).cases;
    const load = () => AutoModelForCausalLM.fromPretrained(`${folder}/base`) as Promise<CausalLM>;

    test("logits and losses equal transformers'", async () => {
      const model = await load();
      const recorded = json(`${folder}/expected.json`);
      const expected = await read(folder, "expected.safetensors");
      for (const [key, inputs] of Object.entries(cases)) {
        using _scope = new Scope();
        const { logits, loss } = model.forward(inputs);
        const [valid, width] = [expected.get(`${key}/valid`)!, logits.shape[2]!];
        const counted = (i: number) => valid[Math.floor(i / width)] !== 0;
        expect(
          worst(await logits.data(), expected.get(`${key}/logits`)!, 1e-4, 1e-5, counted),
          key,
        ).toBeLessThanOrEqual(0);
        if (loss) expect(Math.abs((await loss.item()) - recorded.cases[key].loss), key).toBeLessThanOrEqual(1e-5);
      }
    });

    test("every gradient equals torch's", async () => {
      using _scope = new Scope();
      const model = await load();
      for (const p of model.parameters()) p.requiresGrad = true;
      const { gradients } = json(`${folder}/expected.json`);
      backward(model.forward(cases["plain"]!).loss!);
      const own = stateDict(model);
      for (const [key, data] of await read(folder, "grads.safetensors")) {
        const atol = 2e-5 * gradients.largest_gradient + 1e-6;
        expect(worst(await own.get(key)!.grad!.data(), data, atol), key).toBeLessThanOrEqual(0);
      }
    });

    test("20 steps of AdamW give PEFT's losses and rows; the adapter loads on wasm", async () => {
      const { tt } = json(`${folder}/peft.json`);
      const { plan, loss: losses, lr: rates, abs_error_after_step } = tt.train_adamw;
      const expected = await read(folder, "tt.safetensors");
      const { token_indices, target_modules } = tt;
      const peft = getPeftModel(await load(), new TrainableTokensConfig({ token_indices, target_modules }), silent);
      const [delta] = tokenParameters(peft);
      const optimizer = new AdamW([delta!], plan);
      const row = [...expected.keys()].find((key) => key.startsWith("train_adamw/step1/"))!.split("/")[2]!;
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
        expect(worst(await delta!.data(), rows, atol), `rows after ${step + 1}`).toBeLessThanOrEqual(0);
      }
      const files = new Map<string, Uint8Array>();
      await peft.savePretrained(files);
      const trained = await delta!.data();
      setDefaultBackend(await openBackend("wasm", { threads: 1 }));
      const elsewhere = await PeftModel.fromPretrained(await load(), files, { isTrainable: true });
      expect(await tokenParameters(elsewhere)[0]!.data()).toEqual(trained);
      setDefaultBackend(backend);
    });
  });
});
