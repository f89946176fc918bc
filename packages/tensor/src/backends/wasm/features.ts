import { op } from "./asm/expression.ts";
import { ModuleBuilder } from "./asm/module.ts";
import { nodeModule } from "./platform.ts";

/** What the engine can do, found by asking it to validate. */
export interface Features {
  /** f32x4.relaxed_madd: one rounding and half the instructions where the processor has FMA. */
  readonly madd: boolean;
}

/** True where WebAssembly has SIMD and shared memory: without them this backend cannot run. */
export const hasSimd = (): boolean => typeof WebAssembly === "object" && WebAssembly.validate(probe("f32x4.add"));

export const detectFeatures = (): Features => ({ madd: WebAssembly.validate(probe("f32x4.relaxed_madd")) });

function probe(name: "f32x4.add" | "f32x4.relaxed_madd"): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder();
  m.kernel("probe", {}, (f) => {
    const x = f.local("v128");
    f.set(x, name === "f32x4.add" ? op(name, x, x) : op(name, x, x, x));
  });
  return m.build();
}

/**
 * Sets the V8 flags that make kernels faster, for the whole process; call it before anything of WebAssembly is compiled.
 * Returns what was set. A flag that V8 does not know would print a complaint, so each is set only where it exists.
 */
export function setV8Flags(): string[] {
  const v8 = nodeModule("node:v8");
  const major = Number(globalThis.process?.versions?.v8?.split(".")[0]);
  if (!v8 || !major) return [];
  const flags: string[] = [];
  // V8 11 (Node 20) knows relaxed SIMD behind a flag; later ones have it on
  if (major === 11 && !detectFeatures().madd) flags.push("--experimental-wasm-relaxed-simd");
  // pairs adjacent 128-bit operations into AVX2 ones; exists since V8 12, works since V8 13 (Node 24)
  if (major >= 13) flags.push("--experimental-wasm-revectorize");
  for (const flag of flags) v8.setFlagsFromString(flag);
  return flags;
}
