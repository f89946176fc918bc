import { setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { LoraConfig, PeftModel, TrainableTokensConfig, getPeftModel } from "./index.ts";
import { type BaseName, caught, listener, logitsOf, makeBase, setRows } from "./testing.ts";

const IDS = [7, 1, 4, 0];
const CASES = (["llama tied", "gpt2", "qwen2, tied"] as const).flatMap((base) =>
  (["input", "output"] as const).map((side) => [base, side] as const),
);
async function saved(base: BaseName, sides: "input" | "output", options = {}) {
  const config = new TrainableTokensConfig({ token_indices: IDS, task_type: "CAUSAL_LM" });
  const peft = getPeftModel(makeBase(base), config, { sides });
  setRows(peft, "default");
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files, options);
  return { peft, files };
}
const json = (files: Map<string, Uint8Array>, file: string) =>
  JSON.parse(new TextDecoder().decode(files.get(file))) as Record<string, unknown>;

describe.each(await computingBackends())("9.2 files of one side of a tie on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(CASES)(
    "A-85 %s, %s: written as LoRA of 0 with rows of their own, which load to the same logits",
    async (base, side) => {
      const { peft, files } = await saved(base, side);
      const { embeddingPath, headPath } = peft.getBaseModel();
      const config = json(files, "adapter_config.json");
      expect(config).toMatchObject({ peft_type: "LORA", r: 1, task_type: "CAUSAL_LM", inference_mode: true });
      expect((config["target_modules"] as string[]).length).toBe(1);
      expect(config["trainable_token_indices"]).toEqual(
        side === "input" ? { [embeddingPath]: IDS, [headPath]: [2] } : { [headPath]: IDS },
      );
      expect(new TextDecoder().decode(files.get("README.md"))).toContain("PEFT must not merge them");
      expect([...files.keys()].toSorted()).toEqual(["README.md", "adapter_config.json", "adapter_model.safetensors"]);

      const { codes, onWarning } = listener();
      const loaded = await PeftModel.fromPretrained(makeBase(base), files, { onWarning });
      expect(loaded.peftConfig["default"]).toBeInstanceOf(LoraConfig);
      expect(logitsOf(loaded)).toEqual(logitsOf(peft));
      expect(codes).toEqual([]);
    },
  );

  test.each(CASES)("%s, %s: with the training state it is again what it was", async (base, side) => {
    const { peft, files } = await saved(base, side, { trainingState: {} });
    expect(json(files, "training_state.json")).toMatchObject({ sides: side });
    const loaded = await PeftModel.fromPretrained(makeBase(base), files, { isTrainable: true });
    const [layer] = loaded.layers().values();
    expect(loaded.peftConfig["default"]).toBeInstanceOf(TrainableTokensConfig);
    expect(loaded.peftConfig["default"]).toMatchObject({ token_indices: IDS, task_type: "CAUSAL_LM" });
    expect(layer!.sidesOf("default")).toBe(side);
    expect(logitsOf(loaded)).toEqual(logitsOf(peft));
    const again = new Map<string, Uint8Array>();
    await loaded.savePretrained(again, { trainingState: {} });
    expect([...again.keys()].toSorted()).toEqual([...files.keys()].toSorted());
    for (const [file, bytes] of again) expect(bytes, file).toEqual(files.get(file));
  });

  test("an untied model's sides are plain files", async () => {
    const { files } = await saved("llama", "input");
    expect(json(files, "adapter_config.json")).toMatchObject({ peft_type: "TRAINABLE_TOKENS" });
  });

  test("a side that belongs to no such files is refused", async () => {
    const { files } = await saved("llama tied", "input", { trainingState: {} });
    const other = getPeftModel(makeBase("llama tied"), new TrainableTokensConfig({ token_indices: IDS }));
    const plain = new Map<string, Uint8Array>();
    await other.savePretrained(plain);
    plain.set("training_state.json", files.get("training_state.json")!);
    const error = await caught(() => PeftModel.fromPretrained(makeBase("llama tied"), plain));
    expect(error).toMatchObject({ name: "ConfigError", code: "ARGUMENT" });
    expect(error.message).toContain('sides "input" must belong to rows of model.embed_tokens beside LoRA, found none');
  });
});
