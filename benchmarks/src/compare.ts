import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { matches, nameOf } from "./case.ts";
import type { ContenderSpec } from "./contender.ts";
import { startAll } from "./contenders.ts";
import { spreadOf } from "./figure.ts";
import { casesLeft } from "./kernels/cases.ts";
import { commit, machine } from "./machine.ts";
import { type Options, UsageError } from "./options.ts";
import { type Result, race } from "./race.ts";
import { type Report, digits } from "./report.ts";
import { Roofs } from "./roof.ts";
import { checkpointFolder } from "./step/checkpoint.ts";
import { inUnit } from "./units.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Two revisions of ours on the kernel cases that the filter leaves, each built in a worktree of its own with this checkout's
 * benchmarks, interleaved. Prints a row for LEADERBOARD.md of each case.
 */
export async function compare(options: Options, report: Report): Promise<void> {
  const [base, head = ".", ...filter] = options.filter;
  if (base === undefined) throw new UsageError("compare needs a revision, got none");
  const { dir, bytes } = matches("fromPretrained", filter) ? checkpointFolder("gpt2") : { dir: "", bytes: 0 };
  const cases = casesLeft(filter, dir, bytes);
  const folder = mkdtempSync(join(tmpdir(), "neolog-compare-"));
  try {
    const specs = [base, head].flatMap((revision, i) => {
      const root = revision === "." ? ROOT : build(revision, join(folder, String(i)));
      return options.threads.map((threads) => specOf(revision, root, threads, options));
    });
    const roofs = await Roofs.measure(options);
    const contenders = await startAll(specs, options);
    try {
      for (const c of cases) {
        const results = await race(c, contenders, options);
        report.add(c, results, roofs);
        for (const threads of options.threads) report.note(row(results, threads, c, options));
      }
    } finally {
      for (const contender of contenders) contender.stop();
    }
  } finally {
    for (const name of readdirSync(folder)) git("worktree", "remove", "--force", join(folder, name));
    rmSync(folder, { recursive: true, force: true });
  }
}

const git = (...args: string[]): string => execFileSync("git", args, { cwd: ROOT, encoding: "utf8" }).trim();

/** Checks a revision out, with this checkout's dependencies and benchmarks, and builds it. */
function build(revision: string, root: string): string {
  git("worktree", "add", "--detach", root, revision);
  linkDependencies(root);
  rmSync(join(root, "benchmarks/src"), { recursive: true });
  cpSync(join(ROOT, "benchmarks/src"), join(root, "benchmarks/src"), { recursive: true });
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  // types need not fit: a case that the revision lacks is left out when it is run
  const { stdout } = spawnSync(process.execPath, [tsc, "-b", "benchmarks"], { cwd: root, encoding: "utf8" });
  if (!existsSync(contenderOf(root))) throw new UsageError(`${revision} must compile, got ${stdout.slice(0, 2000)}`);
  return root;
}

const contenderOf = (root: string): string => join(root, "benchmarks/dist/kernels/ours.js");

/** node_modules with links to this checkout's packages, and to the revision's own workspaces. */
function linkDependencies(root: string): void {
  const own = join(root, "node_modules/@neolog");
  mkdirSync(own, { recursive: true });
  for (const name of readdirSync(join(ROOT, "node_modules"))) {
    if (name !== "@neolog") symlinkSync(join(ROOT, "node_modules", name), join(root, "node_modules", name));
  }
  for (const name of readdirSync(join(root, "packages"))) symlinkSync(join(root, "packages", name), join(own, name));
  for (const workspace of readdirSync(join(root, "packages"))) {
    const nested = join(ROOT, "packages", workspace, "node_modules");
    if (existsSync(nested)) symlinkSync(nested, join(root, "packages", workspace, "node_modules"));
  }
}

const specOf = (revision: string, root: string, threads: number, { node }: Options): ContenderSpec => ({
  name: revision === "." ? "this checkout" : revision,
  threads,
  command: node,
  args: [contenderOf(root), "wasm", String(threads), "flags"],
});

/** | date | commit | machine | node | figure | before → after | command | */
function row(
  results: readonly Result[],
  threads: number,
  c: Parameters<typeof nameOf>[0],
  { filter }: Options,
): string {
  const [before, after] = results.filter(({ contender }) => contender.spec.threads === threads);
  if (!before || !after) return "";
  const value = ({ ns }: Result): string => digits(inUnit(c, spreadOf(ns).median));
  const [, head = "."] = filter;
  const cells = [
    new Date().toISOString().slice(0, 10),
    head === "." ? commit() : git("rev-parse", "--short", head),
    machine(),
    after.contender.hello.runtime,
    `${nameOf(c)}, ${threads} thread${threads > 1 ? "s" : ""}`,
    `${value(before)} → ${value(after)} ${c.unit}`,
    `\`npm run bench -- compare ${filter.join(" ")}\``,
  ];
  return `| ${cells.join(" | ")} |`;
}
