/** Neolog's training step as a contender: `node ours.js wasm THREADS [flags]`. */
import { AdamW, backward } from "@neolog/autograd";
import { AutoModelForCausalLM, type CausalLM, type ModelInputs } from "@neolog/models";
import { TrainableTokensConfig, getPeftModel } from "@neolog/peft-tokens";
import { Scope, type Tensor, openBackend, setDefaultBackend } from "@neolog/tensor";
import { type Prepared, serve } from "../serve.ts";
import { randomBfloat16Model } from "./randomBfloat16.ts";
import { SHAPES, type ShapeName, batchOf } from "./shapes.ts";

const [name = "wasm", threads = "1", flags] = process.argv.slice(2);
const options = name === "wasm" ? { threads: Number(threads), v8Flags: flags === "flags" } : {};
const backend = await openBackend(name, options);
setDefaultBackend(backend);

interface Trained {
  readonly loss: (inputs: ModelInputs) => Tensor;
  readonly parameters: Tensor[];
}

/** The rows of the batch's tokens, over a frozen model. */
function rowsOf(model: CausalLM, token_indices: readonly number[]): Trained {
  const peft = getPeftModel(model, new TrainableTokensConfig({ token_indices: [...token_indices] }));
  const parameters = peft.parameters().filter((t) => t.requiresGrad);
  return { loss: (inputs) => peft.loss(inputs), parameters };
}

function whole(model: CausalLM): Trained {
  const parameters = model.parameters();
  for (const t of parameters) t.requiresGrad = true;
  return { loss: (inputs) => model.loss(inputs), parameters };
}

const spec = {
  name: `neolog ${name}`,
  runtime: `Node ${process.versions.node}`,
  vectorBits: 128,
  info: backend.info,
} as const;
await serve(spec, async ({ kernel, dir }): Promise<Prepared | null> => {
  const [, what, of] = kernel.split(" ") as [string, "rows" | "all", ShapeName];
  const shape = SHAPES[of];
  const { input_ids, token_indices } = batchOf(shape);
  const model = dir ? await AutoModelForCausalLM.fromPretrained(dir) : randomBfloat16Model(shape.config);
  const { loss, parameters } = what === "rows" ? rowsOf(model, token_indices) : whole(model);
  const optimizer = new AdamW(parameters, { lr: 1e-3 });
  const lossOf = (): Tensor => loss({ input_ids, labels: input_ids });
  return {
    run: () => {
      using _step = new Scope();
      backward(lossOf());
      optimizer.step();
      optimizer.zeroGrad();
    },
    check: async () => {
      using _forward = new Scope();
      return [await lossOf().item()];
    },
    release: () => {
      for (const t of model.parameters()) t.dispose();
      optimizer.dispose();
    },
  };
});
