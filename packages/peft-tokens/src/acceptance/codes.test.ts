import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type StoredTensor, writeSafetensors } from "@neolog/checkpoint";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  LoraConfig,
  type LoraOptions,
  PeftModel,
  TrainableTokensConfig,
  type TrainableTokensOptions,
  getPeftModel,
} from "../index.ts";
import { caught, listener, logitsOf, makeBase, setRows, valuesOf } from "../testing.ts";

const EMBEDDING = "model.embed_tokens";
const KEY = `base_model.model.${EMBEDDING}.trainable_tokens_delta`;
const HEAD_KEY = "base_model.model.lm_head.trainable_tokens_delta";

const tokens = (options: object = {}) =>
  new TrainableTokensConfig({ token_indices: [1, 4], ...options } as TrainableTokensOptions);
const lora = (options: object = {}) => new LoraConfig({ r: 2, target_modules: ["q_proj"], ...options } as LoraOptions);

const f32 = (values: number[], shape = [2, 6]): StoredTensor => ({
  dtype: "F32",
  shape,
  bytes: new Uint8Array(Float32Array.from(values).buffer),
});
const ROWS = f32(Array.from({ length: 12 }, (_, i) => i / 8));
/** An adapter folder of two rows, with what is given in the place of its parts. */
function folder(tensors: Record<string, StoredTensor> = { [KEY]: ROWS }, json: object = {}): Map<string, Uint8Array> {
  const config = { peft_type: "TRAINABLE_TOKENS", token_indices: [1, 4], ...json };
  return new Map([
    ["adapter_config.json", new TextEncoder().encode(JSON.stringify(config))],
    ["adapter_model.safetensors", writeSafetensors(new Map(Object.entries(tensors)))],
  ]);
}
const without = (file: string, more: Record<string, Uint8Array> = {}): Map<string, Uint8Array> =>
  new Map([...[...folder()].filter(([name]) => name !== file), ...Object.entries(more)]);

interface Case {
  readonly code: string;
  readonly when: string;
  /** What fails, on a tied model whose adapter "default" trains the tokens 1 and 4. */
  readonly run: (peft: PeftModel) => unknown;
  readonly fields: object;
  /** What must hold, and what was given. */
  readonly says: RegExp;
}
const add = (config: () => TrainableTokensConfig | LoraConfig) => (peft: PeftModel) => peft.addAdapter("new", config());
const load = (files: Map<string, Uint8Array>) => (peft: PeftModel) => peft.loadAdapter(files, "new");
/** The same beside LoRA, on a model of its own. */
const alone = (config: () => LoraConfig) => () => getPeftModel(makeBase("llama tied"), config(), listener());

