import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SHAPES, type ShapeName } from "./shapes.ts";

/** The folder of a checkpoint with random weights and the bytes in it; written when it is not there yet. */
export function checkpointFolder(shape: ShapeName): { readonly dir: string; readonly bytes: number } {
  const { config, dtype } = SHAPES[shape];
  const version = createHash("sha256").update(JSON.stringify({ config, dtype })).digest("hex").slice(0, 8);
  const dir = join(tmpdir(), "neolog-benchmarks", `${shape}-${version}`);
  const weights = join(dir, "model.safetensors");
  if (!existsSync(weights)) {
    const script = fileURLToPath(new URL("./writeCheckpoint.js", import.meta.url));
    execFileSync(process.execPath, [script, shape, dir], { stdio: ["ignore", "ignore", "inherit"] });
  }
  return { dir, bytes: statSync(weights).size };
}
