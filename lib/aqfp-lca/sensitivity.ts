/**
 * Which numbers matter: Sobol indices over whole distributions, and one number at a time.
 *
 * A. Saltelli et al., "Variance based sensitivity analysis of model output", Computer Physics
 * Communications 181 (2010), 259-270, doi:10.1016/j.cpc.2009.09.018, table 2:
 *
 *   S_i  = mean f_B (f_ABi - f_A) / V           first order, estimator (b)
 *   ST_i = mean (f_A - f_ABi)^2 / (2 V)         total effect, estimator (f), Jansen 1999
 *
 * A and B are independent samples, AB_i is A with column i of B. Inputs must be independent, so the
 * dimensions of the model are varied: a correlated group counts as one.
 */
import { bits, fold, type Key, randomInts } from "../core/rng.ts";
import { batchEvaluator } from "./batch.ts";
import { quantile } from "./distributions.ts";
import { drawValues, type Model } from "./model.ts";
import { BLOCK } from "./tape.ts";
import type { Alternative } from "./uncertainty.ts";

export interface SobolOptions {
  key: Key;
  /** n: rows of A and B; the function runs n (inputs + 2) times. Default 4096, ours. */
  samples?: number;
  /** For the intervals. Default 500, ours. */
  resamples?: number;
  /** Default 0.95. */
  level?: number;
}

export interface SobolIndex {
  name: string;
  first: number;
  firstLow: number;
  firstHigh: number;
  total: number;
  totalLow: number;
  totalHigh: number;
}

/**
 * Sobol indices of a function of uniform numbers in (0, 1), with percentile bootstrap intervals.
 *
 * Outputs are centred before they are multiplied, which takes most of the noise out of S_i.
 *
 * @param f takes the numbers in the order of `names`; the array is used again
 * @throws RangeError if the output is not finite or does not vary
 */
export function sobolIndices(
  f: (u: Float64Array) => number,
  names: string[],
  options: SobolOptions,
): SobolIndex[] {
  const u = new Float64Array(names.length);
  return sobolOfColumns(
    (columns, samples) =>
      Float64Array.from({ length: samples }, (_, r) => {
        columns.forEach((column, i) => u[i] = column[r]);
        return f(u);
      }),
    names,
    options,
  );
}

/** As `sobolIndices`, for a function of all rows at once. */
function sobolOfColumns(
  f: (columns: Float64Array[], samples: number) => Float64Array,
  names: string[],
  { key, samples = 4096, resamples = 500, level = 0.95 }: SobolOptions,
): SobolIndex[] {
  if (!Number.isInteger(samples) || samples < 16) {
    throw new RangeError(
      `Cannot estimate Sobol indices as samples must be a whole number from 16: ${samples}`,
    );
  }
  const sample = (part: string) =>
    names.map((name) => {
      const words = bits(fold(fold(key, part), name), samples);
      return Float64Array.from(words, (w) => (w + 0.5) * 2 ** -32);
    });
  const [A, B] = [sample("A"), sample("B")];
  const run = (columns: Float64Array[]) => {
    const values = f(columns, samples);
    for (const value of values) {
      if (!Number.isFinite(value)) {
        throw new RangeError(
          `Cannot estimate Sobol indices as the output must be finite: ${value}`,
        );
      }
    }
    return values;
  };
  const [fA, fB] = [run(A), run(B)];
  const centre =
    (fA.reduce((s, v) => s + v, 0) + fB.reduce((s, v) => s + v, 0)) /
    (2 * samples);
  const centred = (values: Float64Array) => values.map((v) => v - centre);
  const [yA, yB] = [centred(fA), centred(fB)];
  const spread = yA.reduce((s, v) => Math.max(s, Math.abs(v)), 0);
  if (!(spread > 1e-14 * Math.abs(centre)) || spread === 0) {
    throw new RangeError(
      `Cannot estimate Sobol indices as the output does not vary: ${centre}`,
    );
  }
  const draws = randomInts(
    fold(key, "bootstrap"),
    resamples * samples,
    0,
    samples,
  );
  return names.map((name, i) => {
    const yAB = centred(run(A.map((column, k) => k === i ? B[k] : column)));
    /** Both indices from the rows that `row` picks. */
    const estimate = (row: (r: number) => number): [number, number] => {
      let [first, total, sum, squares] = [0, 0, 0, 0];
      for (let r = 0; r < samples; r++) {
        const k = row(r);
        const [a, b, ab] = [yA[k], yB[k], yAB[k]];
        first += b * (ab - a);
        total += (a - ab) ** 2 / 2;
        sum += a + b;
        squares += a * a + b * b;
      }
      const n = 2 * samples;
      const variance = squares / n - (sum / n) ** 2; // V
      return [first / samples / variance, total / samples / variance];
    };
    const [first, total] = estimate((r) => r);
    const firsts = new Float64Array(resamples);
    const totals = new Float64Array(resamples);
    for (let k = 0; k < resamples; k++) {
      [firsts[k], totals[k]] = estimate((r) => draws[k * samples + r]);
    }
    firsts.sort();
    totals.sort();
    const at = (sorted: Float64Array, q: number) =>
      sorted[Math.round(q * (resamples - 1))];
    const tail = (1 - level) / 2;
    return {
      name,
      first,
      firstLow: at(firsts, tail),
      firstHigh: at(firsts, 1 - tail),
      total,
      totalLow: at(totals, tail),
      totalHigh: at(totals, 1 - tail),
    };
  });
}

