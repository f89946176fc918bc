import { type Backend, Scope, type Tensor, openBackend, tensor } from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { afterAll, describe, expect, test } from "vitest";
import { backward } from "./backward.ts";
import { type Stored, opsFolders, readJson, readSafetensors } from "./testing/golden.ts";
import { ADAPTERS } from "./testing/goldenOps.ts";

interface Case {
  readonly name: string;
  readonly op: string;
  readonly attrs: Record<string, unknown>;
  readonly inputs: Record<string, unknown>;
  readonly outputs: Record<string, unknown>;
  readonly grads: Record<string, unknown>;
  readonly atol: Record<string, number>;
}

/** Tested where they live: generation and rotary scaling belong to the models; adapters refuse duplicate rows. */
const ELSEWHERE = /^(logits_|inv_freq_|tt_duplicate_rows$)/;

const backends = [{ title: "reference", backend: await openBackend("reference") }, ...(await computingBackends())];

describe.each(opsFolders())("torch's ops, $name", ({ path }) => {
  const { cases } = readJson(`${path}/index.json`) as { cases: Case[] };
  const stored = readSafetensors(`${path}/ops.safetensors`);
  const ours = cases.filter(({ name }) => !ELSEWHERE.test(name));
  afterAll(() => console.log(`${path}: ${ours.length} cases here, ${cases.length - ours.length} elsewhere`));

  test("every op has an adapter", () => {
    expect(ours.map(({ op }) => op).filter((op) => !ADAPTERS[op])).toEqual([]);
  });
  describe.each(backends)("$title", ({ backend }) => {
    test.each(ours)("$name", (each) => {
      using _ = new Scope();
      compare(each, stored, backend);
    });
  });
});

function compare(
  { name, op, attrs, inputs, outputs, grads, atol }: Case,
  stored: Map<string, Stored>,
  backend: Backend,
) {
  const load = (key: string): Tensor => {
    const { shape, data } = stored.get(`${name}/${key}`)!;
    return tensor(data, shape, data instanceof Int32Array ? "int32" : "float32", backend);
  };
  const leaves = Object.fromEntries(Object.keys(inputs).map((key) => [key, load(`in.${key}`)]));
  for (const key of Object.keys(grads)) leaves[key]!.requiresGrad = true;

  const result = ADAPTERS[op]!(leaves, attrs);
  const results = (result.constructor === Object ? result : { y: result }) as Record<string, Tensor>;
  for (const key of Object.keys(outputs))
    expectNear(`out.${key}`, results[key]!, stored.get(`${name}/out.${key}`)!, atol);

  for (const [key, y] of Object.entries(results))
    if (y.tracked && stored.has(`${name}/cot.${key}`)) backward(y, load(`cot.${key}`));
  for (const key of Object.keys(grads)) expectGradient(key);

  function expectGradient(key: string): void {
    const expected = stored.get(`${name}/grad.${key}`)!;
    const grad = leaves[key]!.grad ?? tensor(new Float32Array(expected.data.length), expected.shape);
    expectNear(`grad.${key}`, grad, expected, atol);
  }
}

/** Within the tolerance stored with the case; NaN and infinities must match. */
function expectNear(
  key: string,
  actual: Tensor,
  { shape, data: expected }: Stored,
  atol: Record<string, number>,
): void {
  expect(actual.shape, key).toEqual(shape);
  const data = actual.dataSync();
  for (let i = 0; i < expected.length; i++) {
    const [x, y] = [data[i]!, expected[i]!];
    if (x === y || (Number.isNaN(x) && Number.isNaN(y))) continue;
    if (!(Math.abs(x - y) <= (atol[key] ?? 0))) expect.fail(`${key}[${i}] must be ${y} ± ${atol[key]}, got ${x}`);
  }
}
