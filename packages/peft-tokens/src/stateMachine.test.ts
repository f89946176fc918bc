import { AdamW, backward } from "@neolog/autograd";
import { AutoModelForCausalLM, type CausalLM } from "@neolog/models";
import { stateDict } from "@neolog/nn";
import { Scope, type Tensor, assign, cat, persist, setDefaultBackend, tensor } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import {
  AdapterError,
  ConfigError,
  PeftModel,
  TrainableTokensConfig,
  getPeftModel,
  tokenParameters,
  tokensOf,
} from "./index.ts";

const VOCAB = 9;
const HIDDEN = 4;
const NAMES = ["default", "b", "c"] as const;
const IDS = [[1, 2], [2, 5], [7]] as const;
const INPUT = {
  input_ids: [
    [1, 2, 5, 0, 7, 1],
    [3, 4, 8, 6, 0, 3],
  ],
  labels: [
    [1, 2, 5, 0, 7, 1],
    [3, 4, 8, 6, 0, 3],
  ],
};
/** On each backend; NEOLOG_SEQUENCES makes the run longer. */
const SEQUENCES = Number(process.env["NEOLOG_SEQUENCES"] ?? 100);

const config = (tied: boolean) => ({
  model_type: "llama",
  vocab_size: VOCAB,
  hidden_size: HIDDEN,
  intermediate_size: 6,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  tie_word_embeddings: tied,
});

type Name = (typeof NAMES)[number];
type Command =
  | { readonly kind: "add"; readonly name: Name; readonly init: boolean }
  | { readonly kind: "set" | "merge" | "requireGrad"; readonly names: readonly Name[]; readonly valid: boolean }
  | { readonly kind: "delete"; readonly name: Name }
  | { readonly kind: "disable" | "enable" | "unmerge" | "step" | "reload" | "unload" | "mergeAndUnload" };

const names = fc.uniqueArray(fc.constantFrom(...NAMES), { maxLength: 3 });
/** Three of four lists of names are cut down to what is possible, so that sequences get somewhere. */
const mostlyValid = fc.integer({ min: 0, max: 3 }).map((n) => n > 0);
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("add" as const), name: fc.constantFrom(...NAMES), init: fc.boolean() }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom(...(["set", "set", "merge", "merge", "requireGrad"] as const)),
      names,
      valid: mostlyValid,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("delete" as const), name: fc.constantFrom(...NAMES) }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom("disable" as const, "enable" as const, "reload" as const) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom("unmerge" as const, "step" as const, "step" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("unload" as const, "mergeAndUnload" as const) }) },
);

/** What should be true, kept densely and without any of the code under test. */
interface Model {
  /** The unadapted tables: embedding, and head where it is its own. */
  tables: Float32Array[];
  adapters: Map<Name, { ids: readonly number[]; rows: Float32Array[]; flag: boolean }>;
  active: Name[];
  merged: Name[];
  enabled: boolean;
}

const idsOf = (name: Name): readonly number[] => IDS[NAMES.indexOf(name)]!;
const overlaps = (list: readonly Name[]): boolean => {
  const all = list.flatMap((name) => [...idsOf(name)]);
  return new Set(all).size < all.length;
};
const withRows = (table: Float32Array, ids: readonly number[], rows: Float32Array): Float32Array => {
  const result = table.slice();
  ids.forEach((id, slot) => result.set(rows.subarray(slot * HIDDEN, (slot + 1) * HIDDEN), id * HIDDEN));
  return result;
};
const effective = ({ enabled, merged, active }: Model): Name[] => (enabled ? [...new Set([...merged, ...active])] : []);
const tableWith = (model: Model, which: number, list: readonly Name[]): Float32Array =>
  list.reduce(
    (t, name) => withRows(t, model.adapters.get(name)!.ids, model.adapters.get(name)!.rows[which]!),
    model.tables[which]!,
  );

class Machine {
  readonly tied: boolean;
  readonly targets: readonly string[];
  readonly base: CausalLM;
  /** A plain model for the expected logits. */
  readonly plain: CausalLM;
  peft: PeftModel;
  model: Model;

