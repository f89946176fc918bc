import { Conv1D, Embedding, Linear, type Module, TiedHead, nearest } from "@neolog/nn";
import { type AdaptableModel, configValue } from "../adaptable.ts";
import { ConfigError, TargetError } from "../errors.ts";
import { endsWithName, pythonPattern } from "../targets.ts";
import { tiesOf } from "../ties.ts";
import type { OnWarning } from "../warnings.ts";
import { moduleNames, plainAt } from "../wrap.ts";
import type { LoraConfig } from "./config.ts";

/** What LoRA adapts where the config does not say, by `model_type`. */
export const DEFAULT_TARGETS: Readonly<Record<string, readonly string[]>> = {
  bert: ["query", "value"],
  falcon: ["query_key_value"],
  gemma: ["q_proj", "v_proj"],
  gemma2: ["q_proj", "v_proj"],
  gemma3_text: ["q_proj", "v_proj"],
  gpt2: ["c_attn"],
  gpt_neox: ["query_key_value"],
  llama: ["q_proj", "v_proj"],
  mistral: ["q_proj", "v_proj"],
  opt: ["q_proj", "v_proj"],
  phi: ["q_proj", "v_proj", "fc1", "fc2"],
  qwen2: ["q_proj", "v_proj"],
  qwen3: ["q_proj", "v_proj"],
  t5: ["q", "v"],
};

/** The config's targets with null and "all-linear" resolved. Throws ConfigError ARGUMENT for a model type without default. */
export function namedTargets(model: AdaptableModel, config: LoraConfig): string | readonly string[] {
  const { target_modules } = config;
  if (target_modules === null) {
    const type = configValue(model, "model_type");
    const known = typeof type === "string" ? DEFAULT_TARGETS[type] : undefined;
    if (known) return known;
    const types = Object.keys(DEFAULT_TARGETS).join(", ");
    const message = `target_modules: must be given for model_type ${JSON.stringify(type ?? null)}; null is known for ${types}`;
    throw new ConfigError("ARGUMENT", message, { model_type: type ?? null });
  }
  if (typeof target_modules !== "string" || target_modules.toLowerCase() !== "all-linear") return target_modules;
  const heads = tiesOf(model).map(({ head }) => head);
  return moduleNames(model)
    .filter((name) => isLinear(plainAt(model, name)!) && !heads.includes(name))
    .toSorted();
}

const isLinear = (module: Module): boolean => module instanceof Linear || module instanceof Conv1D;

/**
 * The modules that LoRA adapts, in the order of the tree: what matches the targets and the layer filter, neither excluded nor
 * trained in full. Throws TargetError NOT_FOUND or KIND.
 */
export function loraTargets(
  model: AdaptableModel,
  config: LoraConfig,
  full: readonly string[],
  onUnmatched?: OnWarning,
): string[] {
  const targets = namedTargets(model, config);
  const names = moduleNames(model);
  const { exclude_modules } = config;
  const matches = names.filter((name) => matches_(name, targets, names));
  const inside = matches.filter((name) => isInLayers(name, targets, config));
  const isFull = (name: string): boolean => full.some((path) => name === path || name.startsWith(`${path}.`));
  const isExcluded = (name: string): boolean =>
    exclude_modules !== null && matches_(name, exclude_modules, names, "exclude_modules");
  const kept = inside.filter((name) => !isFull(name) && !isExcluded(name));
  checkFound(config, targets, names, { matches, inside, kept }, onUnmatched);
  for (const name of kept) checkKind(name, plainAt(model, name)!);
  return kept;
}

function matches_(
  name: string,
  target: string | readonly string[],
  names: readonly string[],
  key = "target_modules",
): boolean {
  if (typeof target !== "string") return target.some((entry) => endsWithName(name, entry));
  return names.includes(target) ? name === target : pythonPattern(target, key).test(name);
}

