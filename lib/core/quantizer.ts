/**
 * Quantizers, composed of parts.
 *
 * A uniform quantizer stores x as a whole number q and reads it back as xhat:
 *
 *     q = clamp(round(x / scale + shift) + zeroPoint, qmin, qmax)
 *     xhat = scale (q - zeroPoint - shift)
 *
 * Methods differ in five parts, and a method here is a choice of them (section "Methods" below):
 *
 * | part        | choices                                                                             |
 * | ----------- | ----------------------------------------------------------------------------------- |
 * | grid        | bits, signed or not, with or without the code -2^(bits - 1)                          |
 * | granularity | one scale per tensor, channel, group, token                                          |
 * | calibration | a range (min-max, percentile, least squares) made a step, or a learned step          |
 * | rounding    | half to even, stochastic, noise instead of rounding                                  |
 * | through     | where the gradient passes the rounding                                               |
 *
 * Rounding has no useful derivative. Training uses a stated rule, the straight-through estimator
 * (Y. Bengio, N. Leonard and A. Courville, arXiv 1308.3432): with v = x / scale + shift and m = 1 where the
 * gradient passes, else 0,
 *
 *     dL/dx     = dL/dxhat m
 *     dL/dscale = sum dL/dxhat ((xhat - m x) / scale)
 *     dL/dshift = sum dL/dxhat scale (m - 1)
 *
 * which is what automatic differentiation gives if round has the derivative 1 and clamp m. For m = 1 inside
 * the range that is round(v) - v inside and qmin or qmax outside: Eq. 3 of LSQ.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | s, alpha | scale | 1 in every axis that shares it |
 * | z | zeroPoint | as scale, whole numbers |
 * | beta | the value of code 0, -scale shift | as scale |
 * | Qn, Qp | qmin, qmax | numbers |
 *
 * Scope: fake quantisation with gradients, and codes for the integer kernels. Bits of 16 and 32 pass
 * everything unchanged.
 */
import { type Tensor, tf } from "./tensor.ts";
import * as nn from "./nn.ts";
import { type Key, permutation, uniform } from "./rng.ts";

/** The codes of a quantizer. */
export interface Grid {
  bits: number;
  qmin: number;
  qmax: number;
  signed: boolean;
}

export interface GridOptions {
  /** 2 to 8, or 16 and 32, which quantise nothing. */
  bits?: number;
  /** Codes on both sides of 0 (default), or from 0. */
  signed?: boolean;
  /** Leave out the code -2^(bits - 1), so that the codes are symmetric. */
  narrow?: boolean;
}

/**
 * What shares one scale: the tensor; a token, that is the last axis; a channel, that is all but one axis
 * (0 for the outputs of a weight [out, in]); a group of neighbours along the last axis.
 */
export type Granularity = "tensor" | "token" | { channel: number } | {
  group: number;
};

/** Steps of a quantizer; each tensor broadcasts against x. */
export interface Affine {
  scale: Tensor;
  /** Whole number added after rounding. */
  zeroPoint?: Tensor;
  /** Any number added before rounding. */
  shift?: Tensor;
}

/** The numbers that a quantizer should represent; low <= 0 <= high, 1 in every reduced axis. */
export interface Range {
  low: Tensor;
  high: Tensor;
}

/** The range of x over `axes`. */
export type RangeEstimator = (x: Tensor, axes: number[], grid: Grid) => Range;

/** From a range to a step. */
export type StepRule = (range: Range, grid: Grid) => Affine;

/** Where the steps come from: from x at every call and without a gradient, or tensors that learn. */
export type Calibration =
  | {
    kind: "estimated";
    estimate(x: Tensor, axes: number[], grid: Grid): Affine;
  }
  | { kind: "learned"; affine: Affine };

/** Whole numbers, or something like them, from v. */
export type Rounding = (v: Tensor) => Tensor;

/** Where a number lies on the grid: its code is round(v) + zero, to be kept in [low, high]. */
export interface Position {
  x: Tensor;
  /** x / scale + shift. */
  v: Tensor;
  /** The zero point, if there is one. */
  zero?: Tensor;
  low: number;
  high: number;
}

/** 1 where the gradient passes, 0 elsewhere. */
export type Through = (at: Position) => Tensor;

/** The parts of a quantizer. */
export interface Quantization {
  grid: Grid;
  /** Default "tensor". */
  granularity?: Granularity;
  calibration: Calibration;
  /** Default `halfEven`. */
  rounding?: Rounding;
  /** Default `inside`. */
  through?: Through;
}

/** From x to xhat, with the gradients of the stated rule. */
export type FakeQuantizer = (x: Tensor) => Tensor;

const show = (x: Tensor) => `[${x.shape.join(", ")}]`;

// ---------------------------------------------------------------- grid

/**
 * The codes of `bits` bits.
 *
 * signed: -2^(bits - 1) to 2^(bits - 1) - 1; unsigned: 0 to 2^bits - 1.
 *
 * @throws {RangeError} if bits is none of 2 to 8, 16, 32
 * @example
 * ```ts
 * assert.equal(grid({ bits: 4 }), { bits: 4, qmin: -8, qmax: 7, signed: true });
 * ```
 */
