import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AdamW } from "@neolog/autograd";
import { fromTensor, writeSafetensors } from "@neolog/checkpoint";
import { AutoModelForCausalLM, AutoModelWithLMHead, type LanguageModel, type ModelInputs } from "@neolog/models";
import {
  type PeftModel,
  TrainableTokensConfig,
  type TrainableTokensOptions,
  getPeftModel,
  tokenParameters,
} from "@neolog/peft-tokens";
import { stateDict } from "@neolog/nn";
import { Scope, type Tensor, assign, tensor } from "@neolog/tensor";
import { afterAll, describe, expect, test } from "vitest";

/** Writes adapters and merged models with this library and asks real PEFT and Transformers what they compute: `npm run interop`. */
const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
const python = process.env["NEOLOG_PYTHON"] ?? "python3";
const models = ["../shared/golden/models", "fixtures/models"].map((path) => join(root, path)).find(existsSync)!;
const BASES = readdirSync(models).filter((name) => {
  const expected = `${models}/${name}/expected.json`;
  return existsSync(expected) && JSON.parse(readFileSync(expected, "utf8")).kind === "causal";
});
/** Largest difference of logits, which reach 30 here: what float32 leaves between two engines, ten times over. */
const TOLERANCE = 1e-4;

interface Case {
  readonly name: string;
  readonly base: string;
  readonly merged?: string;
  readonly adapters?: readonly (readonly [name: string, folder: string])[];
  readonly active?: readonly string[];
  readonly resize?: number;
  /** A tensor of the base that PEFT leaves out of the logits (T-8). */
  readonly dropped?: string;
  readonly inputs: ModelInputs;
  readonly logits: string;
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
const cases: Case[] = [];
const silent = { onWarning: (): void => {} };

/** A model of any kind, adapted or not, over the inputs that it takes. */
const run = (model: object, inputs: object): { readonly logits: Tensor; readonly loss: Tensor | null } =>
  (model as { forward(inputs: object): { logits: Tensor; loss: Tensor | null } }).forward(inputs);

async function record(model: object, rest: Omit<Case, "logits">): Promise<void> {
  using _scope = new Scope();
  const logits = join(out, `${cases.length}.safetensors`);
  writeFileSync(logits, writeSafetensors(new Map([["logits", await fromTensor(run(model, rest.inputs).logits)]])));
  cases.push({ ...rest, logits });
}
function train(peft: PeftModel<LanguageModel>, inputs: ModelInputs, steps: number): void {
  const optimizer = new AdamW(tokenParameters(peft), { lr: 0.05 });
  for (let step = 0; step < steps; step++) {
    using _step = new Scope();
    peft.backward(run(peft, { labels: inputs.input_ids, ...inputs }).loss!);
    optimizer.step();
  }
}

/** Everything that is written over one base. */
async function write(name: string, base: string, inputs: ModelInputs, ids: readonly number[]): Promise<void> {
  const load = () => AutoModelForCausalLM.fromPretrained(base);
  const embedding = (await load()).embeddingPath.split(".").at(-1)!;
  const folder = (what: string): string => join(out, `${name}-${what}`);
  const single = async (what: string, options: Omit<TrainableTokensOptions, "token_indices">, steps: number) => {
    const config = new TrainableTokensConfig({ token_indices: ids, task_type: "CAUSAL_LM", ...options });
    const peft = getPeftModel(await load(), config, silent);
    if (steps > 0) train(peft, inputs, steps);
    await peft.savePretrained(folder(what));
    const adapters = [["default", folder(what)]] as const;
    await record(peft, { name: `${name}: ${what}`, base, adapters, active: ["default"], inputs });
    return peft;
  };
  await single("untrained", {}, 0);
  await single("random start", { init_weights: false, task_type: null }, 0);
  await single(
    "head and embedding",
    {
      target_modules: [embedding, "lm_head"],
    },
    3,
  );
  const headOnly = await single("head alone", { target_modules: "lm_head" }, 3);
  const trained = await single("trained", {}, 5);

  if (trained.getBaseModel().tiedPaths.length > 0) {
    for (const sides of ["input", "output"] as const) {
      const config = new TrainableTokensConfig({ token_indices: ids, task_type: "CAUSAL_LM" });
      const peft = getPeftModel(await load(), config, { ...silent, sides });
      train(peft, inputs, 5);
      await peft.savePretrained(folder(sides));
      const adapters = [["default", folder(sides)]] as const;
      await record(peft, { name: `${name}: ${sides} side of the tie`, base, adapters, active: ["default"], inputs });
    }
  }

  const others = [...Array(20).keys()].filter((id) => !ids.includes(id));
  trained.addAdapter("second", new TrainableTokensConfig({ token_indices: [ids[1]!, ...others.slice(0, 2)] }));
  trained.addAdapter("third", new TrainableTokensConfig({ token_indices: others.slice(2, 4).toReversed() }));
  for (const adapter of ["second", "third"]) {
    trained.setAdapter(adapter);
    train(trained, inputs, 4);
  }
  await trained.savePretrained(folder("several"));
  const folders = {
    default: folder("several"),
    second: join(folder("several"), "second"),
    third: join(folder("several"), "third"),
  };
  // PEFT 0.21 cannot run a model with a tied head and several such adapters, its own included: there each is loaded alone
  const together = trained.getBaseModel().tiedPaths.length === 0;
  for (const active of together
    ? [["default"], ["second"], ["default", "third"]]
    : [["default"], ["second"], ["third"]]) {
    trained.setAdapter(active);
    const alone = [["default", folders[active[0] as keyof typeof folders]]] as const;
    const adapters = together ? Object.entries(folders) : alone;
    await record(trained, {
      name: `${name}: ${active.join(" and ")} of three`,
      base,
      adapters,
      active: together ? active : ["default"],
      inputs,
    });
  }
  trained.setAdapter(["default", "third"]);

  const merged = await trained.mergeAndUnload({ safeMerge: true });
  await merged.savePretrained(folder("merged"));
  await record(merged, { name: `${name}: two merged`, base, merged: folder("merged"), inputs });
  const headMerged = await headOnly.mergeAndUnload({ untie: true });
  await headMerged.savePretrained(folder("head merged"));
  await record(headMerged, { name: `${name}: head alone, merged`, base, merged: folder("head merged"), inputs });

  const grown = await load();
  const rows = grown.config.vocab_size;
  grown.resizeTokenEmbeddings(rows + 2);
  const added = getPeftModel(grown, new TrainableTokensConfig({ token_indices: [rows + 1, rows] }), silent);
  const batch = { input_ids: [[rows, 3, rows + 1, 5, 2, rows]] };
  train(added, batch, 5);
  await added.savePretrained(folder("added"));
  const untied = grown.tiedPaths.length === 0;
  // an untied head's new rows are in no adapter: PEFT's own are other numbers, so those logits are compared after merging
  if (!untied)
    await record(added, {
      name: `${name}: added tokens`,
      base,
      adapters: [["default", folder("added")]],
      active: ["default"],
      resize: rows + 2,
      inputs: batch,
    });
  const final = await added.mergeAndUnload();
  await final.savePretrained(folder("added merged"));
  await record(final, { name: `${name}: added tokens, merged`, base, merged: folder("added merged"), inputs: batch });
}

const HEAD_BIAS = "cls.predictions.bias";

/** What is written over an encoder, whose decoder or head is tied to the embedding; `biased` gives it a bias that is not 0. */
async function writeEncoder(
  name: string,
  golden: string,
  inputs: ModelInputs,
  ids: readonly number[],
  biased: boolean,
) {
  const folder = (what: string): string => join(out, `${name}-${what}`);
  const base = biased ? folder("base") : golden;
  if (biased) {
    const model = await AutoModelWithLMHead.fromPretrained(golden);
    const bias = stateDict(model).get(HEAD_BIAS)!;
    assign(bias, tensor(Array.from({ length: bias.size }, (_, i) => Math.sin(i)), bias.shape)); // prettier-ignore
    await model.savePretrained(base);
  }
  const trained = async (what: string, target_modules: string | null): Promise<PeftModel<LanguageModel>> => {
    const config = new TrainableTokensConfig({ token_indices: ids, target_modules });
    const peft = getPeftModel(await AutoModelWithLMHead.fromPretrained(base), config, silent);
    train(peft, inputs, 5);
    await peft.savePretrained(folder(what));
    const adapters = [["default", folder(what)]] as const;
    const dropped = biased ? { dropped: HEAD_BIAS } : {};
    await record(peft, { name: `${name}: ${what}`, base, adapters, active: ["default"], ...dropped, inputs });
    return peft;
  };
  const merged = await (await trained("trained", null)).mergeAndUnload({ safeMerge: true });
  await merged.savePretrained(folder("merged"));
  await record(merged, { name: `${name}: merged`, base, merged: folder("merged"), inputs });
  const head = await (await trained("head alone", merged.headPath)).mergeAndUnload({ untie: true });
  await head.savePretrained(folder("head merged"));
  await record(head, { name: `${name}: head alone, merged`, base, merged: folder("head merged"), inputs });
}

describe("real PEFT reads what this library writes", () => {
  test("A-80: adapters and merged models", { timeout: 600_000 }, async () => {
    for (const name of BASES) {
      const { right_pad } = JSON.parse(readFileSync(`${models}/${name}/inputs.json`, "utf8")).cases;
      const { token_indices } = JSON.parse(readFileSync(`${models}/${name}/peft.json`, "utf8")).tt;
      await write(name, `${models}/${name}/base`, right_pad, token_indices);
    }
    for (const name of ["bert", "t5"].filter((known) => existsSync(`${models}/${known}/base`))) {
      const { right_pad } = JSON.parse(readFileSync(`${models}/${name}/inputs.json`, "utf8")).cases;
      const { token_indices } = JSON.parse(readFileSync(`${models}/${name}/peft.json`, "utf8")).tt;
      await writeEncoder(name, `${models}/${name}/base`, right_pad, token_indices, name === "bert");
    }
    await write(
      "meadow",
      join(root, "packages/models/pretrained/meadow"),
      { input_ids: [[0, 300, 420, 317, 348, 257]] },
      [420, 348],
    );
    writeFileSync(join(out, "manifest.json"), JSON.stringify(cases));
    const output = execFileSync(python, [join(here, "check.py"), join(out, "manifest.json")], {
      encoding: "utf8",
      maxBuffer: 1e8,
    });
    const { versions, cases: results } = JSON.parse(output) as { versions: Record<string, string>; cases: Result[] };
    writeFileSync(join(here, "REPORT.md"), report(versions, results));
    for (const { name, complaints, warnings, saved_differently, max_abs_diff } of results) {
      expect(max_abs_diff, name).toBeLessThanOrEqual(TOLERANCE);
      expect(complaints, name).toEqual([]);
      expect(saved_differently, name).toEqual([]);
      // PEFT warns wherever a tied head is named, also for adapters of its own
      expect(
        warnings.filter((text) => !/head/.test(name) || !text.includes("tie_word_embeddings")),
        name,
      ).toEqual([]);
    }
  });
});

function report(versions: Readonly<Record<string, string>>, results: readonly Result[]): string {
  const rows = results.map(
    ({ name, max_abs_diff, max_abs_logit, warnings, saved_differently, complaints }) =>
      `| ${name} | ${max_abs_diff.toExponential(1)} | ${max_abs_logit.toFixed(1)} | ${[...complaints, ...saved_differently].join("; ") || "none"} | ${warnings.length} |`,
  );
  const worst = Math.max(...results.map(({ max_abs_diff }) => max_abs_diff));
  return [
    "# Interop with Python PEFT",
    "",
    `Written by \`npm run interop\` on ${new Date().toISOString().slice(0, 10)}, node ${process.version}, ${Object.entries(
      versions,
    )
      .map(([name, v]) => `${name} ${v}`)
      .join(", ")}.`,
    "",
    `${results.length} cases; the largest difference of logits is ${worst.toExponential(1)}, ${TOLERANCE} is allowed. Each adapter is loaded by`,
    "`PeftModel.from_pretrained`, run, and saved again by PEFT, whose files must be equal to ours: tensors byte for byte, JSON by value.",
    "Each merged model is loaded by Transformers, which must miss nothing and find nothing unexpected.",
    "PEFT drops the bias of a head with rows, which BERT's is: it is added to PEFT's logits before they are compared.",
    "",
    "| case | largest difference | largest logit | complaints | warnings |",
    "|---|---|---|---|---|",
    ...rows,
    "",
    "PEFT warns of any adapter that names a tied head, its own included. It would merge those into the table that the embedding shares;\nhere merging them takes `untie: true`.",
    "",
  ].join("\n");
}
