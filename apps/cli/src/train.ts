import { SCHEDULES } from "@neolog/autograd";
import type { LanguageModel, SequenceDataset, Tokenizer } from "@neolog/models";
import { type AddAdapterOptions, PeftModel, TrainableTokensConfig, getPeftModel, tokensOf } from "@neolog/peft-tokens";
import { defaultBackend } from "@neolog/tensor";
import { Option } from "@commander-js/extra-typings";
import { backendInfo, backendLine, chooseBackend } from "./backend.ts";
import { BATCHINGS } from "./batches.ts";
import { lossCurve } from "./chart.ts";
import {
  ALLOW_SOFTWARE,
  BACKEND,
  DATA,
  MODEL,
  NO_CACHE,
  REVISION,
  command,
  idList,
  nonNegative,
  nonNegativeInteger,
  positive,
  positiveInteger,
  tokenList,
} from "./command.ts";
import { encodedExamples } from "./encoded.ts";
import { CliError, UsageError } from "./errors.ts";
import { kindOf } from "./example.ts";
import { DECAY_TARGETS, FineTuning, ROW_UPDATES, type Recipe } from "./fineTune.ts";
import { initFlag, initPolicy } from "./initFlag.ts";
import { type Io, breathe } from "./io.ts";
import { modelFolder } from "./hub.ts";
import { loadBase, tokenizerOf } from "./load.ts";
import { Output } from "./output.ts";
import { type ReusePlan, reusePlan, reuseReport, reusedLoss } from "./reuse.ts";
import { checkTarget, publish } from "./publish.ts";
import {
  type SavedRun,
  checkpointPath,
  readRunState,
  removeCheckpoints,
  restoreOptimizer,
  writeRunState,
} from "./runState.ts";
import { columns, count, indent, thousands } from "./text.ts";

const DEFAULTS = {
  epochs: 3,
  lr: 0.005,
  weight_decay: 0,
  batch_size: 8,
  schedule: "constant",
  warmup_steps: 0,
  seed: 0,
  row_updates: "all",
  decay_toward: "zero",
  skip_empty_steps: false,
  batching: "random",
  packing: false,
} as const;

const trainOptions = () =>
  command("train", "Train rows of the token embedding on a JSONL file and write an adapter that PEFT reads.", [
    'train --model ./llama --data stories.jsonl --tokens "<wug>,<dax>" --out ./wug',
    "train --model ./llama --data stories.jsonl --token-indices 403,407 --out ./rows --steps 200 --lr 0.01",
    'train --model ./llama --data stories.jsonl --tokens "<wug>" --init "description: a small furry animal" --out ./wug',
    'train --model ./llama --data stories.jsonl --tokens "<wug>" --out ./wug --resume ./wug',
  ])
    .requiredOption(...MODEL)
    .option(...REVISION)
    .requiredOption(...DATA)
    .addOption(
      new Option(
        "--tokens <list>",
        "tokens to train, with commas between; unknown ones are added to the tokenizer, their rows start as the mean of the table",
      )
        .argParser(tokenList)
        .conflicts("tokenIndices"),
    )
    .option("--token-indices <list>", "ids of rows to train, with commas between", idList)
    .requiredOption("--out <dir>", "folder for the adapter; checkpoint-<steps> in it keeps what --resume goes on from")
    .addOption(new Option("--steps <n>", "batches to train on").argParser(positiveInteger).conflicts("epochs"))
    .option("--epochs <n>", `passes over the data (${DEFAULTS.epochs} unless --steps is given)`, positiveInteger)
    .option("--lr <x>", `learning rate of AdamW (${DEFAULTS.lr})`, positive)
    .option("--weight-decay <x>", `pull of rows towards 0 or the base's (${DEFAULTS.weight_decay})`, nonNegative)
    .addOption(
      new Option("--decay-toward <what>", `what weight decay pulls rows towards (${DEFAULTS.decay_toward})`).choices(
        DECAY_TARGETS,
      ),
    )
    .addOption(
      new Option(
        "--row-updates <which>",
        `rows that a step moves: all, or lazy for those that its batch holds, with moments of their own (${DEFAULTS.row_updates})`,
      ).choices(ROW_UPDATES),
    )
    .addOption(
      new Option(
        "--init <how>",
        'how the rows start: original, mean, random, "copy: <token or id>", "description: <text>" (the mean of its tokens)',
      )
        .argParser(initFlag)
        .conflicts("resume"),
    )
    .option("--batch-size <n>", `rows per step (${DEFAULTS.batch_size})`, positiveInteger)
    .option("--max-length <n>", "tokens per row at most; longer rows are cut", positiveInteger)
    .addOption(new Option("--schedule <name>", `learning rate over the run (${DEFAULTS.schedule})`).choices(SCHEDULES))
    .option(
      "--warmup-steps <n>",
      `steps over which the learning rate grows (${DEFAULTS.warmup_steps})`,
      nonNegativeInteger,
    )
    .option("--no-shuffle", "keep the order of the file")
    .addOption(
      new Option(
        "--batching <kind>",
        `bucketed: rows of like lengths share a batch, which pads less (${DEFAULTS.batching})`,
      ).choices(BATCHINGS),
    )
    .option("--packing", "put the rows of a batch one after the other instead of padding them; none sees another")
    .option("--seed <n>", `seed of the order (${DEFAULTS.seed})`, nonNegativeInteger)
    .option(
      "--save-steps <n>",
      "steps between checkpoints; the newest stays, the last step always has one",
      positiveInteger,
      50,
    )
    .option(
      "--resume <dir>",
      "go on from the newest checkpoint in this folder, after a stop or to add steps; flags not given are as they were",
    )
    .option("--skip-empty-steps", "leave the rows alone in a step whose batch touches none of them")
    .option("--no-reuse", "compute again, in every step, what the trained rows cannot change")
    .option("--reuse-bytes <n>", "bytes that may hold what they cannot change (1 GiB)", nonNegativeInteger)
    .option(...NO_CACHE)
    .option(...BACKEND)
    .option(...ALLOW_SOFTWARE);

