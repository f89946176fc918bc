import { fileURLToPath } from "node:url";
import type { ContenderSpec } from "../contender.ts";
import { python } from "../contenders.ts";
import type { Options } from "../options.ts";
import type { Planned } from "./plan.ts";
import type { ShapeName } from "./shapes.ts";

const script = fileURLToPath(new URL("./ours.js", import.meta.url));

/** Ours in the steady state, in the first epoch, and computing all in each step. */
const MODES = { neolog: "reuse", "neolog, first epoch": "first", "neolog without reuse": "plain" } as const;

export const ours = (name: keyof typeof MODES, threads: number, { node }: Options): ContenderSpec => ({
  name,
  threads,
  command: node,
  args: [script, "wasm", String(threads), "flags", MODES[name]],
});

export const peft = (threads: number): ContenderSpec => ({
  name: "PEFT on torch",
  threads,
  ...python("peft_step.py", threads),
});

/** Beside PEFT a machine of 24 GiB has room for two of ours. */
const LARGE: readonly ShapeName[] = ["smollm2-135m", "qwen2.5-0.5b"];

/**
 * Plain loops for a small model alone; the largest model by ours alone, at the most threads. In case a nothing can be reused; without
 * reuse large models run only where that is asked for by name.
 */
export function contendersFor({ shape, name }: Planned, options: Options): ContenderSpec[] {
  const { node, threads } = options;
  const most = Math.max(...threads);
  if (shape === "gemma-2-2b") return [ours("neolog", most, options)];
  const loops: ContenderSpec = { name: "plain loops", threads: 1, command: node, args: [script, "cpu"] };
  return [
    ...(shape === "tiny" ? [loops] : []),
    ...threads.flatMap((count) =>
      (Object.keys(MODES) as (keyof typeof MODES)[])
        .filter((mode) => name !== "a" || mode === "neolog")
        .filter((mode) => mode !== "neolog without reuse" || !LARGE.includes(shape) || options.only.includes(mode))
        .map((mode) => ours(mode, count, options)),
    ),
    ...threads.map((count) => peft(count)),
    ...(options.peers && shape === "gpt2" ? threads.flatMap((count) => javascriptPeers(count, options)) : []),
  ];
}

const peer = (name: string, file: string, threads: number, { node }: Options): ContenderSpec => ({
  name,
  threads,
  command: node,
  args: [fileURLToPath(new URL(`../../peers/${file}`, import.meta.url)), String(threads)],
});

/** Others in JavaScript that can train. */
const javascriptPeers = (threads: number, options: Options): ContenderSpec[] => [
  peer("tfjs-wasm", "tfjs_step.mjs", threads, options),
  peer("jax-js", "jax_step.mjs", threads, options),
];

/** Computes losses alone. */
export const forwardPeer = (threads: number, options: Options): ContenderSpec =>
  peer("onnxruntime-node", "onnxruntime_forward.mjs", threads, options);
