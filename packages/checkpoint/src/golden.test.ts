import { existsSync, readdirSync } from "node:fs";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { compareBufferSources } from "typed-array-utils";
import { describe, expect, test } from "vitest";
import { openFolder } from "./folder.ts";
import { parseStrictJson } from "./jsonParser.ts";
import { stringifyPythonJson } from "./pythonJson.ts";
import { openSafetensors } from "./safetensors.ts";
import { openCheckpoint } from "./sharded.ts";
import { memorySource } from "./source/source.ts";
import type { StoredTensor } from "./storedDtype.ts";
import { writeSafetensors } from "./writeSafetensors.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const references = ["../shared/golden", "../shared/real", "fixtures"].map((folder) => root + folder);
for (const folder of references.slice(0, 2)) {
  if (!existsSync(folder)) console.log(`skipped: ../shared/${basename(folder)} is absent`);
}
const files = references
  .filter((folder) => existsSync(folder))
  .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => `${folder}/${file}`));
const named = (pattern: RegExp): string[] => files.filter((file) => pattern.test(file));
const short = (file: string): string => file.slice(root.length);
const bytesOf = async (file: string): Promise<Uint8Array> =>
  (await openFolder(dirname(file))).readBytes(basename(file));

describe("files of the reference implementations", () => {
  test.runIf(files.length > 0)("every safetensors file is written again byte for byte", async () => {
    const different: string[] = [];
    for (const path of named(/\.safetensors$/)) {
      const original = await bytesOf(path);
      const file = await openSafetensors(memorySource(path, original));
      const tensors: [string, StoredTensor][] = [];
      for (const name of [...file.tensors.keys()].toReversed()) tensors.push([name, await file.read(name)]);
      const again = writeSafetensors(tensors, file.metadata);
      if (!compareBufferSources(original as Uint8Array<ArrayBuffer>, again as Uint8Array<ArrayBuffer>)) {
        different.push(short(path));
      }
    }
    expect(different).toEqual([]);
  });

  test.runIf(files.length > 0)("every adapter_config.json is written again byte for byte", async () => {
    for (const path of named(/adapter_config\.json$/)) {
      const text = new TextDecoder().decode(await bytesOf(path));
      expect(stringifyPythonJson(parseStrictJson(text, { exact: true })), short(path)).toBe(text);
    }
  });

  test.runIf(files.length > 0)("every JSON file reads as JSON.parse reads it", async () => {
    for (const path of named(/\.json$/)) {
      const text = new TextDecoder().decode(await bytesOf(path));
      expect(parseStrictJson(text), short(path)).toEqual(JSON.parse(text));
    }
  });

  const sharded = `${references[0]}/models/llama/base_sharded`;
  test.runIf(existsSync(sharded))("the sharded Llama holds the tensors of the one in one file", async () => {
    const shards = await openCheckpoint(await openFolder(sharded));
    const whole = await openCheckpoint(await openFolder(`${references[0]}/models/llama/base`));
    expect(shards.names().toSorted()).toEqual(whole.names().toSorted());
    for (const name of whole.names()) expect(await shards.read(name), name).toEqual(await whole.read(name));
    await Promise.all([shards.close(), whole.close()]);
  });
});
