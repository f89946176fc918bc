import { expect, test } from "vitest";
import { windowsOf } from "./windows.ts";

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
