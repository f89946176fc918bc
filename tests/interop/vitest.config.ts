import { mergeConfig } from "vitest/config";
import shared from "../../vitest.config.ts";

export default {
  ...mergeConfig(shared, {}),
  test: { include: ["interop", "lora", "tokenizers"].map((name) => `tests/interop/${name}.ts`) },
};
