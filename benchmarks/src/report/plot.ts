import type { Race } from "./races.ts";

/** Bars of medians with the tenth and the ninetieth percentile, a panel for each race, as an SVG. */
export async function plot(title: string, races: readonly Race[]): Promise<string> {
  // only a report needs them
  const [{ compile }, { parse, View }] = await Promise.all([import("vega-lite"), import("vega")]);
  const { spec } = compile({ title, vconcat: races.map(panel), resolve: { scale: { color: "shared" } } });
  const view = new View(parse(spec), { renderer: "none" });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

/** Typed loosely by TypeScript as it is written: Vega-Lite checks it. */
function panel({ name, shape, unit, figures }: Race) {
  const values = figures.map(({ contender, threads, runtime, median, p10, p90 }) => {
    const where = `${threads} thread${threads > 1 ? "s" : ""}, ${runtime.replace(/\.\d+\.\d+/g, "")}`;
    return { who: `${contender}, ${where}`, contender, median, p10, p90 };
  });
  const y = { field: "who", type: "nominal", title: null, sort: null, axis: { labelLimit: 400 } } as const;
  const x = (field: string) => ({ field, type: "quantitative", title: unit }) as const;
  const color = { field: "contender", type: "nominal", legend: null } as const;
  return {
    title: `${name} ${shape.join("×")}`,
    width: 420,
    data: { values },
    layer: [
      { mark: "bar" as const, encoding: { y, x: x("median"), color } },
      { mark: "rule" as const, encoding: { y, x: x("p10"), x2: { field: "p90" } } },
    ],
  };
}
