import { AutoModelForCausalLM, AutoTokenizer, type Tokenizer } from "@neolog/models";
import { PeftModel } from "@neolog/peft-tokens";
import type { Tensor } from "@neolog/tensor";
import { type TextLogits, changedRows, countEqual, logitsOf } from "./bitEqual.ts";
import { publish } from "./publish.ts";
import type { Report } from "./report.ts";
import { thousands } from "./text.ts";

export interface Trained {
  readonly peft: PeftModel;
  /** The embedding table, [vocab, hidden], written in place by merging. */
  readonly weight: Tensor;
  /** The rows that were trained. */
  readonly ids: readonly number[];
  readonly tokenizer: Tokenizer;
  /** Sentences with the new words. */
  readonly lesson: readonly string[];
  /** The table and the lesson's logits before training. */
  readonly original: { readonly table: Float32Array; readonly lesson: readonly TextLogits[] };
  /** The lesson's logits after training. */
  readonly trained: readonly TextLogits[];
  readonly folders: { readonly adapter: string; readonly merged: string };
  /** Folder of the base model. */
  readonly base: string;
}

/** Takes the adapter through its life and checks each step bit by bit; writes the merged model. */
export async function checkLifecycle(report: Report, demo: Trained): Promise<void> {
  const { peft, weight, ids, tokenizer, lesson, original, trained, folders } = demo;
  const same = (name: string, detail: string, found: readonly TextLogits[], expected: readonly TextLogits[]): void => {
    const { equal, total } = countEqual(found, expected);
    report.check(name, equal === total, `${detail}: ${ratio(equal, total)} logits bit-equal`);
  };
  const rowsChanged = async (): Promise<number[]> =>
    changedRows(original.table, Float32Array.from(await weight.data()), weight.shape[1]!);

  peft.disableAdapterLayers();
  same("disabled", "is the model before training", await logitsOf(peft, tokenizer, lesson), original.lesson);
  peft.enableAdapterLayers();
  await peft.mergeAdapter({ safeMerge: true });
  const changed = await rowsChanged();
  const exact = changed.length === ids.length && ids.every((id) => changed.includes(id));
  report.check(
    "merged",
    exact,
    `rows ${changed.join(", ")} of the table changed, ${thousands(weight.shape[0]! - changed.length)} did not`,
  );
  same("merged", "is the trained model", await logitsOf(peft, tokenizer, lesson), trained);
  peft.unmergeAdapter();
  const left = await rowsChanged();
  report.check("unmerged", left.length === 0, `${left.length} rows of the table differ from the original`);
  const unloaded = peft.unload();
  same("unloaded", "is the model before training", await logitsOf(unloaded, tokenizer, lesson), original.lesson);

  const fresh = await AutoModelForCausalLM.fromPretrained(demo.base);
  const own = await AutoTokenizer.fromPretrained(folders.adapter);
  fresh.resizeTokenEmbeddings(own.vocabSize);
  const reloaded = await PeftModel.fromPretrained(fresh, folders.adapter);
  same("reloaded", "from disk onto a fresh model, is as trained", await logitsOf(reloaded, own, lesson), trained);
  const merged = await reloaded.mergeAndUnload();
  await publish(folders.merged, "config.json", async (dir) => {
    await merged.savePretrained(dir);
    await own.savePretrained(dir);
  });
  const plain = await AutoModelForCausalLM.fromPretrained(folders.merged);
  same("merged copy", "a plain checkpoint from disk, is as trained", await logitsOf(plain, own, lesson), trained);
}

const ratio = (equal: number, total: number): string =>
  equal === total ? `all ${thousands(total)}` : `${thousands(equal)} of ${thousands(total)}`;
