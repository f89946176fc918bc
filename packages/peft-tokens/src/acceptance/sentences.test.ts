import { AdamW } from "@neolog/autograd";
import { type StoredTensor, openFolder, openSafetensors, writeSafetensors } from "@neolog/checkpoint";
import { Embedding, Linear, Module } from "@neolog/nn";
import { Scope, type Tensor, openBackend, persist, tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";
import {
  LoraConfig,
  PeftModel,
  TrainableTokensConfig,
  type TrainableTokensOptions,
  autoPeftModel,
  getPeftModel,
  getPeftModelStateDict,
  injectAdapterInModel,
  tokenParameters,
} from "../index.ts";
import { dropped } from "../lora/dropout.ts";
import { caught, listener, logitsOf, makeBase, put, setRows, valuesOf } from "../testing.ts";

/** Sentences of the specification's sections 2 to 9 that no numbered line of it asks for. */
const tokens = (token_indices: number[], options: Omit<TrainableTokensOptions, "token_indices"> = {}) =>
  new TrainableTokensConfig({ token_indices, ...options });
function adapted(name: string, ids = [1, 4]): PeftModel {
  const peft = getPeftModel(makeBase(name), tokens(ids), listener());
  setRows(peft, "default");
  return peft;
}
async function saved(peft: PeftModel): Promise<Map<string, string>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files);
  return new Map([...files].map(([name, bytes]) => [name, new TextDecoder().decode(bytes)]));
}

describe("2.2", () => {
  test("dropout zeroes inputs with its probability, scales the others up, and differs between layers and calls", () => {
    class Twins extends Module {
      readonly left = new Linear(persist(tensor(Array(64 * 64).fill(0), [64, 64])));
      readonly right = new Linear(persist(tensor(Array(64 * 64).fill(0), [64, 64])));
      forward(x: Tensor): number[][] {
        return [this.left, this.right].map((linear) => [...linear.forward(x).dataSync()]);
      }
    }
    using _scope = new Scope();
    const p = 0.25;
    const twins = new Twins();
    const config = new LoraConfig({ r: 64, lora_alpha: 64, lora_dropout: p, target_modules: ["left", "right"] });
    const peft = getPeftModel(twins as never, config) as unknown as {
      parameters(): Tensor[];
      forward: Twins["forward"];
    };
    const identity = Array.from({ length: 64 * 64 }, (_, i) => Number(i % 65 === 0));
    for (const t of peft.parameters()) if (t.requiresGrad) put(t, identity);
    const ones = tensor(Array(64).fill(1), [1, 64]);
    const masks = [...peft.forward(ones), ...peft.forward(ones)];
    for (const mask of masks) expect(new Set(mask)).toEqual(new Set([0, Math.fround(1 / (1 - p))]));
    expect(new Set(masks.map(String)).size).toBe(4);
    const many = dropped(tensor(Array(20_000).fill(1), [20_000]), p, 7).dataSync();
    const kept = many.filter((x) => x !== 0).length / many.length;
    expect(Math.abs(kept - (1 - p))).toBeLessThan(0.02); // 6 deviations
  });
});

