import { type Io, type Style, painter, widthOf } from "./io.ts";
import { type Progress, progressBar, silentProgress } from "./progress.ts";

/** Flags of every command. */
export interface OutputFlags {
  readonly json?: true | undefined;
  readonly quiet?: true | undefined;
}

/**
 * What a command says. People read stdout, programs read stdout with --json: then it carries one JSON object and the talk goes to
 * stderr. Progress is always on stderr; --quiet leaves only results and errors.
 */
export class Output {
  readonly io: Io;
  readonly #json: boolean;
  readonly #quiet: boolean;

  constructor(io: Io, { json, quiet }: OutputFlags) {
    this.io = io;
    this.#json = json === true;
    this.#quiet = quiet === true;
  }

  /** Columns of the report. */
  get width(): number {
    return widthOf(this.#talk);
  }

  paint(style: Style, text: string): string {
    return painter(this.#talk, this.io.env)(style, text);
  }

  /** A line of the report. */
  say(line = ""): void {
    if (!this.#quiet) this.#talk.write(`${line}\n`);
  }

  /** A piece of a result that comes bit by bit: to people, or to whom reads along while programs wait for the JSON. */
  stream(text: string): void {
    if (!this.#json) this.io.stdout.write(text);
    else if (!this.#quiet) this.io.stderr.write(text);
  }

  /** A line that is no result, on stderr: what is loaded, what to know. */
  note(line: string): void {
    if (!this.#quiet) this.io.stderr.write(`${line}\n`);
  }

  /** The result: `json` for programs, `lines` for people. */
  result(json: object, ...lines: string[]): void {
    this.io.stdout.write(this.#json ? `${JSON.stringify(json)}\n` : lines.map((line) => `${line}\n`).join(""));
  }

  /** A progress bar on a terminal, a line now and then elsewhere, nothing with --quiet. */
  progress(label: string, total: number, unit: "count" | "bytes" = "count"): Progress {
    return this.#quiet ? silentProgress : progressBar(this.io, label, total, unit);
  }

  get #talk() {
    return this.#json ? this.io.stderr : this.io.stdout;
  }
}
