declare module "asciichart" {
  interface PlotConfig {
    height?: number;
    min?: number;
    max?: number;
    /** Columns before the line; labels end there. */
    offset?: number;
    format?: (value: number) => string;
  }
  export function plot(series: readonly number[], config?: PlotConfig): string;
}
