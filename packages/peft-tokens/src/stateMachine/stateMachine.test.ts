import { setDefaultBackend } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type Command, lifecycle } from "./commands.ts";
import { edits } from "./edits.ts";
import { saving } from "./files.ts";
import { checkInvariants } from "./invariants.ts";
import { put } from "../testing.ts";
import { loraLifecycle } from "./lora.ts";
import { merges } from "./merges.ts";
import { Real, configFor } from "./real.ts";
import { same } from "./same.ts";

/** Over all backends together; NEOLOG_SEQUENCES makes the run longer, NEOLOG_SEED repeats one. */
const SEQUENCES = Number(process.env["NEOLOG_SEQUENCES"] ?? 2_000);
const seed = Number(process.env["NEOLOG_SEED"] ?? Date.now() % 2 ** 31);

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 28, arbitrary: lifecycle },
  { weight: 12, arbitrary: merges },
  { weight: 6, arbitrary: saving },
  { weight: 8, arbitrary: edits },
);

const loraCommand: fc.Arbitrary<Command> = fc.oneof(
  { weight: 28, arbitrary: loraLifecycle },
  { weight: 12, arbitrary: merges },
  { weight: 6, arbitrary: saving },
);
/** LoRA's sequences for each one of rows alone. */
const LORA_SHARE = 0.25;

const backends = await computingBackends();

describe.each(backends)("adapters on $title", ({ title, backend }) => {
  beforeAll(() => setDefaultBackend(backend));
  const numRuns = Math.ceil(SEQUENCES / backends.length);

  test.each([
    { kind: "rows" as const, command, share: 1 },
    { kind: "lora" as const, command: loraCommand, share: LORA_SHARE },
  ])(
    "P-1 to P-18, P-20, P-21, P-24 to P-27: any sequence of commands, $kind, leaves what dense tables say",
    { timeout: 8 * 3_600_000 },
    async ({ kind, command, share }) => {
      const runs = Math.ceil(numRuns * share);
      console.log(`adapter state machine on ${title}: ${runs} sequences of ${kind}, NEOLOG_SEED=${seed}`);
      await fc.assert(
        fc.asyncProperty(fc.boolean(), fc.array(command, { maxLength: 30, size: "max" }), async (tied, commands) => {
          const { live } = backend;
          const real = new Real(tied, kind);
          checkInvariants(real);
          const done: string[] = [];
          for (const c of commands) await runChecked(real, c, done);
          real.dispose();
          expect(backend.live, "P-27").toBe(live);
        }),
        { numRuns: runs, seed },
      );
    },
  );
});

describe("what no sequence of commands shows", () => {
  test("P-14: disjoint adapters merge in any order", async () => {
    const tablesAfter = async (order: readonly string[]): Promise<unknown> => {
      const real = new Real(true);
      real.peft.addAdapter("b", configFor([7], "all", false), { seed: 5 });
      real.peft.addAdapter("c", configFor([0, 8], "embedding", false), { seed: 6 });
      for (const name of order) await real.peft.mergeAdapter({ adapterNames: [name] });
      return real.storedTables();
    };
    const first = await tablesAfter(["default", "b", "c"]);
    for (const order of [["c", "b", "default"], ["b", "default", "c"]]) same(await tablesAfter(order), first, "tables"); // prettier-ignore
  });

  test("P-19: permuting token_indices together with rows changes no logit", () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([0, 1, 2, 4, 5, 7, 8], { minLength: 2 }), fc.boolean(), (order, tied) => {
        const logits = [order, order.toSorted((a, b) => a - b)].map((ids) => {
          const real = new Real(tied);
          real.peft.addAdapter("p", configFor(ids, "all", true));
          for (const delta of Object.values(real.deltasOf("p")))
            put(
              delta,
              ids.flatMap((id) => [id, -id, 0.1 * id, 1]),
            );
          real.peft.setAdapter("p");
          const result = real.logits();
          real.dispose();
          return result;
        });
        same(logits[0], logits[1], "logits");
      }),
      { numRuns: 30 },
    );
  });
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
