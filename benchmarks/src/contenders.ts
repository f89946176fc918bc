import { fileURLToPath } from "node:url";
import { Contender, type ContenderSpec } from "./contender.ts";
import type { Options } from "./options.ts";

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
/** The Python that has torch, as in the other tests with real PEFT. */
const PYTHON = process.env["NEOLOG_PYTHON"] ?? "python3";

/** Ours: plain loops, SIMD as V8 is found, SIMD with V8's flags. */
export function ours({ node, threads }: Options): ContenderSpec[] {
  const run = (name: string, count: number, ...args: string[]): ContenderSpec => ({
    name,
    threads: count,
    command: node,
    args: [file("./kernels/ours.js"), ...args],
  });
  return [
    run("plain loops", 1, "cpu"),
    ...threads.flatMap((count) => [
      run("neolog without flags", count, "wasm", String(count)),
      run("neolog", count, "wasm", String(count), "flags"),
    ]),
  ];
}

/** The others, each in a script of its own; those that are not installed say so. */
export function peers({ node, threads }: Options): ContenderSpec[] {
  const scripts: readonly (readonly [name: string, script: string])[] = [
    ["tfjs-wasm", "tfjs.mjs"],
    ["jax-js", "jax.mjs"],
    ["onnxruntime-web", "onnxruntime_web.mjs"],
    ["onnxruntime-node", "onnxruntime_node.mjs"],
  ];
  return threads.flatMap((count) => [
    ...scripts.map(([name, script]) => ({
      name,
      threads: count,
      command: node,
      args: [file(`../peers/${script}`), String(count)],
    })),
    { name: "torch", threads: count, ...python("torch_kernels.py", count) },
  ]);
}

/** A script of ours for Python, on so many threads. */
export const python = (script: string, threads: number): Pick<ContenderSpec, "command" | "args" | "env"> => ({
  command: PYTHON,
  args: [file(`../peers/${script}`), String(threads)],
  env: { OMP_NUM_THREADS: String(threads), TOKENIZERS_PARALLELISM: "false" },
});

/** Starts those that are asked for; says of the others why they are skipped. */
export async function startAll(specs: readonly ContenderSpec[], { only }: Options): Promise<Contender[]> {
  const whole = (part: string): boolean => specs.some(({ name }) => name === part);
  const named = (name: string, part: string): boolean => (whole(part) ? name === part : name.includes(part));
  const wanted = specs.filter(({ name }) => only.length === 0 || only.some((part) => named(name, part)));
  const started: Contender[] = [];
  for (const spec of wanted) {
    const contender = await Contender.start(spec);
    if (contender instanceof Contender) started.push(contender);
    else console.error(`skipped ${spec.name}, ${spec.threads} threads: ${contender.skipped}`);
  }
  return started;
}
