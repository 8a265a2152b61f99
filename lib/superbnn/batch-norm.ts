/**
 * Batch-normalisation matching: the sign of a normalised sum is a threshold on the sum.
 *
 * SupeRBNN: Z. Li et al., MICRO 2023, arXiv 2309.12212; batch normalisation: S. Ioffe and C. Szegedy,
 * arXiv 1502.03167, algorithm 1.
 *
 * | symbol | identifier | unit |
 * | --- | --- | --- |
 * | gamma, beta | gamma, beta | none |
 * | mu, sigma^2, epsilon | mean, variance, eps | of the sum, of its square |
 * | V_th | threshold | of the sum |
 *
 * Scope: the folding itself. That the threshold becomes a bias current, I_th = I1(Cs) V_th, and that K
 * crossbars get V_th / K each, is this project's reading of "BN matching" (the paper's formula was not
 * available): device.ts and crossbar.ts.
 */

/** Batch normalisation of one neuron, with the statistics of inference. */
export interface BatchNorm {
  gamma: number;
  beta: number;
  mean: number;
  /** At least 0. */
  variance: number;
  /** Above 0. */
  eps: number;
}

/** A neuron without batch normalisation. */
export interface MatchedNeuron {
  /** The signs of the neuron's weights are turned (gamma < 0). */
  flip: boolean;
  /** V_th of the (turned) sum: fires where the sum exceeds it. */
  threshold: number;
}

const words = new BigInt64Array(1);
const double = new Float64Array(words.buffer);

/** The greatest float64 below a finite number. */
export function nextBelow(x: number): number {
  if (x === 0) return -Number.MIN_VALUE;
  double[0] = x;
  words[0] += x > 0 ? -1n : 1n;
  return double[0];
}

/** BN(V) = gamma (V - mu) / sqrt(sigma^2 + epsilon) + beta, in float64. */
export function batchNorm(
  sum: number,
  { gamma, beta, mean, variance, eps }: BatchNorm,
): number {
  return gamma * ((sum - mean) / Math.sqrt(variance + eps)) + beta;
}

/** Throws unless all numbers are finite and the variance can be one. */
function checkBatchNorm(norm: BatchNorm): void {
  for (const [name, value] of Object.entries(norm)) {
    if (!Number.isFinite(value)) {
      throw new RangeError(
        `Cannot match the batch normalisation as ${name} must be finite: ${value}`,
      );
    }
  }
  const { variance, eps } = norm;
  if (variance < 0 || eps < 0 || variance + eps <= 0) {
    throw new RangeError(
      `Cannot match the batch normalisation as variance and eps must be from 0 and not both 0: variance ${variance}, eps ${eps}`,
    );
  }
}

/**
 * The threshold that does what batch normalisation and sign do, for every integer sum.
 *
 * BN(V) >= 0  <=>  V >= V_th (gamma > 0),  V <= V_th (gamma < 0),
 * V_th = mu - beta sqrt(sigma^2 + epsilon) / gamma    (derived; gamma = 0: constant sign(beta), sign(0) = +1)
 *
 * For gamma < 0 the weights are turned, which negates V, and -V_th is the threshold. Rounding could put V_th
 * on the wrong side of an integer, and V_th itself may be an integer, for which "exceeds" is not
 * "is at least"; so the first integer f at which the float64 expression `batchNorm` is at least 0 is
 * searched (every operation in it is monotone in V) and V_th is moved into [f - 1, f) if it is not there.
 *
 * @param norm of one neuron
 * @param options `fanIn`: greatest sum; beyond it the neuron is constant and the threshold infinite.
 *   Default 2^30
 * @returns `flip`, and the threshold that the turned sum must exceed
 * @example
 * ```ts
 * // 2 (4 - 3) / 2 - 1 = 0 counts as +1, so the threshold lies just below 4
 * matchBatchNorm({ gamma: 2, beta: -1, mean: 3, variance: 4, eps: 0 }).threshold < 4; // true
 * ```
 */
export function matchBatchNorm(
  norm: BatchNorm,
  { fanIn = 2 ** 30 }: { fanIn?: number } = {},
): MatchedNeuron {
  checkBatchNorm(norm);
  const { gamma, beta, mean, variance, eps } = norm;
  if (gamma === 0) {
    return { flip: false, threshold: beta >= 0 ? -Infinity : Infinity };
  }
  const flip = gamma < 0;
  const side = flip ? -1 : 1;
  const fires = (sum: number) => batchNorm(side * sum, norm) >= 0;
  if (fires(-fanIn)) return { flip, threshold: -Infinity };
  if (!fires(fanIn)) return { flip, threshold: Infinity };
  let low = -fanIn; // does not fire
  let first = fanIn; // fires
  while (first - low > 1) {
    const middle = Math.floor((low + first) / 2);
    if (fires(middle)) first = middle;
    else low = middle;
  }
  const real = side * (mean - beta * Math.sqrt(variance + eps) / gamma); // V_th
  const threshold = real >= first
    ? nextBelow(first)
    : real < first - 1
    ? first - 1
    : real;
  return { flip, threshold };
}
