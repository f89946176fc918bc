import {
  type Backend,
  DisposedError,
  Scope,
  type Tensor,
  add,
  defaultBackend,
  geluTanh,
  layerNorm,
  matmul,
  ones,
  parameter,
  persist,
  randn,
  setDefaultBackend,
  sum,
  zeros,
} from "@neolog/tensor";
import { computingBackends } from "@neolog/tensor/testing";
import { beforeAll, describe, expect, test } from "vitest";
import { backward, noGrad } from "./backward.ts";
import { checkpointUnless } from "./checkpoint.ts";
import { lean } from "./lean.ts";

const [T, C, INNER] = [6, 8, 32];
const FLOAT = 4;

describe.each(await computingBackends())("lean, $title", ({ backend: tested }) => {
  let backend: Backend;
  let weights: { up: Tensor; down: Tensor; one: Tensor; zero: Tensor };
  beforeAll(() => {
    setDefaultBackend(tested);
    backend = defaultBackend();
    weights = { up: randn([C, INNER], 1), down: randn([INNER, C], 2), one: ones([C]), zero: zeros([C]) };
  });

  /** A feed-forward block with frozen weights. */
  const block = (x: Tensor): Tensor => {
    const normed = layerNorm(x, weights.one, weights.zero, 1e-5);
    return add(x, matmul(geluTanh(add(matmul(normed, weights.up), 0.5)), weights.down));
  };
  const input = (): Tensor => parameter(randn([T, C], 3));
  const heldBy = (run: (x: Tensor) => Tensor, x: Tensor): { held: number; y: Tensor } => {
    const before = backend.bytes.live;
    const y = run(x);
    return { held: backend.bytes.live - before, y };
  };

  test("holds what the activation reads, and the result, to the byte", () => {
    using _scope = new Scope();
    const { held } = heldBy((x) => lean(() => block(x)), input());
    expect(held).toBe(FLOAT * (T * INNER + T * C));
  });

  test("gives the gradient that all values give", () => {
    const [all, some] = [block, (x: Tensor) => lean(() => block(x))].map((run) => {
      using _scope = new Scope();
      const x = input();
      backward(sum(run(run(x))));
      return [...x.grad!.dataSync()];
    });
    expect(some).toEqual(all);
  });

  test("holds the result alone where nothing trains", () => {
    using _scope = new Scope();
    const { held } = noGrad(() => heldBy((x) => lean(() => block(x)), input()));
    expect(held).toBe(FLOAT * T * C);
  });

  test("leaves alone what is taken out of its scope, and says what else is gone", () => {
    using _scope = new Scope();
    const seen: Tensor[] = [];
    lean(() => {
      const x = block(input());
      seen.push(persist(add(x, 1)), add(x, 2), x);
      return matmul(x, weights.up);
    });
    expect(seen[0]!.dataSync()).toHaveLength(T * C);
    expect(() => seen[1]!.dataSync()).toThrow(DisposedError);
    expect(() => seen[2]!.dataSync()).toThrow(
      "dataSync: a tensor must be alive, got a disposed one of shape [6, 8]; keep it with scope.keep(t)",
    );
    seen[0]!.dispose();
  });

  test("checkpointUnless asks with the bytes that the gradient reads, and does as it is told", () => {
    using _scope = new Scope();
    const gradients = [true, false].map((keep) => {
      const asked: number[] = [];
      const x = input();
      const { held, y } = heldBy((t) => checkpointUnless((bytes) => asked.push(bytes) > 0 && keep, block, t), x);
      expect(asked).toEqual([FLOAT * T * INNER]);
      expect(held).toBe(FLOAT * (T * C + (keep ? T * INNER : 0)));
      backward(sum(y));
      return [...x.grad!.dataSync()];
    });
    expect(gradients[1]).toEqual(gradients[0]);
  });
});
