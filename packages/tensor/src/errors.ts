import type { DType } from "./dtype.ts";

export type Shape = readonly number[];

/** `[2, 3]`, the one way a shape is printed. */
export const formatShape = (shape: Shape): string => `[${shape.join(", ")}]`;

/** The shapes given to an op cannot be combined. The message names the op and shows every shape. */
export class ShapeError extends Error {
  override readonly name = "ShapeError";
  readonly op: string;
  readonly shapes: readonly Shape[];

  constructor(op: string, mustHold: string, ...shapes: Shape[]) {
    super(`${op}: ${mustHold}${shapes.length > 0 ? `, got ${shapes.map(formatShape).join(" and ")}` : ""}`);
    this.op = op;
    this.shapes = shapes;
  }
}

/** An op does not take a tensor of this dtype. */
export class DTypeError extends Error {
  override readonly name = "DTypeError";
  readonly op: string;
  readonly dtypes: readonly DType[];

  constructor(op: string, mustHold: string, ...dtypes: DType[]) {
    super(`${op}: ${mustHold}, got ${dtypes.join(" and ")}`);
    this.op = op;
    this.dtypes = dtypes;
  }
}

/** An index points outside what it indexes. */
export class IndexError extends RangeError {
  override readonly name = "IndexError";
  readonly op: string;
  readonly index: number;

  constructor(op: string, mustHold: string, index: number) {
    super(`${op}: ${mustHold}, got ${index}`);
    this.op = op;
    this.index = index;
  }
}

/** A tensor was used after its scope ended or `dispose()` was called. */
export class DisposedError extends Error {
  override readonly name = "DisposedError";
  readonly op: string;

  constructor(op: string, shape: Shape) {
    super(
      `${op}: a tensor must be alive, got a disposed one of shape ${formatShape(shape)}; keep it with scope.keep(t)`,
    );
    this.op = op;
  }
}

/** The derivative of something that is a derivative already. */
export class DerivativeError extends Error {
  override readonly name = "DerivativeError";
  readonly op: string;

  constructor(op: string) {
    super(
      `${op}: inputs must not be tracked, got one that is: a fused gradient has no derivative of its own; detach the inputs, or call it inside noGrad`,
    );
    this.op = op;
  }
}

/** A backend is unknown, cannot run here, or cannot do what was asked. */
export class BackendError extends Error {
  override readonly name = "BackendError";
}
