/**
 * Small-sample statistics for the experiments: mean, spread, Student-t intervals, paired
 * differences, regression slopes.
 *
 * A sweep here has three to ten seeds, so intervals come from Student's t with the exact
 * quantile, never from 1.96 standard errors: at n = 3 the factor is 4.30.
 *
 *   n   sample size        df  degrees of freedom        level  coverage of an interval, 0.95 unless given
 *
 * Scope: what the result tables need. Intervals assume independent, roughly normal values;
 * `bootstrapInterval` does not, but says little below n = 10.
 */
import { type Key, randomInts } from "./rng.ts";

/** An estimate with its interval; `n` values went into it. */
export interface Estimate {
  value: number;
  /** Lower end of the interval; equal to `value` where the spread is unknown (n = 1). */
  low: number;
  /** Upper end of the interval; equal to `value` where the spread is unknown (n = 1). */
  high: number;
  n: number;
}

/** Arithmetic mean; NaN for no values. */
export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

/** Sample standard deviation (n - 1 in the denominator); 0 for a single value, NaN for none. */
export function sd(values: ArrayLike<number>): number {
  if (values.length === 1) return 0;
  const centre = mean(values);
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i] - centre) ** 2;
  return Math.sqrt(squares / (values.length - 1));
}

/**
 * Probability that |T| < t for Student's t with `df` degrees of freedom, exactly: a finite sum
 * for whole `df`.
 *
 * With theta = atan(t / sqrt(df)): Abramowitz and Stegun, Handbook of Mathematical Functions
 * (1964), 26.7.3 (odd df) and 26.7.4 (even df).
 */
function tCoverage(theta: number, df: number): number {
  const cos = Math.cos(theta);
  const odd = df % 2 === 1;
  let term = odd ? cos : 1;
  let sum = df === 1 ? 0 : term;
  for (let k = odd ? 3 : 2; k <= df - 2; k += 2) {
    term *= cos * cos * (k - 1) / k;
    sum += term;
  }
  const series = Math.sin(theta) * sum;
  return odd ? 2 / Math.PI * (theta + series) : series;
}

/**
 * The t with P(|T| < t) = `level` for Student's t with `df` degrees of freedom: the factor before
 * the standard error.
 *
 * Bisection on the exact coverage, so small `df` need no table: 12.706 for df 1, 4.3027 for df 2,
 * 2.7764 for df 4 at level 0.95.
 */
export function tQuantile(level: number, df: number): number {
  if (!Number.isInteger(df) || df < 1) {
    throw new RangeError(
      `Cannot compute a t quantile as df must be a whole number >= 1: df ${df}`,
    );
  }
  if (!(level > 0 && level < 1)) {
    throw new RangeError(
      `Cannot compute a t quantile as level must be between 0 and 1: level ${level}`,
    );
  }
  let low = 0;
  let high = Math.PI / 2;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (tCoverage(middle, df) < level) low = middle;
    else high = middle;
  }
  return Math.tan((low + high) / 2) * Math.sqrt(df);
}

/**
 * Mean of `values` with its Student-t interval: mean ± t(level, n-1) sd / sqrt(n). One value
 * gives an interval of no width.
 */
export function tInterval(values: ArrayLike<number>, level = 0.95): Estimate {
  const n = values.length;
  if (n === 0) {
    throw new RangeError("Cannot compute an interval as there are no values");
  }
  const value = mean(values);
  const half = n === 1
    ? 0
    : tQuantile(level, n - 1) * sd(values) / Math.sqrt(n);
  return { value, low: value - half, high: value + half, n };
}

/**
 * Mean of a[i] - b[i] with its Student-t interval.
 *
 * Two arms that share seeds share data order and initialisation; their difference per seed varies
 * less than either, so the pairs are compared, not the means.
 */
export function pairedDifference(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  level = 0.95,
): Estimate {
  if (a.length !== b.length) {
    throw new RangeError(
      `Cannot pair values as both arms must have the same seeds: ${a.length} and ${b.length} values`,
    );
  }
  return tInterval(Array.from(a, (x, i) => x - b[i]), level);
}

/** A fitted line y = intercept + value x, with the interval of the slope. */
export interface Slope extends Estimate {
  intercept: number;
}

/**
 * Slope of the least-squares line through (x, y) with its Student-t interval (n - 2 degrees of
 * freedom).
 *
 * Give logarithms for an exponent: the slope of log ‖g‖ against log r is p where ‖g‖ ~ r^p.
 */
export function slope(
  x: ArrayLike<number>,
  y: ArrayLike<number>,
  level = 0.95,
): Slope {
  const n = x.length;
  if (y.length !== n || n < 3) {
    throw new RangeError(
      `Cannot fit a slope with an interval as at least 3 pairs are needed: ${n} x, ${y.length} y`,
    );
  }
  const meanX = mean(x);
  const meanY = mean(y);
  let sxx = 0;
  let sxy = 0;
  for (let i = 0; i < n; i++) {
    sxx += (x[i] - meanX) ** 2;
    sxy += (x[i] - meanX) * (y[i] - meanY);
  }
  if (sxx === 0) {
    throw new RangeError(`Cannot fit a slope as all x are equal: x ${x[0]}`);
  }
  const value = sxy / sxx;
  const intercept = meanY - value * meanX;
  let residual = 0;
  for (let i = 0; i < n; i++) {
    residual += (y[i] - intercept - value * x[i]) ** 2;
  }
  const half = tQuantile(level, n - 2) * Math.sqrt(residual / (n - 2) / sxx);
  return { value, low: value - half, high: value + half, n, intercept };
}

/**
 * Mean of `values` with its percentile bootstrap interval (Efron 1979), from `resamples` draws
 * with replacement.
 */
export function bootstrapInterval(
  values: ArrayLike<number>,
  key: Key,
  { level = 0.95, resamples = 2000 } = {},
): Estimate {
  const n = values.length;
  const value = tInterval(values).value;
  const draws = randomInts(key, resamples * n, 0, n);
  const means = Float64Array.from({ length: resamples }, (_, r) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += values[draws[r * n + i]];
    return sum / n;
  }).sort();
  const at = (q: number) => means[Math.round(q * (resamples - 1))];
  return { value, low: at((1 - level) / 2), high: at((1 + level) / 2), n };
}
