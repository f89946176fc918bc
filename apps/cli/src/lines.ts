import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";

const PIECE_BYTES = 2 ** 20;

/**
 * The lines of a file of UTF-8, as many at a time as end in a piece of it: the text is never whole in memory. `onBytes` hears how
 * many bytes have been read.
 */
export async function* linesOf(file: string, onBytes?: (bytes: number) => void): AsyncGenerator<string[], void> {
  let begun: Buffer[] = [];
  let bytes = 0;
  for await (const piece of createReadStream(file, { highWaterMark: PIECE_BYTES }) as AsyncIterable<Buffer>) {
    onBytes?.((bytes += piece.length));
    const end = piece.lastIndexOf("\n");
    if (end >= 0) {
      yield Buffer.concat([...begun, piece.subarray(0, end)])
        .toString("utf8")
        .split("\n");
      begun = [];
    }
    begun.push(piece.subarray(end + 1));
  }
  yield [Buffer.concat(begun).toString("utf8")];
}

/** The SHA-256 of a file, in hexadecimal. */
export async function sha256Of(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(file, { highWaterMark: PIECE_BYTES }) as AsyncIterable<Buffer>)
    hash.update(piece);
  return hash.digest("hex");
}
