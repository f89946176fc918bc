import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { AdamW, SGD, backward, clipGradNorm, schedule } from "@neolog/autograd";
import { openFolder, openSafetensors, toTypedArray } from "@neolog/checkpoint";
import {
  ARCHITECTURES,
  AutoModelForCausalLM,
  AutoModelForMaskedLM,
  AutoModelForSeq2SeqLM,
  type CausalLM,
  type ModelInputs,
} from "@neolog/models";
import { Scope, assign, setDefaultBackend, tensor } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { compareBufferSources } from "typed-array-utils";
import { beforeAll, describe, expect, test } from "vitest";
import { AdapterError, PeftModel, TrainableTokensConfig, getPeftModel, tokenParameters, tokensOf } from "./index.ts";

const json = (path: string) => JSON.parse(readFileSync(path, "utf8"));
const root = fileURLToPath(new URL("../../..", import.meta.url));
const beside = `${root}../shared/golden/models`;
if (!existsSync(beside)) console.log("reference data: ../shared/golden is absent, testing on fixtures/models alone");
const models = existsSync(beside) ? beside : `${root}fixtures/models`;
/** What opens the kinds of models that expected.json tells apart. */
const AUTO: Readonly<Record<string, { fromPretrained(dir: string): Promise<unknown> }>> = {
  causal: AutoModelForCausalLM,
  masked: AutoModelForMaskedLM,
  seq2seq: AutoModelForSeq2SeqLM,
};
const autoOf = (name: string) => AUTO[json(`${models}/${name}/expected.json`).kind];
const known = (name: string): boolean =>
  autoOf(name) !== undefined && Object.hasOwn(ARCHITECTURES, json(`${models}/${name}/base/config.json`).model_type);
const names = readdirSync(models).filter((name) => existsSync(`${models}/${name}/peft.json`) && known(name));

type Rows = Map<string, { shape: readonly number[]; data: Float32Array }>;
interface Plan {
  readonly plan: {
    readonly optimizer: "AdamW" | "SGD";
    readonly lr: number;
    readonly betas?: [number, number];
    readonly eps?: number;
    readonly momentum?: number;
    readonly weight_decay?: number;
    readonly clip: number | null;
    readonly steps: number;
    readonly batches: string[];
    readonly snapshots: number[];
  };
  readonly loss: number[];
  readonly lr: number[];
  readonly abs_error_after_step: Record<string, number>;
  readonly largest_gradient: number;
}

async function read(folder: string, file: string): Promise<Rows> {
  const stored = await openSafetensors(await (await openFolder(folder)).open(file));
  const rows: Rows = new Map();
  for (const name of stored.tensors.keys()) {
    const t = await stored.read(name);
    if (t.dtype === "F32") rows.set(name, { shape: t.shape, data: toTypedArray(t, name) as Float32Array });
  }
  await stored.close();
  return rows;
}
const within = (actual: ArrayLike<number>, expected: ArrayLike<number>, atol: number, rtol = 0): boolean =>
  actual.length === expected.length &&
  Array.from(actual).every((x, i) => Math.abs(x - expected[i]!) <= atol + rtol * Math.abs(expected[i]!));
const silent = { onWarning: ({ message }: { message: string }) => expect.fail(message) };

const backends = await computingBackends();
const runs = backends.flatMap((on) => names.map((name) => ({ name, ...on })));

