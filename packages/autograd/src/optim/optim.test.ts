import {
  Scope,
  type Tensor,
  cast,
  full,
  mul,
  openBackend,
  parameter,
  persist,
  slice,
  randn,
  square,
  sum,
  tensor,
} from "@neolog/tensor";
import { beforeEach, describe, expect, test } from "vitest";
import { backward } from "../backward.ts";
import { type Stored, opsFolders, readJson, readSafetensors } from "../testing/golden.ts";
import { AdamW } from "./adamw.ts";
import { clipGradNorm } from "./clip.ts";
import type { Optimizer } from "./optimizer.ts";
import { type Schedule, cosineAnnealing, schedule, stepDecay } from "./schedule.ts";
import { SGD } from "./sgd.ts";

interface Golden {
  readonly optimizers: readonly {
    readonly name: string;
    readonly class: string;
    readonly args: { lr: number };
    readonly snapshots_after_steps: readonly number[];
    readonly torch_float32_error_last: number;
  }[];
  readonly grad_steps: number;
  readonly "schedules_lr_at_each_step_base_0.2": { readonly [name: string]: readonly number[] };
  readonly clip_grad_norm: readonly { readonly name: string; readonly max_norm: number; readonly total_norm: number }[];
}

const OPTIMIZERS: { readonly [name: string]: new (params: Tensor[], options: { lr: number }) => Optimizer } = {
  SGD,
  AdamW,
};

const SCHEDULES: { readonly [name: string]: Schedule } = {
  constant_warmup: schedule("constant", { warmupSteps: 4, totalSteps: 20 }),
  linear_warmup: schedule("linear", { warmupSteps: 4, totalSteps: 20 }),
  linear_no_warmup: schedule("linear", { totalSteps: 20 }),
  cosine_warmup: schedule("cosine", { warmupSteps: 4, totalSteps: 20 }),
  torch_cosine: cosineAnnealing({ totalSteps: 20, minFactor: 0.05 }),
  torch_step: stepDecay({ every: 5, gamma: 0.5 }),
  torch_exponential: stepDecay({ every: 1, gamma: 0.9 }),
};

describe.each(opsFolders())("torch's optimizers, $name", ({ path }) => {
  const golden = readJson(`${path}/optim.json`) as Golden;
  const stored = readSafetensors(`${path}/optim.safetensors`);
  const load = (key: string): Tensor => tensor(stored.get(key)!.data, stored.get(key)!.shape);

  const ours = golden.optimizers.filter((each) => OPTIMIZERS[each.class]);
  test("holds four cases each of SGD and AdamW", () => {
    expect(ours.map((each) => each.class)).toEqual([...Array(4).fill("SGD"), ...Array(4).fill("AdamW")]);
  });
  test.each(ours)("$name", ({ name, class: of, args, snapshots_after_steps, torch_float32_error_last }) => {
    const p = parameter(load("param0"));
    const optimizer = new OPTIMIZERS[of]!([p], args);
    for (let step = 1; step <= golden.grad_steps; step++) {
      using scope = new Scope();
      p.grad = load(`grad.${step - 1}`);
      optimizer.step();
      if (snapshots_after_steps.includes(step))
        expectNear(p, stored.get(`${name}/param.${step}`)!, 4 * torch_float32_error_last + 2e-7);
      scope[Symbol.dispose]();
    }
  });
  test.each(Object.entries(SCHEDULES))("the schedule %s", (name, factor) => {
    const rates = golden["schedules_lr_at_each_step_base_0.2"][name]!;
    rates.forEach((rate, step) => expect(0.2 * factor(step)).toBeCloseTo(rate, 12));
  });
  test.each(golden.clip_grad_norm)("$name", ({ name, max_norm, total_norm }) => {
    using _ = new Scope();
    const given = [...stored.keys()].filter((key) => key.startsWith(`${name}/in.`));
    const params = given.map((key) => {
      const p = parameter(load(key));
      p.grad = load(key);
      return p;
    });
    expect(clipGradNorm(params, max_norm).dataSync()[0]).toBeCloseTo(total_norm, 5);
    given.forEach((key, i) => expectNear(params[i]!.grad!, stored.get(key.replace("/in.", "/out."))!, 2e-6));
  });
});

