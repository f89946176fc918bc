import type { Features } from "./features.ts";
import { coreCount, nodeModule } from "./platform.ts";

/** What `describeBackend` is told. */
export interface Chosen {
  readonly features: Features;
  /** Threads that were asked for, null for as many as there are cores. */
  readonly asked: number | null;
  readonly alive: number;
  readonly canShare: boolean;
  readonly flags: readonly string[];
  readonly tile: string;
}

/** What was chosen and why, and what a flag or a newer engine would bring; for people. */
export function describeBackend({
  features,
  asked,
  alive,
  canShare,
  flags,
  tile,
}: Chosen): Record<string, string | number | boolean> {
  const v8 = v8Version();
  return {
    name: "wasm",
    engine: v8 ? `V8 ${v8}, Node ${globalThis.process.versions.node}` : "a browser's",
    threads: alive,
    threadsBecause: becauseOfThreads(asked, alive, canShare),
    fusedMultiplyAdd: features.madd,
    revectorizer: flags.includes("--experimental-wasm-revectorize"),
    tile,
    v8Flags: flags.join(" ") || "none",
    advice: advice({ features, flags, canShare, major: Number(v8?.split(".")[0] ?? 0) }),
  };
}

const v8Version = (): string | null => (nodeModule("node:v8") ? globalThis.process.versions.v8 : null);

function becauseOfThreads(asked: number | null, alive: number, canShare: boolean): string {
  if (!canShare) return "memory cannot be shared without cross-origin isolation";
  const wanted = asked ?? coreCount();
  if (alive < wanted) return `${wanted} were wanted, the others did not start or ended`;
  return asked === null ? "as many as there are cores" : "asked for";
}

function advice({
  features,
  flags,
  canShare,
  major,
}: Pick<Chosen, "features" | "flags" | "canShare"> & { readonly major: number }): string {
  const hints: string[] = [];
  if (!canShare)
    hints.push(
      "the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp bring threads",
    );
  if (!features.madd && major === 11) hints.push("v8Flags: true brings fused multiply-add: products 1.2 times as fast");
  if (major >= 13 && !flags.includes("--experimental-wasm-revectorize"))
    hints.push("v8Flags: true brings 256-bit vectors: products up to twice as fast");
  if (major > 0 && major < 13) hints.push("Node 24 with v8Flags: true computes products up to twice as fast");
  return hints.join("; ") || "none: this is the fastest way here";
}
