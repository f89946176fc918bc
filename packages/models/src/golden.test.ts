import { existsSync, readFileSync, readdirSync } from "node:fs";
import { backward } from "@neolog/autograd";
import { openCheckpoint, openFolder, readBytes } from "@neolog/checkpoint";
import { adoptStateDict, stateDict } from "@neolog/nn";
import { Scope, type Tensor, openBackend, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import type { CausalLM, ModelInputs } from "./causalLm.ts";
import { KvCache } from "./kvCache.ts";
import type { ModelOutput, PreTrainedModel } from "./preTrainedModel.ts";
import { fromPretrained } from "./pretrained.ts";
import { ARCHITECTURES, fromConfig } from "./registry.ts";
import { readObject, readTensors, referenceFolders, worstExcess } from "./testing.ts";

interface Expected {
  readonly kind: "causal" | "masked" | "seq2seq";
  readonly cases: Record<string, { readonly loss?: number }>;
  readonly gradients: { readonly largest_gradient: number };
  readonly generate: readonly {
    readonly name: string;
    readonly input_ids: number[][];
    readonly attention_mask: number[][];
    readonly max_new_tokens: number;
    readonly eos_token_id: number | null;
    readonly pad_token_id?: number;
    readonly output_ids: number[][];
  }[];
  readonly other_checkpoints?: Record<string, { readonly case?: ModelInputs }>;
}

type AnyModel = PreTrainedModel<object, ModelOutput & Partial<Record<string, readonly Tensor[]>>>;
const any = (model: PreTrainedModel): AnyModel => model as AnyModel;

/** What an output calls its hidden states, and the reference data. */
const HIDDEN_STATES = {
  hidden_states: "hidden",
  encoder_hidden_states: "encoder_hidden",
  decoder_hidden_states: "decoder_hidden",
};

const LOGITS = { atol: 1e-4, rtol: 1e-5 };
const { path } = referenceFolders("models");
const known = (name: string): boolean => {
  const { model_type } = JSON.parse(readFileSync(`${path}/${name}/base/config.json`, "utf8"));
  return Object.hasOwn(ARCHITECTURES, model_type);
};
const names = readdirSync(path).filter((name) => existsSync(`${path}/${name}/base`) && known(name));

/** Every model on every backend that people compute on, one on the oracle. */
const backends = await computingBackends();
const runs = [
  ...backends.flatMap((on) => names.map((name) => ({ name, ...on }))),
  { name: "gpt2", title: "reference", backend: await openBackend("reference") },
];

describe.each(runs)("golden $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const folder = `${path}/${name}`;
  const { kind } = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8")) as Expected;
  const load = (): Promise<AnyModel> => fromPretrained(`${folder}/base`, {}, any);

  test("module names are the checkpoint's keys", async () => {
    const checkpoint = await openCheckpoint(await openFolder(`${folder}/base`));
    const model = await load();
    const names = [...stateDict(model).keys()].map((key) => model.checkpointName(key));
    expect(names.toSorted()).toEqual([...checkpoint.tensors.keys()].toSorted());
    await checkpoint.close();
  });

  test("logits, hidden states and losses equal transformers'", async () => {
    const model = await load();
    const { cases } = await readObject<{ cases: Record<string, ModelInputs> }>(folder, "inputs.json");
    const expected = await readObject<Expected>(folder, "expected.json");
    const tensors = await readTensors(folder, "expected.safetensors");
    for (const [name, inputs] of Object.entries(cases)) {
      using _scope = new Scope();
      const output = model.forward({ ...inputs, output_hidden_states: true });
      const { logits, loss } = output;
      const valid = tensors.get(`${name}/valid`)!.data;
      const encoderValid = (inputs.attention_mask as number[][] | undefined)?.flat();
      const check = (what: string, actual: ArrayLike<number>, width: number): void => {
        const mask = what.startsWith("encoder") ? encoderValid : valid;
        const counted = (i: number): boolean => mask?.[Math.floor(i / width)] !== 0;
        expect(
          worstExcess(actual, tensors.get(`${name}/${what}`)!.data, LOGITS, counted),
          `${name} ${what}`,
        ).toBeLessThanOrEqual(0);
      };
      check("logits", logits.dataSync(), logits.shape[2]!);
      for (const [key, what] of Object.entries(HIDDEN_STATES)) {
        output[key]?.forEach((state, i) => check(`${what}.${i}`, state.dataSync(), state.shape[2]!));
      }
      const expectedLoss = expected.cases[name]!.loss;
      expect(loss === null).toBe(expectedLoss === undefined);
      if (loss) expect(Math.abs((await loss.item()) - expectedLoss!), `${name} loss`).toBeLessThanOrEqual(1e-5);
    }
  });

  test("every gradient equals torch's", async () => {
    const model = await load();
    for (const p of model.parameters()) p.requiresGrad = true;
    const { cases } = await readObject<{ cases: Record<string, ModelInputs> }>(folder, "inputs.json");
    const { gradients } = await readObject<Expected>(folder, "expected.json");
    const expected = await readTensors(folder, "grads.safetensors");
    backward(model.forward(cases["plain"]!).loss!);
    const own = stateDict(model);
    expect([...own.keys()].toSorted()).toEqual([...expected.keys()].toSorted());
    for (const [key, { data }] of expected) {
      const tolerance = { atol: 2e-5 * gradients.largest_gradient + 1e-6 };
      expect(worstExcess(own.get(key)!.grad!.dataSync(), data, tolerance), key).toBeLessThanOrEqual(0);
    }
  });

  test.runIf(kind === "causal")(
    "the cache holds transformers' keys and values; decoding with it changes no bit",
    async () => {
      const model = await load();
      const { cases } = await readObject<{ cases: Record<string, { input_ids: number[][] }> }>(folder, "inputs.json");
      const expected = await readTensors(folder, "expected.safetensors");
      const ids = cases["plain"]!.input_ids.slice(0, 1);
      const cache = new KvCache();
      const whole = model.forward({ input_ids: ids, past_key_values: cache }).logits.dataSync();
      for (let layer = 0; expected.has(`prefill_row0/cache.key.${layer}`); layer++) {
        const { key, value } = cache.at(layer)!;
        for (const [what, t] of [
          ["key", key],
          ["value", value],
        ] as const) {
          const { data } = expected.get(`prefill_row0/cache.${what}.${layer}`)!;
          expect(worstExcess(t.dataSync(), data, LOGITS), `${what} ${layer}`).toBeLessThanOrEqual(0);
        }
      }
      const vocab = whole.length / ids[0]!.length;
      for (const size of [1, 3]) {
        const chunked = new KvCache();
        for (let t = 0; t < ids[0]!.length; t += size) {
          const chunk = [ids[0]!.slice(t, t + size)];
          const logits = model.forward({ input_ids: chunk, past_key_values: chunked }).logits.dataSync();
          expect(logits).toEqual(whole.slice(t * vocab, (t + size) * vocab));
        }
      }
    },
  );

  test.skipIf(kind === "masked")("greedy generation gives transformers' ids", async () => {
    const model = (await load()) as AnyModel & Pick<CausalLM, "generate">;
    const { generate } = await readObject<Expected>(folder, "expected.json");
    for (const { name, output_ids, ...options } of generate) {
      expect(await model.generate(options), name).toEqual(output_ids);
    }
  });

  test.runIf(existsSync(`${folder}/config.v4.json`))("the config of transformers 4 gives the same logits", async () => {
    const old = fromConfig(await readObject(folder, "config.v4.json"), {}, any);
    const model = await load();
    for (const [key, t] of stateDict(old)) expect(t.shape, key).toEqual(stateDict(model).get(key)!.shape);
    adoptStateDict(old, stateDict(model));
    const { cases } = await readObject<{ cases: Record<string, ModelInputs> }>(folder, "inputs.json");
    const padded = cases["left_pad"] ?? cases["right_pad"]!;
    expect(old.forward(padded).logits.dataSync()).toEqual(model.forward(padded).logits.dataSync());
  });

  test.each(["base_bf16", "base_f16"].filter((base) => existsSync(`${folder}/${base}`)))(
    "%s gives its logits",
    async (base) => {
      const { other_checkpoints } = await readObject<Expected>(folder, "expected.json");
      const expected = await readTensors(`${folder}/${base}`, "expected.safetensors");
      for (const dtype of [undefined, "float32"] as const) {
        const model = await fromPretrained(`${folder}/${base}`, { dtype }, any);
        const { logits } = model.forward(other_checkpoints![base]!.case!);
        const [key] = [...expected.keys()].filter((k) => k.endsWith("logits"));
        expect(worstExcess(logits.dataSync(), expected.get(key!)!.data, LOGITS)).toBeLessThanOrEqual(0);
      }
    },
  );

  test.each(["base_sharded", "base_hub_names"].filter((base) => existsSync(`${folder}/${base}`)))(
    "%s is the same model",
    async (base) => {
      const [model, other] = [await load(), await fromPretrained(`${folder}/${base}`, {}, any)];
      const expected = stateDict(model);
      for (const [key, t] of stateDict(other)) expect(t.dataSync(), key).toEqual(expected.get(key)!.dataSync());
    },
  );

  test.runIf(existsSync(`${folder}/base_sharded`))(
    "saving in shards writes transformers' shards and index",
    async () => {
      const source = await openFolder(`${folder}/base_sharded`);
      const files = new Map<string, Uint8Array>();
      const model = await fromPretrained(source.name, {}, any);
      await model.savePretrained(files, { maxShardSize: "60KB" });
      const weights = (names: Iterable<string>): string[] =>
        [...names].filter((name) => name.startsWith("model")).toSorted();
      expect(weights(files.keys())).toEqual(weights(await source.list()));
      for (const name of weights(files.keys())) expect(files.get(name), name).toEqual(await readBytes(source, name));
    },
  );

  test("saving writes the files that were read", async () => {
    const files = new Map<string, Uint8Array>();
    await (await load()).savePretrained(files);
    const source = await openFolder(`${folder}/base`);
    expect(files.get("model.safetensors")).toEqual(await readBytes(source, "model.safetensors"));
    const file = "generation_config.json";
    expect(files.get(file)).toEqual((await source.has(file)) ? await readBytes(source, file) : undefined);
    expect(files.get("config.json")).toEqual(await readBytes(source, "config.json"));
  });
});
