/** What JavaScript peers need of a GPT-2 checkpoint and a batch to train token rows; each builds the model from its own operations. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A tensor's data and shape by its name in a safetensors file of float32. */
function tensorsOf(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(file.subarray(8, 8 + length).toString());
  return (name) => {
    const { dtype, shape, data_offsets } = header[name];
    if (dtype !== "F32") throw new Error(`${name} must be float32, got ${dtype}`);
    const [begin, end] = data_offsets.map((at) => file.byteOffset + 8 + length + at);
    return { data: new Float32Array(file.buffer.slice(begin, end)), shape };
  };
}

/** { config, get, batches, rows }, or null for other models. `rows` is where the trained rows begin: [k, D]. */
export function gpt2Training({ training, dir }) {
  if (training?.model !== "gpt2" || training.rowsAfter !== undefined) return null;
  const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8"));
  const get = tensorsOf(join(dir, "model.safetensors"));
  const [wte, wpe] = [get("transformer.wte.weight").data, get("transformer.wpe.weight").data];
  const D = config.n_embd;
  const rowOf = (table, i) => table.subarray(i * D, (i + 1) * D);
  const slot = new Map(training.token_indices.map((id, i) => [id, i]));
  const k = slot.size;
  const rows = new Float32Array(k * D);
  for (const [id, i] of slot) rows.set(rowOf(wte, id), i * D);

  /** Rows of the table, zero where they train, and which trained row stands there: [N, D] and [N, k]. */
  const split = (ids) => {
    const [frozen, trained] = [new Float32Array(ids.length * D), new Float32Array(ids.length * k)];
    ids.forEach((id, i) => {
      if (slot.has(id)) trained[i * k + slot.get(id)] = 1;
      else frozen.set(rowOf(wte, id), i * D);
    });
    return { frozen, trained };
  };
  const batches = training.batches.map((ids) => {
    const [B, T] = [ids.length, ids[0].length];
    const inputs = split(ids.flat());
    for (let i = 0; i < B * T; i++) {
      const position = rowOf(wpe, i % T);
      for (let j = 0; j < D; j++) inputs.frozen[i * D + j] += position[j];
    }
    const targets = split(ids.flatMap((row) => [...row.slice(1), row[0]]));
    /** Of each position's loss in the mean; the last one of a sequence has no target. */
    const weights = Float32Array.from({ length: B * T }, (_, i) => (i % T === T - 1 ? 0 : 1 / (B * (T - 1))));
    return { B, T, inputs, targets, weights };
  });
  /** Far below every logit at the trained tokens, whose columns of the frozen table do not count: [V]. */
  const untrained = new Float32Array(wte.length / D);
  for (const id of training.token_indices) untrained[id] = -1e9;
  return { config, get, wte, D, k, rows, untrained, batches };
}

/** [n, m] → [m, n] */
export function transposed(data, [n, m]) {
  const out = new Float32Array(data.length);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) out[j * n + i] = data[i * m + j];
  return out;
}

/** 0 at and below the diagonal, far below every score above it: [T, T]. */
export const causalMask = (T) => Float32Array.from({ length: T * T }, (_, i) => (i % T > Math.floor(i / T) ? -1e9 : 0));
