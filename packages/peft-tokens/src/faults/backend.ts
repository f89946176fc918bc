import type { Backend } from "@neolog/tensor";

export class InjectedFault extends Error {
  override readonly name = "InjectedFault";
}

/** A backend that fails once, at a chosen call from when it is armed; freeing never fails. */
export class Faulty {
  readonly backend: Backend;
  #left = Infinity;

  constructor(inner: Backend) {
    const guarded = (object: object): object =>
      new Proxy(object, {
        get: (target, key) => {
          const value = Reflect.get(target, key, target) as unknown;
          if (key === "fused") return guarded(value as object);
          if (typeof value !== "function") return value;
          return (...args: unknown[]): unknown => {
            if (key !== "free") this.#step(String(key));
            return Reflect.apply(value, target, args);
          };
        },
      });
    this.backend = guarded(inner) as Backend;
  }

  #step(call: string): void {
    if (this.#left-- !== 0) return;
    throw new InjectedFault(`${call} failed, as was asked`);
  }

  /** Runs `f` with a fault at the nth call, from 0; true where the fault came. Other errors pass through. */
  async failsAt(n: number, f: () => unknown): Promise<boolean> {
    this.#left = n;
    try {
      await f();
      return false;
    } catch (error) {
      if (error instanceof InjectedFault) return true;
      throw error;
    } finally {
      this.#left = Infinity;
    }
  }
}
