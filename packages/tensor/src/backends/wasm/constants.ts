import { CONSTANTS, CONSTANTS_END } from "./layoutOfMemory.ts";

/**
 * float32 constants that kernels load from memory into variables once: V8's Turboshaft makes a v128.const anew for each use in a
 * loop, which is two to three times slower.
 */
const addresses = new Map<number, number>();
const values: number[] = [];

/** The address of a constant, by its bits. */
export function addressOfBits(bits: number): number {
  let address = addresses.get(bits);
  if (address === undefined) {
    address = CONSTANTS + 4 * values.length;
    if (address >= CONSTANTS_END) throw new Error(`constants: at most ${(CONSTANTS_END - CONSTANTS) / 4} fit`);
    addresses.set(bits, address);
    values.push(bits);
  }
  return address;
}

const word = new DataView(new ArrayBuffer(4));
export function addressOfFloat(x: number): number {
  word.setFloat32(0, x);
  return addressOfBits(word.getInt32(0));
}

/** Writes all constants known so far into a memory. */
export function writeConstants(memory: Int32Array): void {
  memory.set(values, CONSTANTS / 4);
}
