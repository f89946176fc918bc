import cliProgress from "cli-progress";
import { type Io, widthOf } from "./io.ts";
import { bytes, clip } from "./text.ts";

export interface Progress {
  /** `done` of the total, and what to show beside it. */
  update(done: number, detail?: string): void;
  stop(): void;
}

export const silentProgress: Progress = { update: () => undefined, stop: () => undefined };

/**
 * A bar that redraws itself on a terminal; where stderr is a file or a pipe, a plain line each
 * tenth of the way, once a second has passed.
 */
export function progressBar(io: Io, label: string, total: number, unit: "count" | "bytes" = "count"): Progress {
  const shown = unit === "bytes" ? bytes : String;
  return io.stderr.isTTY ? terminalBar(io, label, total, shown) : plainLines(io, label, total, shown);
}

function terminalBar(io: Io, label: string, total: number, shown: (amount: number) => string): Progress {
  const width = widthOf(io.stderr);
  const barsize = Math.max(10, Math.min(40, width - label.length - 40));
  const room = width - label.length - barsize - 2 * shown(total).length - 6; // a wrapped bar cannot be drawn over
  const bar = new cliProgress.SingleBar({
    format: `${label} {bar} {done}/${shown(total)}  {detail}`,
    barsize,
    stream: io.stderr as NodeJS.WriteStream,
    hideCursor: true,
    clearOnComplete: true,
    barCompleteChar: "━",
    barIncompleteChar: "╌",
    gracefulExit: false,
  });
  bar.start(total, 0, { done: shown(0), detail: "" });
  return {
    update: (done, detail = "") => bar.update(done, { done: shown(done), detail: clip(detail, room) }),
    stop: () => bar.stop(),
  };
}

const PATIENCE_MS = 1000;

function plainLines(io: Io, label: string, total: number, shown: (amount: number) => string): Progress {
  const started = performance.now();
  let last = 0;
  return {
    update(done, detail = "") {
      const tenth = Math.floor((10 * done) / total);
      if (tenth === last || performance.now() - started < PATIENCE_MS) return;
      last = tenth;
      io.stderr.write(`${label} ${shown(done)}/${shown(total)}${detail ? `  ${detail}` : ""}\n`);
    },
    stop: () => undefined,
  };
}
