import { AdamW, type AdamWOptions, SGD, schedule } from "@neolog/autograd";
import { Scope, setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import {
  LoraConfig,
  PeftModel,
  TrainableTokensConfig,
  getPeftModel,
  loadTrainingState,
  loraParameters,
  originalRows,
  tokenParameters,
  touchedRows,
} from "./index.ts";
import { BATCH, caught, logitsOf, makeBase } from "./testing.ts";

const IDS = [7, 1, 4];
const rows = new TrainableTokensConfig({ token_indices: IDS });
const lora = new LoraConfig({
  r: 2,
  target_modules: ["q_proj", "up_proj"],
  trainable_token_indices: IDS,
  lora_dropout: 0.3,
});
const factor = schedule("cosine", { totalSteps: 7, warmupSteps: 2 });
type Optimizer = AdamW | SGD;

const MODES: [string, TrainableTokensConfig | LoraConfig, "input" | "both", (peft: PeftModel) => Optimizer][] = [
  ["AdamW", rows, "both", (peft) => adamw(peft, {})],
  [
    "lazy AdamW toward the original",
    rows,
    "both",
    (peft) => adamw(peft, { rows: "lazy", decayToward: originalRows(peft) }),
  ],
  ["SGD with momentum", rows, "both", (peft) => new SGD(tokenParameters(peft), { lr: 0.1, momentum: 0.9 })],
  ["one side of a tie", rows, "input", (peft) => adamw(peft, {})],
  [
    "LoRA with dropout, in groups",
    lora,
    "both",
    (peft) =>
      new AdamW(
        [
          { params: tokenParameters(peft), rows: "lazy" },
          { params: loraParameters(peft), weight_decay: 0.1 },
        ],
        { lr: 0.1 },
      ),
  ],
];
const adamw = (peft: PeftModel, options: AdamWOptions): AdamW =>
  new AdamW(tokenParameters(peft), { lr: 0.1, weight_decay: 0.2, ...options });

function train(peft: PeftModel, optimizer: Optimizer, from: number, to: number): void {
  for (let step = from; step < to; step++) {
    using _step = new Scope();
    optimizer.lr = 0.1 * factor(step);
    peft.backward(peft.forward(BATCH).loss!);
    optimizer.step(touchedRows(peft, BATCH));
    optimizer.zeroGrad();
  }
}

describe.each(await computingBackends())("9.15 training that was saved, on $title", ({ backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test.each(MODES)("A-91 goes on to the same bits: %s", async (_, config, sides, make) => {
    const start = () => getPeftModel(makeBase("llama tied"), config, { sides, seed: 2, onWarning: () => {} });
    const through = start();
    train(through, make(through), 0, 7);

    const first = start();
    const optimizer = make(first);
    train(first, optimizer, 0, 4);
    const files = new Map<string, Uint8Array>();
    await first.savePretrained(files, { trainingState: { optimizer, progress: { step: 4 } } });
    const peft = await PeftModel.fromPretrained(makeBase("llama tied"), files, {
      isTrainable: true,
      onWarning: () => {},
    });
    const resumed = make(peft);
    const progress = await loadTrainingState(peft, files, { optimizer: resumed });
    expect(progress).toEqual({ step: 4 });
    train(peft, resumed, 4, 7);
    peft.eval();
    through.eval();
    expect(logitsOf(peft)).toEqual(logitsOf(through));
    const values = (model: PeftModel) =>
      [...tokenParameters(model), ...loraParameters(model)].map((t) => [...t.dataSync()]);
    expect(values(peft)).toEqual(values(through));
  });

  test("says how the rows started", async () => {
    const peft = getPeftModel(makeBase("llama"), rows, { init: { kind: "copy", from: [2, 3, 5] }, seed: 4 });
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files, { trainingState: {} });
    const state = JSON.parse(new TextDecoder().decode(files.get("training_state.json"))) as object;
    expect(state).toMatchObject({ init: { policy: { kind: "copy", from: [2, 3, 5] }, seed: 4 }, requires_grad: true });
  });

  test("removing it changes no output; flags come back with it", async () => {
    const peft = getPeftModel(makeBase("llama"), rows);
    train(peft, adamw(peft, {}), 0, 2);
    peft.setRequiresGrad("default", false);
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files, { trainingState: {} });
    const loaded = await PeftModel.fromPretrained(makeBase("llama"), files, { isTrainable: true });
    expect(loaded.requiresGradOf("default")).toBe(true);
    await loadTrainingState(loaded, files);
    expect(loaded.requiresGradOf("default")).toBe(false);
    for (const file of ["training_state.json", "training_state.safetensors"]) files.delete(file);
    expect(logitsOf(await PeftModel.fromPretrained(makeBase("llama"), files))).toEqual(logitsOf(peft));
    const error = await caught(() => loadTrainingState(loaded, files));
    expect(error).toMatchObject({ name: "CheckpointError", code: "NOT_FOUND" });
    expect(error.message).toContain("must hold training_state.json of savePretrained({ trainingState }), found none");
  });
});
