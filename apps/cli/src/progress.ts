import cliProgress from "cli-progress";
import { type Io, widthOf } from "./io.ts";

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
export function progressBar(io: Io, label: string, total: number): Progress {
  return io.stderr.isTTY ? terminalBar(io, label, total) : plainLines(io, label, total);
}

function terminalBar(io: Io, label: string, total: number): Progress {
  const bar = new cliProgress.SingleBar({
    format: `${label} {bar} {value}/{total}  {detail}`,
    barsize: Math.max(10, Math.min(40, widthOf(io.stderr) - label.length - 40)),
    stream: io.stderr as NodeJS.WriteStream,
    hideCursor: true,
    clearOnComplete: true,
    barCompleteChar: "━",
    barIncompleteChar: "╌",
    gracefulExit: false,
  });
  bar.start(total, 0, { detail: "" });
  return { update: (done, detail = "") => bar.update(done, { detail }), stop: () => bar.stop() };
}

const PATIENCE_MS = 1000;

function plainLines(io: Io, label: string, total: number): Progress {
  const started = performance.now();
  let shown = 0;
  return {
    update(done, detail = "") {
      const tenth = Math.floor((10 * done) / total);
      if (tenth === shown || performance.now() - started < PATIENCE_MS) return;
      shown = tenth;
      io.stderr.write(`${label} ${done}/${total}${detail ? `  ${detail}` : ""}\n`);
    },
    stop: () => undefined,
  };
}
