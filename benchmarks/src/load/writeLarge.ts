/** `node writeLarge.js DIR [LAYERS]`: a Llama of 1.2 billion random bfloat16 parameters in shards, streamed: never whole in memory. */
import {
  type FileContent,
  type LazyTensor,
  shardIndex,
  splitIntoShards,
  storedByteLength,
  streamSafetensors,
  stringifyPythonJson,
  writeFolder,
} from "@neolog/checkpoint";
import { architectureOf } from "@neolog/models";
import { stateDict } from "@neolog/nn";
import { Random, toBfloat16, withShapesOnly } from "@neolog/tensor";
import { LARGE } from "./large.ts";

/** As many weights as are drawn; large ones repeat them. A prime, so that rows of a matrix differ. */
const DRAWN = 1_000_003;
const random = new Random(1);
const drawn = new Uint8Array(
  Uint16Array.from({ length: DRAWN }, () => toBfloat16((random.next() - 0.5) * 0.07)).buffer,
);
const one = Uint8Array.of(0x80, 0x3f);

/** `length` bytes of drawn weights, or of ones for a norm. */
function bytesOf(length: number, isNorm: boolean, start: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const source = isNorm ? one : drawn;
  for (let at = 0, from = isNorm ? 0 : start % drawn.length; at < length; from = 0) {
    const part = source.subarray(from, from + length - at);
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const [dir, layers] = process.argv.slice(2) as [string, string?];
const config = layers === undefined ? LARGE : { ...LARGE, num_hidden_layers: Number(layers) };
const model = withShapesOnly(() => architectureOf(config).create(config, "config.json"));
const sizeOf = ({ shape }: { readonly shape: readonly number[] }): number => storedByteLength("BF16", shape)!;
const tensors = [...stateDict(model)].map(([name, { shape }], i) => {
  const read = async (): Promise<Uint8Array> => bytesOf(sizeOf({ shape }), shape.length === 1, 2 * 7919 * i);
  return [name, { dtype: "BF16", shape, read } satisfies LazyTensor] as const;
});
const shards = splitIntoShards(tensors, sizeOf, "600MB");
const total_size = tensors.reduce((sum, [, t]) => sum + sizeOf(t), 0);
const index = shardIndex(shards, { total_parameters: total_size / 2, total_size });
await writeFolder(
  dir,
  new Map<string, FileContent>([
    ["config.json", `${stringifyPythonJson(config)}\n`],
    ...[...shards].map(([file, shard]) => [file, streamSafetensors(shard)] as const),
    ["model.safetensors.index.json", `${stringifyPythonJson(index)}\n`],
  ]),
);
console.log(JSON.stringify({ bytes: total_size, shards: shards.size }));