let file: string;
const CASES: Readonly<Record<string, readonly Case[]>> = {
  ConfigError: [
    {
      code: "TASK_TYPE",
      when: "a task is unknown",
      run: add(() => tokens({ task_type: "CHAT" })),
      fields: { task_type: "CHAT" },
      says: /task_type: |task_type must be null or one of SEQ_CLS.*got "CHAT"/,
    },
    {
      code: "UNKNOWN_KEY",
      when: "a key is unknown",
      run: add(() => tokens({ target_module: "x" })),
      fields: { key: "target_module" },
      says: /keys must be .*got "target_module"; did you mean "target_modules"\?/,
    },
    {
      code: "UNSUPPORTED",
      when: "a feature is not there",
      run: add(() => lora({ use_dora: true })),
      fields: {},
      says: /use_dora.*got true/,
    },
    {
      code: "ARGUMENT",
      when: "names are text",
      run: (peft) => peft.mergeAdapter({ adapterNames: "default" as never }),
      fields: { adapterNames: "default" },
      says: /must be a list of names, got "default"/,
    },
    {
      code: "INDICES_EMPTY",
      when: "no id is given",
      run: add(() => tokens({ token_indices: [] })),
      fields: {},
      says: /must name at least one token id, got none/,
    },
    {
      code: "INDEX_TYPE",
      when: "an id is no integer",
      run: add(() => tokens({ token_indices: [1, 2.5] })),
      fields: { values: [{ position: 1, id: 2.5 }] },
      says: /must be integers, got 2.5 at position 1/,
    },
    {
      code: "INDEX_DUPLICATE",
      when: "an id is repeated",
      run: add(() => tokens({ token_indices: [3, 3] })),
      fields: { values: [{ position: 1, id: 3 }] },
      says: /must be unique, got 3 at position 1 again/,
    },
    {
      code: "INDEX_RANGE",
      when: "an id has no row",
      run: add(() => tokens({ token_indices: [2, 11] })),
      fields: { rows: 11, module: EMBEDDING },
      says: /below the 11 rows of model.embed_tokens, got 11 at position 1; resize the embedding first/,
    },
    { code: "RANK", when: "a rank is no rank", run: add(() => lora({ r: 0 })), fields: {}, says: /must be .*1.*got 0/ },
    {
      code: "REGEX",
      when: "a pattern is none",
      run: add(() => tokens({ target_modules: "a(b" })),
      fields: { pattern: "a(b" },
      says: /must be a regular expression .*got a\(b, which fails at position 1/,
    },
    {
      code: "LAYER_FILTER",
      when: "layers are filtered by a pattern alone",
      run: add(() => lora({ layers_pattern: "layers" })),
      fields: {},
      says: /layers_to_transform/,
    },
    {
      code: "TOKENS_AND_FULL",
      when: "a module has rows and trains in full",
      run: alone(() => lora({ trainable_token_indices: [1], modules_to_save: ["embed_tokens"] })),
      fields: {},
      says: /embed_tokens/,
    },
    {
      code: "TOKENS_AND_LORA",
      when: "a module has rows and LoRA",
      run: alone(() => lora({ trainable_token_indices: [1], target_modules: ["embed_tokens"] })),
      fields: {},
      says: /embed_tokens/,
    },
    {
      code: "TIE_CONFLICT",
      when: "a tie is insisted on and lists differ",
      run: alone(() =>
        lora({ trainable_token_indices: { embed_tokens: [1], lm_head: [2] }, ensure_weight_tying: true }),
      ),
      fields: {},
      says: /embed_tokens.*1.*lm_head.*2/,
    },
  ],
  TargetError: [
    {
      code: "NOT_FOUND",
      when: "no module has the name",
      run: add(() => tokens({ target_modules: ["embed_token"] })),
      fields: { target_modules: ["embed_token"] },
      says: /must match \["embed_token"\], got none; did you mean "model.embed_tokens"\?/,
    },
    {
      code: "KIND",
      when: "the module is of another kind",
      run: add(() => tokens({ target_modules: ["norm"] })),
      fields: { name: "model.norm" },
      says: /model.norm must be an Embedding or a Linear, got RmsNorm/,
    },
  ],
  AdapterError: [
    {
      code: "NAME",
      when: "a name is a path",
      run: (peft) => peft.addAdapter("a/b", tokens()),
      fields: { name: "a/b" },
      says: /must not be empty .*got "a\/b"/,
    },
    {
      code: "EXISTS",
      when: "a name is taken",
      run: (peft) => peft.addAdapter("default", tokens()),
      fields: { name: "default" },
      says: /"default" must be new, got one that is there; delete it first/,
    },
    {
      code: "UNKNOWN",
      when: "a name is unknown",
      run: (peft) => peft.setAdapter("ghost"),
      fields: { name: "ghost", known: ["default", "rival", "head"] },
      says: /"ghost" must be one of default, rival, head/,
    },
    {
      code: "TYPE_MIX",
      when: "types are mixed",
      run: add(() => lora()),
      fields: { peft_type: "LORA" },
      says: /must be of one type, got LORA beside TRAINABLE_TOKENS/,
    },
    {
      code: "ALREADY_WRAPPED",
      when: "the model has adapters",
      run: (peft) => getPeftModel(peft.getBaseModel(), tokens()),
      fields: {},
      says: /must be a plain one, got one with adapters; use addAdapter, or unload\(\) first/,
    },
    {
      code: "OVERLAP",
      when: "two adapters share an id",
      run: (peft) => peft.setAdapter(["default", "rival"]),
      fields: { adapters: ["default", "rival"], ids: [4] },
      says: /must have different ids, got default and rival sharing 4 on model.embed_tokens/,
    },
    {
      code: "MERGED",
      when: "a merged one is deleted",
      run: async (peft) => {
        await peft.mergeAdapter();
        try {
          peft.deleteAdapter("default");
        } finally {
          peft.unmergeAdapter();
        }
      },
      fields: { name: "default" },
      says: /default must not be merged; unmerge it first/,
    },
    {
      code: "NON_FINITE",
      when: "a row is NaN",
      run: (peft) => peft.mergeAdapter({ adapterNames: ["broken"], safeMerge: true }),
      fields: { name: "broken", count: 1, row: 0, column: 2 },
      says: /must be finite, got 1 NaN or infinite values in broken on model.embed_tokens, the first at \[0, 2\]/,
    },
    {
      code: "SHARED_TABLE",
      when: "rows hold for one side of a tie",
      run: (peft) => peft.mergeAdapter({ adapterNames: ["head"] }),
      fields: { name: "head", module: "lm_head" },
      says: /lm_head alone, but its table is also model.embed_tokens's; untie: true gives lm_head its own/,
    },
    {
      code: "NOTHING_TO_TRAIN",
      when: "nothing trains",
      run: (peft) => {
        peft.setRequiresGrad("default", false);
        try {
          peft.backward(peft.forward({ input_ids: [[1]], labels: [[1]] }).loss!);
        } finally {
          peft.setRequiresGrad("default");
        }
      },
      fields: { enabled: true, trainable: [] },
      says: /trainable adapter must be enabled, active and unmerged, got trainable none.*unmerge first/,
    },
    {
      code: "BIAS_TWICE",
      when: "two adapters train biases",
      run: () => {
        const peft = getPeftModel(makeBase("llama with biases"), lora({ bias: "all" }), listener());
        peft.addAdapter("two", lora({ bias: "all" }));
      },
      fields: {},
      says: /bias/,
    },
  ],
  CheckpointError: [
    {
      code: "NOT_FOUND",
      when: "there is no config",
      run: load(without("adapter_config.json")),
      fields: {},
      says: /must hold adapter_config.json, found none/,
    },
    {
      code: "NOT_FOUND",
      when: "there are no tensors",
      run: load(without("adapter_model.safetensors")),
      fields: {},
      says: /must hold adapter_model.safetensors, found none/,
    },
    {
      code: "IS_FILE",
      when: "a file is in the way",
      run: (peft) => peft.savePretrained(file),
      fields: { path: "FILE" },
      says: /must be a folder to write to, found a file/,
    },
    {
      code: "PEFT_TYPE",
      when: "the type is another",
      run: load(folder(undefined, { peft_type: "IA3" })),
      fields: { peft_type: "IA3" },
      says: /"peft_type" must be one of .*TRAINABLE_TOKENS.*, found "IA3"/,
    },
    {
      code: "SHAPE",
      when: "rows are too many",
      run: load(folder({ [KEY]: f32(Array(18).fill(1), [3, 6]) })),
      fields: { expected: [2, 6], found: [3, 6], token_indices: [1, 4] },
      says: /must be \[2, 6\] \(ids × hidden\), found \[3, 6\]/,
    },
    {
      code: "DTYPE",
      when: "rows are integers",
      run: load(folder({ [KEY]: { ...ROWS, dtype: "I32" } })),
      fields: { dtype: "I32" },
      says: /must hold floats, found I32/,
    },
    {
      code: "MISSING",
      when: "the prefix is another",
      run: load(folder({ [`model.${KEY}`]: ROWS })),
      fields: { missing: [KEY], found: [`model.${KEY}`] },
      says: /must hold base_model.*, found model\.base_model.*map it with keyMapping/,
    },
    {
      code: "UNEXPECTED",
      when: "there is more",
      run: load(folder({ [KEY]: ROWS, stray: ROWS })),
      fields: { unexpected: ["stray"] },
      says: /holds stray, which this adapter has no place for/,
    },
    {
      code: "TIED_DISAGREE",
      when: "copies differ",
      run: load(folder({ [KEY]: ROWS, [HEAD_KEY]: f32(Array(12).fill(2)) })),
      fields: { row: 0 },
      says: /are tied and must be equal, found them different from row 0 on/,
    },
    {
      code: "CORRUPT",
      when: "a value is NaN",
      run: load(folder({ [KEY]: f32([NaN, ...Array(11).fill(0)]) })),
      fields: { at: 0 },
      says: /must be finite, found NaN or infinity at element 0/,
    },
    {
      code: "CORRUPT",
      when: "the header lies",
      run: load(without("adapter_model.safetensors", { "adapter_model.safetensors": new Uint8Array(40).fill(120) })),
      fields: {},
      says: /adapter_model.safetensors/,
    },
    {
      code: "CORRUPT",
      when: "JSON has a key twice",
      run: load(
        without("adapter_config.json", {
          "adapter_config.json": new TextEncoder().encode('{"peft_type": "LORA", "peft_type": "TRAINABLE_TOKENS"}'),
        }),
      ),
      fields: {},
      says: /adapter_config.json.*peft_type/,
    },
    {
      code: "PICKLE",
      when: "there is only a pickle",
      run: load(without("adapter_model.safetensors", { "adapter_model.bin": new Uint8Array(8) })),
      fields: {},
      says: /found adapter_model.bin; save it again as safetensors/,
    },
  ],
};

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "neolog-codes-"));
  file = join(root, "file");
  await writeFile(file, "");
});
afterAll(() => rm(root, { recursive: true }));

