import { fileURLToPath } from "node:url";
import { defaultClientConditions, defineConfig } from "vite";

/** With these a page may share memory with workers, which threads need. */
const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** Node's, and Dawn for Node: behind conditions that do not hold in a browser. */
const external = [/^node:/, "webgpu"];
/** Found late, while a worker loads, they would make the page reload in the midst of its work. */
const include = ["gpu.js", "@huggingface/jinja", "@huggingface/tokenizers", "jsonc-parser", "valibot"];

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  appType: "mpa", // a file that is not there is 404, not the page: folders of models are asked for what they may lack
  publicDir: fileURLToPath(new URL("../../packages/models/pretrained", import.meta.url)),
  resolve: { conditions: ["@neolog/source", ...defaultClientConditions] },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  optimizeDeps: { include, exclude: ["webgpu"] },
  worker: { format: "es", rolldownOptions: { external } },
  server: { headers },
  preview: { headers },
  build: { target: "es2023", outDir: "dist/site", emptyOutDir: true, rolldownOptions: { external } },
});
