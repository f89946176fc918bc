import { styleText } from "node:util";

/** Where text goes: a process stream, or a string in tests. */
export interface Sink {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** What a command may touch of the world besides files. */
export interface Io {
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the user asks to stop. */
  readonly signal?: AbortSignal | undefined;
}

/** Lets a bar redraw and signals arrive between two pieces of work. */
export const breathe = (): Promise<void> => new Promise(setImmediate);

export type Style = Parameters<typeof styleText>[0];

const WIDEST = 100;

/** Columns to fill: the terminal's, at most 100; 80 where there is no terminal. */
export const widthOf = (sink: Sink): number => Math.min(WIDEST, sink.isTTY ? (sink.columns ?? 80) : 80);

/** True where escape codes are welcome: a terminal that is not dumb, and no NO_COLOR (https://no-color.org). */
export const isColoured = (sink: Sink, env: Io["env"]): boolean =>
  sink.isTTY === true && !env["NO_COLOR"] && env["TERM"] !== "dumb";

/** Colours text for a sink, or leaves it as it is. */
export const painter =
  (sink: Sink, env: Io["env"]) =>
  (style: Style, text: string): string =>
    isColoured(sink, env) ? styleText(style, text, { validateStream: false }) : text;
