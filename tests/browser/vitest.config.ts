import { mergeConfig } from "vitest/config";
import shared from "../../vitest.config.ts";

export default {
  ...mergeConfig(shared, {}),
  test: {
    include: ["tests/browser/{browser,learning,gpu}.ts", "tests/browser/smoke.test.ts"],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    maxWorkers: 1,
  },
};
