import type { Backend } from "@neolog/tensor";
import type { Executor, RowsExecutor } from "../kernel.ts";
import { addMatmul } from "../kernels/matmul.ts";
import { adamwInPlace } from "./adamw.ts";
import { fusedAttention } from "./attention.ts";
import { fusedCrossEntropy } from "./crossEntropy.ts";
import { lookAtLogits } from "./lookAtLogits.ts";
import { fusedRows } from "./rows.ts";

export const hasRows = (executor: Executor): executor is RowsExecutor => executor.runRows !== undefined;

/** What WebGL2 has beside the plain kernels: each one's specification is its composite. */
export const packedFused = (executor: RowsExecutor): Required<Pick<Backend, "fused" | "strided" | "updates">> => ({
  fused: { ...fusedRows(executor), ...fusedCrossEntropy(executor), ...fusedAttention(executor) },
  strided: ["attention", "attentionGrad"],
  updates: {
    adamw: (arrays, numbers) => adamwInPlace(executor, arrays, numbers),
    lookAtLogits: (arrays, numbers) => lookAtLogits(executor, arrays, numbers),
    addMatmul: (out, a, b, factor) => factor !== null && addMatmul(executor, out, a, b, factor),
  },
});
