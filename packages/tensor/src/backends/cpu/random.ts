import type { Distribution, View } from "../../backend.ts";
import { contiguousLayout, sizeOf } from "../../layout.ts";
import { normalAt, uniformAt } from "../../random.ts";
import type { HostBuffer } from "../hostMemory.ts";
import { copy } from "./copy.ts";

/** Element i depends on the seed and on i alone, whatever the strides. */
export function random(distribution: Distribution, out: View, seed: number): void {
  const at = distribution === "uniform" ? uniformAt : normalAt;
  const { shape } = out.layout;
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = at(seed, i);
  const buffer: HostBuffer = { dtype: "float32", length: data.length, data };
  copy(out, { buffer, layout: contiguousLayout(shape) });
}
