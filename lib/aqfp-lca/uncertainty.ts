/**
 * Monte Carlo over the whole system, several alternatives at a time.
 *
 * Alternatives share every draw ("dependent sampling") unless asked otherwise: what they have in common,
 * as the grid of the fab, then moves them together, and the spread of their difference is not overstated.
 *
 * Runs are done in blocks (batch.ts); a run without finite scores is an error.
 */
import { bits, fold, type Key, permutation } from "../core/rng.ts";
import { type BatchEvaluator, batchEvaluator, RunError } from "./batch.ts";
import { drawValues, type Model } from "./model.ts";
import { BLOCK } from "./tape.ts";

/** What is compared. */
export interface Alternative {
  name: string;
  /** Amount of each product, in its unit. */
  demand: Record<string, number>;
  /** Parameters held at a value in this alternative, in their units. */
  set?: Record<string, number>;
}

export interface MonteCarloOptions {
  /** Default 10 000, ours. */
  runs?: number;
  key: Key;
  /** Default `"dependent"`. */
  sampling?: "dependent" | "independent";
  /** Default `"random"`. */
  design?: "random" | "latin-hypercube";
}

export interface MonteCarlo {
  runs: number;
  alternatives: string[];
  impacts: string[];
  units: string[];
  phases: string[];
  /** Of each run: `scores[alternative][impact]`. */
  scores: Float64Array[][];
  /** Direct burdens summed by phase, of each run: `contributions[alternative][impact][phase]`. */
  contributions: Float64Array[][][];
  /** Largest relative residual of all solutions. */
  residual: number;
  /** Runs that needed pivots of their own. */
  repivoted: number;
}

/** Runs that are drawn at a time; a multiple of the block, which does not change the draws. */
const CHUNK = 4096;

/** Open-interval uniform number of a 32-bit word. */
const unit = (word: number) => (word + 0.5) * 2 ** -32;

/**
 * Uniform numbers of a dimension, chunk by chunk; by name, so that another parameter changes none of
 * them.
 */
function stream(
  key: Key,
  name: string,
  runs: number,
  design: "random" | "latin-hypercube",
): (chunk: number, into: Float64Array) => void {
  const own = fold(key, name);
  const strata = design === "latin-hypercube"
    ? permutation(fold(own, "strata"), runs)
    : undefined;
  return (chunk, into) => {
    const words = bits(fold(own, chunk), CHUNK);
    const start = chunk * CHUNK;
    for (let r = 0; r < CHUNK; r++) {
      const u = unit(words[r]);
      into[r] = strata === undefined || start + r >= runs
        ? u
        : (strata[start + r] + u) / runs;
    }
  };
}

/** Draws of all random values, a chunk at a time: number `i` of run `r` at [i * CHUNK + r]. */
export function drawer(
  model: Model,
  key: Key,
  runs: number,
  design: "random" | "latin-hypercube" = "random",
): (chunk: number) => Float64Array {
  const { dimensions, random } = model;
  const streams = dimensions.map((name) => stream(key, name, runs, design));
  const uniforms = dimensions.map(() => new Float64Array(CHUNK));
  const drawn = new Float64Array(random.length * CHUNK);
  return (chunk) => {
    streams.forEach((next, d) => next(chunk, uniforms[d]));
    random.forEach((value, i) => {
      const into = drawn.subarray(i * CHUNK, (i + 1) * CHUNK);
      drawValues(value, (dimension) => uniforms[dimension], into);
    });
    return drawn;
  };
}

/** Takes over the first `count` runs of a block. */
function collect(
  { scores, contributions, impacts, phases, runs }: MonteCarlo,
  members: number[],
  system: BatchEvaluator,
  first: number,
  count: number,
): void {
  const take = (from: Float64Array, k: number, into: Float64Array) =>
    into.set(from.subarray(k * BLOCK, k * BLOCK + count), first);
  members.forEach((member, m) => {
    impacts.forEach((impact, i) => {
      const at = m * impacts.length + i;
      const own = scores[member][i];
      take(system.scores, at, own);
      for (let run = first; run < first + count; run++) {
        if (!Number.isFinite(own[run])) {
          throw new RangeError(
            `Cannot use run ${
              run + 1
            } of ${runs} as its score of "${impact}" must be finite: ${
              own[run]
            }`,
          );
        }
      }
      phases.forEach((_, p) =>
        take(
          system.contributions,
          at * phases.length + p,
          contributions[member][i][p],
        )
      );
    });
  });
}

/**
 * Scores and contributions of every alternative in every run.
 *
 * @throws RangeError for a run whose system is singular or whose score is not finite, with its number
 */
