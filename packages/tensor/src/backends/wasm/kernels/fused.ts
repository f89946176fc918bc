import type { Backend, View } from "../../../backend.ts";
import type { FusedName, OpAttrs } from "../../../op.ts";
import * as plain from "../../cpu/index.ts";
import { type Engine, isLocalFloat32 } from "../engine.ts";
import { layerNorm, rmsNorm } from "./norm.ts";

type FusedKernels = NonNullable<Backend["fused"]>;
type Kernel<N extends FusedName> = (engine: Engine, out: View, inputs: readonly View[], attrs: OpAttrs[N]) => void;

const SIMD: { readonly [N in FusedName]?: Kernel<N> } = {
  layerNorm,
  rmsNorm,
};

/** The one-pass kernels: SIMD where all operands are float32 in the first memory, else the cpu backend's. */
export function fusedKernels(engine: Engine): FusedKernels {
  const kernels = Object.entries(plain.fused).map(([name, slow]) => {
    const fast = SIMD[name as FusedName] as ((...args: unknown[]) => void) | undefined;
    const kernel = (out: View, inputs: readonly View[], attrs: unknown): void => {
      if (fast && [out, ...inputs].every(isLocalFloat32)) fast(engine, out, inputs, attrs);
      else (slow as (...args: unknown[]) => void)(out, inputs, attrs);
    };
    return [name, kernel];
  });
  return Object.fromEntries(kernels) as FusedKernels;
}
