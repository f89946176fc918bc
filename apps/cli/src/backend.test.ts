import { join } from "node:path";
import { BackendError, defaultBackend, openBackend } from "@neolog/tensor";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

vi.mock("@neolog/tensor", async (original) => {
  const tensor = await original<typeof import("@neolog/tensor")>();
  return { ...tensor, openBackend: vi.fn(tensor.openBackend) };
});
const open = vi.mocked(openBackend);

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let generate: string[];
const run = async (options: Parameters<typeof flags>[0] = {}) => {
  const { code, stdout } = await neolog([...generate, ...flags({ json: true, ...options })]);
  expect(code).toBe(0);
  return JSON.parse(stdout) as { ids: number[]; backend: { name: string } };
};

beforeAll(async () => {
  folder = await temporaryFolder();
  const model = await writeTinyModel(join(folder.path, "model"));
  generate = ["generate", ...flags({ model, prompt: "the wug", "max-new-tokens": 12 })];
});
afterAll(() => folder[Symbol.asyncDispose]());
afterEach(() => open.mockClear());

describe("--backend", () => {
  test("is cpu where wasm does not run", async () => {
    open.mockRejectedValueOnce(new BackendError("wasm: WebAssembly with SIMD must be here"));
    expect((await run()).backend).toEqual((await openBackend("cpu")).info);
  });

  test("is wasm by default, opened once with V8's flags", async () => {
    expect((await run()).backend.name).toBe("wasm");
    await run({ backend: "wasm" });
    expect(open.mock.calls).toEqual([["wasm", { v8Flags: true }]]);
    expect(defaultBackend().name).toBe("wasm");
  });

  test("names the flag that takes a GPU in software, and takes it", async (context) => {
    const argv = [...generate, ...flags({ json: true, backend: "gpu:webgpu" })];
    const refused = await neolog(argv);
    context.skip(refused.code === 0, "the GPU is real");
    context.skip(!refused.stderr.includes("computes in software"), "no driver for Vulkan was found");
    expect(refused.stderr).toMatch(/computes in software; pass --allow-software to take it anyway/);
    const { code, stdout } = await neolog([...argv, "--allow-software"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ backend: { name: "gpu", mode: "webgpu", software: true } });
    expect(JSON.parse(stdout).ids).toEqual((await run({ backend: "reference" })).ids);
  });

  test.each(["wasm", "cpu", "reference", "gpu:webasm"])(
    "%s writes the same text, and the result names it",
    async (backend) => {
      const { ids, backend: ran } = await run({ backend });
      expect(ran.name).toBe(backend.split(":")[0]);
      expect(ids).toEqual((await run({ backend: "reference" })).ids);
    },
  );

  test.each([
    ["eval", (model: string) => ({ model, data: join(folder.path, "rows.jsonl") })],
    [
      "train",
      (model: string) => ({
        model,
        data: join(folder.path, "rows.jsonl"),
        "token-indices": 5,
        steps: 1,
        out: join(folder.path, "out"),
      }),
    ],
  ])("%s names it too", async (command, options) => {
    await writeLines(join(folder.path, "rows.jsonl"), [{ text: "the wug" }]);
    const argv = [command, ...flags({ ...options(join(folder.path, "model")), json: true, backend: "cpu" })];
    expect(JSON.parse((await neolog(argv)).stdout)).toMatchObject({ backend: { name: "cpu", threads: 1 } });
  });
});
