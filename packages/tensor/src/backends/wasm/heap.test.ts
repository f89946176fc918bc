import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { BYTES_PER_ELEMENT, type DType } from "../../dtype.ts";
import { BackendError } from "../../errors.ts";
import { Random } from "../../random.ts";
import { Heap, type WasmBuffer } from "./heap.ts";
import { heapStart } from "./layoutOfMemory.ts";

const DTYPES = ["float32", "int32", "bfloat16", "float16"] as const;
const bytesOf = ({ dtype, length }: WasmBuffer): number => length * BYTES_PER_ELEMENT[dtype];

/** Allocate this many elements, or free the buffer that is this far along the live ones. */
type Step = { readonly dtype: DType; readonly length: number } | { readonly free: number };

/** Sizes as models have them: mostly small, some of the same size again and again, now and then megabytes. */
const length = fc.oneof(
  fc.nat(300),
  fc.constantFrom(768, 2304, 98_304, 786_432),
  fc.integer({ min: 200_000, max: 1_500_000 }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ dtype: fc.constantFrom(...DTYPES), length }),
  fc.record({ free: fc.nat(1000) }),
);

function play(heap: Heap, live: WasmBuffer[], next: Step): void {
  if ("length" in next) live.push(heap.allocate(next.dtype, next.length));
  else if (live.length > 0) heap.free(live.splice(next.free % live.length, 1)[0]!);
}

/** Live buffers are aligned, inside the memory behind what the kernels use, with a page after them, and apart from each other. */
function checkPlaces(heap: Heap, live: readonly WasmBuffer[], threads: number): void {
  const byAddress = live.toSorted((a, b) => a.memory.index - b.memory.index || a.address - b.address);
  byAddress.forEach((buffer, i) => {
    const end = buffer.address + bytesOf(buffer);
    expect(buffer.address % 64).toBe(0);
    expect(buffer.address).toBeGreaterThanOrEqual(heapStart(threads));
    expect(end + 65_536).toBeLessThanOrEqual(heap.memories[buffer.memory.index]!.size);
    const next = byAddress[i + 1];
    if (next?.memory === buffer.memory) expect(next.address).toBeGreaterThanOrEqual(end);
  });
}

describe("Heap", () => {
  test("buffers never overlap, and are counted, whatever is allocated and freed", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), fc.integer({ min: 1, max: 3 }), (steps, threads) => {
        const heap = new Heap(threads);
        const live: WasmBuffer[] = [];
        let peak = 0;
        for (const next of steps) {
          play(heap, live, next);
          const bytes = live.reduce((sum, buffer) => sum + bytesOf(buffer), 0);
          peak = Math.max(peak, bytes);
          expect(heap.live).toBe(live.length);
          expect(heap.bytes).toEqual({ live: bytes, peak });
        }
        checkPlaces(heap, live, threads);
        const report = heap.report();
        for (const dtype of DTYPES)
          expect(report.byDType[dtype] ?? 0).toBe(
            live.filter((buffer) => buffer.dtype === dtype).reduce((sum, buffer) => sum + bytesOf(buffer), 0),
          );
        expect(report).toMatchObject({ ...heap.bytes, memories: heap.memories.length });
        for (const buffer of live) heap.free(buffer);
        expect(heap.live).toBe(0);
        expect(heap.bytes).toEqual({ live: 0, peak });
      }),
      { numRuns: 100 },
    );
  });

  test("the contents of a buffer stay while others come and go and memory grows", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const heap = new Heap(1);
        const live: WasmBuffer[] = [];
        const kept = [0, 1, 2].map((value) => {
          const buffer = heap.allocate("int32", 1000 * value + 3);
          buffer.data.fill(value);
          return buffer;
        });
        for (const next of steps) {
          play(heap, live, next);
          live.at(-1)?.data.fill(77);
        }
        kept.forEach((buffer, value) => expect(buffer.data.every((x) => x === value)).toBe(true));
      }),
      { numRuns: 40 },
    );
  });

  /** Blocks are an eighth too large at most above 1 KiB, memory grows by 32 MiB or more, and blocks reused out of order leave gaps. */
  test("memory takes at most twice what was ever live, and one step of growth, where all is freed in between", () => {
    fc.assert(
      fc.property(fc.array(fc.array(length, { minLength: 1, maxLength: 12 }), { maxLength: 20 }), (rounds) => {
        const heap = new Heap(1);
        for (const round of rounds)
          for (const buffer of round.map((n) => heap.allocate("float32", n))) heap.free(buffer);
        const { peak, reserved } = heap.report();
        expect(reserved).toBeLessThanOrEqual(heapStart(1) + 2 * peak + (33 << 20));
      }),
      { numRuns: 200 },
    );
  });

  test("blocks of ever other sizes touch at most half again what was ever live", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), (seed) => {
        const heap = new Heap(1);
        const random = new Random(seed);
        for (let step = 0; step < 200; step++) {
          const longest = 1 + random.below(64);
          const live = Array.from({ length: 60 }, () => heap.allocate("float32", longest * (1 + random.below(2000))));
          for (const i of random.permutation(live.length)) heap.free(live[i]!);
        }
        const { peak, touched, reserved } = heap.report();
        expect(touched - heapStart(1)).toBeLessThan(1.5 * peak);
        expect(touched).toBeLessThan(reserved);
      }),
      { numRuns: 10 },
    );
  });

  test("freed blocks of all sizes become one that holds them all", () => {
    const heap = new Heap(1);
    const buffers = Array.from({ length: 100 }, (_, i) => heap.allocate("float32", 1 + i * 4096));
    const total = buffers.reduce((sum, { length }) => sum + length, 0);
    const { reserved } = heap.report();
    for (const i of buffers.keys()) heap.free(buffers[(i * 37) % 100]!);
    heap.allocate("float32", total);
    expect(heap.report().reserved).toBe(reserved);
  });

  test("a loop of the same allocations never grows after its first two rounds", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        const heap = new Heap(1);
        const reserved = Array.from({ length: 12 }, () => {
          const live: WasmBuffer[] = [];
          for (const next of steps) play(heap, live, next);
          for (const buffer of live) heap.free(buffer);
          return heap.report().reserved;
        });
        expect(new Set(reserved.slice(2)).size).toBe(1);
      }),
      { numRuns: 200 },
    );
  });
});

