import { DTypeError, Scope, type Tensor, detach, mul, randn, sum, tensor, untracked } from "@neolog/tensor";
import { GradientError, backward } from "./backward.ts";

export interface GradcheckOptions {
  /** Half the distance of the two points of a difference. */
  readonly step?: number;
  /** |analytic − numeric| may be tolerance·(1 + |numeric|). */
  readonly tolerance?: number;
}

/**
 * Compares the gradients of f at `inputs` with central differences, element by element, through a random projection of f's output.
 * Inputs are float64 (reference backend), of any strides; `f` must be smooth within `step` of them.
 * Throws GradientError naming the first element that is off, DTypeError for other dtypes.
 */
export function gradcheck(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  { step = 1e-6, tolerance = 1e-6 }: GradcheckOptions = {},
): void {
  const narrow = inputs.find((x) => x.dtype !== "float64");
  if (narrow) throw new DTypeError("gradcheck", "inputs must be float64", narrow.dtype);
  using _ = new Scope();
  const points = inputs.map((x) => Float64Array.from(x.dataSync()));
  const analytic = gradientsOf(f, inputs);
  inputs.forEach((x, k) => {
    for (let i = 0; i < x.size; i++) {
      const at = (shift: number): number =>
        projected(
          f,
          inputs,
          points.with(
            k,
            points[k]!.map((value, j) => (j === i ? value + shift : value)),
          ),
        );
      const numeric = (at(step) - at(-step)) / (2 * step);
      const off = Math.abs(analytic[k]![i]! - numeric);
      if (!(off <= tolerance * (1 + Math.abs(numeric)))) {
        throw new GradientError(
          `gradcheck: the gradient of element ${i} of input ${k} must be ${numeric} by differences, got ${analytic[k]![i]}`,
        );
      }
    }
  });
}

/** What the output is multiplied with before it is summed, so that no two of its elements count the same. */
const weights = (y: Tensor): Tensor => randn(y.shape, 1, y.dtype, y.backend);

/** The gradient of a random projection of f's output at each input, zeros where none arrives. */
export const gradientsOf = (f: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[]): Float64Array[] =>
  gradientTensors(f, inputs).map((g, k) => Float64Array.from(g?.dataSync() ?? new Float64Array(inputs[k]!.size)));

/** The same where the backend holds them; null where none arrives. */
export function gradientTensors(f: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[]): (Tensor | null)[] {
  const leaves = inputs.map((x) => {
    const leaf = detach(x);
    leaf.requiresGrad = true;
    return leaf;
  });
  const y = f(...leaves);
  backward(y, weights(y));
  return leaves.map((leaf) => leaf.grad);
}

/** Σ weights·f at other values of the inputs. */
function projected(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  points: readonly Float64Array[],
): number {
  using _ = new Scope();
  return untracked(() => {
    const y = f(...inputs.map((x, k) => tensor(points[k]!, x.shape, "float64", x.backend)));
    return sum(mul(y, weights(y))).dataSync()[0]!;
  });
}
