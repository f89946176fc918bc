import type { Race } from "./races.ts";

/** Bars of medians with the tenth and the ninetieth percentile, a panel for each race, as an SVG. */
export async function plot(title: string, races: readonly Race[]): Promise<string> {
  // only a report needs them
  const [{ compile }, { parse, View }] = await Promise.all([import("vega-lite"), import("vega")]);
  const values = races.flatMap(({ name, shape, figures }) =>
    figures.map(({ contender, threads, runtime, median, p10, p90 }) => ({
      race: `${name} ${shape.join("×")}`,
      who: `${contender}, ${threads > 1 ? `${threads} threads, ` : ""}${runtime.replace(/\.\d+\.\d+/g, "")}`,
      contender,
      median,
      p10,
      p90,
    })),
  );
  const y = { field: "who", type: "nominal", title: null, sort: null, axis: { labelLimit: 320 } } as const;
  const { spec } = compile({
    data: { values },
    title,
    facet: {
      row: {
        field: "race",
        type: "nominal",
        title: null,
        sort: null,
        header: { labelAngle: 0, labelAlign: "left", labelOrient: "top" },
      },
    },
    spec: {
      width: 480,
      layer: [
        {
          mark: "bar",
          encoding: {
            y,
            x: { field: "median", type: "quantitative", title: races[0]!.unit },
            color: { field: "contender", type: "nominal", legend: null },
          },
        },
        { mark: "rule", encoding: { y, x: { field: "p10", type: "quantitative" }, x2: { field: "p90" } } },
      ],
    },
    resolve: { scale: { y: "independent" } },
  });
  const view = new View(parse(spec), { renderer: "none" });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
