import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

const HEIGHT = 220;
/** How far apart steps may be named. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];

interface Props {
  readonly losses: readonly number[];
  /** Steps of the whole run: the width of the chart. */
  readonly total: number;
}

/** The loss of every step so far, redrawn once a frame; in the colours and the width of the page. */
export function LossChart({ losses, total }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const latest = useRef(losses);
  latest.current = losses;

  useEffect(() => {
    const build = (): void => {
      chart.current?.destroy();
      chart.current = new uPlot(options(place.current!, total), dataOf(latest.current), place.current!);
    };
    build();
    const resized = new ResizeObserver(([entry]) =>
      chart.current?.setSize({ width: entry!.contentRect.width, height: HEIGHT }),
    );
    resized.observe(place.current!);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", build);
    return () => {
      resized.disconnect();
      scheme.removeEventListener("change", build);
      chart.current?.destroy();
      chart.current = null;
    };
  }, [total]);

  useEffect(() => {
    const frame = requestAnimationFrame(() => chart.current?.setData(dataOf(latest.current)));
    return () => cancelAnimationFrame(frame);
  }, [losses.length]);

  const last = losses.at(-1);
  const spoken = last === undefined ? "no step yet" : `from ${losses[0]!.toFixed(3)} to ${last.toFixed(3)}`;
  return <div ref={place} class="chart" role="img" aria-label={`The loss of ${losses.length} steps: ${spoken}`} />;
}

const dataOf = (losses: readonly number[]): uPlot.AlignedData => [losses.map((_, i) => i + 1), [...losses]];

function options(place: HTMLElement, total: number): uPlot.Options {
  const colour = (name: string): string => getComputedStyle(place).getPropertyValue(name);
  const axis: uPlot.Axis = {
    stroke: () => colour("--quiet"),
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { show: false },
    font: `12px ${getComputedStyle(place).fontFamily}`,
  };
  return {
    width: place.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: [1, Math.max(2, total)] },
      y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 30, incrs: WHOLE },
      { ...axis, size: 40 },
    ],
    series: [{}, { stroke: () => colour("--accent"), width: 2, points: { show: false } }],
  };
}
