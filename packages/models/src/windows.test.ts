import { describe, expect, test } from "vitest";
import { laterWindowsOf, sameWindowsOf, windowsOf } from "./windows.ts";

const from = (layer: number) => (i: number) => i >= layer;

test("layer_types says which layers have the window, whatever the family does without it", () => {
  const layer_types = ["sliding_attention", "full_attention"] as const;
  const config = { num_hidden_layers: 2, sliding_window: 5, layer_types: [...layer_types] };
  expect(windowsOf(config, "config.json", from(1))).toEqual([5, null]);
});

test("without layer_types the family says it", () => {
  expect(windowsOf({ num_hidden_layers: 3, sliding_window: 5 }, "config.json", from(2))).toEqual([null, null, 5]);
  expect(windowsOf({ num_hidden_layers: 2, sliding_window: null }, "config.json", from(2))).toEqual([null, null]);
});

test.each<[object, string]>([
  [{ layer_types: ["full_attention"] }, '"layer_types": must have one entry for each of the 2 layers, found 1'],
  [
    { layer_types: ["full_attention", "sliding_attention"] },
    '"sliding_window": must be set for layer 1, which has a window, found none',
  ],
])("refuses %j", (changes, message) => {
  const config = { num_hidden_layers: 2, sliding_window: null, ...changes };
  expect(() => windowsOf(config as never, "config.json", from(0))).toThrow(`config.json: ${message}`);
});

describe("families whose layers are alike", () => {
  test("all have the window, or none", () => {
    expect(sameWindowsOf({ num_hidden_layers: 2, sliding_window: 5 }, "config.json")).toEqual([5, 5]);
    expect(sameWindowsOf({ num_hidden_layers: 2, sliding_window: null }, "config.json")).toEqual([null, null]);
  });

  test("a layer_types that says otherwise is refused", () => {
    const config = { num_hidden_layers: 1, sliding_window: 5, layer_types: ["full_attention" as const] };
    expect(() => sameWindowsOf(config, "config.json")).toThrow(
      'config.json: "layer_types": must say the same of every layer as "sliding_window" (5): here layers are alike',
    );
  });
});

describe("families whose later layers may have a window", () => {
  const config = { num_hidden_layers: 3, sliding_window: 5, max_window_layers: 2, use_sliding_window: true };

  test("those from max_window_layers on have it, where use_sliding_window", () => {
    expect(laterWindowsOf(config, "config.json")).toEqual([null, null, 5]);
    expect(laterWindowsOf({ ...config, use_sliding_window: false }, "config.json")).toEqual([null, null, null]);
    expect(laterWindowsOf({ ...config, sliding_window: null }, "config.json")).toEqual([null, null, null]);
  });

  test("layer_types wins over max_window_layers, and contradicts use_sliding_window at its peril", () => {
    const layer_types = ["sliding_attention" as const, "full_attention" as const, "full_attention" as const];
    expect(laterWindowsOf({ ...config, layer_types }, "config.json")).toEqual([5, null, null]);
    expect(() => laterWindowsOf({ ...config, layer_types, use_sliding_window: false }, "config.json")).toThrow(
      'config.json: "sliding_window": must be set for layer 0, which has a window, found none',
    );
  });

  test("use_sliding_window needs to know from which layer on", () => {
    expect(() => laterWindowsOf({ ...config, max_window_layers: undefined }, "config.json")).toThrow(
      'config.json: "max_window_layers": must be set with "use_sliding_window", found none',
    );
  });
});
