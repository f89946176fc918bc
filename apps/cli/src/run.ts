import { Command } from "@commander-js/extra-typings";
import { adaptersCommand } from "./adapters.ts";
import { combineCommand } from "./combine.ts";
import { demoCommand } from "./demo.ts";
import { devicesCommand } from "./devices.ts";
import { downloadCommand } from "./download.ts";
import { DONE, oneLine, report } from "./errors.ts";
import { evalCommand } from "./eval.ts";
import { forwardCommand } from "./forward.ts";
import { generateCommand } from "./generate.ts";
import { inspectCommand } from "./inspect.ts";
import { type Io, painter, widthOf } from "./io.ts";
import { mergeCommand } from "./merge.ts";
import { tokensCommand } from "./tokens.ts";
import { trainCommand } from "./train.ts";
import { trimCommand } from "./trim.ts";

const COMMANDS = [
  demoCommand,
  trainCommand,
  evalCommand,
  forwardCommand,
  generateCommand,
  mergeCommand,
  inspectCommand,
  adaptersCommand,
  combineCommand,
  tokensCommand,
  trimCommand,
  downloadCommand,
  devicesCommand,
] as const;

/** Runs one command line, without the program's name. → 0 done, 1 failed, 2 wrong usage. */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  const program = new Command("neolog")
    .description("Teach a language model new words: train chosen rows of its token embedding, nothing else.")
    .version("0.1.0")
    .addHelpText("after", "\nneolog <command> --help shows flags and examples.")
    .exitOverride()
    .showSuggestionAfterError()
    .configureHelp({ minWidthToWrap: 20 })
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      getOutHelpWidth: () => widthOf(io.stdout),
      getErrHelpWidth: () => widthOf(io.stderr),
      outputError: (text, write) =>
        write(`${painter(io.stderr, io.env)("red", "error:")} ${oneLine(text.replace(/^error: /, ""))}\n`),
    });
  for (const create of COMMANDS) {
    const command = create(io);
    program.addCommand(command.copyInheritedSettings(program));
    for (const child of command.commands) child.copyInheritedSettings(program);
  }
  try {
    await program.parseAsync(argv, { from: "user" });
    return DONE;
  } catch (error) {
    return report(error, io);
  }
}
