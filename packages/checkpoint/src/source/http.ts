import { CheckpointError } from "../errors.ts";
import type { ByteSource } from "./source.ts";

/** A file behind a URL, read by ranges. Throws CheckpointError where the server has none or ignores ranges. */
export async function httpSource(url: string): Promise<ByteSource> {
  const head = await fetch(url, { method: "HEAD" });
  const size = Number(head.headers.get("content-length"));
  if (!head.ok) throw new CheckpointError("NOT_FOUND", `${url}: must be readable, got HTTP ${head.status}`, { url });
  return {
    name: url,
    size,
    async read(offset, length) {
      if (length === 0) return new Uint8Array(0);
      const response = await fetch(url, { headers: { range: `bytes=${offset}-${offset + length - 1}` } });
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (response.status !== 206 || bytes.byteLength !== length) {
        const found = `HTTP ${response.status} with ${bytes.byteLength} bytes`;
        throw new CheckpointError(
          "CORRUPT",
          `${url}: ${length} bytes from ${offset} must come by range, got ${found}`,
          { url },
        );
      }
      return bytes;
    },
    close: async () => {},
  };
}
