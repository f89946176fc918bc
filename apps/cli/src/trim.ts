import { trimVocabulary } from "@neolog/peft-tokens";
import { InvalidArgumentError } from "commander";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ADAPTERS, MODEL, REVISION, command } from "./command.ts";
import { chooseBackend } from "./backend.ts";
import { modelFolder } from "./hub.ts";
import type { Io } from "./io.ts";
import { loadBase, tokenizerOf } from "./load.ts";
import { loadAdapters } from "./loadAdapters.ts";
import { Output } from "./output.ts";
import { checkTarget, publish } from "./publish.ts";
import { thousands } from "./text.ts";

/** neolog trim: a model, its tokenizer and its adapters without the tokens that nobody needs. */
export const trimCommand = (io: Io) =>
  command("trim", "Leave only chosen tokens in a model, its tokenizer and its adapters; they are numbered anew.", [
    "trim --model ./llama --keep 0-255,300 --out ./small",
    "trim --model ./llama --keep 0-400 --adapter ./wug --out ./small",
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .option(...ADAPTERS)
    .requiredOption(
      "--keep <ids>",
      "ids and ranges, parted by commas; pieces that tokens are built from come with them",
      ranges,
    )
    .requiredOption("--out <dir>", "folder for the model and its tokenizer; adapters go into folders below it")
    .action(async (flags) => {
      const output = new Output(io, flags);
      const adapter = flags.adapter ?? [];
      await checkTarget(flags.out, flags.model, ...adapter);
      const loaded =
        adapter.length > 0 ? await loadAdapters({ ...flags, adapter }, output) : await loadPlain(flags, output);
      const { base, peft, names, tokenizer } = loaded;
      const before = base.config.vocab_size;
      const keep = tokenizer ? tokenizer.withPieces(flags.keep) : flags.keep;
      const trimmed = tokenizer?.trimmed(keep);
      trimVocabulary(peft ?? base, keep);
      await publish(flags.out, "config.json", async (dir) => {
        if (peft) {
          await peft.savePretrained(dir);
          for (const name of names) await nameBase(join(dir, name, "adapter_config.json"), flags.out);
          peft.unload();
        }
        await base.savePretrained(dir);
        await trimmed?.savePretrained(dir);
      });
      output.result(
        {
          out: flags.out,
          kept: keep.length,
          dropped: before - keep.length,
          ids: keep,
          adapters: names,
          files: (await readdir(flags.out)).toSorted(),
        },
        `kept ${thousands(keep.length)} of ${thousands(before)} tokens in ${flags.out}`,
      );
    });

async function loadPlain(flags: { readonly model: string; readonly revision?: string | undefined }, output: Output) {
  await chooseBackend();
  const folder = await modelFolder(flags.model, output, flags.revision);
  return { base: await loadBase(folder, output), peft: null, names: [], tokenizer: await tokenizerOf(folder) };
}

/** The adapter belongs to the trimmed base now. */
async function nameBase(file: string, base: string): Promise<void> {
  const text = await readFile(file, "utf8");
  const key = /"base_model_name_or_path": (?:null|"(?:[^"\\]|\\.)*")/;
  await writeFile(
    file,
    text.replace(key, () => `"base_model_name_or_path": ${JSON.stringify(base)}`),
  );
}

/** `0-255,300` → ids */
function ranges(text: string): number[] {
  return text.split(",").flatMap((item) => {
    const [, from, to = from] = /^(\d+)(?:-(\d+))?$/.exec(item.trim()) ?? [];
    if (from === undefined || Number(to) < Number(from))
      throw new InvalidArgumentError(`It must be ids and ranges like 0-255,300, got "${item}".`);
    return Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => Number(from) + i);
  });
}
