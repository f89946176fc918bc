import type { TokenDecoder } from "./textStreamer.ts";

const REPLACEMENTS = /\uFFFD+$/;

/**
 * Whether the last of these ids completes one of the texts: its characters are, in part at least, those of that id, which may go on
 * beyond it. As StopStringCriteria in transformers.
 */
export function stopStrings(stops: readonly string[], decoder: TokenDecoder): (ids: readonly number[]) => boolean {
  const bytes = stops.map((stop) => new TextEncoder().encode(stop).length);
  // an id has one byte at least; one more, because the first of a text may lose the space before it
  const reach = Math.max(0, ...bytes) + 1;
  const textOf = (ids: readonly number[]): string => decoder.decode(ids, { skipSpecialTokens: false });
  return (ids) => {
    const tail = ids.slice(-reach);
    const text = textOf(tail);
    const before = textOf(tail.slice(0, -1)).replace(REPLACEMENTS, "").length;
    return stops.some((stop) => {
      const at = text.lastIndexOf(stop);
      return at >= 0 && at + stop.length > before;
    });
  };
}
