/**
 * Monte Carlo over the whole system, several alternatives at a time.
 *
 * Alternatives share every draw ("dependent sampling") unless asked otherwise: what they have in common,
 * as the grid of the fab, then moves them together, and the spread of their difference is not overstated.
 *
 * Each run draws the values, follows the formulas, factorises A with the pattern and pivots of the
 * inventory's amounts and solves for every demand. A run whose pivots or residual are not good enough is
 * factorised afresh; a run without finite scores is an error.
 */
import { bits, fold, type Key, permutation } from "../core/rng.ts";
import { factorise, type SparseFactors, sparseFactors } from "./linear.ts";
import { demandVector, solverOf, systemOf } from "./matrix.ts";
import { drawValue, fixedValues, type Model, valuesWith } from "./model.ts";

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

/** Runs that are drawn at a time. */
const CHUNK = 4096;

/** Relative residual above which a run gets pivots of its own. */
const RESIDUAL_LIMIT = 1e-10;

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
    let r = 0;
    const at = (dimension: number) => uniforms[dimension][r];
    random.forEach((value, i) => {
      for (r = 0; r < CHUNK; r++) drawn[i * CHUNK + r] = drawValue(value, at);
    });
    return drawn;
  };
}

/** One run of the system with given values, without allocation. */
export interface Evaluator {
  /** Values in base units; calculated ones follow. The caller sets the random ones. */
  values: Float64Array;
  /** Follows the formulas and solves; results are in `scores` and `contributions`. */
  run(): void;
  /** `[demand * impacts + impact]`. */
  scores: Float64Array;
  /** `[(demand * impacts + impact) * phases + phase]`. */
  contributions: Float64Array;
  phases: string[];
  /** Largest relative residual so far. */
  residual: number;
  repivoted: number;
}