  constructor(tied: boolean, bothEnds: boolean) {
    this.tied = tied;
    this.targets = bothEnds ? ["embed_tokens", "lm_head"] : ["embed_tokens"];
    this.base = AutoModelForCausalLM.fromConfig(config(tied), { seed: 3, std: 0.5 });
    this.plain = AutoModelForCausalLM.fromConfig(config(tied), { seed: 3, std: 0.5 });
    this.model = { tables: this.tablesOf(this.base), adapters: new Map(), active: [], merged: [], enabled: true };
    this.peft = this.wrap();
  }
  /** Tables that adapters write: the embedding's, and an untied head's where it is a target. */
  weightsOf(model: CausalLM): Tensor[] {
    const all = stateDict(model);
    return [...all]
      .flatMap(([key, t]) => (/embed_tokens.*weight|lm_head.*weight/.test(key) ? [t] : []))
      .toSorted((a, b) => keyRank(all, a) - keyRank(all, b));
  }
  tablesOf(model: CausalLM): Float32Array[] {
    return this.weightsOf(model).map((t) => t.dataSync() as Float32Array);
  }
  wrap(): PeftModel {
    const peft = getPeftModel(this.base, this.config("default", true), { onWarning: () => {} });
    this.model = { ...this.model, adapters: new Map(), active: ["default"], merged: [], enabled: true };
    this.remember("default", peft, true);
    return peft;
  }
  config(name: Name, init_weights: boolean): TrainableTokensConfig {
    return new TrainableTokensConfig({
      token_indices: idsOf(name),
      target_modules: this.targets,
      init_weights,
      task_type: "CAUSAL_LM",
    });
  }
  rowsOf(peft: PeftModel, name: Name): Float32Array[] {
    return [...peft.layers().values()].map((layer) => layer.trainable_tokens_delta[name]!.dataSync() as Float32Array);
  }
  remember(name: Name, peft: PeftModel, flag: boolean): void {
    this.model.adapters.set(name, { ids: idsOf(name), rows: this.rowsOf(peft, name), flag });
  }
  expectedLogits(list: readonly Name[]): Float32Array {
    using _scope = new Scope();
    const adapted = this.peft.layers().size === 0 ? 1 : this.peft.layers().size;
    this.weightsOf(this.plain).forEach((t, i) =>
      assign(t, tensor(i < adapted ? tableWith(this.model, i, list) : this.model.tables[i]!, t.shape)),
    );
    return this.plain.forward(INPUT).logits.dataSync() as Float32Array;
  }
  logits(): Float32Array {
    using _scope = new Scope();
    return this.peft.forward(INPUT).logits.dataSync() as Float32Array;
  }
  /** Everything that a command may change, for P-8. */
  snapshot(): unknown {
    const { peft } = this;
    return {
      tables: this.tablesOf(this.base),
      active: peft.activeAdapters,
      merged: peft.mergedAdapters,
      enabled: peft.enabled,
      rows: Object.keys(peft.peftConfig).map((name) => [
        name,
        this.rowsOf(peft, name as Name),
        peft.requiresGradOf(name),
      ]),
      status: peft.getLayerStatus(),
    };
  }

  /** The known names of the list, without those that overlap an earlier one or what stays in effect. */
  possible(list: readonly Name[], staying: readonly Name[]): Name[] {
    const known = list.filter((name) => this.model.adapters.has(name));
    return known.reduce<Name[]>(
      (kept, name) => (overlaps([...new Set([...staying, ...kept, name])]) ? kept : [...kept, name]),
      [],
    );
  }

