import { describe, expect, test } from "vitest";
import { LoraConfig, type LoraOptions, PeftModel, addTokens, getPeftModel } from "../index.ts";
import { caught, logitsOf, makeBase, setRows, valuesOf } from "../testing.ts";

/** Growing a table where adapters have more of it than rows. */
const quiet = { onWarning: (): void => {} };
const NAME = "llama";
const SIZE = 11;
const lora = (options: LoraOptions, ids: number[] = [1, 3]) =>
  new LoraConfig({
    r: 1,
    target_modules: ["q_proj"],
    init_lora_weights: false,
    trainable_token_indices: ids,
    ...options,
  });

function adapted(size: number, options: LoraOptions, ids: number[]): PeftModel {
  const base = makeBase(NAME);
  if (size > SIZE) base.resizeTokenEmbeddings(size);
  const peft = getPeftModel(base, lora(options, ids), quiet);
  setRows(peft, "default");
  return peft;
}
async function saved(peft: PeftModel, json: object = {}): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files, { saveEmbeddingLayers: false });
  const config = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json"))) as object;
  return files.set("adapter_config.json", new TextEncoder().encode(JSON.stringify({ ...config, ...json })));
}

const WAYS: readonly LoraOptions[] = [{ target_modules: ["q_proj", "lm_head"] }, { modules_to_save: ["lm_head"] }];
describe.each(WAYS.map((options) => ({ options, title: JSON.stringify(options) })))("$title", ({ options }) => {
  test("a file of a grown model loads on the small one, which grows first", async () => {
    const source = adapted(SIZE + 3, options, [SIZE + 2, 1]);
    const peft = await PeftModel.fromPretrained(makeBase(NAME), await saved(source), { resize: true, ...quiet });
    expect(peft.getBaseModel().config.vocab_size).toBe(SIZE + 3);
    expect(logitsOf(peft)).toEqual(logitsOf(source));
  });

  test("tensors of the size before are refused", async () => {
    const files = await saved(adapted(SIZE, options, [3, 1]), { trainable_token_indices: [SIZE + 2, 1] });
    const base = makeBase(NAME);
    const before = valuesOf(base);
    const error = await caught(() => PeftModel.fromPretrained(base, files, { resize: true, ...quiet }));
    expect(error).toMatchObject({ name: "CheckpointError", code: "SHAPE" });
    expect(valuesOf(base)).toEqual(before);
  });

  test("beside such an adapter nothing grows, and nothing has changed", async () => {
    const files = await saved(adapted(SIZE + 3, {}, [SIZE + 2, 1]));
    const peft = adapted(SIZE, options, [3, 1]);
    const [values, logits] = [valuesOf(peft.getBaseModel()), logitsOf(peft)];
    for (const grow of [() => peft.loadAdapter(files, "new", { resize: true }), () => addTokens(peft, 3)]) {
      const error = await caught(grow);
      expect(error).toMatchObject({
        name: "ConfigError",
        code: "UNSUPPORTED",
        fields: { module: "lm_head", adapters: ["default"] },
      });
      expect(error.message).toContain("token rows alone of lm_head");
      expect(valuesOf(peft.getBaseModel())).toEqual(values);
      expect(logitsOf(peft)).toEqual(logits);
      expect(Object.keys(peft.peftConfig)).toEqual(["default"]);
    }
  });
});
