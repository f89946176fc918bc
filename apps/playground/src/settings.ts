import { BACKENDS, type BackendChoice } from "./protocol.ts";

/** What the address of the page says after its #: a link to a page is a link to its settings. */
export interface Settings {
  readonly backend: BackendChoice;
  readonly steps: number;
}

const STEPS = 80;

/** Settings of `hash`; what is missing or cannot be is as by default. */
export function parseSettings(hash: string): Settings {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const steps = Number(given.get("steps"));
  return {
    backend: BACKENDS.find((name) => name === given.get("backend")) ?? "auto",
    steps: Number.isInteger(steps) && steps > 0 ? steps : STEPS,
  };
}

/** The shortest hash that gives these settings. */
export function formatSettings({ backend, steps }: Settings): string {
  const given = new URLSearchParams();
  if (backend !== "auto") given.set("backend", backend);
  if (steps !== STEPS) given.set("steps", String(steps));
  return given.size > 0 ? `#${given}` : "";
}

export const readSettings = (): Settings => parseSettings(location.hash);
export const writeSettings = (settings: Settings): void =>
  history.replaceState(null, "", formatSettings(settings) || location.pathname + location.search);