describe.each(runs)("golden $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const folder = `${models}/${name}`;
  const { tt, multi } = json(`${folder}/peft.json`);
  const cases: Record<string, ModelInputs> = json(`${folder}/inputs.json`).cases;
  const load = () => autoOf(name)!.fromPretrained(`${folder}/base`) as Promise<CausalLM>; // all kinds are called alike
  const logitsOf = (model: PeftModel | CausalLM, inputs: ModelInputs): Float32Array => {
    using _scope = new Scope();
    return model.forward(inputs).logits.dataSync() as Float32Array;
  };

  test.each(["train_adamw", "train_schedule_clip", "train_sgd"].filter((key) => tt[key]))(
    "%s gives PEFT's losses, gradients and rows",
    async (key) => {
      const { plan, loss: losses, lr: rates, abs_error_after_step, largest_gradient } = tt[key] as Plan;
      const expected = await read(folder, "tt.safetensors");
      const { token_indices, target_modules } = tt;
      const peft = getPeftModel(await load(), new TrainableTokensConfig({ token_indices, target_modules }), silent);
      const [delta] = tokenParameters(peft);
      const { lr, betas, eps, momentum, weight_decay } = plan;
      const optimizer =
        plan.optimizer === "AdamW"
          ? new AdamW([delta!], { lr, betas: betas!, eps: eps!, weight_decay: weight_decay! })
          : new SGD([delta!], { lr, momentum: momentum! });
      const rowKey = [...expected.keys()].find((k) => k.startsWith(`${key}/step1/`))!.split("/")[2];
      for (let step = 0; step < plan.steps; step++) {
        using _step = new Scope();
        const { loss } = peft.forward(cases[plan.batches[step % plan.batches.length]!]!);
        expect(Math.abs((await loss!.item()) - losses[step]!), `loss ${step}`).toBeLessThanOrEqual(2e-4);
        backward(loss!);
        const grad0 = expected.get(`${key}/grad0/${rowKey}`);
        if (step === 0 && grad0) {
          expect(within(delta!.grad!.dataSync(), grad0.data, 2e-5 * largest_gradient + 1e-6), "gradient 0").toBe(true);
        }
        if (plan.clip !== null) clipGradNorm([delta!], plan.clip);
        optimizer.lr = rates[step]!;
        optimizer.step();
        const rows = expected.get(`${key}/step${step + 1}/${rowKey}`);
        if (rows) {
          const tolerance = 20 * abs_error_after_step[String(step + 1)]! + 2e-5;
          expect(within(delta!.dataSync(), rows.data, tolerance), `rows after ${step + 1}`).toBe(true);
        }
      }
    },
  );

  const isRecorded = (file: string): boolean => {
    const found = existsSync(`${folder}/${file}`);
    if (!found) console.log(`skipped: ${file} is not recorded for ${name}`);
    return found;
  };

  test("our schedule is the recorded one", () => {
    const { plan, lr } = tt.train_schedule_clip as Plan;
    const factor = schedule("linear", { warmupSteps: 3, totalSteps: plan.steps });
    expect(
      within(
        lr,
        lr.map((_, step) => plan.lr * factor(step)),
        1e-12,
      ),
    ).toBe(true);
  });

  test("A-77: a saved adapter gives its logits; disabled, unloaded it is the base, merged it is the same", async () => {
    const expected = await read(folder, "tt.safetensors");
    const base = await load();
    const before = new Map(Object.entries(cases).map(([key, inputs]) => [key, logitsOf(base, inputs)]));
    const peft = await PeftModel.fromPretrained(base, `${folder}/adapters/tt`, silent);
    for (const key of ["plain", "right_pad", "long"].filter((key) => expected.has(`after/${key}/logits`))) {
      expect(within(logitsOf(peft, cases[key]!), expected.get(`after/${key}/logits`)!.data, 1e-4, 1e-5), key).toBe(
        true,
      );
    }
    if (tt.generate_after) {
      const { output_ids, ...options } = tt.generate_after;
      expect(await peft.generate({ ...options, eos_token_id: null })).toEqual(output_ids);
    }
    const adapted = logitsOf(peft, cases["plain"]!);
    await peft.mergeAdapter();
    expect(logitsOf(peft, cases["plain"]!)).toEqual(adapted);
    for (const [key, logits] of before) {
      using _disabled = peft.disableAdapter();
      expect(logitsOf(peft, cases[key]!), `${key} disabled while merged`).toEqual(logits);
    }
    expect(logitsOf(peft, cases["plain"]!)).toEqual(adapted);
    const unloaded = peft.unload();
    expect(unloaded).toBe(base);
    for (const [key, logits] of before) expect(logitsOf(unloaded, cases[key]!), `${key} unloaded`).toEqual(logits);
  });

  test.runIf(isRecorded("merged_tt"))("merging gives the recorded checkpoint", async () => {
    const peft = await PeftModel.fromPretrained(await load(), `${folder}/adapters/tt`, silent);
    const progress: number[] = [];
    const merged = await peft.mergeAndUnload({
      safeMerge: true,
      onProgress: (done, total) => progress.push(done / total),
    });
    expect(progress.at(-1)).toBe(1);
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    await merged.savePretrained(files as never);
    expect(
      compareBufferSources(files.get("model.safetensors")!, readFileSync(`${folder}/merged_tt/model.safetensors`)),
    ).toBe(true);
  });

  test("several adapters: each, two together, none; overlapping ones are refused", async () => {
    const expected = await read(folder, "multi.safetensors");
    const base = await load();
    const peft = await PeftModel.fromPretrained(base, `${folder}/adapters/multi`, silent);
    await peft.loadAdapter(`${folder}/adapters/multi/second`, "second");
    await peft.loadAdapter(`${folder}/adapters/multi`, "third", { subfolder: "third" });
    for (const [key, { data }] of expected) {
      if (!key.startsWith("active_")) continue;
      const names = key.slice("active_".length, key.indexOf("/")).split("+");
      peft.setAdapter(names);
      const logits = logitsOf(peft, cases["plain"]!);
      expect(within(logits, data, 1e-4, 1e-5), key).toBe(true);
      await peft.mergeAdapter({ adapterNames: names.slice(0, 1) });
      expect(logitsOf(peft, cases["plain"]!), `${key}, first merged`).toEqual(logits);
      peft.unmergeAdapter();
    }
    expect(() => peft.setAdapter(["default", "second"])).toThrow(AdapterError);
    expect(() => peft.setAdapter(["default", "second"])).toThrow(/default and second sharing/);
    peft.setAdapter("default");
    await expect(peft.mergeAdapter({ adapterNames: ["default", "second"] })).rejects.toThrow(/sharing/);
    expect(multi.token_indices.default).toEqual(tokensOf(peft.peftConfig["default"]!));
  });

  const adapters = ["tt", "multi", "tt_written_by_peft_0.15.2", "tt_resized_rows_only"].filter((adapter) =>
    existsSync(`${folder}/adapters/${adapter}`),
  );
  test.each(adapters)("A-79: adapter %s is saved back as it was: bytes of tensors, values of JSON", async (adapter) => {
    const base = await load();
    const peft = await PeftModel.fromPretrained(base, `${folder}/adapters/${adapter}`, {
      resize: true,
      onWarning: () => {},
    });
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    await peft.savePretrained(files, { saveEmbeddingLayers: false });
    const original = readFileSync(`${folder}/adapters/${adapter}/adapter_model.safetensors`);
    expect(compareBufferSources(files.get("adapter_model.safetensors")!, original)).toBe(true);
    const config = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")));
    expect(config).toEqual(json(`${folder}/adapters/${adapter}/adapter_config.json`));
  });

  test.runIf(isRecorded("resized.safetensors"))("an adapter of added rows, with whole tables or without", async () => {
    const { resized } = json(`${folder}/peft.json`);
    const expected = await read(folder, "resized.safetensors");
    for (const adapter of ["tt_resized_auto", "tt_resized_rows_only"]) {
      const base = await load();
      base.resizeTokenEmbeddings(resized.new_vocab);
      const head = base.moduleAt("lm_head") as { weight?: Parameters<typeof assign>[0] };
      if (head.weight) assign(head.weight, tensor(expected.get("head")!.data, expected.get("head")!.shape));
      const codes: string[] = [];
      const peft = await PeftModel.fromPretrained(base, `${folder}/adapters/${adapter}`, {
        onWarning: ({ code }) => codes.push(code),
      });
      const stored = await read(`${folder}/adapters/${adapter}`, "adapter_model.safetensors");
      const tables = [...stored.keys()].filter((key) => key.endsWith(".base_layer.weight")); // a tied model's twice
      expect(codes).toEqual(tables.map(() => "BASE_REPLACED"));
      expect(tables.length > 0).toBe(adapter === "tt_resized_auto");
      expect(within(logitsOf(peft, resized.case), expected.get("logits")!.data, 1e-4, 1e-5), adapter).toBe(true);
      const deltas = [...stored].filter(([key]) => key.endsWith(".trainable_tokens_delta"));
      const rows = deltas.reduce((bytes, [, { data }]) => bytes + data.byteLength, 0);
      const saved = new Map<string, Uint8Array>();
      await peft.savePretrained(saved);
      expect(saved.get("adapter_model.safetensors")!.length).toBeLessThan(rows + 600);
    }
  });
});

