/**
 * Analytic global placement: all cells move at once down the gradient of wire length, timing, maximum
 * length and density, while density weighs more and more.
 *
 * min over x of  sum_e WA_e(x) + lambda_t sum_e T_e(x) + lambda_w sum_e over_e(x)^2 + lambda_d D(x)
 *
 * - WA is the weighted-average wire length (Hsu, Chang, Balabanov, DAC 2011), for two pins at distance d
 *   equal to d tanh(d / (2 gamma)).
 * - D is half the squared distance to the nearest legal placement in the present order of each row. Rows
 *   are one-dimensional, so that placement is known exactly in linear time (`place-legal.ts`),
 *   mixed widths and the edges of the chip included; its gradient is x minus that placement, as for
 *   every distance to a convex set.
 *
 * At first lambda_d is tiny: cells lie on top of each other, sorted by what they connect to, and pass
 * through each other freely. As it grows by a constant factor per step, they spread and settle.
 *
 *   x left edges in steps [N]   gamma smoothness of WA, in steps   lambda_d weight of D
 *
 * Scope: terms as named in the abstract of SuperFlow (Xie et al., DATE 2024, arXiv 2407.18209), whose
 * equations were not available; the density term, the schedule and the optimiser (momentum, each cell
 * preconditioned by its connections) are ours.
 */
import { fold, type Key, uniform } from "../core/rng.ts";
import { legalise } from "./place-legal.ts";
import {
  type PlacementModel,
  rowOrders,
  totalCost,
  violationSlope,
} from "./place-model.ts";

export interface AnalyticOptions {
  /** Steps of a full run. */
  iterations?: number;
  /** First and last lambda_d. */
  density?: readonly [number, number];
  /** First and last gamma, in grid steps. */
  gammaSteps?: readonly [number, number];
  momentum?: number;
  /** Runs from different random starts. */
  starts?: number;
  /** How many of them, the cheapest once legal, are placed in detail. */
  finalists?: number;
}

/** Our choice, tuned on c1908 and c880 of Super-EDA/AQFP-Benchmark. */
const DEFAULTS = {
  iterations: 2000,
  density: [1e-5, 2],
  gammaSteps: [50, 0.5],
  momentum: 0.95,
  starts: 4,
  finalists: 2,
} as const satisfies AnalyticOptions;

/**
 * WA of a net of two pins at distance d.
 *
 * WA = sum x e^(x/g) / sum e^(x/g) - sum x e^(-x/g) / sum e^(-x/g) = d tanh(d / (2 g))
 *
 * @example
 * weightedAverageLength(-100, 1); // 100
 */
export function weightedAverageLength(d: number, gamma: number): number {
  return d * Math.tanh(d / (2 * gamma));
}

/** d WA / d d = tanh u + u (1 - tanh^2 u), u = d / (2 g). */
export function weightedAverageSlope(d: number, gamma: number): number {
  const u = d / (2 * gamma);
  const t = Math.tanh(u);
  return t + u * (1 - t * t);
}

/**
 * Adds the gradient of the wire terms to `gradient` and their curvature to `stiffness`.
 *
 * @param length lambda_w, where it is to differ from the model's.
 */
export function addWireGradient(
  model: PlacementModel,
  x: Float64Array,
  gamma: number,
  gradient: Float64Array,
  stiffness: Float64Array,
  length = model.weights.length,
): void {
  const { driver, sink, offset, maxSteps, wirePs } = model;
  const { skewSink, skewDriver, setup0, hold0 } = model;
  const { timing } = model.weights;
  for (let e = 0; e < driver.length; e++) {
    const a = driver[e];
    const b = sink[e];
    const d = x[b] - x[a] + offset[e];
    let slope = weightedAverageSlope(d, gamma);
    let curvature = 1 / Math.max(gamma, Math.abs(d));
    const over = Math.abs(d) - maxSteps;
    if (length > 0 && over > 0) {
      slope += 2 * length * over * Math.sign(d);
      curvature += 2 * length;
    }
    if (timing > 0) {
      const late = skewSink[e] * x[b] + skewDriver[e] * x[a] -
        wirePs * Math.abs(d);
      const setup = setup0[e] + late;
      const hold = hold0[e] - late;
      const lateBy = Math.max(0, -setup);
      const earlyBy = Math.max(0, -hold);
      if (lateBy > 0 || earlyBy > 0) {
        const push = timing *
          (violationSlope(earlyBy) - violationSlope(lateBy));
        gradient[a] += push * skewDriver[e];
        gradient[b] += push * skewSink[e];
        slope -= push * wirePs * Math.sign(d);
        // Slope over size is the curvature of a parabola that lies above; both ends may move against
        // each other, hence twice the square of the steepest slope.
        const bend = violationSlope(lateBy + earlyBy) / (lateBy + earlyBy);
        curvature += 2 * timing * bend *
          (Math.abs(skewSink[e]) + wirePs) ** 2;
      }
    }
    gradient[a] -= slope;
    gradient[b] += slope;
    stiffness[a] += curvature;
    stiffness[b] += curvature;
  }
}

/**
 * The nearest legal placement of every row, not rounded to the grid, for cells in the order of `orders`;
 * first brings the orders up to date. The work arrays make it free of allocation.
 */
