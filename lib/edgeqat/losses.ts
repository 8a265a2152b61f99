/**
 * The losses of EdgeQAT: entropy of queries and keys, likeness of attention maps, distillation.
 *
 * X. Shen et al., "EdgeQAT: Entropy and Distribution Guided Quantization-Aware Training", arXiv 2402.10787;
 * equations are numbered as in v2 ("Squat"). Where paper and released code differ, both are here by name.
 *
 *   B  sequences   T  tokens   S  keys   H  query heads   G  key heads   Dh  width of a head   V  vocabulary
 */
import { crossEntropy, klDivergence } from "../core/nn.ts";
import { type Scalar, type Tensor, tf } from "../core/tensor.ts";

/** Whether equation 12 or the released code measures the entropy. */
export type EntropyForm = "paper" | "released";

/** The sign of L_D; see `distributionLoss`. */
export type DistributionSign = "intended" | "literal";

/** What the divergence of a batch is divided by: all its tokens, or its sequences only. */
export type KlNormalisation = "tokens" | "sequences";

function checkLayers(what: string, a: Tensor[], b: Tensor[]): void {
  if (a.length === 0 || a.length !== b.length) {
    throw new RangeError(
      `Cannot compute ${what} as both need one tensor for each layer: ${a.length} and ${b.length}`,
    );
  }
}

/** sum((x - mean)^2) / (n - ddof) over `axes`. */
function variance(x: Tensor, axes: number[], ddof: 0 | 1): Tensor {
  const n = axes.reduce((product, axis) => product * x.shape[axis]!, 1);
  return x.sub(x.mean(axes, true)).square().sum(axes).div(n - ddof);
}

/**
 * L_E: small where queries and keys spread widely.
 *
 * A normal distribution has the entropy 1/2 log(2 pi e sigma^2), so spread stands for information.
 *
 *   paper     L_E = -log( sum_l sum_h log(1 + sigma_q^2 sigma_k^2) )                          (Eq. 12)
 *   released  L_E = -log( sum_l sum_bht [log(1 + var_d q) + log(1 + var_d k)] )   (distill_train)
 *
 * The paper does not say over what sigma is taken: over all numbers of a head in the batch here (assumed).
 * The released code takes the unbiased variance over each token's head.
 *
 * @param q for each layer [B, T, H, Dh], quantised, after the rotation
 * @param k for each layer [B, T, G, Dh]; head g serves the H / G query heads from g H / G on
 */
export function entropyLoss(
  q: Tensor[],
  k: Tensor[],
  form: EntropyForm = "paper",
): Scalar {
  checkLayers("the entropy loss", q, k);
  return tf.tidy(() => {
    const layers = q.map((queries, l) =>
      form === "paper"
        ? productOfVariances(queries, k[l])
        : sumOfVariances(queries).add(sumOfVariances(k[l]))
    );
    return logContinued(tf.addN(layers), ENTROPY_FLOOR).neg() as Scalar;
  });
}

/** sum_h log(1 + sigma_q^2 sigma_k^2) */
function productOfVariances(q: Tensor, k: Tensor): Tensor {
  const [H, G] = [q.shape[2]!, k.shape[2]!];
  const ofQ = variance(q, [0, 1, 3], 0).reshape([G, H / G]); // [G, H / G]
  const ofK = variance(k, [0, 1, 3], 0).reshape([G, 1]);
  return ofQ.mul(ofK).log1p().sum();
}

/** sum_bht log(1 + var_d x) */
const sumOfVariances = (x: Tensor) => variance(x, [3], 1).log1p().sum();

/** Where the entropy loss stops being a logarithm: all variances 0 give a finite loss. */
const ENTROPY_FLOOR = 1e-6;

/** The likeness at which the distribution loss stops being a logarithm, for each pair of maps (our choice). */
const LIKENESS_FLOOR = 0.01;

/** Keeps the norm of a map of zeros from dividing; 1e-6 in the released code. */
const COSINE_EPSILON = 1e-6;

