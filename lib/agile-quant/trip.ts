/**
 * TRIP: one scale and one zero point per layer, one power of two per channel (Agile-Quant, "two-refine
 * improved by pruning"; Eqs. 4 to 8, after the power-of-two factor of FQ-ViT, Y. Lin et al., arXiv 2111.13824).
 *
 *     s       = (max X - min X) / (2^b - 1) / 2^K
 *     zp      = clip(round(-min X / (2^K s)), 0, 2^b - 1)
 *     alpha_c = argmin_{k in 0..K} |X_c - Xhat_c(2^k s)|^2
 *     X_Q     = clip(round(X_c / (2^alpha_c s)) + zp, 0, 2^b - 1)
 *
 * X is the activation after pruning: the first refinement takes tokens away, the second is the factor. A channel
 * with the factor K has the step of plain layer-wise quantisation, one with 0 a step 2^K times finer.
 *
 * In a product the factor moves to the weights, sum_c 2^alpha_c (q_c - zp) w_c = sum_c (q_c - zp) (w_c << alpha_c),
 * or channels of one factor are summed first and the sums shifted: exact, with the weight codes as they are.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | s, zp | scale, zeroPoint | numbers |
 * | alpha | alpha | [C], 0 to K |
 * | K | maxFactor | number |
 *
 * Scope: the equations stand as reconstructed from the paper's prose and the released code
 * (ptq/observer/ptf.py); their display was not available.
 */
import { roundHalfEven } from "../core/quantizer.ts";

/** Largest exponent of a factor by default; 8-bit released observers go from 1 to 20. Our choice. */
export const DEFAULT_MAX_FACTOR = 8;

/** Largest exponent that is accepted. */
export const LARGEST_FACTOR = 20;

/** Parameters of one layer's activation. */
export interface Trip {
  bits: number;
  /** s, that of the factor 0. */
  scale: number;
  zeroPoint: number;
  /** alpha, one per channel. */
  alpha: Uint8Array;
}

/** Largest unsigned code. */
function top(bits: number): number {
  return 2 ** bits - 1;
}

/** s = (max X - min X) / (2^b - 1) / 2^K; 1 for an activation that is always 0. */
export function tripScale(
  low: number,
  high: number,
  bits: number,
  maxFactor: number,
): number {
  if (!(Number.isInteger(bits) && bits >= 2 && bits <= 8)) {
    throw new RangeError(
      `Cannot set a scale as bits must be 2 to 8: bits ${bits}`,
    );
  }
  if (!isFactor(maxFactor)) {
    throw new RangeError(
      `Cannot set a scale as the largest factor must be a whole number from 0 to ${LARGEST_FACTOR}: ${maxFactor}`,
    );
  }
  if (!(low <= 0 && high >= 0 && high - low < Infinity)) {
    throw new RangeError(
      `Cannot set a scale as the range must be finite and contain 0: ${low} to ${high}`,
    );
  }
  return high === low
    ? 1
    : Math.fround((high - low) / top(bits) / 2 ** maxFactor);
}

/** Whether K is one that scales can have. */
export function isFactor(maxFactor: number): boolean {
  return Number.isInteger(maxFactor) && maxFactor >= 0 &&
    maxFactor <= LARGEST_FACTOR;
}

/** zp = clip(round(-min X / (2^K s)), 0, 2^b - 1). */
export function tripZeroPoint(
  low: number,
  scale: number,
  bits: number,
  maxFactor: number,
): number {
  const zero = roundHalfEven(-low / (2 ** maxFactor * scale));
  return Math.min(top(bits), Math.max(0, zero));
}

/** Doubles of this size are 1 apart: a number below 2^51 that is added to it is rounded to a whole one. */
const ROUND = 1.5 * 2 ** 52;

/** X_Q = clip(round(x / step) + zp, 0, 2^b - 1), in single precision as the tensors compute it. */
function codeOf(x: number, step: number, zeroPoint: number, bits: number) {
  const code = roundHalfEven(Math.fround(x / step)) + zeroPoint;
  return Math.min(top(bits), Math.max(0, code));
}

/**
 * |X_c - Xhat_c(2^k s)|^2 for every channel and every k of 0..K, to be added up over batches.
 *
 * @param x [tokens, C]
 * @returns [C, K + 1]
 */
export function tripErrors(
  x: Float32Array,
  channels: number,
  { bits, scale, zeroPoint, maxFactor }: {
    bits: number;
    scale: number;
    zeroPoint: number;
    maxFactor: number;
  },
): Float64Array {
  const K = maxFactor + 1;
  const errors = new Float64Array(channels * K);
  const most = top(bits) - zeroPoint;
  const factors = Float64Array.from({ length: K }, (_, k) => 2 ** k);
  for (let row = 0; row < x.length; row += channels) {
    for (let c = 0; c < channels; c++) {
      const value = x[row + c];
      const v = Math.fround(value / scale); // dividing it by 2^k is exact
      for (let k = 0, at = c * K; k < K; k++, at++) {
        // codeOf(...) - zeroPoint; adding and taking away 1.5 2^52 rounds half to even.
        const q = v / factors[k] + ROUND - ROUND;
        const kept = Math.max(-zeroPoint, Math.min(most, q));
        const e = value - factors[k] * scale * kept;
        errors[at] += e * e;
      }
    }
  }
  return errors;
}

