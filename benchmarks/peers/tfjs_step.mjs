/**
 * Training of token rows of GPT-2 by TensorFlow.js on WebAssembly: `node tfjs_step.mjs THREADS`. Frozen weights lie in memory twice, as
 * they are and transposed, because a product with a transposed operand is forty times slower.
 */
import { sayMissing, serve } from "../dist/serve.js";
import { causalMask, gpt2Training, transposed } from "./gpt2.mjs";
import { registerGradients, tensorflow } from "./tfjs_threads.mjs";

const threads = Number(process.argv[2] ?? 1);
let tf;
try {
  tf = await tensorflow(threads);
  await registerGradients();
} catch (error) {
  sayMissing(`${error.message.split("\n")[0]}; npm run bench:peers-install`);
}
const [LR, BETA1, BETA2, EPS, DECAY] = [1e-3, 0.9, 0.999, 1e-8, 1e-2];

/** x [N, in] → x · w + b, with its gradient by x alone. */
function linear({ data, shape }, bias) {
  const w = tf.tensor2d(data, shape);
  const wT = tf.tensor2d(transposed(data, shape), [shape[1], shape[0]]);
  const b = bias && tf.tensor1d(bias);
  const product = tf.customGrad((x) => ({ value: tf.matMul(x, w), gradFunc: (dy) => tf.matMul(dy, wT) }));
  return (x) => (b ? tf.add(product(x), b) : product(x));
}

function layerNorm({ data: w }, { data: b }, eps) {
  const [weight, bias] = [tf.tensor1d(w), tf.tensor1d(b)];
  return (x) => {
    const centred = tf.sub(x, tf.mean(x, 1, true));
    const variance = tf.mean(tf.square(centred), 1, true);
    return tf.add(tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, eps))), weight), bias);
  };
}

function geluNew(x) {
  const inner = tf.add(x, tf.mul(tf.mul(tf.mul(x, x), x), 0.044715));
  return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(tf.mul(inner, Math.sqrt(2 / Math.PI))), 1));
}

/** A running mean, one step on. */
const blend = (mean, x, beta) => tf.tidy(() => tf.add(tf.mul(mean, beta), tf.mul(x, 1 - beta)));

await serve({ name: "TensorFlow.js wasm", runtime: `Node ${process.versions.node}`, vectorBits: 128 }, (c) => {
  const of = gpt2Training(c);
  if (!of) return null;
  const { config, get, D, k } = of;
  const [H, d] = [config.n_head, D / config.n_head];
  const norm = (name) => layerNorm(get(`${name}.weight`), get(`${name}.bias`), config.layer_norm_epsilon ?? 1e-5);
  const conv = (name) => linear(get(`${name}.weight`), get(`${name}.bias`).data);
  const blocks = Array.from({ length: config.n_layer }, (_, i) => {
    const at = `transformer.h.${i}`;
    return {
      ln1: norm(`${at}.ln_1`),
      attn: conv(`${at}.attn.c_attn`),
      proj: conv(`${at}.attn.c_proj`),
      ln2: norm(`${at}.ln_2`),
      fc: conv(`${at}.mlp.c_fc`),
      out: conv(`${at}.mlp.c_proj`),
    };
  });
  const lnF = norm("transformer.ln_f");
  const V = of.wte.length / D;
  const head = linear({ data: transposed(of.wte, [V, D]), shape: [D, V] });
  const untrained = tf.tensor1d(of.untrained);
  const rows = tf.variable(tf.tensor2d(of.rows, [k, D]));
  const batches = of.batches.map(({ B, T, inputs, targets, weights }) => ({
    B,
    T,
    x: tf.tensor2d(inputs.frozen, [B * T, D]),
    slots: tf.tensor2d(inputs.trained, [B * T, k]),
    y: tf.tensor2d(targets.frozen, [B * T, D]),
    targetSlots: tf.tensor2d(targets.trained, [B * T, k]),
    weights: tf.tensor1d(weights),
    mask: tf.tensor2d(causalMask(T), [T, T]),
  }));

  const attention = (qkv, { B, T, mask }) => {
    const heads = tf.transpose(tf.reshape(qkv, [B, T, 3, H, d]), [2, 0, 3, 1, 4]);
    const [q, key, v] = tf.unstack(tf.reshape(heads, [3, B * H, T, d]));
    const p = tf.softmax(tf.add(tf.div(tf.matMul(q, key, false, true), Math.sqrt(d)), mask));
    const mixed = tf.transpose(tf.reshape(tf.matMul(p, v), [B, H, T, d]), [0, 2, 1, 3]);
    return tf.reshape(mixed, [B * T, D]);
  };
  const lossOf = (batch) => {
    let x = tf.add(batch.x, tf.matMul(batch.slots, rows));
    for (const { ln1, attn, proj, ln2, fc, out } of blocks) {
      x = tf.add(x, proj(attention(attn(ln1(x)), batch)));
      x = tf.add(x, out(geluNew(fc(ln2(x)))));
    }
    const h = lnF(x);
    const frozen = tf.logSumExp(tf.add(head(h), untrained), 1);
    const trained = tf.logSumExp(tf.matMul(h, rows, false, true), 1);
    const all = tf.logSumExp(tf.stack([frozen, trained], 1), 1);
    const target = tf.sum(tf.mul(h, tf.add(batch.y, tf.matMul(batch.targetSlots, rows))), 1);
    return tf.sum(tf.mul(tf.sub(all, target), batch.weights));
  };

  let [m, v, t] = [tf.zeros([k, D]), tf.zeros([k, D]), 0];
  const kept = (next, before) => (before.dispose(), next);
  const step = (batch) => {
    t++;
    const { value, grads } = tf.variableGrads(() => lossOf(batch), [rows]);
    const g = Object.values(grads)[0];
    m = kept(blend(m, g, BETA1), m);
    v = kept(blend(v, tf.square(g), BETA2), v);
    tf.tidy(() => {
      const size = tf.add(tf.div(tf.sqrt(v), Math.sqrt(1 - BETA2 ** t)), EPS);
      const move = tf.div(tf.mul(m, LR / (1 - BETA1 ** t)), size);
      rows.assign(tf.sub(tf.mul(rows, 1 - LR * DECAY), move));
    });
    tf.dispose([value, g]);
  };
  return {
    run: () => {
      batches.forEach(step);
      rows.dataSync();
    },
    calls: batches.length,
    check: () => batches.map((batch) => tf.tidy(() => lossOf(batch).dataSync()[0])),
    release: () => tf.disposeVariables(),
  };
});
