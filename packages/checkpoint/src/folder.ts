import { CheckpointError } from "./errors.ts";
import { blobSource } from "./source/browser.ts";
import { httpHas, httpSource } from "./source/http.ts";
import { fileSource } from "./source/node.ts";
import { type ByteSource, memorySource } from "./source/source.ts";

/** A place with named files; names may lead into sub-folders, with "/" between the parts. */
export interface Folder {
  /** For messages. */
  readonly name: string;
  has(file: string): Promise<boolean>;
  /** Throws CheckpointError NOT_FOUND. */
  open(file: string): Promise<ByteSource>;
  /** A whole file. Throws CheckpointError NOT_FOUND. */
  readBytes(file: string): Promise<Uint8Array>;
  /** A whole file as UTF-8 text. Throws CheckpointError NOT_FOUND, or CORRUPT when it is not UTF-8. */
  readText(file: string): Promise<string>;
  /** The names of the files directly inside, sorted. Throws CheckpointError NOT_FOUND where a URL cannot be listed. */
  list(): Promise<string[]>;
}

/** What the browser's FileSystemDirectoryHandle offers of use here. */
export interface DirectoryHandle {
  readonly name: string;
  getFileHandle(name: string): Promise<{ getFile(): Promise<Blob> }>;
  getDirectoryHandle(name: string): Promise<DirectoryHandle>;
  values(): AsyncIterable<{ readonly kind: "file" | "directory"; readonly name: string }>;
}

/** A directory path, a URL base, a directory handle of the browser, or files by name, in memory or picked on a page. */
export type FolderSource = string | URL | ReadonlyMap<string, Uint8Array | Blob> | DirectoryHandle;

/** Opens a folder for reading. Throws CheckpointError NOT_FOUND or IS_FILE for a path that is no directory. */
export async function openFolder(source: FolderSource): Promise<Folder> {
  if (source instanceof URL)
    return source.protocol === "file:" ? diskFolder(await pathOf(source)) : urlFolder(source.href);
  if (typeof source === "string") return /^https?:\/\//.test(source) ? urlFolder(source) : diskFolder(source);
  return "getFileHandle" in source ? handleFolder(source) : mapFolder(source);
}

/** A whole file of a folder. */
export async function readBytes(folder: Pick<Folder, "open">, file: string): Promise<Uint8Array> {
  const source = await folder.open(file);
  try {
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}

/** A whole file of a folder as UTF-8 text. Throws CheckpointError CORRUPT for other encodings. */
export async function readText(folder: Pick<Folder, "name" | "open">, file: string): Promise<string> {
  const bytes = await readBytes(folder, file);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CheckpointError("CORRUPT", `${folder.name}/${file}: must be UTF-8 text, found other bytes`, { file });
  }
}

function folderOf(place: Pick<Folder, "name" | "has" | "open" | "list">): Folder {
  return {
    ...place,
    readBytes: (file) => readBytes(place, file),
    readText: (file) => readText(place, file),
  };
}

function mapFolder(files: ReadonlyMap<string, Uint8Array | Blob>): Folder {
  const name = "files in memory";
  return folderOf({
    name,
    has: async (file) => files.has(file),
    async open(file) {
      const content = files.get(file);
      if (!content) throw notInside(name, file);
      return content instanceof Blob ? blobSource(file, content) : memorySource(file, content);
    },
    list: async () => [...files.keys()].filter((file) => !file.includes("/")).toSorted(),
  });
}

async function diskFolder(root: string): Promise<Folder> {
  const { readdir, stat } = await import("node:fs/promises");
  const path = await import("node:path");
  const found = await stat(root).catch(() => null);
  if (!found) throw new CheckpointError("NOT_FOUND", `${root}: must be a folder, found nothing`, { folder: root });
  if (!found.isDirectory()) {
    throw new CheckpointError("IS_FILE", `${root}: must be a folder, found a file`, { folder: root });
  }
  const isFile = async (file: string): Promise<boolean> =>
    stat(path.join(root, file)).then(
      (entry) => entry.isFile(),
      () => false,
    );
  return folderOf({
    name: root,
    has: isFile,
    async open(file) {
      if (!(await isFile(file))) throw notInside(root, file);
      return fileSource(path.join(root, file));
    },
    async list() {
      const names = await readdir(root);
      const files = await Promise.all(names.map(isFile));
      return names.filter((_, i) => files[i]).toSorted();
    },
  });
}

function urlFolder(base: string): Folder {
  const urlOf = (file: string): string =>
    `${base.replace(/\/$/, "")}/${file.split("/").map(encodeURIComponent).join("/")}`;
  return folderOf({
    name: base,
    has: async (file) => httpHas(urlOf(file)),
    open: async (file) => httpSource(urlOf(file)),
    async list() {
      throw new CheckpointError("NOT_FOUND", `${base}: only a local folder can be listed, got a URL; name the file`, {
        folder: base,
      });
    },
  });
}

function handleFolder(handle: DirectoryHandle): Folder {
  const fileOf = async (file: string): Promise<Blob | null> => {
    const parts = file.split("/");
    try {
      let folder = handle;
      for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
      return await (await folder.getFileHandle(parts.at(-1)!)).getFile();
    } catch {
      return null;
    }
  };
  return folderOf({
    name: handle.name,
    has: async (file) => (await fileOf(file)) !== null,
    async open(file) {
      const blob = await fileOf(file);
      if (!blob) throw notInside(handle.name, file);
      return blobSource(`${handle.name}/${file}`, blob);
    },
    async list() {
      const files: string[] = [];
      for await (const entry of handle.values()) if (entry.kind === "file") files.push(entry.name);
      return files.toSorted();
    },
  });
}

const pathOf = async (url: URL): Promise<string> => (await import("node:url")).fileURLToPath(url);

const notInside = (folder: string, file: string): CheckpointError =>
  new CheckpointError("NOT_FOUND", `${folder}: must hold ${file}, found none`, { folder, file });
