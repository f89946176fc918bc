import { JestAsymmetricMatchers, JestChaiExpect, JestExtend } from "@vitest/expect";
import * as chai from "chai";

/** What test suites import from vitest, for a browser's worker, where vitest itself does not run. */
export { afterAll, afterEach, beforeAll, beforeEach, describe, test } from "@vitest/runner";
export type { TestContext } from "@vitest/runner";

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);
export const expect = chai.expect;