export function monteCarlo(
  model: Model,
  alternatives: Alternative[],
  {
    runs = 10_000,
    key,
    sampling = "dependent",
    design = "random",
  }: MonteCarloOptions,
): MonteCarlo {
  if (!Number.isInteger(runs) || runs < 1 || runs > 1e8) {
    throw new RangeError(
      `Cannot sample as runs must be a whole number from 1 to 1e8: ${runs}`,
    );
  }
  if (alternatives.length === 0) {
    throw new RangeError("Cannot compare as there are no alternatives");
  }
  const { impacts } = model.inventory;
  // Alternatives with the same held parameters and draws share one factorisation.
  const groups = new Map<string, number[]>();
  alternatives.forEach(({ set = {} }, a) => {
    const id = sampling === "independent"
      ? String(a)
      : JSON.stringify(Object.entries(set).sort());
    groups.set(id, [...groups.get(id) ?? [], a]);
  });
  const phases = [...new Set(model.inventory.processes.map((p) => p.phase))];
  const array = () => new Float64Array(runs);
  const result: MonteCarlo = {
    runs,
    alternatives: alternatives.map(({ name }) => name),
    impacts: impacts.map(({ name }) => name),
    units: impacts.map(({ unit }) => unit),
    phases,
    scores: alternatives.map(() => impacts.map(array)),
    contributions: alternatives.map(() => impacts.map(() => phases.map(array))),
    residual: 0,
    repivoted: 0,
  };
  const shared = sampling === "dependent"
    ? drawer(model, key, runs, design)
    : undefined;
  const parts = [...groups.values()].map((members) => ({
    members,
    draw: shared ?? drawer(
      model,
      fold(key, `alternative ${members[0]}`),
      runs,
      design,
    ),
    system: batchEvaluator(
      model,
      members.map((a) => alternatives[a].demand),
      { set: alternatives[members[0]].set },
    ),
  }));
  for (let chunk = 0; chunk * CHUNK < runs; chunk++) {
    const common = shared?.(chunk);
    const end = Math.min(CHUNK, runs - chunk * CHUNK);
    for (const { members, draw, system } of parts) {
      const drawn = common ?? draw(chunk);
      for (let from = 0; from < end; from += BLOCK) {
        const count = Math.min(BLOCK, end - from);
        for (let i = 0; i < model.random.length; i++) {
          const start = i * CHUNK + from;
          system.inputs.set(drawn.subarray(start, start + count), i * BLOCK);
        }
        const first = chunk * CHUNK + from;
        try {
          system.run(count);
        } catch (error) {
          if (!(error instanceof RunError)) throw error;
          throw new RangeError(
            `Cannot solve run ${
              first + error.run + 1
            } of ${runs}: ${error.message}`,
          );
        }
        collect(result, members, system, first, count);
      }
    }
  }
  for (const { system } of parts) {
    result.residual = Math.max(result.residual, system.residual);
    result.repivoted += system.repivoted;
  }
  return result;
}

/** Value that a share `q` of the sorted values is below, linear between neighbours. */
function sortedQuantile(sorted: Float64Array, q: number): number {
  const at = q * (sorted.length - 1);
  const i = Math.floor(at);
  const next = Math.min(i + 1, sorted.length - 1);
  return sorted[i] + (at - i) * (sorted[next] - sorted[i]);
}

export interface Summary {
  n: number;
  mean: number;
  sd: number;
  p5: number;
  p25: number;
  median: number;
  p75: number;
  p95: number;
  /** Standard error of the median. */
  medianSe: number;
}

/**
 * Moments and percentiles of the runs.
 *
 * The standard error of the median is half the distance of the order statistics n/2 -+ sqrt(n)/2: those
 * are one standard deviation of the binomial count below the median apart, whatever the distribution.
 */
export function summary(values: Float64Array): Summary {
  const n = values.length;
  if (n === 0) throw new RangeError("Cannot summarise as there are no values");
  const sorted = values.slice().sort();
  const mean = sorted.reduce((sum, v) => sum + v, 0) / n;
  const squares = sorted.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  const at = (q: number) => sortedQuantile(sorted, q);
  const step = 0.5 / Math.sqrt(n);
  return {
    n,
    mean,
    sd: n > 1 ? Math.sqrt(squares / (n - 1)) : 0,
    p5: at(0.05),
    p25: at(0.25),
    median: at(0.5),
    p75: at(0.75),
    p95: at(0.95),
    medianSe: (at(Math.min(1, 0.5 + step)) - at(Math.max(0, 0.5 - step))) / 2,
  };
}

/**
 * P(A < B) over the runs, ties by halves, with its 95 % Wilson interval; of dependent samples it says
 * in which share of all worlds A is the better one.
 */
export function discernibility(
  a: Float64Array,
  b: Float64Array,
): { probability: number; low: number; high: number } {
  const n = a.length;
  if (n === 0 || b.length !== n) {
    throw new RangeError(
      `Cannot compare as both need the same runs, at least one: ${n} and ${b.length}`,
    );
  }
  let wins = 0;
  for (let r = 0; r < n; r++) wins += a[r] < b[r] ? 1 : a[r] === b[r] ? 0.5 : 0;
  const p = wins / n;
  const z = 1.959963984540054;
  const centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const half = z * Math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) /
    (1 + z * z / n);
  return {
    probability: p,
    low: Math.max(0, centre - half),
    high: Math.min(1, centre + half),
  };
}

/** Median and its standard error after more and more runs, from 100 in steps of a factor, default 2. */
export function convergence(
  values: Float64Array,
  factor = 2,
): { n: number; median: number; medianSe: number }[] {
  if (!(factor > 1)) {
    throw new RangeError(
      `Cannot show convergence as the factor must be above 1: ${factor}`,
    );
  }
  const rows = [];
  for (let n = Math.min(100, values.length);;) {
    const { median, medianSe } = summary(values.subarray(0, n));
    rows.push({ n, median, medianSe });
    if (n === values.length) return rows;
    n = Math.min(values.length, Math.ceil(n * factor));
  }
}
