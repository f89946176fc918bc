import { setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type Command, command } from "./commands.ts";
import { checkInvariants } from "./invariants.ts";
import { Real } from "./real.ts";

/** Over all backends together; NEOLOG_SEQUENCES makes the run longer, NEOLOG_SEED repeats one. */
const SEQUENCES = Number(process.env["NEOLOG_SEQUENCES"] ?? 2_000);
const seed = Number(process.env["NEOLOG_SEED"] ?? Date.now() % 2 ** 31);

const backends = await computingBackends();

describe.each(backends)("adapters on $title", ({ title, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const numRuns = Math.ceil(SEQUENCES / backends.length);

  test(
    "P-1 to P-18, P-20, P-21, P-27: any sequence of commands leaves what dense tables say",
    { timeout: 8 * 3_600_000 },
    async () => {
      console.log(`adapter state machine on ${title}: ${numRuns} sequences, NEOLOG_SEED=${seed}`);
      await fc.assert(
        fc.asyncProperty(fc.boolean(), fc.array(command, { maxLength: 30, size: "max" }), async (tied, commands) => {
          const { live } = backend;
          const real = new Real(tied);
          checkInvariants(real);
          const done: string[] = [];
          for (const c of commands) await runChecked(real, c, done);
          real.dispose();
          expect(backend.live, "P-27").toBe(live);
        }),
        { numRuns, seed },
      );
    },
  );
});

/** A failure names the commands that led to it. */
async function runChecked(real: Real, command: Command, done: string[]): Promise<void> {
  done.push(command.title);
  try {
    await command.run(real);
    checkInvariants(real);
  } catch (error) {
    (error as Error).message =
      `after ${real.dense.tied ? "tied" : "untied"}: ${done.join("; ")}\n${(error as Error).message}`;
    throw error;
  }
}
