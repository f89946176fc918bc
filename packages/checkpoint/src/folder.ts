import { CheckpointError } from "./errors.ts";
import { blobSource } from "./source/browser.ts";
import { httpSource } from "./source/http.ts";
import { fileSource } from "./source/node.ts";
import { type ByteSource, memorySource } from "./source/source.ts";

/** A place with named files. */
export interface Folder {
  readonly name: string;
  has(file: string): Promise<boolean>;
  /** Throws CheckpointError NOT_FOUND. */
  open(file: string): Promise<ByteSource>;
}

/** A directory path, a URL base, a directory handle of the browser, or files in memory by name. */
export type FolderSource = string | ReadonlyMap<string, Uint8Array> | FileSystemDirectoryHandle;

/** Opens a folder for reading. Throws CheckpointError NOT_FOUND or IS_FILE for a path that is no directory. */
export async function openFolder(source: FolderSource): Promise<Folder> {
  if (typeof source !== "string") return isFiles(source) ? memoryFolder(source) : handleFolder(source);
  return /^https?:\/\//.test(source) ? urlFolder(source) : diskFolder(source);
}

/** A whole file. */
export async function readBytes(folder: Folder, file: string): Promise<Uint8Array> {
  const source = await folder.open(file);
  try {
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}

/** A whole file as UTF-8 text. */
export const readText = async (folder: Folder, file: string): Promise<string> =>
  new TextDecoder().decode(await readBytes(folder, file));

const isFiles = (source: object): source is ReadonlyMap<string, Uint8Array> => source instanceof Map;

function missing(folder: string, file: string): CheckpointError {
  return new CheckpointError("NOT_FOUND", `${folder}: must hold ${file}, found none`, { folder, file });
}

function memoryFolder(files: ReadonlyMap<string, Uint8Array>): Folder {
  const name = "files in memory";
  return {
    name,
    has: async (file) => files.has(file),
    async open(file) {
      const bytes = files.get(file);
      if (!bytes) throw missing(name, file);
      return memorySource(file, bytes);
    },
  };
}

async function diskFolder(path: string): Promise<Folder> {
  const { stat } = await import("node:fs/promises");
  const { join } = await import("node:path");
  const found = await stat(path).catch(() => null);
  if (!found) throw new CheckpointError("NOT_FOUND", `${path}: must be a folder, found nothing`, { folder: path });
  if (!found.isDirectory())
    throw new CheckpointError("IS_FILE", `${path}: must be a folder, found a file`, { folder: path });
  const isFile = async (file: string): Promise<boolean> =>
    stat(join(path, file)).then(
      (entry) => entry.isFile(),
      () => false,
    );
  return {
    name: path,
    has: isFile,
    async open(file) {
      if (!(await isFile(file))) throw missing(path, file);
      return fileSource(join(path, file));
    },
  };
}

function urlFolder(base: string): Folder {
  const urlOf = (file: string): string => `${base.replace(/\/$/, "")}/${file}`;
  return {
    name: base,
    has: async (file) => (await fetch(urlOf(file), { method: "HEAD" })).ok,
    open: async (file) => httpSource(urlOf(file)),
  };
}

function handleFolder(handle: FileSystemDirectoryHandle): Folder {
  const fileOf = async (file: string): Promise<File | null> => {
    const parts = file.split("/");
    let folder = handle;
    for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
    return folder.getFileHandle(parts.at(-1)!).then(
      (entry) => entry.getFile(),
      () => null,
    );
  };
  return {
    name: handle.name,
    has: async (file) => (await fileOf(file).catch(() => null)) !== null,
    async open(file) {
      const blob = await fileOf(file);
      if (!blob) throw missing(handle.name, file);
      return blobSource(file, blob);
    },
  };
}
