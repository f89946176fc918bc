import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type StoredTensor, openCheckpoint, openFolder, writeSafetensors } from "@neolog/checkpoint";
import { stateDict } from "@neolog/nn";
import { expect, test } from "vitest";
import { AutoModelForCausalLM } from "./autoModel.ts";
import { TINY_GPT_NEOX } from "./testing.ts";

const logits = (changes: object) => [
  ...AutoModelForCausalLM.fromConfig({ ...TINY_GPT_NEOX, ...changes }, { seed: 2, std: 0.5 })
    .forward({ input_ids: [[1, 2, 3]] })
    .logits.dataSync(),
];

test("each key of the config changes what is computed", () => {
  for (const changes of [
    { use_parallel_residual: false },
    { rotary_pct: 1 },
    { rotary_emb_base: 10 },
    { hidden_act: "relu" },
  ]) {
    expect(logits(changes), JSON.stringify(changes)).not.toEqual(logits({}));
  }
});

test("both spellings of the angles are one; a quarter of each head turns where neither is given", () => {
  const rope_parameters = { rope_type: "default", rope_theta: 10, partial_rotary_factor: 0.7 };
  expect(logits({ rotary_pct: undefined, rope_parameters })).toEqual(logits({ rotary_pct: 0.7, rotary_emb_base: 10 }));
  expect(logits({ hidden_size: 16, rotary_pct: undefined })).toEqual(logits({ hidden_size: 16, rotary_pct: 0.25 }));
});

test("files keep the head's old name, modules have transformers' new one; both load", async () => {
  const model = AutoModelForCausalLM.fromConfig(TINY_GPT_NEOX, { seed: 2 });
  const head = stateDict(model).get("lm_head.weight")!.dataSync();
  const dir = mkdtempSync(join(tmpdir(), "neolog-"));
  const load = async () =>
    stateDict(await AutoModelForCausalLM.fromPretrained(dir))
      .get("lm_head.weight")!
      .dataSync();
  try {
    await model.savePretrained(dir);
    expect(await load()).toEqual(head);
    const checkpoint = await openCheckpoint(await openFolder(dir));
    const tensors = new Map<string, StoredTensor>();
    for (const name of checkpoint.tensors.keys()) tensors.set(name, await checkpoint.read(name));
    await checkpoint.close();
    expect(tensors.has("lm_head.weight")).toBe(false);
    tensors.set("lm_head.weight", tensors.get("embed_out.weight")!);
    tensors.delete("embed_out.weight");
    writeFileSync(join(dir, "model.safetensors"), writeSafetensors(tensors));
    expect(await load()).toEqual(head);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
