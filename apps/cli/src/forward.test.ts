import { openFolder, openSafetensors, toTypedArray } from "@neolog/checkpoint";
import { AutoModelForCausalLM } from "@neolog/models";
import { Scope, defaultBackend } from "@neolog/tensor";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Ran, TINY_VOCABULARY, filesOf, flags, neolog, temporaryFolder, writeTinyModel } from "./testing.ts";

const BATCH = {
  input_ids: [
    [1, 2, 3],
    [4, 5, 6],
  ],
  labels: [
    [1, 2, 3],
    [-100, -100, 6],
  ],
};

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let model: string;
const at = (name: string): string => join(folder.path, name);

beforeAll(async () => {
  folder = await temporaryFolder();
  model = await writeTinyModel(at("model"));
});
afterAll(() => folder[Symbol.asyncDispose]());

async function forward(inputs: unknown, options: Parameters<typeof flags>[0] = {}): Promise<Ran> {
  await writeFile(at("inputs.json"), typeof inputs === "string" ? inputs : JSON.stringify(inputs));
  return neolog([
    "forward",
    ...flags({ model, input: at("inputs.json"), out: at("out.safetensors"), json: true, ...options }),
  ]);
}

async function written(name = "out.safetensors") {
  const file = await openSafetensors(await (await openFolder(folder.path)).open(name));
  const tensors = await Promise.all([...file.tensors.keys()].map((key) => file.read(key)));
  await file.close();
  return new Map([...file.tensors.keys()].map((key, i) => [key, tensors[i]!]));
}

describe("neolog forward", () => {
  test("writes the logits and the loss of a batch", async () => {
    const { code, stdout } = await forward(BATCH);
    expect(code).toBe(0);
    const base = await AutoModelForCausalLM.fromPretrained(model);
    using _scope = new Scope();
    const { logits, loss } = base.forward(BATCH);
    expect(JSON.parse(stdout)).toEqual({
      backend: defaultBackend().info,
      out: at("out.safetensors"),
      loss: await loss!.item(),
    });

    const tensors = await written();
    expect([...tensors.keys()].toSorted()).toEqual(["logits", "loss"]);
    expect(tensors.get("logits")).toMatchObject({ dtype: "F32", shape: [2, 3, TINY_VOCABULARY] });
    expect(tensors.get("loss")).toMatchObject({ dtype: "F32", shape: [] });
    expect(toTypedArray(tensors.get("logits")!)).toEqual(await logits.data());
    expect(toTypedArray(tensors.get("loss")!)[0]).toBe(await loss!.item());
  });

  test("writes no loss without labels", async () => {
    const { stdout } = await forward({ input_ids: [[1, 2]] }, { out: at("no-loss.safetensors") });
    expect(JSON.parse(stdout)).toEqual({ backend: defaultBackend().info, out: at("no-loss.safetensors"), loss: null });
    expect([...(await written("no-loss.safetensors")).keys()]).toEqual(["logits"]);
  });

  test("ignores what the mask leaves out", async () => {
    const masked = { input_ids: [[9, 1, 2]], attention_mask: [[0, 1, 1]], position_ids: [[0, 0, 1]] };
    await forward([masked, { input_ids: [[1, 2]] }]);
    const tensors = await written();
    const padded = toTypedArray(tensors.get("0/logits")!).slice(TINY_VOCABULARY);
    const plain = toTypedArray(tensors.get("1/logits")!);
    // float32 sums over one more, masked, term
    padded.forEach((value, i) => expect(value).toBeCloseTo(plain[i]!, 5));
  });

  test("names the tensors of several batches", async () => {
    const { stdout } = await forward({ cases: { long: BATCH, short: { input_ids: [[7]] } } });
    expect([...(await written()).keys()].toSorted()).toEqual(["long/logits", "long/loss", "short/logits"]);
    expect((JSON.parse(stdout) as { loss: object }).loss).toEqual({ long: expect.any(Number) as number });
  });

  test.each([
    ["{", /inputs.json: /],
    ["7", /inputs.json: must hold a batch or batches, found a number/],
    [[], /inputs.json: must hold at least one batch, found an empty list/],
    [{}, /inputs.json: must hold "input_ids" or named batches, found neither/],
    [{ a: {} }, /inputs.json: a\/input_ids must be there, found none/],
    [{ input_ids: [[1, 2], [3]] }, /inputs.json: input_ids must be rows of whole numbers, equally long/],
    [{ input_ids: [[]] }, /inputs.json: input_ids must be rows of whole numbers, equally long/],
    [{ input_ids: [[1]], label: [[1]] }, /keys must be of input_ids, .*, found "label"/],
    [{ input_ids: [[1, TINY_VOCABULARY]] }, /token ids must be in \[0, 257\), got 257/],
    [{ input_ids: [[1, 2]], labels: [[1]] }, /labels/],
    [{ input_ids: [[1, 2]], labels: [[1, 300]] }, /300/],
  ])("refuses %j", async (inputs, message) => {
    const before = await filesOf(folder.path);
    const { code, stdout, stderr } = await forward(inputs, { out: at("wrong.safetensors") });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain("unexpected");
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(await filesOf(folder.path)).toEqual(before);
  });
});