describe("4.4", () => {
  const withoutIds = { input_ids: [[0, 2, 3, 5]], labels: [[0, 2, 3, 5]] };

  test("a batch without the tokens gives lookups an explicit zero gradient, so that AdamW still decays the rows", () => {
    const peft = adapted("llama");
    const [rows] = tokenParameters(peft) as [Tensor];
    const before = [...rows.dataSync()];
    peft.backward(peft.forward(withoutIds).loss!);
    expect([...rows.grad!.dataSync()].every((g) => g === 0)).toBe(true);
    new AdamW([rows], { lr: 0.1, weight_decay: 0.5 }).step();
    expect([...rows.dataSync()]).toEqual(before.map((x) => expect.closeTo(0.95 * x, 5)));
  });

  test("through a tied head it gives one that is not zero", () => {
    const peft = adapted("llama tied");
    peft.backward(peft.forward(withoutIds).loss!);
    expect([...tokenParameters(peft)[0]!.grad!.dataSync()].every((g) => g !== 0)).toBe(true);
  });

  test("the row of padding learns through a tied head, and through it alone", () => {
    const gradient = (padding_idx: number | null, batch: object, sides: "both" | "output"): number[] => {
      const base = makeBase("llama tied");
      const embedding = new Embedding((base.moduleAt("model.embed_tokens") as Embedding).weight, padding_idx);
      Object.assign(base.moduleAt("model")!, { embed_tokens: embedding });
      const peft = getPeftModel(base, tokens([4]), { sides });
      peft.backward(peft.forward(batch as never).loss!);
      return [...tokenParameters(peft)[0]!.grad!.dataSync()];
    };
    const batch = { input_ids: [[4, 1, 4]], labels: [[4, 1, 4]] };
    const head = gradient(null, batch, "output");
    expect(head.some((g) => g !== 0)).toBe(true);
    expect(gradient(4, batch, "both")).toEqual(head.map((g) => expect.closeTo(g, 6)));
    expect(gradient(null, batch, "both")).not.toEqual(head.map((g) => expect.closeTo(g, 3)));
  });
});

test("4.6: rows over a float64 table are float64", async () => {
  const reference = await openBackend("reference");
  const table = persist(tensor(Array(12).fill(Math.SQRT2), [6, 2], "float64", reference));
  class Table extends Module {
    readonly embed_tokens = new Embedding(table);
    forward(ids: number[]): Tensor {
      return this.embed_tokens.forward(Int32Array.from(ids));
    }
  }
  const model = injectAdapterInModel(tokens([3, 1]), new Table());
  expect([...getPeftModelStateDict(model).values()].map((t) => t.dtype)).toEqual(["float64"]);
  expect([...model.forward([3]).dataSync()]).toEqual([Math.SQRT2, Math.SQRT2]);
});

describe("5", () => {
  test("several types of adapters at once are refused by name", async () => {
    const mixed = { mixed: true } as object;
    for (const run of [
      () => getPeftModel(makeBase("llama"), tokens([1]), mixed),
      () => PeftModel.fromPretrained(makeBase("llama"), new Map(), mixed),
    ]) {
      const error = await caught(run);
      expect(error).toMatchObject({ name: "ConfigError", code: "UNSUPPORTED", fields: { mixed: true } });
      expect(error.message).toContain("mixed must be false, got true");
    }
  });

  test("what is set while adapters are disabled stays set", () => {
    const peft = adapted("llama tied");
    peft.addAdapter("second", tokens([7]));
    setRows(peft, "second");
    {
      using _disabled = peft.disableAdapter();
      peft.setAdapter("second");
      expect(peft.requiresGradOf("second")).toBe(true);
      expect(tokenParameters(peft)).toEqual([]);
    }
    expect(peft.activeAdapters).toEqual(["second"]);
    expect(tokenParameters(peft)).toHaveLength(1);
  });

  test.each([tokens([1, 4]), new LoraConfig({ r: 2, init_lora_weights: false, trainable_token_indices: [1, 4] })])(
    "without safeMerge a merge is complete when the call returns",
    async (config) => {
      const base = makeBase("llama");
      const peft = getPeftModel(base, config, listener());
      setRows(peft, "default");
      const before = valuesOf(base);
      const done = peft.mergeAdapter();
      expect(peft.mergedAdapters).toEqual(["default"]);
      const after = valuesOf(base);
      expect(after).not.toEqual(before);
      await done;
      expect(valuesOf(base)).toEqual(after);
    },
  );

  test("adapters that mergeAndUnload leaves out never conflict, active or not", async () => {
    const peft = adapted("llama tied");
    peft.addAdapter("rival", tokens([4, 9]));
    setRows(peft, "rival", (slot, column) => slot - column / 5);
    peft.setAdapter("rival");
    const alone = logitsOf(peft);
    peft.setAdapter("default");
    const merged = await peft.mergeAndUnload({ adapterNames: ["rival"] });
    expect(logitsOf(merged)).toEqual(alone);
  });

  test("the line of trainable parameters is PEFT's", () => {
    expect(adapted("llama").trainableLine()).toMatch(
      /^trainable params: 12 \|\| all params: (\d,)?\d{3} \|\| trainable%: \d\.\d{4}$/,
    );
  });

  test("autoPeftModel asks for the base by its name and revision", async () => {
    const peft = getPeftModel(makeBase("llama"), tokens([1], { base_model_name_or_path: "org/base", revision: "v2" }));
    setRows(peft, "default");
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    const asked: unknown[] = [];
    const resolveBase = (...names: unknown[]) => {
      asked.push(names);
      return Promise.resolve(makeBase("llama"));
    };
    expect(logitsOf(await autoPeftModel(files, { resolveBase }))).toEqual(logitsOf(peft));
    expect(asked).toEqual([["org/base", "v2"]]);
  });
});

