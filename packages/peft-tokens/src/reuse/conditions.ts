import { CausalLM, type PretrainedConfig } from "@neolog/models";
import type { Tensor } from "@neolog/tensor";
import type { Override } from "../effective.ts";
import { TrainableTokensLayer } from "../layer.ts";
import { LoraLayer } from "../lora/layer.ts";
import type { AnyPeftModel } from "../model.ts";

/** A head that is one product, with the rows in effect. */
export type OneProduct = NonNullable<CausalLM["linearHead"]>;

/** Where rows train, while only that changes what the model computes. */
export interface RowsAlone {
  readonly model: CausalLM;
  readonly head: OneProduct;
  /** What lookups give instead of the table's rows. */
  readonly input: readonly Override[];
  /** All that is constant: the base, and what is merged into it. */
  readonly base: readonly Tensor[];
  /** Texts that are longer have other angles of rotation than their beginnings have alone. */
  readonly longest: number;
}

/** Why what comes before the first trained token is not constant, in words; or what trains, where it is. */
export function rowsAlone(peft: AnyPeftModel): RowsAlone | string {
  const model = peft.getBaseModel();
  if (!(model instanceof CausalLM)) return "attention is not causal";
  const { state } = peft.adapters;
  const rows = new Set<Tensor>();
  const input: Override[] = [];
  for (const [path, layer] of peft.adapters.layers()) {
    const applied = layer.adapters.filter((name) => state.applied.includes(name));
    if (!(layer instanceof TrainableTokensLayer)) {
      if (applied.length === 0) continue;
      const drops =
        state.training && layer instanceof LoraLayer && applied.some((name) => layer.partOf(name).dropout > 0);
      return drops ? `dropout is active in ${path}` : `${applied.join(", ")} adapts ${path} with more than token rows`;
    }
    for (const delta of Object.values(layer.trainable_tokens_delta)) rows.add(delta);
    const overrides = layer.overrides("input");
    if (path === model.embeddingPath) input.push(...overrides);
    else if (path !== model.headPath && overrides.length > 0)
      return `rows of ${path} are in effect, which is neither the input embedding nor the head`;
  }
  const head = model.linearHead;
  if (!head) return "the head is more than one product";
  const base: Tensor[] = [];
  for (const [name, t] of peft.namedParameters()) {
    if (rows.has(t)) continue;
    if (t.requiresGrad) return `${name} trains`;
    base.push(t);
  }
  return { model, head, input, base, longest: longestOf(model.config) };
}

/** Up to how many positions all texts turn by the same angles: "dynamic" and "longrope" stretch those of longer ones. */
function longestOf({ rope_parameters, rope_scaling, ...config }: PretrainedConfig): number {
  const rope = { ...(rope_scaling as Rope | null | undefined), ...(rope_parameters as Rope | null | undefined) };
  const type = rope.rope_type ?? rope.type;
  const { max_position_embeddings, original_max_position_embeddings } = config as Rope;
  if (type === "dynamic") return max_position_embeddings ?? 0;
  if (type !== "longrope") return Infinity;
  return rope.original_max_position_embeddings ?? original_max_position_embeddings ?? max_position_embeddings ?? 0;
}

interface Rope {
  readonly rope_type?: string;
  readonly type?: string;
  readonly original_max_position_embeddings?: number;
  readonly max_position_embeddings?: number;
}
