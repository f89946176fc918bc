import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, launch, sayIfAbsent } from "./chromium.ts";
import { Playground, openPage, trainOn } from "./playground.ts";

sayIfAbsent("tests/browser/smoke");

describe.runIf(CHROMIUM !== undefined)("the playground in Chromium", () => {
  let browser: Browser;
  let playground: Playground;
  beforeAll(async () => {
    [browser, playground] = await Promise.all([launch(), Playground.serve()]);
  });
  afterAll(() => Promise.all([browser?.close(), playground?.close()]));

  test("loads, trains three steps, shows what the model says and gives the adapter", async () => {
    const { page, errors } = await openPage(browser, playground.url, "steps=3");
    const { status, before, after, files } = await trainOn(page);
    expect(status).toMatch(/^Trained after 3 steps: the loss went from 3\.\d+ to \d\.\d+\.$/);
    expect(before).toHaveLength(3);
    expect(after).toHaveLength(3);
    expect([...files.keys()]).toContain("adapter_model.safetensors");
    expect(errors).toEqual([]);
  });
});
