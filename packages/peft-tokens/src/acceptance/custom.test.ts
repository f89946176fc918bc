import { Scope } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { LoraConfig, TrainableTokensConfig, getPeftModel, tokenParameters, tokensOf } from "../index.ts";
import { setRows } from "../testing.ts";
import { Pair, TwoTables } from "./custom.ts";
import { expectSame } from "./world.ts";

const quiet = { onWarning: () => {} };
const lora = (trainable_token_indices: Record<string, number[]> | number[]) =>
  new LoraConfig({ r: 2, target_modules: ["lm_head"], trainable_token_indices });

describe("models of one's own", () => {
  test("A-25, A-28: through LoRA a list takes the named embedding, a name only the module it names", () => {
    expect([
      ...getPeftModel(new TwoTables(1), lora([5]), quiet)
        .layers()
        .keys(),
    ]).toEqual(["emb"]);
    const second = getPeftModel(new TwoTables(1), lora({ pos_emb: [5, 2] }), quiet);
    expect([...second.layers().keys()]).toEqual(["pos_emb"]);
    expect(tokenParameters(second).map((rows) => rows.shape)).toEqual([[2, 3]]);
  });

  test.each([1, 1000, 0])(
    "A-31: through LoRA a scale of %i is applied to trained rows, merged or not",
    async (scale) => {
      const peft = getPeftModel(new TwoTables(scale), lora({ pos_emb: [5, 2] }), quiet);
      setRows(peft, "default");
      const trained = tokenParameters(peft)[0]!.dataSync();
      const hidden = (): Float32Array => {
        using _scope = new Scope();
        const { hidden_states } = peft.forward({ input_ids: [[5, 1, 2]], output_hidden_states: true });
        return hidden_states![0]!.dataSync() as Float32Array;
      };
      const before = hidden();
      expect([0, 1, 2].map((j) => before[4 + j])).toEqual([0, 1, 2].map((j) => Math.fround(trained[j]! * scale)));
      await peft.mergeAdapter();
      expectSame(hidden(), before);
    },
  );

  test("A-45: config, names and status of both kinds of adapter", () => {
    const ids = [5, 2];
    const alone = new TrainableTokensConfig({ token_indices: ids, target_modules: ["emb"], init_weights: false });
    for (const [config, type, model] of [
      [alone, "TRAINABLE_TOKENS", "TrainableTokensModel"],
      [lora({ emb: ids }), "LORA", "LoraModel"],
    ] as const) {
      const peft = getPeftModel(new TwoTables(1), config, { ...quiet, adapterName: "mine" });
      expect(tokensOf(peft.peftConfig["mine"]!)).toEqual(ids);
      expect(peft.activeAdapters).toEqual(["mine"]);
      expect(peft.getModelStatus()).toMatchObject({
        base_model_type: "TwoTables",
        adapter_model_type: model,
        peft_types: { mine: type },
        available_adapters: ["mine"],
        active_adapters: ["mine"],
        merged_adapters: [],
        enabled: true,
        requires_grad: { mine: true },
      });
      const rows = peft.getLayerStatus().find(({ name }) => name === "emb" || name === "emb.token_adapter")!;
      expect(rows).toMatchObject({ available_adapters: ["mine"], requires_grad: { mine: true } });
    }
  });
});

describe("a model of two sub-models", () => {
  const ids = [1, 4];
  const logitsOf = (peft: { forward(ids: number[][]): ReturnType<Pair["forward"]> }) => {
    using _scope = new Scope();
    const { left, right } = peft.forward([[0, 1, 2, 3, 4, 5]]);
    return { left: left.dataSync(), right: right.dataSync() };
  };
  const forms = (target: string) => [
    new TrainableTokensConfig({ token_indices: ids, target_modules: [target] }),
    new LoraConfig({ r: 2, target_modules: ["q_proj"], trainable_token_indices: { [target]: ids } }),
  ];

  test("A-41: a full path takes one of them, and the tie acts inside that one", () => {
    for (const config of forms("right.model.embed_tokens")) {
      const plain = logitsOf(new Pair());
      const pair = getPeftModel(new Pair(), config, quiet);
      setRows(pair as never, "default");
      expect([...pair.layers().keys()]).toEqual(["right.model.embed_tokens"]);
      const names = pair.getLayerStatus().map(({ name }) => name.replace(".token_adapter", ""));
      expect(names).toContain("right.lm_head");
      expect(names).not.toContain("left.lm_head");
      const { left, right } = logitsOf(pair);
      expect(left).toEqual(plain.left);
      const columns = Array.from(right.slice(0, 11), (x, id) => x !== plain.right[id]);
      expect(columns.map((changed, id) => (changed ? id : -1)).filter((id) => id >= 0)).toEqual(ids);
    }
  });

  test("A-42: a short name takes both", () => {
    for (const config of forms("embed_tokens")) {
      const pair = getPeftModel(new Pair(), config, quiet);
      expect([...pair.layers().keys()]).toEqual(["left.model.embed_tokens", "right.model.embed_tokens"]);
      expect(tokenParameters(pair)).toHaveLength(2);
    }
  });
});
