import { type PeftConfig, tokensOf } from "./registry.ts";

/** The README.md of an adapter folder, with the front matter that PEFT writes. */
export function readmeCard(config: PeftConfig): string {
  const { base_model_name_or_path, task_type } = config;
  const base = base_model_name_or_path;
  const lines = [
    "---",
    ...(base === null ? [] : [`base_model: ${base}`]),
    "library_name: peft",
    ...(task_type === "CAUSAL_LM" ? ["pipeline_tag: text-generation"] : []),
    "tags:",
    ...(base === null ? [] : [`- base_model:adapter:${base}`]),
    "- transformers",
    "---",
    "",
    `A Trainable Tokens adapter: ${tokensOf(config).length} rows of the token embedding${base === null ? "" : ` of ${base}`}, trained by Neolog.`,
    "Load it with `PeftModel.from_pretrained` in Python or TypeScript.",
    "",
  ];
  return lines.join("\n");
}
