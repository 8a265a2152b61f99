/**
 * Optimisers and learning-rate schedules.
 *
 * AdamW: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019,
 * arXiv:1711.05101, algorithm 2; with D. P. Kingma and J. Ba, "Adam", arXiv:1412.6980 for the moments.
 * SGD with momentum and Nesterov's variant in PyTorch's form: I. Sutskever et al., ICML 2013, with the
 * learning rate outside the velocity. Clipping by global norm: R. Pascanu et al., arXiv:1211.5063,
 * algorithm 1. Warm-up and cosine: arXiv:1608.03983, equation 5, without restarts.
 *
 * A parameter is updated in place by one kernel of ours on the wasm backend, and by the plain tfjs
 * composition elsewhere; the composition is the oracle of the kernel's test. In place means: no new
 * tensor per step. Where a parameter shares its memory with another tensor (a clone or a reshape of
 * it that is still alive), it gets memory of its own first, so that the other one keeps its value.
 *
 * Notation: t step counted from 1; g gradient; m, v first and second moment; u velocity.
 */
import { address, type Kernels, kernels } from "./kernels/bindings.ts";
import { flatten, type ParamTree, type Tensor, tf } from "./tensor.ts";

/** A learning rate as a function of the step, counted from 0. */
export type Schedule = (step: number) => number;

/** Options for the parameters whose path matches; the first group that matches counts. */
export interface ParamGroup {
  match: (path: string) => boolean;
  /** Factor of the learning rate; default 1. */
  learningRateScale?: number;
  /** Instead of the optimiser's weight decay. */
  weightDecay?: number;
}

interface CommonOptions {
  learningRate?: number | Schedule;
  weightDecay?: number;
  /** Gradients are scaled down to this global 2-norm if theirs is greater; default: never. */
  clipNorm?: number;
  groups?: ParamGroup[];
  /** False computes with plain tfjs operations even where a kernel exists; default true. */
  fused?: boolean;
}

export interface SgdOptions extends CommonOptions {
  momentum?: number;
  nesterov?: boolean;
}

export interface AdamWOptions extends CommonOptions {
  beta1?: number;
  beta2?: number;
  eps?: number;
}

/** What a step did. */
export interface StepReport {
  /** Number of the step, counted from 1. */
  step: number;
  learningRate: number;
  /** Global 2-norm of the gradients before clipping. */
  gradNorm: number;
}

export interface Optimizer {
  /**
   * Updates the variables of `params` that have a gradient, in place; the gradients stay the caller's.
   *
   * @throws Error if a gradient holds NaN or Infinity, RangeError if it has no parameter or another
   * shape; nothing is changed then
   */
  step(
    params: ParamTree,
    grads: Record<string, Tensor | null | undefined>,
  ): StepReport;
  /** The step count and the moments by name, for `restore`; the caller disposes them. */
  state(): Record<string, Tensor>;
  /** Continues from a saved state, which stays the caller's. */
  restore(state: Record<string, Tensor>): void;
  /** Frees the moments. */
  dispose(): void;
}

/** The functions of kernels/assembly/optim.ts. */
interface OptimKernels {
  sumOfSquares(x: number, size: number): number;
  adamW(
    p: number,
    g: number,
    m: number,
    v: number,
    size: number,
    gradScale: number,
    rest1: number,
    beta2: number,
    rest2: number,
    keep: number,
    rate: number,
    rootScale: number,
    eps: number,
  ): void;
  sgd(
    p: number,
    g: number,
    u: number,
    size: number,
    gradScale: number,
    decay: number,
    momentum: number,
    nesterov: number,
    rate: number,
  ): void;
}

/** The numbers of one update of one parameter. */
interface Update {
  step: number;
  learningRate: number;
  weightDecay: number;
  /** Factor of the gradient: below 1 if it is clipped. */
  gradScale: number;
}

