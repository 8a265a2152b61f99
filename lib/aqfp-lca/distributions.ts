/**
 * Distributions of the inventory's numbers: checks, quantiles, pedigree.
 *
 * Pedigree: B. P. Weidema et al., "Overview and methodology: data quality guideline for the ecoinvent
 * database version 3" (2013): five scores, each adding a variance to that of the logarithm,
 *
 *   sigma^2 = basic + sum_i v_i(score_i)
 *
 * The variances are recalled, not re-read; they follow from the factors U of version 2 by (ln U / 2)^2.
 *
 * Every draw is a quantile of a uniform number, so one stream of uniform numbers serves plain Monte Carlo,
 * Latin hypercube and Sobol indices alike.
 */
import { erf } from "mathjs/number";
import type { Quantity } from "./inventory.ts";

/** Variances of the logarithm by pedigree score. */
export const PEDIGREE = {
  reliability: [0, 0.0006, 0.002, 0.008, 0.04],
  completeness: [0, 0.0001, 0.0006, 0.002, 0.008],
  time: [0, 0.0002, 0.002, 0.008, 0.04],
  place: [0, 0.000025, 0.0001, 0.0006, 0.002],
  technology: [0, 0.0006, 0.008, 0.04, 0.12],
  /** Of electricity, materials and other plain inputs. */
  basicVariance: 0.0006,
  source: "ecoinvent data quality guideline, version 3 (2013)",
  standing: "recalled",
} as const;

const SCORES = ["reliability", "completeness", "time", "place", "technology"];

/**
 * Standard deviation of the logarithm of a number with pedigree scores.
 *
 * @example
 * pedigreeSigma([1, 1, 1, 1, 5], 0.0006); // 0.34727510708370675
 */
export function pedigreeSigma(
  pedigree: readonly number[],
  basicVariance: number = PEDIGREE.basicVariance,
): number {
  let variance = basicVariance;
  SCORES.forEach((name, i) => {
    const row = PEDIGREE[name as "time"];
    variance += row[pedigree[i] - 1];
  });
  return Math.sqrt(variance);
}

/** What is wrong with the distribution of a number: column and reason; nothing if all is well. */
export function distributionProblem(
  { amount, distribution: d, pedigree, group, loading }: Quantity,
): { column: string; message: string } | undefined {
  const problem = (column: string, message: string) => ({ column, message });
  if (pedigree !== undefined) {
    const valid = pedigree.length === 5 &&
      pedigree.every((s) => Number.isInteger(s) && s >= 1 && s <= 5);
    if (!valid) {
      return problem("pedigree", `five whole scores 1 to 5, given ${pedigree}`);
    }
  }
  if (loading !== undefined) {
    if (group === undefined) {
      return problem("loading", "a loading needs a group");
    }
    if (!(Math.abs(loading) <= 1)) {
      return problem("loading", `a number in [-1, 1], given ${loading}`);
    }
  }
  if (typeof amount === "string") {
    if (d.kind !== "fixed" || group !== undefined) {
      return problem(
        "distribution",
        `a formula has the spread of its parameters, none of its own, given ${
          group === undefined ? d.kind : `group ${group}`
        }`,
      );
    }
    return undefined;
  }
  if (!Number.isFinite(amount)) {
    return problem("amount", `a finite number, given ${amount}`);
  }
  const numbers = Object.entries(d).filter(([name, v]) =>
    name !== "kind" && v !== undefined
  ) as [string, number][];
  for (const [name, value] of numbers) {
    if (!Number.isFinite(value)) {
      const column = name === "basicVariance" ? "basic_variance" : name;
      return problem(column, `a finite number, given ${value}`);
    }
  }
  switch (d.kind) {
    case "fixed":
      return group === undefined ? undefined : problem(
        "group",
        `a fixed number belongs to no group, given ${group}`,
      );
    case "lognormal":
    case "pedigree":
      if (amount === 0) {
        return problem("amount", "a lognormal median is not 0");
      }
      if (d.kind === "lognormal") {
        return d.gsd > 1 ? undefined : problem(
          "gsd",
          `a geometric standard deviation above 1, given ${d.gsd}`,
        );
      }
      if (pedigree === undefined) {
        return problem("pedigree", "five scores, given none");
      }
      if (!(d.basicVariance === undefined || d.basicVariance >= 0)) {
        return problem(
          "basic_variance",
          `a number >= 0, given ${d.basicVariance}`,
        );
      }
      return pedigreeSigma(pedigree, d.basicVariance) > 0 ? undefined : problem(
        "basic_variance",
        "above 0 where all scores are 1, or the distribution fixed",
      );
    case "normal":
      return d.sd > 0
        ? undefined
        : problem("sd", `a number above 0, given ${d.sd}`);
    case "triangular": {
      const mode = d.mode ?? amount;
      if (!(d.low < d.high)) {
        return problem("low", `low below high, given ${d.low} and ${d.high}`);
      }
      return d.low <= mode && mode <= d.high ? undefined : problem(
        "mode",
        `low <= mode <= high, given ${d.low}, ${mode}, ${d.high}`,
      );
    }
    case "uniform":
      if (!(d.low < d.high)) {
        return problem("low", `low below high, given ${d.low} and ${d.high}`);
      }
      return d.low <= amount && amount <= d.high ? undefined : problem(
        "amount",
        `low <= amount <= high, given ${d.low}, ${amount}, ${d.high}`,
      );
  }
}

