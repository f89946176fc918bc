/** Neolog as a contender: `node ours.js cpu`, or `node ours.js wasm THREADS [flags]`, which asks for V8's flags. */
import { Scope, openBackend, setDefaultBackend, type Tensor } from "@neolog/tensor";
import type { Case } from "../case.ts";
import { type Prepared, serve } from "../serve.ts";
import { KERNELS } from "./table.ts";

const [name = "wasm", threads = "1", flags] = process.argv.slice(2);
const options = name === "wasm" ? { threads: Number(threads), v8Flags: flags === "flags" } : {};
const backend = await openBackend(name, options);
setDefaultBackend(backend);

/** Plain loops take seconds for a product like this; a sample of one call says enough up to here. */
const MOST_OPERATIONS_ON_CPU = 5e8;
const declines = ({ roof, amount }: Case): boolean =>
  name === "cpu" && roof === "arithmetic" && amount > MOST_OPERATIONS_ON_CPU;

await serve(
  {
    name: `neolog ${name}`,
    runtime: `Node ${process.versions.node}`,
    vectorBits: String(backend.info["v8Flags"]).includes("revectorize") ? 256 : 128,
    info: backend.info,
  },
  (c): Prepared | null => {
    const build = KERNELS[c.kernel];
    if (!build || declines(c)) return null;
    const inputs = new Scope();
    const { run, pause } = build(c);
    return {
      run: () => {
        using _result = new Scope();
        const y = run();
        return y instanceof Promise ? y.then(() => {}) : undefined;
      },
      ...(pause ? { pause } : {}),
      check: async () => {
        using _result = new Scope();
        return someElements(await run());
      },
      release: () => inputs[Symbol.dispose](),
    };
  },
);

/** The first element, one in the middle and the last. */
async function someElements(y: Tensor): Promise<number[]> {
  const data = await y.data();
  return [0, data.length >> 1, data.length - 1].map((i) => data[i]!);
}
