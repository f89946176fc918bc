import { execFileSync } from "node:child_process";
import { availableParallelism, cpus, totalmem } from "node:os";

/** Processor, cores that may be used, memory. */
export const machine = (): string =>
  `${cpus()[0]?.model.trim() ?? "unknown processor"}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`;

/** What a Node calls itself in figures. */
export const runtimeOf = (node: string): string =>
  `Node ${execFileSync(node, ["--version"], { encoding: "utf8" }).trim().slice(1)}`;

/** The commit that is checked out, with "+" where files differ from it. */
export function commit(): string {
  try {
    const git = (...args: string[]): string => execFileSync("git", args, { encoding: "utf8" }).trim();
    return git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain", "--untracked-files=no") ? "+" : "");
  } catch {
    return "unknown";
  }
}

/** A busy core of two is half of the time; clocks tick every 10 ms. */
export const QUIET = 0.2;

/** Waits until other programs leave the machine alone, so many seconds at most; the share that they still take. Takes 40 ms at least. */
export async function quiet(seconds: number): Promise<number> {
  const end = performance.now() + seconds * 1000;
  let busy = await busyShare();
  while (busy > QUIET && performance.now() < end) busy = await busyShare();
  return busy;
}

/** The share of all cores' time that was used over 40 ms: while the suite's own processes sleep, by others. */
async function busyShare(): Promise<number> {
  const before = coreTimes();
  await new Promise((resolve) => setTimeout(resolve, 40));
  const after = coreTimes();
  return (after.busy - before.busy) / Math.max(1, after.total - before.total);
}

/** Milliseconds since the start, summed over cores. */
function coreTimes(): { readonly busy: number; readonly total: number } {
  let [busy, total] = [0, 0];
  for (const { times } of cpus()) {
    const sum = Object.values(times).reduce((all, ms) => all + ms, 0);
    busy += sum - times.idle;
    total += sum;
  }
  return { busy, total };
}
