import { Embedding, TiedEmbedding } from "@neolog/nn";
import type { AdaptableModel } from "./adaptable.ts";
import type { Sides } from "./effective.ts";
import { ConfigError } from "./errors.ts";
import { tieOf } from "./ties.ts";
import { plainAt } from "./wrap.ts";

/** The uses that the rows of a module have: an embedding is looked up, and gives logits where a head is tied to it. */
export function sidesOf(root: AdaptableModel, path: string): readonly Sides[] {
  const module = plainAt(root, path);
  if (module instanceof TiedEmbedding) return ["input"];
  if (!(module instanceof Embedding)) return ["output"];
  const tie = tieOf(root, path);
  const givesLogits = tie !== undefined && tie.head !== null && tie.tied.includes(tie.head);
  return givesLogits ? ["input", "output"] : ["input"];
}

/** `sides` must be uses that the module has. Throws ConfigError ARGUMENT. */
export function checkSides(root: AdaptableModel, path: string, sides: Sides): void {
  const known: readonly Sides[] = sidesOf(root, path);
  if (sides === "both" || known.includes(sides)) return;
  throw new ConfigError(
    "ARGUMENT",
    `sides: rows of ${path} can hold on "${known.join('", "')}" or "both", got ${JSON.stringify(sides)}`,
    { sides, module: path },
  );
}