export type TrainFlags = ReturnType<ReturnType<typeof trainOptions>["opts"]>;

/** neolog train: rows learn from a file, everything else is frozen. */
export const trainCommand = (io: Io) =>
  trainOptions().action(async (flags) => {
    const output = new Output(io, flags);
    const started = performance.now();
    if (!flags.tokens && !flags.tokenIndices)
      throw new UsageError("train: --tokens or --token-indices must say which rows train, got neither");
    await checkTarget(flags.out, flags.model);
    const saved = flags.resume === undefined ? null : await readRunState(flags.resume);
    await chooseBackend(flags);

    const folder = await modelFolder(flags.model, output, flags.revision);
    const base = await loadBase(folder, output);
    const { tokenizer, ids, added } = await chooseRows(flags, base, folder);
    const maxLength = flags.maxLength ?? saved?.state.max_length ?? null;
    const reading = {
      tokenizer,
      vocabSize: base.config.vocab_size,
      kind: kindOf(base),
      maxLength: maxLength ?? undefined,
    };
    const { examples, data_sha256 } = await encodedExamples(flags.data, reading, output, { cache: flags.cache });
    if (saved) checkSameRun(saved, data_sha256, flags.data);

    const start = {
      ...(flags.init ? { init: initPolicy(flags.init, ids, tokenizer) } : {}),
      seed: flags.seed ?? DEFAULTS.seed,
    };
    const peft = await wrap(base, ids, flags.model, saved, output, start);
    const recipe = recipeOf(flags, saved?.state.recipe, examples.length);
    const reused = reusedLoss(peft, flags);
    const run = new FineTuning(peft, examples, recipe, { losses: saved?.state.losses ?? [], reused });
    if (saved) await restoreOptimizer(run, saved);
    const plan = reusePlan(reused, examples, recipe);
    announce(output, { flags, base, tokenizer, ids, added, examples, peft, run, plan });

    const state = { max_length: maxLength, data_sha256 };
    const writeAdapter = async (dir: string): Promise<void> => {
      await peft.savePretrained(dir);
      if (flags.tokens) await tokenizer?.savePretrained(dir);
    };
    const checkpoint = async (): Promise<void> => {
      const path = checkpointPath(flags.out, run.step);
      await publish(path, "training_state.json", async (dir) => {
        await writeAdapter(dir);
        await writeRunState(dir, run, state);
      });
      await removeCheckpoints(flags.out, path);
    };
    await runToEnd(run, output, flags.saveSteps, checkpoint);
    await checkpoint();
    await publish(flags.out, "adapter_config.json", writeAdapter);

    const seconds = (performance.now() - started) / 1000;
    const { trainable, all } = peft.getNbTrainableParameters();
    for (const line of indent(lossCurve(run.losses, { width: output.width - 2 }))) output.say(line);
    output.result(
      {
        steps: run.step,
        losses: run.losses,
        out: flags.out,
        seconds,
        trainable,
        all,
        tokens: run.tokens,
        padding_tokens: run.padding,
        peak_bytes: defaultBackend().bytes.peak,
        reuse: reuseReport(reused, plan),
        backend: backendInfo(),
      },
      `wrote ${flags.out} after ${count(run.step, "step")}, ${seconds.toFixed(1)} s; loss ${run.losses[0]!.toFixed(4)} → ${run.losses.at(-1)!.toFixed(4)}`,
    );
    run.dispose();
  });

