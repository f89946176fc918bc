import { afterEach, expect, test, vi } from "vitest";
import { nextTask } from "./nextTask.ts";

afterEach(() => vi.unstubAllGlobals());

test.each(["with setImmediate", "with a message, where there is none"])("timers have their turn, %s", async (how) => {
  if (how !== "with setImmediate") vi.stubGlobal("setImmediate", undefined);
  const fired = vi.fn();
  setTimeout(fired, 0);
  for (let turn = 0; turn < 10_000 && fired.mock.calls.length === 0; turn++) await nextTask();
  expect(fired).toHaveBeenCalledOnce();
});
