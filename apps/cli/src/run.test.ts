import { describe, expect, test } from "vitest";
import { neolog, temporaryFolder, writeLines, writeTinyModel } from "./testing.ts";

const COMMANDS = ["demo", "train", "eval", "forward", "generate", "merge", "inspect"];
const ESCAPE = new RegExp(`${String.fromCharCode(27)}\\[`);

describe("neolog", () => {
  test("lists every command", async () => {
    const { code, stdout, stderr } = await neolog(["--help"]);
    expect(code).toBe(0);
    expect(stderr).toBe("");
    for (const command of COMMANDS) expect(stdout).toContain(`\n  ${command} `);
  });

  test.each(COMMANDS)("%s --help names the flags of every command and shows examples", async (command) => {
    const { code, stdout } = await neolog([command, "--help"]);
    expect(code).toBe(0);
    for (const part of ["--json", "--quiet", "--help", "Examples:", `$ neolog ${command}`])
      expect(stdout).toContain(part);
  });

  test("help fits the terminal", async () => {
    const { stdout } = await neolog(["train", "--help"], { tty: true, columns: 60 });
    const [options] = stdout.split("Examples:");
    for (const line of options!.split("\n")) expect(line.length).toBeLessThanOrEqual(60);
  });

  test.each([
    [[], "Usage: neolog"],
    [["trian"], "error: unknown command 'trian' (Did you mean train?)"],
    [["inspect"], "error: missing required argument 'dir'"],
    [["generate", "--model", "m"], "error: required option '--prompt <text>' not specified"],
    [["inspect", "m", "--jsno"], "error: unknown option '--jsno' (Did you mean --json?)"],
    [
      ["eval", "--model", "m", "--data", "d", "extra"],
      "error: too many arguments for 'eval'. Expected 0 arguments but got 1.",
    ],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o"],
      "error: train: --tokens or --token-indices must say which rows train, got neither",
    ],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o", "--tokens", "a", "--token-indices", "1"],
      "cannot be used with",
    ],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o", "--token-indices", "1,1"],
      "Each must be named once, got 1 again.",
    ],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o", "--token-indices", ""],
      "It must be a whole number, 0 or more.",
    ],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o", "--token-indices", "1.5"],
      "It must be a whole number, 0 or more.",
    ],
    [["train", "--model", "m", "--data", "d", "--out", "o", "--tokens", "a,,b"], "Tokens must not be empty."],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o", "--tokens", "a", "--steps", "0"],
      "It must be a whole number, 1 or more.",
    ],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o", "--tokens", "a", "--lr", "fast"],
      "It must be a number above 0.",
    ],
    [
      ["train", "--model", "m", "--data", "d", "--out", "o", "--tokens", "a", "--schedule", "sine"],
      "Allowed choices are constant, linear, cosine.",
    ],
  ])("%j is wrong usage", async (argv, message) => {
    const { code, stdout, stderr } = await neolog(argv);
    expect(code).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(message);
    if (argv.length > 0) expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });

  test("an error of ours shows its stack only with NEOLOG_DEBUG", async () => {
    const quiet = await neolog(["inspect", "/nowhere/at/all"]);
    expect(quiet).toMatchObject({ code: 1, stdout: "" });
    expect(quiet.stderr).toMatch(/^error: \/nowhere\/at\/all: must be a folder .*\n$/);
    const loud = await neolog(["inspect", "/nowhere/at/all"], { env: { NEOLOG_DEBUG: "1" } });
    expect(loud.stderr).toMatch(/\n +at /);
  });
});

describe("output", () => {
  test("escape codes are for terminals without NO_COLOR", async () => {
    await using folder = await temporaryFolder();
    const model = await writeTinyModel(`${folder.path}/model`);
    await writeLines(`${folder.path}/data.jsonl`, [{ text: "the wug says moo" }]);
    const argv = (out: string): string[] => [
      "train",
      "--model",
      model,
      "--data",
      `${folder.path}/data.jsonl`,
      "--tokens",
      "wug",
      "--steps",
      "3",
      "--out",
      `${folder.path}/${out}`,
    ];
    const piped = await neolog(argv("a"));
    expect(piped.stdout + piped.stderr).not.toMatch(ESCAPE);
    const terminal = await neolog(argv("b"), { tty: true, columns: 80 });
    expect(terminal.stderr).toMatch(ESCAPE);
    const failed = await neolog(["inspect", "/nowhere"], { tty: true });
    expect(failed.stderr).toMatch(ESCAPE);
    const plain = await neolog(["inspect", "/nowhere"], { tty: true, env: { NO_COLOR: "1" } });
    expect(plain.stderr).not.toMatch(ESCAPE);
  });

  test("--json prints one object on stdout and nothing else", async () => {
    await using folder = await temporaryFolder();
    const model = await writeTinyModel(`${folder.path}/model`);
    const { stdout, code } = await neolog([
      "generate",
      "--model",
      model,
      "--prompt",
      "hi",
      "--max-new-tokens",
      "3",
      "--json",
    ]);
    expect(code).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    expect(Object.keys(JSON.parse(stdout))).toEqual(["text", "ids", "tokens_per_second", "backend"]);
  });

  test("--quiet leaves the result", async () => {
    await using folder = await temporaryFolder();
    const model = await writeTinyModel(`${folder.path}/model`);
    await writeLines(`${folder.path}/data.jsonl`, [{ text: "the wug says moo" }]);
    const { stdout, stderr } = await neolog([
      "train",
      "--model",
      model,
      "--data",
      `${folder.path}/data.jsonl`,
      "--tokens",
      "wug",
      "--steps",
      "2",
      "--out",
      `${folder.path}/out`,
      "--quiet",
    ]);
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^wrote .*\n$/);
  });
});
