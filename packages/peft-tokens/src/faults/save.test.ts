import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { PeftModel, TrainableTokensConfig, getPeftModel } from "../index.ts";
import { caught, makeBase, setRows } from "../testing.ts";

/** Calls to the file system until one fails, and whether the process is then as dead. */
const fault = vi.hoisted(() => ({ after: Infinity, dead: false, killed: false }));
vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof import("node:fs/promises")>();
  const failing =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      if (fault.dead || fault.after-- === 0) {
        fault.dead = fault.killed;
        throw Object.assign(new Error("EIO: disk on fire"), { code: "EIO" });
      }
      return call(...args);
    };
  const open = failing(async (...args: Parameters<typeof real.open>) => {
    const file = await real.open(...args);
    return {
      writeFile: failing((data: Uint8Array) => file.writeFile(data)),
      sync: failing(() => file.sync()),
      close: () => file.close(),
    };
  });
  const { rename, mkdir } = real;
  return {
    ...real,
    open,
    rename: failing(rename),
    mkdir: failing(mkdir),
    rm: failing(real.rm),
    rmdir: failing(real.rmdir),
  };
});

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "neolog-faults-"));
});
afterEach(() => Object.assign(fault, { after: Infinity, dead: false }));
afterAll(() => rm(root, { recursive: true }));

/** Two adapters, of other ids and rows for each `seed`. */
function peftOf(seed: number): PeftModel {
  const options = { onWarning: () => {} };
  const peft = getPeftModel(makeBase("llama tied"), new TrainableTokensConfig({ token_indices: [seed, 5] }), options);
  peft.addAdapter("second", new TrainableTokensConfig({ token_indices: [seed + 1, 7] }));
  for (const name of ["default", "second"]) setRows(peft, name, (slot, column) => seed + slot / 2 + column / 8);
  return peft;
}
/** Every file but those that nobody reads: under temporary names. */
async function contents(dir: string): Promise<Map<string, string>> {
  const files = (await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => [])).filter((f) =>
    f.isFile(),
  );
  const named = files.filter((f) => !/\.(tmp|old)$/.test(f.name)).map((f) => join(f.parentPath, f.name));
  return new Map(
    await Promise.all(named.map(async (f) => [f.slice(dir.length + 1), await readFile(f, "latin1")] as const)),
  );
}

describe.each([true, false])("a save over an earlier one (%s), failing at each step in turn,", (replaces) => {
  /** A folder with the old state, or none, and what it holds. */
  async function prepared(name: string): Promise<{ dir: string; old: Map<string, string> }> {
    const dir = join(root, name);
    if (replaces) await peftOf(1).savePretrained(dir);
    return { dir, old: await contents(dir) };
  }

  test("leaves the old state", async () => {
    fault.killed = false;
    const { dir, old } = await prepared(`fails-${replaces}`);
    const fresh = peftOf(2);
    for (let step = 0; ; step++) {
      fault.after = step;
      const failed = await fresh.savePretrained(dir).then(
        () => false,
        () => true,
      );
      fault.after = Infinity;
      if (!failed) {
        expect(step).toBeGreaterThan(15);
        break;
      }
      expect(await contents(dir), `step ${step}`).toEqual(old);
      const left = await readdir(dir, { recursive: true }).catch(() => []);
      expect(
        left.filter((file) => /\.(tmp|old)$/.test(file)),
        `step ${step}`,
      ).toEqual([]);
    }
    expect(await contents(dir)).not.toEqual(old);
  });

  test("and killed there, leaves each adapter old, new, or absent", async () => {
    fault.killed = true;
    const whole = await prepared(`whole-${replaces}`);
    await peftOf(2).savePretrained(whole.dir);
    const recent = await contents(whole.dir);
    const states = new Set<string>();
    for (let step = 0, done = false; !done; step++) {
      const { dir, old } = await prepared(`killed-${replaces}-${step}`);
      Object.assign(fault, { after: step, dead: false });
      done = await peftOf(2)
        .savePretrained(dir)
        .then(
          () => true,
          () => false,
        );
      Object.assign(fault, { after: Infinity, dead: false });
      const now = await contents(dir);
      for (const folder of ["", "second/"]) {
        const is = (state: Map<string, string>): boolean =>
          ["adapter_config.json", "adapter_model.safetensors"].every(
            (file) => now.get(folder + file) === state.get(folder + file),
          );
        if (is(recent) || (replaces && is(old))) {
          states.add(is(recent) ? "new" : "old");
          continue;
        }
        states.add("absent");
        const subfolder = folder.slice(0, -1);
        const base = makeBase("llama tied");
        const error = await caught(() => PeftModel.fromPretrained(base, dir, { ...(subfolder && { subfolder }) }));
        expect(error, `step ${step}`).toMatchObject({ name: "CheckpointError", code: "NOT_FOUND" });
      }
    }
    expect([...states].toSorted()).toEqual(replaces ? ["absent", "new", "old"] : ["absent", "new"]);
  });
});
