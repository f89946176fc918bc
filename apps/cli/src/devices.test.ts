import { describe, expect, test } from "vitest";
import { neolog } from "./testing.ts";

interface Answer {
  readonly devices: readonly {
    readonly name: string;
    readonly runs: boolean;
    readonly chosen: boolean;
    what: string;
  }[];
  readonly chosen: string;
  readonly because: string;
}

describe("neolog devices", () => {
  test("tells of every backend whether it runs, and of one that it is chosen", async () => {
    const { code, stdout } = await neolog(["devices", "--json"]);
    expect(code).toBe(0);
    const { devices, chosen, because } = JSON.parse(stdout) as Answer;
    expect(devices.map(({ name }) => name)).toEqual(["gpu:webgpu", "gpu:webgl2", "wasm", "cpu", "reference"]);
    expect(devices.filter((device) => device.chosen).map(({ name }) => name)).toEqual([chosen]);
    expect(chosen).toBe("wasm");
    expect(because).toContain("wasm is chosen");
    const of = (name: string) => devices.find((device) => device.name === name)!;
    for (const name of ["wasm", "cpu", "reference"]) expect(of(name).runs, name).toBe(true);
    expect(of("gpu:webgl2")).toMatchObject({ runs: false, what: "needs a browser's OffscreenCanvas" });
    expect(of("gpu:webgpu").what).not.toBe("");
  });

  test("shows people the same", async () => {
    const { code, stdout } = await neolog(["devices"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^→ +wasm +runs +SIMD WebAssembly, \d+ threads: /m);
    expect(stdout).toMatch(/gpu:webgl2 +– +needs a browser's OffscreenCanvas/);
  });
});
