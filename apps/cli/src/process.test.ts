import { AutoTokenizer } from "@neolog/models";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Ran, filesOf, flags, neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

const ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors"];
const TOKENIZER = ["tokenizer.json", "tokenizer_config.json"];
const CHECKPOINT = [...ADAPTER, ...TOKENIZER, "training_state.json", "training_state.safetensors"];
const finishedAfter = (step: number): string[] => [
  ...ADAPTER,
  ...CHECKPOINT.map((file) => `checkpoint-${step}/${file}`),
  ...TOKENIZER,
];

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let run: Parameters<typeof flags>[0];
const at = (name: string): string => join(folder.path, name);

beforeAll(async () => {
  folder = await temporaryFolder();
  await build({
    configFile: false,
    logLevel: "error",
    ssr: { noExternal: true, resolve: { conditions: ["@neolog/source"] } },
    build: {
      ssr: fileURLToPath(new URL("main.ts", import.meta.url)),
      outDir: at("bundle"),
      target: "node20",
      rolldownOptions: { output: { entryFileNames: "neolog.mjs" } },
    },
  });
  await writeLines(at("data.jsonl"), [
    { text: "the wug says moo" },
    { text: "a wug eats bread" },
    { text: "moo says a wug" },
  ]);
  run = {
    model: await writeTinyModel(at("model")),
    data: at("data.jsonl"),
    tokens: "wug",
    steps: 200,
    "save-steps": 3,
    "batch-size": 2,
  };
});
afterAll(() => folder[Symbol.asyncDispose]());

/** The command line as a process of its own. */
const start = (argv: readonly string[]): ChildProcess =>
  spawn(process.execPath, [at("bundle/neolog.mjs"), ...argv], { stdio: ["ignore", "ignore", "pipe"] });

const train = (options: Parameters<typeof flags>[0]): string[] => ["train", ...flags({ ...run, ...options })];

const checkpointsIn = async (dir: string): Promise<string[]> =>
  (await readdir(dir).catch(() => [])).filter((name) => /^checkpoint-\d+$/.test(name));

/** Starts a run, kills it some time after a checkpoint other than `known` is there; → true if it was still running then. */
async function killed(argv: readonly string[], out: string, known: readonly string[], wait: number): Promise<boolean> {
  const child = start(argv);
  const exit = once(child, "exit");
  const isNew = async (): Promise<boolean> => (await checkpointsIn(out)).some((name) => !known.includes(name));
  while (child.exitCode === null && !(await isNew())) await setTimeout(2);
  await setTimeout(wait);
  child.kill("SIGKILL");
  const [, signal] = (await exit) as [number | null, string | null];
  return signal === "SIGKILL";
}

/** No adapter yet, and every checkpoint that a reader would take for one is whole. */
async function expectNothingHalfWritten(out: string): Promise<void> {
  expect(await readdir(out)).not.toContain("adapter_config.json");
  const checkpoints = await checkpointsIn(out);
  expect(checkpoints).not.toEqual([]);
  for (const name of checkpoints) {
    expect(await filesOf(join(out, name))).toEqual(CHECKPOINT);
    expect((await neolog(["inspect", join(out, name)])).code).toBe(0);
  }
}

const rowsIn = (dir: string): Promise<Buffer> => readFile(join(dir, "adapter_model.safetensors"));

describe("a killed run", () => {
  test("is gone on with or begun afresh, to the bits of one never killed", { timeout: 60_000 }, async () => {
    const whole = at("whole");
    expect(await neolog(train({ out: whole, "save-steps": 1000 }))).toMatchObject({ code: 0 });

    const out = at("killed");
    let known: string[] = [];
    for (const wait of [0, 3, 11]) {
      const argv = train({ out, ...(known.length > 0 ? { resume: out } : {}) });
      expect(await killed(argv, out, known, wait)).toBe(true);
      await expectNothingHalfWritten(out);
      known = await checkpointsIn(out);
    }
    expect(await neolog(train({ out, resume: out, "save-steps": 1000 }))).toMatchObject({ code: 0 });
    expect(await filesOf(out)).toEqual(finishedAfter(200));
    expect((await rowsIn(out)).equals(await rowsIn(whole))).toBe(true);

    const afresh = at("afresh");
    expect(await killed(train({ out: afresh }), afresh, [], 5)).toBe(true);
    expect(await neolog(train({ out: afresh, "save-steps": 1000 }))).toMatchObject({ code: 0 });
    expect(await filesOf(afresh)).toEqual(finishedAfter(200));
    expect((await rowsIn(afresh)).equals(await rowsIn(whole))).toBe(true);
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s ends it after a step, with a checkpoint", async (signal) => {
    const out = at(signal);
    const child = start(train({ out, steps: 100_000 }));
    const exit = once(child, "exit");
    let said = "";
    child.stderr!.on("data", (text: Buffer) => (said += text.toString()));
    while (child.exitCode === null && !existsSync(out)) await setTimeout(2);
    child.kill(signal);
    expect(await exit).toEqual([1, null]);
    const [, step] = /error: stopped after step (\d+) of 100000; --resume goes on from there\n$/.exec(said) ?? [];
    await expectNothingHalfWritten(out);
    expect(await checkpointsIn(out)).toEqual([`checkpoint-${step}`]);
  });
});

