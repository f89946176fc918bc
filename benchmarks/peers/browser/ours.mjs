import { backward } from "@neolog/autograd";
import { openGpu } from "@neolog/gpu";
import * as nl from "@neolog/tensor";
import { inputs, timed } from "./shape.mjs";

/** Neolog on its gpu backend. */
export async function run(mode, shape, repeats) {
  const backend = await openGpu({ mode, allowSoftware: true });
  const given = inputs(shape);
  const { width, heads, length } = shape;
  const upload = ({ data, shape: of }) => nl.persist(nl.tensor(data, of, "float32", backend));
  const blocks = given.blocks.map((block) => Object.fromEntries(Object.entries(block).map(([k, m]) => [k, upload(m)])));
  const [head, x] = [upload(given.head), upload(given.x)];
  x.requiresGrad = true;
  const [one, zero] = [
    nl.persist(nl.ones([width], "float32", backend)),
    nl.persist(nl.zeros([width], "float32", backend)),
  ];
  const causal = Int32Array.from({ length: length * length }, (_, i) => Number(i % length <= Math.floor(i / length)));
  const mask = nl.persist(nl.intTensor(causal, [length, length], backend));
  const targets = nl.persist(nl.intTensor(given.targets, [length], backend));
  const norm = (t) => nl.layerNorm(t, one, zero, 1e-5);
  const split = (t, i) =>
    nl.permute(nl.reshape(nl.slice(t, 1, i * width, (i + 1) * width), [1, length, heads, width / heads]), [0, 2, 1, 3]);
  const backwards = () => {
    let h = x;
    for (const { attn, proj, fc, out } of blocks) {
      const qkv = nl.matmul(norm(h), attn);
      const a = nl.attention(split(qkv, 0), split(qkv, 1), split(qkv, 2), mask);
      h = nl.add(h, nl.matmul(nl.reshape(nl.permute(a, [0, 2, 1, 3]), [length, width]), proj));
      h = nl.add(h, nl.matmul(nl.geluTanh(nl.matmul(norm(h), fc)), out));
    }
    const loss = nl.crossEntropy(nl.matmul(norm(h), head), targets);
    backward(loss);
    return loss;
  };
  const start = performance.now();
  if (!shape.unprepared)
    await backend.prepare(() => {
      const scope = new nl.Scope();
      backwards();
      x.grad = null;
      scope[Symbol.dispose]();
    });
  const prepared = performance.now() - start;
  const result = await timed(async () => {
    const scope = new nl.Scope();
    const loss = backwards();
    const value = await loss.item();
    await x.grad.data();
    x.grad = null;
    scope[Symbol.dispose]();
    return value;
  }, repeats);
  return { ...result, prepared };
}
