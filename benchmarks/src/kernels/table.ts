import { AdamW, VJP, backward } from "@neolog/autograd";
import { AutoModelForCausalLM } from "@neolog/models";
import { TrainableTokensConfig, type TrainableTokensLayer, getPeftModel } from "@neolog/peft-tokens";
import * as tensor from "@neolog/tensor"; // not by name: a revision that lacks an op can be compared in the others
import type { Tensor } from "@neolog/tensor";
import type { Case } from "../case.ts";

/** A case over its inputs, which live in the scope that is open when it is built. */
interface Run {
  readonly run: () => Tensor | Promise<Tensor>;
  readonly pause?: () => void;
}

/** Real values on [−0.5, 0.5), the same in all contenders. */
function input(shape: readonly number[], seed: number): Tensor {
  using scope = new tensor.Scope();
  return scope.keep(tensor.sub(tensor.rand(shape, seed), 0.5));
}

function weight({ dtype }: Case, shape: readonly number[]): Tensor {
  using scope = new tensor.Scope();
  const values = input(shape, 2);
  return scope.keep(dtype ? tensor.cast(values, dtype) : values);
}

const unary =
  (op: (x: Tensor) => Tensor) =>
  ({ shape }: Case): Run => {
    const x = input(shape, 1);
    return { run: () => op(x) };
  };

const binary =
  (op: (x: Tensor, y: Tensor) => Tensor) =>
  ({ shape }: Case): Run => {
    const [x, y] = [input(shape, 1), input(shape, 2)];
    return { run: () => op(x, y) };
  };

/** q, k, v [B, H, T, D] and the causal mask. */
function attentionInputs({ shape }: Case, tracked: boolean): readonly [Tensor, Tensor, Tensor, Tensor] {
  const T = shape[2]!;
  const [q, k, v] = [1, 2, 3].map((seed) => input(shape, seed)) as [Tensor, Tensor, Tensor];
  for (const x of [q, k, v]) x.requiresGrad = tracked;
  return [q, k, v, tensor.cast(tensor.tril(tensor.ones([T, T])), "int32")];
}

/** softmax(q·kᵀ/√D, masked)·v one op after the other: the scores are kept for the backward pass. */
function composedAttention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor): Tensor {
  const scores = tensor.mul(tensor.matmul(q, tensor.transpose(k)), 1 / Math.sqrt(q.shape[3]!));
  return tensor.matmul(tensor.softmax(tensor.where(mask, scores, tensor.MASKED_SCORE)), v);
}

const attentionForward =
  (op: typeof composedAttention) =>
  (c: Case): Run => {
    const [q, k, v, mask] = attentionInputs(c, false);
    return { run: () => op(q, k, v, mask) };
  };

const attentionBackward =
  (op: typeof composedAttention) =>
  (c: Case): Run => {
    const [q, k, v, mask] = attentionInputs(c, true);
    const g = input(c.shape, 4);
    return {
      run: () => {
        for (const x of [q, k, v]) x.grad = null;
        backward(tensor.sum(tensor.mul(op(q, k, v, mask), g)));
        return q.grad!;
      },
    };
  };

const targetsOf = (n: number, classes: number): Tensor =>
  tensor.intTensor(Int32Array.from({ length: n }, (_, i) => (i * 7919) % classes));

/** Every eighth of T positions holds one of the k ids. */
function adaptedEmbedding([T, V, D, k]: readonly number[]): {
  readonly layer: TrainableTokensLayer;
  readonly rows: Tensor;
  readonly ids: Int32Array;
  readonly g: Tensor;
} {
  const config = { ...ONE_LAYER, vocab_size: V!, hidden_size: D! };
  const token_indices = Array.from({ length: k! }, (_, i) => V! - 1 - i);
  const peft = getPeftModel(AutoModelForCausalLM.fromConfig(config), new TrainableTokensConfig({ token_indices }));
  const layer = peft.layers().get("model.embed_tokens") as TrainableTokensLayer;
  const ids = Int32Array.from({ length: T! }, (_, i) => (i % 8 === 0 ? token_indices[(i / 8) % k!]! : (i * 7919) % V!));
  return { layer, rows: layer.trainable_tokens_delta["default"]!, ids, g: input([T!, D!], 3) };
}
const ONE_LAYER = {
  model_type: "llama",
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 8,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  tie_word_embeddings: true,
};

function rowGradient(x: Tensor, rows: Tensor, g: Tensor): Tensor {
  rows.grad = null;
  backward(x, g);
  return rows.grad!;
}

const twoHalves = ({ shape }: Case): Run => {
  const x = input(shape, 1);
  return { run: () => tensor.add(x, x) };
};

