import { afterEach, describe, expect, test, vi } from "vitest";
import { full } from "../../create.ts";
import { BackendError } from "../../errors.ts";
import { matmul } from "../../ops/matmul.ts";
import { add } from "../../ops/pointwise.ts";
import { Scope } from "../../scope.ts";
import { openBackend } from "../open.ts";
import { WasmBackend } from "./backend.ts";
import { describeBackend } from "./info.ts";
import { coreCount } from "./platform.ts";

describe("options", () => {
  test.each([
    [{ threads: 0 }, "wasm: threads must be an integer from 1 to 16, got 0"],
    [{ threads: 1.5 }, "wasm: threads must be an integer from 1 to 16, got 1.5"],
    [{ threads: 17 }, "wasm: threads must be an integer from 1 to 16, got 17"],
    [{ maxBytes: 0 }, "wasm: maxBytes must be a number above 0, got 0"],
    [{ maxBytes: NaN }, "wasm: maxBytes must be a number above 0, got NaN"],
    [{ maxBytes: "1 GiB" }, "wasm: maxBytes must be a number above 0, got 1 GiB"],
    [{ v8Flags: 1 }, "wasm: v8Flags must be true or false, got 1"],
    [{ thread: 2 }, "wasm: options are threads, maxBytes, v8Flags, got thread"],
  ])("%o are refused", async (options, message) => {
    await expect(openBackend("wasm", options)).rejects.toThrow(new BackendError(message));
  });
});

describe("without room", () => {
  test("an op throws, frees what it took, and what was there can be read and used", async () => {
    using _scope = new Scope();
    const backend = new WasmBackend({ threads: 1, maxBytes: 300_000 });
    const ones = full([150, 150], 1, "float32", backend); // 90,000 bytes
    const before = backend.memory();
    for (const op of [
      () => matmul(ones, full([150, 1000], 1, "float32", backend)),
      () => add(full([9, 150, 150], 1, "float32", backend), ones),
    ])
      expect(op).toThrow(
        /^wasm: out of memory: \d+ bytes are needed for \d+ elements of float32, \d+ bytes are in use of at most 300000$/,
      );
    expect(backend.live).toBe(1);
    expect({ ...backend.memory(), peak: 0 }).toEqual({ ...before, peak: 0 });
    const sum = await matmul(ones, ones).data();
    expect(sum).toEqual(new Float32Array(150 * 150).fill(150));
  });
});

describe("memory", () => {
  test("says what is live, was live at most, is reserved, was touched, and by dtype", () => {
    using _scope = new Scope();
    const backend = new WasmBackend({ threads: 1 });
    const x = full([10, 10], 1, "float32", backend);
    full([10], 1, "int32", backend);
    x.dispose();
    const { reserved, touched, ...report } = backend.memory();
    expect(report).toEqual({ live: 40, peak: 440, byDType: { float32: 0, int32: 40 }, memories: 1 });
    expect(reserved).toBeGreaterThan(2 ** 20);
    expect(touched).toBeLessThan(reserved);
  });
});

describe("info", () => {
  const chosen = { features: { madd: true }, asked: 2, alive: 2, canShare: true, flags: [], tile: "4x8" };
  afterEach(() => {
    vi.unstubAllGlobals();
  });
  const onNode = (v8: string, node: string): void =>
    void vi.stubGlobal("process", { versions: { v8, node }, getBuiltinModule: () => ({}) });
  const inBrowser = (): void => void vi.stubGlobal("process", undefined);

  test("of this process names the engine and the threads", async () => {
    const backend = new WasmBackend();
    await backend.ready();
    expect(backend.info).toMatchObject({
      name: "wasm",
      engine: `V8 ${process.versions.v8}, Node ${process.versions.node}`,
      threads: coreCount(),
      threadsBecause: "as many as there are cores",
      v8Flags: "none",
    });
    await backend.close();
    expect(backend.info["threads"]).toBe(1);
  });
  test.each([
    [
      "11.3.244",
      "20.20.2",
      false,
      [],
      "v8Flags: true brings fused multiply-add: products 1.2 times as fast; Node 24 with v8Flags: true computes products up to twice as fast",
    ],
    [
      "11.3.244",
      "20.20.2",
      true,
      ["--experimental-wasm-relaxed-simd"],
      "Node 24 with v8Flags: true computes products up to twice as fast",
    ],
    ["13.6.233", "24.21.0", true, [], "v8Flags: true brings 256-bit vectors: products up to twice as fast"],
    ["13.6.233", "24.21.0", true, ["--experimental-wasm-revectorize"], "none: this is the fastest way here"],
  ])("on V8 %s (Node %s, fused %s, flags %o) says what would be faster", (v8, node, madd, flags, advice) => {
    onNode(v8, node);
    const info = describeBackend({ ...chosen, features: { madd }, flags });
    expect(info).toMatchObject({
      engine: `V8 ${v8}, Node ${node}`,
      fusedMultiplyAdd: madd,
      v8Flags: flags.join(" ") || "none",
      advice,
    });
  });
  test("in a browser without isolation says what brings threads", () => {
    inBrowser();
    expect(describeBackend({ ...chosen, alive: 1, canShare: false })).toMatchObject({
      engine: "a browser's",
      threads: 1,
      threadsBecause: "memory cannot be shared without cross-origin isolation",
      advice:
        "the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp bring threads",
    });
  });
  test("says so where threads did not start", () => {
    expect(describeBackend({ ...chosen, asked: 4, alive: 1 })["threadsBecause"]).toBe(
      "4 were wanted, the others did not start or ended",
    );
  });
});
