import { type Backend, openBackend, setDefaultBackend } from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import { LoraConfig, type PeftModel, TrainableTokensConfig, getPeftModel } from "../index.ts";
import { logitsOf, makeBase, put, setRows, valuesOf } from "../testing.ts";
import { Faulty } from "./backend.ts";

let faulty: Faulty;
beforeAll(async () => {
  faulty = new Faulty(await openBackend("cpu"));
  const backend: Backend = faulty.backend;
  setDefaultBackend(backend);
});
const silent = { onWarning: (): void => {} };
const rows = (...token_indices: number[]) => new TrainableTokensConfig({ token_indices });
const lora = () =>
  new LoraConfig({
    r: 1,
    target_modules: ["q_proj", "down_proj"],
    modules_to_save: ["norm"],
    init_lora_weights: false,
  });

async function saved(peft: PeftModel, options = {}): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  await peft.savePretrained(files, options);
  return files;
}
/** A model that is two tokens larger, with whole tables beside the rows of its adapter. */
async function grownFiles(name: string): Promise<Map<string, Uint8Array>> {
  const base = makeBase(name, 5);
  base.resizeTokenEmbeddings(13);
  const peft = getPeftModel(base, rows(12, 1), silent);
  setRows(peft, "default");
  return saved(peft, { saveEmbeddingLayers: true });
}
function withLora(name: string): PeftModel {
  const peft = getPeftModel(makeBase(name), lora(), silent);
  peft.addAdapter("second", lora());
  return peft;
}

const STEPS: Readonly<
  Record<string, readonly [make: (name: string) => PeftModel, run: (peft: PeftModel, name: string) => unknown]>
> = {
  "loading whole tables of a larger vocabulary": [
    (name) => getPeftModel(makeBase(name), rows(3, 7), silent),
    async (peft, name) => peft.loadAdapter(await files.get(name)!, "new", { resize: true }),
  ],
  "loading LoRA": [withLora, async (peft) => peft.loadAdapter(await loraFiles, "new")],
  "adding LoRA": [withLora, (peft) => peft.addAdapter("new", lora())],
  "merging LoRA": [withLora, (peft) => peft.mergeAdapter({ safeMerge: true })],
  "merging LoRA and unloading": [withLora, (peft) => peft.mergeAndUnload()],
};
const files = new Map<string, Promise<Map<string, Uint8Array>>>();
let loraFiles: Promise<Map<string, Uint8Array>>;

describe.each(["llama", "llama tied"])("a fault at every call to the backend, %s:", (name) => {
  beforeAll(() => {
    files.set(name, grownFiles(name));
    loraFiles = saved(withLora(name), { selectedAdapters: ["default"] });
  });
  test.each(Object.keys(STEPS))("%s leaves the old state or the new", async (title) => {
    const [make, run] = STEPS[title]!;
    await Promise.all([files.get(name), loraFiles]);
    for (let n = 0; ; n++) {
      const peft = make(name);
      const base = peft.getBaseModel();
      if ("new" in peft.peftConfig) throw new Error("the new adapter is there already");
      for (const t of peft.parameters().filter((p) => p.requiresGrad))
        put(
          t,
          Array.from(t.dataSync(), (x, i) => x + i / 9),
        );
      const [values, logits, config] = [valuesOf(base), logitsOf(peft), base.config];
      if (!(await faulty.failsAt(n, () => run(peft, name)))) {
        expect(n).toBeGreaterThan(0);
        return;
      }
      expect(valuesOf(base), `values after fault ${n}`).toEqual(values);
      expect(base.config, `config after fault ${n}`).toEqual(config);
      expect(Object.keys(peft.peftConfig)).not.toContain("new");
      expect(peft.mergedAdapters).toEqual([]);
      expect(logitsOf(peft), `logits after fault ${n}`).toEqual(logits);
    }
  });
});