/**
 * log x for x >= floor; below, its tangent at the floor, so that value and gradient stay finite and the
 * gradient keeps its sign.
 */
export function logContinued(x: Tensor, floor: number): Tensor {
  return tf.tidy(() => {
    // Two terms of which one is constant: gradients that cancel would lose digits.
    const below = tf.minimum(x.sub(floor), 0).div(floor);
    return tf.maximum(x, floor).log().add(below);
  });
}

/**
 * cos(a, b) = a . b / (|a| |b|) of two maps, for each sequence and head.
 *
 * @param a [B, H, T, S]
 * @returns [B, H]
 */
export function mapLikeness(a: Tensor, b: Tensor): Tensor {
  return tf.tidy(() => {
    const [B, H] = a.shape;
    const flat = (x: Tensor) => x.reshape([B, H!, -1]);
    const [x, y] = [flat(a), flat(b)];
    const norm = (x: Tensor) => x.square().sum(2).add(1e-30).sqrt();
    return x.mul(y).sum(2)
      .div(tf.maximum(norm(x).mul(norm(y)), COSINE_EPSILON));
  });
}

/**
 * L_D: how alike the attention maps of student and teacher are.
 *
 *   literal    L_D = +log( sum_l sum_h cos(attn_q, attn_f) )                                   (Eq. 13)
 *   intended   L_D = -log( sum_l sum_h cos(attn_q, attn_f) )
 *
 * Paper and released code add the literal form to a loss that is minimised, which drives the student's maps
 * away from the teacher's, against the text. The intended sign pulls them together.
 *
 * The logarithm of a sum that is not positive is NaN in both; here it goes on as its tangent
 * (`logContinued`).
 *
 * @param student for each layer [B, H, T, T]; scores before softmax and mask in the released code
 * @param teacher constants of the same shapes
 */
export function distributionLoss(
  student: Tensor[],
  teacher: Tensor[],
  sign: DistributionSign = "intended",
): Scalar {
  checkLayers("the distribution loss", student, teacher);
  return tf.tidy(() => {
    const likeness = student.map((map, l) => mapLikeness(map, teacher[l]));
    const pairs = likeness.reduce((n, { size }) => n + size, 0);
    const total = tf.addN(likeness.map((x) => x.sum()));
    const log = logContinued(total, LIKENESS_FLOOR * pairs);
    return (sign === "literal" ? log : log.neg()) as Scalar;
  });
}

/** Weights of `distillationLoss`; defaults as in paper and released code. */
export interface DistillationOptions {
  /** gamma, the part of the teacher; default 0.5. */
  gamma?: number;
  /** tau; default 2. */
  temperature?: number;
  /**
   * "tokens" (default, our choice) is the mean over tokens. "sequences" is PyTorch's batchmean on
   * [B, T, V], as in the released code: a sum over the T positions, so the teacher counts T times as much.
   */
  normalisation?: KlNormalisation;
}

/**
 * L_distill = (1 - gamma) L_CE + gamma tau^2 L_KL   (section IV-D)
 *
 * @param logits [B, T, V]
 * @param labels int32 [B, T]
 * @param teacherLogits [B, T, V], constants
 */
export function distillationLoss(
  logits: Tensor,
  labels: Tensor,
  teacherLogits: Tensor,
  { gamma = 0.5, temperature = 2, normalisation = "tokens" }:
    DistillationOptions = {},
): Scalar {
  return tf.tidy(() => {
    const [B, T, V] = logits.shape as [number, number, number];
    const rows = logits.reshape([B * T, V]);
    const hard = crossEntropy(rows, labels.reshape([B * T]));
    const target = tf.softmax(
      teacherLogits.reshape([B * T, V]).div(temperature),
    );
    const soft = klDivergence(rows, target, { temperature });
    const positions = normalisation === "tokens" ? 1 : T;
    // (1 - gamma) L_CE + gamma tau^2 L_KL
    return hard.mul(1 - gamma)
      .add(soft.mul(gamma * temperature ** 2 * positions)) as Scalar;
  });
}
