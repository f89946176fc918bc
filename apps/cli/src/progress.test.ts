import { setTimeout } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { expect, test } from "vitest";
import { progressBar } from "./progress.ts";

test.each([60, 80, 120])("a bar fits into %d columns, whatever it tells", async (columns) => {
  const drawn: string[] = [];
  const sink = { isTTY: true, columns, write: (text: string) => drawn.push(text) };
  const bar = progressBar({ stdout: sink, stderr: sink, env: {} }, "downloading", 2.47e9, "bytes");
  bar.update(1.24e9, "model-00003-of-00005.safetensors");
  await setTimeout(250); // it redraws itself ten times a second
  bar.stop();
  const lines = stripVTControlCharacters(drawn.join("")).split("downloading ").slice(1);
  expect(lines.at(-1)).toContain("1.24 GB/2.47 GB  model-");
  for (const line of lines) expect(`downloading ${line}`.trimEnd().length, line).toBeLessThanOrEqual(columns);
});