  async run(drawn: Command): Promise<void> {
    const { peft, model } = this;
    const staying = drawn.kind === "merge" ? [...model.merged, ...model.active] : [];
    const c = "valid" in drawn && drawn.valid ? { ...drawn, names: this.possible(drawn.names, staying) } : drawn;
    const unknown = (list: readonly Name[]): boolean => list.some((name) => !model.adapters.has(name));
    const fails = async (run: () => unknown, code: string): Promise<void> => {
      const before = this.snapshot();
      const error = await Promise.resolve()
        .then(run)
        .then(
          () => null,
          (e: unknown) => e,
        );
      expect(error instanceof AdapterError || error instanceof ConfigError, `${c.kind} must fail with ${code}`).toBe(
        true,
      );
      expect((error as AdapterError).code).toBe(code);
      expect(this.snapshot()).toEqual(before); // P-8
    };
    switch (c.kind) {
      case "add":
        if (model.adapters.has(c.name))
          return fails(() => peft.addAdapter(c.name, this.config(c.name, c.init)), "EXISTS");
        peft.addAdapter(c.name, this.config(c.name, c.init), { seed: 5 });
        this.remember(c.name, peft, false);
        if (c.init)
          model.adapters
            .get(c.name)!
            .rows.forEach((rows, i) =>
              expect(withRows(model.tables[i]!, idsOf(c.name), rows)).toEqual(model.tables[i]),
            ); // P-13
        return;
      case "set":
        if (unknown(c.names)) return fails(() => peft.setAdapter(c.names), "UNKNOWN");
        if (overlaps(c.names)) return fails(() => peft.setAdapter(c.names), "OVERLAP");
        peft.setAdapter(c.names);
        model.active = [...c.names];
        model.merged = [];
        for (const [name, adapter] of model.adapters) adapter.flag = c.names.includes(name);
        return;
      case "merge": {
        if (unknown(c.names)) return fails(() => peft.mergeAdapter({ adapterNames: c.names }), "UNKNOWN");
        const all = [...new Set([...model.merged, ...c.names, ...model.active])];
        if (overlaps(all)) return fails(() => peft.mergeAdapter({ adapterNames: c.names, safeMerge: true }), "OVERLAP");
        const before = this.logits();
        const inEffect = effective(model);
        await peft.mergeAdapter({ adapterNames: c.names, safeMerge: true });
        model.merged = [...new Set([...model.merged, ...c.names])];
        if (effective(model).length === inEffect.length) expect(this.logits()).toEqual(before); // P-6
        return;
      }
      case "requireGrad":
        if (unknown(c.names)) return fails(() => peft.setRequiresGrad(c.names), "UNKNOWN");
        peft.setRequiresGrad(c.names, true);
        for (const name of c.names) model.adapters.get(name)!.flag = true;
        return;
      case "delete": {
        if (!model.adapters.has(c.name)) return fails(() => peft.deleteAdapter(c.name), "UNKNOWN");
        if (model.merged.includes(c.name)) return fails(() => peft.deleteAdapter(c.name), "MERGED");
        peft.deleteAdapter(c.name);
        model.adapters.delete(c.name);
        const wasActive = model.active.includes(c.name);
        model.active = model.active.filter((name) => name !== c.name);
        const [next] = [...model.adapters.keys()].toSorted();
        if (wasActive && model.active.length === 0 && next) {
          model.active = [next];
          model.adapters.get(next)!.flag = true;
        }
        return;
      }
      case "disable":
        peft.disableAdapterLayers();
        model.enabled = false;
        return;
      case "enable":
        peft.enableAdapterLayers();
        model.enabled = true;
        return;
      case "unmerge":
        peft.unmergeAdapter();
        model.merged = [];
        expect(this.tablesOf(this.base)).toEqual(model.tables); // P-3
        return;
      case "step":
        return this.step();
      case "reload":
        return this.reload();
      case "unload":
        expect(peft.unload()).toBe(this.base);
        expect(this.tablesOf(this.base)).toEqual(model.tables); // P-20
        this.peft = this.wrap();
        return;
      case "mergeAndUnload": {
        if (overlaps([...new Set([...model.merged, ...model.active])]))
          return fails(() => peft.mergeAndUnload(), "OVERLAP");
        const list = [...new Set([...model.merged, ...model.active])];
        const tables = model.tables.map((t, i) =>
          i < Math.max(1, peft.layers().size) ? tableWith(model, i, list) : t,
        );
        await peft.mergeAndUnload();
        expect(this.tablesOf(this.base)).toEqual(tables);
        model.tables = tables;
        this.peft = this.wrap();
        return;
      }
    }
  }

