import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AdamW } from "@neolog/autograd";
import { fromTensor, writeSafetensors } from "@neolog/checkpoint";
import { AutoModelWithLMHead, type ModelOutput, type PreTrainedModel } from "@neolog/models";
import { LoraConfig, type LoraOptions, type PeftModel, getPeftModel } from "@neolog/peft-tokens";
import { Scope } from "@neolog/tensor";
import { afterAll, describe, expect, test } from "vitest";

/** LoRA adapters, written with this library and read by real PEFT: `npm run interop`. */
const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
const python = process.env["NEOLOG_PYTHON"] ?? "python3";
const models = ["../shared/golden/models", "fixtures/models"].map((path) => join(root, path)).find(existsSync)!;
const NAMES = ["gpt2", "llama", "llama_tied_rope3", "qwen2_tied", "opt", "gpt_neox", "t5", "bert"].filter((name) =>
  existsSync(`${models}/${name}/base`),
);
/** Largest difference of logits, which reach 14 here: what float32 leaves between two engines, ten times over. */
const TOLERANCE = 1e-4;
/** What PEFT says of such adapters, its own included: cases, and a part of the warning. */
const EXPECTED_WARNINGS: readonly (readonly [cases: RegExp, text: string])[] = [
  [/on the embedding/, "tie_word_embeddings"],
  [/equal lists/, "ensure_weight_tying"],
];

type AnyModel = PreTrainedModel<object, ModelOutput>;
interface Subject {
  readonly name: string;
  readonly kind: "causal" | "masked" | "seq2seq";
  /** Folder of the checkpoint. */
  readonly base: string;
  readonly inputs: { readonly input_ids: number[][] };
  readonly ids: readonly number[];
}
/** What to compare: an adapter, or a merged folder, and the model that wrote it. */
interface Written {
  readonly name: string;
  readonly base: string;
  readonly merged?: string;
  readonly adapters?: readonly (readonly [name: string, folder: string])[];
  readonly active?: readonly string[];
  readonly inputs: object;
}
interface Result {
  readonly name: string;
  readonly complaints: readonly string[];
  readonly warnings: readonly string[];
  readonly saved_differently: readonly string[];
  readonly max_abs_diff: number;
  readonly max_abs_logit: number;
}

const out = mkdtempSync(join(tmpdir(), "neolog-interop-"));
afterAll(() => rmSync(out, { recursive: true }));
const cases: (Written & { readonly logits: string })[] = [];
const silent = { onWarning: (): void => {} };
const load = ({ base }: Subject): Promise<AnyModel> =>
  AutoModelWithLMHead.fromPretrained(base) as unknown as Promise<AnyModel>;

async function record(model: AnyModel | PeftModel<AnyModel>, written: Written): Promise<void> {
  using _scope = new Scope();
  const logits = join(out, `${cases.length}.safetensors`);
  const output = (model.forward as AnyModel["forward"]).call(model as AnyModel, written.inputs);
  writeFileSync(logits, writeSafetensors(new Map([["logits", await fromTensor(output.logits)]])));
  cases.push({ ...written, logits });
}

function train(peft: PeftModel<AnyModel>, inputs: Subject["inputs"], steps = 3): void {
  const optimizer = new AdamW(
    peft.parameters().filter((t) => t.requiresGrad),
    { lr: 0.02 },
  );
  for (let step = 0; step < steps; step++) {
    using _step = new Scope();
    peft.backward(peft.forward({ labels: inputs.input_ids, ...inputs }).loss!);
    optimizer.step();
  }
}

/** Every kind of LoRA adapter over one base. */
async function write(subject: Subject): Promise<void> {
  const { name, kind, base, inputs, ids } = subject;
  const model = await load(subject);
  const embedding = model.embeddingPath;
  const head = model.headPath!;
  const others = [...Array(40).keys()].filter((id) => !ids.includes(id)).slice(0, 3);
  const norm = [...model.namedModules()]
    .map(([path]) => path)
    .filter((path) => /norm|ln_f|LayerNorm/.test(path))
    .at(-1)!;
  const tied = model.tiedPaths.includes(head);
  const common: LoraOptions = {
    r: 2,
    lora_alpha: 3,
    fan_in_fan_out: name.startsWith("gpt2"),
    // PEFT 0.21 cannot run SEQ_2_SEQ_LM under transformers 5
    task_type: kind === "causal" ? "CAUSAL_LM" : null,
  };
  const last = lastName(model);
  const kinds: readonly (readonly [what: string, options: LoraOptions])[] = [
    ["LoRA", {}],
    ["LoRA and a list", { trainable_token_indices: ids }],
    ["LoRA and a record", { trainable_token_indices: { [embedding.split(".").at(-1)!]: ids }, use_rslora: true }],
    ["LoRA and equal lists", { trainable_token_indices: { [embedding]: ids, [head]: ids }, ensure_weight_tying: tied }],
    ["LoRA and different lists", { trainable_token_indices: { [embedding]: ids, [head]: others } }],
    [
      "LoRA everywhere",
      { target_modules: "all-linear", rank_pattern: { [`.*${last}`]: 3 }, alpha_pattern: { [last]: 5 } },
    ],
    ["LoRA and all biases", { bias: "all", init_lora_weights: false }],
    ["LoRA, its biases and a norm", { bias: "lora_only", modules_to_save: [norm] }],
    ["LoRA on the embedding", { target_modules: [embedding], init_lora_weights: false, fan_in_fan_out: false }],
  ];
  for (const [what, options] of kinds) {
    const peft = getPeftModel(await load(subject), new LoraConfig({ ...common, ...options }), silent);
    train(peft, inputs);
    const folder = join(out, `${name}-${what}`);
    await peft.savePretrained(folder);
    // PEFT wraps T5's table where T5 itself looks nothing up
    const differs = kind === "seq2seq" && /different|on the embedding/.test(what);
    if (!differs)
      await record(peft, {
        name: `${name}: ${what}`,
        base,
        adapters: [["default", folder]],
        active: ["default"],
        inputs,
      });
    const untie = what.includes("different") || what.includes("on the embedding");
    const merged = await peft.mergeAndUnload({ untie });
    await merged.savePretrained(`${folder} merged`);
    await record(merged, { name: `${name}: ${what}, merged`, base, merged: `${folder} merged`, inputs });
  }
  if (kind === "causal") await writeTwo(subject, common, others);
}

