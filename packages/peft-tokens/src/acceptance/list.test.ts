import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../../../..", import.meta.url));
const files = ["packages", "apps", "tests/interop"].flatMap((folder) =>
  readdirSync(`${root}/${folder}`, { recursive: true, encoding: "utf8" })
    .filter((file) => /^(?:[^/\\]+[/\\]src[/\\].*\.test\.ts|interop\.ts)$/.test(file))
    .map((file) => readFileSync(`${root}/${folder}/${file}`, "utf8")),
);
/** The numbers with which titles begin: "A-3, A-55: …", "P-1 to P-3: …". */
const titles = files.flatMap((text) => [...text.matchAll(/["'`]((?:[APT]-\d+(?:, | to |: | |"))+)/g)]);

/** "A-3, A-55: …" → 3, 55; "P-1 to P-3: …" → 1, 2, 3 */
function numbered(letter: "A" | "P" | "T"): Set<number> {
  const numbers = new Set<number>();
  for (const [, title] of titles) {
    const range = new RegExp(`${letter}-(\\d+)(?: to ${letter}-(\\d+))?`, "g");
    for (const [, from, to = from] of title!.matchAll(range))
      for (let n = Number(from); n <= Number(to); n++) numbers.add(n);
  }
  return numbers;
}

test.each([
  ["acceptance list", "A", 93],
  ["state machine", "P", 28],
  ["list of differences", "T", 23],
] as const)("every line of the %s has a test that begins with its number", (_, letter, count) => {
  const covered = numbered(letter);
  const gaps = Array.from({ length: count }, (_, i) => i + 1).filter((n) => !covered.has(n));
  expect(gaps.map((n) => `${letter}-${n}`)).toEqual([]);
});

test("A-83: the page of differences and the tests tell the same ones", () => {
  const page = readFileSync(`${root}/docs/coming-from-peft.md`, "utf8");
  const told = [...page.matchAll(/^\| T-(\d+) /gm)].map(([, n]) => Number(n));
  expect(told.filter((n) => !numbered("T").has(n))).toEqual([]);
  expect(told).toHaveLength(23);
});

test("every warning is asked for by a test", () => {
  const codes = readFileSync(fileURLToPath(new URL("../warnings.ts", import.meta.url)), "utf8").matchAll(/\| "(\w+)"/g);
  expect(
    [...codes].map(([, code]) => code!).filter((code) => !files.some((text) => text.includes(`"${code}"`))),
  ).toEqual([]);
});
