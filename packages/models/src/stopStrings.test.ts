import { describe, expect, test } from "vitest";
import { stopStrings } from "./stopStrings.ts";

/** Tokens are their own text. */
const completes = (stops: string[], tokens: string[]): boolean => {
  const ids = tokens.map((_, id) => id);
  return stopStrings(stops, { decode: (some) => some.map((id) => tokens[id]).join("") })(ids);
};

// the cases that StopStringCriteria of transformers 5.18 names
describe("stopStrings", () => {
  test.each([
    [["st", "op"]],
    [["stop"]],
    [["st", "opera"]],
    [["sto", "pper"]],
    [["las", "topper"]],
    [["s", "to", "pped"]],
  ])("%j completes stop", (tokens) => {
    expect(completes(["stop"], tokens)).toBe(true);
    expect(completes(["go", "stop"], ["much ", "before ", ...tokens])).toBe(true);
  });

  test.each([
    [["stop", "at"]],
    [["st", "op", "at"]],
    [["st", "opera", "tion"]],
    [["sto"]],
    [["stop", "s at", " once"]],
  ])("%j completed it before, or not yet", (tokens) => {
    expect(completes(["stop"], tokens)).toBe(false);
  });

  test("a text that comes again is completed again", () => {
    expect(completes(["stop"], ["stop", " and ", "stop"])).toBe(true);
  });

  test("a character of several tokens counts when its last one is there", () => {
    const bytes = [...new TextEncoder().encode("né")];
    const stopped = stopStrings(["é"], { decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)) });
    expect([1, 2, 3].map((n) => stopped(bytes.slice(0, n)))).toEqual([false, false, true]);
  });
});
