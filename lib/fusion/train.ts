/**
 * Training one target on the fused predictions of many sources.
 *
 *   L = lambda L_lm + (1 - lambda) L_fuse + feedback L_feed   (lambda 0.9, feedback 0.5: authors' code)
 *
 * L_fuse = KL(F || Q) here, which has the gradient in Q of -sum F log Q. The gate's gradient is exact, not
 * sampled: dL_fuse/dw_k = CE(P_k, Q), see `sourceDivergences`.
 */
import { forward } from "../core/llama.ts";
import { crossEntropy, klDivergence } from "../core/nn.ts";
import { adamW, type Optimizer } from "../core/optim.ts";
import { fold, type Key, permutation } from "../core/rng.ts";
import { type Scalar, type Tensor, tf, valueAndGrads } from "../core/tensor.ts";
import {
  type Dropped,
  feedbackLoss,
  gateScores,
  gateWeights,
  initGate,
  randomWeights,
  selectWeights,
  standardise,
  thresholdFor,
} from "./gate.ts";
import type { Rule } from "./rules.ts";
import {
  checkCaches,
  fusedDistribution,
  type Level,
  logNormalizers,
  type Model,
  type SourceCache,
  sourceDivergences,
  textLength,
} from "./sources.ts";

/** The trained selection network; every default that is not the paper's says so. */
export interface GateOptions {
  /** "total": the paper's loss. "gold": -log F[true token], blind to the student (ours). */
  objective?: "total" | "gold";
  /**
   * r = exp(-CE) as released, or standardised within the text (ours), or what the distributions say: cross-entropy,
   * entropy, largest probability and agreement with the true token (assumed; a digest of the paper says
   * that scores come from distributions).
   */
  features?: "invppl" | "standardised" | "distributions";
  /** Default `thresholdFor(K)`. */
  tau?: number;
  /** Weight of the feedback loss, default 0.5. */
  feedback?: number;
  dropped?: Dropped;
  /** Default 0.01 (assumed: no public source trains the network). */
  learningRate?: number;
}

/** How the sources of each text are weighted. */
export type Selection =
  | { kind: "none" }
  | { kind: "rule"; rule: Rule; level?: Level }
  | { kind: "random"; tau?: number }
  | { kind: "gate"; gate?: GateOptions; level?: Level };

export interface FuseOptions {
  /** Weight of the true tokens, default 0.9. */
  lambda?: number;
  selection: Selection;
  optimizer: Optimizer;
  steps: number;
  batch: number;
  key: Key;
  /** Every so many steps the two gradients are compared; 0, the default, never. */
  conflictEvery?: number;
  onStep?: (step: number, loss: number) => void;
  /** The texts of each step and their mean weights, [B][K]. */
  onWeights?: (step: number, rows: number[], weights: number[][]) => void;
}

/** What a training says about itself. */
export interface FuseReport {
  losses: number[];
  /** Mean weights of the sources per step, [steps][K]. */
  weights: number[][];
  /** L_feed of the weights used, per step. */
  cv2: number[];
  /** Mean number of sources used for a text, per step. */
  selected: number[];
  /** The last weights of each text, [N][K]; empty where it never was in a batch. */
  lastWeights: number[][];
  /** cos(grad L_fuse, grad L_lm) where it was measured. */
  cosines: number[];
}

const GATE_LEARNING_RATE = 0.01;

/** cos of two gradients over all parameters. */
export function gradientCosine(
  a: Record<string, Tensor>,
  b: Record<string, Tensor>,
): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (const name of Object.keys(a)) {
    const [x, y] = [a[name].dataSync(), b[name].dataSync()];
    for (let i = 0; i < x.length; i++) {
      ab += x[i] * y[i];
      aa += x[i] * x[i];
      bb += y[i] * y[i];
    }
  }
  return aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
}

/**
 * The loss that trains the selection network, from weights w [B, K].
 *
 *   total: share/B sum of w_bk CE(P_k, Q) + feedback L_feed
 *   gold:  -1/(B T) sum of log(sum over k of w_bk P_k[true token] + 1e-8) + feedback L_feed
 *
 * @param evidence [B, K] divergences for "total", [B, T, K] probabilities of the true token for "gold"
 *   (T = 1 where each position is weighted).
 */
export function gateLoss(
  weights: Tensor,
  evidence: Tensor,
  { objective, share, feedback }: {
    objective: "total" | "gold";
    /** 1 - lambda */
    share: number;
    feedback: number;
  },
): Scalar {
  const [B, K] = weights.shape as [number, number];
  const main = objective === "total"
    ? tf.mul(tf.div(tf.sum(tf.mul(weights, evidence)), B), share)
    : tf.neg(
      tf.mean(
        tf.log(
          tf.add(
            tf.sum(tf.mul(tf.reshape(weights, [B, 1, K]), evidence), 2),
            1e-8,
          ),
        ),
      ),
    );
  return tf.add(main, tf.mul(feedbackLoss(weights), feedback)) as Scalar;
}

/** A text, or one position of it, among the places [N T] of a cache. */
interface Unit {
  row: number;
  start: number;
  size: number;
}

