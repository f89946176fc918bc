import { BACKENDS, type BackendChoice, type Opened } from "./protocol.ts";

const LABELS: { readonly [B in BackendChoice]: string } = {
  auto: "the fastest for this model",
  webgpu: "the GPU, by WebGPU",
  webgl2: "the GPU, by WebGL2",
  wasm: "WebAssembly",
  cpu: "plain JavaScript",
};

interface Props {
  readonly choice: BackendChoice;
  readonly opened: Opened | null;
  readonly failed: boolean;
  readonly onChoose: (choice: BackendChoice) => void;
}

/** What the model is, what computes it and why, and the choice among what could. */
export function BackendPicker({ choice, opened, failed, onChoose }: Props) {
  return (
    <section aria-labelledby="model">
      <h2 id="model">The model</h2>
      <p aria-live="polite">
        {opened ? (
          <>
            <b>meadow</b>, a Llama of {count(opened.parameters)} parameters that knows stories about animals: a table of{" "}
            {count(opened.table[0])} tokens × {opened.table[1]} numbers, to which its output is tied.
          </>
        ) : failed ? (
          "It is not loaded."
        ) : (
          "Loading the model…"
        )}
      </p>
      <p class="backend">
        <label>
          It runs on{" "}
          <select value={choice} onChange={({ currentTarget }) => onChoose(currentTarget.value as BackendChoice)}>
            {BACKENDS.map((name) => (
              <option key={name} value={name}>
                {LABELS[name]}
              </option>
            ))}
          </select>
        </label>
        {opened && (
          <span id="chosen">
            <b>{opened.backend.name}</b>, {opened.backend.because}.
          </span>
        )}
      </p>
    </section>
  );
}

const count = (n: number): string => n.toLocaleString("en-US");
