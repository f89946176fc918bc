import {
  type Backend,
  Scope,
  add,
  argmax,
  assign,
  contiguous,
  gelu,
  matmul,
  matmulT,
  max,
  ones,
  rand,
  reshape,
  rope,
  scatterRows,
  slice,
  sum,
  takeRows,
  tensor,
  transpose,
  where,
  zeros,
} from "@neolog/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import { GpuBackend } from "./backend.ts";
import { type GpuJs, loadGpuJs } from "./facade.ts";
import { functionsOf } from "./functions.ts";
import { type Executor, type Kernel, type Launch, settingsOf, sourceOf } from "./kernel.ts";
import { openGpu } from "./open.ts";
import { WebAsmExecutor } from "./webasm/executor.ts";
import { whyNoWebGpu } from "./webgpu/testing.ts";

/** Keeps what the backend launches. */
class Watched extends WebAsmExecutor implements Executor {
  readonly launches: Launch[] = [];
  override run(launch: Launch): void {
    this.launches.push(launch);
    super.run(launch);
  }
}

/** gpu.js, and how often it was asked for a kernel. */
function counting(lib: GpuJs): { readonly lib: GpuJs; readonly count: () => number } {
  let count = 0;
  class Counted extends lib.GPU {
    override createKernel(...args: Parameters<InstanceType<GpuJs["GPU"]>["createKernel"]>) {
      count++;
      return super.createKernel(...args);
    }
  }
  return { lib: { GPU: Counted, Input: lib.Input, WebGPUKernel: lib.WebGPUKernel } as GpuJs, count: () => count };
}

/** Something of every kind of kernel, for sizes n. */
async function everyKernel(backend: Backend, n: number): Promise<void> {
  using _scope = new Scope();
  const x = rand([n, n + 1, 3], n, "float32", backend);
  const turned = transpose(x);
  add(gelu(turned), transpose(slice(x, 0, 0, 1)));
  where(turned, 1, turned);
  for (const reduce of [sum, max]) reduce(x, 1);
  argmax(x, 1);
  matmul(x, turned);
  const [cos, sin] = [rand([n + 1, 1], 1, "float32", backend), rand([n + 1, 1], 2, "float32", backend)];
  for (const interleaved of [true, false]) rope(slice(x, 2, 0, 2), cos, sin, interleaved);
  const rows = reshape(x, [n * (n + 1), 3]);
  const ids = Int32Array.from({ length: n * (n + 1) }, (_, i) => i % n);
  takeRows(rows, ids);
  scatterRows(rows, ids, n);
  scatterRows(rows, takeRows(tensor(ids, [ids.length], "int32", backend), ids), n);
  assign(slice(zeros([n + 2, 3], "bfloat16", backend), 0, 1, n + 1), slice(rows, 0, 0, n));
  await rows.data();
}

const why = await whyNoWebGpu();
if (why) console.log(`rules of indices beyond 2²⁴: skipped, ${why}`);

