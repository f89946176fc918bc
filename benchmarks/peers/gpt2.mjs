/** What JavaScript peers need of a GPT-2 checkpoint and a batch to train token rows; each builds the model from its own operations. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";

/** Where a safetensors file has its tensors: their offsets count from `start`. */
export function headerOf(path) {
  const file = openSync(path);
  const length = Buffer.alloc(8);
  readSync(file, length, 0, 8, 0);
  const text = Buffer.alloc(Number(length.readBigUInt64LE(0)));
  readSync(file, text, 0, text.length, 8);
  closeSync(file);
  return { header: JSON.parse(text.toString()), start: 8 + text.length };
}

/** A tensor's data and shape by its name in a safetensors file of float32. */
function tensorsOf(path) {
  const { header, start } = headerOf(path);
  return (name) => {
    const { dtype, shape, data_offsets } = header[name];
    if (dtype !== "F32") throw new Error(`${name} must be float32, got ${dtype}`);
    const [begin, end] = data_offsets;
    const data = new Float32Array((end - begin) / 4);
    const file = openSync(path);
    readSync(file, new Uint8Array(data.buffer), 0, end - begin, start + begin);
    closeSync(file);
    return { data, shape };
  };
}

/** { config, get, batches, rows }, or null for other models. `rows` is where the trained rows begin: [k, D]. */
export function gpt2Training({ training, dir }) {
  if (training?.model !== "gpt2" || training.forward || training.rowsAfter !== undefined) return null;
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
