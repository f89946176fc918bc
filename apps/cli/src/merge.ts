import { tokensOf } from "@neolog/peft-tokens";
import { readdir } from "node:fs/promises";
import { ADAPTERS, ALLOW_SOFTWARE, BACKEND, MODEL, REVISION, command } from "./command.ts";
import type { Io } from "./io.ts";
import { loadAdapters } from "./loadAdapters.ts";
import { Output } from "./output.ts";
import { checkTarget, publish } from "./publish.ts";
import { count } from "./text.ts";

/** neolog merge: adapter rows written into the table, the result a plain checkpoint. */
export const mergeCommand = (io: Io) =>
  command("merge", "Write adapters into the model and save a plain Hugging Face folder.", [
    "merge --model ./llama --adapter ./my-adapter --out ./llama-merged",
    "merge --model ./llama --adapter ./my-adapter --out ./llama-merged --safe-merge",
    "merge --model ./llama --adapter ./animals --adapter ./places --out ./llama-merged",
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .requiredOption(...ADAPTERS)
    .requiredOption("--out <dir>", "folder for the merged model and its tokenizer")
    .option("--safe-merge", "refuse rows that hold NaN or infinity")
    .option("--untie", "give the head its own table where an adapter changes one side of a tie only")
    .option(...BACKEND)
    .option(...ALLOW_SOFTWARE)
    .action(async (flags) => {
      const output = new Output(io, flags);
      await checkTarget(flags.out, flags.model, ...flags.adapter);
      const { base, peft, names, tokenizer } = await loadAdapters(flags, output);
      const ids = names.flatMap((name) => tokensOf(peft.peftConfig[name]!));
      await peft.mergeAndUnload({
        adapterNames: names,
        safeMerge: flags.safeMerge === true,
        untie: flags.untie === true,
      });
      await publish(flags.out, "config.json", async (dir) => {
        await base.savePretrained(dir);
        await tokenizer?.savePretrained(dir);
      });
      output.result(
        {
          out: flags.out,
          token_indices: ids,
          vocab_size: base.config.vocab_size,
          files: (await readdir(flags.out)).toSorted(),
        },
        `merged ${count(ids.length, "row")} of ${flags.adapter.join(" and ")} into ${flags.out} (${base.config.vocab_size} rows)`,
      );
    });