interface Rows {
  readonly tokenizer: Tokenizer | null;
  readonly ids: readonly number[];
  /** Those of `ids` that the tokenizer did not know. */
  readonly added: readonly number[];
}

/** The ids to train. New tokens go into the tokenizer, and the table grows where it has no rows for them. */
async function chooseRows(
  { model, tokens, tokenIndices }: TrainFlags,
  base: LanguageModel,
  folder: string,
): Promise<Rows> {
  const tokenizer = await tokenizerOf(folder);
  if (!tokens) {
    const { vocab_size } = base.config;
    const outside = tokenIndices!.find((id) => id >= vocab_size);
    if (outside === undefined) return { tokenizer, ids: tokenIndices!, added: [] };
    throw new CliError(
      `--token-indices: ids must be below the ${vocab_size} rows of the table, got ${outside}; --tokens adds tokens`,
    );
  }
  if (!tokenizer)
    throw new CliError(`${model}: must hold tokenizer.json for --tokens, found none; --token-indices needs none`);
  const added = tokenizer.addTokens(tokens.filter((token) => tokenizer.tokenToId(token) === undefined));
  const ids = tokens.map((token) => tokenizer.tokenToId(token)!);
  const needed = Math.max(...ids) + 1;
  if (needed > base.config.vocab_size) base.resizeTokenEmbeddings(needed);
  return { tokenizer, ids, added };
}

async function wrap(
  base: LanguageModel,
  ids: readonly number[],
  model: string,
  saved: SavedRun | null,
  output: Output,
  start: Pick<AddAdapterOptions, "init" | "seed">,
): Promise<PeftModel<LanguageModel>> {
  const onWarning = ({ message }: { message: string }): void => output.note(message);
  if (!saved) {
    const config = new TrainableTokensConfig({
      token_indices: ids,
      task_type: kindOf(base) === "causal" ? "CAUSAL_LM" : null, // PEFT 0.21 fails on token rows with SEQ_2_SEQ_LM
      base_model_name_or_path: model,
    });
    return getPeftModel(base, config, { ...start, onWarning });
  }
  const peft = await PeftModel.fromPretrained(base, saved.dir, { isTrainable: true, onWarning });
  const before = tokensOf(peft.peftConfig["default"]!);
  if (before.join() !== ids.join()) {
    throw new CliError(
      `--resume ${saved.dir}: must train the same rows, got ${ids.join(", ")} where the run has ${before.join(", ")}`,
    );
  }
  return peft;
}

function checkSameRun({ dir, state }: SavedRun, data_sha256: string, data: string): void {
  if (state.data_sha256 === data_sha256) return;
  throw new CliError(`--resume ${dir}: ${data} must be the file that the run began with, found other bytes`);
}

