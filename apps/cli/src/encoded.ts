import {
  cacheHome,
  openFolder,
  openSafetensors,
  streamSafetensors,
  toTypedArray,
  writeFolder,
} from "@neolog/checkpoint";
import { type Ragged, SequenceDataset } from "@neolog/models";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type ReadOptions, readExamples, sizeOf } from "./data.ts";
import { sha256Of } from "./lines.ts";
import type { Output } from "./output.ts";

/** Counts with the form of what is kept, and with how rows become ids. */
const FORMAT = "neolog encoded rows 1";
/** A tokenizer reads about a megabyte a second: below, keeping ids saves nobody's time. */
const WORTH_BYTES = 2 ** 20;
const COLUMNS = ["input_ids", "attention_mask", "labels"] as const;
const PARTS = ["values", "lengths"] as const;

export interface Encoded {
  readonly examples: SequenceDataset;
  /** Of the data file, in hexadecimal. */
  readonly data_sha256: string;
}

/**
 * `readExamples`, and where a file is large, the ids kept in the Hugging Face cache's folder under a hash of all that decides them:
 * the file, the tokenizer and the options. Where they cannot be kept, or what was kept cannot be read, a note says so.
 */
export async function encodedExamples(
  file: string,
  options: ReadOptions,
  output: Output,
  { cache }: { readonly cache: boolean },
): Promise<Encoded> {
  const size = await sizeOf(file);
  const data_sha256 = await sha256Of(file);
  const read = async (): Promise<SequenceDataset> => {
    const progress = output.progress("reading", size, "bytes");
    const { signal } = output.io;
    try {
      return await readExamples(file, { ...options, signal, onBytes: (bytes) => progress.update(bytes) });
    } finally {
      progress.stop();
    }
  };
  if (!cache || size < WORTH_BYTES) return { examples: await read(), data_sha256 };

  const folder = join(await cacheHome(), "neolog");
  const name = `${keyOf(data_sha256, options)}.safetensors`;
  const kept = await load(folder, name, output);
  if (kept) return { examples: kept, data_sha256 };
  const examples = await read();
  await writeFolder(folder, new Map([[name, inFile(examples)]])).catch((error: Error) => {
    output.note(`note: the ids of ${file} are not kept for the next run: ${error.message}`);
  });
  return { examples, data_sha256 };
}

function keyOf(data_sha256: string, { tokenizer, vocabSize, kind, maxLength }: ReadOptions): string {
  const files = tokenizer ? [...tokenizer.files()] : null;
  const all = [FORMAT, data_sha256, files, vocabSize, kind, maxLength ?? null];
  return createHash("sha256").update(JSON.stringify(all)).digest("hex");
}

function inFile({ columns }: SequenceDataset): AsyncGenerator<Uint8Array, void> {
  const tensors = COLUMNS.flatMap((key) =>
    PARTS.map((part) => {
      const { buffer, byteOffset, byteLength, length } = columns[key][part];
      const read = async () => new Uint8Array(buffer, byteOffset, byteLength);
      return [`${key}.${part}`, { dtype: "I32", shape: [length], read }] as const;
    }),
  );
  return streamSafetensors(tensors);
}

async function load(dir: string, name: string, output: Output): Promise<SequenceDataset | null> {
  if (!existsSync(join(dir, name))) return null;
  try {
    const file = await openSafetensors(await (await openFolder(dir)).open(name));
    try {
      const integers = async (tensor: string) => toTypedArray(await file.read(tensor), tensor) as Int32Array;
      const column = async (key: string): Promise<Ragged> => {
        return { values: await integers(`${key}.values`), lengths: await integers(`${key}.lengths`) };
      };
      return new SequenceDataset({
        input_ids: await column("input_ids"),
        attention_mask: await column("attention_mask"),
        labels: await column("labels"),
      });
    } finally {
      await file.close();
    }
  } catch (error) {
    output.note(`note: ids kept from an earlier run cannot be read, so the text is: ${(error as Error).message}`);
    return null;
  }
}
