import { openFolder } from "@neolog/checkpoint";
import { REVISION, command, positiveInteger } from "./command.ts";
import { CliError } from "./errors.ts";
import { modelFolder } from "./hub.ts";
import { inspectAdapter } from "./inspectAdapter.ts";
import { inspectModel } from "./inspectModel.ts";
import type { Io } from "./io.ts";
import { Output } from "./output.ts";

/** neolog inspect: what a folder holds. Of a model only headers are read. */
export const inspectCommand = (io: Io) =>
  command("inspect", "Show a model or an adapter: its parts, shapes, dtypes, memory, token rows, trainable line.", [
    "inspect ./llama",
    "inspect ./llama --context 4096",
    "inspect ./my-adapter --json",
  ])
    .argument("<dir>", "folder of a model or an adapter, or org/name of the Hugging Face Hub")
    .option(...REVISION)
    .option("--context <n>", "tokens of the sequence that memory is told for", positiveInteger, 1024)
    .action(async (dir, flags) => {
      const output = new Output(io, flags);
      const folder = await openFolder(await modelFolder(dir, output, flags.revision));
      if (await folder.has("adapter_config.json")) await inspectAdapter(folder, output);
      else if (await folder.has("config.json")) await inspectModel(folder, output, flags.context);
      else
        throw new CliError(
          `${dir}: must hold config.json (a model) or adapter_config.json (an adapter), found neither`,
        );
    });
