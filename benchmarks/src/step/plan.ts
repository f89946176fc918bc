import { ARCHITECTURES } from "@neolog/models";
import { withShapesOnly } from "@neolog/tensor";
import type { Case } from "../case.ts";
import { type Options, UsageError } from "../options.ts";
import { checkpointFolder } from "./checkpoint.ts";
import { SHAPES, type Shape, type ShapeName } from "./shapes.ts";
import { CASES, type CaseName, type DataShape, trainingData } from "./trainingData.ts";

/** One of the runs that a command line asks for. */
export interface Planned extends DataShape {
  readonly shape: ShapeName;
  readonly name: CaseName;
}

/** What `step --all` runs: the acceptance matrix. */
const ACCEPTANCE: readonly ShapeName[] = ["gpt2", "smollm2-135m", "qwen2.5-0.5b"];

/** Every combination of shape, case, length, batch and number of tokens that is asked for. Throws UsageError. */
export function planned({ shapes, cases, lengths, batches, tokens, all, quick }: Options): Planned[] {
  const names =
    shapes.length > 0
      ? shapes.map(shapeNamed)
      : quick
        ? (["tiny"] as const)
        : all
          ? ACCEPTANCE
          : (["tiny", "gpt2"] as const);
  const where = cases.length > 0 ? cases.map(caseNamed) : all || quick ? caseNames : (["a"] as const);
  const or = (asked: readonly number[], usual: number): readonly number[] => (asked.length > 0 ? asked : [usual]);
  return names.flatMap((shape) => {
    const usual: Shape = SHAPES[shape];
    return where.flatMap((name) =>
      or(lengths, usual.length).flatMap((length) =>
        or(batches, usual.batch).flatMap((batch) =>
          or(tokens, usual.tokens).map((k) => ({ shape, name, length, batch, tokens: k })),
        ),
      ),
    );
  });
}

/** The same of one batch, which is trained on again and again: no time depends on that where nothing is reused. */
export function oneBatch({ training, ...c }: Case): Case {
  return { ...c, training: { ...training!, batches: training!.batches.slice(0, 1) } };
}

const caseNames = Object.keys(CASES) as CaseName[];

function shapeNamed(name: string): ShapeName {
  if (Object.hasOwn(SHAPES, name)) return name as ShapeName;
  throw new UsageError(`--shape must be one of ${Object.keys(SHAPES).join(", ")}, got ${name}`);
}

function caseNamed(name: string): CaseName {
  if (Object.hasOwn(CASES, name)) return name as CaseName;
  throw new UsageError(`--case must be one of ${caseNames.join(", ")}, got ${name}`);
}

/** What contenders get. Its checkpoint is written where it is not there yet; the largest has none. */
export function caseOf(plan: Planned): Case {
  const { shape, name, batch, length, tokens } = plan;
  const { vocab_size } = SHAPES[shape].config;
  return {
    kernel: `step ${shape} ${name}`,
    shape: [batch, length, tokens],
    ...(shape === "gemma-2-2b" ? {} : { dir: checkpointFolder(shape).dir }),
    training: { model: shape, ...trainingData(vocab_size, name, plan) },
    amount: name === "a" ? operations(plan) : 0,
    roof: name === "a" ? "arithmetic" : "none",
    unit: "ms",
  };
}

/**
 * Of a step that reuses nothing: products forward, and backward by their inputs alone; attention forward, and 2.5 times that
 * backward, half of it above the diagonal.
 */
function operations({ shape, batch, length }: Planned): number {
  const { config } = SHAPES[shape];
  const model = withShapesOnly(() => ARCHITECTURES[config.model_type]!.create(config, "config.json"));
  const products = [...model.namedParameters()]
    .filter(([name, t]) => t.shape.length === 2 && !name.endsWith("wpe.weight"))
    .reduce((sum, [, t]) => sum + t.size, 0);
  const { layers, width } = attentionOf(config);
  return batch * length * (4 * products + 7 * layers * width * length);
}

/** Layers, and the width of all their heads together. */
function attentionOf(config: (typeof SHAPES)[ShapeName]["config"]): { layers: number; width: number } {
  if ("n_layer" in config) return { layers: config.n_layer, width: config.n_embd };
  const { num_hidden_layers: layers, num_attention_heads: heads, hidden_size } = config;
  return { layers, width: "head_dim" in config ? heads * config.head_dim : hidden_size };
}
