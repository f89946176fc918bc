import type { CausalLM } from "@neolog/models";
import type { Linear } from "@neolog/nn";
import { type Backend, Scope, type Tensor } from "@neolog/tensor";
import { LoraConfig, PeftModel, TrainableTokensConfig, type TrainableTokensLayer, getPeftModel } from "../index.ts";
import { put } from "../testing.ts";
import {
  Dense,
  type DenseAdapter,
  LINEAR_NAMES,
  type LinearName,
  type Linears,
  type Loras,
  SIDES,
  type Side,
  type Sides,
  WHERE,
  type Where,
  everySide,
} from "./dense.ts";
import { near, same } from "./same.ts";
import { Tiny, TinyMlp } from "./tiny.ts";

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
  /** What its adapters are: rows alone, or LoRA with or without rows. */
  readonly kind: Kind;
  readonly #twin: Tiny;

  constructor(tied: boolean, kind: Kind = "rows") {
    this.kind = kind;
    this.#twin = this.#tiny(false);
    this.base = this.#tiny(tied);
    this.dense = new Dense(this.storedTables(), this.storedLinears(), tied);
    this.peft = this.wrap();
  }

  /** Puts a first adapter on the base as it is. */
  wrap(): PeftModel {
    const { dense } = this;
    const lora = { ids: [1, 2], where: "embedding", init: false, r: 2, targets: LINEAR_NAMES } as const;
    const config = this.kind === "lora" ? loraConfigFor(lora) : configFor([1, 2], "embedding", false);
    this.peft = getPeftModel(this.base, config, { onWarning: () => {}, seed: 5 });
    dense.adapters.clear();
    dense.adapters.set("default", { ids: [1, 2], ...this.valuesOf("default"), requiresGrad: true });
    dense.active = ["default"];
    dense.overlap = "error";
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
  /** A and B of an adapter by module. */
  matricesOf(name: string, peft = this.peft): Partial<Record<LinearName, readonly [A: Tensor, B: Tensor]>> {
    if (this.kind === "rows") return {};
    const layers = peft.adapters.layers();
    const found = LINEAR_NAMES.map((module) => {
      const tensors = layers.get(module)?.tensorsOf(name);
      return [module, tensors?.size ? [tensors.get("lora_A.weight")!, tensors.get("lora_B.weight")!] : undefined];
    });
    return Object.fromEntries(found.filter(([, matrices]) => matrices !== undefined));
  }
  loraOf(name: string, peft = this.peft): Loras {
    const matrices = Object.entries(this.matricesOf(name, peft));
    return Object.fromEntries(
      matrices.map(([module, [A, B]]) => {
        const [r] = A.shape as [number];
        return [module, { A: A.dataSync(), B: B.dataSync(), r, scale: LORA_ALPHA / r }];
      }),
    );
  }
  /** What an adapter holds, read from the model. */
  valuesOf(name: string): Pick<DenseAdapter, "rows" | "lora"> {
    return { rows: this.rowsOf(name), lora: this.loraOf(name) };
  }
  /** The weights as they are stored now, with whatever is merged. */
  storedLinears(): Linears {
    const stored = (module: LinearName): Float32Array =>
      (linearAt(this.base, module)?.dataSync() as Float32Array | undefined) ?? new Float32Array();
    return { up_proj: stored("up_proj"), down_proj: stored("down_proj") };
  }
  /** P-3, P-4: what is stored is W₀ with the named adapters written into it, near where that is LoRA. */
  checkStoredLinears(names: readonly string[], what: string): void {
    const stored = this.storedLinears();
    const expected = this.dense.linearsWith(names);
    for (const module of LINEAR_NAMES) {
      const isNear = names.some((name) => this.dense.get(name).lora[module]);
      (isNear ? near : same)(stored[module], expected[module], `${what}: ${module}`);
    }
  }
  /** Logits are those of the dense model with the named adapters. */
  checkLogits(actual: Float32Array, names: readonly string[], what: string): void {
    (this.dense.isNear(names) ? near : same)(actual, this.expectedLogits(names), what);
  }
  get backend(): Backend {
    return plainAt(this.base, "input")!.backend;
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
    fill(this.#twin, this.dense.tablesWith(names), this.dense.linearsWith(names));
    return this.#twin;
  }
  /** A base of its own with the unadapted tables. */
  freshBase(): CausalLM {
    const base = this.#tiny(this.dense.tied);
    fill(base, this.dense.tables, this.dense.linears);
    return base;
  }
  #tiny(tied: boolean): Tiny {
    return this.kind === "lora" ? new TinyMlp(tied) : new Tiny(tied);
  }
  /** Everything that a command may change. */
  snapshot(): unknown {
    const { peft } = this;
    const names = Object.keys(peft.peftConfig);
    return {
      tables: this.storedTables(),
      linears: this.storedLinears(),
      tied: this.base.tiedPaths,
      active: peft.activeAdapters,
      merged: peft.mergedAdapters,
      enabled: peft.enabled,
      adapters: names.map((name) => [
        name,
        peft.peftConfig[name]!.toJSON(),
        this.valuesOf(name),
        peft.requiresGradOf(name),
      ]),
      status: peft.getLayerStatus(),
      counted: peft.getNbTrainableParameters(),
      live: this.backend.live,
    };
  }
  dispose(): void {
    for (const model of [this.peft.unload(), this.#twin]) dispose(model);
  }
}

export type Kind = "rows" | "lora";

export interface Saved {
  readonly files: Map<string, Uint8Array>;
  readonly adapter: SavedAdapter;
  /** Paths of the modules with its rows. */
  readonly places: string;
}
interface SavedAdapter {
  readonly ids: readonly number[];
  readonly rows: Partial<Record<Side, Float32Array>>;
  readonly lora: Loras;
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

const LORA_ALPHA = 3;

/** LoRA's config in code; `where`: null for no rows. */
export interface LoraGiven {
  readonly ids: readonly number[];
  readonly where: Where | null;
  /** B starts at zero. */
  readonly init: boolean;
  readonly r: number;
  readonly targets: readonly LinearName[];
}
export const loraConfigFor = ({ ids, where, init, r, targets }: LoraGiven): LoraConfig =>
  new LoraConfig({
    r,
    lora_alpha: LORA_ALPHA,
    target_modules: targets,
    init_lora_weights: init,
    trainable_token_indices: where && Object.fromEntries(WHERE[where].map((side) => [PATHS[side], ids])),
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
function fill(model: CausalLM, tables: Sides<Float32Array>, linears: Linears): void {
  for (const module of LINEAR_NAMES) {
    const weight = linearAt(model, module);
    if (weight) put(weight, linears[module]);
  }
  for (const side of SIDES) {
    const table = plainAt(model, side);
    if (table) put(table, tables[side]);
  }
}

/** The table that a module has of its own, under a wrapper that may be there. */
function plainAt(model: CausalLM, side: Side): Tensor | undefined {
  const path = PATHS[side];
  const wrapped = ["token_adapter.base_layer", "base_layer"].map((key) => model.moduleAt(`${path}.${key}`));
  const module = wrapped.find((found) => found) ?? model.moduleAt(path);
  return (module as { weight?: Tensor } | undefined)?.weight;
}

function linearAt(model: CausalLM, path: LinearName): Tensor | undefined {
  const module = model.moduleAt(`${path}.base_layer`) ?? model.moduleAt(path);
  return (module as Linear | undefined)?.weight;
}