  /** P-11, P-12: gradients exactly for what is trainable, in effect and unmerged; a step changes only that. */
  step(): void {
    const { peft, model } = this;
    const trains = model.enabled
      ? model.active.filter((name) => !model.merged.includes(name) && model.adapters.get(name)!.flag)
      : [];
    using _scope = new Scope();
    const parameters = tokenParameters(peft);
    const { loss } = peft.forward(INPUT);
    expect(loss!.tracked).toBe(trains.length > 0);
    if (trains.length === 0) return;
    backward(loss!);
    for (const layer of peft.layers().values()) {
      for (const name of layer.adapters)
        expect(layer.trainable_tokens_delta[name]!.grad !== null, name).toBe(trains.includes(name as Name));
    }
    for (const p of this.base.parameters()) if (!parameters.includes(p)) expect(p.grad).toBeNull();
    const optimizer = new AdamW(parameters, { lr: 0.1 });
    optimizer.step();
    optimizer.dispose();
    for (const [name, adapter] of model.adapters) {
      const rows = this.rowsOf(peft, name);
      if (trains.includes(name)) adapter.rows = rows;
      else expect(rows).toEqual(adapter.rows);
    }
  }

  /** P-17, P-18: what is saved is what loads, whatever is active, merged or disabled. */
  async reload(): Promise<void> {
    const files = new Map<string, Uint8Array>();
    const before = this.snapshot();
    if (this.model.adapters.size === 0) return;
    await this.peft.savePretrained(files);
    expect(this.snapshot()).toEqual(before); // P-7
    for (const [name, { ids, rows }] of this.model.adapters) {
      const fresh = AutoModelForCausalLM.fromConfig(config(this.tied), { seed: 3, std: 0.5 });
      const loaded = await PeftModel.fromPretrained(fresh, files, {
        adapterName: "other",
        onWarning: () => {},
        ...(name === "default" ? {} : { subfolder: name }),
      });
      expect([...loaded.layers().values()].map((layer) => layer.trainable_tokens_delta["other"]!.dataSync())).toEqual(
        rows,
      );
      expect(tokensOf(loaded.peftConfig["other"]!)).toEqual([...ids]);
      const file = files.get(`${name === "default" ? "" : `${name}/`}adapter_model.safetensors`)!;
      expect(file.byteLength).toBeLessThanOrEqual(512 + 2 * ids.length * HIDDEN * 4);
      for (const t of loaded.unload().parameters()) t.dispose();
    }
  }

