import { writeFile } from "node:fs/promises";
import { Tokenizer } from "@neolog/models";
import { corpus } from "@neolog/stories";
import { makeTokenizer } from "./tokenizer.ts";
import { trainBuiltIn } from "./train.ts";

interface Command {
  readonly usage: string;
  /** Runs with the words after the command; false when they are not what `usage` says. */
  run(...args: string[]): Promise<boolean>;
}

/** A whole number of at least 1 that is written out, or null. */
const count = (text: string): number | null => (/^[1-9]\d*$/.test(text) ? Number(text) : null);

const COMMANDS: Readonly<Record<string, Command>> = {
  corpus: {
    usage: "corpus [COUNT] [FILE]        writes texts of the grammar, one per line, to the file or to stdout",
    async run(number = "100", file) {
      const texts = count(number);
      if (texts === null) return false;
      const lines = `${corpus({ seed: 1, count: texts }).join("\n")}\n`;
      if (file === undefined) process.stdout.write(lines);
      else await writeFile(file, lines);
      return true;
    },
  },
  tokenizer: {
    usage: "tokenizer FOLDER             writes tokenizer.json and tokenizer_config.json",
    async run(folder) {
      if (folder === undefined) return false;
      const { document, config } = makeTokenizer();
      await new Tokenizer(document, config).savePretrained(folder);
      return true;
    },
  },
  train: {
    usage: "train FOLDER [STEPS]         trains the built-in model and writes it with its tokenizer",
    async run(folder, number) {
      const steps = number === undefined ? undefined : count(number);
      if (folder === undefined || steps === null) return false;
      await trainBuiltIn(folder, steps);
      return true;
    },
  },
};

const [name = "", ...args] = process.argv.slice(2);
const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
if (!(await command?.run(...args))) {
  const usages = command ? [command.usage] : Object.values(COMMANDS).map(({ usage }) => usage);
  console.error(usages.map((usage) => `usage: pretrain ${usage}`).join("\n"));
  process.exit(2);
}
