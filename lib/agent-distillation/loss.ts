/**
 * The losses of structured agent distillation, and those it is compared with.
 *
 * J. Liu et al., "Structured Agent Distillation for Large Language Model", arXiv 2505.13820:
 *
 *   L_CoT = sum_t m_r(t) KL(p_T(x_t) || p_S(x_t))
 *   L_Act = sum_t m_a(t) KL(p_T(x_t) || p_S(x_t))
 *   L     = lambda_r L_CoT + lambda_a L_Act
 *
 * Read in public reviews of the paper, which number no equations. How sums are normalised was not available: it is an option
 * here. With lambda_r = lambda_a and one divisor for both, L is token-level distillation under the
 * mask m_r + m_a; with a divisor of their own, it is that with lambda_a / lambda_r = |r| / |a|.
 *
 *   N  tokens    V  vocabSize
 */
import { crossEntropy, embedding, klDivergence } from "../core/nn.ts";
import { type Scalar, type Tensor, tf } from "../core/tensor.ts";
import type { Label } from "./transcript.ts";

/**
 * `sum`: as the paper's equations. `token-mean`: divided by the number of tokens with a weight.
 * `span-mean`: L_CoT and L_Act divided each by the number of its own tokens.
 */
export type Normalization = "sum" | "token-mean" | "span-mean";

/**
 * What is summed over tokens. `forward`: KL(p_T || p_S), the paper's. `reverse`: KL(p_S || p_T), as
 * MiniLLM has it (recalled), here on given tokens. `hard`: -log p_S of the token itself.
 */
export type Divergence = "forward" | "reverse" | "hard";

export interface LossOptions {
  /** Weights of reasoning, action and all other tokens; default 1, 1 and 0. */
  lambdaR?: number;
  lambdaA?: number;
  /** Not in the paper: distilling what the world says, for those who would not mask it. */
  lambdaO?: number;
  /** Default `span-mean`. */
  normalization?: Normalization;
  /** Default `forward`. */
  divergence?: Divergence;
  /** Of both distributions; losses are multiplied by its square (arXiv:1503.02531). Default 1. */
  temperature?: number;
}

/** Sum over rows of KL(softmax(teacher) || softmax(student)) at a temperature, times its square. */
export function forwardKl(
  student: Tensor, // [N, V]
  teacher: Tensor, // [N, V]
  temperature = 1,
): Scalar {
  return tf.tidy(() => {
    const target = tf.softmax(teacher.div(temperature)); // [N, V]
    const [N] = student.shape;
    return klDivergence(student, target, { temperature })
      .mul(N * temperature ** 2) as Scalar;
  });
}

/** Sum over rows of KL(softmax(student) || softmax(teacher)) at a temperature, times its square. */
export function reverseKl(
  student: Tensor, // [N, V]
  teacher: Tensor, // [N, V]
  temperature = 1,
): Scalar {
  return tf.tidy(() => {
    const logS = tf.logSoftmax(student.div(temperature)); // [N, V]
    const logT = tf.logSoftmax(teacher.div(temperature)); // [N, V]
    return logS.exp().mul(logS.sub(logT)).sum().mul(temperature ** 2) as Scalar;
  });
}

/** Sum over rows of -log softmax(student)[token]. */
export function hardLoss(student: Tensor, tokens: Int32Array): Scalar {
  return tf.tidy(() =>
    crossEntropy(student, tf.tensor1d(tokens, "int32"))
      .mul(tokens.length) as Scalar
  );
}

/** The rows of a matrix with these numbers; its gradient adds them back. */
export function rowsOf(matrix: Tensor, rows: readonly number[]): Tensor {
  return tf.tidy(() =>
    embedding(tf.tensor1d(Int32Array.from(rows), "int32"), matrix)
  );
}

const NORMALIZATIONS: readonly string[] = ["sum", "token-mean", "span-mean"];
const DIVERGENCES: readonly string[] = ["forward", "reverse", "hard"];

function checkName(what: string, name: string, known: readonly string[]): void {
  if (known.includes(name)) return;
  throw new RangeError(
    `Cannot compute a loss as its ${what} must be one of ${
      known.join(", ")
    }: ${name}`,
  );
}

