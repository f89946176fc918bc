import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { resolveModelFolder } from "./hub.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const VARIABLES = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"] as const;

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "neolog-hub-"));
  for (const name of VARIABLES) vi.stubEnv(name, undefined);
  vi.stubEnv("HOME", root);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true });
});

/** A cached model, as huggingface_hub lays it out; returns its snapshot. */
async function cached(hub: string, repository = "models--openai--gpt2"): Promise<string> {
  const snapshot = join(hub, repository, "snapshots", COMMIT);
  await mkdir(snapshot, { recursive: true });
  await mkdir(join(hub, repository, "refs", "pr"), { recursive: true });
  await writeFile(join(hub, repository, "refs", "main"), COMMIT);
  await writeFile(join(hub, repository, "refs", "pr", "1"), `${COMMIT}\n`);
  return snapshot;
}

describe("resolveModelFolder", () => {
  test("a local folder and a URL are themselves", async () => {
    expect(await resolveModelFolder(root)).toBe(root);
    expect(await resolveModelFolder("https://example.org/gpt2")).toBe("https://example.org/gpt2");
  });

  test.each([
    ["HF_HUB_CACHE", ""],
    ["HUGGINGFACE_HUB_CACHE", ""],
    ["HF_HOME", "hub"],
    ["XDG_CACHE_HOME", "huggingface/hub"],
  ] as const)("finds the cache by %s", async (variable, below) => {
    vi.stubEnv(variable, join(root, "cache"));
    const snapshot = await cached(join(root, "cache", below));
    expect(await resolveModelFolder("openai/gpt2")).toBe(snapshot);
  });

  test("finds the cache in the home folder; a branch, a pull request, a commit; a name without organisation", async () => {
    const hub = join(root, ".cache", "huggingface", "hub");
    const snapshot = await cached(hub);
    for (const revision of ["main", "refs/pr/1".replace("refs/", ""), COMMIT]) {
      expect(await resolveModelFolder("openai/gpt2", { revision })).toBe(snapshot);
    }
    expect(await resolveModelFolder("gpt2").catch((error: Error) => error.message)).toContain("models--gpt2");
    expect(await cached(hub, "models--gpt2")).toBe(await resolveModelFolder("gpt2"));
  });

  test("says where it looked", async () => {
    vi.stubEnv("HF_HUB_CACHE", root);
    const snapshot = join(root, "models--openai--gpt2", "snapshots", "main");
    await expect(resolveModelFolder("openai/gpt2")).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: `openai/gpt2: must be a folder or a model in the Hugging Face cache, found nothing at openai/gpt2 or ${snapshot}; "neolog download openai/gpt2" fetches it`,
    });
    await expect(resolveModelFolder("./no/such/folder")).rejects.toThrow(/found nothing at \.\/no\/such\/folder$/);
  });

  test.each(["../../refs", "..", "", "a/../../../b"])(
    "does not leave the repository for revision %j",
    async (revision) => {
      vi.stubEnv("HF_HUB_CACHE", root);
      await cached(root);
      await expect(resolveModelFolder("openai/gpt2", { revision })).rejects.toMatchObject({ code: "NOT_FOUND" });
    },
  );
});
