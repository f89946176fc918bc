import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DirectoryHandle, type Folder, openFolder } from "./folder.ts";
import { fileSource } from "./source/node.ts";

const FILES = new Map([
  ["config.json", "{}"],
  ["empty", ""],
  ["second/é 1.bin", "0123456789"],
]);
const encode = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

let root: string;
const servers: ReturnType<typeof createServer>[] = [];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "neolog-folder-"));
  await mkdir(join(root, "second"));
  for (const [name, text] of FILES) await writeFile(join(root, name), text);
});
afterAll(async () => {
  for (const server of servers) server.close();
  await rm(root, { recursive: true });
});

/** Serves FILES below /model; answers ranges or ignores them. */
async function serve({ ranges }: { ranges: boolean }): Promise<string> {
  const server = createServer((request, response) => {
    const content = FILES.get(decodeURIComponent(request.url ?? "").replace("/model/", ""));
    if (content === undefined) return response.writeHead(404).end();
    const [, begin, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    if (!ranges || begin === undefined) return response.end(content);
    if (Number(begin) >= content.length)
      return response.writeHead(416, { "content-range": `bytes */${content.length}` }).end();
    const part = content.slice(Number(begin), Number(end) + 1);
    return response.writeHead(206, { "content-range": `bytes ${begin}-${end}/${content.length}` }).end(part);
  });
  servers.push(server);
  await new Promise<void>((listening) => void server.listen(0, "127.0.0.1", listening));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/model`;
}

/** A FileSystemDirectoryHandle over FILES, as a browser gives one. */
function handle(name: string, prefix = ""): DirectoryHandle {
  return {
    name,
    async getFileHandle(file) {
      const text = FILES.get(prefix + file);
      if (text === undefined) throw new Error("NotFoundError");
      return { getFile: async () => new Blob([text]) };
    },
    async getDirectoryHandle(folder) {
      return handle(folder, `${prefix}${folder}/`);
    },
    async *values() {
      yield { kind: "directory", name: "second" };
      for (const file of FILES.keys()) if (!file.includes("/")) yield { kind: "file", name: file };
    },
  };
}

const places: [name: string, open: () => Promise<Folder>, options?: { listed: boolean }][] = [
  ["a path", () => openFolder(root)],
  ["a file URL", () => openFolder(pathToFileURL(root))],
  ["bytes in memory", () => openFolder(new Map([...FILES].map(([name, text]) => [name, encode(text)])))],
  ["files picked on a page", () => openFolder(new Map([...FILES].map(([name, text]) => [name, new Blob([text])])))],
  ["a directory handle", () => openFolder(handle("model"))],
  ["a server with ranges", async () => openFolder(await serve({ ranges: true })), { listed: false }],
  ["a server without ranges", async () => openFolder(new URL(await serve({ ranges: false }))), { listed: false }],
];

describe.each(places)("the folder of %s", (_, open, { listed } = { listed: true }) => {
  test("reads files, whole and in parts", async () => {
    const folder = await open();
    expect(await folder.readText("config.json")).toBe("{}");
    expect(await folder.readBytes("empty")).toEqual(new Uint8Array(0));
    const source = await folder.open("second/é 1.bin");
    expect(source.size).toBe(10);
    expect(new TextDecoder().decode(await source.read(3, 4))).toBe("3456");
    expect(await source.read(10, 0)).toEqual(new Uint8Array(0));
    await source.close();
  });

  test("a read past the end says so", async () => {
    const source = await (await open()).open("second/é 1.bin");
    await expect(source.read(8, 4)).rejects.toMatchObject({
      code: "CORRUPT",
      message: expect.stringContaining("4 bytes must follow offset 8, found 2"),
    });
    await source.close();
  });

  test("knows what it holds", async () => {
    const folder = await open();
    expect(
      await Promise.all(["config.json", "second/é 1.bin", "second", "x", "x/y"].map((file) => folder.has(file))),
    ).toEqual([true, true, false, false, false]);
    await expect(folder.open("model.safetensors")).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringContaining("model.safetensors"),
    });
    if (listed) expect(await folder.list()).toEqual(["config.json", "empty"]);
    else await expect(folder.list()).rejects.toThrow("only a local folder can be listed");
  });
});

describe("a folder that is none", () => {
  test("nothing there", async () => {
    const path = join(root, "x");
    await expect(openFolder(path)).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: `${path}: must be a folder, found nothing`,
    });
  });
  test("a file", async () => {
    const path = join(root, "config.json");
    await expect(openFolder(path)).rejects.toMatchObject({
      code: "IS_FILE",
      message: `${path}: must be a folder, found a file`,
    });
  });
  test("a server that does not answer", async () => {
    const folder = await openFolder("http://127.0.0.1:1/model");
    for (const answer of [folder.open("config.json"), folder.has("config.json")]) {
      await expect(answer).rejects.toMatchObject({
        code: "NOT_FOUND",
        message: expect.stringMatching(/config\.json: must be readable, got /),
      });
    }
  });
});

test("fileSource refuses a folder and a missing file, and follows links", async () => {
  await expect(fileSource(root)).rejects.toThrow(`${root}: must be a readable file, found a folder`);
  await expect(fileSource(`${root}/x`)).rejects.toThrow(`${root}/x: must be a readable file, found nothing`);
  await symlink(join(root, "config.json"), join(root, "second", "link"));
  expect(await (await openFolder(join(root, "second"))).readText("link")).toBe("{}");
});
