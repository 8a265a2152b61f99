/**
 * The adaptive selection network: which source models teach on which text, and with what weight.
 *
 * Kong et al., "Enabling Flexible Multi-LLM Integration for Scalable Knowledge Aggregation",
 * arXiv 2505.23844 (Fusion-X). The formulas are those of the authors' code (ZLKong/LLM_Integration);
 * the body of the paper was not at hand, so they are a reconstruction of its text.
 *
 *   z = W3 gelu(W2 gelu(W1 r + b1) + b2) + b3,  p = softmax(z)
 *   S = {k : p_k > tau},  w_k = p_k 1[k in S] / (sum over S of p + 1e-8)
 *   L_feed = Var(I) / (mean(I)^2 + 1e-10),  I_k = sum over the batch of w_k
 *
 *   B  texts of a batch   K  source models   r  features [B, E]   p, w  [B, K]
 *
 * Scope: in the released code the network is made anew in every step and never trained; here it is
 * trained, and the released behaviour is `randomWeights`.
 */
import { gelu, linear } from "../core/nn.ts";
import { fold, type Key, uniform } from "../core/rng.ts";
import { type Scalar, type Tensor, tf } from "../core/tensor.ts";

/** What is not in the paper's public text, with where it comes from. */
export const ASSUMPTIONS = {
  tau: {
    value: 0.15,
    source: "authors' code and script name",
    standing: "read",
  },
  tauPerSource: {
    value: 0.75,
    source: "0.15 at 5 sources, carried to other numbers of sources",
    standing: "assumed",
  },
  weightEpsilon: { value: 1e-8, source: "authors' code", standing: "read" },
  importanceEpsilon: {
    value: 1e-10,
    source: "authors' code",
    standing: "read",
  },
  straightThrough: {
    value: true,
    source: "a source that is masked gets no gradient and stays out for good",
    standing: "derived",
  },
} as const;

/** Three linear layers, E -> 2K -> K -> K. */
export type Gate = { weight: Tensor; bias: Tensor }[];

/** Fresh variables, uniform in +-1/sqrt(inputs) as PyTorch's linear layer has them. */
export function initGate(sources: number, features: number, key: Key): Gate {
  checkSources(sources);
  const widths = [features, 2 * sources, sources, sources];
  return [0, 1, 2].map((i) => {
    const [from, to] = [widths[i], widths[i + 1]];
    const bound = 1 / Math.sqrt(from);
    const draw = (name: string, size: number) =>
      uniform(fold(fold(key, i), name), size, -bound, bound);
    return tf.tidy(() => ({
      weight: tf.variable(tf.tensor2d(draw("weight", to * from), [to, from])),
      bias: tf.variable(tf.tensor1d(draw("bias", to))),
    }));
  });
}

function checkSources(sources: number): void {
  if (!Number.isInteger(sources) || sources < 1) {
    throw new RangeError(
      `Cannot fuse as there must be at least one source: ${sources}; pass the source models`,
    );
  }
}

/**
 * p [B, K], the network's scores of the sources.
 *
 *   p = softmax(W3 gelu(W2 gelu(W1 r + b1) + b2) + b3)
 */
export function gateScores(gate: Gate, features: Tensor): Tensor {
  const inner = gate.slice(0, -1).reduce(
    (x, { weight, bias }) => gelu(linear(x, weight, { bias })),
    features,
  );
  const { weight, bias } = gate[gate.length - 1];
  return tf.softmax(linear(inner, weight, { bias })); // [B, K]
}

/**
 * The threshold for K sources: 0.15 up to five sources as in the paper, and 0.75 / K beyond.
 *
 * A fixed threshold above 1/K means "much better than average"; below it, "not much worse".
 *
 * @example
 * thresholdFor(5); // 0.15
 */
export function thresholdFor(sources: number): number {
  checkSources(sources);
  return Math.min(
    ASSUMPTIONS.tau.value,
    ASSUMPTIONS.tauPerSource.value / sources,
  );
}

/**
 * Weights of the sources that pass the threshold; of the best alone if none does.
 *
 *   w_k = p_k 1[p_k > tau] / (sum of p_j with p_j > tau + 1e-8)
 *
 * @param p Scores of one text, [K].
 * @param tau In [0, 1].
 * @example
 * selectWeights([0.6, 0.3, 0.1], 0.15).map((w) => Number(w.toFixed(3))); // [0.667, 0.333, 0]
 */
