import { readFileSync, readdirSync } from "node:fs";
import { expect, test } from "vitest";

const folder = new URL("../peers/", import.meta.url);
const scripts = readdirSync(folder).filter((name) => name.endsWith(".mjs"));

test.each(scripts)("%s imports what there is", async (name) => {
  const imports = readFileSync(new URL(name, folder), "utf8").matchAll(
    /import \{([^}]*)\} from "\.\.\/dist\/(\w+)\.js"/g,
  );
  for (const [, names, module] of imports) {
    const exports = Object.keys((await import(`./${module}.ts`)) as object);
    expect(exports).toEqual(expect.arrayContaining(names!.split(",").map((part) => part.trim())));
  }
});
