import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, readlink, rm, writeFile } from "node:fs/promises";
import { type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { neolog, temporaryFolder, writeTinyModel } from "./testing.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const REPO = "org/tiny";
const VARIABLES = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_TOKEN", "HF_HUB_OFFLINE"];

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let cache: string;
let hub: MockHub;
beforeEach(async () => {
  folder = await temporaryFolder();
  cache = join(folder.path, "cache");
  hub = await mockHub(await modelFiles());
  for (const name of VARIABLES) vi.stubEnv(name, undefined);
  vi.stubEnv("HF_HUB_CACHE", cache);
  vi.stubEnv("HF_ENDPOINT", hub.url);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  hub.server.closeAllConnections();
  hub.server.close();
  await folder[Symbol.asyncDispose]();
});

/** Files of a tiny model, with one that no program of ours reads. */
async function modelFiles(): Promise<Map<string, Buffer>> {
  const dir = await writeTinyModel(join(folder.path, "model"));
  const names = await readdir(dir);
  const files = await Promise.all(names.map(async (name) => [name, await readFile(join(dir, name))] as const));
  return new Map<string, Buffer>([...files, ["README.md", Buffer.from("# Tiny")]]);
}

interface MockHub {
  readonly url: string;
  readonly server: Server;
  readonly files: Map<string, Buffer>;
  /** What it sends instead of a file that it lists. */
  readonly served: Map<string, Buffer>;
  readonly requests: string[];
  /** Bytes of a file after which the connection breaks off. */
  breakAfter: number;
  /** What it asks for, if anything. */
  token: string | null;
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
const gitOid = (bytes: Buffer): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** What the Hub answers, as far as a download asks; safetensors are large files. */
async function mockHub(files: Map<string, Buffer>): Promise<MockHub> {
  const server = createServer((request, response) => {
    const url = new URL(request.url!, "http://hub");
    const path = decodeURIComponent(url.pathname);
    mock.requests.push(`${path}${request.headers.range ? ` ${request.headers.range}` : ""}`);
    const json = (value: unknown, status = 200): void => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
    };
    if (mock.token && request.headers.authorization !== `Bearer ${mock.token}`)
      return json({ error: "Access to this model is restricted" }, 401);
    if (/^\/api\/models\/org\/tiny\/revision\/(main|v1)$/.test(path)) return json({ _id: "1", id: REPO, sha: COMMIT });
    if (path === `/api/models/${REPO}/tree/${COMMIT}`) {
      return json([
        { type: "directory", path: "onnx", size: 0, oid: "0".repeat(40) },
        ...[...files].map(([name, bytes]) => ({
          type: "file",
          path: name,
          size: bytes.length,
          oid: gitOid(bytes),
          ...(name.endsWith(".safetensors") ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 1 } } : {}),
        })),
      ]);
    }
    const name = path.replace(`/${REPO}/resolve/${COMMIT}/`, "");
    const bytes = mock.served.get(name) ?? files.get(name);
    if (!bytes) return json({ error: "Repository not found" }, 404);
    const [, begin, end] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const part = bytes.subarray(Number(begin ?? 0), end ? Number(end) + 1 : undefined);
    const range = begin === undefined ? {} : { "content-range": `bytes ${begin}-${end}/${bytes.length}` };
    response.writeHead(begin === undefined ? 200 : 206, {
      etag: `"${gitOid(bytes)}"`,
      "content-length": part.length,
      ...range,
    });
    if (part.length <= mock.breakAfter) return void response.end(part);
    response.write(part.subarray(0, mock.breakAfter), () => setTimeout(() => response.destroy(), 50));
  });
  await new Promise<void>((listening) => void server.listen(0, "127.0.0.1", listening));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const mock = {
    url,
    server,
    files,
    served: new Map<string, Buffer>(),
    requests: [] as string[],
    breakAfter: Infinity,
    token: null as string | null,
  };
  return mock;
}

const repository = (): string => join(cache, "models--org--tiny");
const snapshot = (): string => join(repository(), "snapshots", COMMIT);
const WANTED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

