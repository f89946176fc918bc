import { openFolder } from "@neolog/checkpoint";
import { REVISION, command, positiveInteger } from "./command.ts";
import { CliError } from "./errors.ts";
import { modelFolder } from "./hub.ts";
import { inspectAdapter } from "./inspectAdapter.ts";
import { inspectIsolation } from "./inspectIsolation.ts";
import { inspectModel } from "./inspectModel.ts";
import type { Io } from "./io.ts";
import { Output } from "./output.ts";

/** neolog inspect: what a folder holds. Of a model only headers are read. */
export const inspectCommand = (io: Io) =>
  command("inspect", "Show a model or an adapter: its parts, shapes, dtypes, memory, token rows, trainable line.", [
    "inspect ./llama",
    "inspect ./llama --context 4096",
    "inspect ./my-adapter --json",
    "inspect ./my-adapter --isolation --model ./llama",
  ])
    .argument("<dir>", "folder of a model or an adapter, or org/name of the Hugging Face Hub")
    .option(...REVISION)
    .option("--context <n>", "tokens of the sequence that memory is told for", positiveInteger, 1024)
    .option("--isolation", "run the base of an adapter with it and without: what does it leave alone?")
    .option("--model <dir>", "the base for --isolation; the one that the adapter names, where absent")
    .action(async (dir, flags) => {
      const output = new Output(io, flags);
      const folder = await openFolder(await modelFolder(dir, output, flags.revision));
      const isAdapter = await folder.has("adapter_config.json");
      if (flags.isolation && !isAdapter)
        throw new CliError(`${dir}: must hold adapter_config.json for --isolation, found none`);
      if (flags.isolation) await inspectIsolation(folder, flags.model, output);
      else if (isAdapter) await inspectAdapter(folder, output);
      else if (await folder.has("config.json")) await inspectModel(folder, output, flags.context);
      else
        throw new CliError(
          `${dir}: must hold config.json (a model) or adapter_config.json (an adapter), found neither`,
        );
    });
