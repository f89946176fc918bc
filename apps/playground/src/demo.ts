import { AdamW, backward, prepareStep, schedule } from "@neolog/autograd";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  BatchSampler,
  type CausalLM,
  type Tokenizer,
  nextTask,
  padSequences,
} from "@neolog/models";
import { type PeftModel, TrainableTokensConfig, getPeftModel, tokenParameters, touchedRows } from "@neolog/peft-tokens";
import { HELD_OUT, WORDS, lessonSentences, probes, tokenOf } from "@neolog/stories";
import { type Backend, Scope, setDefaultBackend } from "@neolog/tensor";
import type { Chosen, Opened, Started, Step, Trained, Writing } from "./protocol.ts";

const LR = 0.05;
const BATCH_SIZE = 8;
const NEW_TOKENS = 24;
/** Where Python finds the model, from the root of the repository. */
export const BASE = "packages/models/pretrained/meadow";

/** The built-in model with three words that it does not know, and their training. */
export class Demo {
  readonly #backend: Backend;
  readonly #base: CausalLM;
  readonly #tokenizer: Tokenizer;
  readonly #ids: readonly number[];
  readonly #sentences = lessonSentences();

  private constructor(backend: Backend, base: CausalLM, tokenizer: Tokenizer) {
    this.#backend = backend;
    this.#base = base;
    this.#tokenizer = tokenizer;
    this.#ids = tokenizer.addTokens(Object.keys(WORDS).map(tokenOf));
    base.resizeTokenEmbeddings(tokenizer.vocabSize);
  }

  /** Loads the model from a URL onto the backend. */
  static async open(backend: Backend, folder: string): Promise<Demo> {
    setDefaultBackend(backend);
    const base = await AutoModelForCausalLM.fromPretrained(folder);
    return new Demo(backend, base, await AutoTokenizer.fromPretrained(folder));
  }

  /** What the model is, and what it makes of the words before it has read about them. */
  async describe(backend: Chosen): Promise<Opened> {
    const base = this.#base;
    return {
      backend,
      parameters: base.parameters().reduce((sum, { size }) => sum + size, 0),
      table: [base.config.vocab_size, Number(base.config["hidden_size"])],
      words: Object.entries(WORDS).map(([word, animal], i) => ({ word, animal, token: this.#ids[i]! })),
      sentences: this.#sentences,
      before: await this.#write(base),
    };
  }

  /** Trains the rows of the words from anew; `signal` ends it after a step, with what was learnt so far. */
  async train(
    steps: number,
    signal: AbortSignal,
    onStart: (started: Started) => void,
    onStep: (step: Step) => void,
  ): Promise<Trained> {
    const peft = getPeftModel(
      this.#base,
      new TrainableTokensConfig({
        token_indices: [...this.#ids],
        task_type: "CAUSAL_LM",
        base_model_name_or_path: BASE,
      }),
    );
    try {
      const { trainable, all } = peft.getNbTrainableParameters();
      onStart({ trainable, all, steps });
      const done = await this.#steps(peft, steps, signal, onStep);
      return { whole: done === steps, after: await this.#write(peft), files: await this.#files(peft) };
    } finally {
      peft.unload();
    }
  }

  async #steps(
    peft: PeftModel<CausalLM>,
    steps: number,
    signal: AbortSignal,
    onStep: (step: Step) => void,
  ): Promise<number> {
    const examples = this.#sentences.map((text) => ({
      input_ids: [...this.#tokenizer.encode(text), this.#tokenizer.eosTokenId!],
    }));
    const sampler = new BatchSampler(examples.length, { batchSize: BATCH_SIZE, shuffle: true });
    const optimizer = new AdamW(tokenParameters(peft), { lr: LR, weight_decay: 0 });
    const factor = schedule("linear", { totalSteps: steps });
    const batchAt = (step: number) => sampler.at(step).map((i) => examples[i]!);
    try {
      const first = padSequences(batchAt(0));
      await prepareStep(optimizer, () => peft.loss(first), touchedRows(peft, first));
      for (let step = 0; step < steps; step++) {
        await nextTask(); // a message may say stop
        if (signal.aborted) return step;
        using _scope = new Scope();
        const started = performance.now();
        const batch = batchAt(step);
        const inputs = padSequences(batch);
        optimizer.lr = LR * factor(step);
        const loss = peft.loss(inputs);
        backward(loss);
        optimizer.step(touchedRows(peft, inputs));
        optimizer.zeroGrad();
        const value = await loss.item();
        const tokens = batch.reduce((sum, { input_ids }) => sum + input_ids.length, 0);
        onStep({
          step: step + 1,
          loss: value,
          tokensPerSecond: (1000 * tokens) / (performance.now() - started),
          bytes: this.#backend.bytes.live,
        });
        if (!Number.isFinite(value))
          throw new RangeError(`the loss must stay a number, got ${value} in step ${step + 1}`);
      }
      return steps;
    } finally {
      optimizer.dispose();
    }
  }

  /** The greedy continuation of a question on each word, and the next word to every question that no sentence answers. */
  async #write(model: CausalLM | PeftModel<CausalLM>): Promise<Writing> {
    const words = Object.entries(WORDS);
    const texts = [];
    for (const [word] of words) texts.push(await this.#continue(model, `where does the ${word} live ?`, NEW_TOKENS));
    const answers = [];
    for (const { prompt, answer } of words.flatMap(([word, animal]) => probes(animal, word, HELD_OUT))) {
      const given = (await this.#continue(model, prompt, 1)).slice(prompt.length).trim();
      answers.push({ prompt, given, right: given === answer });
    }
    return { texts, answers };
  }

  async #continue(model: CausalLM | PeftModel<CausalLM>, prompt: string, max_new_tokens: number): Promise<string> {
    const ids = this.#tokenizer.encode(prompt);
    const [row] = await model.generate({ input_ids: [ids], max_new_tokens });
    return prompt + this.#tokenizer.decode(row!.slice(ids.length));
  }

  async #files(peft: PeftModel<CausalLM>): Promise<Map<string, Uint8Array>> {
    const files = new Map<string, Uint8Array>();
    await peft.savePretrained(files);
    for (const [name, text] of this.#tokenizer.files()) files.set(name, new TextEncoder().encode(text));
    return files;
  }
}