/** The name of the last linear layer below the head. */
const lastName = (model: AnyModel): string =>
  [...model.namedModules()]
    .filter(([path, module]) => "weight" in module && /proj|fc|dense|wo$|o$/.test(path))
    .at(-1)![0]
    .split(".")
    .at(-1)!;

async function writeTwo(subject: Subject, common: LoraOptions, others: readonly number[]): Promise<void> {
  const { name, base, inputs, ids } = subject;
  const peft = getPeftModel(await load(subject), new LoraConfig({ ...common, trainable_token_indices: ids }), silent);
  peft.addAdapter("second", new LoraConfig({ ...common, r: 1, trainable_token_indices: others }));
  for (const adapter of ["second", "default"]) {
    peft.setAdapter(adapter);
    train(peft, inputs);
  }
  const folder = join(out, `${name}-two LoRA`);
  await peft.savePretrained(folder);
  const adapters = [
    ["default", folder],
    ["second", join(folder, "second")],
  ] as const;
  for (const active of ["default", "second"]) {
    peft.setAdapter(active);
    await record(peft, { name: `${name}: ${active} of two LoRA`, base, adapters, active: [active], inputs });
  }
}

describe("real PEFT reads what this library writes", () => {
  test("A-80: LoRA, with token rows and modules in full beside it", { timeout: 900_000 }, async () => {
    for (const name of NAMES) {
      const read = (file: string) => JSON.parse(readFileSync(`${models}/${name}/${file}`, "utf8"));
      const { kind } = read("expected.json");
      const { right_pad: inputs } = read("inputs.json").cases;
      await write({ name, kind, base: `${models}/${name}/base`, inputs, ids: read("peft.json").tt.token_indices });
    }
    const manifest = join(out, "manifest.json");
    writeFileSync(manifest, JSON.stringify(cases));
    const answer = execFileSync(python, [join(here, "check.py"), manifest], { encoding: "utf8", maxBuffer: 1e8 });
    const { versions, cases: results } = JSON.parse(answer) as { versions: object; cases: Result[] };
    writeFileSync(join(here, "LORA.md"), report(versions, results));
    for (const { name, complaints, warnings, saved_differently, max_abs_diff } of results) {
      const unexpected = warnings.filter(
        (text) => !EXPECTED_WARNINGS.some(([which, what]) => which.test(name) && text.includes(what)),
      );
      expect({ name, complaints, saved_differently, unexpected }).toEqual({
        name,
        complaints: [],
        saved_differently: [],
        unexpected: [],
      });
      expect(max_abs_diff, name).toBeLessThanOrEqual(TOLERANCE);
    }
  });
});

function report(versions: object, results: readonly Result[]): string {
  const worst = Math.max(...results.map(({ max_abs_diff }) => max_abs_diff));
  const used = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    "# LoRA and Python PEFT",
    "",
    `Written by \`npm run interop\` on ${new Date().toISOString().slice(0, 10)}, node ${process.version}, ${used.join(", ")}.`,
    "",
    `${results.length} cases; the largest difference of logits is ${worst.toExponential(1)}, ${TOLERANCE} is allowed. Read, run and saved again as in REPORT.md.`,
    "Adapters of T5 that put LoRA or one list of two on `shared` are compared merged alone: PEFT adapts a module that T5 never calls.",
    "",
    "| case | largest difference | largest logit | complaints | warnings |",
    "|---|---|---|---|---|",
    ...results.map(
      ({ name, max_abs_diff, max_abs_logit, warnings, saved_differently, complaints }) =>
        `| ${name} | ${max_abs_diff.toExponential(1)} | ${max_abs_logit.toFixed(1)} | ${[...complaints, ...saved_differently].join("; ") || "none"} | ${warnings.length} |`,
    ),
    "",
    "PEFT warns of LoRA on an embedding that is tied, and of `ensure_weight_tying` where only token rows are tied.",
    "",
  ].join("\n");
}
