import { SIDES } from "./dense.ts";
import type { Real } from "./real.ts";
import { same } from "./same.ts";

/** What holds after every command, by the numbers of our specification. */
export function checkInvariants(real: Real): void {
  const { peft, dense, base } = real;
  const logits = real.logits();
  real.checkLogits(logits, dense.effective, "P-1, P-2");
  const stored = dense.tablesWith(dense.merged);
  if (dense.tied) stored.output.set(stored.input);
  same(real.storedTables(), stored, "P-3, P-4");
  real.checkStoredLinears(dense.merged, "P-3, P-4");

  const layers = real.layers();
  const deltas = new Set<unknown>();
  for (const [name, { ids, rows, lora, requiresGrad }] of dense.adapters) {
    same(real.rowsOf(name, layers), rows, `P-12: rows of ${name}`);
    same(real.loraOf(name), lora, `P-12: LoRA of ${name}`);
    for (const side of SIDES) {
      const layer = layers[side];
      if (!layer?.has(name)) continue;
      same(Array.from(layer.indicesOf(name)), [...ids], `ids of ${name}`);
      same(layer.originalOf(name).dataSync(), dense.originals(side, ids), `P-5: originals of ${name}`);
    }
    const parameters = real.deltasOf(name, layers);
    const trained = [...Object.values(parameters), ...Object.values(real.matricesOf(name)).flat()];
    for (const p of trained) deltas.add(p);
    if (rows.input !== undefined && rows.input === rows.output)
      same(parameters.input === parameters.output, true, `P-15: ${name} on both sides`);
    same(peft.requiresGradOf(name), requiresGrad, `P-10: flag of ${name}`);
    for (const p of trained) same(p.requiresGrad, requiresGrad && dense.enabled, `flag of ${name}`);
  }
  for (const p of base.parameters()) if (!deltas.has(p)) same(p.requiresGrad, false, "P-10: base");
  same(dense.overlaps([...new Set([...dense.merged, ...dense.active])]), false, "P-9");
  same(Object.keys(peft.peftConfig).toSorted(), [...dense.adapters.keys()].toSorted(), "names");

  const { activeAdapters, mergedAdapters, enabled } = peft;
  same([activeAdapters, mergedAdapters, enabled], [dense.active, dense.merged, dense.enabled], "what counts");
  checkStatus(real);
  checkCounts(real);
  same(real.logits(), logits, "P-7: looking changes nothing");
}

/** P-16 */
function checkStatus({ peft, dense }: Real): void {
  for (const status of peft.getLayerStatus()) {
    const here = (names: readonly string[]): string[] =>
      names.filter((name) => status.available_adapters.includes(name));
    same(
      [status.enabled, status.active_adapters, status.merged_adapters],
      [dense.enabled, here(dense.active), here(dense.merged)],
      `P-16: status of ${status.name}`,
    );
  }
  same(JSON.stringify(peft.getModelStatus()).includes("irregular"), false, "P-16: irregular");
}

/** P-21 */
function checkCounts(real: Real): void {
  const { peft, dense } = real;
  const total = (names: readonly string[]): number => names.reduce((sum, name) => sum + dense.sizeOf(name), 0);
  const names = [...dense.adapters.keys()];
  const plain = real
    .twinWith([])
    .parameters()
    .reduce((sum, t) => sum + t.size, 0);
  const shared = dense.tied ? dense.tables.input.length : 0;
  same(
    peft.getNbTrainableParameters(),
    {
      trainable: total(names.filter((name) => dense.enabled && dense.get(name).requiresGrad)),
      all: plain - shared + total(names),
    },
    "P-21",
  );
}
