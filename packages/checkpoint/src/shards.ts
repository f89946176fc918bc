const UNITS: Readonly<Record<string, number>> = { TB: 1e12, GB: 1e9, MB: 1e6, KB: 1e3 };

/** Bytes of a size as huggingface_hub spells it, such as "5GB", or a number of bytes. Throws RangeError. */
export function parseSize(size: number | string): number {
  const [, digits, unit] = /^\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*$/i.exec(String(size)) ?? [];
  const bytes = typeof size === "number" ? size : Math.trunc(Number(digits) * UNITS[unit?.toUpperCase() ?? ""]!);
  if (bytes >= 1) return bytes;
  throw new RangeError(`maxShardSize: must be a number of bytes or a text such as "500MB" or "5GB", got ${size}`);
}

/**
 * Which file holds which tensors, as huggingface_hub's split_torch_state_dict_into_shards decides: in their order, a new file
 * before the one that would be too large; a tensor larger than the limit has its own. One file is model.safetensors, several
 * are model-00001-of-00002.safetensors and so on.
 */
export function splitIntoShards<T>(
  tensors: Iterable<readonly [name: string, tensor: T]>,
  byteLengthOf: (tensor: T) => number,
  maxShardSize: number | string,
): Map<string, (readonly [name: string, tensor: T])[]> {
  const limit = parseSize(maxShardSize);
  const shards: (readonly [string, T])[][] = [];
  let current: (readonly [string, T])[] = [];
  let bytes = 0;
  for (const entry of tensors) {
    const size = byteLengthOf(entry[1]);
    if (size > limit) {
      shards.push([entry]);
      continue;
    }
    if (bytes + size > limit) {
      shards.push(current);
      [current, bytes] = [[], 0];
    }
    current.push(entry);
    bytes += size;
  }
  if (current.length > 0 || shards.length === 0) shards.push(current);
  const of = number(shards.length);
  return new Map(
    shards.map((shard, i) => [
      shards.length === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${of}.safetensors`,
      shard,
    ]),
  );
}

const number = (n: number): string => String(n).padStart(5, "0");

/** Files of weights that another file of the same folder replaces: one file, shards, or the index of shards. */
export const isWeightsFile = (file: string): boolean =>
  /^model(?:-\d{5}-of-\d{5})?\.safetensors$/.test(file) || file === "model.safetensors.index.json";

/** What model.safetensors.index.json holds. */
export function shardIndex(
  shards: ReadonlyMap<string, readonly (readonly [name: string, tensor: unknown])[]>,
  metadata: { readonly total_parameters: number; readonly total_size: number },
): { readonly metadata: typeof metadata; readonly weight_map: Record<string, string> } {
  const weight_map = Object.fromEntries(
    [...shards].flatMap(([file, tensors]) => tensors.map(([name]) => [name, file] as const)),
  );
  return { metadata, weight_map };
}
