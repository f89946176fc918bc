import type { Backend } from "../../backend.ts";
import type { DType } from "../../dtype.ts";
import { HostMemory } from "../hostMemory.ts";
import { copy, fill } from "./copy.ts";
import { fused } from "./fused.ts";
import { matmul } from "./matmul.ts";
import { pointwise } from "./pointwise.ts";
import { random } from "./random.ts";
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