/** What distinguishes one optimiser from another. */
interface Rule {
  /** Names of the tensors kept for each parameter. */
  slots: string[];
  /** In place, on addresses. */
  fused(
    k: OptimKernels,
    p: number,
    g: number,
    slots: number[],
    size: number,
    update: Update,
  ): void;
  /** New parameter, then new slots. */
  composed(p: Tensor, g: Tensor, slots: Tensor[], update: Update): Tensor[];
}

/** Added to the norm that divides, as in torch.nn.utils.clip_grad_norm_. */
const CLIP_EPS = 1e-6;

/** Throws unless `value` is a finite number in [min, max). */
function checkNumber(
  what: string,
  name: string,
  value: number,
  min = 0,
  max = Infinity,
): void {
  if (!(value >= min && value < max)) {
    throw new RangeError(
      `Cannot make ${what} as ${name} must be in [${min}, ${max}): ${value}`,
    );
  }
}

function checkSteps(what: string, steps: number): void {
  if (!Number.isInteger(steps) || steps < 1) {
    throw new RangeError(
      `Cannot make ${what} as steps must be a positive integer: ${steps}`,
    );
  }
}

/** The same learning rate at every step. */
export function constant(learningRate: number): Schedule {
  checkNumber("a constant schedule", "learningRate", learningRate);
  return () => learningRate;
}

/**
 * A learning rate that falls on a line from `learningRate` at step 0 to `floor` at step `steps`, and
 * stays there.
 *
 * @example
 * linear({ learningRate: 1, steps: 10 })(5); // 0.5
 */
export function linear(
  { learningRate, steps, floor = 0 }: {
    learningRate: number;
    steps: number;
    floor?: number;
  },
): Schedule {
  checkNumber("a linear schedule", "learningRate", learningRate);
  checkNumber("a linear schedule", "floor", floor);
  checkSteps("a linear schedule", steps);
  return (step) =>
    learningRate + (floor - learningRate) * Math.min(step / steps, 1);
}

/**
 * A learning rate that falls on half a cosine from `learningRate` at step 0 to `floor` at step
 * `steps`, and stays there.
 *
 * lr = floor + (learningRate - floor) (1 + cos(pi step / steps)) / 2 (arXiv:1608.03983, equation 5)
 *
 * @example
 * cosine({ learningRate: 1, steps: 10 })(5); // 0.5
 */
export function cosine(
  { learningRate, steps, floor = 0 }: {
    learningRate: number;
    steps: number;
    floor?: number;
  },
): Schedule {
  checkNumber("a cosine schedule", "learningRate", learningRate);
  checkNumber("a cosine schedule", "floor", floor);
  checkSteps("a cosine schedule", steps);
  return (step) =>
    floor +
    (learningRate - floor) *
      (1 + Math.cos(Math.PI * Math.min(step / steps, 1))) / 2;
}

/**
 * A schedule that first climbs on a line to the start of `after`, in `steps` steps.
 *
 * The first step has the rate after(0) / steps, not 0, so that it is not wasted; `after` counts from
 * the end of the climb.
 *
 * @example
 * [0, 1, 2, 3, 4].map(warmup(4, constant(1))); // [0.25, 0.5, 0.75, 1, 1]
 */
export function warmup(steps: number, after: Schedule): Schedule {
  checkSteps("a warm-up", steps);
  return (step) =>
    step < steps ? after(0) * (step + 1) / steps : after(step - steps);
}

/** The kernels if this backend has them. */
function optimKernels(): OptimKernels | null {
  return kernels() as (Kernels & OptimKernels) | null;
}

/** A tensor with a copy of the data. */
function copyOf(t: Tensor): Tensor {
  return tf.keep(tf.tensor(t.dataSync(), t.shape, t.dtype));
}

/** True if another tensor lives on the same data. */
function isShared(t: Tensor): boolean {
  return tf.backend().refCount(t.dataId) > 1;
}

/** Sum of the squares of each gradient. */
function sumsOfSquares(grads: Tensor[], k: OptimKernels | null): number[] {
  if (k !== null) return grads.map((g) => k.sumOfSquares(address(g), g.size));
  return Array.from(
    tf.tidy(() => tf.stack(grads.map((g) => tf.sum(tf.square(g)))).dataSync()),
  );
}

