import type { Backend, Buffer } from "../backend.ts";
import type { DType } from "../dtype.ts";
import { BackendError } from "../errors.ts";

const noElements = (): never => {
  throw new BackendError("meta: an operation needs elements, got tensors that have a shape alone");
};

/** Shapes and dtypes without elements, as torch's meta device: for models whose weights are still to come. */
export class MetaBackend implements Backend {
  readonly name = "meta";
  readonly info = { name: "meta" };
  readonly exact = true;
  readonly bytes = { live: 0, peak: 0 };
  readonly dtypes: readonly DType[] = ["float64", "float32", "int32", "bfloat16", "float16"];
  #live = 0;

  get live(): number {
    return this.#live;
  }
  allocate(dtype: DType, length: number): Buffer {
    this.#live++;
    return { dtype, length };
  }
  free(): void {
    this.#live--;
  }
  fill(): void {
    // there is nothing to fill
  }
  readonly write = noElements;
  readonly read = noElements;
  readonly pointwise = noElements;
  readonly reduce = noElements;
  readonly matmul = noElements;
  readonly takeRows = noElements;
  readonly addRows = noElements;
  readonly copy = noElements;
  readonly random = noElements;
}