/** Mean cross-entropy and entropy (nats), largest probability, share of true tokens that come first. */
function distributionFeatures(
  { gold, entropy, peak }: SourceCache,
  { start, size }: Unit,
): number[] {
  const sums = [0, 0, 0, 0];
  for (let at = start; at < start + size; at++) {
    sums[0] -= Math.log(gold[at] + 1e-8);
    sums[1] += entropy[at];
    sums[2] += peak[at];
    sums[3] += gold[at] >= peak[at] ? 1 : 0;
  }
  return sums.map((sum) => sum / size);
}

/** The target's logits z [B T V] and log sum exp z [B T]. */
interface Seen {
  logits: ArrayLike<number>;
  normalizers: ArrayLike<number>;
}

/** Chooses weights for a batch and learns from what came of them. */
interface Selector {
  weights(rows: number[], step: number): number[][];
  /** Whether `learn` wants to see the target's predictions. */
  looks: boolean;
  learn(rows: number[], seen: Seen): void;
  dispose(): void;
}

function selectorOf(
  selection: Exclude<Selection, { kind: "none" }>,
  caches: readonly SourceCache[],
  share: number,
  key: Key,
): Selector {
  const K = caches.length;
  const T = caches[0].positions;
  const level = selection.kind === "random"
    ? "sequence"
    : selection.level ?? "sequence";
  /** What is weighted: [first place, number of places] of each text or of each position. */
  const units = (rows: number[]): Unit[] =>
    level === "sequence"
      ? rows.map((row) => ({ row, start: row * T, size: T }))
      : rows.flatMap((row) =>
        Array.from({ length: T }, (_, t) => ({
          row,
          start: row * T + t,
          size: 1,
        }))
      );
  const lossesOf = ({ row, start, size }: Unit) =>
    caches.map(({ loss, gold }) =>
      size === 1 ? -Math.log(gold[start] + 1e-8) : loss[row]
    );
  const rewards = (unit: Unit) => lossesOf(unit).map((loss) => Math.exp(-loss));
  const still = { looks: false, learn() {}, dispose() {} };
  if (selection.kind === "rule") {
    const { rule } = selection;
    return {
      weights: (rows) =>
        units(rows).map((unit) => checkWeights(rule(lossesOf(unit)), K)),
      ...still,
    };
  }
  if (selection.kind === "random") {
    const { tau = thresholdFor(K) } = selection;
    return {
      weights: (rows, step) =>
        randomWeights(units(rows).map(rewards), K, tau, fold(key, step)),
      ...still,
    };
  }
  const {
    objective = "total",
    features = "standardised",
    tau = thresholdFor(K),
    feedback = 0.5,
    dropped = "straight-through",
    learningRate = GATE_LEARNING_RATE,
  } = selection.gate ?? {};
  const E = features === "distributions" ? 4 * K : K;
  const gate = initGate(K, E, key);
  const optimizer = adamW({ learningRate, weightDecay: 0 });
  const featuresOf = (unit: Unit) => {
    if (features === "distributions") {
      return caches.flatMap((cache) => distributionFeatures(cache, unit));
    }
    const own = rewards(unit);
    return features === "invppl" ? own : standardise(own);
  };
  const inputs = (all: Unit[]) =>
    tf.tensor2d(all.map(featuresOf), [all.length, E]);
  return {
    weights(rows) {
      const all = units(rows);
      const scores = tf.tidy(() => gateScores(gate, inputs(all))); // [units, K]
      const p = scores.dataSync();
      scores.dispose();
      return all.map((_, b) =>
        selectWeights(p.subarray(b * K, (b + 1) * K), tau)
      );
    },
    looks: objective === "total",
    learn(rows, { logits, normalizers }) {
      const all = units(rows);
      const evidence = objective === "total"
        ? tf.tensor2d(
          sourceDivergences(caches, rows, logits, normalizers, level),
        )
        : tf.tensor3d(
          all.flatMap(({ start, size }) =>
            Array.from(
              { length: size },
              (_, t) => caches.map(({ gold }) => gold[start + t]),
            ).flat()
          ),
          [all.length, all[0].size, K],
        );
      const { value, grads } = valueAndGrads(
        () =>
          gateLoss(
            gateWeights(gateScores(gate, inputs(all)), tau, dropped),
            evidence,
            { objective, share, feedback },
          ),
        gate,
      );
      optimizer.step(gate, grads);
      tf.dispose([value, grads, evidence]);
    },
    dispose() {
      optimizer.dispose();
      tf.dispose(gate);
    },
  };
}

/** What a caller's own rule gave. */
function checkWeights(weights: number[], K: number): number[] {
  const good = weights.length === K &&
    weights.every((w) => w >= 0 && Number.isFinite(w));
  if (good) return weights;
  throw new RangeError(
    `Cannot fuse as a rule must give a finite weight >= 0 for each of ${K} sources: ${
      weights.join(", ")
    }`,
  );
}

const meanRows = (weights: number[][]) =>
  weights[0].map((_, k) =>
    weights.reduce((sum, row) => sum + row[k], 0) / weights.length
  );