class RuleOptimizer implements Optimizer {
  private steps = 0;
  private readonly slots = new Map<string, Tensor[]>();
  private readonly rule: Rule;
  private readonly options: Required<Omit<CommonOptions, "clipNorm">> & {
    clipNorm?: number;
  };

  constructor(
    rule: Rule,
    what: string,
    {
      learningRate = 1e-3,
      weightDecay = 0,
      clipNorm,
      groups = [],
      fused = true,
    }: CommonOptions,
  ) {
    if (typeof learningRate === "number") {
      checkNumber(what, "learningRate", learningRate);
    }
    checkNumber(what, "weightDecay", weightDecay);
    if (clipNorm !== undefined && !(clipNorm > 0)) {
      throw new RangeError(
        `Cannot make ${what} as clipNorm must be above 0: ${clipNorm}`,
      );
    }
    for (const group of groups) {
      checkNumber(what, "learningRateScale", group.learningRateScale ?? 1);
      checkNumber(what, "weightDecay", group.weightDecay ?? 0);
    }
    this.rule = rule;
    this.options = { learningRate, weightDecay, clipNorm, groups, fused };
  }

  /** The tensors kept for a parameter, zero at first. */
  private slotsOf(path: string, variable: Tensor): Tensor[] {
    let slots = this.slots.get(path);
    if (slots === undefined) {
      slots = this.rule.slots.map(() => tf.keep(tf.zerosLike(variable)));
      this.slots.set(path, slots);
    }
    return slots;
  }

  /** The parameters that have a gradient, checked. */
  private pairs(
    params: ParamTree,
    grads: Record<string, Tensor | null | undefined>,
  ): { path: string; variable: tf.Variable; grad: Tensor }[] {
    const leaves = flatten(params);
    const cannot = `Cannot take step ${this.steps + 1}`;
    const pairs = Object.entries(grads).flatMap(([path, grad]) => {
      if (grad === null || grad === undefined) return [];
      const variable = leaves[path];
      if (!(variable instanceof tf.Variable)) {
        throw new RangeError(
          `${cannot} as every gradient needs a variable of the same path: "${path}" is ${
            variable === undefined ? "not a parameter" : "a constant tensor"
          }`,
        );
      }
      const slots = this.slots.get(path) ?? [];
      for (const other of [grad, ...slots]) {
        if (String(other.shape) !== String(variable.shape)) {
          throw new RangeError(
            `${cannot} as the gradient and the state of "${path}" must have its shape: [${variable.shape}] and [${other.shape}]`,
          );
        }
      }
      return [{ path, variable, grad }];
    });
    if (pairs.length === 0) {
      throw new RangeError(`${cannot} as no parameter has a gradient`);
    }
    return pairs;
  }

  step(
    params: ParamTree,
    grads: Record<string, Tensor | null | undefined>,
  ): StepReport {
    const { clipNorm, groups, weightDecay, fused } = this.options;
    const step = this.steps + 1;
    const pairs = this.pairs(params, grads);
    const schedule = this.options.learningRate;
    const learningRate = typeof schedule === "number"
      ? schedule
      : schedule(this.steps);
    if (!(learningRate >= 0 && learningRate < Infinity)) {
      throw new RangeError(
        `Cannot take step ${step} as the learning rate must be finite and >= 0: ${learningRate}`,
      );
    }

    const k = fused ? optimKernels() : null;
    const squares = sumsOfSquares(pairs.map(({ grad }) => grad), k);
    const bad = squares.findIndex((s) => !Number.isFinite(s));
    if (bad >= 0) {
      throw new Error(
        `Cannot take step ${step} as the gradient of "${
          pairs[bad].path
        }" must be finite: its norm is ${
          Math.sqrt(squares[bad])
        }; lower the learning rate or set clipNorm`,
      );
    }
    const gradNorm = Math.sqrt(squares.reduce((a, b) => a + b));
    const gradScale = clipNorm === undefined
      ? 1
      : Math.min(1, clipNorm / (gradNorm + CLIP_EPS));

    for (const { path, variable, grad } of pairs) {
      const group = groups.find(({ match }) => match(path));
      const update: Update = {
        step,
        learningRate: learningRate * (group?.learningRateScale ?? 1),
        weightDecay: group?.weightDecay ?? weightDecay,
        gradScale,
      };
      const slots = this.slotsOf(path, variable);
      if (k !== null) this.updateInPlace(k, variable, grad, slots, update);
      else this.updateByAssigning(variable, grad, slots, update);
    }
    this.steps = step;
    return { step, learningRate, gradNorm };
  }