/** Whether a module is in one of the layers that the config transforms; a target by its full name always is. */
function isInLayers(
  name: string,
  targets: string | readonly string[],
  { layers_to_transform, layers_pattern }: LoraConfig,
): boolean {
  const layers = [layers_to_transform ?? []].flat();
  if (typeof targets === "string" || layers.length === 0 || targets.includes(name)) return true;
  const patterns = [layers_pattern ?? []].flat().filter((pattern) => pattern !== "");
  const expressions =
    patterns.length === 0
      ? [/^.*?\.[^.]*\.(?<idx>\d+)\./]
      : patterns.map(
          (pattern) =>
            new RegExp(`^(?:.*?\\.)?${pythonPattern(pattern, "layers_pattern").source.slice(1, -1)}\\.(?<idx>\\d+)\\.`),
        );
  const found = expressions.map((expression) => expression.exec(name)).find((match) => match !== null);
  return found !== undefined && layers.includes(Number(found.groups!["idx"]));
}

interface Stages {
  readonly matches: readonly string[];
  readonly inside: readonly string[];
  readonly kept: readonly string[];
}

function checkFound(
  config: LoraConfig,
  targets: string | readonly string[],
  names: readonly string[],
  { matches, inside, kept }: Stages,
  onUnmatched?: OnWarning,
): void {
  const missing = Array.isArray(targets)
    ? targets.filter((entry: string) => !names.some((name) => endsWithName(name, entry)))
    : [];
  if (kept.length > 0) {
    if (missing.length === 0) return;
    const message = `target_modules: no module matches ${missing.join(", ")}; left out`;
    if (onUnmatched) return onUnmatched({ code: "TARGET_UNMATCHED", message });
  }
  const { layers_to_transform, layers_pattern, exclude_modules, modules_to_save } = config;
  const asked = JSON.stringify(missing.length > 0 ? missing : targets);
  const near = nearest(missing[0] ?? [targets].flat()[0] ?? "", names);
  const why =
    targets.length === 0
      ? "; for token rows alone use TrainableTokensConfig"
      : matches.length > 0 && inside.length === 0
        ? `; the layer filter leaves none of ${matches.length}: layers_to_transform ${JSON.stringify(layers_to_transform)}, layers_pattern ${JSON.stringify(layers_pattern)}`
        : inside.length > 0 && kept.length === 0
          ? `; all ${inside.length} are excluded or in modules_to_save`
          : near.length > 0
            ? `; did you mean "${near[0]}"?`
            : "";
  throw new TargetError("NOT_FOUND", `target_modules: a module must match ${asked}, got none${why}`, {
    target_modules: targets,
    near,
    layers_to_transform,
    layers_pattern,
    exclude_modules,
    modules_to_save,
  });
}

function checkKind(name: string, base: Module): void {
  if (isLinear(base) || base instanceof TiedHead || base instanceof Embedding) return;
  const message = `target_modules: ${name} must be a Linear, a Conv1D or an Embedding, got ${base.constructor.name}`;
  throw new TargetError("KIND", message, { name });
}

type PatternKey = "rank_pattern" | "alpha_pattern";

/** The value of the first pattern that matches a module's name, else `otherwise`. */
export function byPattern(name: string, config: LoraConfig, key: PatternKey, otherwise: number): number {
  const pattern = patternOf(name, config, key);
  return pattern === undefined ? otherwise : config[key][pattern]!;
}

/** The first pattern that matches a module's name. */
export const patternOf = (name: string, config: LoraConfig, key: PatternKey): string | undefined =>
  Object.keys(config[key]).find((pattern) => matchesPattern(name, pattern, key));

const matchesPattern = (name: string, pattern: string, key: PatternKey): boolean =>
  new RegExp(`^(.*\\.)?(${pythonPattern(pattern, key).source.slice(1, -1)})$`).test(name);

/** Warns of patterns that match no target. Throws ConfigError REGEX. */
export function checkPatterns(targets: readonly string[], config: LoraConfig, onWarning: OnWarning): void {
  for (const key of ["rank_pattern", "alpha_pattern"] as const) {
    const unmatched = Object.keys(config[key]).filter((p) => !targets.some((name) => matchesPattern(name, p, key)));
    if (unmatched.length > 0)
      onWarning({ code: "PATTERN_UNMATCHED", message: `${key}: no adapted module matches ${unmatched.join(", ")}` });
  }
}