/** "default" (1, 4) is active; "rival" shares 4, "head" is the head's alone, "broken" holds a NaN where it is asked for. */
function model(broken: boolean): PeftModel {
  const peft = getPeftModel(makeBase("llama tied"), tokens(), listener());
  peft.addAdapter("rival", tokens({ token_indices: [4] }));
  peft.addAdapter("head", tokens({ token_indices: [8], target_modules: ["lm_head"] }));
  if (broken) peft.addAdapter("broken", tokens({ token_indices: [9] }));
  for (const name of Object.keys(peft.peftConfig)) setRows(peft, name, (slot, column) => slot + column / 4);
  if (broken) setRows(peft, "broken", (_, column) => (column === 2 ? NaN : 1));
  return peft;
}

describe.each(Object.entries(CASES))("A-82: %s", (name, cases) => {
  test.each(cases)("$code where $when", async ({ code, run, fields, says }) => {
    const peft = model(code === "NON_FINITE");
    const state = () => [
      peft.activeAdapters,
      peft.mergedAdapters,
      Object.keys(peft.peftConfig),
      peft.getLayerStatus(),
      valuesOf(peft.getBaseModel()),
      logitsOf(peft),
    ];
    const before = state();
    const error = await caught(() => run(peft));
    expect(error).toMatchObject({ name, code });
    const given = "path" in fields && fields.path === "FILE" ? { path: file } : fields;
    expect((error as unknown as { fields: object }).fields).toMatchObject(given);
    expect(error.message).toMatch(says);
    expect(state()).toEqual(before);
  });
});

test("A-82: every code has a case", () => {
  const source = (path: string): string => readFileSync(fileURLToPath(new URL(path, import.meta.url)), "utf8");
  const declared = ["../errors.ts", "../../../checkpoint/src/errors.ts"].flatMap((path) =>
    [...source(path).matchAll(/type (\w+)Code =([^;]*);/g)].flatMap(([, kind, union]) =>
      [...union!.matchAll(/"(\w+)"/g)].map(([, code]) => `${kind}Error ${code}`),
    ),
  );
  const tested = Object.entries(CASES).flatMap(([name, cases]) => cases.map(({ code }) => `${name} ${code}`));
  expect([...new Set(tested)].toSorted()).toEqual(declared.toSorted());
});
