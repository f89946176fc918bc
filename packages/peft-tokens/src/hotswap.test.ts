import { AdamW } from "@neolog/autograd";
import { Scope, defaultBackend, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import {
  LoraConfig,
  type PeftModel,
  TrainableTokensConfig,
  getPeftModel,
  loraParameters,
  tokenParameters,
} from "./index.ts";
import { BATCH, type BaseName, caught, logitsOf, makeBase, setRows } from "./testing.ts";

const NAMES: BaseName[] = ["llama", "llama tied", "gpt2"];
const config = (token_indices: number[], target_modules: string | null = null) =>
  new TrainableTokensConfig({ token_indices, target_modules });
const lora = (r: number, ids: number[]) =>
  new LoraConfig({ r, target_modules: ["q_proj"], trainable_token_indices: ids, init_lora_weights: false });
const other = (slot: number, column: number): number => slot - column / 4;

/** Files of an adapter with other ids and another number of rows, and its logits. */
async function incoming(base: BaseName, given: TrainableTokensConfig | LoraConfig) {
  const peft = getPeftModel(makeBase(base), given, { seed: 9, onWarning: () => {} });
  setRows(peft, "default", other);
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files);
  return { files, logits: logitsOf(peft), peft };
}
function adapted(base: BaseName, given: TrainableTokensConfig | LoraConfig = config([7, 1, 4])): PeftModel {
  const peft = getPeftModel(makeBase(base), given, { seed: 1, onWarning: () => {} });
  setRows(peft, "default");
  return peft;
}
const step = (peft: PeftModel, optimizer: AdamW): void => {
  using _step = new Scope();
  peft.backward(peft.forward(BATCH).loss!);
  optimizer.step();
  optimizer.zeroGrad();
};

describe.each(await computingBackends())("9.14 hot swap on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(NAMES)("T-14 %s: ids and rows are the file's; activation and flags stay", async (base) => {
    const { files, logits } = await incoming(base, config([9, 2, 7, 0]));
    const peft = adapted(base);
    const { live } = defaultBackend();
    const report = await peft.hotswapAdapter(files, "default");
    expect(report).toEqual({ missingKeys: [], unexpectedKeys: [], mismatchedKeys: [] });
    expect(logitsOf(peft)).toEqual(logits);
    expect(peft.activeAdapters).toEqual(["default"]);
    expect(Object.keys(peft.peftConfig)).toEqual(["default"]);
    expect(tokenParameters(peft).map(({ shape }) => shape)).toEqual([[4, 6]]);
    expect(defaultBackend().live).toBe(live);
    peft.disableAdapterLayers();
    expect(logitsOf(peft)).toEqual(logitsOf(makeBase(base)));
  });

  test("a frozen, inactive adapter stays so", async () => {
    const { files } = await incoming("llama", config([9, 2]));
    const peft = adapted("llama");
    peft.addAdapter("second", config([3]));
    const before = logitsOf(peft);
    await peft.hotswapAdapter(files, "second");
    expect(logitsOf(peft)).toEqual(before);
    expect([peft.requiresGradOf("second"), peft.requiresGradOf("default")]).toEqual([false, true]);
  });

  test("LoRA weights of another rank, with their rows", async () => {
    const { files, logits } = await incoming("llama", lora(3, [9, 2]));
    const peft = adapted("llama", lora(2, [7, 1, 4]));
    await peft.hotswapAdapter(files, "default");
    expect(logitsOf(peft)).toEqual(logits);
    expect(loraParameters(peft).map(({ shape }) => shape[0])).toContain(3);
  });

  test("the optimizer goes on with the new rows, from step 1", async () => {
    const { files, peft: source } = await incoming("llama", config([9, 2]));
    const peft = adapted("llama");
    const optimizer = new AdamW(tokenParameters(peft), { lr: 0.05 });
    step(peft, optimizer);
    step(peft, optimizer);
    await peft.hotswapAdapter(files, "default", { optimizer });
    step(peft, optimizer);
    step(source, new AdamW(tokenParameters(source), { lr: 0.05 }));
    expect(logitsOf(peft)).toEqual(logitsOf(source));
  });

  test.each(NAMES)("A-92 %s: a generation that runs finishes with the rows that it began with", async (base) => {
    const { files } = await incoming(base, config([9, 2, 7, 0]));
    const options = {
      input_ids: [
        [7, 1],
        [9, 2],
      ],
      max_new_tokens: 8,
      do_sample: true,
      seed: 4,
      temperature: 2,
    };
    const old = await adapted(base).generate(options);
    const peft = adapted(base);
    const during: [string, (peft: PeftModel) => unknown][] = [
      ["swapped", (model) => model.hotswapAdapter(files, "default")],
      ["disabled", (model) => model.disableAdapterLayers()],
      ["merged", (model) => model.mergeAdapter()],
    ];
    for (const [, change] of during) {
      const model = adapted(base);
      let steps = 0;
      const running = model.generate({
        ...options,
        onToken: async () => void (++steps === 3 && (await change(model))),
      });
      expect(await running).toEqual(old);
      expect(steps).toBe(8);
    }
    let steps = 0;
    const running = peft.generate({
      ...options,
      onToken: async () => void (++steps === 3 && (await peft.hotswapAdapter(files, "default"))),
    });
    await running;
    const swapped = adapted(base);
    await swapped.hotswapAdapter(files, "default");
    expect(await peft.generate(options)).toEqual(await swapped.generate(options));
  });

  test("A-92 a swap that fails leaves the old adapter as it was", async () => {
    const peft = adapted("llama");
    peft.addAdapter("second", config([9]));
    setRows(peft, "second", other);
    peft.setAdapter(["default", "second"]);
    const before = logitsOf(peft);
    const { live } = defaultBackend();
    const overlapping = (await incoming("llama", config([9, 2]))).files;
    const elsewhere = (await incoming("llama", config([2], "lm_head"))).files;
    const broken = new Map((await incoming("llama", config([2]))).files);
    broken.set("adapter_model.safetensors", new Uint8Array([1, 2, 3]));
    const added = defaultBackend().live - live; // the models that wrote the files
    const cases: [Map<string, Uint8Array>, string, string][] = [
      [overlapping, "default", "OVERLAP"],
      [elsewhere, "default", "ARGUMENT"],
      [broken, "default", "CORRUPT"],
      [overlapping, "third", "UNKNOWN"],
    ];
    for (const [files, name, code] of cases) {
      expect(await caught(() => peft.hotswapAdapter(files, name))).toMatchObject({ code });
      expect(logitsOf(peft)).toEqual(before);
      expect(Object.keys(peft.peftConfig)).toEqual(["default", "second"]);
      expect(peft.activeAdapters).toEqual(["default", "second"]);
    }
    expect(defaultBackend().live - live).toBe(added);
    await peft.mergeAdapter({ adapterNames: ["default"] });
    expect(await caught(() => peft.hotswapAdapter(overlapping, "default"))).toMatchObject({ code: "MERGED" });
  });
});
