import { type Backend, openBackend, setDefaultBackend } from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import type { PeftModel } from "../index.ts";
import { put } from "../testing.ts";
import { Real, configFor } from "../stateMachine/real.ts";
import { same } from "../stateMachine/same.ts";
import { Faulty } from "./backend.ts";

let faulty: Faulty;
let backend: Backend;
beforeAll(async () => {
  faulty = new Faulty(await openBackend("cpu"));
  ({ backend } = faulty);
  setDefaultBackend(backend);
});

/** Adapters of the embedding, the head and a third module; the first two are active. */
function world(tied: boolean): Real {
  const real = new Real(tied);
  const { peft } = real;
  peft.addAdapter("b", configFor([5, 7], "all", false), { seed: 6 });
  peft.addAdapter("c", configFor([0, 8], "embedding", false), { seed: 7 });
  peft.addAdapter("h", configFor([4], "head", false), { seed: 8 });
  peft.setAdapter(["default", "b"]);
  return real;
}
async function filesOf(peft: PeftModel, saveEmbeddingLayers = false): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files, { saveEmbeddingLayers });
  return files;
}
/** Files with whole tables, of other values than the world's. */
async function whole(tied: boolean): Promise<Map<string, Uint8Array>> {
  const { peft, base } = world(tied);
  for (const t of base.parameters())
    put(
      t,
      Float32Array.from(t.dataSync(), (x) => x + 1),
    );
  return filesOf(peft, true);
}

/** All but the count of buffers: an operation that fails inside the engine leaves its result behind. */
const stateOf = (real: Real): object => ({ ...(real.snapshot() as object), live: null });

interface Step {
  /** What there is to load; the world's own adapters by default. */
  readonly files?: (tied: boolean) => Promise<Map<string, Uint8Array>>;
  readonly before?: (peft: PeftModel) => unknown;
  readonly run: (peft: PeftModel, files: Map<string, Uint8Array>) => unknown;
}
const merged = (peft: PeftModel) => peft.mergeAdapter({ adapterNames: ["b", "c"] });
const STEPS: Readonly<Record<string, Step>> = {
  "merging the active": { run: (peft) => peft.mergeAdapter() },
  "merging safely": { run: (peft) => peft.mergeAdapter({ adapterNames: ["c", "b"], safeMerge: true }) },
  "merging and untying": { run: (peft) => peft.mergeAdapter({ adapterNames: ["h", "c"], untie: true }) },
  "merging beside what is merged": { before: merged, run: (peft) => peft.mergeAdapter({ adapterNames: ["default"] }) },
  "merging and unloading": { run: (peft) => peft.mergeAndUnload({ safeMerge: true }) },
  unmerging: { before: merged, run: (peft) => peft.unmergeAdapter() },
  "setting while merged": { before: merged, run: (peft) => peft.setAdapter(["c", "h"]) },
  adding: { run: (peft) => peft.addAdapter("new", configFor([3, 1], "all", false)) },
  "adding while merged": { before: merged, run: (peft) => peft.addAdapter("new", configFor([5, 0], "all", true)) },
  loading: { run: (peft, files) => peft.loadAdapter(files, "new", { subfolder: "b" }) },
  swapping: { run: (peft, files) => peft.hotswapAdapter(files, "c", { subfolder: "c" }) },
  combining: { run: (peft) => peft.addWeightedAdapter(["c", "default"], [0.5, 2], "new") },
  "taking a union": { run: (peft) => peft.combineAdapters(["c", "default"], "new") },
  extending: { run: (peft) => peft.extendAdapter("b", [3, 6]) },
  "removing tokens": { run: (peft) => peft.removeTokens("b", [5]) },
  remapping: { run: (peft) => peft.remapTokens("b", new Map([[5, 6]])) },
  "loading whole tables": { files: whole, run: (peft, files) => peft.loadAdapter(files, "new", { subfolder: "b" }) },
  unloading: { before: merged, run: (peft) => peft.unload() },
  saving: { before: merged, run: (peft) => peft.savePretrained(new Map(), { saveEmbeddingLayers: true }) },
  "a forward pass": { before: merged, run: (peft) => peft.forward({ input_ids: [[1, 5, 8]] }) },
};

describe.each([true, false])("a fault at every call to the backend, tied %s:", (tied) => {
  test.each(Object.keys(STEPS))("%s leaves the old state or the new", async (title) => {
    const { before, run, files: given } = STEPS[title]!;
    for (let n = 0; ; n++) {
      const real = world(tied);
      const files = given ? await given(tied) : await filesOf(real.peft);
      await before?.(real.peft);
      const [old, logits] = [stateOf(real), real.logits()];
      if (!(await faulty.failsAt(n, () => run(real.peft, files)))) {
        expect(n).toBeGreaterThan(0);
        return;
      }
      same(stateOf(real), old, `fault ${n}`);
      same(real.logits(), logits, `logits after fault ${n}`);
      real.peft.unload();
      same(real.storedTables(), real.dense.tables, `base after fault ${n}`);
    }
  });
});
