/** What the page asks of its worker. */
export type Command =
  | { readonly kind: "open"; readonly backend: BackendChoice; readonly model: string }
  | { readonly kind: "train"; readonly steps: number }
  | { readonly kind: "stop" };

/** `auto` is the fastest that runs here. */
export const BACKENDS = ["auto", "webgpu", "webgl2", "wasm", "cpu"] as const;
export type BackendChoice = (typeof BACKENDS)[number];

/** What the worker tells the page. */
export type Message =
  | ({ readonly kind: "opened" } & Opened)
  | ({ readonly kind: "training" } & Started)
  | ({ readonly kind: "step" } & Step)
  | ({ readonly kind: "trained" } & Trained)
  | { readonly kind: "failed"; readonly error: string };

export interface Opened {
  readonly backend: Chosen;
  readonly parameters: number;
  readonly table: readonly [tokens: number, hidden: number];
  readonly words: readonly Word[];
  /** Sentences that the model will read. */
  readonly sentences: readonly string[];
  readonly before: Writing;
}

/** The backend that computes, and why this one. */
export interface Chosen {
  readonly name: string;
  readonly because: string;
  readonly info: Readonly<Record<string, string | number | boolean>>;
}

export interface Word {
  readonly word: string;
  readonly token: number;
  /** What it stands for, which nobody tells the model. */
  readonly animal: string;
}

/** What a model says to the same prompts. */
export interface Writing {
  readonly texts: readonly string[];
  readonly answers: readonly Answer[];
}
export interface Answer {
  readonly prompt: string;
  readonly given: string;
  readonly right: boolean;
}

export interface Started {
  readonly trainable: number;
  readonly all: number;
  readonly steps: number;
}

export interface Step {
  /** Counted from 1. */
  readonly step: number;
  readonly loss: number;
  readonly tokensPerSecond: number;
  /** In buffers of the backend. */
  readonly bytes: number;
}

export interface Trained {
  /** False where the run was stopped before its last step. */
  readonly whole: boolean;
  readonly after: Writing;
  /** The adapter's folder. */
  readonly files: ReadonlyMap<string, Uint8Array>;
}
