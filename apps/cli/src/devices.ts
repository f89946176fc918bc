import { BackendError, defaultBackend } from "@neolog/tensor";
import { chooseBackend, openNamed } from "./backend.ts";
import { ALLOW_SOFTWARE, command } from "./command.ts";
import type { Io } from "./io.ts";
import { Output } from "./output.ts";
import { columns } from "./text.ts";

/** What --backend takes, best first. */
const NAMES = ["gpu:webgpu", "gpu:webgl2", "wasm", "cpu", "reference"] as const;

/** What a backend is here. */
export interface Device {
  /** As --backend takes it. */
  readonly name: string;
  readonly runs: boolean;
  /** Whether commands run on it that name none. */
  readonly chosen: boolean;
  /** What it is, or why it does not run. */
  readonly what: string;
  /** Absent where it does not run. */
  readonly info?: Readonly<Record<string, string | number | boolean>>;
}

/** neolog devices: what can compute here, and what would be chosen. */
export const devicesCommand = (io: Io) =>
  command("devices", "Show what can compute here, what a command would choose, and why.", [
    "devices",
    "devices --allow-software",
    "devices --json",
  ])
    .option(...ALLOW_SOFTWARE)
    .action(async (flags) => {
      const output = new Output(io, flags);
      await chooseBackend();
      const chosen = defaultBackend().name;
      const devices: Device[] = [];
      for (const name of NAMES) devices.push(await deviceOf(name, name === chosen, flags.allowSoftware));
      const because = whyChosen(chosen, devices);
      const rows = devices.map(({ name, runs, what }) => [name === chosen ? "→" : "", name, runs ? "runs" : "–", what]);
      output.result({ devices, chosen, because }, ...columns(rows), "", because);
    });

async function deviceOf(name: string, chosen: boolean, allowSoftware?: boolean): Promise<Device> {
  try {
    const { info } = await openNamed(name, allowSoftware);
    return { name, runs: true, chosen, what: described(name, info), info };
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    const refused = (error as { refused?: Readonly<Record<string, string>> }).refused;
    return { name, runs: false, chosen, what: refused ? Object.values(refused).join("; ") : error.message };
  }
}

function described(name: string, info: NonNullable<Device["info"]>): string {
  const { threads, threadsBecause, adapter } = info;
  if (adapter !== undefined) return String(adapter);
  if (name === "wasm") return `SIMD WebAssembly, ${String(threads)} threads: ${String(threadsBecause)}`;
  return name === "cpu" ? "plain JavaScript, one thread" : "float64, slow: what the others are compared with";
}

function whyChosen(chosen: string, devices: readonly Device[]): string {
  const gpu = devices.find(({ name, runs }) => runs && name.startsWith("gpu:"));
  const first =
    chosen === "wasm"
      ? "wasm is chosen: the fastest of those that give the same bytes on every machine"
      : `${chosen} is chosen: ${devices.find(({ name }) => name === "wasm")!.what}`;
  return gpu ? `${first}; --backend ${gpu.name} computes on ${gpu.what}` : first;
}
