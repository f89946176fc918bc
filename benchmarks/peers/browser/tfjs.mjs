import * as tf from "@tensorflow/tfjs-core";
import { inputs, timed } from "./shape.mjs";

/** TensorFlow.js on `webgl` or `webgpu`. */
export async function run(mode, shape, repeats) {
  // each registers what it has
  await import("@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops");
  await import("@tensorflow/tfjs-core/dist/register_all_gradients");
  await import("@tensorflow/tfjs-backend-webgl");
  await import("@tensorflow/tfjs-backend-webgpu");
  if (!(await tf.setBackend(mode)) || tf.getBackend() !== mode) throw new Error(`TensorFlow.js has no ${mode} here`);
  await tf.ready();
  const given = inputs(shape);
  const { width, heads, length, vocab } = shape;
  const upload = ({ data, shape: of }) => tf.tensor(data, of);
  const blocks = given.blocks.map((block) => Object.fromEntries(Object.entries(block).map(([k, m]) => [k, upload(m)])));
  const [head, x] = [upload(given.head), upload(given.x)];
  const hidden = tf.tensor(
    Float32Array.from({ length: length * length }, (_, i) => (i % length <= Math.floor(i / length) ? 0 : -1e30)),
    [length, length],
  );
  const hot = tf.oneHot(tf.tensor1d(given.targets, "int32"), vocab).toFloat();
  const norm = (t) => {
    const { mean, variance } = tf.moments(t, -1, true);
    return t.sub(mean).mul(variance.add(1e-5).rsqrt());
  };
  const gelu = (t) =>
    t.mul(0.5).mul(
      t
        .add(t.pow(3).mul(0.044715))
        .mul(Math.sqrt(2 / Math.PI))
        .tanh()
        .add(1),
    );
  const split = (t, i) =>
    t
      .slice([0, i * width], [length, width])
      .reshape([length, heads, width / heads])
      .transpose([1, 0, 2]);
  const lossOf = (from) => {
    let h = from;
    for (const { attn, proj, fc, out } of blocks) {
      const qkv = norm(h).matMul(attn);
      const scores = split(qkv, 0)
        .matMul(split(qkv, 1), false, true)
        .mul(1 / Math.sqrt(width / heads))
        .add(hidden);
      const a = tf.softmax(scores).matMul(split(qkv, 2));
      h = h.add(a.transpose([1, 0, 2]).reshape([length, width]).matMul(proj));
      h = h.add(gelu(norm(h).matMul(fc)).matMul(out));
    }
    return tf.neg(tf.sum(tf.logSoftmax(norm(h).matMul(head)).mul(hot))).div(length);
  };
  const both = tf.valueAndGrad(lossOf);
  return timed(async () => {
    const { value, grad } = tf.tidy(() => both(x));
    const [loss] = await value.data();
    await grad.data();
    tf.dispose([value, grad]);
    return loss;
  }, repeats);
}
