import type { CausalLM } from "@neolog/models";
import { Scope, type Tensor } from "@neolog/tensor";
import { PeftModel, TrainableTokensConfig, type TrainableTokensLayer, getPeftModel } from "../index.ts";
import { put } from "../testing.ts";
import { Dense, SIDES, type Side, type Sides, WHERE, type Where, everySide } from "./dense.ts";
import { Tiny } from "./tiny.ts";

export const INPUT = {
  input_ids: [
    [1, 2, 5, 0, 7, 1],
    [3, 4, 8, 6, 0, 3],
  ],
  labels: [
    [1, 2, 5, 0, 7, 1],
    [3, 4, 8, 6, 0, 3],
  ],
};
const PATHS: Sides<string> = { input: "embed_tokens", second: "second", output: "lm_head" };

/** The model under test, the oracle beside it, and a plain untied twin that computes what the oracle's tables give. */
export class Real {
  readonly dense: Dense;
  /** What the last save of each adapter wrote, and what it held. */
  readonly saved = new Map<string, Saved>();
  base: CausalLM;
  peft: PeftModel;
  readonly #twin = new Tiny(false);

  constructor(tied: boolean) {
    this.base = new Tiny(tied);
    this.dense = new Dense(this.storedTables(), tied);
    this.peft = this.wrap();
  }

  /** Puts a first adapter on the base as it is. */
  wrap(): PeftModel {
    const { dense } = this;
    this.peft = getPeftModel(this.base, configFor([1, 2], "embedding", false), { onWarning: () => {}, seed: 5 });
    dense.adapters.clear();
    dense.adapters.set("default", { ids: [1, 2], rows: this.rowsOf("default"), requiresGrad: true });
    dense.active = ["default"];
    dense.merged = [];
    dense.enabled = true;
    return this.peft;
  }

  /** The layers by the sides that they serve; a walk of the tree. */
  layers(): Partial<Record<Side, TrainableTokensLayer>> {
    const layers = this.peft.layers();
    return present(everySide((side) => layers.get(PATHS[side])));
  }
  /** The parameters of an adapter by the sides that read them. */
  deltasOf(name: string, layers = this.layers()): Partial<Record<Side, Tensor>> {
    const found = everySide((side) => layers[side]?.trainable_tokens_delta[name]);
    const output = found.output ?? (this.dense.tied ? found.input : undefined);
    return present({ ...found, output });
  }
  rowsOf(name: string, layers = this.layers()): Partial<Record<Side, Float32Array>> {
    return hostRows(this.deltasOf(name, layers));
  }
  /** The tables as they are stored now, with whatever is merged. */
  storedTables(): Sides<Float32Array> {
    const input = plainAt(this.base, "input")!;
    return everySide((side) => (plainAt(this.base, side) ?? input).dataSync() as Float32Array);
  }
  logits(model: CausalLM | PeftModel = this.peft): Float32Array {
    using _scope = new Scope();
    return model.forward(INPUT).logits.dataSync() as Float32Array;
  }
  /** Logits of the dense tables with the rows of the named adapters. */
  expectedLogits(names: readonly string[]): Float32Array {
    return this.logits(this.twinWith(names));
  }
  twinWith(names: readonly string[]): CausalLM {
    fill(this.#twin, this.dense.tablesWith(names));
    return this.#twin;
  }
  /** A base of its own with the unadapted tables. */
  freshBase(): CausalLM {
    const base = new Tiny(this.dense.tied);
    fill(base, this.dense.tables);
    return base;
  }
  /** Everything that a command may change. */
  snapshot(): unknown {
    const { peft } = this;
    const names = Object.keys(peft.peftConfig);
    return {
      tables: this.storedTables(),
      tied: this.base.tiedPaths,
      active: peft.activeAdapters,
      merged: peft.mergedAdapters,
      enabled: peft.enabled,
      adapters: names.map((name) => [
        name,
        peft.peftConfig[name]!.toJSON(),
        this.rowsOf(name),
        peft.requiresGradOf(name),
      ]),
      status: peft.getLayerStatus(),
      counted: peft.getNbTrainableParameters(),
      live: peft.layers().values().next().value?.table.backend.live,
    };
  }
  dispose(): void {
    for (const model of [this.peft.unload(), this.#twin]) dispose(model);
  }
}

export interface Saved {
  readonly files: Map<string, Uint8Array>;
  readonly adapter: SavedAdapter;
  /** Paths of the modules with its rows. */
  readonly places: string;
}
interface SavedAdapter {
  readonly ids: readonly number[];
  readonly rows: Partial<Record<Side, Float32Array>>;
  /** The base it was saved from had a tied head. */
  readonly tied: boolean;
}

export const configFor = (token_indices: readonly number[], where: Where, init_weights: boolean) =>
  new TrainableTokensConfig({
    token_indices,
    target_modules: where === "embedding" ? null : WHERE[where].map((side) => PATHS[side]),
    init_weights,
    task_type: "CAUSAL_LM",
  });

/** Host copies; sides that share a parameter share the copy. */
function hostRows(deltas: Partial<Record<Side, Tensor>>): Partial<Record<Side, Float32Array>> {
  const copies = new Map(Object.values(deltas).map((t) => [t, t.dataSync() as Float32Array]));
  return present(everySide((side) => (deltas[side] ? copies.get(deltas[side]) : undefined)));
}

function present<T>(sides: Sides<T | undefined>): Partial<Record<Side, T>> {
  return Object.fromEntries(Object.entries(sides).filter(([, value]) => value !== undefined));
}

export function dispose(model: CausalLM): void {
  for (const t of model.parameters()) t.dispose();
}

/** Writes tables into a plain model. */
function fill(model: CausalLM, tables: Sides<Float32Array>): void {
  for (const side of SIDES) {
    const table = plainAt(model, side);
    if (table) put(table, tables[side]);
  }
}

/** The table that a module has of its own, under a wrapper that may be there. */
function plainAt(model: CausalLM, side: Side): Tensor | undefined {
  const module = model.moduleAt(`${PATHS[side]}.base_layer`) ?? model.moduleAt(PATHS[side]);
  return (module as { weight?: Tensor } | undefined)?.weight;
}
