import { loadedVocabSize } from "@neolog/models";
import { openBackend, setDefaultBackend } from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import {
  LoraConfig,
  type PeftConfig,
  type PeftModel,
  TrainableTokensConfig,
  getPeftModel,
  type TokenIndices,
} from "../index.ts";
import { logitsOf, makeBase, setRows, valuesOf } from "../testing.ts";
import { Faulty } from "./backend.ts";

/** Loads that grow the table first, with a fault at every call to the backend. */
let faulty: Faulty;
beforeAll(async () => {
  faulty = new Faulty(await openBackend("cpu"));
  setDefaultBackend(faulty.backend);
});
const silent = { onWarning: (): void => {} };
const rows = (...token_indices: number[]) => new TrainableTokensConfig({ token_indices });
const lora = (trainable_token_indices: TokenIndices) =>
  new LoraConfig({ r: 1, target_modules: ["q_proj"], init_lora_weights: false, trainable_token_indices });

const CONFIGS: Readonly<Record<string, readonly [there: PeftConfig, added: PeftConfig]>> = {
  "rows alone": [rows(3, 7), rows(13, 1)],
  "rows beside LoRA, as a list": [lora([3, 7]), lora([13, 1])],
  "rows beside LoRA, as a dictionary": [
    lora({ embed_tokens: [3, 7], lm_head: [2] }),
    lora({ embed_tokens: [13, 1], lm_head: [12, 4, 5] }),
  ],
};

/** A model with an adapter, active or merged. */
async function world(name: string, there: PeftConfig, merged: boolean): Promise<PeftModel> {
  const peft = getPeftModel(makeBase(name), there, silent);
  setRows(peft, "default");
  if (merged) await peft.mergeAdapter();
  return peft;
}
/** Files of an adapter whose base has 14 tokens. */
async function grownFiles(name: string, config: PeftConfig): Promise<Map<string, Uint8Array>> {
  const base = makeBase(name, 5);
  base.resizeTokenEmbeddings(14);
  const peft = getPeftModel(base, config, silent);
  setRows(peft, "default", (slot, column) => slot - column / 3);
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files, { saveEmbeddingLayers: false });
  return files;
}
/** All that growing could leave half done. */
const stateOf = (peft: PeftModel): object => {
  const base = peft.getBaseModel();
  return {
    values: valuesOf(base),
    shapes: new Map([...base.namedParameters()].map(([key, t]) => [key, [...t.shape]])),
    trains: new Map([...base.namedParameters()].map(([key, t]) => [key, t.requiresGrad])),
    config: { ...base.config },
    loaded: loadedVocabSize(base),
    ties: [...base.tiedPaths],
    adapters: Object.keys(peft.peftConfig),
    active: peft.activeAdapters,
    merged: peft.mergedAdapters,
    layers: [...peft.layers().keys()],
    logits: logitsOf(peft),
  };
};

const worlds = ["llama", "llama tied"].flatMap((name) => [false, true].map((merged) => ({ name, merged })));
describe.each(worlds)("a load that grows the table, $name, merged $merged:", ({ name, merged }) => {
  test.each(Object.keys(CONFIGS))("%s, faults leave the old model or the new", async (title) => {
    const [resident, added] = CONFIGS[title]!;
    // different rows on the two sides of a tie cannot be merged
    const there = merged && name === "llama tied" && resident instanceof LoraConfig ? lora([3, 7]) : resident;
    const files = await grownFiles(name, added);
    for (let n = 0; ; n++) {
      const peft = await world(name, there, merged);
      const old = stateOf(peft);
      const plain = valuesOf(makeBase(name));
      const failed = await faulty.failsAt(n, () => peft.loadAdapter(files, "new", { resize: true }));
      if (failed) {
        expect(stateOf(peft), `after fault ${n}`).toEqual(old);
        expect(valuesOf(peft.unload()), `unloaded after fault ${n}`).toEqual(plain);
        continue;
      }
      expect(n).toBeGreaterThan(10);
      const base = peft.getBaseModel();
      expect(base.config.vocab_size).toBe(14);
      expect(base.tiedPaths).toEqual(makeBase(name).tiedPaths);
      const saved = new Map<string, Uint8Array>();
      await peft.savePretrained(saved, { selectedAdapters: ["new"], saveEmbeddingLayers: false });
      expect(saved.get("new/adapter_model.safetensors")).toEqual(files.get("adapter_model.safetensors"));
      for (const [key, values] of valuesOf(peft.unload()))
        expect(Array.from(values).slice(0, plain.get(key)!.length), key).toEqual(Array.from(plain.get(key)!));
      return;
    }
  });
});
