import { describe, expect, test } from "vitest";
import { LoraConfig, type LoraOptions, getPeftModel } from "../index.ts";
import { caught, makeBase } from "../testing.ts";

const made = (options: object): LoraConfig => new LoraConfig(options as LoraOptions);

describe("LoraConfig", () => {
  test("writes PEFT's 41 keys, lora_dropout with a decimal point", async () => {
    for (const [lora_dropout, written] of [
      [0, "0.0"],
      [0.25, "0.25"],
    ] as const) {
      const files = new Map<string, Uint8Array>();
      await getPeftModel(makeBase("llama"), made({ r: 2, lora_dropout })).savePretrained(files);
      const file = new TextDecoder().decode(files.get("adapter_config.json"));
      expect(Object.keys(JSON.parse(file))).toHaveLength(41);
      expect(file).toContain(`"lora_dropout": ${written},`);
      expect(JSON.parse(file)).toMatchObject({ peft_type: "LORA", r: 2, lora_alpha: 8, inference_mode: true });
      expect(JSON.parse(file)).toMatchObject({ target_modules: ["q_proj", "v_proj"], megatron_core: "megatron.core" });
    }
  });

  test("A-48: goes through JSON and back, with the keys of the file and no others", () => {
    const file = { peft_type: "LORA", r: 3, lora_alpha: 5, target_modules: ["q"], from_the_future: 1 };
    const codes: string[] = [];
    const config = LoraConfig.fromFile(file, ({ code }) => codes.push(code));
    expect(codes).toEqual(["UNKNOWN_KEYS"]);
    expect(config.toJSON()).toEqual(file);
    expect(config.bias).toBe("none");
  });

  test.each([
    ["use_dora", true],
    ["lora_bias", true],
    ["use_qalora", true],
    ["qalora_group_size", 8],
    ["megatron_core", "other"],
    ["loftq_config", { bits: 4 }],
    ["layer_replication", [[0, 4]]],
    ["target_parameters", ["w"]],
    ["eva_config", {}],
    ["init_lora_weights", "pissa"],
    ["bias", "some"],
  ])("%s: %j is not supported, in code or in a file", async (key, value) => {
    for (const make of [
      () => made({ [key]: value }),
      () => LoraConfig.fromFile({ peft_type: "LORA", [key]: value }, () => {}),
    ]) {
      const error = await caught(make);
      expect(error).toMatchObject({ name: "ConfigError", code: "UNSUPPORTED", fields: { key, value } });
      expect(error.message).toContain(key);
    }
  });

  test.each<[object, string]>([
    [{ r: 0 }, "RANK"],
    [{ r: 2.5 }, "RANK"],
    [{ rank_pattern: { q_proj: 0 } }, "RANK"],
    [{ lora_alpha: NaN }, "ARGUMENT"],
    [{ alpha_pattern: { q_proj: "1" } }, "ARGUMENT"],
    [{ alpha_pattern: null }, "ARGUMENT"],
    [{ rank_pattern: null }, "ARGUMENT"],
    [{ rank_pattern: [4] }, "ARGUMENT"],
    [{ lora_dropout: 1 }, "ARGUMENT"],
    [{ modules_to_save: "lm_head" }, "ARGUMENT"],
    [{ target_modules: 3 }, "ARGUMENT"],
    [{ layers_to_transform: [0.5], target_modules: ["q"] }, "ARGUMENT"],
    [{ layers_to_transform: 1, target_modules: "q" }, "LAYER_FILTER"],
    [{ layers_pattern: "layers", target_modules: ["q"] }, "LAYER_FILTER"],
    [{ layers_pattern: "layers", layers_to_transform: 1, target_modules: "all-linear" }, "LAYER_FILTER"],
    [{ task_type: "CHAT" }, "TASK_TYPE"],
    [{ rank: 4 }, "UNKNOWN_KEY"],
    [{ trainable_token_indices: [] }, "INDICES_EMPTY"],
    [{ trainable_token_indices: {} }, "INDICES_EMPTY"],
    [{ trainable_token_indices: { wte: [1, 1] } }, "INDEX_DUPLICATE"],
    [{ trainable_token_indices: [1.5] }, "INDEX_TYPE"],
    [{ trainable_token_indices: { wte: [-1] } }, "INDEX_RANGE"],
    [{ trainable_token_indices: 7 }, "ARGUMENT"],
    [{ use_rslora: "yes" }, "ARGUMENT"],
  ])("%j gives %s", async (options, code) => {
    expect(await caught(() => made(options))).toMatchObject({ name: "ConfigError", code });
  });

  test("r: 0 says what r must be", async () => {
    expect((await caught(() => made({ r: 0 }))).message).toBe("r: must be an integer of at least 1, got 0");
  });
});
