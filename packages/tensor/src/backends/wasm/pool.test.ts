import { afterEach, describe, expect, test, vi } from "vitest";
import { BackendError } from "../../errors.ts";
import { add, at, f32, i32, load, op } from "./asm/expression.ts";
import type { FunctionBuilder } from "./asm/function.ts";
import { type Arguments, ModuleBuilder } from "./asm/module.ts";
import { Heap, type WasmBuffer } from "./heap.ts";
import { ARGS, SCRATCH } from "./layoutOfMemory.ts";
import { type LoadedModule, Pool, type PoolOptions } from "./pool.ts";
import { type PortableWorker, startWorker } from "./portableWorker.ts";

type Build = (f: FunctionBuilder, args: Arguments<"out" | "flag">, m: ModuleBuilder) => void;

const opened: Pool[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  await Promise.all(opened.splice(0).map((pool) => pool.close()));
});

/** A pool with a heap, and the workers that it started. */
function openPool(threads: number, options: PoolOptions = {}) {
  const heap = new Heap(threads, Infinity, (dtype) => (dtype === "float32" ? 1 : 0));
  const workers: PortableWorker[] = [];
  const start = (onEnd: () => void): PortableWorker => {
    const worker = startWorker(onEnd);
    workers.push(worker);
    return worker;
  };
  const pool = new Pool(heap.memories, threads, { start, ...options });
  opened.push(pool);
  return { heap, pool, workers };
}

/** A module of one kernel of (out, flag). */
function loadJob(pool: Pool, build: Build): LoadedModule {
  const m = new ModuleBuilder(["sin"]);
  m.kernel("job", { out: "i32", flag: "i32" }, (f, args) => build(f, args, m));
  return pool.add(new WebAssembly.Module(m.build()), ["job"]);
}

function call({ pool }: { readonly pool: Pool }, module: LoadedModule, args: WasmBuffer[], items: number, grain = 1) {
  const { memory } = args[0]!;
  memory.i32.set(
    args.map(({ address }) => address | 0),
    ARGS / 4,
  );
  pool.run(module, 0, memory.index, items, grain);
}

/** out[i] += n for each item. */
const adds =
  (n: number): Build =>
  (f, { out, from, to }) => {
    const i = f.local("i32");
    f.for(i, from, to, 1, () => f.store("i32.store", at(out, i, 4), add(load("i32.load", at(out, i, 4)), n)));
  };

/** Two chunks, one for each of two threads: `flag` counts those that arrived, and everybody waits until it is two. */
const together =
  (then: Build): Build =>
  (f, args, m) => {
    const { flag, scratch, out } = args;
    const mine = f.local("i32", op("i32.eq", scratch, SCRATCH));
    f.store("i32.store", at(flag, mine, 4), i32(1));
    f.repeat(() => {
      f.store("i32.store", out, i32(0)); // keeps the loads in the loop
      return op("i32.eqz", op("i32.and", load("i32.load", flag), load("i32.load", flag, 4)));
    });
    then(f, args, m);
  };

const onMain =
  (body: Build): Build =>
  (f, args, m) =>
    f.if(op("i32.eq", args.scratch, SCRATCH), () => body(f, args, m));
const onWorker =
  (body: Build): Build =>
  (f, args, m) =>
    f.if(op("i32.ne", args.scratch, SCRATCH), () => body(f, args, m));
const traps: Build = (f) => f.set(f.local("i32"), op("i32.div_u", i32(1), i32(0)));
const spins: Build = (f, { out }) =>
  f.repeat(() => {
    f.store("i32.store", out, i32(0));
    return i32(1);
  });
/** Calls Math.sin of the thread, which a test replaces. */
const callsOut: Build = (f, _, m) => f.set(f.local("f32"), m.math("sin", f32(0)));

describe.each([1, 2, 3])("%i threads", (threads) => {
  test("every item of a job is computed once, whatever its size and grain", async () => {
    const on = openPool(threads);
    const module = loadJob(on.pool, adds(1));
    const out = on.heap.allocate("int32", 5000);
    await on.pool.ready();
    const expected = new Int32Array(5000);
    for (let job = 0; job < 3000; job++) {
      const [items, grain] = [1 + ((job * 7919) % 5000), 1 + ((job * 104_729) % 700)];
      call(on, module, [out, out], items, grain);
      for (let i = 0; i < items; i++) expected[i]!++;
    }
    expect(out.data).toEqual(expected);
  });

  test("a job may need a module that no thread has seen before", async () => {
    const on = openPool(threads);
    const out = on.heap.allocate("int32", 64);
    await on.pool.ready();
    const all = 200;
    for (let n = 1; n <= all; n++) call(on, loadJob(on.pool, adds(n)), [out, out], 64);
    expect(out.data).toEqual(new Int32Array(64).fill((all * (all + 1)) / 2));
  });

  test("a job may reach into memory that has just grown, or has just been made", async () => {
    const on = openPool(threads);
    const zeroes = loadJob(on.pool, (f, { out, from, to }) =>
      f.zero(at(out, from, 4), op("i32.mul", op("i32.sub", to, from), 4)),
    );
    const module = loadJob(on.pool, adds(3));
    await on.pool.ready();
    const length = 3 << 20;
    for (const memory of [0, 0, 0, 1, 1, 1, 0]) {
      if (memory === 1 && on.heap.memories.length === 1) on.heap.allocate("float32", 1);
      const out = on.heap.allocateIn(memory, "int32", length);
      out.data.fill(7);
      call(on, zeroes, [out, out], length, 4096);
      call(on, module, [out, out], length, 4096);
      expect(out.data.every((x) => x === 3)).toBe(true);
    }
    expect(on.heap.memories[0]!.size).toBeGreaterThan(4 * 4 * length);
  });
});

