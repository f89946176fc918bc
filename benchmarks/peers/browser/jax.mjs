import * as jax from "@jax-js/jax";
import { inputs, timed } from "./shape.mjs";

/** jax-js on `webgpu`, compiled; every use of an array but its last takes a reference. */
export async function run(mode, shape, repeats) {
  const devices = await jax.init(mode);
  if (!devices.includes(mode)) throw new Error(`jax-js has no ${mode} here`);
  jax.defaultDevice(mode);
  const { numpy: np, nn, jit, valueAndGrad } = jax;
  const given = inputs(shape);
  const { width, heads, length, vocab } = shape;
  const upload = ({ data, shape: of }) => np.array(data).reshape(of);
  const names = ["attn", "proj", "fc", "out"];
  const weights = [...given.blocks.flatMap((block) => names.map((name) => upload(block[name]))), upload(given.head)];
  const x = upload(given.x);
  const hot = new Float32Array(length * vocab);
  given.targets.forEach((t, i) => (hot[i * vocab + t] = 1));
  const hits = np.array(hot).reshape([length, vocab]);
  const norm = (t) => nn.standardize(t, -1, { epsilon: 1e-5 });
  const lossOf = (from, ws, wanted) => {
    let h = from;
    for (let i = 0; i < given.blocks.length; i++) {
      const [attn, proj, fc, out] = ws.slice(4 * i, 4 * i + 4);
      const qkv = np.matmul(norm(h.ref), attn).reshape([length, 3, heads, width / heads]);
      const [q, k, v] = np.split(qkv, 3, 1).map((t) => t.reshape([length, heads, width / heads]));
      const a = nn.dotProductAttention(q, k, v, { isCausal: true }).reshape([length, width]);
      h = h.add(np.matmul(a, proj));
      h = h.ref.add(np.matmul(nn.gelu(np.matmul(norm(h), fc), { approximate: true }), out));
    }
    const logs = nn.logSoftmax(np.matmul(norm(h), ws.at(-1)), -1);
    return np.sum(logs.mul(wanted)).mul(-1 / length);
  };
  const both = jit(valueAndGrad(lossOf));
  return timed(async () => {
    const [loss, grad] = both(
      x.ref,
      weights.map((w) => w.ref),
      hits.ref,
    );
    await grad.data();
    return (await loss.data())[0];
  }, repeats);
}
