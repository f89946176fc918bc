import type { Case } from "../case.ts";
import { startAll } from "../contenders.ts";
import type { Options } from "../options.ts";
import { race } from "../race.ts";
import type { Report } from "../report.ts";
import { Roofs } from "../roof.ts";
import { benchStep } from "./bench.ts";
import { forwardPeer, ours, peft } from "./contenders.ts";
import { caseOf, oneBatch, planned } from "./plan.ts";

/** jax-js takes seconds for a step of so many tokens. */
const QUICK_LENGTH = 16;

/** GPT-2 small against every library that trains it, and, forward alone, against onnxruntime and torch. */
export async function benchPeers(options: Options, report: Report): Promise<void> {
  const usual = options.quick ? { lengths: [QUICK_LENGTH] } : {};
  const asked = { ...options, shapes: ["gpt2"], cases: ["a"], peers: true, ...usual };
  await benchStep(asked, report, (plan) => ({ ...oneBatch(caseOf(plan)), kernel: "peers gpt2" }));

  const roofs = await Roofs.measure(options);
  for (const plan of planned(asked)) {
    const { amount, training, ...rest } = caseOf(plan);
    // the operations of a step are those of two passes and of attention's gradient; what is left is counted as one pass
    const c: Case = { ...rest, kernel: "forward gpt2", training: { ...training!, forward: true }, amount: amount / 2 };
    const specs = options.threads.flatMap((threads) => [
      ours("neolog without reuse", threads, options),
      forwardPeer(threads, options),
      peft(threads),
    ]);
    const contenders = await startAll(specs, options);
    try {
      report.add(c, await race(c, contenders, options), roofs);
    } finally {
      for (const contender of contenders) contender.stop();
    }
  }
}
