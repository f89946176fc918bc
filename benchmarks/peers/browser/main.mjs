/**
 * A training step in headless Chromium, ours beside others', one page each: `node main.mjs [--real] [--rounds N] [--only NAME]
 * [--out FILE]`. Without --real the adapter computes in software and the shape is small. Contenders, all or those of a name, take turns,
 * N rounds. `--matmul N`: a product of N³ instead, ours and gpu.js's own on webgl2. Exits with 1 where results disagree.
 */
import { createServer } from "node:http";
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { build } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const real = process.argv.includes("--real");
const flag = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : null);
const [out, only, matmul] = ["--out", "--only", "--matmul"].map(flag);
const rounds = Number(flag("--rounds") ?? 1);
const SHAPE = real
  ? { layers: 4, width: 768, heads: 12, vocab: 50257, length: 128 }
  : { layers: 4, width: 256, heads: 4, vocab: 1024, length: 32 };
const REPEATS = real ? 10 : 3;
const MATMULS = [
  ["neolog", "matmul.mjs", "webgl2"],
  ["gpu.js", "matmul.mjs", "webgl2"],
];
const STEPS = [
  ["neolog", "ours.mjs", "webgpu"],
  ["neolog", "ours.mjs", "webgl2"],
  ["jax-js", "jax.mjs", "webgpu"],
  ["TensorFlow.js", "tfjs.mjs", "webgpu"],
  ["TensorFlow.js", "tfjs.mjs", "webgl"],
];
const CONTENDERS = (matmul ? MATMULS : STEPS).filter(([name]) => only === null || name === only);
const peers = process.env.NEOLOG_PEERS ?? join(here, "..", "node_modules");

const folder = mkdtempSync(join(tmpdir(), "neolog-browser-"));
const alias = [
  "@jax-js/jax",
  "@tensorflow/tfjs-core",
  "@tensorflow/tfjs-backend-webgl",
  "@tensorflow/tfjs-backend-webgpu",
].map((find) => ({ find, replacement: resolve(peers, find) }));
async function bundle(file) {
  const outDir = join(folder, file.replace(".mjs", ""));
  await build({
    configFile: false,
    logLevel: "error",
    resolve: { alias, conditions: ["@neolog/source", "browser", "module", "import", "default"] },
    build: {
      outDir,
      lib: { entry: join(here, file), formats: ["es"], fileName: () => "page.js" },
      minify: false,
      target: "esnext",
    },
  });
}
const server = createServer(({ url }, response) => {
  response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
  response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
  const file = join(folder, decodeURIComponent(new URL(url, "http://local").pathname));
  if (url === "/") return response.setHeader("Content-Type", "text/html").end("<!doctype html><title>step</title>");
  if (!existsSync(file)) return response.writeHead(404).end();
  response.setHeader("Content-Type", "text/javascript").end(readFileSync(file));
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${server.address().port}`;

const SOFTWARE = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
];
const QUIET = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const REAL = ["--enable-unsafe-webgpu", "--enable-features=Vulkan", "--ignore-gpu-blocklist"];
const rows = [];
for (let round = 0; round < rounds; round++)
  for (const [name, file, mode] of CONTENDERS) {
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [...QUIET, ...(real ? REAL : SOFTWARE), "--disable-gpu-watchdog"],
    });
    const shape = matmul ? { n: Number(matmul), who: name } : SHAPE;
    const row = { name, mode, round, shape, real };
    try {
      if (!existsSync(join(folder, file.replace(".mjs", "")))) await bundle(file);
      const page = await browser.newPage();
      page.setDefaultTimeout(180_000);
      await page.goto(origin);
      const run = page.evaluate(
        async ([path, mode, shape, repeats]) => (await import(path)).run(mode, shape, repeats),
        [`/${file.replace(".mjs", "")}/page.js`, mode, shape, REPEATS],
      );
      const late = new Promise((_, refuse) =>
        setTimeout(() => refuse(new Error("no result within 180 s")), 180_000).unref(),
      );
      Object.assign(row, await Promise.race([run, late]));
    } catch (error) {
      row.missing = String(error.message ?? error).split("\n")[0];
    } finally {
      await browser.close();
    }
    rows.push(row);
    const { ms, first, prepared, loss, missing } = row;
    console.log(
      `${name} ${mode}`.padEnd(24),
      missing ??
        `${ms.toFixed(0)} ms, first ${prepared ? `${prepared.toFixed(0)} + ` : ""}${first.toFixed(0)} ms, loss ${loss.toFixed(5)}`,
    );
  }
server.close();
if (out) writeFileSync(out, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
const losses = rows.filter((row) => row.loss !== undefined).map((row) => row.loss);
const apart = Math.max(...losses) - Math.min(...losses);
if (!(apart < 1e-3)) console.error(`losses must agree, got ${losses.join(", ")}`);
process.exit(apart < 1e-3 ? 0 : 1);
