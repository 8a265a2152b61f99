/**
 * Training a vision transformer with less: fewer examples, fewer tokens, fewer connections.
 *
 * Kong et al., arXiv 2211.10801. One loop for all methods: what is left out is an argument of each level.
 * Rounds and schedules of the released code count in epochs of 300; here they are shares of the training.
 */
import { augment, type Images, pickImages } from "../core/images.ts";
import { attention, klDivergence } from "../core/nn.ts";
import { adamW, cosine, warmup } from "../core/optim.ts";
import {
  fold,
  type Key,
  key as newKey,
  permutation,
  uniform,
} from "../core/rng.ts";
import {
  type ParamTree,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../core/tensor.ts";
import {
  checkImages,
  countVitMacs,
  initVit,
  patches,
  type PixelScale,
  pixelScale,
  resolveVit,
  type VitConfig,
  vitForward,
  type VitOptions,
  type VitParams,
} from "../core/vit.ts";
import { connectionMask, meanAttention } from "./connections.ts";
import {
  type Division,
  forgettingCounts,
  noStats,
  recordPresentation,
  setAside,
  swapExamples,
} from "./examples.ts";
import {
  checkShare,
  classAttention,
  classAttentionValues,
  keepAt,
  keepTokens,
  tokenCounts,
  type TokenPlan,
} from "./tokens.ts";

/** Which examples are trained on. */
export type ExampleLevel =
  /** All. */
  | { kind: "all" }
  /** These, from start to end. */
  | { kind: "fixed"; examples: ArrayLike<number> }
  /** A random part, drawn once, or anew for every epoch. */
  | { kind: "random"; aside: number; anew: boolean }
  /** A random part, from which the least forgotten are swapped against the rest in rounds. */
  | {
    kind: "rounds";
    /** Share set aside; default 0.2 (released code). */
    aside?: number;
    /** Share of all examples that each round swaps; default 0.05 (released code). */
    swap?: number;
    /**
     * Rounds, evenly over the first half of training; default 5 (released code). At most as many as epochs; those that fall
     * on one epoch are one, and the first epoch has none.
     */
    rounds?: number;
    /** Whether a round counts only since the last one, as the released code; default true. */
    window?: boolean;
  };

/** What is left out; nothing by default. */
export interface Levels {
  examples?: ExampleLevel;
  tokens?: TokenPlan;
  /** Share of its patches that a patch attends to after the first block that drops tokens. */
  connections?: number;
}

export interface TrainOptions {
  key: Key;
  levels?: Levels;
  epochs: number;
  /** Default 64. */
  batchSize?: number;
  /** Default 1e-3. */
  learningRate?: number;
  /** Default 0.05 (DeiT). */
  weightDecay?: number;
  /** Default 0.1 (DeiT). */
  labelSmoothing?: number;
  /** Random crops and, unless `flip` is false, mirrored images; default false. */
  augment?: { shift?: number; flip?: boolean } | false;
  /** Alpha of the Beta distribution of mixup (arXiv:1710.09412), 0 for none; default 0. */
  mixup?: number;
  onEpoch?: (epoch: Epoch) => void;
}

/** What one epoch took. */
export interface Epoch {
  epoch: number;
  /** Mean loss. */
  loss: number;
  examples: number;
  /** Processor time (s) of steps and of choosing examples, by the clock given to `trainVit`. */
  seconds: number;
  /** Of `seconds`: statistics and rounds. */
  selectionSeconds: number;
  /** Of `seconds`: picking images, moving and mirroring them, cutting patches. */
  batchSeconds: number;
  /** Multiplications with an addition, forward and backward (twice the forward). */
  macs: number;
}

/** A trained model with all that using it needs. */
export interface TrainedVit {
  config: VitConfig;
  params: VitParams;
  scale: PixelScale;
  /** Kept for evaluation, at its base share. */
  levels: Levels;
  epochs: Epoch[];
  /** Forgetting counts over the whole training, by example. */
  forgetting: Uint16Array;
  seen: Uint16Array;
}

/**
 * Options of a forward pass that drops tokens and connections.
 *
 * @param keep Share of tokens now, of the plan's
 * @param connections Share of connections now
 * @param onKept Told which patches stay, numbered as in the tokens before
 */
export function prunedForward(
  { tokens, connections: base }: Levels,
  { keep = tokens?.keep ?? 1, connections = base ?? 1 } = {},
  onKept?: (block: number, places: Int32Array) => void,
): VitOptions {
  if (tokens === undefined && base === undefined) return {};
  const blocks = tokens?.blocks ?? [];
  let importance: Tensor | Float32Array | null = null;
  let mask: Tensor | null = null; // [B, 1, T, T]
  // Chosen when a block first needs it: after the last block there is none that would.
  let chosen: (() => Tensor) | null = null;
  let means: (() => Float32Array) | null = null;
  return {
    attend: (q, k, v, block) => {
      if (chosen !== null) mask = chosen();
      chosen = means = null;
      if (blocks.includes(block)) {
        const before = mask ?? undefined;
        importance = tokens!.fuse === true
          ? classAttention(q, k)
          : classAttentionValues(q, k);
        if (connections < 1) means = () => meanAttention(q, k, before);
      }
      return attention(q, k, v, {
        causal: false,
        ...(mask === null ? {} : { mask }),
      });
    },
    onActivation: (name, x) => {
      const block = blocks.find((b) => name === `blocks.${b}.residual`);
      if (block === undefined || importance === null) return;
      const kept = keepTokens(x, importance, keep, tokens);
      onKept?.(block, kept.places);
      const values = means;
      if (values !== null) {
        const [B, T] = x.shape as [number, number, number];
        const S = kept.x.shape[1]!;
        const { places } = kept;
        const fused = S > places.length / B + 1;
        chosen = () =>
          tf.tensor4d(
            connectionMask(values(), [B, T], connections, { places, fused }),
            [B, 1, S, S],
          );
      }
      return kept.x;
    },
  };
}

/** (1 - s) onehot(y) + s / K, of two images in the share lambda each. */
function targets(
  labels: Uint8Array,
  others: Uint8Array,
  lambda: number,
  classes: number,
  smoothing: number,
): Tensor {
  const data = new Float32Array(labels.length * classes)
    .fill(smoothing / classes);
  for (let i = 0; i < labels.length; i++) {
    data[i * classes + labels[i]] += lambda * (1 - smoothing);
    data[i * classes + others[i]] += (1 - lambda) * (1 - smoothing);
  }
  return tf.tensor2d(data, [labels.length, classes]);
}

/** A draw of Beta(alpha, alpha) for alpha <= 1, by Johnk's method. */
function beta(key: Key, alpha: number): number {
  const draws = uniform(key, 64);
  for (let i = 0; i < 64; i += 2) {
    const x = draws[i] ** (1 / alpha);
    const y = draws[i + 1] ** (1 / alpha);
    if (x + y > 0 && x + y <= 1) return x / (x + y);
  }
  return 0.5;
}

/** Which examples an epoch presents, and what a round changes. */
function epochExamples(
  level: ExampleLevel,
  count: number,
  division: Division | null,
  key: Key,
): ArrayLike<number> {
  switch (level.kind) {
    case "all":
      return Uint32Array.from({ length: count }, (_, i) => i);
    case "fixed":
      return level.examples;
    case "random":
      return setAside(count, level.aside, level.anew ? key : fold(key, "once"))
        .active;
    case "rounds":
      return division!.active;
  }
}

function checkExamples(
  level: ExampleLevel,
  count: number,
  epochs: number,
): void {
  switch (level.kind) {
    case "all":
      return;
    case "fixed": {
      const { examples } = level;
      if (examples.length === 0) {
        throw new RangeError(
          "Cannot train as the fixed examples must be at least one: 0",
        );
      }
      const bad = Array.from(examples).findIndex((e) =>
        !Number.isInteger(e) || e < 0 || e >= count
      );
      if (bad < 0) return;
      throw new RangeError(
        `Cannot train as fixed examples must be whole numbers from 0 to ${
          count - 1
        }: ${examples[bad]} at place ${bad}`,
      );
    }
    case "random":
      return void setAside(count, level.aside, newKey(0));
    case "rounds": {
      const { aside = 0.2, swap = 0.05, rounds = 5 } = level;
      const { active, pool } = setAside(count, aside, newKey(0));
      if (!Number.isInteger(rounds) || rounds < 0 || rounds > epochs) {
        throw new RangeError(
          `Cannot train as rounds must be a whole number from 0 to the epochs: ${rounds} rounds, ${epochs} epochs; give fewer rounds or more epochs`,
        );
      }
      const most = Math.min(active.length, pool.length);
      if (!(swap >= 0) || Math.round(count * swap) > most) {
        throw new RangeError(
          `Cannot train as swap must be a share from 0 that both parts have: ${swap} of ${count} examples, ${active.length} are trained on, ${pool.length} set aside`,
        );
      }
    }
  }
}

function checkOptions(
  config: VitConfig,
  data: Images,
  { epochs, batchSize = 64, levels = {}, ...options }: TrainOptions,
): void {
  for (const [name, value] of Object.entries({ epochs, batchSize })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot train as ${name} must be a positive integer: ${value}`,
      );
    }
  }
  const resolved = resolveVit(config);
  const { numClasses } = resolved;
  checkImages(resolved, data, "train");
  const beyond = data.labels.findIndex((label) => label >= numClasses);
  if (beyond >= 0) {
    throw new RangeError(
      `Cannot train as labels must be below ${numClasses}: ${
        data.labels[beyond]
      } of image ${beyond}`,
    );
  }
  const { tokens, connections } = levels;
  if (tokens !== undefined) {
    checkShare("tokens", tokens.keep);
    const last = resolved.numLayers - 1;
    const outside = tokens.blocks.find((b) =>
      !Number.isInteger(b) || b < 0 || b > last
    );
    if (outside !== undefined) {
      throw new RangeError(
        `Cannot drop tokens as their blocks must be whole numbers from 0 to ${last}: ${outside}`,
      );
    }
  }
  if (connections !== undefined) checkShare("connections", connections);
  if (connections !== undefined && tokens === undefined) {
    throw new RangeError(
      "Cannot prune connections without tokens as the blocks that choose them are the plan's: give tokens, with keep 1 for all",
    );
  }
  const { mixup = 0, labelSmoothing = 0.1 } = options;
  for (const [name, value] of Object.entries({ mixup, labelSmoothing })) {
    if (value >= 0 && value <= 1) continue;
    throw new RangeError(
      `Cannot train as ${name} must be from 0 to 1: ${value}`,
    );
  }
  if (levels.examples !== undefined) {
    checkExamples(levels.examples, data.count, epochs);
  }
}

/**
 * Trains a vision transformer, with any of the three levels.
 *
 * AdamW with 5 % of warm-up and a cosine to a hundredth, as DeiT in small. Both shares fall from 1 to
 * their base between 1/30 and 11/30 of training.
 *
 * @param clock Seconds, rising: what times are measured by
 * @throws {RangeError} if images, labels, sizes or shares do not fit
 */
export function trainVit(
  config: VitConfig,
  data: Images,
  options: TrainOptions,
  clock: () => number = () => 0,
): TrainedVit {
  checkOptions(config, data, options);
  const { key, epochs, levels = {}, batchSize = 64, learningRate = 1e-3 } =
    options;
  const { weightDecay = 0.05, labelSmoothing = 0.1, mixup = 0 } = options;
  const { examples: level = { kind: "all" } as ExampleLevel } = levels;
  const { aside = 0.2, swap = 0.05, rounds = 5, window: forgets = true } =
    level.kind === "rounds" ? level : {};
  const resolved = resolveVit(config);
  const params = initVit(config, fold(key, "init"));
  const scale = pixelScale(data);
  const ramp = { start: epochs / 30, end: 11 * epochs / 30 };
  let division = level.kind === "rounds"
    ? setAside(data.count, aside, fold(key, "aside"))
    : null;
  const first = epochExamples(level, data.count, division, key).length;
  const steps = epochs * Math.ceil(first / batchSize);
  const climb = Math.max(1, Math.round(steps / 20));
  const optimizer = adamW({
    learningRate: warmup(
      climb,
      cosine({
        learningRate,
        steps: Math.max(1, steps - climb),
        floor: learningRate / 100,
      }),
    ),
    weightDecay,
    clipNorm: 1,
    groups: [{
      match: (path) => /norm|bias|cls_token|pos_embed|gamma/.test(path),
      weightDecay: 0,
    }],
  });
  const whole = noStats(data.count);
  let window = noStats(data.count);
  const done: Epoch[] = [];
  const roundsAt = new Set(
    Array.from(
      { length: rounds },
      (_, r) => Math.round((r + 1) * epochs / 2 / rounds),
    ),
  );
  for (let epoch = 0; epoch < epochs; epoch++) {
    const start = clock();
    let selection = 0;
    if (division !== null && epoch > 0 && roundsAt.has(epoch)) {
      const n = Math.round(data.count * swap);
      division = swapExamples(
        division,
        forgettingCounts(forgets ? window : whole),
        n,
        fold(key, `round ${epoch}`),
      );
      window = noStats(data.count);
      selection += clock() - start;
    }
    const epochKey = fold(key, `epoch ${epoch}`);
    const chosen = epochExamples(
      level,
      data.count,
      division,
      level.kind === "random" && !level.anew ? key : epochKey,
    );
    const order = permutation(fold(epochKey, "order"), chosen.length);
    let loss = 0;
    let macs = 0;
    let batching = 0;
    for (let from = 0; from < order.length; from += batchSize) {
      const ids = Array.from(
        order.subarray(from, from + batchSize),
        (i) => chosen[i],
      );
      const time = epoch + from / order.length;
      const keep = levels.tokens === undefined
        ? 1
        : keepAt(time, levels.tokens.keep, ramp);
      const connections = levels.connections === undefined
        ? 1
        : keepAt(time, levels.connections, ramp);
      const stepKey = fold(epochKey, `step ${from}`);
      const begin = clock();
      let batch = pickImages(data, ids);
      if (options.augment) {
        batch = augment(batch, { key: stepKey, ...options.augment });
      }
      const cut = patches(batch, resolved.patchSize, scale);
      batching += clock() - begin;
      const step = trainStep(batch, cut, params, resolved, optimizer, {
        forward: () => prunedForward(levels, { keep, connections }),
        smoothing: labelSmoothing,
        mixup,
        key: stepKey,
      });
      loss += step.loss * ids.length;
      // Forward, and twice as much backward: gradients of inputs and of weights.
      macs += 3 * ids.length * countVitMacs(
        config,
        levels.tokens === undefined ? undefined : tokenCounts(
          resolved.numPatches,
          resolved.numLayers,
          { ...levels.tokens, keep },
        ),
      ).total;
      const before = clock();
      recordPresentation(whole, ids, step.right);
      if (division !== null) recordPresentation(window, ids, step.right);
      selection += clock() - before;
    }
    const report: Epoch = {
      epoch,
      loss: loss / order.length,
      examples: order.length,
      seconds: clock() - start,
      selectionSeconds: selection,
      batchSeconds: batching,
      macs,
    };
    done.push(report);
    options.onEpoch?.(report);
  }
  optimizer.dispose();
  return {
    config,
    params,
    scale,
    levels,
    epochs: done,
    forgetting: forgettingCounts(whole),
    seen: whole.seen,
  };
}

/** One step: loss and which images the model had right, before the update. */
function trainStep(
  batch: Images,
  { data, shape }: ReturnType<typeof patches>,
  params: VitParams,
  config: ReturnType<typeof resolveVit>,
  optimizer: ReturnType<typeof adamW>,
  { forward, smoothing, mixup, key }: {
    forward: () => VitOptions;
    smoothing: number;
    mixup: number;
    key: Key;
  },
): { loss: number; right: boolean[] } {
  let others = batch.labels;
  let lambda = 1;
  if (mixup > 0) {
    // x = lambda x_i + (1 - lambda) x_j, j from the other end of the batch; labels likewise
    lambda = beta(fold(key, "mixup"), mixup);
    others = batch.labels.slice().reverse();
    const size = shape[1] * shape[2];
    const old = data.slice();
    for (let b = 0; b < batch.count; b++) {
      for (let i = 0; i < size; i++) {
        data[b * size + i] = lambda * old[b * size + i] +
          (1 - lambda) * old[(batch.count - 1 - b) * size + i];
      }
    }
  }
  const x = tf.tensor3d(data, shape);
  const target = targets(
    batch.labels,
    others,
    lambda,
    config.numClasses,
    smoothing,
  );
  let right: boolean[] = [];
  const { value, grads } = valueAndGrads(
    () => {
      const logits = vitForward(params, x, config, forward()); // [B, K]
      right = rightOnes(logits.dataSync(), batch.labels);
      // The cross entropy less the entropy of the target, which has no gradient.
      return klDivergence(logits, target) as Scalar;
    },
    params as unknown as ParamTree,
  );
  optimizer.step(params as unknown as ParamTree, grads);
  const loss = value.dataSync()[0];
  tf.dispose([x, target, value, ...Object.values(grads)]);
  return { loss, right };
}

/** Whether the largest logit is the label's, of equals the first. */
function rightOnes(logits: ArrayLike<number>, labels: Uint8Array): boolean[] {
  const K = logits.length / labels.length;
  return Array.from(labels, (label, i) => {
    let best = 0;
    for (let k = 1; k < K; k++) {
      if (logits[i * K + k] > logits[i * K + best]) best = k;
    }
    return best === label;
  });
}

/**
 * Probabilities of a trained model, tokens and connections pruned at their base shares.
 *
 * @returns [N, K] one row after the other, and the share that is right
 * @throws {RangeError} if images are not the model's, or a logit is not finite; the message names the image
 */
export function predictVit(
  { config, params, scale, levels }: Pick<
    TrainedVit,
    "config" | "params" | "scale" | "levels"
  >,
  data: Images,
  { batch = 250, onKept }: {
    batch?: number;
    /** Told which patches stay in which images, numbered as in the tokens before. */
    onKept?: (block: number, places: Int32Array) => void;
  } = {},
): { probabilities: Float32Array; right: boolean[]; accuracy: number } {
  const resolved = resolveVit(config);
  const K = resolved.numClasses;
  checkImages(resolved, data, "predict");
  if (!Number.isSafeInteger(batch) || batch < 1) {
    throw new RangeError(
      `Cannot predict as batch must be a positive integer: ${batch}`,
    );
  }
  const probabilities = new Float32Array(data.count * K);
  for (let from = 0; from < data.count; from += batch) {
    const count = Math.min(batch, data.count - from);
    const part = pickImages(
      data,
      Uint32Array.from({ length: count }, (_, i) => from + i),
    );
    const values = tf.tidy(() => {
      const cut = patches(part, resolved.patchSize, scale);
      const x = tf.tensor3d(cut.data, cut.shape);
      const logits = vitForward(
        params,
        x,
        resolved,
        prunedForward(levels, {}, onKept),
      );
      const bad = logits.dataSync().findIndex((y) => !Number.isFinite(y));
      if (bad >= 0) {
        throw new RangeError(
          `Cannot predict as logits must be finite: ${
            logits.dataSync()[bad]
          } for class ${bad % K} of image ${
            from + Math.floor(bad / K)
          }; training has diverged`,
        );
      }
      return tf.softmax(logits).dataSync();
    });
    probabilities.set(values, from * K);
  }
  const right = rightOnes(probabilities, data.labels);
  return {
    probabilities,
    right,
    accuracy: right.filter(Boolean).length / data.count,
  };
}