  private updateInPlace(
    k: OptimKernels,
    variable: tf.Variable,
    grad: Tensor,
    slots: Tensor[],
    update: Update,
  ): void {
    if (isShared(variable)) {
      const own = copyOf(variable);
      variable.assign(own);
      own.dispose();
    }
    slots.forEach((slot, i) => {
      if (!isShared(slot)) return;
      slots[i] = copyOf(slot);
      slot.dispose();
    });
    this.rule.fused(
      k,
      address(variable),
      address(grad),
      slots.map(address),
      variable.size,
      update,
    );
  }

  private updateByAssigning(
    variable: tf.Variable,
    grad: Tensor,
    slots: Tensor[],
    update: Update,
  ): void {
    const [next, ...nextSlots] = tf.tidy(() =>
      this.rule.composed(variable, grad, slots, update)
    );
    variable.assign(next);
    next.dispose();
    slots.forEach((slot, i) => {
      slots[i] = tf.keep(nextSlots[i]);
      slot.dispose();
    });
  }

  state(): Record<string, Tensor> {
    const state: Record<string, Tensor> = { step: tf.scalar(this.steps) };
    for (const [path, slots] of this.slots) {
      slots.forEach((slot, i) => {
        state[`${this.rule.slots[i]}.${path}`] = slot.clone();
      });
    }
    return state;
  }

  restore(state: Record<string, Tensor>): void {
    const found = new Map<string, Tensor[]>();
    for (const [name, tensor] of Object.entries(state)) {
      if (name === "step") continue;
      const [slot] = name.split(".", 1);
      const at = this.rule.slots.indexOf(slot);
      if (at < 0) {
        throw new RangeError(
          `Cannot restore the optimiser as it keeps ${
            this.rule.slots.join(" and ") || "no tensors"
          }: "${name}"`,
        );
      }
      const path = name.slice(slot.length + 1);
      const slots = found.get(path) ?? [];
      slots[at] = tensor;
      found.set(path, slots);
    }
    const steps = state.step?.dataSync()[0];
    if (!Number.isInteger(steps) || steps < 0) {
      throw new RangeError(
        `Cannot restore the optimiser as its state must hold a step count: ${steps}`,
      );
    }
    for (const [path, slots] of found) {
      this.rule.slots.forEach((slot, i) => {
        if (slots[i] === undefined) {
          throw new RangeError(
            `Cannot restore the optimiser as its state lacks "${slot}.${path}"`,
          );
        }
      });
    }
    this.dispose();
    this.steps = steps;
    for (const [path, slots] of found) {
      this.slots.set(path, slots.map((slot) => tf.keep(slot.clone())));
    }
  }

  dispose(): void {
    for (const slots of this.slots.values()) tf.dispose(slots);
    this.slots.clear();
    this.steps = 0;
  }
}

/**
 * Stochastic gradient descent; equals `torch.optim.SGD`.
 *
 * d = g + weightDecay p; u = momentum u + d; p = p - lr u, with Nesterov p = p - lr (d + momentum u)
 *
 * @param learningRate number >= 0 or schedule, default 1e-3
 * @param momentum in [0, 1), default 0
 * @param nesterov default false
 * @param weightDecay >= 0, default 0; here a term of the gradient, not decoupled
 *
 * @example
 * const optimizer = sgd({ learningRate: 0.1, momentum: 0.9 });
 * const { value, grads } = valueAndGrads(() => loss(params, batch), params);
 * const { gradNorm } = optimizer.step(params, grads);
 */
