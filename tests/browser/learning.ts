import { fileURLToPath } from "node:url";
import { AutoModelForCausalLM, AutoTokenizer } from "@neolog/models";
import { PeftModel } from "@neolog/peft-tokens";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHROMIUM, SOFTWARE_GPU, launch, sayIfAbsent } from "./chromium.ts";
import { Playground, openPage, teach, trainOn } from "./playground.ts";

const MEADOW = fileURLToPath(new URL("../../packages/models/pretrained/meadow", import.meta.url));
const LIVES = ["it lives in the pond .", "it lives in the forest .", "it lives in the desert ."];

sayIfAbsent("tests/browser/learning");

const questionOf = (text: string): string => text.slice(0, text.indexOf("?") + 1);

/** What the model says here, with the files of an adapter that a page gave. */
async function writtenWith(files: ReadonlyMap<string, Uint8Array>, prompts: readonly string[]): Promise<string[]> {
  const base = await AutoModelForCausalLM.fromPretrained(MEADOW);
  const tokenizer = await AutoTokenizer.fromPretrained(MEADOW);
  tokenizer.addTokens([" wug", " dax", " blick"]);
  base.resizeTokenEmbeddings(tokenizer.vocabSize);
  const peft = await PeftModel.fromPretrained(base, files);
  const texts = [];
  for (const prompt of prompts) {
    const ids = tokenizer.encode(prompt);
    const [row] = await peft.generate({ input_ids: [ids], max_new_tokens: 24 });
    texts.push(prompt + tokenizer.decode(row!.slice(ids.length)));
  }
  return texts;
}

describe.runIf(CHROMIUM !== undefined)("the playground in Chromium", () => {
  let browser: Browser;
  let playground: Playground;
  beforeAll(async () => {
    [browser, playground] = await Promise.all([launch(), Playground.serve()]);
  });
  afterAll(() => Promise.all([browser?.close(), playground?.close()]));

  test.each(["wasm", "cpu"])("teaches the words on %s; the adapter says the same in Node", async (backend) => {
    const { page, errors } = await openPage(browser, playground.url, `backend=${backend}`);
    const { chosen, before, after, files } = await trainOn(page);
    expect(chosen).toContain(backend);
    expect(before.filter((text, i) => text.endsWith(LIVES[i]!))).toEqual([]);
    expect(after.filter((text, i) => text.endsWith(LIVES[i]!)).length).toBeGreaterThanOrEqual(2);
    expect(await writtenWith(files, before.map(questionOf))).toEqual(after);
    expect(errors).toEqual([]);
  });

  test.each(["webgl2", "webgpu"])(
    "trains on %s; the adapter says the same in Node",
    async (backend) => {
      const withGpu = await launch(SOFTWARE_GPU);
      try {
        const { page, errors } = await openPage(withGpu, playground.url, `backend=${backend}&steps=3`);
        page.setDefaultTimeout(200_000);
        const { chosen, status, before, after, files } = await trainOn(page);
        expect(chosen).toContain(`gpu, by ${backend} in software`);
        expect(status).toMatch(/after 3 steps: the loss went from 3\.506 to/);
        expect(await writtenWith(files, before.map(questionOf))).toEqual(after);
        expect(errors).toEqual([]);
      } finally {
        await withGpu.close();
      }
    },
    300_000,
  );

  test.each(["webgl2", "webgpu"])(
    "says that the device of %s is lost, and starts again",
    async (backend) => {
      const withGpu = await launch(SOFTWARE_GPU);
      try {
        const { page } = await openPage(withGpu, playground.url, `backend=${backend}&steps=1000`);
        page.setDefaultTimeout(60_000);
        await teach(page);
        await page.getByText(/^[1-9]\d* of 1000$/).waitFor();
        const chromium = await withGpu.newBrowserCDPSession();
        await chromium.send("Browser.crashGpuProcess"); // it holds all devices
        await page.getByRole("alert").waitFor();
        expect(await page.getByRole("alert").textContent()).toMatch(/the device must be there, got a lost one/);
        await page.getByRole("button", { name: "Start again" }).click();
        await page.getByRole("button", { name: "Teach it the words" }).waitFor();
      } finally {
        await withGpu.close();
      }
    },
    300_000,
  );

  test("runs on one thread, and says why, where the page is not isolated", async () => {
    const plain = await Playground.serve({ isolated: false });
    try {
      const { page } = await openPage(browser, plain.url, "steps=3");
      const { chosen, status } = await trainOn(page);
      expect(chosen).toMatch(/^wasm, on 1 thread, .*memory cannot be shared without cross-origin isolation/);
      expect(status).toContain("after 3 steps");
    } finally {
      await plain.close();
    }
  });

  test("stops when it is asked to, and keeps what was learnt", async () => {
    const { page } = await openPage(browser, playground.url, "steps=100000");
    await teach(page);
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByRole("heading", { name: "Take it away" }).waitFor();
    expect(await page.getByRole("status").textContent()).toMatch(/^Stopped after \d+ steps/);
    await page.getByRole("button", { name: "Train again" }).click();
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByRole("heading", { name: "Take it away" }).waitFor();
  });

  test("starts anew when it is reloaded while it trains", async () => {
    const { page, errors } = await openPage(browser, playground.url, "steps=100000");
    await teach(page);
    await page.getByText(/^[1-9]\d* of 100000$/).waitFor();
    await page.reload();
    await teach(page);
    await page.getByText(/^[1-9]\d* of 100000$/).waitFor();
    expect(errors).toEqual([]);
  });

  test("goes on in a tab that is behind another one", async () => {
    const { page } = await openPage(browser, playground.url, "steps=400");
    await teach(page);
    await (await page.context().newPage()).bringToFront();
    await page.getByRole("heading", { name: "Take it away" }).waitFor();
    expect(await page.getByRole("status").textContent()).toContain("Trained after 400 steps");
  });

  test("says what is missing where the model cannot be loaded, and starts again", async () => {
    const page = await (await browser.newContext()).newPage();
    await page.route("**/meadow/model.safetensors", (route) => route.abort());
    await page.goto(playground.url);
    await expect
      .poll(() => page.getByRole("alert").textContent())
      .toMatch(/meadow\/model\.safetensors: must be readable/);
    await page.unroute("**/meadow/model.safetensors");
    await page.getByRole("button", { name: "Start again" }).click();
    await page.getByRole("button", { name: "Teach it the words" }).waitFor();
    expect(await page.getByRole("alert").count()).toBe(0);
  });

  test("keeps the choice of the backend in its address", async () => {
    const { page } = await openPage(browser, playground.url);
    await page.getByLabel("It runs on").selectOption("cpu");
    await page.getByText(/^cpu/).waitFor();
    expect(page.url()).toMatch(/#backend=cpu$/);
  });
});