/** What the flags say, else what the run had before, else the defaults. */
function recipeOf(flags: TrainFlags, before: Recipe | undefined, examples: number): Recipe {
  const batch_size = flags.batchSize ?? before?.batch_size ?? DEFAULTS.batch_size;
  const perEpoch = Math.ceil(examples / batch_size);
  const steps = flags.steps ?? (flags.epochs === undefined ? before?.steps : flags.epochs * perEpoch);
  return {
    steps: steps ?? DEFAULTS.epochs * perEpoch,
    lr: flags.lr ?? before?.lr ?? DEFAULTS.lr,
    weight_decay: flags.weightDecay ?? before?.weight_decay ?? DEFAULTS.weight_decay,
    batch_size,
    schedule: flags.schedule ?? before?.schedule ?? DEFAULTS.schedule,
    warmup_steps: flags.warmupSteps ?? before?.warmup_steps ?? DEFAULTS.warmup_steps,
    shuffle: flags.shuffle && (before?.shuffle ?? true),
    seed: flags.seed ?? before?.seed ?? DEFAULTS.seed,
    row_updates: flags.rowUpdates ?? before?.row_updates ?? DEFAULTS.row_updates,
    decay_toward: flags.decayToward ?? before?.decay_toward ?? DEFAULTS.decay_toward,
    skip_empty_steps: flags.skipEmptySteps ?? before?.skip_empty_steps ?? DEFAULTS.skip_empty_steps,
    batching: flags.batching ?? before?.batching ?? DEFAULTS.batching,
    packing: flags.packing ?? before?.packing ?? DEFAULTS.packing,
  };
}

interface Setting extends Rows {
  readonly flags: TrainFlags;
  readonly base: LanguageModel;
  readonly examples: SequenceDataset;
  readonly peft: PeftModel<LanguageModel>;
  readonly run: FineTuning;
  readonly plan: ReusePlan;
}

function announce(output: Output, { flags, base, tokenizer, ids, added, examples, peft, run, plan }: Setting): void {
  const shown = ids.map((id) => `${tokenizer?.idToToken(id) ?? "?"} → ${id}${added.includes(id) ? " (new)" : ""}`);
  const resumed = run.step > 0 ? `, from step ${run.step} on` : "";
  const { batching, packing } = run.recipe;
  const how = (batching === "bucketed" ? ", of like lengths" : "") + (packing ? ", packed" : "");
  const rows = [
    ["model", `${flags.model} (${base.config.model_type})`],
    ["rows", shown.slice(0, 8).join(", ") + (shown.length > 8 ? `, and ${shown.length - 8} more` : "")],
    ["data", `${flags.data} (${count(examples.length, "row")}, ${count(examples.tokens, "token")})`],
    ["steps", `${thousands(run.recipe.steps)} of ${count(run.recipe.batch_size, "row")}${how}${resumed}`],
    ["reuse", plan.line],
    ["backend", backendLine()],
  ];
  for (const line of columns(rows)) output.say(line);
  output.say(peft.trainableLine());
  const seen = new Set<number>();
  const { input_ids, labels } = examples.columns;
  for (const { values } of [input_ids, labels]) for (const id of values) seen.add(id);
  for (const id of ids.filter((id) => !seen.has(id))) output.note(noteOnAbsent(id, tokenizer, flags.data));
}

function noteOnAbsent(id: number, tokenizer: Tokenizer | null, data: string): string {
  const token = tokenizer?.idToToken(id);
  const needsSpace =
    token && !tokenizer!.encode(`a${token}`).includes(id) && tokenizer!.encode(`a ${token}`).includes(id);
  return (
    `note: ${token ?? id} becomes a token nowhere in ${data}; it learns only what it is not` +
    (needsSpace ? " (this tokenizer finds it only after a space)" : "")
  );
}

/** Trains to the last step, with a checkpoint now and then; when the user stops it, one more. Throws CliError then. */
async function runToEnd(
  run: FineTuning,
  output: Output,
  saveSteps: number,
  checkpoint: () => Promise<void>,
): Promise<void> {
  if (!run.done) await run.prepare();
  const progress = output.progress("training", run.recipe.steps);
  try {
    while (!run.done) {
      const loss = await run.next();
      progress.update(run.step, `loss ${loss.toFixed(4)}`);
      await breathe();
      const stopped = output.io.signal?.aborted === true && !run.done;
      if (stopped || (run.step % saveSteps === 0 && !run.done)) await checkpoint();
      if (stopped)
        throw new CliError(`stopped after step ${run.step} of ${run.recipe.steps}; --resume goes on from there`);
    }
  } finally {
    progress.stop();
  }
}