export function grid(
  { bits = 8, signed = true, narrow = false }: GridOptions = {},
): Grid {
  const known = Number.isInteger(bits) && bits >= 2 && bits <= 8;
  if (!known && bits !== 16 && bits !== 32) {
    throw new RangeError(
      `Cannot quantise as bits must be 2 to 8, or 16 or 32 to pass everything: bits ${bits}`,
    );
  }
  const qmax = 2 ** (signed ? bits - 1 : bits) - 1;
  const qmin = signed ? -qmax - (narrow ? 0 : 1) : 0;
  return { bits, qmin, qmax, signed };
}

// ---------------------------------------------------------------- granularity

/** x as it is quantised, and the axes that share a scale. */
export function layout(
  shape: number[],
  granularity: Granularity = "tensor",
): { shape: number[]; axes: number[] } {
  const all = shape.map((_, i) => i);
  if (granularity === "tensor") return { shape, axes: all };
  if (shape.length === 0) {
    throw new RangeError(
      "Cannot give a number more than one scale as it has no axes: take one per tensor",
    );
  }
  const last = shape[shape.length - 1];
  if (granularity === "token") return { shape, axes: [shape.length - 1] };
  if ("channel" in granularity) {
    const { channel } = granularity;
    const axis = channel < 0 ? channel + shape.length : channel;
    if (!Number.isInteger(axis) || axis < 0 || axis >= shape.length) {
      throw new RangeError(
        `Cannot quantise by channel as the axis must be one of [${
          shape.join(", ")
        }]: axis ${channel}`,
      );
    }
    return { shape, axes: all.filter((i) => i !== axis) };
  }
  const { group } = granularity;
  if (!Number.isInteger(group) || group < 1 || last % group !== 0) {
    throw new RangeError(
      `Cannot quantise in groups as the group size must divide the last axis: group size ${group}, shape [${
        shape.join(", ")
      }]`,
    );
  }
  return {
    shape: [...shape.slice(0, -1), last / group, group],
    axes: [shape.length],
  };
}

// ---------------------------------------------------------------- ranges

/** From the least to the greatest number, and 0. */
export const minMax: RangeEstimator = (x, axes) => ({
  low: tf.minimum(x.min(axes, true), 0),
  high: tf.maximum(x.max(axes, true), 0),
});

/** -max|x| to max|x|. */
export const absMax: RangeEstimator = (x, axes) => {
  const high = x.abs().max(axes, true);
  return { low: high.neg(), high };
};

/** The given numbers, whatever x is. */
export function fixedRange(low: number, high: number): RangeEstimator {
  if (!(low <= 0 && high >= 0 && high > low && high - low < Infinity)) {
    throw new RangeError(
      `Cannot fix a range as it must be finite and contain 0: ${low} to ${high}`,
    );
  }
  return (x, axes) => {
    const shape = x.shape.map((size, i) => axes.includes(i) ? 1 : size);
    return { low: tf.fill(shape, low), high: tf.fill(shape, high) };
  };
}

/** One estimate per set of numbers that shares a scale, on the host; no gradient. */
function perRow(
  x: Tensor,
  axes: number[],
  estimate: (row: Float32Array) => [low: number, high: number],
): Range {
  const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const shape = x.shape.map((size, i) => axes.includes(i) ? 1 : size);
  const sorted = tf.tidy(() => x.transpose([...kept, ...axes]).flatten());
  const values = sorted.dataSync() as Float32Array;
  sorted.dispose();
  const rows = tf.util.sizeFromShape(shape);
  const size = values.length / rows;
  const low = new Float32Array(rows);
  const high = new Float32Array(rows);
  for (let i = 0; i < rows; i++) {
    [low[i], high[i]] = estimate(values.subarray(i * size, (i + 1) * size));
  }
  return { low: tf.tensor(low, shape), high: tf.tensor(high, shape) };
}

