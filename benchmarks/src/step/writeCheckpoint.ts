/** `node writeCheckpoint.js SHAPE DIR`: a model with random weights, the same each time. */
import { AutoModelForCausalLM } from "@neolog/models";
import { randomBfloat16Model } from "./randomBfloat16.ts";
import { SHAPES, type ShapeName } from "./shapes.ts";

const [shape, dir] = process.argv.slice(2) as [ShapeName, string];
const { config, dtype } = SHAPES[shape];
const model = dtype === "float32" ? AutoModelForCausalLM.fromConfig(config, { seed: 1 }) : randomBfloat16Model(config);
await model.savePretrained(dir);