describe("3", () => {
  test("keys of trainable_token_indices are checked one by one, also where a load is lenient", async () => {
    const named = (indices: Record<string, number[]>) =>
      new LoraConfig({ r: 2, target_modules: ["q_proj"], trainable_token_indices: indices });
    const peft = getPeftModel(makeBase("llama"), named({ embed_tokens: [1] }));
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    const config = named({ embed_tokens: [1], embed_token: [2] });
    for (const strict of [true, false]) {
      const base = makeBase("llama");
      const error = await caught(() => PeftModel.fromPretrained(base, files, { config, strict, ...listener() }));
      expect(error).toMatchObject({
        name: "TargetError",
        code: "NOT_FOUND",
        fields: { target_modules: ["embed_token"] },
      });
      expect(valuesOf(base)).toEqual(valuesOf(makeBase("llama")));
    }
  });

  test("beside LoRA, what a wrapped embedding is asked for is the embedding's", () => {
    const config = new LoraConfig({ r: 2, trainable_token_indices: [1, 4] });
    const peft = getPeftModel(makeBase("llama"), config, listener());
    setRows(peft, "default");
    const wrapped = peft.getBaseModel().moduleAt("model.embed_tokens") as Embedding;
    expect([wrapped.num_embeddings, wrapped.embedding_dim, wrapped.padding_idx]).toEqual([11, 6, null]);
    const table = [...wrapped.weight.dataSync()];
    expect(table.slice(24, 30)).toEqual([...tokenParameters(peft)[0]!.dataSync()].slice(6));
    expect(table.slice(0, 6)).toEqual(
      [...(makeBase("llama").moduleAt("model.embed_tokens") as Embedding).weight.dataSync()].slice(0, 6),
    );
  });
});

