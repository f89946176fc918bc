/** `node writeCheckpoint.js SHAPE DIR`: a model with random weights, the same each time. */
import { AutoModelForCausalLM } from "@neolog/models";
import { SHAPES, type ShapeName } from "./shapes.ts";

const [shape, dir] = process.argv.slice(2) as [ShapeName, string];
await AutoModelForCausalLM.fromConfig(SHAPES[shape].config, { seed: 1 }).savePretrained(dir);
