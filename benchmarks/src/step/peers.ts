import type { Case } from "../case.ts";
import { startAll } from "../contenders.ts";
import type { Options } from "../options.ts";
import { race } from "../race.ts";
import { Report } from "../report.ts";
import { Roofs } from "../roof.ts";
import { benchStep } from "./bench.ts";
import { forwardPeer, ours, peft } from "./contenders.ts";
import { caseOf, planned } from "./plan.ts";

/** GPT-2 small against every library that trains it, and, forward alone, against onnxruntime and torch. */
export async function benchPeers(options: Options): Promise<void> {
  const asked = { ...options, shapes: ["gpt2"], cases: ["a"], peers: true };
  await benchStep(asked);

  const report = new Report(options);
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
