import { describe, expect, test } from "vitest";
import { TASK_TYPES, TrainableTokensConfig, getPeftModel } from "../index.ts";
import { caught, makeBase } from "../testing.ts";
import { config } from "./world.ts";

describe("config", () => {
  test("A-48: it is constructed, goes through JSON, and keeps the order of its ids", () => {
    const given = {
      token_indices: Int32Array.of(9, 2, 5),
      target_modules: ["wte"],
      init_weights: false,
      task_type: "CAUSAL_LM",
    } as const;
    const made = new TrainableTokensConfig(given);
    expect(made.token_indices).toEqual([9, 2, 5]);
    const json = JSON.parse(JSON.stringify(made));
    expect(json).toEqual({
      ...given,
      token_indices: [9, 2, 5],
      peft_type: "TRAINABLE_TOKENS",
      auto_mapping: null,
      base_model_name_or_path: null,
      inference_mode: false,
      peft_version: "0.21.0",
      revision: null,
    });
    expect(JSON.parse(JSON.stringify(TrainableTokensConfig.fromFile(json, () => {})))).toEqual(json);
    expect(
      Object.keys(JSON.parse(JSON.stringify(new TrainableTokensConfig({ token_indices: [1], peft_version: null })))),
    ).not.toContain("peft_version");
  });

  test("A-82: each wrong value has its code and names what may stand there", async () => {
    const wrong = (options: object) =>
      caught(() => new TrainableTokensConfig({ token_indices: [1], ...options } as never));
    const taskType = await wrong({ task_type: "CHAT" });
    expect(taskType.code).toBe("TASK_TYPE");
    for (const known of TASK_TYPES) expect(taskType.message).toContain(known);
    expect(await wrong({ target_module: "wte" })).toMatchObject({
      code: "UNKNOWN_KEY",
      fields: { key: "target_module" },
      message: expect.stringContaining('did you mean "target_modules"?'),
    });
    for (const key of ["modules_to_save", "bias", "exclude_modules", "ensure_weight_tying"])
      expect(await wrong({ [key]: null })).toMatchObject({ code: "UNKNOWN_KEY", fields: { key } });
    expect(await wrong({ target_modules: 3 })).toMatchObject({ code: "ARGUMENT" });
    expect(await wrong({ init_weights: "yes" })).toMatchObject({ code: "ARGUMENT" });
    const merge = getPeftModel(makeBase("llama"), config()).mergeAdapter({ adapterNames: "default" as never });
    expect(await caught(() => merge)).toMatchObject({ code: "ARGUMENT" });
  });

  test.each(["", "a.b", "a/b", "a\\b", "__base__"])("an adapter cannot be called %j", async (adapterName) => {
    expect(await caught(() => getPeftModel(makeBase("llama"), config(), { adapterName }))).toMatchObject({
      code: "NAME",
    });
  });

  test("a wrapped model is not wrapped again", async () => {
    const base = makeBase("llama");
    getPeftModel(base, config());
    expect(await caught(() => getPeftModel(base, config()))).toMatchObject({
      code: "ALREADY_WRAPPED",
      message: expect.stringContaining("addAdapter"),
    });
  });
});
