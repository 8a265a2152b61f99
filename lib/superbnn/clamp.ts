/**
 * Weight rectified clamp: latent weights standardised and clamped before their sign is taken.
 *
 * ReCU: Z. Xu et al., "ReCU: Reviving the Dead Weights in Binary Neural Networks", ICCV 2021, arXiv
 * 2103.12369, which SupeRBNN's "weight rectified clamp method" (arXiv 2309.12212, abstract) is taken to be.
 * Operations as in the authors' code (z-hXu/ReCU 9a73bed cifar/modules/binarized_modules.py), written anew.
 *
 * Weights far out in the tails hardly ever change their sign ("dead weights"). Clamping at a quantile pulls
 * them in, while standardising keeps the rest spread out.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | w | weight | [outputs, fan-in] |
 * | Q_tau | laplaceQuantile() | number |
 * | tau | tau | from 0.5 to below 1 |
 *
 * Scope: steps 1 to 4 and the schedule. The sign with its straight-through gradient is train.ts's; the
 * learned scale per output is left out, as batch matching cancels it (a positive factor of the sum).
 */
import { type Tensor, tf } from "../core/tensor.ts";

/** Added to the variance, as in the authors' code. */
const VARIANCE_EPS = 1e-5;

/** Standard deviation after standardising: 2 sqrt(2), as in the authors' code. */
const TARGET_SD = 2 * Math.SQRT2;

/** How tau grows over training; end points recalled, not read. */
export const TAU_SCHEDULE = {
  min: 0.85,
  max: 0.99,
  standing: "recalled",
  source:
    "ReCU, cifar/main.py: shape of the schedule read, end points recalled",
} as const;

function checkTau(tau: number): void {
  if (!(tau >= 0.5 && tau < 1)) {
    throw new RangeError(
      `Cannot clamp weights as tau must be from 0.5 to below 1: tau ${tau}`,
    );
  }
}

/**
 * Quantile tau of a zero-mean Laplace distribution with mean absolute value b.
 *
 * Q_tau = -b ln(2 - 2 tau), so that P(|w| <= Q_tau) = 2 tau - 1    (ReCU, section 3; b = E|w|)
 */
export function laplaceQuantile(meanAbsolute: number, tau: number): number {
  checkTau(tau);
  return -meanAbsolute * Math.log(2 - 2 * tau);
}

/**
 * tau of an epoch: exponential from min to max.
 *
 * tau(e) = C r^(e / E) + D with C, D from tau(0) = min, tau(E) = max: C = (max - min) / (r - 1), D = min - C
 * (shape read in the authors' code; r = e, Euler's number, recalled)
 *
 * @param progress e / E, from 0 to 1
 */
export function tauAt(
  progress: number,
  { min = TAU_SCHEDULE.min, max = TAU_SCHEDULE.max }: {
    min?: number;
    max?: number;
  } = {},
): number {
  checkTau(min);
  checkTau(max);
  if (!(progress >= 0 && progress <= 1 && min <= max)) {
    throw new RangeError(
      `Cannot schedule tau as progress must be from 0 to 1 and min at most max: progress ${progress}, min ${min}, max ${max}`,
    );
  }
  const C = (max - min) / (Math.E - 1);
  return C * Math.exp(progress) + (min - C);
}

/**
 * Latent weights as ReCU's sign sees them; differentiable.
 *
 * 1. w0 = w - mean(w) per output
 * 2. w1 = w0 2 sqrt(2) / sqrt(var(w0) + 1e-5) per output (the unbiased variance)
 * 3. Q_tau = -E|w1| ln(2 - 2 tau), over the whole layer, a constant for the gradient
 * 4. w2 = min(max(w1, -Q_tau), Q_tau): no gradient outside
 *
 * @param weight [outputs, fan-in], fan-in at least 2
 * @returns [outputs, fan-in]
 * @throws {RangeError} if tau is out of range or there is no variance to divide by
 */
export function rectifiedClamp(weight: Tensor, tau: number): Tensor {
  checkTau(tau);
  const [, fanIn] = weight.shape;
  if (weight.rank !== 2 || fanIn < 2) {
    throw new RangeError(
      `Cannot clamp weights as they must be [outputs, fan-in] with a fan-in of at least 2: [${
        weight.shape.join(", ")
      }]`,
    );
  }
  return tf.tidy(() => {
    const centred = tf.sub(weight, tf.mean(weight, 1, true));
    const variance = tf.div(
      tf.sum(tf.square(centred), 1, true),
      fanIn - 1,
    ); // [outputs, 1]
    const standard = tf.mul(
      centred,
      tf.div(TARGET_SD, tf.sqrt(tf.add(variance, VARIANCE_EPS))),
    );
    const meanAbsolute = tf.tidy(() => tf.mean(tf.abs(standard)).dataSync()[0]);
    const limit = laplaceQuantile(meanAbsolute, tau);
    return tf.clipByValue(standard, -limit, limit);
  });
}
