import {
  adamw,
  add,
  attention,
  attentionGrad,
  cast,
  contiguous,
  crossEntropyGrad,
  frozenColumns,
  intTensor,
  layerNorm,
  linearCrossEntropy,
  matmulT,
  mul,
  overriddenRows,
  overrideColumns,
  parameter,
  rand,
  scatterRows,
  slice,
  softmax,
  sub,
  sum,
  takeRows,
  tensor,
  transpose,
  type Backend,
  type DType,
  type OpAttrs,
  type Tensor,
  zeros,
} from "@neolog/tensor";
import { Scope, openBackend } from "@neolog/tensor";
import { expectClose } from "@neolog/tensor/testing";
import { describe, expect, test, vi } from "vitest";
import type { GpuBackend } from "../backend.ts";
import { DeviceLostError } from "../errors.ts";
import { openGpu } from "../open.ts";
import { Recorder } from "./recorder.ts";
import { whyNoWebGpu } from "./testing.ts";

/** Columns of logits that linearCrossEntropy looks at together. */
const BLOCK = 3072;

const why = await whyNoWebGpu();
const open = (options = {}): Promise<GpuBackend> => openGpu({ mode: "webgpu", allowSoftware: true, ...options });

describe.skipIf(why)(`webgpu${why ? `: ${why}` : ""}`, () => {
  test("refuses a software adapter that nobody asked for, and says how to ask", async (context) => {
    const { info } = await open();
    context.skip(info["software"] !== true, "the adapter is real");
    await expect(openGpu()).rejects.toMatchObject({
      code: "no-gpu",
      refused: { webgpu: expect.stringMatching(/computes in software; pass allowSoftware: true/) },
    });
  });

  test("says what it runs on", async () => {
    const { info } = await open();
    expect(info).toMatchObject({ name: "gpu", mode: "webgpu", arithmetic: "float32" });
    expect(info["adapter"]).not.toBe("");
    expect(info["maxBindingBytes"]).toBeGreaterThanOrEqual(2 ** 27);
  });

  test("arrays beyond the binding limit lie in several buffers, whole and half, read and written", async () => {
    using _scope = new Scope();
    const [small, cpu] = [await open({ maxBindingBytes: 4096 }), await openBackend("cpu")];
    const ids = Int32Array.of(0, 299, 150, -1, 128);
    for (const dtype of ["float32", "bfloat16"] as const) {
      const [table, same] = [small, cpu].map((backend) => cast(rand([300, 8], 3, "float32", backend), dtype));
      expect(await table!.data()).toEqual(await same!.data());
      expect(await takeRows(table!, ids).data()).toEqual(await takeRows(same!, ids).data());
      const [x, y] = [small, cpu].map((backend) => rand([2, 8], 5, "float32", backend));
      const [product, expected] = [await matmulT(x!, table!).data(), await matmulT(y!, same!).data()];
      expected.forEach((value, i) => expect(product[i]).toBeCloseTo(value, 5));
      const part = (t: typeof table) => contiguous(slice(transpose(t!), 1, 100, 290, 3)).data();
      expect(await part(table)).toEqual(await part(same));
    }
    const [grown, expected] = [small, cpu].map((backend) => scatterRows(rand([5, 8], 7, "float32", backend), ids, 300));
    expect(await grown!.data()).toEqual(await expected!.data());
  });

  test("more buffers than a kernel may bind are refused by name", async () => {
    using _scope = new Scope();
    const small = await open({ maxBindingBytes: 1024 });
    const x = tensor(new Float32Array(200_000), [200_000], "float32", small);
    expect(() => add(x, 0)).toThrow(/^gpu: pointwise must bind at most \d+ buffers of 1024 bytes, got \d+/);
  });

  test("writes of what a recorded op has yet to read wait for it", async () => {
    const gpu = await open();
    const x = tensor([1, 2, 3, 4], [4], "float32", gpu);
    const y = add(x, 1);
    gpu.write(x.view("test").buffer, Float32Array.of(9, 9, 9, 9));
    expect(await y.data()).toEqual(Float32Array.of(2, 3, 4, 5));
    expect(await x.data()).toEqual(Float32Array.of(9, 9, 9, 9));
  });

  test("whole numbers that the host wrote are read at once, those that a kernel changed are not", async () => {
    using _scope = new Scope();
    const gpu = await open();
    const ids = tensor([7, 8, 9, 10], [2, 2], "int32", gpu);
    expect(slice(ids, 0, 1, 2).dataSync()).toEqual(Int32Array.of(9, 10));
    gpu.fill(ids.view("test"), 3);
    expect(() => ids.dataSync()).toThrow("gpu cannot read synchronously; use await t.data()");
    expect(await ids.data()).toEqual(new Int32Array(4).fill(3));
  });

  test("a step of AdamW is one dispatch, and what the composite is to 1e-6", async () => {
    using _scope = new Scope();
    const [gpu, cpu] = [await open(), await openBackend("cpu")];
    const numbers = { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.1, maximize: false } as const;
    const [found, expected] = [gpu, cpu].map((backend) => {
      const [p, exp_avg, exp_avg_sq, toward] = [1, 0, 0, 2].map((seed) =>
        seed === 0 ? zeros([5, 300], "float32", backend) : rand([5, 300], seed, "float32", backend),
      ) as [Tensor, Tensor, Tensor, Tensor];
      for (let step = 1; step <= 20; step++) {
        const grad = rand([5, 300], 10 + step, "float32", backend);
        const before = gpu.dispatches;
        adamw({ p, grad, exp_avg, exp_avg_sq, toward: step % 2 ? toward : null }, { ...numbers, step });
        if (backend === gpu) expect(gpu.dispatches - before).toBe(1);
      }
      return [p, exp_avg, exp_avg_sq];
    });
    for (const [i, t] of found!.entries())
      expectClose(await t.data(), await expected![i]!.data(), { absolute: 1e-6, relative: 1e-6 });
  });

  test("nothing is dispatched for results of no elements", async () => {
    using _scope = new Scope();
    const gpu = await open();
    const of = (...shape: number[]) => rand(shape, 1, "float32", gpu);
    const [q, kv, none, table, w] = [of(1, 2, 0, 4), of(1, 2, 3, 4), of(0, 4), of(5, 4), of(4)];
    const mask = intTensor(new Int32Array(3).fill(1), [1, 3], gpu);
    const ids = intTensor(new Int32Array(0), [0], gpu);
    const before = gpu.dispatches;
    const results = [
      attention(q, kv, kv, mask),
      attentionGrad(q, kv, kv, mask, q, { scale: 1, softcap: null, wanted: [true, false, false] })[0]!,
      takeRows(table, ids),
      softmax(none),
      layerNorm(none, w, w, 1e-5),
      crossEntropyGrad(none, ids, of()),
      matmulT(none, table),
      add(none, w),
    ];
    for (const t of results) expect((await t.data()).length).toBe(0);
    expect(gpu.dispatches).toBe(before);
  });

  test("AdamW on arrays in several buffers is the composite", async () => {
    using _scope = new Scope();
    const gpu = await open({ maxBindingBytes: 1024 });
    const [p, grad] = [rand([300], 1, "float32", gpu), rand([300], 2, "float32", gpu)];
    const [exp_avg, exp_avg_sq] = [zeros([300], "float32", gpu), zeros([300], "float32", gpu)];
    const before = await p.data();
    const numbers = { lr: 0.5, betas: [0.9, 0.999], eps: 0, weight_decay: 0, maximize: true, step: 1 } as const;
    adamw({ p, grad, exp_avg, exp_avg_sq, toward: null }, numbers);
    const after = await p.data();
    before.forEach((x, i) => expect(after[i]).toBeCloseTo(x + 0.5, 5));
  });

  test("rows looked up and overridden are one dispatch, their gradient another, in several buffers too", async () => {
    using _scope = new Scope();
    const [gpu, cpu] = [await open({ maxBindingBytes: 4096 }), await openBackend("cpu")];
    const ids = Int32Array.of(299, 3, 3, 150, 0, 7, 3);
    const slots = Int32Array.of(-1, 1, 1, -1, 0, -1, -1);
    for (const dtype of ["float32", "bfloat16"] as const) {
      const [found, expected] = [gpu, cpu].map((backend) => {
        const table = cast(rand([300, 8], 3, "float32", backend), dtype);
        const rows = rand([2, 8], 4, "float32", backend);
        const [index, places] = [ids, slots].map((list) => intTensor(list, [list.length], backend));
        const before = gpu.dispatches;
        const x = overriddenRows(table, index!, rows, places!);
        const gradient = scatterRows(mul(x, 1), places!, 2);
        if (backend === gpu) expect(gpu.dispatches - before).toBe(3);
        return [x, gradient];
      });
      for (const [i, t] of found!.entries()) expect(await t.data()).toEqual(await expected![i]!.data());
    }
  });

  describe.each(["shared", "alone"] as const)("the cross entropy of a linear layer, lanes %s", (style) => {
    const [N, D, V] = [9, 12, 4200];
    const ids = Int32Array.from({ length: N }, (_, i) => (i % 5 === 3 ? -100 : (i * 997) % V));
    const columns = Int32Array.of(4199, 997, 2048, 3);
    const lossOf = (backend: Backend, softcap: number | null, dtype: DType, withRows: boolean) => {
      const of = (shape: readonly number[], seed: number) => sub(mul(rand(shape, seed, "float32", backend), 4), 2);
      const hidden = parameter(of([N, D], 1));
      const rows = parameter(of([4, D], 3));
      const weight = cast(of([V, D], 2), dtype);
      const targets = intTensor(ids, [N], backend);
      const options = { softcap, override: withRows ? { rows, columns } : null };
      return { hidden, weight, targets, rows, options };
    };
    test.each([
      ["whole", null, "float32", false],
      ["capped, some rows overridden", 3, "float32", true],
      ["of halves, some rows overridden", null, "bfloat16", true],
    ] as const)("%s, and its gradient", async (_, softcap, dtype, withRows) => {
      using _scope = new Scope();
      const [gpu, reference] = [await open({ style }), await openBackend("reference")];
      const [found, expected] = [gpu, reference].map((backend) => {
        const { hidden, weight, targets, options } = lossOf(backend, softcap, dtype, withRows);
        const loss = linearCrossEntropy(hidden, weight, targets, options);
        const { hiddenGrad, rowsGrad, logSumExp } = loss.source!.attrs as OpAttrs["linearCrossEntropy"];
        return [loss, hiddenGrad!, logSumExp, ...(rowsGrad ? [rowsGrad] : [])];
      });
      expect(found!.length).toBe(withRows ? 4 : 3);
      for (const [i, t] of found!.entries())
        expectClose(await t.data(), await expected![i]!.data(), { relative: 4e-6, absolute: 1e-6 });
    });

    test("three kernels a block of columns, two without a gradient", async () => {
      using _scope = new Scope();
      const gpu = await open({ style });
      const [small, large] = [BLOCK, 3 * BLOCK].map((size) => {
        const hidden = rand([N, D], 1, "float32", gpu);
        const weight = rand([size, D], 2, "float32", gpu);
        const targets = intTensor(
          ids.map((id) => id % BLOCK),
          [N],
          gpu,
        );
        return [false, true].map((tracked) => {
          hidden.requiresGrad = tracked;
          const before = gpu.dispatches;
          linearCrossEntropy(hidden, weight, targets);
          return gpu.dispatches - before;
        }) as [number, number];
      });
      expect(large![0] - small![0]).toBe(4);
      expect(large![1] - small![1]).toBe(6);
    });

    test("columns that never change are looked at once", async () => {
      using _scope = new Scope();
      const gpu = await open({ style });
      const { hidden, weight, targets, options } = lossOf(gpu, null, "float32", true);
      hidden.requiresGrad = false;
      const frozen = frozenColumns(hidden, weight, targets, columns);
      const whole = await linearCrossEntropy(hidden, weight, targets, options).item();
      expect(await linearCrossEntropy(hidden, weight, targets, { ...options, frozen }).item()).toBeCloseTo(whole, 5);
    });
  });

  test("columns are overridden in one dispatch, any number of them", async () => {
    using _scope = new Scope();
    const [gpu, cpu] = [await open(), await openBackend("cpu")];
    for (const columns of [
      [5],
      [9, 0],
      [3, 8, 1],
      [12, 2, 7, 0, 5, 11, 4],
      Array.from({ length: 13 }, (_, i) => 12 - i),
    ]) {
      const [found, expected] = [gpu, cpu].map((backend) => {
        const x = rand([2, 3, 13], 1, "float32", backend);
        const values = rand([2, 3, columns.length], 2, "float32", backend);
        const before = gpu.dispatches;
        const y = overrideColumns(x, values, Int32Array.from(columns));
        if (backend === gpu) expect(gpu.dispatches - before).toBe(1);
        return y;
      });
      expect(await found!.data()).toEqual(await expected!.data());
    }
  });

  test("parts of an array in several buffers go through tuned kernels, those on an edge through others", async () => {
    using _scope = new Scope();
    const [N, D, V] = [4, 8, 3 * BLOCK];
    const ids = Int32Array.of(0, BLOCK - 1, BLOCK, V - 1);
    // two blocks of columns in a buffer, or a block and a half: the product of what is on the edge joins the others by an op of its own
    for (const [maxBindingBytes, kernels] of [
      [2 * BLOCK * D * 4, 6],
      [1.5 * BLOCK * D * 4, 7],
    ] as const) {
      const [small, whole] = [await open({ maxBindingBytes }), await open()];
      const results = [small, whole].map((gpu) => {
        const [hidden, table] = [rand([N, D], 1, "float32", gpu), rand([V, D], 2, "float32", gpu)];
        const targets = intTensor(ids, [N], gpu);
        hidden.requiresGrad = true;
        const counted = (weight: Tensor): [number, Tensor[]] => {
          const before = gpu.dispatches;
          const loss = linearCrossEntropy(hidden, weight, targets);
          const { hiddenGrad } = loss.source!.attrs as OpAttrs["linearCrossEntropy"];
          return [gpu.dispatches - before, [loss, hiddenGrad!]];
        };
        const [all, found] = counted(table);
        const [first] = counted(slice(table, 0, 0, BLOCK));
        return { found, more: all - first };
      });
      expect(results.map(({ more }) => more)).toEqual([kernels, 6]);
      for (const [i, t] of results[0]!.found.entries())
        expectClose(await t.data(), await results[1]!.found[i]!.data(), { relative: 1e-6, absolute: 1e-6 });
    }
  });

  test("what is uploaded amid a step submits nothing", async () => {
    using _scope = new Scope();
    const gpu = await open();
    const submits = vi.spyOn(Recorder.prototype, "submit");
    try {
      let x = rand([64], 1, "float32", gpu);
      for (let i = 0; i < 20; i++) x = add(x, tensor(new Float32Array(64).fill(i), [64], "float32", gpu));
      expect(submits).toHaveBeenCalledTimes(0);
      const [y] = await add(x, -190).data();
      expect(y).toBeCloseTo((await rand([64], 1, "float32", gpu).data())[0]!, 4);
    } finally {
      submits.mockRestore();
    }
  });

  test("a freed buffer's memory serves the next op before the first is submitted", async () => {
    const gpu = await open();
    const x = tensor([1, 2], [2], "float32", gpu);
    const [first, second] = [add(x, 1), add(x, 2)];
    first.dispose();
    const third = tensor([7, 7], [2], "float32", gpu);
    expect(await second.data()).toEqual(Float32Array.of(3, 4));
    expect(await third.data()).toEqual(Float32Array.of(7, 7));
  });

  test("200 steps leave the device's bytes as they are", async () => {
    const gpu = await open();
    const x = rand([64, 64], 1, "float32", gpu);
    const step = (): void => {
      using _step = new Scope();
      sum(mul(matmulT(x, x), 2));
    };
    step();
    await x.data();
    const { deviceBytes } = gpu;
    for (let i = 0; i < 200; i++) step();
    await x.data();
    expect(gpu.deviceBytes).toEqual(deviceBytes);
    expect(gpu.live).toBe(1);
  });

  test("a lost device is a typed error in every call, hangs none, and leaves the host's copy", async () => {
    const gpu = await open();
    const host = Float32Array.of(1, 2, 3);
    const x = tensor(host, [3], "float32", gpu);
    const pending = add(x, 1).data();
    gpu.destroy();
    await expect(Promise.race([pending, late()]))
      .resolves.toBeDefined()
      .catch(() => undefined);
    await expect(Promise.race([x.data(), late()])).rejects.toThrow(DeviceLostError);
    expect(() => add(x, 1)).toThrow(/^gpu: the device must be there, got a lost one/);
    x.dispose();
    const again = tensor(host, [3], "float32", await open());
    expect(await add(again, 1).data()).toEqual(Float32Array.of(2, 3, 4));
  });
});

const late = (): Promise<never> => new Promise((_, reject) => setTimeout(() => reject(new Error("it hangs")), 5000));
