import { join } from "@neolog/nn";
import type { AdaptableModel } from "./adaptable.ts";

/** An embedding and what shares its table, by paths from the root. */
export interface Tie {
  readonly embedding: string;
  readonly tied: readonly string[];
  /** The output head of the same (sub-)model, tied or not. */
  readonly head: string | null;
  /** The (sub-)model that declares it, and its path. */
  readonly owner: AdaptableModel;
  readonly prefix: string;
}

/** One entry for every sub-model that names its embedding; a tie acts inside the sub-model that owns the embedding. */
export function tiesOf(root: AdaptableModel): Tie[] {
  const ties = new Map<string, Tie>();
  for (const [prefix, module] of root.namedModules()) {
    const owner = module as AdaptableModel;
    if (typeof owner.embeddingPath !== "string") continue;
    const embedding = join(prefix, owner.embeddingPath);
    if (ties.has(embedding)) continue;
    const { tiedPaths = [], headPath = null } = owner;
    const tied = tiedPaths.map((path) => join(prefix, path));
    ties.set(embedding, { embedding, tied, head: headPath === null ? null : join(prefix, headPath), owner, prefix });
  }
  return [...ties.values()];
}

/** The tie of an embedding. */
export const tieOf = (root: AdaptableModel, embedding: string): Tie | undefined =>
  tiesOf(root).find((tie) => tie.embedding === embedding);

/** The tie in which a path shares the table of another. */
export const tieThrough = (root: AdaptableModel, path: string): Tie | undefined =>
  tiesOf(root).find((tie) => tie.tied.includes(path));

/** The modules that share the table of the embedding at a path. */
export const tiedTo = (root: AdaptableModel, embedding: string): readonly string[] =>
  tieOf(root, embedding)?.tied ?? [];