/** How each kernel is run: through the public interface, as a model runs it. */
export const KERNELS: { readonly [kernel: string]: (c: Case) => Run } = {
  matmul: (c) => {
    const [m, k, n] = c.shape as [number, number, number];
    const [a, b] = [input([m, k], 1), weight(c, [k, n])];
    return { run: () => tensor.matmul(a, b) };
  },
  matmulT: (c) => {
    const [m, k, n] = c.shape as [number, number, number];
    const [x, w] = [input([m, k], 1), weight(c, [n, k])];
    return { run: () => tensor.matmulT(x, w) };
  },
  attention: attentionForward(tensor.attention),
  attentionBackward: attentionBackward(tensor.attention),
  composedAttention: attentionForward(composedAttention),
  composedAttentionBackward: attentionBackward(composedAttention),

  add: binary(tensor.add),
  mul: binary(tensor.mul),
  addRow: ({ shape }) => {
    const [x, row] = [input(shape, 1), input(shape.slice(-1), 2)];
    return { run: () => tensor.add(x, row) };
  },
  exp: unary(tensor.exp),
  tanh: unary(tensor.tanh),
  gelu: unary(tensor.gelu),
  geluTanh: unary(tensor.geluTanh),
  geluTanhGrad: ({ shape }) => {
    const [x, g] = [input(shape, 1), input(shape, 2)];
    x.requiresGrad = true;
    const y = tensor.geluTanh(x);
    return { run: () => VJP.geluTanh({ inputs: [x], attrs: null, y }, g)[0]! };
  },
  silu: unary(tensor.silu),
  swiglu: binary((gate, up) => tensor.mul(tensor.silu(gate), up)),
  softmax: unary(tensor.softmax),
  softmaxGrad: binary(tensor.softmaxGrad),
  logSoftmax: unary(tensor.logSoftmax),
  logSumExp: unary(tensor.logSumExp),
  layerNorm: ({ shape }) => {
    const [x, w, b] = [input(shape, 1), input(shape.slice(-1), 2), input(shape.slice(-1), 3)];
    return { run: () => tensor.layerNorm(x, w, b, 1e-5) };
  },
  layerNormGrad: ({ shape }) => {
    const [x, w, g] = [input(shape, 1), input(shape.slice(-1), 2), input(shape, 3)];
    return { run: () => tensor.layerNormGrad(x, w, g, 1e-5) };
  },
  rmsNorm: ({ shape }) => {
    const [x, w] = [input(shape, 1), input(shape.slice(-1), 2)];
    return { run: () => tensor.rmsNorm(x, w, 1e-5) };
  },
  rmsNormGrad: ({ shape }) => {
    const [x, w, g] = [input(shape, 1), input(shape.slice(-1), 2), input(shape, 3)];
    return { run: () => tensor.rmsNormGrad(x, w, g, 1e-5) };
  },
  rope: ({ shape }) => {
    const [, T, D] = shape as [number, number, number];
    const [x, cos, sin] = [input(shape, 1), input([T, D / 2], 2), input([T, D / 2], 3)];
    return { run: () => tensor.rope(x, cos, sin) };
  },
  sumRows: unary((x) => tensor.sum(x, 1)),
  sumColumns: unary((x) => tensor.sum(x, 0)),
  maxRows: unary((x) => tensor.max(x, 1)),
  argmaxRows: unary((x) => tensor.argmax(x, 1)),
  transpose: unary((x) => tensor.contiguous(tensor.transpose(x))),
  toBfloat16: unary((x) => tensor.cast(x, "bfloat16")),
  fromBfloat16: ({ shape }) => {
    const x = tensor.cast(input(shape, 1), "bfloat16");
    return { run: () => tensor.cast(x, "float32") };
  },
  takeRows: ({ shape: [n, D] }) => {
    const table = input([50257, D!], 1);
    const ids = targetsOf(n!, 50257);
    return { run: () => tensor.takeRows(table, ids) };
  },
  /** Forward and backward of an adapted embedding: [T, V, D, k]. */
  tokenRows: ({ shape }) => {
    const { layer, rows, ids, g } = adaptedEmbedding(shape);
    return { run: () => rowGradient(layer.forward(ids), rows, g) };
  },
  /** The same by way of a copy of the whole table, as PEFT computes it. */
  denseTable: ({ shape }) => {
    const { layer, rows, ids, g } = adaptedEmbedding(shape);
    const slots = new Int32Array(shape[1]!).fill(-1);
    layer.indicesOf("default").forEach((id, slot) => (slots[id] = slot));
    return {
      run: () => rowGradient(tensor.takeRows(tensor.overrideRows(layer.table, rows, slots), ids), rows, g),
    };
  },
  crossEntropy: ({ shape }) => {
    const [logits, targets] = [input(shape, 1), targetsOf(shape[0]!, shape[1]!)];
    return { run: () => tensor.crossEntropy(logits, targets) };
  },
  crossEntropyGrad: ({ shape }) => {
    const [logits, targets, g] = [input(shape, 1), targetsOf(shape[0]!, shape[1]!), tensor.ones([])];
    return { run: () => tensor.crossEntropyGrad(logits, targets, g) };
  },
  linearCrossEntropy: (c) => {
    const [n, D, V] = c.shape as [number, number, number];
    const [hidden, w, targets] = [input([n, D], 1), weight(c, [V, D]), targetsOf(n, V)];
    hidden.requiresGrad = true;
    return {
      run: () => {
        hidden.grad = null;
        backward(tensor.linearCrossEntropy(hidden, w, targets));
        return hidden.grad!;
      },
    };
  },
  adamw: ({ shape }) => {
    const [p, g] = [input(shape, 1), input(shape, 2)];
    p.requiresGrad = true;
    const optimizer = new AdamW([p]);
    return {
      run: () => {
        p.grad = g;
        optimizer.step();
        return p;
      },
    };
  },

  /** The smallest addition that two threads share, while the other one is awake. */
  forkJoin: twoHalves,
  /** The same after the other one has gone to sleep. */
  wakeUp: (c) => ({
    ...twoHalves(c),
    pause: () => {
      for (const end = performance.now() + 2; performance.now() < end;);
    },
  }),
  fromPretrained: ({ dir }) => ({
    run: async () => {
      const model = await AutoModelForCausalLM.fromPretrained(dir!);
      const parameters = model.parameters();
      const first = tensor.takeRows(parameters[0]!, Int32Array.of(0));
      for (const t of parameters) t.dispose();
      return first;
    },
  }),
};