/** Number `p` of [0, 1] of sorted values, between neighbours linearly, as numpy.percentile. */
function quantile(sorted: Float32Array, p: number): number {
  const at = p * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/**
 * From the (1 - p) quantile to the p quantile, and 0: the tails are clipped.
 *
 * @param p above 0.5, at most 1, which is `minMax`
 */
export function percentile(p = 0.999): RangeEstimator {
  if (!(p > 0.5 && p <= 1)) {
    throw new RangeError(
      `Cannot estimate a range as p must be above 0.5 and at most 1: p ${p}`,
    );
  }
  return (x, axes) =>
    perRow(x, axes, (row) => {
      const sorted = row.slice().sort();
      return [
        Math.min(0, quantile(sorted, 1 - p)),
        Math.max(0, quantile(sorted, p)),
      ];
    });
}

/** Nearest whole number, ties to even. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * The part c [low, high] of min-max, c = 1/steps ... 1, whose symmetric or asymmetric codes have the least
 * squared error.
 *
 * argmin_c sum (x - xhat(c low, c high))^2: clipping against rounding (R. Banner et al., arXiv 1810.05723,
 * section 2, by search instead of their closed form).
 *
 * @param steps number of ranges tried, default 100 (our choice)
 */
export function leastSquares(
  { symmetric = true, steps = 100 }: { symmetric?: boolean; steps?: number } =
    {},
): RangeEstimator {
  return (x, axes, { qmin, qmax }) =>
    perRow(x, axes, (row) => {
      let low = 0;
      let high = 0;
      for (const v of row) {
        if (v < low) low = v;
        if (v > high) high = v;
      }
      if (symmetric) {
        [low, high] = [-Math.max(-low, high), Math.max(-low, high)];
      }
      if (low === high) return [low, high];
      let best = Infinity;
      let chosen = 1;
      for (let i = steps; i > 0; i--) {
        const c = i / steps;
        const scale = symmetric ? c * high / qmax : c * (high - low) /
          (qmax - qmin);
        const zero = symmetric ? 0 : qmin - roundHalfEven(c * low / scale);
        let error = 0;
        for (const v of row) {
          const code = Math.min(
            qmax,
            Math.max(qmin, roundHalfEven(v / scale) + zero),
          );
          error += (v - scale * (code - zero)) ** 2;
        }
        if (error < best) [best, chosen] = [error, c];
      }
      return [chosen * low, chosen * high];
    });
}

// ---------------------------------------------------------------- steps

/** A scale of 0, the range of nothing, becomes 1: all codes are then 0. */
const nonzero = (scale: Tensor) =>
  scale.add(tf.equal(scale, 0).cast("float32"));

/** scale = max(-low, high) / qmax. */
export const symmetric: StepRule = ({ low, high }, { qmax }) => ({
  scale: nonzero(tf.maximum(low.neg(), high).div(qmax)),
});

/**
 * scale = max(-low, high) / ((qmax - qmin) / 2): /127.5 for 8 bits, as in the released code of Agile-Quant.
 */
export const symmetricHalf: StepRule = ({ low, high }, { qmin, qmax }) => ({
  scale: nonzero(tf.maximum(low.neg(), high).div((qmax - qmin) / 2)),
});

/** scale = (high - low) / (qmax - qmin), zeroPoint = qmin - round(low / scale). */
export const asymmetric: StepRule = ({ low, high }, { qmin, qmax }) => {
  const scale = nonzero(high.sub(low).div(qmax - qmin));
  const zeroPoint = tf.sub(qmin, low.div(scale).round());
  return { scale, zeroPoint: zeroPoint.clipByValue(qmin, qmax) };
};

/** The least power of two that is no smaller than the scale of `rule`: a shift in integer arithmetic. */
export function powerOfTwo(rule: StepRule = symmetric): StepRule {
  return (range, grid) => {
    const { scale, ...rest } = rule(range, grid);
    const exponent = scale.log().div(Math.LN2).sub(LOG_SLACK).ceil();
    return { scale: tf.pow(2, exponent), ...rest };
  };
}

/** Keeps the float32 logarithm of an exact power of two from rounding up to the next one. */
const LOG_SLACK = 1e-5;

/** Steps from the range of x itself: of each call, or of the tensor that is quantised once. */
export function estimated(
  range: RangeEstimator = absMax,
  step: StepRule = symmetric,
): Calibration {
  return {
    kind: "estimated",
    estimate: (x, axes, grid) => step(range(x, axes, grid), grid),
  };
}

/** Steps that are tensors, and learn if those do; also what `calibrate` found. */
export function learned(affine: Affine): Calibration {
  return { kind: "learned", affine };
}

// ---------------------------------------------------------------- rounding

/** To the nearest whole number, ties to even, as IEEE 754 and PyTorch. */
export const halfEven: Rounding = (v) => v.round();

/**
 * Up with the probability of the fraction, else down: right on average (S. Gupta et al., arXiv 1502.02551,
 * section 3).
 */
export function stochastic(key: Key): Rounding {
  return (v) => v.add(tf.tensor(uniform(key, v.size), v.shape)).floor();
}

/** v plus noise, uniform in [-1/2, 1/2): what rounding does to v, without the steps. */
export function uniformNoise(key: Key): Rounding {
  return (v) => v.add(tf.tensor(uniform(key, v.size, -0.5, 0.5), v.shape));
}

/** v plus the rounding errors of v in another order: noise of the distribution that rounding has here. */
export function shuffledNoise(key: Key): Rounding {
  return (v) => {
    const errors = v.round().sub(v).flatten();
    const order = tf.tensor1d(
      Int32Array.from(permutation(key, v.size)),
      "int32",
    );
    return v.add(errors.gather(order).reshape(v.shape));
  };
}

// ---------------------------------------------------------------- straight through

const and = (a: Tensor, b: Tensor) => a.logicalAnd(b).cast("float32");

/** Makes any positive float32 at least 1, so that clipping to [0, 1] tells it from 0. */
const ENORMOUS = 1e38;

/** 1 where x > 0, else 0: by arithmetic, as comparisons take the engine ten times as long. */
const isPositive = (x: Tensor) => x.mul(ENORMOUS).clipByValue(0, 1);

/** Adding the zero point to v leaves plain numbers as bounds: the engine compares tensors slowly. */
const onGrid = (v: Tensor, zero?: Tensor) =>
  zero === undefined ? v : v.add(zero);

/** 1 where low <= code <= high: where clipping changes nothing. */
const between = (code: Tensor, low: number, high: number) =>
  tf.sub(1, isPositive(code.sub(code.clipByValue(low, high)).abs()));

/** 1 where low < code < high: both distances are above 0. */
const strictlyBetween = (code: Tensor, low: number, high: number) =>
  isPositive(code.sub(low)).mul(isPositive(tf.sub(high, code)));

/** Passes where low <= v + zero <= high: the derivative of clamp in PyTorch. */
export const inside: Through = ({ v, zero, low, high }) =>
  between(onGrid(v, zero), low, high);

/** Passes where low < v + zero < high: LSQ. */
export const strictlyInside: Through = ({ v, zero, low, high }) =>
  strictlyBetween(onGrid(v, zero), low, high);

/** Passes where the code is in range before clamping: PyTorch's fake_quantize. */
export const codeInside: Through = ({ v, zero, low, high }) =>
  between(onGrid(v.round(), zero), low, high);

/** Passes everywhere. */
export const everywhere: Through = ({ v }) => tf.onesLike(v);

/** Passes where low < x < high, in the values of x. */
export function valueInside(low: number, high: number): Through {
  return ({ x }) => strictlyBetween(x, low, high);
}

// ---------------------------------------------------------------- the whole

/** The sum of t over the axes in which `shape` is 1 or missing. */
function sumTo(t: Tensor, shape: number[]): Tensor {
  const missing = t.rank - shape.length;
  const axes = t.shape.map((_, i) => i).filter((i) =>
    i < missing || (shape[i - missing] === 1 && t.shape[i] !== 1)
  );
  return t.sum(axes).reshape(shape);
}

/** Where x lies on the grid. */
function position(
  x: Tensor,
  { scale, zeroPoint, shift }: Affine,
  { qmin, qmax }: Grid,
): Position {
  const steps = x.div(scale);
  return {
    x,
    v: shift === undefined ? steps : steps.add(shift),
    zero: zeroPoint,
    low: qmin,
    high: qmax,
  };
}

/** clamp(round(v) + zero, low, high). */
function codesOf({ v, zero, low, high }: Position, rounding: Rounding): Tensor {
  return onGrid(rounding(v), zero).clipByValue(low, high);
}

/** xhat; by the fused kernel where that computes the same. */
function forward(
  x: Tensor,
  affine: Affine,
  grid: Grid,
  rounding: Rounding,
): Tensor {
  const { scale, zeroPoint, shift } = affine;
  if (rounding === halfEven && shift === undefined) {
    return nn.fakeQuant(x, {
      scale,
      zeroPoint: zeroPoint ?? 0,
      qmin: grid.qmin,
      qmax: grid.qmax,
    });
  }
  let steps = codesOf(position(x, affine, grid), rounding);
  if (zeroPoint !== undefined) steps = steps.sub(zeroPoint);
  return (shift === undefined ? steps : steps.sub(shift)).mul(scale);
}

/**
 * x on the grid: xhat = scale (clamp(round(x / scale + shift) + zeroPoint, qmin, qmax) - zeroPoint - shift),
 * with the straight-through gradients of the file head.
 *
 * @param x float32, any shape
 * @returns the shape of x; x itself for 16 and 32 bits
 * @throws {RangeError} if the granularity does not fit the shape, or there is nothing to take a range of
 * @example
 * ```ts
 * const x = tf.tensor1d([0.26, -3, 0.9]);
 * const parts = { grid: grid({ bits: 2 }), calibration: learned({ scale: tf.scalar(0.5) }) };
 * assert.equal([...fakeQuantize(x, parts).dataSync()], [0.5, -1, 0.5]);
 * ```
 */
export function fakeQuantize(
  x: Tensor,
  {
    grid,
    granularity = "tensor",
    calibration,
    rounding = halfEven,
    through = inside,
  }: Quantization,
): Tensor {
  if (grid.bits > 8) return x;
  const { shape, axes } = layout(x.shape, granularity);
  const seen = tf.util.arraysEqual(shape, x.shape) ? x : x.reshape(shape);
  const y = calibration.kind === "estimated"
    ? withEstimate(seen, axes, grid, calibration, rounding, through)
    : withLearned(seen, grid, calibration.affine, rounding, through);
  return seen === x ? y : y.reshape(x.shape);
}

function checkSome(x: Tensor): void {
  if (x.size === 0) {
    throw new RangeError(
      `Cannot take a range as there must be at least one number: ${show(x)}`,
    );
  }
}

/** The steps are constants: computed and kept beside the tape. */
function withEstimate(
  x: Tensor,
  axes: number[],
  grid: Grid,
  { estimate }: Calibration & { kind: "estimated" },
  rounding: Rounding,
  through: Through,
): Tensor {
  checkSome(x);
  return tf.customGrad((x, save) => {
    const input = x as Tensor;
    const affine = estimate(input, axes, grid);
    const y = forward(input, affine, grid, rounding);
    const { scale, zeroPoint, shift } = affine;
    const tensors = [input, scale];
    if (zeroPoint !== undefined) tensors.push(zeroPoint);
    if (shift !== undefined) tensors.push(shift);
    (save as unknown as (tensors: Tensor[]) => void)(tensors);
    const gradFunc = (dy: Tensor, saved: Tensor[]) => {
      const [x, scale] = saved;
      const own: Affine = { scale };
      let next = 2;
      if (zeroPoint !== undefined) own.zeroPoint = saved[next++];
      if (shift !== undefined) own.shift = saved[next++];
      return dy.mul(through(position(x, own, grid)));
    };
    return { value: y, gradFunc };
  })(x);
}

/** The steps are inputs of the tape: x, scale and shift get a gradient, the zero point none. */
function withLearned(
  x: Tensor,
  grid: Grid,
  { scale, zeroPoint, shift }: Affine,
  rounding: Rounding,
  through: Through,
): Tensor {
  const own = zeroPoint !== undefined;
  const zero = zeroPoint ?? tf.scalar(0);
  const inputs = shift === undefined ? [x, scale, zero] : [
    x,
    scale,
    zero,
    shift,
  ];
  const y = tf.customGrad((...args) => {
    const save = args[inputs.length] as unknown as (tensors: Tensor[]) => void;
    const [x, scale, zeroPoint, shift] = args.slice(
      0,
      inputs.length,
    ) as Tensor[];
    const value = forward(
      x,
      { scale, zeroPoint, shift },
      grid,
      rounding,
    );
    save(
      shift === undefined ? [x, scale, zeroPoint, value] : [
        x,
        scale,
        zeroPoint,
        value,
        shift,
      ],
    );
    const gradFunc = (dy: Tensor, saved: Tensor[]) => {
      const [x, scale, zeroPoint, xhat, shift] = saved;
      const passed = through(
        position(
          x,
          { scale, zeroPoint: own ? zeroPoint : undefined, shift },
          grid,
        ),
      );
      // dL/dscale = sum dL/dxhat (xhat - m x) / scale
      const dScale = sumTo(
        dy.mul(xhat.sub(passed.mul(x)).div(scale)),
        scale.shape,
      );
      const gradients = [dy.mul(passed), dScale, tf.zerosLike(zeroPoint)];
      if (shift !== undefined) {
        // dL/dshift = sum dL/dxhat scale (m - 1)
        gradients.push(sumTo(dy.mul(passed.sub(1)).mul(scale), shift.shape));
      }
      return gradients;
    };
    return { value, gradFunc };
  })(...inputs);
  if (!own) zero.dispose();
  return y;
}

/** Codes for the integer kernels, and what brings them back. */
export interface Quantized {
  /** In the order of x. */
  codes: Int8Array | Uint8Array;
  shape: number[];
  /** In the order of the layout's kept axes. */
  scale: Float32Array;
  zeroPoint: Int32Array;
}

const NO_NUMBERS: Float32Array = new Float32Array();

function checkFinite(what: string, values: Float32Array): void {
  for (let at = 0; at < values.length; at++) {
    if (Number.isFinite(values[at])) continue;
    throw new RangeError(
      `Cannot quantise ${what} as every number must be finite: ${
        values[at]
      } at ${at}`,
    );
  }
}

function checkSteps(what: string, scale: Float32Array): void {
  for (let at = 0; at < scale.length; at++) {
    if (scale[at] > 0 && scale[at] < Infinity) continue;
    throw new RangeError(
      `Cannot quantise ${what} as every scale must be positive and finite: ${
        scale[at]
      } at ${at}`,
    );
  }
}

/**
 * The codes of x, as `fakeQuantize` gives them: scale (code - zeroPoint) is its result in every bit.
 *
 * @param name of the tensor, for errors
 * @throws {RangeError} if a number is NaN or infinite, a scale is not positive, the bits are 16 or 32, or a shift is
 * not whole
 */
export function quantizeCodes(
  x: Tensor,
  { grid, granularity = "tensor", calibration, rounding = halfEven }:
    Quantization,
  name = "a tensor",
): Quantized {
  if (grid.bits > 8) {
    throw new RangeError(
      `Cannot give codes of ${name} as bits must be 2 to 8: bits ${grid.bits}`,
    );
  }
  checkFinite(name, x.dataSync() as Float32Array);
  const { shape, axes } = layout(x.shape, granularity);
  // Read inside, as tidy looks at every element of what it is given to return.
  const read = { codes: NO_NUMBERS, scale: NO_NUMBERS, zeroPoint: NO_NUMBERS };
  tf.tidy(() => {
    const seen = x.reshape(shape);
    if (calibration.kind === "estimated") checkSome(seen);
    const affine = calibration.kind === "estimated"
      ? calibration.estimate(seen, axes, grid)
      : calibration.affine;
    const zero = affine.zeroPoint ?? tf.zerosLike(affine.scale);
    const shift = affine.shift ?? tf.scalar(0);
    read.scale = affine.scale.dataSync() as Float32Array;
    checkSteps(name, read.scale);
    read.zeroPoint = zero.add(shift).dataSync() as Float32Array;
    const codes = codesOf(position(seen, affine, grid), rounding);
    read.codes = codes.dataSync() as Float32Array;
  });
  const { codes, scale, zeroPoint } = read;
  const fraction = zeroPoint.find((zero) => !Number.isInteger(zero));
  if (fraction !== undefined) {
    throw new RangeError(
      `Cannot give codes of ${name} as the zero point must be whole: ${fraction}; round the learned shift first`,
    );
  }
  const Codes = grid.signed ? Int8Array : Uint8Array;
  return {
    codes: new Codes(codes),
    shape: x.shape,
    scale: scale.slice(),
    zeroPoint: Int32Array.from(zeroPoint),
  };
}

/**
 * Steps for all of the batches of a calibration set, as tensors that the caller owns.
 *
 * @param merge the widest range of any batch (default), or the mean range, which one outlier moves less
 * @throws {RangeError} if there is no batch, a number is NaN or infinite, or the range has no finite step
 */
export function calibrate(
  batches: Iterable<Tensor>,
  {
    grid,
    granularity = "tensor",
    range = minMax,
    step = symmetric,
    merge = "widest",
  }: {
    grid: Grid;
    granularity?: Granularity;
    range?: RangeEstimator;
    step?: StepRule;
    merge?: "widest" | "mean";
  },
): Calibration & { kind: "learned" } {
  let total = null as Range | null;
  let count = 0;
  for (const batch of batches) {
    checkFinite(`batch ${count}`, batch.dataSync() as Float32Array);
    checkSome(batch);
    const before = total;
    const [low, high]: Tensor[] = tf.tidy(() => {
      const { shape, axes } = layout(batch.shape, granularity);
      const own = range(batch.reshape(shape), axes, grid);
      if (before === null) return [own.low, own.high];
      return merge === "mean"
        ? [before.low.add(own.low), before.high.add(own.high)]
        : [
          tf.minimum(before.low, own.low),
          tf.maximum(before.high, own.high),
        ];
    });
    tf.dispose([before?.low, before?.high].filter((x) => x !== undefined));
    total = { low, high };
    count++;
  }
  if (total === null) {
    throw new RangeError(
      "Cannot calibrate as there must be at least one batch: 0 batches",
    );
  }
  const { low, high } = total;
  const parts = merge === "mean" ? count : 1;
  const tensors = tf.tidy(() => {
    const { scale, zeroPoint } = step(
      { low: low.div(parts), high: high.div(parts) },
      grid,
    );
    return zeroPoint === undefined ? [scale] : [scale, zeroPoint];
  });
  tf.dispose([low, high]);
  const [scale, zeroPoint] = tensors;
  checkSteps("the calibrated range", scale.dataSync() as Float32Array);
  return {
    kind: "learned",
    affine: zeroPoint === undefined ? { scale } : { scale, zeroPoint },
  };
}

// ---------------------------------------------------------------- gradients of learned parts

/** round(t), half to even, whose gradient is t's: straight through. */
export function roundThrough(t: Tensor): Tensor {
  return tf.customGrad((t) => ({
    value: (t as Tensor).round(),
    gradFunc: (dy: Tensor) => dy.clone(),
  }))(t);
}

/** t, whose gradient is multiplied by `factor`: the gradient scale of LSQ, section 2.2. */
export function scaleGradient(t: Tensor, factor: number): Tensor {
  return tf.customGrad((t) => ({
    value: (t as Tensor).clone(),
    gradFunc: (dy: Tensor) => dy.mul(factor),
  }))(t);
}

/**
 * clamp(x, 0, alpha) with the gradients of PACT: to x where 0 < x < alpha, to alpha where x >= alpha
 * (J. Choi et al., arXiv 1805.06085, Eq. 1 and Eq. 3).
 */
export function clipLearned(x: Tensor, alpha: Tensor): Tensor {
  return tf.customGrad((x, alpha, save) => {
    const [input, bound] = [x, alpha] as Tensor[];
    (save as unknown as (tensors: Tensor[]) => void)([input, bound]);
    return {
      value: tf.minimum(tf.maximum(input, 0), bound),
      gradFunc: (dy: Tensor, [x, alpha]: Tensor[]) => {
        const cut = x.greaterEqual(alpha);
        return [
          dy.mul(and(x.greater(0), cut.logicalNot())),
          sumTo(dy.mul(cut.cast("float32")), alpha.shape),
        ];
      },
    };
  })(x, alpha);
}

// ---------------------------------------------------------------- methods

/** Round to nearest: the range of each tensor, channel, group or token as it is. */
export function roundToNearest(
  {
    bits = 8,
    signed = true,
    granularity = "tensor",
    range = absMax,
    step = symmetric,
  }: {
    bits?: number;
    signed?: boolean;
    granularity?: Granularity;
    range?: RangeEstimator;
    step?: StepRule;
  } = {},
): FakeQuantizer {
  const parts: Quantization = {
    grid: grid({ bits, signed }),
    granularity,
    calibration: estimated(range, step),
  };
  return (x) => fakeQuantize(x, parts);
}

export interface LearnedOptions {
  bits?: number;
  signed?: boolean;
  granularity?: Granularity;
}

/** 2 mean|x| / sqrt(qmax): the first step of LSQ (section 2.1), over what shares a scale. */
export function lsqInitialStep(
  x: Tensor,
  { bits = 8, signed = true, granularity = "tensor" }: LearnedOptions = {},
): Tensor {
  const { qmax } = grid({ bits, signed });
  return tf.tidy(() => {
    const { shape, axes } = layout(x.shape, granularity);
    return x.reshape(shape).abs().mean(axes, true).mul(2 / Math.sqrt(qmax));
  });
}

/** Number of values of x that share one of `scale`'s. */
const shared = (x: Tensor, scale: Tensor) => x.size / Math.max(1, scale.size);

/**
 * LSQ: the step is a parameter (S. K. Esser et al., "Learned Step Size Quantization", ICLR 2020,
 * arXiv 1902.08153, Eq. 1 to 3).
 *
 * Its gradient is multiplied by g = 1 / sqrt(N qmax), N the values that share the step (section 2.2).
 *
 * @param step positive, which is not checked, as it changes with each training step; shaped as the layout's scale
 */
export function lsq(
  step: Tensor,
  { bits = 8, signed = true, granularity = "tensor" }: LearnedOptions = {},
): FakeQuantizer {
  const codes = grid({ bits, signed });
  return (x) =>
    fakeQuantize(x, {
      grid: codes,
      granularity,
      // g = 1 / sqrt(N Qp)
      calibration: learned({
        scale: scaleGradient(step, 1 / Math.sqrt(shared(x, step) * codes.qmax)),
      }),
      through: strictlyInside,
    });
}

/**
 * LSQ+: step and offset are parameters, xhat = s round(clamp((x - beta) / s, qmin, qmax)) + beta
 * (Y. Bhalgat et al., arXiv 2004.09576, Eq. 3 to 5); with the gradient scale of LSQ on both.
 */
export function lsqPlus(
  step: Tensor,
  beta: Tensor,
  { bits = 8, signed = false, granularity = "tensor" }: LearnedOptions = {},
): FakeQuantizer {
  const codes = grid({ bits, signed });
  return (x) => {
    const g = 1 / Math.sqrt(shared(x, step) * codes.qmax);
    const scale = scaleGradient(step, g);
    // (x - beta) / s = x / s + shift
    const shift = scaleGradient(beta, g).neg().div(scale);
    return fakeQuantize(x, {
      grid: codes,
      granularity,
      calibration: learned({ scale, shift }),
      through: strictlyInside,
    });
  };
}

/**
 * The activation quantizer in the released code of EdgeQAT (X. Shen et al., arXiv 2402.10787; quant.py, ActQ):
 * LSQ with a learned zero point in units of codes, xhat = (round(clamp(x / alpha + z)) - z) alpha, z = round(zp).
 *
 * So 0 stays 0 as long as z is a code. zp has the gradient of z.
 */
export function edgeQatActivation(
  alpha: Tensor,
  zeroPoint: Tensor,
  { bits = 8, signed = true }: Omit<LearnedOptions, "granularity"> = {},
): FakeQuantizer {
  const codes = grid({ bits, signed });
  return (x) => {
    const g = 1 / Math.sqrt(x.size * codes.qmax);
    return fakeQuantize(x, {
      grid: codes,
      calibration: learned({
        scale: scaleGradient(alpha, g),
        shift: scaleGradient(roundThrough(zeroPoint), g),
      }),
      through: inside,
    });
  };
}

/** x times a factor that has no gradient. */
function timesConstant(x: Tensor, factor: () => Tensor): Tensor {
  return tf.customGrad((x, save) => {
    const c = factor();
    (save as unknown as (tensors: Tensor[]) => void)([c]);
    return {
      value: (x as Tensor).mul(c),
      gradFunc: (dy: Tensor, [c]: Tensor[]) => dy.mul(c),
    };
  })(x);
}

/**
 * quantize_k of DoReFa (Eq. 5) and PACT, on [0, bound]: round(x n / bound) bound / n, n = 2^bits - 1, with the
 * gradient 1; x is multiplied by n / bound and not divided by the step, as there, so that ties are ties.
 */
function quantizeUnit(x: Tensor, bits: number, bound: () => Tensor): Tensor {
  const codes = grid({ bits, signed: false });
  const steps = timesConstant(x, () => tf.div(codes.qmax, bound()));
  const whole = fakeQuantize(steps, {
    grid: codes,
    calibration: {
      kind: "estimated",
      estimate: () => ({ scale: tf.scalar(1) }),
    },
    through: everywhere,
  });
  return timesConstant(whole, () => bound().div(codes.qmax));
}

/**
 * PACT: activations clipped at a learned alpha, then 2^bits - 1 steps (J. Choi et al., arXiv 1805.06085,
 * Eq. 1 to 3). Negative activations become 0.
 *
 * @param alpha positive scalar; the paper's code starts at 10
 */
export function pact(
  alpha: Tensor,
  { bits = 8 }: { bits?: number } = {},
): FakeQuantizer {
  return (x) => quantizeUnit(clipLearned(x, alpha), bits, () => alpha.clone());
}

/**
 * DoReFa weights: 2 quantize_k(tanh(w) / (2 max|tanh w|) + 1/2) - 1 (S. Zhou et al., arXiv 1606.06160,
 * Eq. 9). Note that the result lies in [-1, 1], whatever the size of w.
 */
export function doReFaWeight(
  { bits = 8 }: { bits?: number } = {},
): FakeQuantizer {
  return (w) => {
    const t = w.tanh();
    const unit = t.div(t.abs().max().mul(2)).add(0.5);
    return quantizeUnit(unit, bits, () => tf.scalar(1)).mul(2).sub(1);
  };
}

/** DoReFa activations: quantize_k(clamp(x, 0, 1)) (Eq. 11 there, with the clipping of its section 2.7). */
export function doReFaActivation(
  { bits = 8 }: { bits?: number } = {},
): FakeQuantizer {
  return (x) => quantizeUnit(x.clipByValue(0, 1), bits, () => tf.scalar(1));
}

/** Added to max|x| by LLM-QAT's released code. */
const LLM_QAT_EPSILON = 1e-6;

/**
 * LLM-QAT: symmetric min-max of every call, nothing learned (Z. Liu et al., arXiv 2305.17888, Eq. 1; released
 * code, SymQuantizer): s = (max|x| + 1e-6) / qmax, gradients where -clip < x < clip.
 *
 * The code adds 1e-6 to 1 / s once more on the way back, which changes xhat by a factor of 1 + 1e-6 s: left out.
 *
 * @param signed false for numbers that are never negative, whose codes are then 0 to 2^bits - 1: not in the
 * released code
 * @param granularity per token for activations, { channel: 0 } for weights; EdgeQAT compares "tensor"
 * @param clip 2 in the released code
 */
export function llmQat(
  { bits = 8, signed = true, granularity = "token", clip = 2 }: {
    bits?: number;
    signed?: boolean;
    granularity?: Granularity;
    clip?: number;
  } = {},
): FakeQuantizer {
  const step: StepRule = ({ high }, { qmax }) => ({
    scale: high.add(LLM_QAT_EPSILON).div(qmax),
  });
  const parts: Quantization = {
    grid: grid({ bits, signed, narrow: true }),
    granularity,
    calibration: estimated(absMax, step),
    through: valueInside(-clip, clip),
  };
  return (x) => fakeQuantize(x, parts);
}

/**
 * NIPQ: in training the learned range gets noise in place of rounding (J. Park et al., "NIPQ: Noise
 * Injection Pseudo Quantization", arXiv 2206.00820): xhat = clamp(x) + scale noise, scale = softplus(a) / qmax.
 *
 * So x and the scale have true derivatives: inside the range 1 and the noise.
 *
 * @param a scalar; the released start is 6 for activations, 1 for weights
 * @param noise none to evaluate: rounds half to even
 */
export function nipq(
  a: Tensor,
  { bits = 8, signed = false, noise }: {
    bits?: number;
    signed?: boolean;
    noise?: Rounding;
  } = {},
): FakeQuantizer {
  const codes = grid({ bits, signed });
  return (x) =>
    fakeQuantize(x, {
      grid: codes,
      calibration: learned({ scale: a.softplus().div(codes.qmax) }),
      rounding: noise ?? halfEven,
      through: inside,
    });
}

/**
 * Powers of two: code c = clamp(round(-log2 x), 0, 2^bits - 1), value 2^-c; what rounds beyond the last code is 0
 * (X. Shen et al., "Agile-Quant", arXiv 2312.05693, released code; after FQ-ViT, arXiv 2111.13824, Eq. 12).
 *
 * For softmax outputs: a product with 2^-c is a shift. The gradient passes where the value is not 0.
 *
 * @param x in [0, 1]; NaN and negative numbers, which have no logarithm, become NaN
 */
export function log2(
  { bits = 4 }: { bits?: number } = {},
): FakeQuantizer {
  const { qmax } = grid({ bits, signed: false });
  return (x) =>
    tf.customGrad((x, save) => {
      const code = (x as Tensor).log().div(-Math.LN2).round();
      const kept = code.lessEqual(qmax).cast("float32");
      (save as unknown as (tensors: Tensor[]) => void)([kept]);
      const exponent = code.clipByValue(0, qmax).neg();
      // Clipping and comparing lose a NaN; the square root is NaN where the logarithm is, and not at 0.
      const domain = (x as Tensor).sqrt().mul(0);
      return {
        value: tf.pow(tf.scalar(2), exponent).mul(kept).add(domain),
        gradFunc: (dy: Tensor, [kept]: Tensor[]) => dy.mul(kept),
      };
    })(x);
}

/** Number of different codes, and the entropy of their distribution in bits; for reports. */
export function codeStatistics(
  codes: ArrayLike<number>,
): { levels: number; entropyBits: number } {
  const counts = new Map<number, number>();
  for (let i = 0; i < codes.length; i++) {
    counts.set(codes[i], (counts.get(codes[i]) ?? 0) + 1);
  }
  let entropyBits = 0;
  for (const count of counts.values()) {
    const p = count / codes.length;
    entropyBits -= p * Math.log2(p);
  }
  return { levels: counts.size, entropyBits };
}