function expectNear(actual: Tensor, { data }: Stored, tolerance: number): void {
  const values = actual.dataSync();
  data.forEach((value: number, i: number) => {
    if (!(Math.abs(values[i]! - value) <= tolerance))
      expect.fail(`[${i}] must be ${value} ± ${tolerance}, got ${values[i]}`);
  });
}

describe("an optimizer", () => {
  let p: Tensor;
  beforeEach(() => {
    p = parameter(randn([3, 2], 1));
  });
  const train = (optimizer: Optimizer, target: Tensor, steps: number): void => {
    for (let step = 0; step < steps; step++) {
      using scope = new Scope();
      optimizer.zeroGrad();
      backward(sum(square(mul(target, step + 1))));
      optimizer.step();
      scope[Symbol.dispose]();
    }
  };

  test.each([
    ["AdamW", (params: Tensor[]) => new AdamW(params)],
    ["SGD", (params: Tensor[]) => new SGD(params, { momentum: 0.9 })],
  ])("%s resumes bit for bit", async (_, make) => {
    const [first, through] = [make([p]), parameter(mul(p, 1))];
    train(make([through]), through, 6);
    train(first, p, 3);
    const saved = new Map([...first.stateDict()].map(([key, t]) => [key, persist(mul(t, 1))]));
    expect([...saved.keys()][0]).toBe("0.step");

    const resumed = make([p]);
    await resumed.loadStateDict(saved);
    for (let step = 3; step < 6; step++) {
      resumed.zeroGrad();
      backward(sum(square(mul(p, step + 1))));
      resumed.step();
    }
    expect(p.dataSync()).toEqual(through.dataSync());
  });

  test("leaves parameters without a gradient alone", () => {
    const other = parameter(randn([2], 2));
    const before = other.dataSync();
    const optimizer = new AdamW([p, other], { weight_decay: 0.5 });
    train(optimizer, p, 2);
    expect(other.dataSync()).toEqual(before);
    expect([...optimizer.stateDict().keys()]).toEqual(["0.step", "0.exp_avg", "0.exp_avg_sq"]);
  });

  test("follows a rate that is set between steps", () => {
    const optimizer = new SGD([p], { lr: 0 });
    const before = p.dataSync();
    train(optimizer, p, 1);
    expect(p.dataSync()).toEqual(before);
    optimizer.lr = 0.5;
    train(optimizer, p, 1);
    expect([...p.dataSync()].map(Math.abs)).toEqual([0, 0, 0, 0, 0, 0]);
  });

  test("trains a strided view and nothing beside it", async () => {
    const backend = await openBackend("cpu");
    const whole = full([2, 2], 1, "float32", backend);
    const column = parameter(slice(whole, 1, 0, 1));
    column.grad = tensor([1, -1], [2, 1], "float32", backend);
    new AdamW([column], { lr: 0.25, weight_decay: 0, eps: 0 }).step();
    expect([...whole.dataSync()]).toEqual([0.75, 1, 1.25, 1].map(Math.fround));
  });

  test("frees its state and the gradients", () => {
    const optimizer = new AdamW([p]);
    backward(sum(square(p)));
    optimizer.step();
    const grad = p.grad!;
    const { backend } = p;
    const before = backend.live;
    optimizer.zeroGrad();
    optimizer.dispose();
    expect([grad.disposed, p.grad]).toEqual([true, null]);
    expect(before - backend.live).toBe(3);
  });

  test("names what it cannot use", async () => {
    expect(() => new AdamW([])).toThrow("AdamW: there must be a parameter to train, got none");
    expect(() => new AdamW([cast(p, "bfloat16")])).toThrow(
      "AdamW: parameters must be float32; cast and train a copy, got bfloat16",
    );
    expect(() => new AdamW([p], { lr: -1 })).toThrow("AdamW: lr must be at least 0, got -1");
    expect(() => new AdamW([p], { betas: [0.9, 1] })).toThrow("AdamW: betas must be in [0, 1), got [0.9, 1]");
    expect(() => new SGD([p], { lr: 1, nesterov: true })).toThrow(
      "SGD: nesterov must be without dampening, with momentum, got true",
    );
    const wrong = new Map([
      ["0.step", tensor([1], [])],
      ["1.exp_avg", p],
    ]);
    await expect(new AdamW([p]).loadStateDict(wrong)).rejects.toThrow(
      "loadStateDict: keys must be those of this optimizer's parameters, missing [0.exp_avg, 0.exp_avg_sq], unexpected [1.exp_avg]",
    );
  });
});