/** An evaluator for some demands, with some parameters held. */
export function evaluator(
  model: Model,
  demands: Record<string, number>[],
  set: Record<string, number> = {},
): Evaluator {
  const values = valuesWith(model, set);
  const held = fixedValues(model, set);
  const system = systemOf(model, values);
  // Refuses what is singular by name, before pivots are kept.
  solverOf(system);
  const { A, C, products, processes } = system;
  const n = A.n;
  const impacts = C.length;
  const phases = [...new Set(system.phases)];
  const phaseOf = Int32Array.from(system.phases, (p) => phases.indexOf(p));
  const F = demands.map((demand) => demandVector(products, demand));

  // What follows from what is held at a value stays, unless it depends on what is drawn as well.
  const calculated = model.calculated.filter(({ index }) => !held.has(index));

  // Entries of A: constant ones stay in `fixed`, random ones are added.
  const rowOf = new Map(products.map((name, i) => [name, i]));
  const rows = model.inventory.products.map(({ name }) => rowOf.get(name)!);
  const positionOf = (row: number, column: number) => {
    for (let p = A.starts[column]; p < A.starts[column + 1]; p++) {
      if (A.rows[p] === row) return p;
    }
    return -1;
  };
  const fixed = new Float64Array(A.values.length);
  const moving: { at: number; evaluate: (v: Float64Array) => number }[] = [];
  for (const { row, column, random, evaluate } of model.technosphere) {
    const at = positionOf(rows[row], column);
    if (random) moving.push({ at, evaluate });
    else fixed[at] += evaluate(values);
  }
  // Scales of the central matrix bring all rows to one size; runs keep them.
  const rowScale = new Float64Array(n);
  for (let p = 0; p < A.rows.length; p++) {
    const size = Math.abs(A.values[p]);
    if (size > rowScale[A.rows[p]]) rowScale[A.rows[p]] = size;
  }
  const scale = Float64Array.from(A.rows, (row) => 1 / rowScale[row]);
  const matrix = { ...A, values: A.values.slice() };
  const scaledValues = A.values.map((v, p) => v * scale[p]);
  const scaledF = F.map((f) => f.map((v, i) => v / rowScale[i]));
  const factors: SparseFactors = sparseFactors(
    { ...A, values: scaledValues },
    1e-300,
  );
  const supplies = F.map(() => new Float64Array(n));
  const left = new Float64Array(n);
  const size = new Float64Array(n);

  const burden = C.map(() => new Float64Array(n)); // C B
  const interventions = model.biosphere;
  const bRandom = interventions.some(({ random }) => random);
  const cRandom = model.characterisation.some(({ random }) => random);
  const bValues = new Float64Array(
    interventions.map((e) => e.evaluate(values)),
  );
  const bMoving = interventions.flatMap((e, i) => e.random ? [i] : []);
  const cMoving = model.characterisation.filter(({ random }) => random);
  const flowRows = Int32Array.from(interventions, ({ row }) => row);
  const columns = Int32Array.from(interventions, ({ column }) => column);
  const factorsC = C.map((c) => c.slice());

  function characterise(): void {
    for (const i of bMoving) bValues[i] = interventions[i].evaluate(values);
    for (const { row, column, evaluate } of cMoving) {
      factorsC[row][column] = evaluate(values);
    }
    for (let i = 0; i < impacts; i++) {
      const [q, c] = [burden[i], factorsC[i]];
      q.fill(0);
      for (let e = 0; e < bValues.length; e++) {
        q[columns[e]] += c[flowRows[e]] * bValues[e];
      }
    }
  }
  characterise();

  /** Relative residual of a supply, as `relativeResidual`, without allocation. */
  function residualOf(s: Float64Array, f: Float64Array): number {
    for (let i = 0; i < n; i++) {
      left[i] = -f[i];
      size[i] = Math.abs(f[i]);
    }
    const { starts, rows: r, values: a } = matrix;
    for (let j = 0; j < n; j++) {
      const x = s[j];
      if (x === 0) continue;
      for (let p = starts[j]; p < starts[j + 1]; p++) {
        const term = a[p] * x;
        left[r[p]] += term;
        size[r[p]] += Math.abs(term);
      }
    }
    let most = 0;
    for (let i = 0; i < n; i++) {
      const share = size[i] === 0 ? 0 : Math.abs(left[i]) / size[i];
      if (!(share <= most)) most = share;
    }
    return most;
  }

  const result: Evaluator = {
    values,
    phases,
    scores: new Float64Array(demands.length * impacts),
    contributions: new Float64Array(demands.length * impacts * phases.length),
    residual: 0,
    repivoted: 0,
    run() {
      for (const [index, value] of held) values[index] = value;
      for (const { index, evaluate } of calculated) {
        values[index] = evaluate(values);
      }
      if (bRandom || cRandom) characterise();
      let kept = true;
      if (moving.length > 0) {
        matrix.values.set(fixed);
        for (const { at, evaluate } of moving) {
          matrix.values[at] += evaluate(values);
        }
        for (let p = 0; p < scale.length; p++) {
          scaledValues[p] = matrix.values[p] * scale[p];
        }
        kept = factors.refactor(scaledValues);
      }
      let worst = 0;
      for (let d = 0; kept && d < F.length; d++) {
        factors.solveInto(scaledF[d], supplies[d]); // A s = f
        worst = Math.max(worst, residualOf(supplies[d], F[d]));
      }
      if (!kept || !(worst <= RESIDUAL_LIMIT)) {
        result.repivoted++;
        const fresh = factorise(matrix, { method: "dense" });
        F.forEach((f, d) => supplies[d].set(fresh.solve(f)));
        worst = Math.max(...F.map((f, d) => residualOf(supplies[d], f)));
      }
      if (!(worst <= result.residual)) result.residual = worst;
      result.contributions.fill(0);
      for (let d = 0; d < F.length; d++) {
        const s = supplies[d];
        for (let i = 0; i < impacts; i++) {
          const q = burden[i];
          const to = d * impacts + i;
          const base = to * phases.length;
          let sum = 0;
          for (let j = 0; j < processes.length; j++) { // (C B)_ij s_j
            const part = q[j] * s[j];
            result.contributions[base + phaseOf[j]] += part;
            sum += part;
          }
          result.scores[to] = sum;
        }
      }
    },
  };
  return result;
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
    system: evaluator(
      model,
      members.map((a) => alternatives[a].demand),
      alternatives[members[0]].set,
    ),
  }));
  const indices = Int32Array.from(model.random, ({ index }) => index);
  for (let chunk = 0; chunk * CHUNK < runs; chunk++) {
    const common = shared?.(chunk);
    for (const { members, draw, system } of parts) {
      const drawn = common ?? draw(chunk);
      const { values, scores, contributions } = system;
      const end = Math.min(CHUNK, runs - chunk * CHUNK);
      for (let r = 0; r < end; r++) {
        for (let i = 0; i < indices.length; i++) {
          values[indices[i]] = drawn[i * CHUNK + r];
        }
        const run = chunk * CHUNK + r;
        try {
          system.run();
        } catch (error) {
          throw new RangeError(
            `Cannot solve run ${run + 1} of ${runs}: ${
              (error as Error).message
            }`,
          );
        }
        for (let m = 0; m < members.length; m++) {
          for (let i = 0; i < impacts.length; i++) {
            const at = m * impacts.length + i;
            const score = scores[at];
            if (!Number.isFinite(score)) {
              throw new RangeError(
                `Cannot use run ${run + 1} of ${runs} as its score of "${
                  impacts[i].name
                }" must be finite: ${score}`,
              );
            }
            result.scores[members[m]][i][run] = score;
            const byPhase = result.contributions[members[m]][i];
            for (let p = 0; p < phases.length; p++) {
              byPhase[p][run] = contributions[at * phases.length + p];
            }
          }
        }
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
