import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { checkFileTarget, checkTarget, publish, writeFileAtomically } from "./publish.ts";
import { contentsOf, temporaryFolder } from "./testing.ts";

/** How many changes to the disk are still done; those after them fail, as all do once a process is killed. */
const disk = vi.hoisted(() => ({ changesLeft: Infinity }));

vi.mock("node:fs/promises", async (original) => {
  const fs = await original<typeof import("node:fs/promises")>();
  const mortal =
    <A extends unknown[], R>(change: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      if (disk.changesLeft-- <= 0) throw new Error("killed");
      return change(...args);
    };
  return {
    ...fs,
    rename: mortal(fs.rename),
    rm: mortal(fs.rm),
    mkdir: mortal(fs.mkdir),
    writeFile: mortal(fs.writeFile),
  };
});

const MARK = "adapter_config.json";
const OLD = { [MARK]: "old", "adapter_model.safetensors": "old rows", "tokenizer.json": "old tokens" };
const NEW = { [MARK]: "new", "adapter_model.safetensors": "new rows", "training_state.json": "new state" };

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let out: string;

beforeEach(async () => {
  folder = await temporaryFolder();
  out = join(folder.path, "deep", "out");
});
afterEach(async () => {
  disk.changesLeft = Infinity;
  await folder[Symbol.asyncDispose]();
});

const put = async (dir: string, files: Readonly<Record<string, string>>): Promise<void> => {
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
};
const publishNew = (): Promise<void> => publish(out, MARK, (dir) => put(dir, NEW));
/** The files of `out`, without what is hidden in it. */
const visible = async (): Promise<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(await contentsOf(out).catch(() => ({}))).filter(([name]) => !name.startsWith(".neolog-partial")),
  );

describe("publish", () => {
  test("makes the folder", async () => {
    await publishNew();
    expect(await contentsOf(folder.path)).toEqual(
      Object.fromEntries(Object.entries(NEW).map(([name, text]) => [`deep/out/${name}`, text])),
    );
  });

  test("replaces what was there before and keeps what is not ours", async () => {
    await mkdir(out, { recursive: true });
    await put(out, { ...OLD, "notes.txt": "mine" });
    await publishNew();
    expect(await contentsOf(out)).toEqual({ ...NEW, "notes.txt": "mine" });
  });

  test("leaves a tokenizer that belongs to other files", async () => {
    await mkdir(out, { recursive: true });
    await put(out, { "tokenizer.json": "of a model" });
    await publishNew();
    expect(await contentsOf(out)).toEqual({ ...NEW, "tokenizer.json": "of a model" });
  });

  test("changes nothing where writing fails", async () => {
    await mkdir(out, { recursive: true });
    await put(out, OLD);
    const failing = publish(out, MARK, async (dir) => {
      await put(dir, { "adapter_model.safetensors": "half" });
      throw new Error("disk full");
    });
    await expect(failing).rejects.toThrow("disk full");
    expect(await contentsOf(out)).toEqual(OLD);
    expect(await readdir(join(folder.path, "deep"))).toEqual(["out"]);
  });

  test.each(["nothing", "an older content"])(
    "killed at any moment over %s leaves all of one or no mark",
    async (over) => {
      const before = over === "nothing" ? {} : OLD;
      let kills = 0;
      for (let finished = false; !finished; kills++) {
        await using place = await temporaryFolder();
        out = join(place.path, "out");
        if (over !== "nothing") {
          await mkdir(out);
          await put(out, before);
        }
        disk.changesLeft = kills;
        finished = await publishNew().then(
          () => true,
          () => false,
        );
        disk.changesLeft = Infinity;
        const found = await visible();
        if (found[MARK] === "old") expect(found, `after ${kills} changes`).toEqual(OLD);
        else if (found[MARK] === "new") expect(found, `after ${kills} changes`).toEqual(NEW);
        else expect(found).not.toHaveProperty(MARK);

        await publishNew();
        expect(await contentsOf(place.path), `again after ${kills} changes`).toEqual(
          Object.fromEntries(Object.entries(NEW).map(([name, text]) => [`out/${name}`, text])),
        );
      }
      expect(kills).toBeGreaterThan(6);
    },
  );
});

describe("targets", () => {
  test("a file cannot become a folder, nor hold one", async () => {
    const file = join(folder.path, "file");
    await writeFile(file, "");
    await expect(checkTarget(file)).rejects.toThrow(`${file}: must be a folder to write to, found a file`);
    await expect(checkTarget(join(file, "out"))).rejects.toThrow(`${file}: must be a folder to write to, found a file`);
    await expect(checkFileTarget(join(file, "out"))).rejects.toThrow(`${file}: must be a folder`);
  });

  test("a folder cannot become a file", async () => {
    await expect(checkFileTarget(folder.path)).rejects.toThrow(
      `${folder.path}: must be a file to write to, found a folder`,
    );
  });

  test("a folder that is read is none", async () => {
    await expect(checkTarget(join(folder.path, "deep", ".."), "elsewhere", folder.path)).rejects.toThrow(
      /must be another folder than those read/,
    );
    await expect(checkTarget(out, folder.path)).resolves.toBeUndefined();
  });

  test("a file killed while it is written leaves the old one", async () => {
    const file = join(folder.path, "logits.safetensors");
    await writeFile(file, "old");
    for (const changes of [0, 1, 2]) {
      disk.changesLeft = changes;
      await expect(writeFileAtomically(file, Buffer.from("new"))).rejects.toThrow("killed");
      expect(await readFile(file, "utf8")).toBe("old");
    }
    disk.changesLeft = Infinity;
    await writeFileAtomically(file, Buffer.from("new"));
    expect(await contentsOf(folder.path)).toEqual({ "logits.safetensors": "new" });
  });
});
