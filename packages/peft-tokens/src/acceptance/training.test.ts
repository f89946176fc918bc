import { CausalLM, accumulateGradients, packSequences } from "@neolog/models";
import { beforeAll, describe, expect, test } from "vitest";
import { AdamW, backward, checkpoint } from "@neolog/autograd";
import { Scope, type Tensor, defaultBackend, setDefaultBackend } from "@neolog/tensor";
import { PeftModel, TrainableTokensConfig, getPeftModel, tokenParameters } from "../index.ts";
import { BATCH, caught, logitsOf, makeBase, valuesOf } from "../testing.ts";
import {
  HIDDEN,
  IDS,
  VOCAB,
  config,
  embeddingOf,
  everyWorld,
  expectSame,
  rowsOf,
  saved,
  train,
  withRows,
  withThree,
} from "./world.ts";

describe.each(await everyWorld())("training and generating, $name on $title", ({ name, backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test("A-3, A-55, A-63: steps move the rows, nothing else, and the loss falls", () => {
    const base = makeBase(name);
    const before = valuesOf(base);
    const peft = getPeftModel(base, config());
    const original = embeddingOf(peft).originalOf("default").dataSync();
    const rows = rowsOf(peft);
    const losses = train(peft, 12);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    expect(rowsOf(peft)).not.toEqual(rows);
    expect(embeddingOf(peft).originalOf("default").dataSync()).toEqual(original);
    expect(valuesOf(peft.unload())).toEqual(before);
  });

  test("A-64: recomputing the forward pass gives the same gradients", () => {
    const gradients = (run: (peft: PeftModel) => Tensor) => {
      const peft = withRows(makeBase(name));
      using _scope = new Scope();
      backward(run(peft));
      return tokenParameters(peft)[0]!.grad!.dataSync();
    };
    const plain = gradients((peft) => peft.forward(BATCH).loss!);
    const again = gradients((peft) => checkpoint(() => peft.forward(BATCH).loss!));
    expect(again.some((x) => x !== 0)).toBe(true);
    expect(again).toEqual(plain);
    const byBlocks = gradients((peft) => {
      peft.getBaseModel().gradientCheckpointing = true;
      return peft.forward(BATCH).loss!;
    });
    // the blocks of a decoder share its encoder's output: that gradient is summed in another order
    if (makeBase(name) instanceof CausalLM) expect(byBlocks).toEqual(plain);
    else expect([...byBlocks]).toEqual(Array.from(plain, (g) => expect.closeTo(g, 5) as number));
  });

  const causal = makeBase(name) instanceof CausalLM;
  test.runIf(causal)("texts in turn, or packed into a row, give the gradients of the whole batch", () => {
    const gradients = (run: (peft: PeftModel) => void) => {
      const peft = withRows(makeBase(name));
      using _scope = new Scope();
      run(peft);
      return [...tokenParameters(peft)[0]!.grad!.dataSync()];
    };
    const rows = BATCH.input_ids.map((ids, b) => ({
      input_ids: ids.slice(0, 7),
      labels: BATCH.labels[b]!.slice(0, 7),
    }));
    const [input_ids, labels] = [rows.map((row) => row.input_ids), rows.map((row) => row.labels)];
    const whole = gradients((peft) => backward(peft.forward({ input_ids, labels }).loss!));
    const inTurn = gradients((peft) => {
      const batches = rows.map((row) => ({ input_ids: [row.input_ids], labels: [row.labels] }));
      accumulateGradients(peft, batches, tokenParameters(peft));
    });
    const packed = gradients((peft) => backward(peft.forward(packSequences(rows)).loss!));
    const near = whole.map((g) => expect.closeTo(g, 5) as number);
    expect(inTurn).toEqual(near);
    expect(packed).toEqual(near);
    expect(whole.some((g) => Math.abs(g) > 1e-3)).toBe(true);
  });

  test("A-70: setRequiresGrad toggles flags and nothing else", () => {
    const peft = withThree(makeBase(name));
    const before = logitsOf(peft);
    peft.setRequiresGrad(["second"]);
    peft.setRequiresGrad("default", false);
    expect(["default", "second", "third"].map((adapter) => peft.requiresGradOf(adapter))).toEqual([false, true, false]);
    expect(peft.activeAdapters).toEqual(["default"]);
    expectSame(logitsOf(peft), before);
  });

  test("A-71: inferenceMode and isTrainable set the flags of a first and a second adapter", async () => {
    const frozen = getPeftModel(
      makeBase(name),
      new TrainableTokensConfig({ token_indices: IDS, inference_mode: true }),
    );
    expect(frozen.requiresGradOf("default")).toBe(false);
    const peft = withThree(makeBase(name));
    peft.setAdapter("second", { inferenceMode: true });
    expect(tokenParameters(peft)).toEqual([]);
    const files = await saved(peft);
    for (const isTrainable of [true, false]) {
      const loaded = await PeftModel.fromPretrained(makeBase(name), files, { isTrainable });
      await loaded.loadAdapter(files, "second", { isTrainable, subfolder: "second" });
      expect(["default", "second"].map((adapter) => loaded.requiresGradOf(adapter))).toEqual([
        isTrainable,
        isTrainable,
      ]);
    }
  });

  test.skipIf(!(makeBase(name) instanceof CausalLM))(
    "A-72: generate runs through the rows, and its scores are forward's",
    async () => {
      const peft = withRows(makeBase(name));
      const [ids] = await peft.generate({ input_ids: [[7, 1]], max_new_tokens: 5, eos_token_id: null });
      for (let n = 2; n < 7; n++) {
        const last = Array.from(logitsOf(peft, [ids!.slice(0, n)])).slice(-VOCAB);
        expect(last.indexOf(Math.max(...last))).toBe(ids![n]);
      }
      const twin = await withRows(makeBase(name)).mergeAndUnload();
      expect(await twin.generate({ input_ids: [[7, 1]], max_new_tokens: 5, eos_token_id: null })).toEqual([ids]);
    },
  );

  test("A-78: added tokens train, and the file is smaller than the table", async () => {
    const base = makeBase(name);
    base.resizeTokenEmbeddings(VOCAB + 2);
    const peft = getPeftModel(base, config([VOCAB, VOCAB + 1]));
    const before = rowsOf(peft);
    const input_ids = [[VOCAB, 1, VOCAB + 1]];
    peft.backward(peft.forward({ input_ids, labels: input_ids }).loss!);
    new AdamW(tokenParameters(peft), { lr: 0.1 }).step();
    expect(rowsOf(peft).every((x, i) => x !== before[i])).toBe(true);
    expect((await saved(peft)).get("adapter_model.safetensors")!.length).toBeLessThan(
      (1 + base.tiedPaths.length) * (2 * HIDDEN * 4 + 200),
    );
  });

  test("backward says why there is nothing to train", async () => {
    const peft = withThree(makeBase(name));
    const trial = () => caught(() => peft.backward(peft.forward(BATCH).loss!));
    await peft.mergeAdapter();
    expect(await trial()).toMatchObject({
      code: "NOTHING_TO_TRAIN",
      message: expect.stringContaining("merged default"),
    });
    peft.unmergeAdapter();
    peft.disableAdapterLayers();
    expect(await trial()).toMatchObject({ code: "NOTHING_TO_TRAIN", message: expect.stringContaining("disabled") });
    peft.enableAdapterLayers();
    peft.setAdapter([]);
    peft.setRequiresGrad("third");
    expect(await trial()).toMatchObject({
      code: "NOTHING_TO_TRAIN",
      message: expect.stringContaining("trainable third, active none"),
    });
    peft.setAdapter("third");
    peft.backward(peft.forward(BATCH).loss!);
    expect(tokenParameters(peft)[0]!.grad).not.toBeNull();
  });

  test("live buffers stay level over 50 training steps", () => {
    const peft = getPeftModel(makeBase(name), config());
    const rows = tokenParameters(peft);
    const optimizer = new AdamW(rows, { lr: 0.01 });
    const live: number[] = [];
    for (let step = 0; step < 50; step++) {
      {
        using _step = new Scope();
        backward(peft.forward(BATCH).loss!);
        optimizer.step();
      }
      live.push(defaultBackend().live);
    }
    expect(new Set(live.slice(1)).size).toBe(1);
  });
});
