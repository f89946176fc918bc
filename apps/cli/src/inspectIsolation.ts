import { type Folder, readJsonObject } from "@neolog/checkpoint";
import { checkIsolation } from "@neolog/peft-tokens";
import { CliError } from "./errors.ts";
import { loadModel } from "./load.ts";
import type { Output } from "./output.ts";
import { columns, indent } from "./text.ts";

/** What an adapter changes and what it leaves alone, shown by running its base with it and without. Throws CliError where a promise fails. */
export async function inspectIsolation(folder: Folder, model: string | undefined, output: Output): Promise<void> {
  const named = (await readJsonObject(folder, "adapter_config.json"))["base_model_name_or_path"];
  const base = model ?? named;
  if (typeof base !== "string")
    throw new CliError(`${folder.name}: names no base; --model must say which one to run for --isolation`);
  const { peft } = await loadModel({ model: base, adapter: folder.name }, output);
  const rows = checkIsolation(peft!);
  const broken = rows.filter(({ holds }) => !holds);
  output.result(
    { kind: "isolation", dir: folder.name, model: base, holds: broken.length === 0, rows },
    `adapter ${folder.name} on ${base}`,
    ...indent(
      columns([
        ["prompt", "what", "promised", "seen"],
        ...rows.map(({ prompt, what, promise, observed }) => [prompt, what, promise, observed]),
      ]),
    ),
  );
  const [first] = broken;
  if (first)
    throw new CliError(`${folder.name}: ${first.what} of the ${first.prompt} prompt must stay the same, but changed`);
}