describe("out of memory", () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });
  /** A heap with one buffer of ones. */
  function started(maxBytes?: number) {
    const heap = new Heap(1, maxBytes);
    const ones = heap.allocate("float32", 1000);
    ones.data.fill(1);
    return { heap, ones };
  }
  /** A failed allocation is a BackendError with these words, and leaves everything as it was. */
  function refused(heap: Heap, ones: WasmBuffer, length: number, message: string): void {
    const before = heap.report();
    for (const allocate of [() => heap.allocate("float32", length), () => heap.allocateIn(0, "float32", length)]) {
      expect(allocate).toThrow(new BackendError(message));
    }
    expect(heap.live).toBe(1);
    expect(heap.report()).toEqual(before);
    expect(ones.data.every((x) => x === 1)).toBe(true);
  }

  test("at the limit that was set", () => {
    const { heap, ones } = started(10_000);
    refused(
      heap,
      ones,
      2000,
      "wasm: out of memory: 8000 bytes are needed for 2000 elements of float32, 4000 bytes are in use of at most 10000",
    );
    heap.free(heap.allocate("float32", 1500));
  });
  test("where the engine does not let memory grow", () => {
    const { heap, ones } = started();
    vi.spyOn(WebAssembly.Memory.prototype, "grow").mockImplementation(() => {
      throw new RangeError("no more");
    });
    const message =
      "wasm: out of memory: 400000000 bytes are needed for 100000000 elements of float32, 4000 bytes are in use";
    refused(heap, ones, 100_000_000, message);
    refused(heap, ones, 100_000_000, message);
    vi.restoreAllMocks();
    heap.free(heap.allocate("float32", 10_000_000));
  });
  test("for more than a memory holds", () => {
    const { heap, ones } = started();
    refused(
      heap,
      ones,
      2 ** 30,
      "wasm: out of memory: 4294967296 bytes are needed for 1073741824 elements of float32, 4000 bytes are in use",
    );
  });
  test("where the engine gives no memory at all", () => {
    vi.spyOn(WebAssembly, "Memory").mockImplementation(function refuse() {
      throw new RangeError("no address space");
    });
    expect(() => new Heap(1)).toThrow(
      new BackendError("wasm: a shared memory must be to be had, the engine gave none; use cpu"),
    );
  });
});

describe("several memories", () => {
  test("a buffer goes where it is placed, and to the first memory when nothing else has room", () => {
    const heap = new Heap(1, Infinity, (dtype) => (dtype === "float32" ? 0 : 1));
    const memories = (["float32", "bfloat16", "float32", "float16"] as const).map(
      (dtype) => heap.allocate(dtype, 10).memory.index,
    );
    expect(memories).toEqual([0, 1, 0, 1]);
    expect(heap.memories.length).toBe(2);
    vi.spyOn(WebAssembly.Memory.prototype, "grow").mockImplementation(() => {
      throw new RangeError("no more");
    });
    expect(heap.allocate("bfloat16", 10).memory.index).toBe(1);
    vi.restoreAllMocks();
  });
});
