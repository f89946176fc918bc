import type { TrainableTokensConfig } from "./config.ts";

/** The README.md of an adapter folder, with the front matter that PEFT writes. */
export function readmeCard({ base_model_name_or_path, task_type, token_indices }: TrainableTokensConfig): string {
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
    `A Trainable Tokens adapter: ${token_indices.length} rows of the token embedding${base === null ? "" : ` of ${base}`}, trained by Neolog.`,
    "Load it with `PeftModel.from_pretrained` in Python or TypeScript.",
    "",
  ];
  return lines.join("\n");
}
