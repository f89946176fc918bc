import type { Output } from "./output.ts";
import { columns } from "./text.ts";

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

const NAME_WIDTH = 12;

/** A report in numbered sections, with checks that it remembers. */
export class Report {
  readonly checks: Check[] = [];
  readonly #output: Output;
  #sections = 0;

  constructor(output: Output) {
    this.#output = output;
  }

  /** Columns inside the indent. */
  get width(): number {
    return this.#output.width - 3;
  }

  section(title: string): void {
    this.#output.say();
    this.#output.say(this.#output.paint("bold", `${++this.#sections}  ${title}`));
  }
  lines(...lines: string[]): void {
    for (const line of lines) this.#output.say(line && `   ${line}`);
  }
  /** Running text, wrapped. */
  text(text: string): void {
    const lines = [""];
    for (const word of text.split(" ")) {
      const line = lines.at(-1)!;
      if (line && line.length + 1 + word.length > this.width) lines.push(word);
      else lines[lines.length - 1] = line ? `${line} ${word}` : word;
    }
    this.lines(...lines);
  }
  facts(rows: readonly (readonly string[])[]): void {
    this.lines(...columns(rows));
  }
  dim(...lines: string[]): void {
    this.lines(...lines.map((line) => this.#output.paint("dim", line)));
  }
  /** ✓ or ✗, coloured. */
  mark(ok: boolean): string {
    return ok ? this.#output.paint("green", "✓") : this.#output.paint("red", "✗");
  }
  check(name: string, ok: boolean, detail: string): void {
    this.checks.push({ name, ok, detail });
    this.lines(`${this.mark(ok)} ${name.padEnd(NAME_WIDTH)}${detail}`);
  }
}
