import { openBackend, tensor } from "@neolog/tensor";
import { describe, expect, test } from "vitest";

describe("the gpu backend", () => {
  test("is unknown until its package is imported, and the error says so", async () => {
    await expect(openBackend("gpu")).rejects.toThrow(
      'openBackend: name must be one of reference, cpu, wasm, got "gpu"; install @neolog/gpu and import it first',
    );
    await import("./index.ts");
    const backend = await openBackend("gpu", { mode: "webasm" });
    expect(backend.name).toBe("gpu");
    expect(backend.info).toMatchObject({ mode: "webasm", arithmetic: "float32" });
  });

  test("reads with await alone", async () => {
    await import("./index.ts");
    const backend = await openBackend("gpu", { mode: "webasm" });
    const t = tensor([1, 2], [2], "float32", backend);
    expect(() => t.dataSync()).toThrow("gpu cannot read synchronously; use await t.data()");
    expect(await t.data()).toEqual(Float32Array.of(1, 2));
  });

  test("refuses integers that float32 does not hold", async () => {
    await import("./index.ts");
    const backend = await openBackend("gpu", { mode: "webasm" });
    expect(() => tensor([2 ** 24 + 1], [1], "int32", backend)).toThrow(
      "gpu: int32 must lie within ±16777216, got 16777217; keep it on the wasm backend",
    );
  });
});
