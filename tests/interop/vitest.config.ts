import { mergeConfig } from "vitest/config";
import shared from "../../vitest.config.ts";

export default {
  ...mergeConfig(shared, {}),
  test: { include: ["tests/interop/interop.ts", "tests/interop/tokenizers.ts"] },
};