function projector(model: PlacementModel, x: Float64Array) {
  const { width, widthSteps } = model;
  const orders = rowOrders(model, x);
  const longest = orders.reduce(
    (most, { length }) => Math.max(most, length),
    0,
  );
  const sum = new Float64Array(longest);
  const count = new Int32Array(longest);
  return (out: Float64Array) => {
    for (const order of orders) {
      const n = order.length;
      // Nearly sorted from the step before, so insertion is linear.
      for (let k = 1; k < n; k++) {
        const c = order[k];
        const centre = x[c] + width[c] / 2;
        let j = k - 1;
        for (; j >= 0; j--) {
          const other = order[j];
          if (x[other] + width[other] / 2 <= centre) break;
          order[j + 1] = other;
        }
        order[j + 1] = c;
      }
      let blocks = 0;
      let used = 0;
      for (let k = 0; k < n; k++) {
        const c = order[k];
        sum[blocks] = x[c] - used;
        count[blocks] = 1;
        used += width[c];
        blocks++;
        while (
          blocks > 1 &&
          sum[blocks - 2] * count[blocks - 1] >=
            sum[blocks - 1] * count[blocks - 2]
        ) {
          sum[blocks - 2] += sum[blocks - 1];
          count[blocks - 2] += count[blocks - 1];
          blocks--;
        }
      }
      const high = widthSteps - used;
      let at = 0;
      for (let b = 0, k = 0; b < blocks; b++) {
        const level = Math.min(high, Math.max(0, sum[b] / count[b]));
        for (const end = k + count[b]; k < end; k++) {
          out[order[k]] = level + at;
          at += width[order[k]];
        }
      }
    }
  };
}

/** Value on the way from `first` (f = 0) to `last` (f = 1), by equal factors. */
function geometric([first, last]: readonly [number, number], f: number) {
  return first * (last / first) ** f;
}

/**
 * One run down the gradient.
 *
 * @param start Left edges, in steps, anywhere.
 * @returns Left edges in steps, nearly legal.
 */
export function descend(
  model: PlacementModel,
  start: Float64Array,
  {
    iterations = DEFAULTS.iterations,
    density = DEFAULTS.density,
    gammaSteps = DEFAULTS.gammaSteps,
    momentum = DEFAULTS.momentum,
  }: AnalyticOptions = {},
): Float64Array {
  const n = start.length;
  const x = start.slice();
  const velocity = new Float64Array(n);
  const gradient = new Float64Array(n);
  const stiffness = new Float64Array(n);
  const legal = new Float64Array(n);
  const project = projector(model, x);
  const far = model.widthSteps;
  for (let step = 0; step < iterations; step++) {
    const f = iterations > 1 ? step / (iterations - 1) : 1;
    const lambda = geometric(density, f);
    project(legal);
    for (let i = 0; i < n; i++) {
      gradient[i] = lambda * (x[i] - legal[i]); // dD/dx
      stiffness[i] = lambda;
    }
    addWireGradient(
      model,
      x,
      geometric(gammaSteps, f),
      gradient,
      stiffness,
      // Wires may be long while the cells still pass through each other.
      model.weights.length * Math.min(1, lambda),
    );
    for (let i = 0; i < n; i++) {
      velocity[i] = momentum * velocity[i] - gradient[i] / stiffness[i];
      // No cell strays far from the chip, whatever the weights.
      x[i] = Math.min(2 * far, Math.max(-far, x[i] + velocity[i]));
    }
  }
  return x;
}

/**
 * Random places that have been averaged over connections: near the smoothest arrangements, in which
 * connected cells lie together. Every row is centred in the chip, else all cells would run together.
 */
export function smoothStart(
  model: PlacementModel,
  key: Key,
  rounds = 100,
): Float64Array {
  const { row, width, widthSteps, driver, sink, first, rows } = model;
  const n = row.length;
  let x = Float64Array.from(uniform(key, n, -1, 1));
  let next = new Float64Array(n);
  for (let round = 0; round < rounds; round++) {
    next.fill(0);
    for (let e = 0; e < driver.length; e++) {
      next[sink[e]] += x[driver[e]];
      next[driver[e]] += x[sink[e]];
    }
    for (let i = 0; i < n; i++) {
      const degree = first[i + 1] - first[i];
      next[i] = degree === 0 ? x[i] : (x[i] + next[i] / degree) / 2;
    }
    let squares = 0;
    for (const cells of rows) {
      let mean = 0;
      for (const c of cells) mean += next[c] / cells.length;
      for (const c of cells) {
        next[c] -= mean;
        squares += next[c] ** 2;
      }
    }
    const scale = squares > 0 ? Math.sqrt(n / squares) : 1;
    for (let i = 0; i < n; i++) next[i] *= scale;
    [x, next] = [next, x];
  }
  return x.map((at, i) => widthSteps / 2 + at * widthSteps / 4 - width[i] / 2);
}

/** Factors on the first gamma of one start after the other: other ways down. Our choice. */
const GAMMA_FACTORS = [1, 0.4, 2];

/**
 * Global placements from several random starts, those that are cheapest once legal.
 *
 * @returns Left edges in steps, nearly legal; best first.
 */
export function placeAnalytic(
  model: PlacementModel,
  key: Key,
  options: AnalyticOptions = {},
): Float64Array[] {
  const {
    starts = DEFAULTS.starts,
    finalists = DEFAULTS.finalists,
    gammaSteps: [gamma, lastGamma] = DEFAULTS.gammaSteps,
  } = options;
  for (const [name, count] of Object.entries({ starts, finalists })) {
    if (!(Number.isInteger(count) && count >= 1)) {
      throw new RangeError(
        `Cannot place ${model.netlist.name} as ${name} must be a positive integer: ${name} ${count}`,
      );
    }
  }
  return Array.from({ length: starts }, (_, start) => {
    const factor = GAMMA_FACTORS[start % GAMMA_FACTORS.length];
    const x = descend(model, smoothStart(model, fold(key, start)), {
      ...options,
      gammaSteps: [gamma * factor, lastGamma],
    });
    return { x, cost: totalCost(model, legalise(model, x)) };
  })
    .sort((a, b) => a.cost - b.cost)
    .slice(0, finalists)
    .map(({ x }) => x);
}
