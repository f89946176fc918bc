import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Bed, RECORDED } from "./bed.ts";
import { CHROMIUM, SOFTWARE_GPU, launch, sayIfAbsent } from "./chromium.ts";
import type { GpuReport, GpuRequest } from "./gpuWorker.ts";

/** Steps of the run that must not grow. */
const STEPS = Number(process.env["NEOLOG_STEPS"] ?? 40);

sayIfAbsent("tests/browser/gpu");

describe.runIf(CHROMIUM !== undefined)("the conformance suite on the GPU backend in Chromium", () => {
  let browser: Browser;
  let bed: Bed;
  beforeAll(async () => {
    [browser, bed] = await Promise.all([launch(SOFTWARE_GPU), Bed.serve("gpuWorker.ts")]);
  });
  afterAll(() => Promise.all([browser?.close(), bed?.close()]));

  /** What a worker of a fresh page answers. */
  async function ask(request: GpuRequest): Promise<GpuReport> {
    const page = await browser.newPage();
    await page.goto(bed.url);
    try {
      return await page.evaluate(
        (message) =>
          new Promise<GpuReport>((resolve) => {
            const worker = new Worker("/gpuWorker.js", { type: "module" });
            worker.addEventListener("message", ({ data }) => resolve(data as GpuReport));
            worker.addEventListener("error", ({ message }) => resolve({ error: message }));
            worker.postMessage(message, { transfer: [] });
          }),
        request,
      );
    } finally {
      await page.close();
    }
  }

  test.each(["webgl2", "webgpu"] as const)(
    "%s",
    async (mode) => {
      const only = process.env["NEOLOG_ONLY"];
      const report = await ask({ mode, models: RECORDED, steps: STEPS, ...(only === undefined ? {} : { only }) });
      if ("error" in report) throw new Error(report.error);
      expect(report.failed).toEqual([]);
      expect(report.info).toMatchObject({ mode, software: true });
      if (only === undefined) expect(report.passed).toBeGreaterThan(240);
      console.log(`${mode}: ${report.passed} passed, ${report.skipped} skipped`, report.info, "held", report.held);
    },
    3_600_000,
  );
});