describe("neolog download", () => {
  test("lays out the cache as huggingface_hub does, with the files that are read", async () => {
    const { code, stdout, stderr } = await neolog(["download", REPO]);
    expect({ code, stdout, stderr }).toMatchObject({ code: 0, stdout: `${snapshot()}\n` });
    expect((await readdir(snapshot())).toSorted()).toEqual(WANTED);
    for (const name of WANTED) {
      const bytes = hub.files.get(name)!;
      const blob = name.endsWith(".safetensors") ? sha256(bytes) : gitOid(bytes);
      expect(await readlink(join(snapshot(), name))).toBe(join("..", "..", "blobs", blob));
      expect(await readFile(join(snapshot(), name))).toEqual(bytes);
    }
    expect(await readFile(join(repository(), "refs", "main"), "utf8")).toBe(COMMIT);
  });

  test("fetches nothing twice, and shards only where there is no single file", async () => {
    const weights = hub.files.get("model.safetensors")!;
    hub.files.set("model-00001-of-00001.safetensors", weights);
    await neolog(["download", REPO]);
    expect(await readdir(snapshot())).not.toContain("model-00001-of-00001.safetensors");
    hub.requests.length = 0;
    await neolog(["download", REPO, "--revision", "v1"]);
    expect(hub.requests.filter((path) => path.includes("/resolve/"))).toEqual([]);
    expect(await readFile(join(repository(), "refs", "v1"), "utf8")).toBe(COMMIT);
    hub.files.delete("model.safetensors");
    hub.files.set("model.safetensors.index.json", Buffer.from("{}"));
    await rm(cache, { recursive: true });
    await neolog(["download", REPO]);
    expect(await readdir(snapshot())).toEqual(
      expect.arrayContaining(["model-00001-of-00001.safetensors", "model.safetensors.index.json"]) as string[],
    );
  });

  test("goes on where it broke off", async () => {
    const weights = hub.files.get("model.safetensors")!;
    hub.breakAfter = 9000;
    const broken = await neolog(["download", REPO]);
    expect(broken.code).toBe(1);
    expect(broken.stderr).toMatch(
      new RegExp(
        `^error: org/tiny: model.safetensors must arrive whole, got 9000 of ${weights.length} bytes \\(.+\\); run it again to go on from there\n$`,
      ),
    );
    expect(await readdir(join(repository(), "blobs"))).toContain(`${sha256(weights)}.incomplete`);
    hub.breakAfter = Infinity;
    hub.requests.length = 0;
    expect((await neolog(["download", REPO])).code).toBe(0);
    const resolved = `/${REPO}/resolve/${COMMIT}/model.safetensors`;
    expect(hub.requests).toContain(`${resolved} bytes=9000-${weights.length - 1}`);
    expect(await readFile(join(snapshot(), "model.safetensors"))).toEqual(weights);
  });

  test.each(["model.safetensors", "config.json"])("throws %s away when its hash is another", async (name) => {
    const bytes = Buffer.from(hub.files.get(name)!);
    bytes[bytes.length - 3]! ^= 1;
    hub.served.set(name, bytes);
    const { code, stderr } = await neolog(["download", REPO]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      new RegExp(
        `^error: org/tiny: ${name} must have the ${bytes.length} bytes and hash .* it is thrown away, try again\n$`,
      ),
    );
    expect((await readdir(join(repository(), "blobs"))).filter((blob) => blob.endsWith(".incomplete"))).toEqual([]);
    await expect(readFile(join(repository(), "refs", "main"))).rejects.toThrow("ENOENT");
  });

  test("gives HF_TOKEN, and says where one is needed", async () => {
    hub.token = "secret";
    const refused = await neolog(["download", REPO]);
    expect(refused.stderr).toBe(
      `error: org/tiny: must be a folder, in the Hugging Face cache, or at ${hub.url}, which answers that it needs a token with access; set HF_TOKEN\n`,
    );
    vi.stubEnv("HF_TOKEN", "secret");
    expect((await neolog(["download", REPO])).stderr).toBe("error: HF_TOKEN: must begin with hf_, got another text\n");
    vi.stubEnv("HF_TOKEN", "hf_secret");
    hub.token = "hf_secret";
    expect(await neolog(["download", REPO])).toMatchObject({ code: 0 });
  });

  test.each<[string, string[], () => void, RegExp]>([
    ["no such model", ["org/other"], () => {}, /which answers that there is no such model or revision\n$/],
    [
      "no such revision",
      [REPO, "--revision", "v2"],
      () => {},
      /^error: org\/tiny at v2: .*which answers that there is no such model or revision\n$/,
    ],
    [
      "only a pickle",
      [REPO],
      () => {
        hub.files.delete("model.safetensors");
        hub.files.set("pytorch_model.bin", Buffer.from("x"));
      },
      /found only pytorch_model\.bin; a pickle can run code/,
    ],
    [
      "no network",
      [REPO],
      () => vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:1"),
      /^error: org\/tiny: must be a folder, in the Hugging Face cache, or at http:\/\/127\.0\.0\.1:1, but no answer came from there \(.+\)\n$/,
    ],
    [
      "offline",
      [REPO],
      () => vi.stubEnv("HF_HUB_OFFLINE", "1"),
      /but it is not in the cache, and HF_HUB_OFFLINE forbids to ask\n$/,
    ],
  ])("one clear line: %s", async (_, argv, spoil, message) => {
    spoil();
    const { code, stderr } = await neolog(["download", ...argv]);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});

describe("--model org/name", () => {
  const generate = (...more: string[]) =>
    neolog(["generate", "--model", REPO, "--prompt", "a", "--max-new-tokens", "2", "--json", ...more]);

  test("is fetched once, then used without the network", async () => {
    const first = await generate();
    expect(first.code).toBe(0);
    hub.requests.length = 0;
    vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:1");
    const again = await generate();
    expect(JSON.parse(again.stdout).ids).toEqual(JSON.parse(first.stdout).ids);
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect((await generate()).code).toBe(0);
    expect((await generate("--revision", COMMIT)).code).toBe(0);
    expect((await generate("--revision", "v1")).stderr).toContain("HF_HUB_OFFLINE forbids to ask");
    expect(hub.requests).toEqual([]);
  });

  test("fetches what a snapshot lacks", async () => {
    await mkdir(join(repository(), "refs"), { recursive: true });
    await mkdir(snapshot(), { recursive: true });
    await writeFile(join(repository(), "refs", "main"), COMMIT);
    await writeFile(join(snapshot(), "config.json"), hub.files.get("config.json")!);
    expect((await generate()).code).toBe(0);
  });

  test("a path that is not there is not looked for at the Hub", async () => {
    await mkdir(join(folder.path, "models"));
    const { stderr } = await neolog(["inspect", join(folder.path, "models", "x")]);
    expect(stderr).toMatch(/must be a folder or a model in the Hugging Face cache, found nothing at/);
    expect(hub.requests).toEqual([]);
  });
});