/** P(Z < z) of the standard normal distribution. */
export function normalCdf(z: number): number {
  return 0.5 * (1 + erf(z * Math.SQRT1_2));
}

/**
 * The z with P(Z < z) = p, to about 1e-16: M. J. Wichura, "Algorithm AS 241: the percentage points of the
 * normal distribution", Applied Statistics 37 (1988), 477-484, doi:10.2307/2347330, PPND16.
 */
export function normalQuantile(p: number): number {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return q *
      (((((((2509.0809287301226727 * r + 33430.575583588128105) * r +
                            67265.770927008700853) * r +
                        45921.953931549871457) * r +
                    13731.693765509461125) * r + 1971.5909503065514427) * r +
            133.14166789178437745) * r + 3.387132872796366608) /
      (((((((5226.495278852854561 * r + 28729.085735721942674) * r +
                            39307.89580009271061) * r + 21213.794301586595867) *
                      r +
                    5394.1960214247511077) * r + 687.1870074920579083) * r +
            42.313330701600911252) * r + 1);
  }
  let r = Math.sqrt(-Math.log(q <= 0 ? p : 1 - p));
  let z: number;
  if (r <= 5) {
    r -= 1.6;
    z = (((((((7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r +
                          0.24178072517745061177) * r +
                      1.27045825245236838258) * r +
                  3.64784832476320460504) * r + 5.7694972214606914055) * r +
          4.6303378461565452959) * r + 1.42343711074968357734) /
      (((((((1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r +
                            0.0151986665636164571966) * r +
                        0.14810397642748007459) *
                      r + 0.68976733498510000455) * r + 1.6763848301838038494) *
              r +
            2.05319162663775882187) * r + 1);
  } else {
    r -= 5;
    z = (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r +
                          0.0012426609473880784386) * r +
                      0.026532189526576123093) * r +
                  0.29656057182850489123) * r + 1.7848265399172913358) * r +
          5.4637849111641143699) * r + 6.6579046435011037772) /
      (((((((2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r +
                            1.8463183175100546818e-5) * r +
                        7.868691311456132591e-4) *
                      r + 0.0148753612908506148525) * r +
                0.13692988092273580531) * r + 0.59983220655588793769) * r + 1);
  }
  return q < 0 ? -z : z;
}

/** A distribution ready to draw from; all numbers in one unit. */
export type Sampler =
  | { kind: "lognormal"; median: number; sigma: number }
  | { kind: "normal"; mean: number; sd: number }
  | { kind: "triangular"; low: number; mode: number; high: number }
  | { kind: "uniform"; low: number; high: number };

/** How a checked number is drawn, times `factor`; nothing for a fixed one. */
export function samplerOf(
  { amount, distribution: d, pedigree }: Quantity,
  factor = 1,
): Sampler | undefined {
  const value = amount as number;
  switch (d.kind) {
    case "fixed":
      return undefined;
    case "lognormal":
      return {
        kind: "lognormal",
        median: value * factor,
        sigma: Math.log(d.gsd),
      };
    case "pedigree":
      return {
        kind: "lognormal",
        median: value * factor,
        sigma: pedigreeSigma(pedigree!, d.basicVariance),
      };
    case "normal":
      return { kind: "normal", mean: value * factor, sd: d.sd * factor };
    case "triangular":
      return {
        kind: "triangular",
        low: d.low * factor,
        mode: (d.mode ?? value) * factor,
        high: d.high * factor,
      };
    case "uniform":
      return { kind: "uniform", low: d.low * factor, high: d.high * factor };
  }
}

/**
 * The value that a draw is below with probability `u` in (0, 1).
 */
export function quantile(sampler: Sampler, u: number): number {
  switch (sampler.kind) {
    case "lognormal":
      return sampler.median * Math.exp(sampler.sigma * normalQuantile(u));
    case "normal":
      return sampler.mean + sampler.sd * normalQuantile(u);
    case "triangular": {
      const { low, mode, high } = sampler;
      const width = high - low;
      return u * width < mode - low
        ? low + Math.sqrt(u * width * (mode - low))
        : high - Math.sqrt((1 - u) * width * (high - mode));
    }
    case "uniform":
      return sampler.low + (sampler.high - sampler.low) * u;
  }
}

/** `quantile` of many numbers; `into` may be `u` itself. */
export function quantiles(
  sampler: Sampler,
  u: Float64Array,
  into: Float64Array,
): void {
  const n = into.length;
  if (sampler.kind === "triangular") {
    const { low, mode, high } = sampler;
    const [left, right] = [mode - low, high - mode];
    const width = high - low;
    for (let r = 0; r < n; r++) {
      const p = u[r];
      into[r] = p * width < left
        ? low + Math.sqrt(p * width * left)
        : high - Math.sqrt((1 - p) * width * right);
    }
  } else for (let r = 0; r < n; r++) into[r] = quantile(sampler, u[r]);
}
