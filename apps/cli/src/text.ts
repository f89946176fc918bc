/** Rows as aligned columns, two spaces apart; columns named in `right` are flush right. The last column is not padded. */
export function columns(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const count = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, i) => Math.max(...rows.map((row) => (row[i] ?? "").length)));
  return rows.map((row) =>
    row
      .map((cell, i) => (right.includes(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
}

/** `1,312` */
export const thousands = (n: number): string => n.toLocaleString("en-US");

/** `1 row`, `2,000 rows` */
export const count = (n: number, noun: string): string => `${thousands(n)} ${noun}${n === 1 ? "" : "s"}`;

/** `784 B`, `12.3 kB`, `4.7 MB`: powers of 1000. */
export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let rank = 0;
  let value = n;
  while (value >= 999.5 && rank < units.length - 1) {
    value /= 1000;
    rank++;
  }
  return `${rank === 0 ? value : value.toPrecision(3)} ${units[rank]}`;
}

/** Text cut to `width` characters, with an ellipsis where something is missing. */
export const clip = (text: string, width: number): string =>
  text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;

export const indent = (lines: readonly string[]): string[] => lines.map((line) => (line ? `  ${line}` : line));

/** PEFT's line: `trainable params: 16 || all params: 1,312 || trainable%: 1.2195`; "?" where the base is not at hand. */
export function trainableLine(trainable: number, all: number | null): string {
  const share = all === null ? "?" : all === 0 ? "0.0000" : ((100 * trainable) / all).toFixed(4);
  return `trainable params: ${thousands(trainable)} || all params: ${all === null ? "?" : thousands(all)} || trainable%: ${share}`;
}
