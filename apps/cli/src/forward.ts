import { type StoredTensor, fromTensor, writeSafetensors } from "@neolog/checkpoint";
import { Scope, untracked } from "@neolog/tensor";
import { backendInfo } from "./backend.ts";
import { ADAPTER, ALLOW_SOFTWARE, BACKEND, MODEL, REVISION, command } from "./command.ts";
import { kindOf } from "./example.ts";
import { checkBatches, readInputs } from "./inputs.ts";
import { type Io, breathe } from "./io.ts";
import { loadModel, run } from "./load.ts";
import { Output } from "./output.ts";
import { count } from "./text.ts";
import { checkFileTarget, writeFileAtomically } from "./publish.ts";

/** neolog forward: logits and loss of given ids, for comparing with another implementation. */
export const forwardCommand = (io: Io) =>
  command("forward", "Run token ids through a model and write logits and loss to a safetensors file.", [
    "forward --model ./llama --input inputs.json --out logits.safetensors",
    "forward --model ./llama --adapter ./my-adapter --input inputs.json --out logits.safetensors --json",
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .option(...ADAPTER)
    .requiredOption(
      "--input <inputs.json>",
      "a batch {input_ids, attention_mask?, position_ids?, labels?} (for an encoder token_type_ids? too, for an encoder-decoder decoder_input_ids? and no position_ids), or several, named or in a list",
    )
    .requiredOption(
      "--out <file.safetensors>",
      "receives logits [B, T, V] and, with labels, loss []; of several batches: <name>/logits",
    )
    .option(...BACKEND)
    .option(...ALLOW_SOFTWARE)
    .addHelpText("after", '  with inputs.json holding {"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]]}')
    .action(async (flags) => {
      const output = new Output(io, flags);
      await checkFileTarget(flags.out);
      const batches = await readInputs(flags.input);
      const { model, base } = await loadModel(flags, output);
      checkBatches(flags.input, batches, kindOf(base));
      const tensors = new Map<string, StoredTensor>();
      const losses: Record<string, number> = {};
      const progress = output.progress("batches", batches.length);
      try {
        for (const [i, { prefix, batch }] of batches.entries()) {
          using _scope = new Scope();
          const { logits, loss } = untracked(() => run(model, batch));
          tensors.set(`${prefix}logits`, await fromTensor(logits));
          if (loss) {
            tensors.set(`${prefix}loss`, await fromTensor(loss));
            losses[prefix.replace(/\/$/, "")] = await loss.item();
          }
          progress.update(i + 1);
          await breathe();
          io.signal?.throwIfAborted();
        }
      } finally {
        progress.stop();
      }
      await writeFileAtomically(flags.out, writeSafetensors(tensors));
      const loss = batches[0]!.prefix === "" ? (losses[""] ?? null) : losses;
      output.result(
        { out: flags.out, loss, backend: backendInfo() },
        ...Object.entries(losses).map(([name, value]) => `${name ? `${name}: ` : ""}loss ${value.toFixed(6)}`),
        `wrote ${flags.out}: ${count(tensors.size, "tensor")}`,
      );
    });
