import { readdir } from "node:fs/promises";
import { ADAPTER, MODEL, REVISION, command } from "./command.ts";
import type { Io } from "./io.ts";
import { loadModel } from "./load.ts";
import { Output } from "./output.ts";
import { checkTarget, publish } from "./publish.ts";
import { tokensOf } from "@neolog/peft-tokens";
import { count } from "./text.ts";

/** neolog merge: adapter rows written into the table, the result a plain checkpoint. */
export const mergeCommand = (io: Io) =>
  command("merge", "Write an adapter's rows into the model and save a plain Hugging Face folder.", [
    "merge --model ./llama --adapter ./my-adapter --out ./llama-merged",
    "merge --model ./llama --adapter ./my-adapter --out ./llama-merged --safe-merge",
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .requiredOption(...ADAPTER)
    .requiredOption("--out <dir>", "folder for the merged model and its tokenizer")
    .option("--safe-merge", "refuse rows that hold NaN or infinity")
    .action(async (flags) => {
      const output = new Output(io, flags);
      await checkTarget(flags.out, flags.model, flags.adapter);
      const { peft, tokenizer } = await loadModel(flags, output);
      const ids = tokensOf(peft!.peftConfig["default"]!);
      const merged = await peft!.mergeAndUnload({ safeMerge: flags.safeMerge === true });
      await publish(flags.out, "config.json", async (dir) => {
        await merged.savePretrained(dir);
        await tokenizer?.savePretrained(dir);
      });
      output.result(
        {
          out: flags.out,
          token_indices: ids,
          vocab_size: merged.config.vocab_size,
          files: (await readdir(flags.out)).toSorted(),
        },
        `merged ${count(ids.length, "row")} of ${flags.adapter} into ${flags.out} (${merged.config.vocab_size} rows)`,
      );
    });
