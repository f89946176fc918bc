import { type GenerateOptions, type Generator, generate } from "@neolog/models";
import { Tensor, persist } from "@neolog/tensor";
import type { Adapters } from "./adapters.ts";
import type { Call, EffectiveSet, Parts } from "./effective.ts";
import { type CallOptions, batchOf, mixedCall } from "./mixedBatch.ts";

/**
 * Generates with the adapters that are in effect now, or with those of each sample. Until it ends it keeps their rows, whatever is
 * set, swapped or deleted meanwhile.
 */
export async function generateWith(
  adapters: Adapters,
  base: Generator,
  { adapterNames, ...options }: GenerateOptions & CallOptions,
): Promise<number[][]> {
  const mixed = adapterNames && mixedCall(adapters, adapterNames, batchOf(options));
  using kept = new KeptParts(adapters);
  const call = mixed ? repeated(mixed, options.num_return_sequences ?? 1) : presentCall(adapters);
  return await generate(within(base, adapters.state, { ...call, parts: kept.parts }), options);
}

/** What is set now. */
function presentCall({ state }: Adapters): Call {
  const { enabled, effective, active, applied, overlap } = state;
  return { enabled, effective, active, applied, overlap, samples: new Map(), parts: new Map() };
}

/** The parts that layers have now; their tensors live at least as long as this. */
class KeptParts implements Disposable {
  readonly parts = new Map<Parts, Parts>();
  readonly #views: Tensor[] = [];

  constructor({ layers }: Adapters) {
    for (const { parts } of layers().values()) {
      this.parts.set(parts, new Map([...parts].map(([name, part]) => [name, this.#keep(part as object)])));
    }
  }
  /** The same part over views of its tensors. */
  #keep(part: object): object {
    const fields = Object.entries(part).map(([key, value]: [string, unknown]) => {
      if (!(value instanceof Tensor)) return [key, value] as const;
      const view = persist(Tensor.viewing(value, value.layout));
      this.#views.push(view);
      return [key, view] as const;
    });
    return Object.fromEntries(fields);
  }
  [Symbol.dispose](): void {
    for (const view of this.#views) view.dispose();
  }
}

/** Each sample several times, one after the other. */
function repeated(call: Call, copies: number): Call {
  const times = (flags: readonly boolean[]): boolean[] =>
    flags.flatMap((flag) => Array.from({ length: copies }, () => flag));
  return { ...call, samples: new Map([...call.samples].map(([name, flags]) => [name, times(flags)])) };
}

/** The model, each step of which is part of the call. */
function within(base: Generator, state: EffectiveSet, call: Call): Generator {
  return {
    config: base.config,
    generationConfig: base.generationConfig,
    decoding: (prompt) => {
      const decoding = state.during(call, () => base.decoding(prompt));
      return {
        ids: decoding.ids,
        next: () => state.during(call, () => decoding.next()),
        dispose: () => decoding.dispose(),
      };
    },
  };
}
