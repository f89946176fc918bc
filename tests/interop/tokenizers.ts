import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AutoTokenizer } from "@neolog/models";
import { afterAll, expect, test } from "vitest";

/** Adds tokens to tokenizers, saves them, and asks transformers what it reads: part of `npm run interop`. */
const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
const python = process.env["NEOLOG_PYTHON"] ?? "python3";
const folders = ["packages/models/pretrained/meadow", "../shared/real/stories260K"].map((path) => join(root, path));

const LINES = [
  "Once upon a <wug> time",
  "a<wug>b <mask> c",
  "x [b] y  z",
  "<wug>",
  "<wug><wug>",
  "  two spaces .",
  "the dog says moo .",
  "été 🙂\n",
];

const out = mkdtempSync(join(tmpdir(), "neolog-interop-"));
afterAll(() => rmSync(out, { recursive: true }));

test("transformers reads the ids that we give, added tokens included", async () => {
  const cases = [];
  for (const [i, source] of folders.entries()) {
    if (!existsSync(source)) {
      console.log(`skipped: ${source.slice(root.length)} is absent`);
      continue;
    }
    const tokenizer = await AutoTokenizer.fromPretrained(source);
    tokenizer.addTokens([
      "<wug>",
      { content: "<mask>", special: true, lstrip: true },
      { content: "[b]", rstrip: true, normalized: false },
    ]);
    const folder = join(out, String(i));
    await tokenizer.savePretrained(folder);
    const lines = LINES.map((text) => ({
      text,
      ids: tokenizer.encode(text),
      plain_ids: tokenizer.encode(text, { addSpecialTokens: false }),
      decoded: tokenizer.decode(tokenizer.encode(text)),
    }));
    cases.push({ folder, lines });
  }
  const manifest = join(out, "manifest.json");
  writeFileSync(manifest, JSON.stringify(cases));
  const differences = execFileSync(python, [join(here, "check_tokenizers.py"), manifest], { encoding: "utf8" });
  expect(JSON.parse(differences)).toEqual([]);
}, 300_000);
