import type { Backend, Distribution, View } from "../../backend.ts";
import type { DType } from "../../dtype.ts";
import { contiguousLayout, sizeOf } from "../../layout.ts";
import { normalAt, uniformAt } from "../../random.ts";
import { type HostBuffer, HostMemory } from "../hostMemory.ts";
import { copy, fill } from "./copy.ts";
import { fused } from "./fused.ts";
import { matmul } from "./matmul.ts";
import { pointwise } from "./pointwise.ts";
import { reduce } from "./reduce.ts";
import { addRows, takeRows } from "./rows.ts";

/** Plain loops, generated and compiled per expression, dtype and stride pattern: runs wherever JavaScript does. */
export class CpuBackend extends HostMemory implements Backend {
  readonly name = "cpu";
  readonly info = { name: "cpu", arithmetic: "float64, rounded to float32 on store", threads: 1 };
  readonly exact = true;
  readonly dtypes: readonly DType[] = ["float32", "int32", "bfloat16", "float16"];
  readonly pointwise = pointwise;
  readonly reduce = reduce;
  readonly matmul = matmul;
  readonly takeRows = takeRows;
  readonly addRows = addRows;
  readonly copy = copy;
  readonly fill = fill;
  readonly random = random;
  readonly fused = fused;
}

function random(distribution: Distribution, out: View, seed: number): void {
  const at = distribution === "uniform" ? uniformAt : normalAt;
  const { shape } = out.layout;
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = at(seed, i);
  const buffer: HostBuffer = { dtype: "float32", length: data.length, data };
  copy(out, { buffer, layout: contiguousLayout(shape) });
}
