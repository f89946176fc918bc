/** Where things lie in each memory, in bytes. The first 64 bytes stay unused, so that address 0 means nothing. */
export const CONTROL = 64;
/** Arguments of the running kernel; at most 192 of them. */
export const ARGS = 1024;
/** float32 constants of kernels; see constants.ts. */
export const CONSTANTS = 2048;
export const CONSTANTS_END = 8192;
/** Scratch memory of thread i begins at SCRATCH + i · SCRATCH_BYTES. */
export const SCRATCH = 65_536;
export const SCRATCH_BYTES = 1 << 20;
/** Threads at most, the main one included. */
export const MAX_THREADS = 16;
/** Buffers begin here. */
export const heapStart = (threads: number): number => SCRATCH + threads * SCRATCH_BYTES;
