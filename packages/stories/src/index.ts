export * from "./generate.ts";
export { VOCABULARY } from "./grammar.ts";
export * from "./lesson.ts";
export * from "./parse.ts";
export * from "./world.ts";