describe("a kernel that traps", () => {
  test.each([
    ["alone", 1, traps, "RuntimeError: divide by zero"],
    ["on the main thread", 2, together(onMain(traps)), "RuntimeError: divide by zero"],
    ["on another thread", 2, together(onWorker(traps)), "a trap on another thread"],
  ] as const)("%s, is a BackendError, and the next job runs", async (_, threads, build, got) => {
    const on = openPool(threads);
    const [out, flag] = [on.heap.allocate("int32", 64), on.heap.allocate("int32", 2)];
    flag.data.fill(0);
    await on.pool.ready();
    expect(() => call(on, loadJob(on.pool, build), [out, flag], 2)).toThrow(
      new BackendError(`wasm: kernel job must run to its end, got ${got}`),
    );
    out.data.fill(0);
    call(on, loadJob(on.pool, adds(1)), [out, flag], 64);
    expect(out.data).toEqual(new Int32Array(64).fill(1));
    expect(on.pool.alive).toBe(threads);
  });
});

describe("a worker that dies", () => {
  test.each([2, 3])("between jobs of %i threads, is not missed", async (threads) => {
    const on = openPool(threads);
    const module = loadJob(on.pool, adds(1));
    const out = on.heap.allocate("int32", 4096);
    out.data.fill(0);
    await on.pool.ready();
    call(on, module, [out, out], 4096);
    await on.workers[0]!.terminate();
    for (let job = 0; job < 100; job++) call(on, module, [out, out], 4096);
    expect(out.data).toEqual(new Int32Array(4096).fill(101));
    expect(on.pool.alive).toBe(threads - 1);
  });

  test("while it computes, is a BackendError; then the main thread goes on alone", async () => {
    const on = openPool(2, { patience: 200 });
    const [out, flag] = [on.heap.allocate("int32", 64), on.heap.allocate("int32", 2)];
    flag.data.fill(0);
    const module = loadJob(
      on.pool,
      together((f, args, m) => {
        onMain(callsOut)(f, args, m);
        onWorker(spins)(f, args, m);
      }),
    );
    await on.pool.ready();
    let ended: Promise<void> | null = null;
    vi.spyOn(Math, "sin").mockImplementation(() => {
      ended = on.workers[0]!.terminate();
      return 0;
    });
    const before = performance.now();
    expect(() => call(on, module, [out, flag], 2)).toThrow(
      new BackendError(
        "wasm: every thread must finish its part, one did not answer for 0.2 s; going on with one thread",
      ),
    );
    expect(performance.now() - before).toBeLessThan(5000);
    expect(ended).not.toBeNull();
    expect([on.pool.alive, on.pool.threads]).toEqual([1, 1]);
    out.data.fill(0);
    call(on, loadJob(on.pool, adds(1)), [out, flag], 64);
    expect(out.data).toEqual(new Int32Array(64).fill(1));
  });

  test("or never answers, is ended", async () => {
    const on = openPool(2, { patience: 100 });
    const [out, flag] = [on.heap.allocate("int32", 64), on.heap.allocate("int32", 2)];
    flag.data.fill(0);
    await on.pool.ready();
    expect(() => call(on, loadJob(on.pool, together(onWorker(spins))), [out, flag], 2)).toThrow(BackendError);
    expect(on.pool.alive).toBe(1);
    await on.workers[0]!.terminate(); // settles: the endless loop was broken
  });
});

describe("workers", () => {
  test("that the platform does not allow are done without", async () => {
    const on = openPool(4, {
      start: () => {
        throw new Error("no threads here");
      },
    });
    const out = on.heap.allocate("int32", 64);
    out.data.fill(0);
    await on.pool.ready();
    expect([on.pool.alive, on.pool.threads]).toEqual([1, 1]);
    call(on, loadJob(on.pool, adds(1)), [out, out], 64);
    expect(out.data).toEqual(new Int32Array(64).fill(1));
  });
  test("that start late join in, and `ready` may be called at any time, also again", async () => {
    const on = openPool(2);
    const out = on.heap.allocate("int32", 64);
    out.data.fill(0);
    const module = loadJob(on.pool, adds(1));
    for (let job = 0; job < 10; job++) call(on, module, [out, out], 64);
    await on.pool.ready();
    await on.pool.ready();
    const [both, flag] = [loadJob(on.pool, together(adds(1))), on.heap.allocate("int32", 2)];
    flag.data.fill(0);
    call(on, both, [out, flag], 2); // needs two threads
    expect(out.data[40]).toBe(10);
  });
  test("end with `close`, again and again, and the pool goes on", async () => {
    const on = openPool(3);
    const out = on.heap.allocate("int32", 64);
    out.data.fill(0);
    await on.pool.ready();
    await on.pool.close();
    await on.pool.close();
    call(on, loadJob(on.pool, adds(1)), [out, out], 64);
    await on.pool.ready();
    expect(out.data).toEqual(new Int32Array(64).fill(1));
    expect(on.pool.alive).toBe(1);
  });
});