export function sgd(options: SgdOptions = {}): Optimizer {
  const { momentum = 0, nesterov = false } = options;
  checkNumber("SGD", "momentum", momentum, 0, 1);
  if (nesterov && momentum === 0) {
    throw new RangeError(
      "Cannot make SGD as nesterov needs a momentum above 0: momentum 0",
    );
  }
  const rule: Rule = {
    slots: momentum > 0 ? ["velocity"] : [],
    fused: (k, p, g, [u = 0], size, { learningRate, weightDecay, gradScale }) =>
      k.sgd(
        p,
        g,
        u,
        size,
        gradScale,
        weightDecay,
        momentum,
        nesterov ? 1 : 0,
        learningRate,
      ),
    composed(p, g, slots, { learningRate, weightDecay, gradScale }) {
      const d = tf.add(tf.mul(g, gradScale), tf.mul(p, weightDecay));
      if (momentum === 0) return [tf.sub(p, tf.mul(d, learningRate))];
      const u = tf.add(tf.mul(slots[0], momentum), d);
      const change = nesterov ? tf.add(d, tf.mul(u, momentum)) : u;
      return [tf.sub(p, tf.mul(change, learningRate)), u];
    },
  };
  return new RuleOptimizer(rule, "SGD", options);
}

/**
 * AdamW: Adam with decoupled weight decay; equals `torch.optim.AdamW`.
 *
 * m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
 * p = p - lr weightDecay p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 * (arXiv:1711.05101, algorithm 2; the decay is scaled by lr as in PyTorch)
 *
 * @param learningRate number >= 0 or schedule, default 1e-3 (arXiv:1412.6980, section 2)
 * @param beta1 in [0, 1), default 0.9 (as above)
 * @param beta2 in [0, 1), default 0.999 (as above)
 * @param eps > 0, default 1e-8 (as above)
 * @param weightDecay >= 0, default 0.01 (PyTorch)
 *
 * @example
 * const optimizer = adamW({
 *   learningRate: warmup(100, cosine({ learningRate: 3e-4, steps: 1000 })),
 *   clipNorm: 1,
 *   groups: [{ match: (path) => path.includes("norm"), weightDecay: 0 }],
 * });
 */
export function adamW(options: AdamWOptions = {}): Optimizer {
  const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0.01 } =
    options;
  checkNumber("AdamW", "beta1", beta1, 0, 1);
  checkNumber("AdamW", "beta2", beta2, 0, 1);
  checkNumber("AdamW", "eps", eps, Number.MIN_VALUE);
  /** lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t). */
  const corrections = ({ step, learningRate }: Update) => ({
    rate: learningRate / (1 - beta1 ** step),
    rootScale: 1 / Math.sqrt(1 - beta2 ** step),
  });
  const rule: Rule = {
    slots: ["firstMoment", "secondMoment"],
    fused(k, p, g, [m, v], size, update) {
      const { rate, rootScale } = corrections(update);
      const keep = 1 - update.learningRate * update.weightDecay;
      const { gradScale } = update;
      const [rest1, rest2] = [1 - beta1, 1 - beta2];
      // deno-fmt-ignore
      k.adamW(p, g, m, v, size, gradScale, rest1, beta2, rest2, keep, rate, rootScale, eps);
    },
    composed(p, g, [m, v], update) {
      const { rate, rootScale } = corrections(update);
      const keep = 1 - update.learningRate * update.weightDecay;
      const scaled = tf.mul(g, update.gradScale);
      const first = tf.add(tf.mul(m, beta1), tf.mul(scaled, 1 - beta1));
      const second = tf.add(
        tf.mul(v, beta2),
        tf.mul(tf.square(scaled), 1 - beta2),
      );
      const root = tf.add(tf.mul(tf.sqrt(second), rootScale), eps);
      const change = tf.mul(tf.div(first, root), rate);
      return [tf.sub(tf.mul(p, keep), change), first, second];
    },
  };
  return new RuleOptimizer(rule, "AdamW", { ...options, weightDecay });
}
