import { AutoModelForCausalLM, AutoTokenizer } from "@neolog/models";
import type { Embedding } from "@neolog/nn";
import { ReusedLoss, TrainableTokensConfig, getPeftModel } from "@neolog/peft-tokens";
import { WORDS, corpus, lessonSentences, tokenOf } from "@neolog/stories";
import { access, constants, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { backendInfo, chooseBackend } from "./backend.ts";
import { countEqual, logitsOf } from "./bitEqual.ts";
import { ALLOW_SOFTWARE, BACKEND, command } from "./command.ts";
import { checkLifecycle } from "./demoLifecycle.ts";
import {
  showAnswers,
  showDisk,
  showModel,
  showPython,
  showTraining,
  showUnchanged,
  showWords,
  showWriting,
} from "./demoReport.ts";
import { CliError } from "./errors.ts";
import { FineTuning } from "./fineTune.ts";
import { type Io, breathe } from "./io.ts";
import { RECIPE, answerHeldOut, lessonExamples, write } from "./lesson.ts";
import { Output } from "./output.ts";
import { checkTarget, publish } from "./publish.ts";
import { Report } from "./report.ts";

const BUILT_IN = fileURLToPath(new URL("../../../packages/models/pretrained/meadow", import.meta.url));
/** Stories without the new words, other than those that the built-in model was trained on. */
const STORIES = { seed: 3, count: 24 };

/** neolog demo: the main job on the built-in model, end to end. */
export const demoCommand = (io: Io) =>
  command("demo", "Teach the built-in model three new words and check every step. Takes seconds, asks nothing.", [
    "demo",
    "demo --out /tmp/demo --json",
  ])
    .option("--out <dir>", "folder for adapter and merged model (./neolog-demo, else one under the temporary folder)")
    .option(...BACKEND)
    .option(...ALLOW_SOFTWARE)
    .action(async (flags) => {
      const out = flags.out ?? (await defaultOut());
      await checkTarget(out);
      await chooseBackend(flags);
      await demo(new Output(io, flags), out);
    });

async function defaultOut(): Promise<string> {
  const here = await access(".", constants.W_OK).then(
    () => ".",
    () => tmpdir(),
  );
  return join(here, "neolog-demo");
}

async function demo(output: Output, out: string): Promise<void> {
  const started = performance.now();
  const report = new Report(output);
  const base = await AutoModelForCausalLM.fromPretrained(BUILT_IN);
  const tokenizer = await AutoTokenizer.fromPretrained(BUILT_IN);
  showModel(report, base, await write(base, tokenizer, ["the duck"]));

  const ids = tokenizer.addTokens(Object.keys(WORDS).map(tokenOf));
  base.resizeTokenEmbeddings(tokenizer.vocabSize);
  const { weight } = base.moduleAt(base.embeddingPath) as Embedding;
  const stories = corpus(STORIES);
  const lesson = lessonSentences();
  const original = {
    table: Float32Array.from(await weight.data()),
    stories: await logitsOf(base, tokenizer, stories),
    lesson: await logitsOf(base, tokenizer, lesson),
  };
  showWords(report, ids, lesson);
  report.section("Before");
  showWriting(report, await write(base, tokenizer));
  const before = await answerHeldOut(base, tokenizer);

  const peft = getPeftModel(
    base,
    new TrainableTokensConfig({ token_indices: ids, task_type: "CAUSAL_LM", base_model_name_or_path: BUILT_IN }),
  );
  report.section("Training the three rows, everything else frozen");
  report.lines(peft.trainableLine());
  const run = new FineTuning(peft, lessonExamples(tokenizer), RECIPE, { reused: new ReusedLoss(peft) });
  const progress = output.progress("   training", RECIPE.steps);
  try {
    while (!run.done) {
      output.io.signal?.throwIfAborted();
      progress.update(run.step + 1, `loss ${(await run.next()).toFixed(3)}`);
      await breathe();
    }
  } finally {
    progress.stop();
  }
  run.dispose();
  showTraining(report, run.losses);

  report.section("After");
  showWriting(report, await write(peft, tokenizer));
  const after = await answerHeldOut(peft, tokenizer);
  showAnswers(report, before, after);

  const trained = {
    stories: await logitsOf(peft, tokenizer, stories),
    lesson: await logitsOf(peft, tokenizer, lesson),
  };
  const unchanged = countEqual(original.stories, trained.stories, ids);
  showUnchanged(report, unchanged, stories.length);

  const folders = { adapter: join(out, "adapter"), merged: join(out, "merged") };
  await publish(folders.adapter, "adapter_config.json", async (dir) => {
    await peft.savePretrained(dir);
    await tokenizer.savePretrained(dir);
  });
  const counts = peft.getNbTrainableParameters();
  report.section("Disable, merge, unload, reload");
  await checkLifecycle(report, {
    peft,
    weight,
    ids,
    tokenizer,
    lesson,
    original,
    trained: trained.lesson,
    folders,
    base: BUILT_IN,
  });

  const adapter_bytes = (await stat(join(folders.adapter, "adapter_model.safetensors"))).size;
  showDisk(report, folders, adapter_bytes, original.table.byteLength);
  showPython(report, BUILT_IN, folders.adapter);
  const seconds = (performance.now() - started) / 1000;
  output.result(
    {
      out,
      seconds,
      steps: run.step,
      losses: run.losses,
      ...counts,
      before: score(before),
      after: score(after),
      unchanged,
      adapter_bytes,
      table_bytes: original.table.byteLength,
      checks: report.checks,
      backend: backendInfo(),
    },
    "",
    `${report.checks.filter(({ ok }) => ok).length} of ${report.checks.length} checks hold. ${seconds.toFixed(0)} s in all.`,
  );
  const failed = report.checks.filter(({ ok }) => !ok).map(({ name }) => name);
  if (failed.length > 0) throw new CliError(`demo: every check must hold, got a failure of ${failed.join(", ")}`);
}

const score = (answers: readonly { readonly right: boolean }[]) => ({
  right: answers.filter(({ right }) => right).length,
  questions: answers.length,
});
