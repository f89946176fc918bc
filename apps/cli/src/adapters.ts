import type { Tokenizer } from "@neolog/models";
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type AdapterEntry, conflictsOf, findAdapters } from "./adapterTree.ts";
import { command } from "./command.ts";
import { CliError } from "./errors.ts";
import type { Io } from "./io.ts";
import { tokenizerOf } from "./load.ts";
import { Output } from "./output.ts";
import { bytes, clip, columns, count, indent } from "./text.ts";

/** neolog adapters: what adapters a folder tree holds, and which of them exclude each other. Only headers are read. */
export const adaptersCommand = (io: Io) =>
  command("adapters", "List the adapters in a folder and below: tokens, base, size, and which share tokens.", [
    "adapters ./runs",
    "adapters ./runs --json",
  ])
    .argument("<dir>", "folder with adapters in it or below")
    .action(async (dir, flags) => {
      const output = new Output(io, flags);
      const entries = await findAdapters(dir);
      if (entries.length === 0)
        throw new CliError(`${dir}: must hold adapter_config.json in it or in a folder below, found none`);
      const adapters = await Promise.all(entries.map((entry) => described(dir, entry)));
      const conflicts = conflictsOf(entries);
      output.result(
        { dir, adapters, conflicts },
        `${count(entries.length, "adapter")} in ${dir}`,
        ...indent(columns([HEADER, ...adapters.map(line)], [3, 4])),
        ...conflicts.map(
          ({ adapters: [a, b], module, ids }) => `${a} and ${b} share ${ids.join(", ")} on ${module}: not together`,
        ),
        ...entries.flatMap(({ path, error }) => (error === null ? [] : [`${path} cannot be read: ${error}`])),
      );
    });

type Described = Omit<AdapterEntry, "modules"> & {
  readonly modules: readonly {
    readonly name: string;
    readonly ids: readonly number[];
    readonly tokens: readonly (string | null)[];
  }[];
};

/** The entry with its tokens spelled, where a tokenizer lies beside it or in a folder above, up to `dir`. */
async function described(dir: string, entry: AdapterEntry): Promise<Described> {
  const tokenizer = await nearestTokenizer(dir, entry.path);
  const modules = [...entry.modules].map(([name, ids]) => ({
    name,
    ids,
    tokens: ids.map((id) => tokenizer?.idToToken(id) ?? null),
  }));
  return { ...entry, modules };
}

async function nearestTokenizer(dir: string, path: string): Promise<Tokenizer | null> {
  for (let at = path; ; at = dirname(at)) {
    const folder = join(dir, at);
    if (await stat(join(folder, "tokenizer.json")).catch(() => null)) return tokenizerOf(folder).catch(() => null);
    if (at === ".") return null;
  }
}

const HEADER = ["adapter", "type", "base", "rows", "size", "tokens"];

function line({ path, peft_type, base, r, modules, bytes: size }: Described): string[] {
  const type = `${peft_type ?? "?"}${r === null ? "" : ` r=${r}`}`;
  const rows = new Map(
    modules.flatMap(({ ids, tokens }) => ids.map((id, i) => [id, tokens[i] ?? String(id)] as const)),
  );
  return [path, type, base ?? "not recorded", String(rows.size), bytes(size), clip([...rows.values()].join(" "), 40)];
}
