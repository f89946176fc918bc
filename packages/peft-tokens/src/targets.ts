import { Embedding, Linear, type Module, TiedEmbedding, TiedHead, nearest } from "@neolog/nn";
import type { AdaptableModel } from "./adaptable.ts";
import { ConfigError, TargetError } from "./errors.ts";
import { tieThrough } from "./ties.ts";
import type { OnWarning } from "./warnings.ts";
import { moduleNames, plainAt } from "./wrap.ts";

/**
 * The modules that a config selects, in the order of the tree. A listed name without a match is an error, or a warning where
 * there is a listener for it and another name matches. Throws TargetError or ConfigError.
 */
export function resolveTargets(
  model: AdaptableModel,
  targetModules: string | readonly string[] | null,
  onUnmatched?: OnWarning,
): string[] {
  const names = moduleNames(model);
  const matches = names.filter(matcher(model, targetModules, names));
  const asked = targetModules === null ? "the input embedding" : JSON.stringify(targetModules);
  const missing = Array.isArray(targetModules)
    ? targetModules.filter((entry: string) => !matches.some((name) => endsWithName(name, entry)))
    : [];
  if (matches.length > 0 && missing.length > 0 && onUnmatched) {
    const message = `target_modules: no module matches ${missing.join(", ")}; left out`;
    onUnmatched({ code: "TARGET_UNMATCHED", message });
  } else if (matches.length === 0 || missing.length > 0) {
    const sought = missing[0] ?? (typeof targetModules === "string" ? targetModules : "embed_tokens");
    const near = nearest(sought, names);
    const hint = near.length > 0 ? `; did you mean "${near[0]}"?` : "";
    throw new TargetError(
      "NOT_FOUND",
      `target_modules: a module must match ${missing.length > 0 ? JSON.stringify(missing) : asked}, got none${hint}`,
      {
        target_modules: targetModules,
        near,
      },
    );
  }
  for (const name of matches) checkKind(name, plainAt(model, name)!);
  return withoutTies(model, matches);
}

/** The whole name, or its last components. */
export const endsWithName = (name: string, entry: string): boolean => name === entry || name.endsWith(`.${entry}`);

function matcher(
  model: AdaptableModel,
  target: string | readonly string[] | null,
  names: readonly string[],
): (name: string) => boolean {
  if (target === null) {
    const { embeddingPath } = model;
    return embeddingPath === undefined
      ? (name) => endsWithName(name, "embed_tokens")
      : (name) => name === embeddingPath;
  }
  if (typeof target !== "string") return (name) => target.some((entry) => endsWithName(name, entry));
  if (names.includes(target)) return (name) => name === target;
  const pattern = pythonPattern(target);
  return (name) => pattern.test(name);
}

/**
 * The parts of a pattern in which Python's `re` and JavaScript differ: escapes; classes, where Python takes a first `]` for itself;
 * named groups; `{,n}`; and what JavaScript lacks or reads as a plain letter: other escapes, atomic groups, comments, conditions,
 * inline flags, possessive quantifiers.
 */
const PARTS =
  /(?<escape>\\(?![AbBdDfnrsStuvwWxZ])[a-zA-Z])|\\[^]|\[(?<not>\^?)(?<first>\]?)(?<rest>(?:\\[^]|[^\]\\])*)\]|\(\?P<|\(\?P=(?<name>\w+)\)|\{,(?=\d*\})|(?<foreign>\(\?(?:>|#|\(|[aiLmsux-]+[:)])|[*+?}]\+)/g;

/** A pattern of Python's `re`, matched against the whole name. Throws ConfigError REGEX with the position of what does not translate. */
export function pythonPattern(pattern: string, where = "target_modules"): RegExp {
  const foreign: number[] = [];
  const translated = pattern.replaceAll(PARTS, (part: string, ...rest: unknown[]) => {
    const groups = rest.at(-1) as Readonly<Record<string, string | undefined>>;
    if ((groups["foreign"] ?? groups["escape"]) !== undefined) foreign.push(rest.at(-3) as number);
    if (groups["first"] === "]") return `[${groups["not"]}\\]${groups["rest"]}]`;
    if (groups["name"] !== undefined) return `\\k<${groups["name"]}>`;
    return TRANSLATED[part] ?? part;
  });
  const expression = foreign.length > 0 ? null : wholeName(translated);
  if (expression) return expression;
  const position = foreign[0] ?? longestValid(pattern);
  throw new ConfigError(
    "REGEX",
    `${where}: must be a regular expression that JavaScript knows too, got ${pattern}, which fails at position ${position}`,
    { pattern, position },
  );
}

const TRANSLATED: Readonly<Record<string, string>> = { "\\A": "^", "\\Z": "$", "(?P<": "(?<", "{,": "{0," };

/** The expression for a whole name, or null where the pattern is none. */
function wholeName(pattern: string): RegExp | null {
  try {
    return new RegExp(`^(?:${pattern})$`);
  } catch {
    return null;
  }
}

/** Length of the longest beginning that is a pattern. */
function longestValid(pattern: string): number {
  let length = pattern.length - 1;
  while (length > 0 && !wholeName(pattern.slice(0, length))) length--;
  return length;
}

function checkKind(name: string, base: Module): void {
  if (base instanceof Embedding || base instanceof Linear || base instanceof TiedHead || base instanceof TiedEmbedding)
    return;
  throw new TargetError(
    "KIND",
    `target_modules: ${name} must be an Embedding or a Linear, got ${base.constructor.name}`,
    { name },
  );
}

/** An embedding carries the modules tied to it: they are no targets of their own beside it. */
function withoutTies(model: AdaptableModel, matches: readonly string[]): string[] {
  return matches.filter((name) => !matches.includes(tieThrough(model, name)?.embedding ?? ""));
}
