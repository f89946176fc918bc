/** Training of token rows of GPT-2 by jax-js on WebAssembly: `node jax_step.mjs THREADS`. The whole step is one compiled function. */
import { sayMissing, serve } from "../dist/serve.js";
import { gpt2Training, transposed } from "./gpt2.mjs";
import { jaxJs } from "./jax_threads.mjs";

const threads = Number(process.argv[2] ?? 1);
if (Number.parseInt(process.versions.node, 10) < 22)
  sayMissing("its attention needs Node 22 or newer, such as --node 24");
let jax;
try {
  jax = await jaxJs(threads);
} catch {
  sayMissing("not installed; npm run bench:peers-install");
}
const { numpy: np, nn, jit, valueAndGrad, tree, blockUntilReady } = jax;
const [LR, BETA1, BETA2, EPS, DECAY] = [1e-3, 0.9, 0.999, 1e-8, 1e-2];

// an array is consumed by what it is given to, unless a reference is kept
const linear = (x, { w, b }) => np.matmul(x, w).add(b);
const layerNorm = (x, { w, b }, epsilon) => nn.standardize(x, -1, { epsilon }).mul(w).add(b);

/** The loss of a batch of one sequence; `p`: all that is frozen. */
function lossOf(rows, p, batch, { heads, epsilon }) {
  const [T, D] = batch.x.shape;
  let x = batch.x.add(np.matmul(batch.slots, rows.ref));
  for (const { ln1, attn, proj, ln2, fc, out } of p.blocks) {
    const qkv = linear(layerNorm(x.ref, ln1, epsilon), attn).reshape([T, 3 * heads, D / heads]);
    const [q, k, v] = np.split(qkv, 3, 1);
    const mixed = nn.dotProductAttention(q, k, v, { isCausal: true }).reshape([T, D]);
    x = x.add(linear(mixed, proj));
    x = x.ref.add(linear(nn.gelu(linear(layerNorm(x, ln2, epsilon), fc)), out));
  }
  const h = layerNorm(x, p.lnF, epsilon);
  const frozen = np.matmul(h.ref, p.head).add(p.untrained);
  const trained = np.matmul(h.ref, rows.ref.transpose());
  const all = np.logaddexp(nn.logsumexp(frozen, 1), nn.logsumexp(trained, 1));
  const target = h.mul(batch.y.add(np.matmul(batch.targetSlots, rows))).sum(1);
  return all.sub(target).mul(batch.weights).sum();
}

const hello = { name: "jax-js", runtime: `Node ${process.versions.node}`, vectorBits: 128 };
await serve(hello, async (c) => {
  const of = gpt2Training(c);
  if (!of || c.shape[0] !== 1) return null;
  const { config, get, D, k } = of;
  const array = (data, shape) => np.array(data).reshape(shape);
  const load = (name) => {
    const [w, b] = [get(`${name}.weight`), get(`${name}.bias`)];
    return { w: array(w.data, w.shape), b: array(b.data, b.shape) };
  };
  const blocks = Array.from({ length: config.n_layer }, (_, i) => {
    const at = `transformer.h.${i}`;
    return {
      ln1: load(`${at}.ln_1`),
      attn: load(`${at}.attn.c_attn`),
      proj: load(`${at}.attn.c_proj`),
      ln2: load(`${at}.ln_2`),
      fc: load(`${at}.mlp.c_fc`),
      out: load(`${at}.mlp.c_proj`),
    };
  });
  const V = of.wte.length / D;
  const head = array(transposed(of.wte, [V, D]), [D, V]);
  const frozen = { blocks, lnF: load("transformer.ln_f"), head, untrained: array(of.untrained, [V]) };
  const batches = of.batches.map(({ T, inputs, targets, weights }) => ({
    x: array(inputs.frozen, [T, D]),
    slots: array(inputs.trained, [T, k]),
    y: array(targets.frozen, [T, D]),
    targetSlots: array(targets.trained, [T, k]),
    weights: array(weights, [T]),
  }));
  const sizes = { heads: config.n_head, epsilon: config.layer_norm_epsilon ?? 1e-5 };
  const gradient = jit((rows, p, batch) => valueAndGrad((r) => lossOf(r, p, batch, sizes))(rows));

  let rows = array(of.rows, [k, D]);
  let [m, v, t] = [np.zeros([k, D]), np.zeros([k, D]), 0];
  const step = async (batch) => {
    t++;
    const [value, g] = gradient(rows.ref, tree.ref(frozen), tree.ref(batch));
    value.dispose();
    m = m.mul(BETA1).add(g.ref.mul(1 - BETA1));
    v = v.mul(BETA2).add(g.ref.mul(g).mul(1 - BETA2));
    const size = np
      .sqrt(v.ref)
      .mul(1 / Math.sqrt(1 - BETA2 ** t))
      .add(EPS);
    rows = rows.mul(1 - LR * DECAY).sub(m.ref.mul(LR / (1 - BETA1 ** t)).div(size));
    await blockUntilReady(rows);
  };
  return {
    run: async () => {
      for (const batch of batches) await step(batch);
    },
    calls: batches.length,
    // by what trains, so that compiling it, a minute for GPT-2 small, is no part of a step
    check: async () => {
      const found = [];
      for (const batch of batches) {
        const [value, g] = gradient(rows.ref, tree.ref(frozen), tree.ref(batch));
        g.dispose();
        found.push((await value.data())[0]);
      }
      return found;
    },
    release: () => tree.dispose([rows, m, v, frozen, batches]),
  };
});