describe("7", () => {
  test("7.5: a file without metadata loads", async () => {
    const peft = adapted("llama");
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    const stored = await openSafetensors(await (await openFolder(files)).open("adapter_model.safetensors"));
    const tensors = new Map<string, StoredTensor>();
    for (const key of stored.tensors.keys()) tensors.set(key, await stored.read(key));
    const bare = writeSafetensors(tensors, new Map());
    expect(new TextDecoder("latin1").decode(bare)).not.toContain("__metadata__");
    const again = await PeftModel.fromPretrained(makeBase("llama"), files.set("adapter_model.safetensors", bare), {
      onWarning: ({ message }) => expect.fail(message),
    });
    expect(logitsOf(again)).toEqual(logitsOf(peft));
  });

  test("7.6: whole tables that are saved for added rows are warned of, with the number of rows", async () => {
    const base = makeBase("llama");
    base.resizeTokenEmbeddings(15);
    const messages: string[] = [];
    const onWarning = ({ code, message }: { code: string; message: string }) => messages.push(`${code} ${message}`);
    await saved(getPeftModel(base, tokens([11, 3]), { onWarning }));
    expect(messages).toEqual([
      "EMBEDDINGS_SAVED savePretrained: 3 rows that resizing added are not in default; the whole tables are saved with it",
    ]);
  });

  test("7.1: the card has PEFT's front matter", async () => {
    const options = { base_model_name_or_path: "org/base", task_type: "CAUSAL_LM" } as const;
    const front = (card: string): string[] => card.split("---\n")[1]!.trimEnd().split("\n");
    const rows = await saved(getPeftModel(makeBase("llama"), tokens([1, 4], options)));
    const common = ["base_model: org/base", "library_name: peft", "pipeline_tag: text-generation", "tags:"];
    expect(front(rows.get("README.md")!)).toEqual([...common, "- base_model:adapter:org/base", "- transformers"]);
    const lora = await saved(getPeftModel(makeBase("llama"), new LoraConfig({ r: 2, ...options })));
    const tags = ["- base_model:adapter:org/base", "- lora", "- transformers"];
    expect(front(lora.get("README.md")!)).toEqual([...common, ...tags]);
    const plain = await saved(getPeftModel(makeBase("llama"), tokens([1, 4])));
    expect(front(plain.get("README.md")!)).toEqual(["library_name: peft", "tags:", "- transformers"]);
  });

  test("7.1, 7.2: the config file, to the character", async () => {
    const peft = getPeftModel(makeBase("llama"), tokens([5, 1], { task_type: "CAUSAL_LM" }));
    expect((await saved(peft)).get("adapter_config.json")).toBe(
      [
        "{",
        '  "auto_mapping": null,',
        '  "base_model_name_or_path": null,',
        '  "inference_mode": true,',
        '  "init_weights": true,',
        '  "peft_type": "TRAINABLE_TOKENS",',
        '  "peft_version": "0.21.0",',
        '  "revision": null,',
        '  "target_modules": "model.embed_tokens",',
        '  "task_type": "CAUSAL_LM",',
        '  "token_indices": [',
        "    5,",
        "    1",
        "  ]",
        "}",
      ].join("\n"),
    );
  });

  test("2.1: without a task the file says which class of transformers the base is", async () => {
    const file = (await saved(getPeftModel(makeBase("gpt2"), tokens([5])))).get("adapter_config.json")!;
    expect(JSON.parse(file)).toMatchObject({
      task_type: null,
      target_modules: "transformer.wte",
      auto_mapping: { base_model_class: "GPT2LMHeadModel", parent_library: "transformers.models.gpt2.modeling_gpt2" },
    });
  });
});

test("9.9: rows that a load adds and its adapter does not train are the mean of the others", async () => {
  for (const name of ["llama", "llama tied"]) {
    const large = makeBase(name);
    large.resizeTokenEmbeddings(14);
    const peft = getPeftModel(large, tokens([13]), listener());
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files, { saveEmbeddingLayers: false });
    const base = makeBase(name);
    const before = valuesOf(base);
    await PeftModel.fromPretrained(base, files, { ...listener(), resize: true });
    for (const path of [base.embeddingPath, ...(name === "llama" ? [base.headPath] : [])]) {
      const table = Array.from(before.get(`${path}.weight`)!);
      const key = [...valuesOf(base).keys()].find((k) => k.startsWith(path) && k.endsWith("weight"))!;
      const grown = Array.from(valuesOf(base).get(key)!);
      expect(grown.slice(0, table.length)).toEqual(table);
      for (let i = table.length; i < 14 * 6; i++) {
        const column = table.filter((_, at) => at % 6 === i % 6);
        expect(grown[i]).toBeCloseTo(column.reduce((a, b) => a + b) / column.length, 5);
      }
    }
  }
});
