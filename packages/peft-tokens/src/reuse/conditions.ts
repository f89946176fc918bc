import { CausalLM } from "@neolog/models";
import type { Tensor } from "@neolog/tensor";
import { TrainableTokensLayer } from "../layer.ts";
import type { AnyPeftModel } from "../model.ts";

/** Where rows train, while only that changes what the model computes. */
export interface RowsAlone {
  readonly model: CausalLM;
  /** Ids whose lookups are other than the table's. */
  readonly input: ReadonlySet<number>;
  /** All that is constant: the base, and what is merged into it. */
  readonly base: readonly Tensor[];
}

/** Why what comes before the first trained token is not constant, in words; or what trains, where it is. */
export function rowsAlone(peft: AnyPeftModel): RowsAlone | string {
  const model = peft.getBaseModel();
  if (!(model instanceof CausalLM)) return "attention is not causal";
  const { state } = peft.adapters;
  const rows = new Set<Tensor>();
  const input = new Set<number>();
  for (const [path, layer] of peft.adapters.layers()) {
    const applied = layer.adapters.filter((name) => state.applied.includes(name));
    if (!(layer instanceof TrainableTokensLayer)) {
      if (applied.length > 0) return `${applied.join(", ")} adapts ${path} with more than token rows`;
      continue;
    }
    for (const delta of Object.values(layer.trainable_tokens_delta)) rows.add(delta);
    if (path === model.embeddingPath) for (const id of layer.idsInEffect("input")) input.add(id);
    else if (path !== model.headPath && layer.idsInEffect("input").size > 0)
      return `rows of ${path} are in effect, which is neither the input embedding nor the head`;
  }
  if (!model.linearHead) return "the head is more than one product";
  const base: Tensor[] = [];
  for (const [name, t] of peft.namedParameters()) {
    if (rows.has(t)) continue;
    if (t.requiresGrad) return `${name} trains`;
    base.push(t);
  }
  return { model, input, base };
}
