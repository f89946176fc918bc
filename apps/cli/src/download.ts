import { command } from "./command.ts";
import { download } from "./hub.ts";
import type { Io } from "./io.ts";
import { Output } from "./output.ts";

/** neolog download: a model of the Hugging Face Hub into the cache that Python uses too. */
export const downloadCommand = (io: Io) =>
  command("download", "Fetch a model of the Hugging Face Hub into its cache, where --model org/name finds it.", [
    "download openai-community/gpt2",
    "download org/name --revision v1.0",
  ])
    .argument("<repo>", "org/name")
    .option("--revision <name>", "branch, tag or commit", "main")
    .addHelpText(
      "after",
      "\nEnvironment: HF_HUB_CACHE or HF_HOME (where), HF_TOKEN, HF_ENDPOINT (another hub), HF_HUB_OFFLINE=1 (ask nobody)",
    )
    .action(async (repo, flags) => {
      const output = new Output(io, flags);
      const dir = await download(repo, output, flags.revision);
      output.result({ repo, revision: flags.revision, dir }, dir);
    });
