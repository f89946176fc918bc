import fc from "fast-check";
import { expect } from "vitest";
import { PeftModel, tokensOf } from "../index.ts";
import { Command, name, refuses } from "./commands.ts";
import { HIDDEN, SIDES } from "./dense.ts";
import { dispose } from "./real.ts";
import { same } from "./same.ts";

/** P-7, P-17, P-18: saving changes nothing, and what is saved is what loads, whatever is active, merged or disabled. */
const save = fc.constant(
  new Command("save and reload", async (real) => {
    const { peft, dense, saved } = real;
    if (dense.adapters.size === 0) return refuses(real, "UNKNOWN", () => peft.savePretrained(new Map()));
    const before = real.snapshot();
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    same(real.snapshot(), before, "P-7");
    for (const [name, { ids, rows, lora }] of dense.adapters) {
      const own = new Map([...files].flatMap(([file, bytes]) => fileOf(name, file, bytes)));
      const base = real.freshBase();
      const loaded = await PeftModel.fromPretrained(base, own, { adapterName: "other", onWarning: () => {} });
      same([...new Set(tokensOf(loaded.peftConfig["other"]!))], [...ids], "P-17");
      same(real.loraOf("other", loaded), lora, "P-17");
      expect(loaded.peftConfig["other"]!.task_type, "P-17").toBe("CAUSAL_LM");
      real.checkLogits(real.logits(loaded), [name], "P-17");
      dispose(loaded.unload());
      const copies = Object.keys(rows).length;
      const file = own.get("adapter_model.safetensors")!;
      const header = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
      if (real.kind === "rows") expect(file.byteLength, "P-18").toBe(header + 4 * HIDDEN * ids.length * copies);
      saved.set(name, { files: own, adapter: { ids, rows, lora, tied: dense.tied }, places: placesOf(peft, name) });
    }
  }),
);

const placesOf = (peft: PeftModel, name: string): string =>
  [...peft.layers()].flatMap(([path, layer]) => (layer.has(name) ? [path] : [])).join();

const fileOf = (name: string, file: string, bytes: Uint8Array): [string, Uint8Array][] => {
  if (name === "default") return file.includes("/") ? [] : [[file, bytes]];
  return file.startsWith(`${name}/`) ? [[file.slice(name.length + 1), bytes]] : [];
};

const load = fc.record({ from: name, name, isTrainable: fc.boolean() }).map(
  ({ from, name, isTrainable }): Command =>
    new Command(`load ${name} from ${from}${isTrainable ? " to train" : ""}`, async (real) => {
      const { peft, dense } = real;
      const source = real.saved.get(from);
      if (!source) return;
      const go = () => peft.loadAdapter(source.files, name, { isTrainable });
      if (dense.adapters.has(name)) return refuses(real, "EXISTS", go);
      const report = await go();
      expect(report).toEqual({ missingKeys: [], unexpectedKeys: [], mismatchedKeys: [] });
      const { rows, lora } = real.valuesOf(name);
      for (const side of SIDES) same(rows[side], source.adapter.rows[side], "P-17");
      same(lora, source.adapter.lora, "P-17");
      dense.adapters.set(name, { ids: source.adapter.ids, rows, lora, requiresGrad: isTrainable });
    }),
);

export const saving: fc.Arbitrary<Command> = fc.oneof(save, load);
