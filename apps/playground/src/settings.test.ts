import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BACKENDS } from "./protocol.ts";
import { formatSettings, parseSettings } from "./settings.ts";

describe("settings in the page's address", () => {
  test("come back as they were written", () => {
    const settings = fc.record({ backend: fc.constantFrom(...BACKENDS), steps: fc.integer({ min: 1, max: 100_000 }) });
    fc.assert(
      fc.property(settings, (given) => {
        expect(parseSettings(formatSettings(given))).toEqual(given);
      }),
    );
  });
  test("are the defaults where the address says nothing, or what cannot be", () => {
    const defaults = { backend: "auto", steps: 80 };
    for (const hash of ["", "#", "#backend=abacus", "#steps=-3", "#steps=many", "#steps=1.5"])
      expect(parseSettings(hash), hash).toEqual(defaults);
    fc.assert(fc.property(fc.string(), (hash) => void parseSettings(hash)));
  });
});
