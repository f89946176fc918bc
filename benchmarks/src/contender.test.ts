import { describe, expect, test } from "vitest";
import type { Case } from "./case.ts";
import { Contender, type ContenderSpec } from "./contender.ts";
import { startAll } from "./contenders.ts";
import { parseOptions } from "./options.ts";
import { race } from "./race.ts";

const CASE: Case = { kernel: "add", shape: [2], amount: 24, roof: "addCached", unit: "ns/element", elements: 2 };

/** A contender whose whole program is given: what it says first, and what it answers to each line. */
const scripted = (name: string, first: string, answer = "null"): ContenderSpec => ({
  name,
  threads: 1,
  command: process.execPath,
  args: [
    "-e",
    `${first}; require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
       const request = JSON.parse(line);
       const reply = ${answer};
       if (reply) console.log(JSON.stringify(reply));
     });`,
  ],
});
const HELLO = `console.log('{"hello":{"name":"x","runtime":"r","vectorBits":128}}')`;
const answering = (name: string, elements: string, ns: number): ContenderSpec =>
  scripted(
    name,
    HELLO,
    `request.prepare ? { prepared: ${elements} } : request.release ? { released: true } : { ns: ${ns}, maxRss: 1 }`,
  );

async function started(spec: ContenderSpec): Promise<Contender> {
  const contender = await Contender.start(spec);
  if (!(contender instanceof Contender)) throw new Error(contender.skipped);
  return contender;
}

describe("a contender", () => {
  test("that misses a package is skipped with its reason", async () => {
    const spec = scripted("x", `console.log('{"missing":"not installed"}')`);
    expect(await Contender.start(spec)).toEqual({ skipped: "not installed" });
  });
  test("whose program is not there is skipped", async () => {
    const { skipped } = (await Contender.start({ ...scripted("x", ""), command: "no-such-program" })) as {
      skipped: string;
    };
    expect(skipped).toContain("ENOENT");
  });
  test("may print other lines", async () => {
    const contender = await started(scripted("x", `console.log("banner"); ${HELLO}`, `{ declined: true }`));
    expect(await contender.prepare(CASE)).toBeNull();
    contender.stop();
  });
  test("that ends instead of answering is an error, not a wait", async () => {
    const contender = await started(scripted("x", HELLO, "process.exit(3)"));
    await expect(contender.prepare(CASE)).rejects.toThrow("x: the process must go on, it ended");
  });
  test("that reports an error throws it", async () => {
    const contender = await started(scripted("x", HELLO, `{ error: "out of memory" }`));
    await expect(contender.prepare(CASE)).rejects.toThrow("x: out of memory");
    contender.stop();
  });
});

describe("a race", () => {
  const { options } = parseOptions(["--rounds", "3", "--sample", "1"]);

  test("takes one sample of each a round and leaves out who computes something else", async () => {
    const specs = [answering("a", "[1, 2]", 10), answering("wrong", "[1, 2.1]", 5), answering("b", "[1, 2.0001]", 20)];
    const contenders = await Promise.all(specs.map(started));
    const results = await race(CASE, contenders, options);
    for (const contender of contenders) contender.stop();
    expect(results.map(({ contender, ns }) => [contender.spec.name, ns])).toEqual([
      ["a", [10, 10, 10]],
      ["b", [20, 20, 20]],
    ]);
  });
  test("leaves out who fails while it is timed", async () => {
    const failing = scripted("b", HELLO, `request.prepare ? { prepared: [1] } : { error: "no gradient" }`);
    const contenders = await Promise.all([answering("a", "[1]", 10), failing].map(started));
    const results = await race(CASE, contenders, options);
    for (const contender of contenders) contender.stop();
    expect(results.map(({ contender, ns }) => [contender.spec.name, ns.length])).toEqual([["a", 3]]);
  });
  test("counts the first call where one takes many seconds", async () => {
    const contenders = await Promise.all([answering("a", "[1]", 11e9), answering("b", "[1]", 10)].map(started));
    const results = await race(CASE, contenders, { ...options, rounds: 2 });
    for (const contender of contenders) contender.stop();
    expect(results.map(({ ns }) => ns)).toEqual([
      [11e9, 11e9],
      [10, 10],
    ]);
  });
  test("takes one sample of who is far behind the first and takes many seconds", async () => {
    const contenders = await Promise.all([answering("a", "[1]", 1e9), answering("b", "[1]", 11e9)].map(started));
    const results = await race(CASE, contenders, { ...options, rounds: 2 });
    for (const contender of contenders) contender.stop();
    expect(results.map(({ ns }) => ns.length)).toEqual([2, 1]);
  });
  test("leaves out a result that is not a number", async () => {
    const contenders = await Promise.all([answering("a", "[1]", 10), answering("b", "[null]", 10)].map(started));
    const results = await race(CASE, contenders, options);
    for (const contender of contenders) contender.stop();
    expect(results.map(({ contender }) => contender.spec.name)).toEqual(["a"]);
  });
});

test("contenders are asked for by their names, or by a part that no whole name is", async () => {
  const specs = ["neolog", "neolog, first epoch", "PEFT on torch"].map((name) => answering(name, "[1]", 1));
  const namesOf = async (...only: string[]): Promise<string[]> => {
    const contenders = await startAll(specs, { ...parseOptions([]).options, only });
    for (const contender of contenders) contender.stop();
    return contenders.map(({ spec }) => spec.name);
  };
  expect(await namesOf("neolog", "PEFT")).toEqual(["neolog", "PEFT on torch"]);
  expect(await namesOf("epoch")).toEqual(["neolog, first epoch"]);
});
