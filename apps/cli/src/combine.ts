import { tokensOf } from "@neolog/peft-tokens";
import { InvalidArgumentError, Option } from "commander";
import { ADAPTERS, MODEL, REVISION, command } from "./command.ts";
import { editAdapters } from "./editAdapter.ts";
import { UsageError } from "./errors.ts";
import type { Io } from "./io.ts";
import { Output } from "./output.ts";
import { count } from "./text.ts";

const OVERLAPS = ["error", "first", "last", "mean"] as const;

/** neolog combine: one adapter of several, by weights or as their union. */
export const combineCommand = (io: Io) =>
  command("combine", "Make one adapter of several: their weighted sum, or all their tokens.", [
    "combine --adapter ./animals --adapter ./places --out ./both",
    "combine --adapter ./formal --adapter ./casual --weights 0.7,0.3 --out ./mixed",
  ])
    .option(MODEL[0], "folder of the base model; the one that the first adapter names, by default")
    .option(...REVISION)
    .requiredOption(...ADAPTERS)
    .requiredOption("--out <dir>", "folder for the new adapter")
    .option("--weights <list>", "a number for each adapter: rows become base + Σ weight · (row − base)", numbers)
    .addOption(new Option("--overlap <rule>", "whose row a token has that several train").choices(OVERLAPS))
    .action(async (given) => {
      const flags = given as typeof given & { overlap?: (typeof OVERLAPS)[number] };
      const output = new Output(io, flags);
      const { weights, overlap } = flags;
      if (weights && overlap) throw new UsageError("--weights and --overlap: one of them must be given, got both");
      if (weights && weights.length !== flags.adapter.length) {
        throw new UsageError(
          `--weights: must be one for each of ${count(flags.adapter.length, "adapter")}, got ${weights.length}`,
        );
      }
      let ids: readonly number[] = [];
      const files = await editAdapters(flags, output, async ({ peft, names }) => {
        if (weights) await peft.addWeightedAdapter(names, weights, "default");
        else await peft.combineAdapters(names, "default", { overlap: overlap ?? "error" });
        ids = tokensOf(peft.peftConfig["default"]!);
        return "default";
      });
      output.result(
        { out: flags.out, adapters: flags.adapter, weights: weights ?? null, token_indices: ids, files },
        `combined ${flags.adapter.join(" and ")} into ${flags.out} (${count(ids.length, "row")})`,
      );
    });

/** `0.7,0.3` */
function numbers(text: string): number[] {
  return text.split(",").map((item) => {
    const value = item.trim() === "" ? NaN : Number(item);
    if (!Number.isFinite(value)) throw new InvalidArgumentError("It must be numbers, parted by commas.");
    return value;
  });
}