/** cv^2 of summed weights, in numbers. */
function balance(weights: number[][]): number {
  return tf.tidy(() => feedbackLoss(tf.tensor2d(weights)).dataSync()[0]);
}

/**
 * Trains the target in place on texts and what the sources say of them.
 *
 * Each epoch goes through the texts in a new order, the same for every selection under one key.
 *
 * @param windows N rows of T + 1 ids, those of the caches.
 * @throws {RangeError} If vocabularies or texts differ, or lambda is not in [0, 1].
 */
export function fuseInto(
  { params, config }: Model,
  windows: readonly Int32Array[],
  caches: readonly SourceCache[],
  options: FuseOptions,
): FuseReport {
  const { selection, optimizer, steps, batch, key, conflictEvery = 0 } =
    options;
  const alone = selection.kind === "none";
  const lambda = alone ? 1 : options.lambda ?? 0.9;
  if (!(lambda >= 0 && lambda <= 1)) {
    throw new RangeError(`Cannot fuse as lambda must be in [0, 1]: ${lambda}`);
  }
  if (!(Number.isInteger(batch) && batch >= 1 && batch <= windows.length)) {
    throw new RangeError(
      `Cannot fuse as a batch must have from 1 to all ${windows.length} texts: ${batch}; pass another batch or more texts`,
    );
  }
  if (!alone) checkCaches(caches, config.vocabSize);
  if (!alone && caches[0].loss.length !== windows.length) {
    throw new RangeError(
      `Cannot fuse as the sources must have read the texts: ${
        caches[0].loss.length
      } texts cached, ${windows.length} given`,
    );
  }
  const positions = textLength("target", windows);
  if (!alone && caches[0].positions !== positions) {
    throw new RangeError(
      `Cannot fuse as the sources must have read the texts: texts of ${
        caches[0].positions
      } positions cached, of ${positions} given`,
    );
  }
  const selector = alone
    ? null
    : selectorOf(selection, caches, 1 - lambda, fold(key, "gate"));
  const report: FuseReport = {
    losses: [],
    weights: [],
    cv2: [],
    selected: [],
    lastWeights: windows.map(() => []),
    cosines: [],
  };
  const order: number[] = [];
  for (let step = 0, epoch = 0; step < steps; step++) {
    while (order.length < batch) {
      order.push(
        ...permutation(fold(fold(key, "order"), epoch++), windows.length),
      );
    }
    const rows = order.splice(0, batch);
    const T = windows[0].length - 1;
    const inputs = tf.tensor2d(
      rows.flatMap((row) => Array.from(windows[row].subarray(0, T))),
      [batch, T],
      "int32",
    );
    const next = rows.flatMap((row) => Array.from(windows[row].subarray(1)));
    const labels = tf.tensor1d(next, "int32");
    const weights = selector?.weights(rows, step);
    const fused = weights && fusedDistribution(caches, rows, weights);
    let seen: Seen = { logits: [], normalizers: [] };
    const objective = (own: number, theirs: number) => () => {
      const logits = tf.reshape(forward(params, config, inputs), [
        batch * T,
        config.vocabSize,
      ]);
      if (selector?.looks && seen.logits.length === 0) {
        const z = logits.dataSync();
        const losses = crossEntropy(logits, labels, { reduction: "none" });
        const normalizers = logNormalizers(z, losses.dataSync(), next);
        seen = { logits: z, normalizers };
      }
      const parts: Scalar[] = [];
      if (own > 0) parts.push(tf.mul(crossEntropy(logits, labels), own));
      if (fused && theirs > 0) {
        parts.push(tf.mul(klDivergence(logits, fused), theirs));
      }
      return parts.reduce((a, b) => tf.add(a, b));
    };
    const { value, grads } = valueAndGrads(
      objective(lambda, 1 - lambda),
      params,
    );
    const loss = value.dataSync()[0];
    if (!Number.isFinite(loss)) {
      throw new RangeError(
        `Cannot go on training as the loss must be finite: ${loss} at step ${step}; try a smaller learning rate`,
      );
    }
    if (fused && conflictEvery > 0 && step % conflictEvery === 0) {
      const a = valueAndGrads(objective(1, 0), params);
      const b = valueAndGrads(objective(0, 1), params);
      report.cosines.push(gradientCosine(a.grads, b.grads));
      tf.dispose([a.value, a.grads, b.value, b.grads]);
    }
    optimizer.step(params, grads);
    selector?.learn(rows, seen);
    report.losses.push(loss);
    if (weights) {
      const size = weights.length / batch; // weighted units of a text
      report.weights.push(meanRows(weights));
      report.cv2.push(balance(weights));
      report.selected.push(
        weights.flat().filter((w) => w > 0).length / weights.length,
      );
      const ofTexts = rows.map((_, b) =>
        meanRows(weights.slice(b * size, (b + 1) * size))
      );
      rows.forEach((row, b) => report.lastWeights[row] = ofTexts[b]);
      options.onWeights?.(step, rows, ofTexts);
    }
    tf.dispose([value, grads, inputs, labels]);
    if (fused) tf.dispose(fused);
    options.onStep?.(step, loss);
  }
  selector?.dispose();
  return report;
}
