import { plot } from "asciichart";

/** A loss curve of at most `width` columns and `height` + 1 lines; each column is the mean of the steps that fall into it. */
export function lossCurve(
  losses: readonly number[],
  { width, height = 8 }: { width: number; height?: number },
): string[] {
  const shown = losses.filter(Number.isFinite);
  if (shown.length < 2) return [];
  const labels = Math.max(...shown).toFixed(2).length;
  const points = Math.min(shown.length, width - labels - 2);
  const means = Array.from({ length: points }, (_, i) => {
    const from = Math.floor((i * shown.length) / points);
    const part = shown.slice(from, Math.max(from + 1, Math.floor(((i + 1) * shown.length) / points)));
    return part.reduce((sum, loss) => sum + loss, 0) / part.length;
  });
  const drawn = plot(means, { height, offset: 2, format: (value) => `${value.toFixed(2).padStart(labels)} ` });
  return drawn.split("\n").map((line) => line.trimEnd());
}
