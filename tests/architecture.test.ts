import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

/** What each workspace may import; the arrows of the architecture, one direction, no cycles. */
const ALLOWED: { readonly [workspace: string]: readonly string[] } = {
  "packages/tensor": [],
  "packages/gpu": ["tensor"],
  "packages/autograd": ["tensor"],
  "packages/nn": ["tensor", "autograd"],
  "packages/checkpoint": ["tensor"],
  "packages/stories": [],
  "packages/models": ["tensor", "autograd", "nn", "checkpoint"],
  "packages/peft-tokens": ["tensor", "autograd", "nn", "checkpoint", "models"],
  "apps/cli": ["tensor", "autograd", "nn", "checkpoint", "models", "peft-tokens", "stories", "gpu"],
  "apps/playground": ["tensor", "gpu", "autograd", "nn", "checkpoint", "models", "peft-tokens", "stories", "gpu"],
  "apps/pretrain": ["tensor", "autograd", "nn", "checkpoint", "models", "peft-tokens", "stories"],
  benchmarks: ["tensor", "autograd", "nn", "checkpoint", "models", "peft-tokens", "gpu"],
};

const root = new URL("..", import.meta.url).pathname;
const IMPORT = /(?:^|\s)(?:import|export)\s(?:[^"']*?\sfrom\s)?["']([^"']+)["']|import\(["']([^"']+)["']\)/g;

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => /\.tsx?$/.test(file))
    .map((file) => join(folder, file));
}

function imports(file: string): string[] {
  return [...readFileSync(join(root, file), "utf8").matchAll(IMPORT)].map((match) => (match[1] ?? match[2])!);
}

test("every workspace is in the table", () => {
  const found = ["packages", "apps"].flatMap((folder) =>
    readdirSync(join(root, folder), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `${folder}/${entry.name}`),
  );
  expect([...found, "benchmarks"].toSorted()).toEqual(Object.keys(ALLOWED).toSorted());
});

describe.each(Object.entries(ALLOWED))("%s", (workspace, allowed) => {
  const manifest = JSON.parse(readFileSync(join(root, workspace, "package.json"), "utf8"));
  const declared = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies, ...manifest.peerDependencies });
  const files = sources(join(workspace, "src"));

  test("imports only what lies below it", () => {
    const wrong = files.flatMap((file) =>
      imports(file)
        .filter((name) => name.startsWith("@neolog/"))
        .map((name) => name.split("/")[1]!)
        .filter((name) => !allowed.includes(name) && !(workspace === `packages/${name}`))
        .map((name) => `${file} imports @neolog/${name}`),
    );
    expect(wrong).toEqual([]);
  });

  test("declares what it imports", () => {
    const shipped = files.filter((file) => !file.endsWith(".test.ts"));
    const missing = shipped.flatMap((file) =>
      imports(file)
        .filter((name) => !name.startsWith(".") && !name.startsWith("node:"))
        .map((name) =>
          name
            .split("/")
            .slice(0, name.startsWith("@") ? 2 : 1)
            .join("/"),
        )
        .filter((name) => !declared.includes(name) && name !== manifest.name)
        .map((name) => `${file} imports ${name}`),
    );
    expect(missing).toEqual([]);
  });

  test("reaches into no other workspace by a path", () => {
    const climbing = files.flatMap((file) =>
      imports(file)
        .filter((name) => name.startsWith("."))
        .map((name) => join(file, "..", name))
        .filter((target) => !target.startsWith(`${workspace}/`))
        .map((target) => `${file} imports ${target}`),
    );
    expect(climbing).toEqual([]);
  });
});

test("only packages/gpu imports gpu.js", () => {
  const importers = Object.keys(ALLOWED)
    .flatMap((workspace) => sources(join(workspace, "src")))
    .filter((file) => imports(file).includes("gpu.js"));
  expect(importers.filter((file) => !file.startsWith("packages/gpu/"))).toEqual([]);
});
