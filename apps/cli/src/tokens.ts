import { addTokens, tokensOf } from "@neolog/peft-tokens";
import { Command } from "@commander-js/extra-typings";
import { InvalidArgumentError } from "commander";
import { MODEL, REVISION, command, idList, nonNegativeInteger, tokenList } from "./command.ts";
import { editAdapters } from "./editAdapter.ts";
import { CliError, UsageError } from "./errors.ts";
import type { Io } from "./io.ts";
import type { LoadedAdapters } from "./loadAdapters.ts";
import { Output } from "./output.ts";
import { count } from "./text.ts";

const one = (dir: string): string[] => [dir];

/** A command that changes the tokens of an adapter. */
const edit = (name: string, description: string, examples: readonly string[]) =>
  command(name, description, examples)
    .option(MODEL[0], "folder of the base model; the one that the adapter names, by default")
    .option(...REVISION)
    .requiredOption("--adapter <dir>", "folder of the adapter", one)
    .requiredOption("--out <dir>", "folder for the changed adapter");

/** neolog tokens: what an adapter trains. */
export const tokensCommand = (io: Io) =>
  new Command("tokens")
    .description("Change what tokens an adapter trains: add, remove, or give its rows to others.")
    .addHelpText("after", "\nneolog tokens <command> --help shows flags and examples.")
    .addCommand(addCommand(io))
    .addCommand(removeCommand(io))
    .addCommand(remapCommand(io));

const addCommand = (io: Io) =>
  edit("add", "Let an adapter train further tokens; their rows start as the base's.", [
    'tokens add --adapter ./wug --tokens "<dax>" --out ./wug-dax',
  ])
    .option("--tokens <list>", "tokens, parted by commas; new ones are added to the tokenizer", tokenList)
    .option("--token-indices <list>", "ids, parted by commas", idList)
    .action(async (flags) => {
      const { tokens, tokenIndices: ids } = flags;
      if ((tokens === undefined) === (ids === undefined))
        throw new UsageError(
          `--tokens or --token-indices: exactly one must be given, got ${tokens === undefined ? "neither" : "both"}`,
        );
      await changed(io, flags, "added", ({ peft, base, tokenizer, names: [name] }) => {
        if (tokens && !tokenizer)
          throw new CliError(`${flags.adapter[0]}: --tokens needs a tokenizer.json, found none`);
        const added = ids ?? tokenizer!.addTokens(tokens!);
        if (tokenizer && tokenizer.vocabSize > base.config.vocab_size)
          addTokens(peft, tokenizer.vocabSize - base.config.vocab_size);
        peft.extendAdapter(name!, added);
        return added;
      });
    });

const removeCommand = (io: Io) =>
  edit("remove", "Make an adapter forget tokens.", ["tokens remove --adapter ./wug --token-indices 257 --out ./less"])
    .requiredOption("--token-indices <list>", "ids, parted by commas", idList)
    .action((flags) =>
      changed(io, flags, "removed", ({ peft, names: [name] }) => {
        peft.removeTokens(name!, flags.tokenIndices);
        return flags.tokenIndices;
      }),
    );

const remapCommand = (io: Io) =>
  edit("remap", "Give an adapter's rows to other tokens.", [
    "tokens remap --adapter ./wug --map 257=300,258=301 --out ./moved",
  ])
    .requiredOption("--map <pairs>", "old id = new id, parted by commas", pairs)
    .action((flags) =>
      changed(io, flags, "moved", ({ peft, names: [name] }) => {
        const own = tokensOf(peft.peftConfig[name!]!);
        const strange = [...flags.map.keys()].filter((id) => !own.includes(id));
        if (strange.length > 0)
          throw new CliError(
            `--map: the adapter must train the old ids, got ${strange.join(", ")}; it has ${own.join(", ")}`,
          );
        peft.remapTokens(name!, flags.map);
        return [...flags.map.values()];
      }),
    );

type Flags = Parameters<typeof editAdapters>[0] & ConstructorParameters<typeof Output>[1];

async function changed(
  io: Io,
  flags: Flags,
  verb: string,
  run: (loaded: LoadedAdapters) => readonly number[],
): Promise<void> {
  const output = new Output(io, flags);
  let touched: readonly number[] = [];
  let ids: readonly number[] = [];
  const files = await editAdapters(flags, output, (loaded) => {
    const [name] = loaded.names;
    touched = run(loaded);
    ids = tokensOf(loaded.peft.peftConfig[name!]!);
    return name!;
  });
  output.result(
    { out: flags.out, [verb]: touched, token_indices: ids, files },
    `${verb} ${touched.join(", ")}: ${flags.out} trains ${count(ids.length, "row")}`,
  );
}

/** `257=300,258=301` */
function pairs(text: string): Map<number, number> {
  const map = new Map<number, number>();
  for (const item of text.split(",")) {
    const [from, to, ...more] = item.split("=");
    if (to === undefined || more.length > 0) throw new InvalidArgumentError("It must be pairs like 257=300.");
    const old = nonNegativeInteger(from!);
    if (map.has(old)) throw new InvalidArgumentError(`Each must be named once, got ${old} again.`);
    map.set(old, nonNegativeInteger(to));
  }
  return map;
}
