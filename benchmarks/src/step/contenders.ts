import { fileURLToPath } from "node:url";
import type { ContenderSpec } from "../contender.ts";
import { python } from "../contenders.ts";
import type { Options } from "../options.ts";
import type { Planned } from "./plan.ts";

const script = fileURLToPath(new URL("./ours.js", import.meta.url));

/** Ours on so many threads. */
export const ours = (name: string, threads: number, { node }: Options, ...args: readonly string[]): ContenderSpec => ({
  name,
  threads,
  command: node,
  args: [script, "wasm", String(threads), "flags", ...args],
});

export const peft = (threads: number): ContenderSpec => ({
  name: "PEFT on torch",
  threads,
  ...python("peft_step.py", threads),
});

/** Plain loops for a small model alone; the largest model by ours alone, at the most threads. */
export function contendersFor({ shape }: Planned, options: Options): ContenderSpec[] {
  const { node, threads } = options;
  const most = Math.max(...threads);
  if (shape === "gemma-2-2b") return [ours("neolog", most, options)];
  const loops: ContenderSpec = { name: "plain loops", threads: 1, command: node, args: [script, "cpu"] };
  return [
    ...(shape === "tiny" ? [loops] : []),
    ...threads.map((count) => ours("neolog", count, options)),
    ...threads.map((count) => peft(count)),
    ...(options.peers && shape === "gpt2" ? threads.flatMap((count) => javascriptPeers(count, options)) : []),
  ];
}

/** Others in JavaScript that can train. */
const javascriptPeers = (threads: number, { node }: Options): ContenderSpec[] =>
  [["tfjs-wasm", "tfjs_step.mjs"] as const].map(([name, file]) => ({
    name,
    threads,
    command: node,
    args: [fileURLToPath(new URL(`../../peers/${file}`, import.meta.url)), String(threads)],
  }));
