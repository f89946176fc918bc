import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ARCHITECTURES } from "@neolog/models";
import { expect, test } from "vitest";
import { SOURCES, features, isComplete } from "./features.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const page = (): string => readFileSync(join(root, "FEATURES.md"), "utf8");
if (!isComplete) console.log("skipped: ../shared/golden is absent, from which FEATURES.md is made");

test("every architecture has its line, and every line its architecture", () => {
  const lines = [...page().matchAll(/^\| `(\w+)` /gm)].map(([, type]) => type);
  expect(lines).toEqual(Object.keys(ARCHITECTURES));
});

test("every column names a test that is there", () => {
  for (const [file] of Object.values(SOURCES)) {
    expect(existsSync(join(root, file)), file).toBe(true);
    expect(page()).toContain(`](${file})`);
  }
});

test.runIf(isComplete)("the page is what npm run features makes", async () => {
  await expect(features()).toMatchFileSnapshot("../FEATURES.md");
});

test.runIf(isComplete)("nothing that the registry holds goes uncompared", () => {
  expect(features()).not.toContain("not compared");
});