describe("rules for gpu.js", () => {
  let executor: Watched;
  let backend: GpuBackend;
  let kernels: Kernel[];
  let compiled: () => number;
  beforeAll(async () => {
    const counted = counting(await loadGpuJs());
    executor = new Watched(counted.lib, {});
    compiled = counted.count;
    backend = new GpuBackend(executor);
    await everyKernel(backend, 3);
    kernels = [...new Map(executor.launches.map(({ kernel }) => [kernel.key, kernel])).values()];
    expect(kernels.length).toBeGreaterThan(9);
  });
  const launched = (run: () => unknown): readonly Launch[] => {
    const before = executor.launches.length;
    run();
    return executor.launches.slice(before);
  };

  test("R1: kernels are source strings; the types of helper functions are in their settings", () => {
    for (const kernel of kernels) {
      expect(sourceOf(kernel)).toMatch(/^function\([\w, ]+\) \{/);
      for (const { settings } of functionsOf(kernel.body)) expect(Object.keys(settings.argumentTypes)).not.toEqual([]);
    }
  });
  test("R2: no loop is cut short", async () => {
    const last = Float32Array.from({ length: 5000 }, (_, i) => i);
    expect(await argmax(tensor(last, [5000], "float32", backend)).item()).toBe(4999);
    const [x, y] = [ones([1, 40_000], "float32", backend), ones([40_000, 1], "float32", backend)];
    expect(await matmul(x, y).item()).toBe(40_000);
  });
  test("R3: no name is declared twice in a kernel", () => {
    for (const { key, body } of kernels) {
      const names = [...body.matchAll(/\b(?:let|const) (\w+)/g)].map((match) => match[1]);
      expect(new Set(names).size, key).toBe(names.length);
    }
  });
  test("R4: loops count whole numbers from 0 or 1 in steps of one", () => {
    for (const { key, body } of kernels)
      for (const [, loop] of body.matchAll(/for \((.*)\) \{/g))
        expect(loop, key).toMatch(/^let (\w+) = [01]; .*; \1\+\+$/);
  });
  test("R5: an index is divided by idiv and imod alone", () => {
    for (const { key, body } of kernels) {
      const subscripts = [...body.matchAll(/\w+Data\[[^;]*\]|this\.thread\.x\s*\S/g)].map(([text]) => text);
      for (const text of subscripts) expect(text, key).not.toMatch(/[%/]/);
    }
  });
  test.skipIf(why)("R5: elements beyond 2²⁴ are found", async () => {
    using _scope = new Scope();
    const gpu = await openGpu({ mode: "webgpu", allowSoftware: true });
    const [rows, width] = [70_001, 257];
    const table = tensor(new Float32Array(rows * width), [rows, width], "float32", gpu);
    const row = Float32Array.from({ length: width }, (_, i) => i + 0.5);
    gpu.write(table.view("test").buffer, row, 69_999 * width);
    expect(await takeRows(table, Int32Array.of(69_999)).data()).toEqual(row);
    expect(await contiguous(slice(transpose(table), 1, 69_999, 70_000)).data()).toEqual(row);
    const one = tensor([1], [1, 1], "float32", gpu);
    expect(await matmul(one, slice(table, 0, 69_999, 70_000)).data()).toEqual(row);
  });
  test("R8: gpu.js's cpu mode, whose strides are wrong, is refused", async () => {
    await expect(openGpu({ mode: "cpu" as "webasm" })).rejects.toThrow(
      "gpu: mode must be one of webgpu, webgl2, webasm, got cpu",
    );
    for (const { args } of executor.launches) expect(args.length).toBeGreaterThan(0);
  });
  test("R9: no kernel takes more than seven arrays", () => {
    for (const { key, parameters } of kernels)
      expect(parameters.filter(({ type }) => type === "Input").length, key).toBeLessThanOrEqual(7);
  });
  test("R10: arguments are arrays and numbers, results one number", () => {
    for (const { key, parameters, body } of kernels) {
      for (const { type } of parameters) expect(["Input", "Integer", "Float"], key).toContain(type);
      expect(body, key).not.toMatch(/return \[/);
    }
  });
  test("R11: a reshape runs no kernel", () => {
    const x = rand([6, 4], 1, "float32", backend);
    expect(launched(() => reshape(x, [3, 8]))).toEqual([]);
  });
  test("R12: what a scope made is freed; a result may be the argument of what made it", async () => {
    const before = backend.live;
    const x = tensor([1, 2], [2], "float32", backend);
    for (let i = 0; i < 300; i++) {
      using _scope = new Scope();
      add(add(x, 1), 1);
    }
    assign(x, add(x, x));
    expect(await x.data()).toEqual(Float32Array.of(2, 4));
    expect(backend.live).toBeLessThanOrEqual(before + 2);
  });
  test("R13: what is read is flat", async () => {
    const x = matmulT(ones([2, 3], "float32", backend), ones([4, 3], "float32", backend));
    expect(await x.data()).toEqual(new Float32Array(8).fill(3));
  });
  test("R14 and R17: a kernel is translated once, and kept for all shapes", async () => {
    const before = compiled();
    for (const n of [4, 5, 9]) await everyKernel(backend, n);
    expect(compiled()).toBe(before);
    expect(settingsOf(kernels[0]!)).toMatchObject({ dynamicOutput: true, dynamicArguments: true });
  });
  test("R15: long rows are reduced in two stages, no thread looping over more than 1,024 elements", async () => {
    const x = rand([50_257], 2, "float32", backend);
    const data = (await x.data()) as Float32Array;
    let total = ones([], "float32", backend);
    const stages = launched(() => (total = sum(x)));
    expect(stages.length).toBe(2);
    for (const { args } of stages) expect(args[3]).toBeLessThanOrEqual(1024);
    const exact = data.reduce((s, value) => s + value, 0);
    expect(Math.abs((await total.item()) - exact)).toBeLessThan(1e-6 * exact);
  });
  test("R16: threads beyond the result write nothing", async () => {
    const x = zeros([9], "float32", backend);
    assign(slice(x, 0, 2, 5), add(ones([3], "float32", backend), 4));
    expect(await x.data()).toEqual(Float32Array.of(0, 0, 5, 5, 5, 0, 0, 0, 0));
  });
});
