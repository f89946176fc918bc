/** Neolog's generation as a contender: `node ours.js wasm THREADS [flags]`. */
import { AutoModelForCausalLM } from "@neolog/models";
import { openBackend, setDefaultBackend } from "@neolog/tensor";
import { type Prepared, serve } from "../serve.ts";

const [name = "wasm", threads = "1", flags] = process.argv.slice(2);
const options = name === "wasm" ? { threads: Number(threads), v8Flags: flags === "flags" } : {};
const backend = await openBackend(name, options);
setDefaultBackend(backend);

const spec = {
  name: `neolog ${name}`,
  runtime: `Node ${process.versions.node}`,
  vectorBits: 128,
  info: backend.info,
} as const;
await serve(spec, async ({ kernel, shape, dir }): Promise<Prepared | null> => {
  if (kernel !== "generate gpt2") return null;
  const [rows, length, max_new_tokens] = shape as [number, number, number];
  const model = await AutoModelForCausalLM.fromPretrained(dir!);
  const input_ids = Array.from({ length: rows }, (_, row) =>
    Array.from({ length }, (_, column) => (row * length + column) * 7919 + 13),
  );
  const run = (): Promise<number[][]> => model.generate({ input_ids, max_new_tokens, eos_token_id: null });
  return {
    run,
    // the first tokens: later ones may part where two scores are nearly equal
    check: async () => (await run()).flatMap((row) => row.slice(0, length + 2)),
    release: () => {
      for (const t of model.parameters()) t.dispose();
    },
  };
});
