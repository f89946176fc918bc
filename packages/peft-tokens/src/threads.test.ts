import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { AdamW, backward } from "@neolog/autograd";
import { AutoModelForCausalLM } from "@neolog/models";
import { Random, Scope, openBackend, setDefaultBackend } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import { TrainableTokensConfig, getPeftModel, tokenParameters } from "./index.ts";

const MODEL = fileURLToPath(new URL("../../models/pretrained/meadow", import.meta.url));
const IDS = [5, 300, 688];
/** 512 tokens, among them the trained ones: enough for every large operation to be shared among threads. */
const random = new Random(4);
const input_ids = Array.from({ length: 8 }, () =>
  Array.from({ length: 64 }, (_, t) => (t % 9 === 0 ? IDS[t % 3]! : Math.floor(random.next() * 689))),
);

const digest = (data: NodeJS.TypedArray): string => createHash("sha256").update(data).digest("hex");

/** What a few steps on `threads` threads give: losses, rows, logits and a continuation. */
async function trainedOn(threads: number): Promise<unknown> {
  setDefaultBackend(await openBackend("wasm", { threads }));
  const model = await AutoModelForCausalLM.fromPretrained(MODEL);
  const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: IDS }));
  const parameters = tokenParameters(peft);
  const optimizer = new AdamW(parameters, { lr: 0.05 });
  const losses: number[] = [];
  for (let step = 0; step < 4; step++) {
    using _step = new Scope();
    const { loss } = peft.forward({ input_ids, labels: input_ids });
    backward(loss!);
    optimizer.step();
    losses.push(await loss!.item());
  }
  return {
    losses,
    rows: parameters.map((rows) => digest(rows.dataSync())),
    logits: digest(peft.forward({ input_ids }).logits.dataSync()),
    ids: await peft.generate({ input_ids: [input_ids[0]!.slice(0, 20)], max_new_tokens: 30, eos_token_id: null }),
  };
}

describe("training and generation", () => {
  test("give the same bytes whatever the number of threads", async () => {
    const alone = await trainedOn(1);
    for (const threads of [2, 3]) expect(await trainedOn(threads), `${threads} threads`).toEqual(alone);
  });
});
