import { computeLarge } from "./large.ts";
import type { Report } from "./report.ts";

const post = (report: Report | { readonly error: string }): Promise<Response> =>
  fetch("/report", { method: "POST", body: JSON.stringify(report) });

/** Computes here, where a thread may not sleep, then lets the worker run the suites; posts what both say, or what went wrong. */
try {
  const page = await computeLarge(2);
  const worker = new Worker("/worker.js", { type: "module" });
  worker.addEventListener("message", ({ data }: MessageEvent<Report>) => void post({ ...data, page }));
  worker.addEventListener("error", ({ message }) => void post({ error: message }));
} catch (error) {
  void post({ error: String(error) });
}
