import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ARCHITECTURES } from "@neolog/models";

const root = fileURLToPath(new URL("..", import.meta.url));
const models = `${root}../shared/golden/models`;

/** True where the whole of the reference data lies beside the checkout: the table is made from it. */
export const isComplete = existsSync(models);

/** What the reference data holds for one model. */
interface Golden {
  readonly cases: readonly string[];
  readonly kind: "causal" | "masked" | "seq2seq";
  readonly tied: boolean;
  readonly greedy: number;
  readonly gradients: number;
  readonly cached: number;
  readonly stored: readonly string[];
  readonly plans: number;
  readonly adapters: readonly string[];
}

const json = (path: string) => JSON.parse(readFileSync(path, "utf8"));

/** Names of a safetensors file's tensors. */
function tensorsOf(path: string): string[] {
  const bytes = readFileSync(path);
  const header = bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString();
  return Object.keys(JSON.parse(header)).filter((name) => name !== "__metadata__");
}

function goldenOf(name: string): Golden {
  const folder = `${models}/${name}`;
  const { kind, tied_head, generate } = json(`${folder}/expected.json`);
  const { tt } = json(`${folder}/peft.json`);
  return {
    cases: Object.keys(json(`${folder}/inputs.json`).cases),
    kind,
    tied: tied_head,
    greedy: generate.length,
    gradients: tensorsOf(`${folder}/grads.safetensors`).length,
    cached: tensorsOf(`${folder}/expected.safetensors`).filter((key) => key.startsWith("prefill_row0/cache.key"))
      .length,
    stored: ["bf16", "f16"].filter((dtype) => existsSync(`${folder}/base_${dtype}/expected.safetensors`)),
    plans: Object.keys(tt).filter((key) => key.startsWith("train_")).length,
    adapters: readdirSync(`${folder}/adapters`).toSorted(),
  };
}

/** The reference models of an architecture. */
const goldenModels = (type: string): Golden[] =>
  readdirSync(models)
    .filter((name) => json(`${models}/${name}/base/config.json`).model_type === type)
    .toSorted()
    .map(goldenOf);

const sum = (found: readonly Golden[], count: (golden: Golden) => number): number =>
  found.reduce((total, golden) => total + count(golden), 0);

/** What a cell says was compared, from the reference data of the architecture; "" where nothing was. */
const CELLS: { readonly [column: string]: (found: readonly Golden[]) => string } = {
  logits: (found) => `${sum(found, ({ cases }) => cases.length)} batches`,
  gradients: (found) => `${sum(found, ({ gradients }) => gradients)} tensors`,
  cache: (found) => {
    if (found.every(({ kind }) => kind === "masked")) return "has none";
    const layers = sum(found, ({ cached }) => cached);
    const greedy = `${sum(found, ({ greedy }) => greedy)} greedy runs`;
    return layers > 0 ? `${layers} layers, ${greedy}` : greedy;
  },
  tied: (found) => [...new Set(found.map(({ tied }) => (tied ? "tied" : "untied")))].toSorted().join(", "),
  padded: (found) =>
    ["left", "right"].filter((side) => found.some(({ cases }) => cases.includes(`${side}_pad`))).join(", "),
  dtypes: (found) => ["f32", ...new Set(found.flatMap(({ stored }) => stored))].join(", "),
  "trainable tokens": (found) => {
    const [plans, adapters] = [
      sum(found, ({ plans }) => plans),
      sum(found, ({ adapters }) => adapters.filter((name) => !name.startsWith("lora")).length),
    ];
    return plans === 0 ? "" : `${plans} runs, ${adapters} folders`;
  },
  LoRA: (found) => {
    const folders = sum(found, ({ adapters }) => adapters.filter((name) => name.startsWith("lora")).length);
    return folders === 0 ? "" : `${folders} ${folders === 1 ? "folder" : "folders"}`;
  },
};

/** The tests that a column stands on. */
export const SOURCES: { readonly [column: string]: readonly [file: string, what: string] } = {
  logits: [
    "packages/models/src/golden.test.ts",
    "batches whose logits, hidden states and losses are those of transformers (1e-4 + 1e-5 of the value; losses 1e-5)",
  ],
  gradients: [
    "packages/models/src/golden.test.ts",
    "parameters whose gradient is torch's in float64 (2e-5 of the largest + 1e-6)",
  ],
  cache: [
    "packages/models/src/golden.test.ts",
    "layers whose keys and values are those of transformers, decoding in pieces bit for bit as in one pass, and greedy ids of transformers",
  ],
  tied: [
    "packages/models/src/golden.test.ts",
    "how the head of the reference models stands to the embedding; the other way is tested on models of random weights",
  ],
  padded: ["packages/models/src/golden.test.ts", "sides on which batches of transformers are padded"],
  dtypes: [
    "packages/models/src/storedDtypes.test.ts",
    "stored weights whose logits are recorded from torch; bf16 and f16 of all others compute what the same values do in f32, gradients too",
  ],
  "trainable tokens": [
    "packages/peft-tokens/src/golden.test.ts",
    "recorded training runs of PEFT (losses, gradients, rows), and folders that PEFT wrote, with their logits",
  ],
  LoRA: [
    "packages/peft-tokens/src/lora/golden.test.ts",
    "folders of LoRA with token rows that PEFT wrote: training, logits, merged weights",
  ],
};

const columns = Object.keys(CELLS);

/** FEATURES.md as the registry and the reference data have it. */
export function features(): string {
  const rows = Object.entries(ARCHITECTURES).map(([type, { transformers }]) => {
    const found = goldenModels(type);
    const cells = columns.map((column) => (found.length === 0 ? "" : CELLS[column]!(found)) || "not compared");
    return [`\`${type}\``, transformers.base_model_class, ...cells];
  });
  const sources = columns.map((column) => {
    const [file, what] = SOURCES[column]!;
    return [column, what, `[${file.split("/").slice(-1)[0]}](${file})`];
  });
  return `# What works, and what it was compared with

Made by \`npm run features\` from the registry of architectures and from the reference data of real torch, transformers and PEFT beside
the checkout; a test fails where a row is missing or this page is stale. Numbers count what the named tests compare on every backend.

${table([["model_type", "class in transformers", ...columns], ...rows])}
${table([["column", "what was compared", "test"], ...sources])}`;
}

/** A Markdown table as the formatter writes it. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(3, ...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]): string => `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |\n`;
  return line(rows[0]!) + line(widths.map((width) => "-".repeat(width))) + rows.slice(1).map(line).join("");
}
