/** The loss of GPT-2, forward alone, by onnxruntime's native binding: `node onnxruntime_forward.mjs THREADS`. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sayMissing, serve } from "../dist/serve.js";
import { causalMask, headerOf } from "./gpt2.mjs";
import { INT64, constant, model, node, stored } from "./onnx.mjs";

const threads = Number(process.argv[2] ?? 1);
let ort;
try {
  ort = (await import("onnxruntime-node")).default;
} catch {
  sayMissing("not installed; npm run bench:peers-install");
}
const WEIGHTS = "model.safetensors";

/** ids [T] and targets [T, 1] → loss []; the weights stay in the checkpoint's own file. */
function graphOf(dir, T) {
  const {
    n_embd: D,
    n_head: H,
    n_layer,
    layer_norm_epsilon = 1e-5,
  } = JSON.parse(readFileSync(join(dir, "config.json")));
  const { header, start } = headerOf(join(dir, WEIGHTS));
  const nodes = [];
  const constants = [
    constant("mask", [T, T], causalMask(T)),
    constant("scale", [1], Float32Array.of(Math.sqrt(H / D))),
    constant("thirds", [3], BigInt64Array.from([D, D, D].map(BigInt)), INT64),
    constant("heads", [3], BigInt64Array.from([T, H, D / H].map(BigInt)), INT64),
    constant("flat", [2], BigInt64Array.from([T, D].map(BigInt)), INT64),
    constant("axis", [1], BigInt64Array.of(1n), INT64),
    constant(
      "counts",
      [T, 1],
      Float32Array.from({ length: T }, (_, t) => (t === T - 1 ? 0 : 1 / (T - 1))),
    ),
  ];
  /** A weight by its name; its first rows alone where fewer are asked for. */
  const weight = (name, rows) => {
    const { shape, data_offsets } = header[`transformer.${name}`];
    const [begin, end] = data_offsets;
    const part = rows === undefined ? 1 : rows / shape[0];
    const place = { file: WEIGHTS, offset: start + begin, length: (end - begin) * part };
    constants.push(stored(name, rows === undefined ? shape : [rows, ...shape.slice(1)], place));
    return name;
  };
  let made = 0;
  const apply = (op, inputs, attributes) => {
    const output = `v${made++}`;
    nodes.push(node(op, inputs, output, attributes));
    return output;
  };
  const norm = (x, name) =>
    apply("LayerNormalization", [x, weight(`${name}.weight`), weight(`${name}.bias`)], { epsilon: layer_norm_epsilon });
  const linear = (x, name) => apply("Gemm", [x, weight(`${name}.weight`), weight(`${name}.bias`)]);

  weight("wte.weight");
  let x = apply("Add", [apply("Gather", ["wte.weight", "ids"]), weight("wpe.weight", T)]);
  for (let i = 0; i < n_layer; i++) {
    nodes.push(
      node("Split", [linear(norm(x, `h.${i}.ln_1`), `h.${i}.attn.c_attn`), "thirds"], [`q${i}`, `k${i}`, `v_${i}`], {
        axis: 1,
      }),
    );
    const heads = (name, perm) => apply("Transpose", [apply("Reshape", [name, "heads"])], { perm });
    const scores = apply("MatMul", [heads(`q${i}`, [1, 0, 2]), heads(`k${i}`, [1, 2, 0])]);
    const p = apply("Softmax", [apply("Add", [apply("Mul", [scores, "scale"]), "mask"])], { axis: 2 });
    const mixed = apply("MatMul", [p, heads(`v_${i}`, [1, 0, 2])]);
    const attention = apply("Reshape", [apply("Transpose", [mixed], { perm: [1, 0, 2] }), "flat"]);
    x = apply("Add", [x, linear(attention, `h.${i}.attn.c_proj`)]);
    const inner = apply("Gelu", [linear(norm(x, `h.${i}.ln_2`), `h.${i}.mlp.c_fc`)], { approximate: "tanh" });
    x = apply("Add", [x, linear(inner, `h.${i}.mlp.c_proj`)]);
  }
  const logits = apply("Gemm", [norm(x, "ln_f"), "wte.weight"], { transB: 1 });
  const all = apply("ReduceLogSumExp", [logits, "axis"], { keepdims: 1 });
  const target = apply("GatherElements", [logits, "targets"], { axis: 1 });
  nodes.push(node("ReduceSum", [apply("Mul", [apply("Sub", [all, target]), "counts"])], "loss", { keepdims: 0 }));
  const inputs = [
    ["ids", [T], INT64],
    ["targets", [T, 1], INT64],
  ];
  return model({ nodes, constants, inputs, outputs: [["loss", []]] });
}

const hello = { name: "onnxruntime-node", runtime: `Node ${process.versions.node}`, vectorBits: 256 };
await serve(hello, async ({ training, dir, shape: [B, T] }) => {
  if (!training?.forward || training.model !== "gpt2" || B !== 1) return null;
  const path = join(dir, `forward-${T}.onnx`);
  writeFileSync(path, graphOf(dir, T));
  const options = { intraOpNumThreads: threads, interOpNumThreads: 1, executionProviders: ["cpu"] };
  const session = await ort.InferenceSession.create(path, options);
  const integers = (ids, shape) => new ort.Tensor("int64", BigInt64Array.from(ids.map(BigInt)), shape);
  const feeds = training.batches.map(([ids]) => ({
    ids: integers(ids, [T]),
    targets: integers([...ids.slice(1), ids[0]], [T, 1]),
  }));
  const losses = async () => {
    const found = [];
    for (const each of feeds) found.push((await session.run(each)).loss.data[0]);
    return found;
  };
  return { run: losses, calls: feeds.length, check: losses, release: () => session.release() };
});
