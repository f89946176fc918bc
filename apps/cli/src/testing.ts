import { AutoModelForCausalLM, Tokenizer } from "@neolog/models";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./run.ts";

/** What a command line did. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Surroundings {
  readonly tty?: boolean;
  readonly columns?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** See everything written, as it comes. */
  readonly onStdout?: (text: string) => void;
  readonly onStderr?: (text: string) => void;
}

/** Runs a command line in this process. */
export async function neolog(argv: readonly string[], at: Surroundings = {}): Promise<Ran> {
  const written = { stdout: "", stderr: "" };
  const sink = (name: "stdout" | "stderr") => ({
    write(text: string) {
      written[name] += text;
      (name === "stdout" ? at.onStdout : at.onStderr)?.(text);
      return true;
    },
    isTTY: at.tty ?? false,
    columns: at.columns,
  });
  const code = await run(argv, {
    stdout: sink("stdout"),
    stderr: sink("stderr"),
    env: at.env ?? {},
    signal: at.signal,
  });
  return { code, ...written };
}

/** `{ steps: 3, json: true }` → `--steps 3 --json` */
export const flags = (options: Readonly<Record<string, string | number | true>>): string[] =>
  Object.entries(options).flatMap(([name, value]) => (value === true ? [`--${name}`] : [`--${name}`, String(value)]));

/** A folder of its own that goes with the test. */
export async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "neolog-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Every file below a folder, relative to it, sorted. */
export const filesOf = async (dir: string): Promise<string[]> =>
  (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
    .toSorted();

/** Every file below a folder with its bytes, as text of a byte a character. */
export async function contentsOf(dir: string): Promise<Record<string, string>> {
  const files = await filesOf(dir);
  return Object.fromEntries(
    await Promise.all(files.map(async (file) => [file, (await readFile(join(dir, file))).toString("latin1")] as const)),
  );
}

/** GPT-2's printable stand-ins for the 256 bytes. */
function byteCharacters(): string[] {
  const printable = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : 256 + others++));
}

/** A token per byte, and an end token before them. `config` adds to tokenizer_config.json. */
export function byteTokenizer(config: Readonly<Record<string, unknown>> = {}): Tokenizer {
  const end = {
    id: 0,
    content: "<end>",
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const vocab = Object.fromEntries(["<end>", ...byteCharacters()].map((token, id) => [token, id]));
  const document = {
    version: "1.0",
    added_tokens: [end],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", vocab, merges: [] },
  };
  return new Tokenizer(
    JSON.stringify(document, null, 1),
    JSON.stringify({ eos_token: "<end>", pad_token: "<end>", ...config }),
  );
}

export const TINY_VOCABULARY = 257;

/** Writes a Llama with random weights and a byte tokenizer. */
export async function writeTinyModel(dir: string, { tied = true, hidden_size = 16 } = {}): Promise<string> {
  const model = AutoModelForCausalLM.fromConfig(
    {
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      vocab_size: TINY_VOCABULARY,
      hidden_size,
      intermediate_size: 2 * hidden_size,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 8,
      hidden_act: "silu",
      max_position_embeddings: 64,
      rms_norm_eps: 1e-5,
      rope_parameters: { rope_type: "default", rope_theta: 10_000 },
      tie_word_embeddings: tied,
      eos_token_id: 0,
      pad_token_id: 0,
    },
    { seed: 1, std: 0.2 },
  );
  await model.savePretrained(dir);
  await byteTokenizer().savePretrained(dir);
  return dir;
}

export const writeLines = (file: string, rows: readonly unknown[]): Promise<void> =>
  writeFile(file, rows.map((row) => `${typeof row === "string" ? row : JSON.stringify(row)}\n`).join(""));
