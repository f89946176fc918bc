import { benchMatmul } from "./kernels/matmul.ts";
import { benchMemory } from "./memory/rowOnly.ts";
import { benchStep } from "./step/tokens.ts";

const BENCHES = { kernels: benchMatmul, step: benchStep, memory: benchMemory } as const;

const asked = process.argv.slice(2);
const unknown = asked.find((name) => !Object.hasOwn(BENCHES, name));
if (unknown !== undefined) {
  console.error(`bench: name must be one of ${Object.keys(BENCHES).join(", ")}, got "${unknown}"`);
  process.exit(2);
}
for (const [name, bench] of Object.entries(BENCHES)) if (asked.length === 0 || asked.includes(name)) bench();
