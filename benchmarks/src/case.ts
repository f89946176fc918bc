import type { PretrainedConfig } from "@neolog/models";
import type { ShapeName } from "./step/shapes.ts";
import type { TrainingData } from "./step/trainingData.ts";
import type { Unit } from "./units.ts";

/** What contenders run, each in its own way. It travels to them as JSON. */
export interface Case {
  /** The row of a contender's table. */
  readonly kernel: string;
  readonly shape: readonly number[];
  /** Of the weight or table; float32 where absent. */
  readonly dtype?: "bfloat16" | "float16";
  /** A folder with a checkpoint, for cases that read one. */
  readonly dir?: string;
  /** What trains, for training steps. */
  readonly training?: Training;
  /** What the contenders are to count: operations where the roof is arithmetic, bytes where it is memory. */
  readonly amount: number;
  readonly roof: RoofName;
  readonly unit: Unit;
  /** Elements that "ns/element" counts, and "tokens/s". */
  readonly elements?: number;
}

export interface Training extends TrainingData {
  readonly model: ShapeName;
  /** Instead of the shape's own, for a model with random bfloat16 weights. */
  readonly config?: PretrainedConfig;
  /** The losses alone are computed, no gradient. */
  readonly forward?: boolean;
  /** Where the result is the rows after so many steps; the losses before the first one, where absent. */
  readonly rowsAfter?: number;
}

export type RoofName = "arithmetic" | "readMemory" | "addCached" | "addMemory" | "none";

/** What it is called in figures and what a filter is matched with. */
export const nameOf = ({ kernel, dtype, shape }: Case): string =>
  `${kernel}${dtype ? ` ${dtype}` : ""} ${shape.join("×")}`;

/** True when a name holds every word of a filter. */
export const matches = (name: string, filter: readonly string[]): boolean =>
  filter.every((word) => name.includes(word));
