import { afterAll, beforeAll, expect } from "vitest";
import type { Backend } from "../backend.ts";
import { ReferenceBackend } from "../backends/reference/backend.ts";
import type { Bench, Tolerances } from "./bench.ts";

/** A bench whose backend is opened before the tests of the suite around this call; after them nothing may be allocated. */
export function openBench(open: () => Promise<Backend>, tolerances: Tolerances): Bench {
  let tested: Backend | null = null;
  beforeAll(async () => {
    tested = await open();
  });
  afterAll(() => {
    expect(tested!.live).toBe(0);
    expect(tested!.bytes.live).toBe(0);
  });
  return {
    get tested() {
      return tested!;
    },
    reference: new ReferenceBackend(),
    tolerances,
  };
}
