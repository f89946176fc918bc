import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type FileContent, writeFolder } from "./writeFolder.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "neolog-write-"));
});
afterEach(() => rm(root, { recursive: true }));

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const tree = async (): Promise<string[]> => (await readdir(root, { recursive: true })).toSorted();

async function* pieces(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield bytes(text);
}
async function* failing(): AsyncGenerator<Uint8Array> {
  yield bytes("half");
  throw new Error("disk on fire");
}

describe("writeFolder", () => {
  test("writes bytes, text and streams, creating folders and replacing files", async () => {
    await mkdir(join(root, "out"));
    await writeFile(join(root, "out", "a.bin"), "old and longer");
    const files = new Map<string, FileContent>([
      ["a.bin", bytes("new")],
      ["second/config.json", "{}"],
      ["b.bin", pieces("one ", "two")],
      ["empty", new Uint8Array(0)],
    ]);
    await writeFolder(join(root, "out"), files);
    expect(await tree()).toEqual([
      "out",
      "out/a.bin",
      "out/b.bin",
      "out/empty",
      "out/second",
      "out/second/config.json",
    ]);
    expect(await readFile(join(root, "out", "a.bin"), "utf8")).toBe("new");
    expect(await readFile(join(root, "out", "b.bin"), "utf8")).toBe("one two");
  });

  test("a failure leaves everything as it was", async () => {
    await mkdir(join(root, "out"));
    await writeFile(join(root, "out", "a.bin"), "old");
    const files = new Map<string, FileContent>([
      ["a.bin", "new"],
      ["second/deep/b.bin", "new"],
      ["c.bin", failing()],
    ]);
    await expect(writeFolder(join(root, "out"), files)).rejects.toThrow("disk on fire");
    await expect(writeFolder(join(root, "other", "out"), new Map([["c.bin", failing()]]))).rejects.toThrow();
    expect(await tree()).toEqual(["out", "out/a.bin"]);
    expect(await readFile(join(root, "out", "a.bin"), "utf8")).toBe("old");
  });

  test("obsolete files go once the new ones are there, and stay when writing fails", async () => {
    const obsolete = (file: string): boolean => file.endsWith(".bin");
    const target = join(root, "out");
    await writeFolder(
      target,
      new Map([
        ["a.bin", "old"],
        ["b.bin", "old"],
        ["kept", "old"],
      ]),
    );
    await expect(writeFolder(target, new Map([["b.bin", failing()]]), { obsolete })).rejects.toThrow("disk on fire");
    expect(await tree()).toEqual(["out", "out/a.bin", "out/b.bin", "out/kept"]);
    await writeFolder(target, new Map([["b.bin", "new"]]), { obsolete });
    expect(await tree()).toEqual(["out", "out/b.bin", "out/kept"]);
    expect(await readFile(join(target, "b.bin"), "utf8")).toBe("new");
    const memory = new Map([
      ["a.bin", bytes("old")],
      ["kept", bytes("old")],
    ]);
    await writeFolder(memory, new Map([["b.bin", "new"]]), { obsolete });
    expect([...memory.keys()]).toEqual(["kept", "b.bin"]);
  });

  test("a file where a folder must be, and a folder where a file must be", async () => {
    const file = join(root, "file");
    await writeFile(file, "");
    await mkdir(join(root, "out", "b.bin"), { recursive: true });
    const before = await tree();
    for (const target of [file, join(file, "sub")]) {
      await expect(writeFolder(target, new Map([["a", "x"]]))).rejects.toMatchObject({
        code: "IS_FILE",
        message: `${file}: must be a folder to write to, found a file`,
      });
    }
    const files = new Map([
      ["a.bin", "x"],
      ["b.bin", "x"],
    ]);
    await expect(writeFolder(join(root, "out"), files)).rejects.toMatchObject({
      code: "IS_FILE",
      message: `${join(root, "out", "b.bin")}: must be a file to write to, found a folder`,
    });
    expect(await tree()).toEqual(before);
  });

  test.each(["../a", "/a", "a//b", "", ".", "a/../../b", "c:\\a"])("refuses the name %j", async (name) => {
    await expect(writeFolder(join(root, "out"), new Map([[name, "x"]]))).rejects.toMatchObject({ code: "UNEXPECTED" });
    expect(await tree()).toEqual([]);
  });

  test("files in memory are set all or none", async () => {
    const target = new Map([["a", bytes("old")]]);
    const files = new Map<string, FileContent>([
      ["a", "new"],
      ["b", failing()],
    ]);
    await expect(writeFolder(target, files)).rejects.toThrow("disk on fire");
    expect(target).toEqual(new Map([["a", bytes("old")]]));
    await writeFolder(
      target,
      new Map<string, FileContent>([
        ["a", "new"],
        ["b", pieces("one ", "two")],
      ]),
    );
    expect(target).toEqual(
      new Map([
        ["a", bytes("new")],
        ["b", bytes("one two")],
      ]),
    );
  });
});
