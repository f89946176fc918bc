/** `node measure.js DIR BACKEND THREADS`: loads a folder, generates, and says what that took. */
import { AutoModelForCausalLM } from "@neolog/models";
import { openBackend, setDefaultBackend } from "@neolog/tensor";
import type { Measured } from "./large.ts";

const PROMPT = 16;
const TOKENS = 24;

const [dir, name, threads] = process.argv.slice(2) as [string, string, string];
setDefaultBackend(await openBackend(name, name === "wasm" ? { threads: Number(threads), v8Flags: true } : {}));
const mostResident = (): number => process.resourceUsage().maxRSS * 1024;
const now = (): number => performance.now() / 1000;

const before = mostResident();
let begin = now();
const model = await AutoModelForCausalLM.fromPretrained(dir);
const [load, loaded] = [now() - begin, mostResident()];

const times: number[] = [];
begin = now();
await model.generate({
  input_ids: [Array.from({ length: PROMPT }, (_, i) => (i * 7919) % 128_000)],
  max_new_tokens: TOKENS,
  eos_token_id: null,
  onToken: () => times.push(now()),
});
const measured: Measured = {
  runtime: `Node ${process.versions.node}`,
  load,
  before,
  loaded,
  generated: mostResident(),
  prompt: times[0]! - begin,
  tokensPerSecond: (times.length - 1) / (times.at(-1)! - times[0]!),
};
console.log(JSON.stringify(measured));
process.exit(0);
