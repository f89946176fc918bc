import { describe, expect, test } from "vitest";
import { DeviceError } from "../errors.ts";
import { type Module, Pipelines } from "./pipelines.ts";
import { whyNoWebGpu } from "./testing.ts";

const why = await whyNoWebGpu();
if (why) console.log(`skipped: ${why}`);

const params = { arrayArgs: [], scalarArgs: [], byteLength: 16 };
const moduleOf = (label: string, statement: string): Module => ({
  label,
  code: `@group(0) @binding(0) var<storage, read_write> x : array<f32>;
@compute @workgroup_size(1) fn main() { ${statement} }`,
  bindings: ["storage"],
  params,
});
const good = moduleOf("good", "x[0] = 1.0;");

describe.skipIf(why)("pipelines", () => {
  const open = async (): Promise<{ pipelines: Pipelines; errors: string[] }> => {
    const adapter = await globalThis.neologDawn!.requestAdapter();
    const device = await adapter!.requestDevice();
    const errors: string[] = [];
    device.addEventListener("uncapturederror", ({ error }) => void errors.push(error.message));
    return { pipelines: new Pipelines(device), errors };
  };

  test("are collected once each, and there afterwards", async () => {
    const { pipelines, errors } = await open();
    const described: string[] = [];
    const ask = (key: string) => pipelines.of(key, () => (described.push(key), good));
    expect(ask("a")).not.toBeNull();
    await pipelines.compileAhead(() => {
      expect([ask("a"), ask("b"), ask("b")]).toEqual([null, null, null]);
      expect(pipelines.collecting).toBe(true);
    });
    expect(pipelines.collecting).toBe(false);
    expect(ask("b")).not.toBeNull();
    expect(described).toEqual(["a", "b"]);
    expect(pipelines.size).toBe(2);
    expect(errors).toEqual([]);
  });

  test("that the driver refuses are named in the error", async () => {
    const { pipelines } = await open();
    const bad = moduleOf("bad", "x[0] = nonsense;");
    const compiling = pipelines.compileAhead(() => void pipelines.of("bad", () => bad));
    await expect(compiling).rejects.toThrow(DeviceError);
    await expect(compiling).rejects.toThrow(/^gpu: the driver must accept every call, got: kernel bad: .*nonsense/s);
    expect(pipelines.size).toBe(0);
  });
});
