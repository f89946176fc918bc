import { setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type InitPolicy,
  LoraConfig,
  TrainableTokensConfig,
  type TrainableTokensLayer,
  getPeftModel,
} from "./index.ts";
import { initialRows } from "./init.ts";
import { caught, listener, logitsOf, makeBase, setRows } from "./testing.ts";

const IDS = [7, 1, 4];
const config = (token_indices = IDS) => new TrainableTokensConfig({ token_indices });
const POLICIES: InitPolicy[] = [
  "original",
  "mean",
  "random",
  { kind: "random", std: 0.02 },
  { kind: "copy", from: [2, 2, 9] },
  { kind: "description", tokens: [[2, 3], [9], [5, 5, 6]] },
  { kind: "normal", covariance: "diagonal", scale: 0.1 },
  { kind: "normal", covariance: "full", scale: 0.1 },
];

describe.each(await computingBackends())("9.8 how rows start in a model, on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(POLICIES.map((init) => [typeof init === "string" ? init : JSON.stringify(init), init] as const))(
    "A-89 %s: each module from its own unadapted table",
    (_, init) => {
      const base = makeBase("llama");
      const target = new TrainableTokensConfig({ token_indices: IDS, target_modules: ["embed_tokens", "lm_head"] });
      const { codes, onWarning } = listener();
      const peft = getPeftModel(base, target, { init, seed: 5, onWarning });
      const layers = [...peft.layers().values()] as [TrainableTokensLayer, TrainableTokensLayer];
      expect(layers.length).toBe(2);
      for (const layer of layers) {
        const table = layer.table.dataSync();
        const read = (ids: Int32Array) => [...ids].flatMap((id) => Array.from(table.slice(id * 6, id * 6 + 6)));
        const expected = initialRows({ count: 11, width: 6, read }, IDS, init, 5, () => {});
        expect(layer.trainable_tokens_delta["default"]!.dataSync()).toEqual(Float32Array.from(expected));
        expect([...layer.originalOf("default").dataSync()]).toEqual(read(Int32Array.from(IDS)));
      }
      expect(codes).toEqual([]);
      expect(peft.peftConfig["default"]).toMatchObject({ init_weights: init === "original" });
    },
  );

  test("token rows beside LoRA start by a policy too; sides are the lists' business there", async () => {
    const lora = new LoraConfig({ r: 2, target_modules: ["q_proj"], trainable_token_indices: IDS });
    const peft = getPeftModel(makeBase("llama"), lora, { init: "mean" });
    const plain = getPeftModel(makeBase("llama"), config(), { init: "mean" });
    const rows = (model: typeof peft) => [...model.layers().values()][0]!.trainable_tokens_delta["default"]!.dataSync();
    expect(rows(peft)).toEqual(rows(plain));
    const error = await caught(() => getPeftModel(makeBase("llama tied"), lora, { sides: "input" }));
    expect(error).toMatchObject({ name: "ConfigError", code: "UNSUPPORTED" });
    expect(error.message).toContain("name the head alone, or both ends with different lists");
  });

  test("nothing that is merged leaks into the rows of another adapter", async () => {
    const peft = getPeftModel(makeBase("llama tied"), config([2, 9]));
    setRows(peft, "default", () => 100);
    await peft.mergeAdapter();
    peft.addAdapter("second", config(), { init: "mean" });
    const plain = getPeftModel(makeBase("llama tied"), config(), { init: "mean" });
    const rows = (model: typeof peft, name: string) =>
      [...model.layers().values()][0]!.trainable_tokens_delta[name]!.dataSync();
    expect(rows(peft, "second")).toEqual(rows(plain, "default"));
  });

  test("a policy that does not fit leaves the model as it was", async () => {
    const base = makeBase("llama");
    const before = logitsOf(base);
    const error = await caught(() => getPeftModel(base, config(), { init: { kind: "copy", from: [1, 2, 99] } }));
    expect(error).toMatchObject({ name: "ConfigError", code: "INDEX_RANGE" });
    expect([...base.namedModules()].some(([, module]) => module.constructor.name === "TrainableTokensLayer")).toBe(
      false,
    );
    expect(logitsOf(base)).toEqual(before);
    const { codes, onWarning } = listener();
    getPeftModel(makeBase("llama"), config(Array.from({ length: 9 }, (_, i) => i)), {
      init: { kind: "normal", covariance: "full" },
      onWarning,
    });
    expect(codes).toEqual(["COVARIANCE"]); // two rows outside span one direction of six
  });
});
