import { type PeftConfig, tokensOf } from "./registry.ts";

/** The README.md of an adapter folder, with the front matter that PEFT writes. `isOneSided`: rows hold on one side of a tie. */
export function readmeCard(config: PeftConfig, isOneSided = false): string {
  const { base_model_name_or_path, task_type } = config;
  const base = base_model_name_or_path;
  const rows = tokensOf(config).length;
  const what =
    config.peft_type === "LORA"
      ? `A LoRA adapter${rows > 0 ? ` and ${rows} rows of the token embedding` : ""}`
      : `A Trainable Tokens adapter: ${rows} rows of the token embedding`;
  const lines = [
    "---",
    ...(base === null ? [] : [`base_model: ${base}`]),
    "library_name: peft",
    ...(task_type === "CAUSAL_LM" ? ["pipeline_tag: text-generation"] : []),
    "tags:",
    ...(base === null ? [] : [`- base_model:adapter:${base}`]),
    ...(config.peft_type === "LORA" ? ["- lora"] : []),
    "- transformers",
    "---",
    "",
    `${what}${base === null ? "" : ` of ${base}`}, trained by Neolog.`,
    ...(isOneSided
      ? [
          "The rows hold on one side of a tied embedding: PEFT must not merge them, since it would change the other side too.",
        ]
      : []),
    "Load it with `PeftModel.from_pretrained` in Python or TypeScript.",
    "",
  ];
  return lines.join("\n");
}
