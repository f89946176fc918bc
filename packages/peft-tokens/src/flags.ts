import type { Module } from "@neolog/nn";
import type { Adapters } from "./adapters.ts";
import { AdapterError } from "./errors.ts";

/** Lets exactly the tensors train whose adapter may, while adapters are enabled. */
export function applyRequiresGrad({ entries, layers, state }: Adapters): void {
  for (const { biases, requiresGrad } of entries.values())
    for (const t of biases?.values() ?? []) t.requiresGrad = requiresGrad && state.enabled;
  for (const layer of layers().values()) {
    for (const name of layer.adapters) {
      const requiresGrad = (entries.get(name)?.requiresGrad ?? false) && state.enabled;
      for (const t of layer.tensorsOf(name).values()) t.requiresGrad = requiresGrad;
    }
  }
}

/** Sets the stored flags; activation stays. Throws AdapterError UNKNOWN. */
export function setRequiresGradOf(adapters: Adapters, names: string | readonly string[], flag: boolean): void {
  const entries = [names].flat().map((name) => adapters.known(name));
  for (const entry of entries) entry.requiresGrad = flag;
  applyRequiresGrad(adapters);
}

export function setEnabled(adapters: Adapters, enabled: boolean): void {
  if (!enabled) warnOfBiases(adapters, "disabling adapters");
  adapters.state.enabled = enabled;
  applyRequiresGrad(adapters);
}

/** Trained biases are the base's own: they stay when adapters go. */
export function warnOfBiases(adapters: Adapters, what: string): void {
  const names = adapters.names.filter((name) => (adapters.known(name).biases?.size ?? 0) > 0);
  if (names.length > 0)
    adapters.warn("BIAS_DISABLED", `${what}: ${names.join(", ")} trains biases of the base, which stay as they are`);
}

/** Until the result is disposed the model is the base; then it is enabled or disabled as before. Nests. */
export function disabled(adapters: Adapters): Disposable {
  const before = adapters.state.enabled;
  setEnabled(adapters, false);
  return { [Symbol.dispose]: () => setEnabled(adapters, before) };
}

/** Runs `f` on the base model; where it returns a promise, until that settles. */
export function whileDisabled<T>(adapters: Adapters, f: () => T): T {
  const scope = disabled(adapters);
  const restore = (): void => scope[Symbol.dispose]();
  let result: T;
  try {
    result = f();
  } catch (error) {
    restore();
    throw error;
  }
  if (result instanceof Promise) return result.finally(restore) as T;
  restore();
  return result;
}

/** A function that puts `requiresGrad` of the parameters back. */
export function rememberFlags(model: Module): () => void {
  const flags = model.parameters().map((p) => [p, p.requiresGrad] as const);
  return () => {
    for (const [p, flag] of flags) p.requiresGrad = flag;
  };
}

/** Throws AdapterError NOTHING_TO_TRAIN where no adapter is trainable, in effect and unmerged. */
export function checkTrains({ entries, state }: Adapters): void {
  const trainable = [...entries].filter(([, { requiresGrad }]) => requiresGrad).map(([name]) => name);
  if (trainable.some((name) => state.applied.includes(name))) return;
  const { enabled, active, merged } = state;
  const list = (names: readonly string[]): string => names.join(", ") || "none";
  throw new AdapterError(
    "NOTHING_TO_TRAIN",
    `backward: a trainable adapter must be enabled, active and unmerged, got ${enabled ? "" : "adapters disabled, "}trainable ${list(trainable)}, active ${list(active)}, merged ${list(merged)}; enable, set or unmerge first`,
    { enabled, trainable, active, merged },
  );
}