/** By what the summed loss of each label is multiplied. */
export function termWeights(
  counts: Record<Label, number>,
  {
    lambdaR = 1,
    lambdaA = 1,
    lambdaO = 0,
    normalization = "span-mean",
  }: LossOptions = {},
): Record<Label, number> {
  checkName("normalization", normalization, NORMALIZATIONS);
  const lambda = { reason: lambdaR, act: lambdaA, neither: lambdaO };
  for (const [name, value] of Object.entries({ lambdaR, lambdaA, lambdaO })) {
    if (!(value >= 0 && Number.isFinite(value))) {
      throw new RangeError(
        `Cannot weigh the losses as ${name} must be a finite number >= 0: ${value}`,
      );
    }
  }
  const labels = Object.keys(lambda) as Label[];
  const weighted = labels.filter((label) => lambda[label] > 0);
  const total = weighted.reduce((n, label) => n + counts[label], 0);
  if (total === 0) {
    throw new RangeError(
      `Cannot compute a loss as there must be tokens with a weight: ${counts.reason} tokens of reasoning at weight ${lambdaR}, ${counts.act} of action at ${lambdaA}, ${counts.neither} others at ${lambdaO}`,
    );
  }
  const divisor = (label: Label) =>
    normalization === "sum"
      ? 1
      : normalization === "token-mean"
      ? total
      : counts[label];
  // A span without tokens adds nothing, rather than 0 / 0.
  return Object.fromEntries(
    labels.map((label) => [
      label,
      counts[label] === 0 ? 0 : lambda[label] / divisor(label),
    ]),
  ) as Record<Label, number>;
}

/** Tokens by label. */
export function countLabels(labels: readonly Label[]): Record<Label, number> {
  const counts: Record<Label, number> = { reason: 0, act: 0, neither: 0 };
  for (const label of labels) counts[label]++;
  return counts;
}

/** What a loss is computed from: one row per token that is predicted. */
export interface Predictions {
  /** Student's logits, [N, V]. */
  student: Tensor;
  /** Teacher's logits under the same prefixes, [N, V]; not needed for `hard`. */
  teacher: Tensor | null;
  /** The tokens themselves. */
  tokens: Int32Array;
  labels: readonly Label[];
}

/**
 * lambda_r L_CoT + lambda_a L_Act (arXiv 2505.13820), with the normalisation chosen.
 *
 * Its gradient with respect to the student's logits of token t is, at temperature 1,
 * (w_r m_r(t) + w_a m_a(t)) (p_S - p_T): zero where the masks are.
 *
 * @returns A scalar, in nats.
 * @throws {RangeError} If vocabularies differ, or no token has a weight.
 */
export function structuredLoss(
  { student, teacher, tokens, labels }: Predictions,
  options: LossOptions = {},
): Scalar {
  const { divergence = "forward", temperature = 1 } = options;
  checkName("divergence", divergence, DIVERGENCES);
  if (teacher !== null) {
    checkVocabularies(student.shape.at(-1)!, teacher.shape.at(-1)!);
  }
  const rows = {
    student: student.shape[0],
    teacher: teacher?.shape[0] ?? student.shape[0],
    tokens: tokens.length,
    labels: labels.length,
  };
  if (Object.values(rows).some((n) => n !== rows.student)) {
    throw new RangeError(
      `Cannot compute a loss as there must be one row, token and label for each prediction: student ${rows.student}, teacher ${rows.teacher}, tokens ${rows.tokens}, labels ${rows.labels}`,
    );
  }
  if (divergence !== "hard" && teacher === null) {
    throw new TypeError(
      `Cannot compute a ${divergence} divergence as the teacher's logits must be given`,
    );
  }
  const weights = termWeights(countLabels(labels), options);
  return tf.tidy(() => {
    let loss: Tensor = tf.scalar(0);
    for (const label of ["reason", "act", "neither"] as const) {
      if (weights[label] === 0) continue;
      const rows = labels.flatMap((own, i) => own === label ? [i] : []);
      const own = rowsOf(student, rows);
      const term = divergence === "hard"
        ? hardLoss(own, tokens.filter((_, i) => labels[i] === label))
        : divergence === "forward"
        ? forwardKl(own, rowsOf(teacher!, rows), temperature)
        : reverseKl(own, rowsOf(teacher!, rows), temperature);
      loss = loss.add(term.mul(weights[label]));
    }
    return loss as Scalar;
  });
}

/** Throws unless both models speak of the same tokens. */
export function checkVocabularies(student: number, teacher: number): void {
  if (student !== teacher) {
    throw new RangeError(
      `Cannot distil as teacher and student must have one vocabulary: teacher ${teacher} tokens, student ${student}; train the student with the teacher's tokenizer`,
    );
  }
}
