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

/** What `checkMatching` saw. */
export interface MatchingReport {
  /** Sums looked at, of all neurons together. */
  compared: number;
  /** Those for which both decide alike; equal to `compared` if the matching is right. */
  agreeing: number;
  /** The first disagreement of every neuron that has one, in words. */
  failures: string[];
}

/**
 * Compares thresholds with the batch normalisations that they stand for, for every sum that can occur.
 *
 * The verifier of `matchBatchNorm`, and of any network that claims to be folded: a neuron of n inputs of
 * +1 and -1 has the n + 1 sums -n, -n + 2, ... n, and for each of them must hold
 *
 * BN(V) >= 0  <=>  s V > V_th,  s = -1 for a turned neuron, else 1
 *
 * @param norms of the neurons of a layer, for the sum before weights are turned
 * @param neurons what was made of them, in the same order
 * @param options `fanIn`: n, at least 1; `name`: how failures call the layer, default "layer"
 * @returns counts, and what is wrong
 * @example
 * ```ts
 * const norm = { gamma: -2, beta: -1, mean: 3, variance: 4, eps: 0 }; // 2 - V: fires up to 2
 * const right = matchBatchNorm(norm, { fanIn: 8 });
 * checkMatching([norm], [right], { fanIn: 8 }).agreeing; // 9
 * checkMatching([norm], [{ ...right, flip: false }], { fanIn: 8 }).agreeing; // 3
 * ```
 */
export function checkMatching(
  norms: readonly BatchNorm[],
  neurons: readonly MatchedNeuron[],
  { fanIn, name = "layer" }: { fanIn: number; name?: string },
): MatchingReport {
  if (norms.length !== neurons.length) {
    throw new RangeError(
      `Cannot check the matching of ${name} as every neuron needs its batch normalisation: ${neurons.length} neurons, ${norms.length} normalisations`,
    );
  }
  if (!Number.isSafeInteger(fanIn) || fanIn < 1) {
    throw new RangeError(
      `Cannot check the matching of ${name} as fanIn must be an integer from 1: ${fanIn}`,
    );
  }
  const failures: string[] = [];
  let [compared, agreeing] = [0, 0];
  norms.forEach((norm, j) => {
    checkBatchNorm(norm);
    const { flip, threshold } = neurons[j];
    let failed = false;
    for (let sum = -fanIn; sum <= fanIn; sum += 2) {
      const normalised = batchNorm(sum, norm);
      const fires = (flip ? -sum : sum) > threshold;
      compared++;
      if (fires === normalised >= 0) agreeing++;
      else if (!failed) {
        failed = true;
        failures.push(
          `${name}, neuron ${j}: normalised, the sum ${sum} is ${normalised}, yet ${
            fires ? "it fires" : "it does not fire"
          } at the threshold ${threshold}${flip ? ", turned" : ""}`,
        );
      }
    }
  });
  return { compared, agreeing, failures };
}