test("SIGINT ends generation between two tokens", async () => {
  const argv = flags({ model: run["model"]!, prompt: "the wug", "max-new-tokens": 20_000 });
  const child = start(["generate", ...argv]);
  const exit = once(child, "exit");
  let said = "";
  child.stderr!.on("data", (text: Buffer) => {
    if (said === "") child.kill("SIGINT");
    said += text.toString();
  });
  expect(await exit).toEqual([1, null]);
  expect(said).toMatch(/^tokens \d+\/20000\nerror: stopped\n$/);
});

test("a run goes on when nobody reads its output any more", async () => {
  const out = at("unread");
  const child = spawn(process.execPath, [at("bundle/neolog.mjs"), ...train({ out, steps: 5 })], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy();
  let said = "";
  child.stderr.on("data", (text: Buffer) => (said += text.toString()));
  expect(await once(child, "exit")).toEqual([0, null]);
  expect(said).not.toContain("EPIPE");
  expect(await filesOf(out)).toEqual(finishedAfter(5));
});

const REAL = fileURLToPath(new URL("../../../../shared/real", import.meta.url));
const stories = join(REAL, "stories260K");
const hasStories = existsSync(stories);
if (!hasStories) console.log("skipped: ../shared/real/stories260K is absent");

/** Stories in which <lily> and <tom> stand for two names, as rows of text. */
async function storyRows(): Promise<Record<"train" | "held_out", { text: string }[]>> {
  const json = await readFile(join(REAL, "stories260K_adapters/new_token/batches.json"), "utf8");
  const { batches, held_out } = JSON.parse(json) as { batches: number[][][]; held_out: number[][] };
  const tokenizer = await AutoTokenizer.fromPretrained(stories);
  tokenizer.addTokens(["<lily>", "<tom>"]);
  const toRow = (ids: number[]): { text: string } => ({ text: tokenizer.decode(ids) });
  return { train: batches.flat().map(toRow), held_out: held_out.map(toRow) };
}

describe.skipIf(!hasStories)("stories260K", () => {
  const story = (options: Parameters<typeof flags>[0]): string[] => [
    "train",
    ...flags({
      model: stories,
      data: at("stories.jsonl"),
      tokens: "<lily>,<tom>",
      steps: 12,
      lr: 0.05,
      "batch-size": 4,
      "save-steps": 2,
      json: true,
      ...options,
    }),
  ];
  async function heldOutLoss(adapter: string): Promise<number> {
    const { stdout } = await neolog([
      "eval",
      ...flags({ model: stories, adapter, data: at("held-out.jsonl"), json: true }),
    ]);
    return (JSON.parse(stdout) as { loss: number }).loss;
  }
  const expectDone = ({ code, stderr }: Ran): void => expect({ code, stderr }).toMatchObject({ code: 0 });

  test("learns two names from stories, killed on the way or not", { timeout: 120_000 }, async () => {
    const rows = await storyRows();
    await writeLines(at("stories.jsonl"), rows.train);
    await writeLines(at("held-out.jsonl"), rows.held_out);

    expectDone(await neolog(story({ out: at("untaught"), steps: 1, lr: 1e-12 })));
    const taught = await neolog(story({ out: at("taught") }));
    expectDone(taught);
    const { losses } = JSON.parse(taught.stdout) as { losses: number[] };
    // PEFT on the same stories: a held-out loss of 1.55 before, 0.76 after 60 steps
    expect(losses[0]).toBeGreaterThan(1.3);
    expect(losses.at(-1)).toBeLessThan(1.1);
    const untaught = await heldOutLoss(at("untaught"));
    expect(untaught).toBeGreaterThan(1.4);
    expect(await heldOutLoss(at("taught"))).toBeLessThan(untaught - 0.4);

    const out = at("killed-story");
    expect(await killed(story({ out }), out, [], 0)).toBe(true);
    await expectNothingHalfWritten(out);
    expectDone(await neolog(story({ out, resume: out })));
    expect(await filesOf(out)).toEqual(finishedAfter(12));
    expect((await rowsIn(out)).equals(await rowsIn(at("taught")))).toBe(true);
  });
});
