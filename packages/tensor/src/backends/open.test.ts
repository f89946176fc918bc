import { afterEach, describe, expect, test, vi } from "vitest";
import type { Backend } from "../backend.ts";

/** The module as a program that has opened no backend yet finds it. */
async function freshly(): Promise<typeof import("./open.ts")> {
  vi.resetModules();
  return import("./open.ts");
}
afterEach(() => vi.unstubAllGlobals());

describe("the default backend", () => {
  test("is wasm, opened once, when it is first asked for", async () => {
    const { defaultBackend } = await freshly();
    const backend = defaultBackend();
    expect(backend.name).toBe("wasm");
    expect(defaultBackend()).toBe(backend);
  });

  test.each([
    ["without WebAssembly", undefined],
    ["where WebAssembly has no SIMD", { ...WebAssembly, validate: () => false }],
    [
      "where no shared memory is to be had",
      {
        validate: WebAssembly.validate,
        Memory: function () {
          throw new RangeError("could not allocate memory");
        },
      },
    ],
  ])("is cpu %s", async (_, WebAssembly) => {
    vi.stubGlobal("WebAssembly", WebAssembly);
    const { defaultBackend } = await freshly();
    expect(defaultBackend().name).toBe("cpu");
  });

  test("is the one that was set", async () => {
    const { defaultBackend, openBackend, setDefaultBackend } = await freshly();
    const backend: Backend = await openBackend("reference");
    setDefaultBackend(backend);
    expect(defaultBackend()).toBe(backend);
  });
});

describe("withShapesOnly", () => {
  test("makes tensors that have a shape and take no memory", async () => {
    const { defaultBackend, withShapesOnly } = await freshly();
    const { zeros } = await import("../create.ts");
    const { add } = await import("../ops/pointwise.ts");
    const before = defaultBackend();
    const [t, meta] = withShapesOnly(() => [zeros([1_000_000, 1_000_000], "bfloat16"), defaultBackend()] as const);
    expect(t.shape).toEqual([1_000_000, 1_000_000]);
    expect(meta.live).toBe(1);
    expect(() => add(t, 1)).toThrow("meta: an operation needs elements, got tensors that have a shape alone");
    t.dispose();
    expect(meta.live).toBe(0);
    expect(defaultBackend()).toBe(before);
  });

  test("restores the default backend after an error", async () => {
    const { defaultBackend, withShapesOnly } = await freshly();
    const before = defaultBackend();
    expect(() =>
      withShapesOnly(() => {
        throw new Error("no");
      }),
    ).toThrow("no");
    expect(defaultBackend()).toBe(before);
  });
});