/** alpha_c = argmin_k of the errors; the finest step among equals. */
export function tripFactors(
  errors: Float64Array,
  maxFactor: number,
): Uint8Array {
  const K = maxFactor + 1;
  return Uint8Array.from({ length: errors.length / K }, (_, c) => {
    let best = 0;
    for (let k = 1; k < K; k++) {
      if (errors[c * K + k] < errors[c * K + best]) best = k;
    }
    return best;
  });
}

/**
 * TRIP's parameters for one activation: two passes over its numbers, range and factors.
 *
 * @param x [tokens, C]
 * @param maxFactor K
 * @throws {RangeError} if there is no token, or a number is NaN or infinite
 * @example
 * ```ts
 * // The second channel is 8 times the first: three powers of two apart.
 * const { alpha, zeroPoint } = fitTrip(Float32Array.of(-1, -8, 1, 8, 0.3, 2.4), 2, { bits: 8, maxFactor: 3 });
 * [...alpha]; // [0, 3]
 * zeroPoint; // 127
 * ```
 */
export function fitTrip(
  x: Float32Array,
  channels: number,
  { bits = 8, maxFactor = DEFAULT_MAX_FACTOR }: {
    bits?: number;
    maxFactor?: number;
  } = {},
): Trip {
  if (x.length === 0 || x.length % channels !== 0) {
    throw new RangeError(
      `Cannot calibrate as there must be one or more tokens of ${channels} channels: ${x.length} numbers`,
    );
  }
  let low = 0;
  let high = 0;
  for (const value of x) {
    if (!Number.isFinite(value)) {
      throw new RangeError(
        `Cannot calibrate as every number must be finite: ${value}`,
      );
    }
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const scale = tripScale(low, high, bits, maxFactor);
  const zeroPoint = tripZeroPoint(low, scale, bits, maxFactor);
  const errors = tripErrors(x, channels, { bits, scale, zeroPoint, maxFactor });
  return { bits, scale, zeroPoint, alpha: tripFactors(errors, maxFactor) };
}

/** X_Q, [tokens, C]. */
export function tripCodes(
  x: Float32Array,
  { bits, scale, zeroPoint, alpha }: Trip,
): Uint8Array {
  const steps = Array.from(alpha, (k) => Math.fround(2 ** k * scale));
  return Uint8Array.from(
    x,
    (value, at) => codeOf(value, steps[at % steps.length], zeroPoint, bits),
  );
}

/** w_c << alpha_c: weight codes with the factors folded in, 2^alpha_c times as large. */
export function foldFactors(
  weight: Int8Array,
  alpha: Uint8Array,
): Int32Array {
  return Int32Array.from(
    weight,
    (w, at) => w * 2 ** alpha[at % alpha.length],
  );
}

/**
 * sum_c 2^alpha_c (q_c - zp) w_c by groups of channels with one factor: an integer product per group, then a
 * shift of each sum. Multiply by s and the weight's scale of each output for the numbers.
 *
 * Exact for any factors, with weight codes of their own few bits; the price is one product per factor in use.
 *
 * @param codes X_Q, [T, C]
 * @param weight codes without zero point, [N, C]
 * @returns [T, N]; whole numbers, as 2^K times an int32 does not fit one
 * @throws {RangeError} if the shapes do not fit, or C is so large that a sum could leave int32
 */
export function tripProduct(
  codes: Uint8Array,
  weight: Int8Array,
  { bits, zeroPoint, alpha }: Pick<Trip, "bits" | "zeroPoint" | "alpha">,
): Float64Array {
  const C = alpha.length;
  if (codes.length % C !== 0 || weight.length % C !== 0) {
    throw new RangeError(
      `Cannot multiply as both must have rows of ${C} channels: ${codes.length} and ${weight.length} codes`,
    );
  }
  if (C * top(bits) * 128 >= 2 ** 31) {
    throw new RangeError(
      `Cannot multiply as a sum must fit 32 bits: ${C} channels of ${bits} bits`,
    );
  }
  const [T, N] = [codes.length / C, weight.length / C];
  const groups = new Map<number, number[]>();
  alpha.forEach((k, c) => groups.set(k, [...groups.get(k) ?? [], c]));
  const out = new Float64Array(T * N);
  for (const [k, channels] of groups) {
    for (let t = 0; t < T; t++) {
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (const c of channels) {
          sum = (sum + (codes[t * C + c] - zeroPoint) * weight[n * C + c]) | 0;
        }
        out[t * N + n] += 2 ** k * sum;
      }
    }
  }
  return out;
}