  check(): void {
    const { peft, model } = this;
    const logits = this.logits();
    expect(logits).toEqual(this.expectedLogits(effective(model))); // P-1, P-2
    this.tablesOf(this.base).forEach((table, i) => {
      expect(table).toEqual(i < Math.max(1, peft.layers().size) ? tableWith(model, i, model.merged) : model.tables[i]); // P-3, P-4
    });
    for (const [i, layer] of [...peft.layers().values()].entries()) {
      for (const name of layer.adapters) {
        const original = layer.originalOf(name).dataSync() as Float32Array;
        expect(withRows(model.tables[i]!, idsOf(name as Name), original)).toEqual(model.tables[i]); // P-5
      }
    }
    expect(overlaps([...new Set([...model.merged, ...model.active])])).toBe(false); // P-9
    for (const [name, { flag }] of model.adapters) expect(peft.requiresGradOf(name)).toBe(flag); // P-10
    for (const p of this.base.parameters())
      if (!Object.values(this.deltas()).includes(p)) expect(p.requiresGrad).toBe(false);
    for (const status of peft.getLayerStatus()) {
      expect(status.active_adapters).toEqual(model.active); // P-16
      expect(status.merged_adapters).toEqual(model.merged);
    }
    const sizes = [...model.adapters].map(([, { rows }]) => rows.reduce((n, r) => n + r.length, 0));
    const trainable = [...model.adapters].map(([, { rows, flag }]) =>
      flag && model.enabled ? rows.reduce((n, r) => n + r.length, 0) : 0,
    );
    const plain = this.plain.parameters().reduce((n, t) => n + t.size, 0);
    expect(peft.getNbTrainableParameters()).toEqual({ trainable: total(trainable), all: plain + total(sizes) }); // P-21
    expect(this.logits()).toEqual(logits); // P-7
  }
  deltas(): Tensor[] {
    return [...this.peft.layers().values()].flatMap((layer) => Object.values(layer.trainable_tokens_delta));
  }
  dispose(): void {
    for (const model of [this.peft.unload(), this.plain]) for (const t of model.parameters()) t.dispose();
  }
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const keyRank = (all: ReadonlyMap<string, Tensor>, t: Tensor): number =>
  [...all].find(([, x]) => x === t)![0].includes("embed_tokens") ? 0 : 1;

const backends = await computingBackends();

describe.each(backends)("adapters on $title", ({ title, backend }) => {
  beforeAll(() => setDefaultBackend(backend));

  test("P-1 to P-21: any sequence of commands leaves what a dense table says", { timeout: 300_000 }, async () => {
    const seed = Number(process.env["NEOLOG_SEED"] ?? Date.now() % 2 ** 31);
    console.log(`adapter state machine on ${title}: ${SEQUENCES} sequences, NEOLOG_SEED=${seed}`);
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.boolean(),
        fc.array(command, { maxLength: 30 }),
        async (tied, bothEnds, commands) => {
          const { live } = backend;
          const machine = new Machine(tied, bothEnds);
          machine.check();
          for (const c of commands) {
            await machine.run(c);
            machine.check();
          }
          machine.dispose();
          expect(backend.live).toBe(live); // P-27
        },
      ),
      { numRuns: SEQUENCES, seed },
    );
  });

  test("P-14: merging twice is merging once, and disjoint adapters merge in any order", async () => {
    const merged = async (order: Name[]): Promise<Float32Array[]> => {
      const machine = new Machine(true, false);
      machine.peft.addAdapter("c", machine.config("c", false), { seed: 5 });
      machine.peft.setAdapter(["default", "c"]);
      for (const name of [...order, order[0]!]) await machine.peft.mergeAdapter({ adapterNames: [name] });
      return machine.tablesOf(machine.base);
    };
    expect(await merged(["default", "c"])).toEqual(await merged(["c", "default"]));
  });

  test.each([true, false])(
    "P-20: without adapters, or with none of them merged, the base is left (tied %s)",
    async (tied) => {
      for (const leave of [
        async (peft: PeftModel) => {
          for (const name of Object.keys(peft.peftConfig)) peft.deleteAdapter(name);
        },
        async (peft: PeftModel) => peft.unload(),
        async (peft: PeftModel) => peft.mergeAndUnload({ adapterNames: [] }),
      ]) {
        const machine = new Machine(tied, true);
        const before = machine.expectedLogits([]);
        machine.peft.addAdapter("c", machine.config("c", false));
        machine.step();
        await leave(machine.peft);
        expect(machine.base.forward(INPUT).logits.dataSync()).toEqual(before);
        expect(machine.tablesOf(machine.base)).toEqual(machine.model.tables);
      }
    },
  );

  test("P-19: permuting token_indices together with rows changes no logit", () => {
    const machine = new Machine(true, false);
    const order = [7, 2, 5, 1];
    const logits = [order, order.toReversed()].map((ids) => {
      const base = AutoModelForCausalLM.fromConfig(config(true), { seed: 3, std: 0.5 });
      const peft = getPeftModel(base, new TrainableTokensConfig({ token_indices: ids }), { onWarning: () => {} });
      const [delta] = tokenParameters(peft);
      assign(delta!, persist(cat(ids.map((id) => tensor([id, -id, 0.1 * id, 1], [1, HIDDEN])))));
      return peft.forward(INPUT).logits.dataSync();
    });
    expect(logits[0]).toEqual(logits[1]);
    machine.dispose();
  });
});
