import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { linesOf, sha256Of } from "./lines.ts";
import { temporaryFolder } from "./testing.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let file: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  file = `${folder.path}/text`;
});
afterAll(() => folder[Symbol.asyncDispose]());

async function linesAfterWriting(text: string | Buffer): Promise<{ lines: string[]; pieces: number; bytes: number }> {
  await writeFile(file, text);
  const found = { lines: [] as string[], pieces: 0, bytes: 0 };
  for await (const lines of linesOf(file, (bytes) => (found.bytes = bytes))) {
    found.lines = found.lines.concat(lines);
    found.pieces++;
  }
  return found;
}

describe("linesOf", () => {
  test("gives what splitting the whole text gives", async () => {
    const text = fc.array(fc.constantFrom("\n", "a", "wug", "ä", "🦆", "\u2028", "\r")).map((parts) => parts.join(""));
    await fc.assert(
      fc.asyncProperty(text, async (text) => {
        expect((await linesAfterWriting(text)).lines).toEqual(text.split("\n"));
      }),
    );
  });

  test("reads in pieces, which cut lines and characters anywhere", async () => {
    const long = "🦆".repeat(700_000);
    const text = `${"a".repeat(2 ** 20 - 2)}ä\n${long}\n\n${"wug\n".repeat(300_000)}end`;
    const { lines, pieces, bytes } = await linesAfterWriting(text);
    expect(lines.length).toBe(300_004);
    expect(lines.join("\n") === text).toBe(true);
    expect(pieces).toBeGreaterThan(2);
    expect(bytes).toBe(Buffer.byteLength(text));
  });
});

test("sha256Of is the hash of the bytes", async () => {
  const bytes = Buffer.alloc(3 * 2 ** 20 + 7, "wug");
  await writeFile(file, bytes);
  expect(await sha256Of(file)).toBe(createHash("sha256").update(bytes).digest("hex"));
});