export function selectWeights(p: ArrayLike<number>, tau: number): number[] {
  checkSources(p.length);
  if (!(tau >= 0 && tau <= 1)) {
    throw new RangeError(
      `Cannot select sources as tau must be in [0, 1]: ${tau}`,
    );
  }
  const scores = Array.from(p);
  if (scores.some((score) => !Number.isFinite(score))) {
    throw new RangeError(
      `Cannot select sources as scores must be finite: ${scores.join(", ")}`,
    );
  }
  const best = scores.indexOf(Math.max(...scores));
  const none = !scores.some((score) => score > tau);
  const kept = scores.map((score, k) =>
    score > tau || (none && k === best) ? score : 0
  );
  const sum = kept.reduce((a, b) => a + b, 0) + ASSUMPTIONS.weightEpsilon.value;
  return kept.map((score) => score / sum);
}

/** How gradients pass the threshold: not at all to what is dropped, or as if nothing were. */
export type Dropped = "masked" | "straight-through";

/**
 * w [B, K] from p, with the gradient of the rule chosen.
 *
 * "masked" differentiates w_k = p_k m_k / sum_j p_j m_j with the mask m held fixed: a dropped source
 * gets no gradient of its own. "straight-through" has the same value and the gradient of p, so that a
 * dropped source can come back.
 */
export function gateWeights(p: Tensor, tau: number, dropped: Dropped): Tensor {
  const [B, K] = p.shape;
  const scores = p.dataSync();
  const rows = Array.from(
    { length: B },
    (_, b) => selectWeights(scores.subarray(b * K, (b + 1) * K), tau),
  );
  if (dropped === "straight-through") {
    const shift = rows.flat().map((w, i) => w - scores[i]);
    return tf.add(p, tf.tensor2d(shift, [B, K]));
  }
  const mask = tf.tensor2d(rows.flat().map((w) => w > 0 ? 1 : 0), [B, K]);
  const kept = tf.mul(p, mask);
  return tf.div(
    kept,
    tf.add(tf.sum(kept, 1, true), ASSUMPTIONS.weightEpsilon.value),
  );
}

/**
 * The feedback loss, the squared coefficient of variation of the sources' importance.
 *
 *   I_k = sum over b of w_bk,  L_feed = Var(I) / (mean(I)^2 + 1e-10)   ("Eq. 13" in the authors' code)
 *
 * Var divides by K - 1, as torch does: 0 when all are used alike, K when one source takes all. 0 for K = 1.
 *
 * @param weights [B, K]
 */
export function feedbackLoss(weights: Tensor): Scalar {
  const K = weights.shape[1] as number;
  if (K === 1) return tf.sum(tf.mul(weights, 0)) as Scalar;
  const importance = tf.sum(weights, 0);
  const mean = tf.div(tf.sum(importance), K);
  const variance = tf.div(
    tf.sum(tf.square(tf.sub(importance, mean))),
    K - 1,
  );
  return tf.div(
    variance,
    tf.add(tf.square(mean), ASSUMPTIONS.importanceEpsilon.value),
  ) as Scalar;
}

/** Each text's inverse perplexities with mean 0 and standard deviation 1 over the sources. */
export function standardise(rewards: readonly number[]): number[] {
  const K = rewards.length;
  const mean = rewards.reduce((a, b) => a + b, 0) / K;
  const variance = rewards.reduce((a, r) => a + (r - mean) ** 2, 0) / K;
  const sd = Math.sqrt(variance);
  return rewards.map((r) => sd > 0 ? (r - mean) / sd : 0);
}

/** Weights of a network with new random numbers, as in every step of the released code; [B, K]. */
export function randomWeights(
  features: number[][],
  sources: number,
  tau: number,
  key: Key,
): number[][] {
  const gate = initGate(sources, features[0].length, key);
  const scores = tf.tidy(() =>
    gateScores(gate, tf.tensor2d(features)).dataSync()
  );
  tf.dispose(gate);
  return features.map((_, b) =>
    selectWeights(scores.subarray(b * sources, (b + 1) * sources), tau)
  );
}
