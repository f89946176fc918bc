import { expect, test } from "vitest";
import type { Message } from "./protocol.ts";
import { OPENING, after } from "./session.ts";

const writing = { texts: [], answers: [] };
const opened: Message = {
  kind: "opened",
  backend: { name: "cpu", because: "chosen", info: {} },
  parameters: 1,
  table: [2, 1],
  words: [],
  sentences: [],
  before: writing,
};
const step = (n: number): Message => ({ kind: "step", step: n, loss: 1 / n, tokensPerSecond: 1, bytes: 1 });
const training: Message = { kind: "training", trainable: 1, all: 2, steps: 2 };
const trained: Message = { kind: "trained", whole: true, after: writing, files: new Map() };

test("a session goes from opening over each step to trained", () => {
  const messages = [opened, training, step(1), step(2), trained];
  const phases = messages.map((_, i) => messages.slice(0, i + 1).reduce(after, OPENING).phase);
  expect(phases).toEqual(["ready", "training", "training", "finishing", "trained"]);
  expect(messages.reduce(after, OPENING).steps.map(({ loss }) => loss)).toEqual([1, 0.5]);
});
test("training again forgets the run before", () => {
  const session = [opened, training, step(1), step(2), trained, training].reduce(after, OPENING);
  expect(session).toMatchObject({ phase: "training", steps: [], trained: null });
});
test("a failure keeps what was there and says what went wrong", () => {
  const session = [opened, training, step(1), { kind: "failed", error: "device lost" } as const].reduce(after, OPENING);
  expect(session).toMatchObject({ phase: "failed", error: "device lost" });
  expect(session.steps).toHaveLength(1);
});
