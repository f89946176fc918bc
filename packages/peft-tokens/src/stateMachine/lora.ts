import fc from "fast-check";
import { TrainableTokensConfig } from "../index.ts";
import { Command, IDS, TARGETS, lifecycleOf, name, refuses } from "./commands.ts";
import { LINEAR_NAMES, type LinearName, type Where } from "./dense.ts";
import { type LoraGiven, loraConfigFor } from "./real.ts";
import { same } from "./same.ts";

const TARGETED: readonly (readonly LinearName[])[] = [["up_proj"], ["down_proj"], LINEAR_NAMES];

const given: fc.Arbitrary<LoraGiven> = fc.record({
  ids: fc.constantFrom(...IDS),
  where: fc.constantFrom<Where | null>(null, null, ...TARGETS),
  init: fc.boolean(),
  r: fc.constantFrom(1, 2),
  targets: fc.constantFrom(...TARGETED),
});

const add = fc.record({ name, given }).map(
  ({ name, given }): Command =>
    new Command(`add ${name} ${JSON.stringify(given)}`, (real) => {
      const { peft, dense } = real;
      const go = () => peft.addAdapter(name, loraConfigFor(given), { seed: 5 });
      if (dense.adapters.has(name)) return refuses(real, "EXISTS", go);
      const { init, r, targets, where } = given;
      const sides = where ? dense.sidesOf(where) : [];
      const ids = where ? given.ids : [];
      go();
      const values = real.valuesOf(name);
      same(Object.keys(values.rows), [...sides], "sides");
      for (const side of sides) same(values.rows[side], dense.originals(side, ids), "P-13");
      same(Object.keys(values.lora), [...targets], "targets");
      for (const { A, B, r: rank } of Object.values(values.lora)) {
        same(rank, r, "rank");
        same([A.every((x) => x === 0), B.every((x) => x === 0)], [false, init], "P-13: B is zero");
      }
      dense.adapters.set(name, { ids, ...values, requiresGrad: false });
    }),
);

const LINEAR = { ids: [1], where: null, init: true, r: 1, targets: ["up_proj"] } as const;

const addBadly = fc
  .constantFrom<[string, LoraGiven, string]>(
    ["a target that is not there", { ...LINEAR, targets: ["gate_proj" as LinearName] }, "NOT_FOUND"],
    ["rows and LoRA on the head", { ...LINEAR, where: "head", targets: ["lm_head" as LinearName] }, "TOKENS_AND_LORA"],
    ["an id out of range", { ...LINEAR, where: "embedding", ids: [9] }, "INDEX_RANGE"],
  )
  .map(
    ([title, given, code]) =>
      new Command(`add ${title}`, (real) =>
        refuses(real, code, () => real.peft.addAdapter("bad", loraConfigFor(given))),
      ),
  );

const addOther = fc.constant(
  new Command("add rows alone beside LoRA", (real) => {
    if (real.dense.adapters.size === 0) return;
    const config = new TrainableTokensConfig({ token_indices: [1] });
    return refuses(real, "TYPE_MIX", () => real.peft.addAdapter("bad", config));
  }),
);

export const loraLifecycle: fc.Arbitrary<Command> = lifecycleOf(add, fc.oneof(addBadly, addOther));