/**
 * Sobol indices of a figure of the alternatives, over all random values of the model.
 *
 * @param of the figure, from the scores at [alternative * impacts + impact]; all alternatives have the
 *   same held parameters, those of the first
 */
export function sobolOfModel(
  model: Model,
  alternatives: Alternative[],
  of: (scores: Float64Array) => number,
  options: SobolOptions,
): SobolIndex[] {
  const system = batchEvaluator(
    model,
    alternatives.map(({ demand }) => demand),
    { set: alternatives[0].set },
  );
  const scores = new Float64Array(system.scores.length / BLOCK);
  return sobolOfColumns(
    (columns, samples) => {
      const figures = new Float64Array(samples);
      for (let start = 0; start < samples; start += BLOCK) {
        const count = Math.min(BLOCK, samples - start);
        model.random.forEach((value, i) =>
          drawValues(
            value,
            (dimension) => columns[dimension].subarray(start, start + count),
            system.inputs.subarray(i * BLOCK, i * BLOCK + count),
          )
        );
        system.run(count);
        for (let r = 0; r < count; r++) {
          for (let k = 0; k < scores.length; k++) {
            scores[k] = system.scores[k * BLOCK + r];
          }
          figures[start + r] = of(scores);
        }
      }
      return figures;
    },
    model.dimensions,
    options,
  );
}

/** A figure with one number moved, all others at their amounts. */
export interface TornadoRow {
  name: string;
  unit: string;
  /** In its unit. */
  amount: number;
  /** Figure at 0.9 and 1.1 times the amount. */
  minus: number;
  plus: number;
  /** Figure at the 5 % and 95 % quantiles; the plain figure for a fixed number. */
  p5: number;
  p95: number;
}

/**
 * Every given number moved by 10 % and through its 90 % range; largest range first.
 *
 * Fixed numbers are moved by 10 % too: what has no distribution is not thereby certain.
 *
 * @param of the figure, from the scores at [alternative * impacts + impact]
 */
export function tornado(
  model: Model,
  alternatives: Alternative[],
  of: (scores: Float64Array) => number,
): TornadoRow[] {
  const samplers = new Map(model.random.map((r) => [r.index, r.sampler]));
  const follows = new Set(model.calculated.map(({ index }) => index));
  const moved = [...model.names.keys()].filter((index) => !follows.has(index));
  const system = batchEvaluator(
    model,
    alternatives.map(({ demand }) => demand),
    { inputs: moved, set: alternatives[0].set },
  );
  const impacts = system.scores.length / BLOCK;
  const scores = new Float64Array(impacts);
  /** The figure with one number at each of some values, the others at their amounts. */
  const figures = (input: number, values: number[]): number[] => {
    moved.forEach((index, i) => {
      const start = i * BLOCK;
      system.inputs.fill(
        model.central[index],
        start,
        start + values.length,
      );
    });
    system.inputs.set(values, input * BLOCK);
    system.run(values.length);
    return values.map((_, r) => {
      for (let k = 0; k < impacts; k++) {
        scores[k] = system.scores[k * BLOCK + r];
      }
      return of(scores);
    });
  };
  const rows = moved.map((index, input): TornadoRow => {
    const scale = model.scales[index];
    const amount = model.central[index];
    const sampler = samplers.get(index);
    const [minus, plus, p5, p95] = figures(input, [
      0.9 * amount,
      1.1 * amount,
      sampler === undefined ? amount : quantile(sampler, 0.05),
      sampler === undefined ? amount : quantile(sampler, 0.95),
    ]);
    const { names, units } = model;
    return {
      name: names[index],
      unit: units[index],
      amount: amount / scale,
      minus,
      plus,
      p5,
      p95,
    };
  });
  const range = ({ minus, plus, p5, p95 }: TornadoRow) =>
    Math.max(minus, plus, p5, p95) - Math.min(minus, plus, p5, p95);
  return rows.sort((a, b) => range(b) - range(a));
}
