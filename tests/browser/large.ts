import { Scope, add, matmul, openBackend, randn, softmax } from "@neolog/tensor";
import type { Large } from "./report.ts";

/** Operations that are large enough to be shared among threads, and the sum of their results' bits. */
export async function computeLarge(threads: number): Promise<Large> {
  using _scope = new Scope();
  const backend = await openBackend("wasm", { threads });
  const [x, y] = [randn([512, 768], 1, "float32", backend), randn([768, 2304], 2, "float32", backend)];
  let bits = 0;
  for (let round = 0; round < 20; round++) {
    using _round = new Scope();
    const result = softmax(add(matmul(x, y), round));
    for (const word of new Uint32Array((await result.data()).buffer)) bits = (bits + word) >>> 0;
  }
  const { info } = backend;
  await (backend as typeof backend & { close(): Promise<void> }).close();
  return { threads: Number(info["threads"]), bits };
}
