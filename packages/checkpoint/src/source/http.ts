import { CheckpointError } from "../errors.ts";
import { type ByteSource, endsEarly, memorySource, readPieces } from "./source.ts";

/**
 * A file behind a URL, read by HTTP ranges; where the server ignores ranges, the whole file is held in memory. Throws
 * CheckpointError NOT_FOUND when the URL cannot be read, CORRUPT when it changes while it is read.
 */
export async function httpSource(url: string): Promise<ByteSource> {
  const first = await fetchRange(url, 0, 1);
  if (first.status === 200) return memorySource(url, new Uint8Array(await first.arrayBuffer()));
  await first.body?.cancel();
  const size = Number(/\/(\d+)$/.exec(first.headers.get("content-range") ?? "")?.[1] ?? NaN);
  if (Number.isNaN(size)) {
    throw new CheckpointError(
      "NOT_FOUND",
      `${url}: content-range must give the file's size, got ${first.headers.get("content-range")}`,
      { file: url },
    );
  }
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    if (length === 0) return new Uint8Array(0);
    const response = await fetchRange(url, offset, length);
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (response.status !== 206 || bytes.byteLength !== length) {
      throw endsEarly(url, offset, length, response.status === 206 ? bytes.byteLength : 0);
    }
    return bytes;
  };
  return {
    name: url,
    size,
    read,
    readInto: (offset, target) => readPieces(read, offset, target),
    close: async () => {},
  };
}

/** True where the server has the file. Throws CheckpointError NOT_FOUND where no server answers. */
export const httpHas = async (url: string): Promise<boolean> => (await request(url, { method: "HEAD" })).ok;

/** Answers 206, 200 from a server without ranges, or 416 for a range past the end. */
async function fetchRange(url: string, offset: number, length: number): Promise<Response> {
  const response = await request(url, { headers: { range: `bytes=${offset}-${offset + length - 1}` } });
  if (!response.ok && response.status !== 416) throw notFound(url, `HTTP ${response.status}`);
  return response;
}

function request(url: string, options: RequestInit): Promise<Response> {
  return fetch(url, options).catch((error: Error) => {
    throw notFound(url, error.cause instanceof Error ? error.cause.message : error.message);
  });
}

const notFound = (url: string, found: string): CheckpointError =>
  new CheckpointError("NOT_FOUND", `${url}: must be readable, got ${found}`, { file: url });