const real = `${root}../shared/real`;
describe.skipIf(!existsSync(real)).each(backends.filter(({ backend }) => backend.name === "wasm"))(
  "real, on $title",
  ({ backend }) => {
    beforeAll(() => setDefaultBackend(backend));

    test("60 steps of two new tokens on stories260K follow PEFT's", async () => {
      const trace = json(`${real}/stories260K_adapters/new_token/trace.json`);
      const { batches } = json(`${real}/stories260K_adapters/new_token/batches.json`) as { batches: number[][][] };
      const expected = await read(`${real}/stories260K_adapters/new_token`, "trace.safetensors");
      const model = await AutoModelForCausalLM.fromPretrained(`${real}/stories260K`);
      model.resizeTokenEmbeddings(514);
      const peft = getPeftModel(
        model,
        new TrainableTokensConfig({ token_indices: trace.token_indices, target_modules: ["embed_tokens"] }),
        silent,
      );
      const [delta] = tokenParameters(peft);
      const { lr, betas, eps, weight_decay, steps } = trace.plan;
      const optimizer = new AdamW([delta!], { lr, betas, eps, weight_decay });
      for (let step = 0; step < steps; step++) {
        using _step = new Scope();
        const input_ids = batches[step % batches.length]!;
        const { loss } = peft.forward({ input_ids, labels: input_ids });
        expect(Math.abs((await loss!.item()) - trace.loss[step]), `loss ${step}`).toBeLessThanOrEqual(2e-4);
        backward(loss!);
        optimizer.step();
        for (const [key, { data }] of expected) {
          if (key.includes(`step${step + 1}/`))
            expect(within(delta!.dataSync(), data, 20 * (trace.abs_error_rows[step + 1] ?? 0) + 2e-5), key).toBe(true);
        }
      }
      for (const { prompt_ids, output_ids } of trace.greedy_after) {
        const [ids] = await peft.generate({
          input_ids: [prompt_ids],
          max_new_tokens: output_ids.length - prompt_ids.length,
          eos_token_id: null,
        });
        expect(ids).toEqual(output_ids);
      }
    });
  },
);
if (!existsSync(real)) console.log("skipped: ../shared/real is absent");
