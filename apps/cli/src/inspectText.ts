import type { TensorInfo } from "@neolog/checkpoint";

/** A value of a config for people. */
export const shown = (value: unknown, absent = "not given"): string =>
  typeof value === "string" ? value : value === undefined || value === null ? absent : JSON.stringify(value);

/** A tensor for programs. */
export const row = ({ name, dtype, shape }: TensorInfo) => ({ name, dtype, shape });

export const parameterCount = (tensors: readonly { readonly shape: readonly number[] }[]): number =>
  tensors.reduce((sum, { shape }) => sum + shape.reduce((product, d) => product * d, 1), 0);

export const byteCount = (infos: readonly TensorInfo[]): number =>
  infos.reduce((sum, { byteLength }) => sum + byteLength, 0);
