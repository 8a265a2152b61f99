/**
 * Detailed placement, shared by all placers: small moves that lower the cost.
 *
 * First, random exchanges at a low temperature (`place-annealing.ts`), a few grid steps of wire, which
 * let whole chains of buffers change places one by one. Then passes that never make the cost worse. A
 * pass goes over the rows, up and then down, and does for each, with all other rows held:
 *
 * 1. exchanges: each cell with one near the place where its connections pull it;
 * 2. windows: every order of three neighbouring cells, within the space they have;
 * 3. shifts: the whole row at once, order kept, exactly (dynamic programming).
 *
 * Then the pins are assigned anew (`place-pins.ts`).
 *
 * Cells of one row share no connection, so their costs add up. Costs are those of `place-model.ts`, hence
 * wire length, timing and maximum length are traded alike in all three.
 */
import { type Key, key as keyOf } from "../core/rng.ts";
import { anneal } from "./place-annealing.ts";
import {
  cellCost,
  edgeCost,
  type PlacementModel,
  rowOrders,
  totalCost,
} from "./place-model.ts";
import { assignPins } from "./place-pins.ts";

export interface DetailedOptions {
  /** For the random exchanges. */
  key?: Key;
  /** Random exchanges per cell and temperature; 0 for none. */
  movesPerCell?: number;
  /** Passes at most; stops before when a pass gains less than `tolerance`. */
  passes?: number;
  /** Relative gain of a pass below which it is the last. */
  tolerance?: number;
  /** Whether equal pins of a cell are exchanged, or used as the netlist has them. */
  pins?: "assigned" | "given";
  /** How far a shift may move a cell, in grid steps. */
  reachSteps?: number;
}

/** Middle of the places where its connections would have cell c; its own place if it has none. */
function medianPull(
  { first, edgeOf, driver, sink, offset }: PlacementModel,
  x: Int32Array,
  c: number,
): number {
  const pulls: number[] = [];
  for (let k = first[c]; k < first[c + 1]; k++) {
    const e = edgeOf[k];
    pulls.push(
      driver[e] === c ? x[sink[e]] + offset[e] : x[driver[e]] - offset[e],
    );
  }
  if (pulls.length === 0) return x[c];
  pulls.sort((a, b) => a - b);
  return (pulls[(pulls.length - 1) >> 1] + pulls[pulls.length >> 1]) / 2;
}

/** How many places left and right of the wanted one an exchange looks at. */
const EXCHANGE_REACH = 3;

/** Exchanges cells of a row with others near their median where that lowers the cost. */
export function exchangeCells(
  model: PlacementModel,
  x: Int32Array,
  order: Int32Array,
): void {
  const { width, widthSteps } = model;
  const n = order.length;
  const end = (k: number) => k < 0 ? 0 : x[order[k]] + width[order[k]];
  const begin = (k: number) => k >= n ? widthSteps : x[order[k]];
  for (let i = 0; i < n; i++) {
    const wanted = medianPull(model, x, order[i]);
    let low = 0;
    for (let high = n; low < high;) {
      const middle = (low + high) >> 1;
      if (x[order[middle]] < wanted) low = middle + 1;
      else high = middle;
    }
    let bestGain = 1e-9;
    let best: [j: number, atI: number, atJ: number] | null = null;
    const from = Math.max(0, low - EXCHANGE_REACH);
    const to = Math.min(n - 1, low + EXCHANGE_REACH);
    for (let j = from; j <= to; j++) {
      if (j === i) continue;
      const [l, r] = j < i ? [j, i] : [i, j];
      const a = order[l];
      const b = order[r];
      let atA: number;
      let atB: number;
      if (r === l + 1) {
        atB = x[a];
        atA = x[b] + width[b] - width[a];
      } else {
        atB = Math.min(x[a], begin(l + 1) - width[b]);
        atA = Math.min(x[b], begin(r + 1) - width[a]);
        if (atB < end(l - 1) || atA < end(r - 1)) continue;
      }
      const gain = cellCost(model, x, a, x[a]) - cellCost(model, x, a, atA) +
        cellCost(model, x, b, x[b]) - cellCost(model, x, b, atB);
      if (gain > bestGain) {
        bestGain = gain;
        best = j < i ? [j, atB, atA] : [j, atA, atB];
      }
    }
    if (best === null) continue;
    const [j, atI, atJ] = best;
    x[order[i]] = atI;
    x[order[j]] = atJ;
    [order[i], order[j]] = [order[j], order[i]];
  }
}

/** The six orders of three neighbours. */
const ORDERS = [
  [0, 1, 2],
  [0, 2, 1],
  [1, 0, 2],
  [1, 2, 0],
  [2, 0, 1],
  [2, 1, 0],
];

/** Tries all orders of every three neighbours, gaps between them kept. */
export function permuteWindows(
  model: PlacementModel,
  x: Int32Array,
  order: Int32Array,
): void {
  const { width } = model;
  const places = [0, 0, 0];
  const bestPlaces = [0, 0, 0];
  for (let k = 0; k + 2 < order.length; k++) {
    const cells = [order[k], order[k + 1], order[k + 2]];
    const gap0 = x[cells[1]] - x[cells[0]] - width[cells[0]];
    const gap1 = x[cells[2]] - x[cells[1]] - width[cells[1]];
    const left = x[cells[0]];
    let bestCost = Infinity;
    let best = ORDERS[0];
    for (const permuted of ORDERS) {
      places[0] = left;
      places[1] = left + width[cells[permuted[0]]] + gap0;
      places[2] = places[1] + width[cells[permuted[1]]] + gap1;
      let cost = 0;
      for (let j = 0; j < 3; j++) {
        cost += cellCost(model, x, cells[permuted[j]], places[j]);
      }
      if (cost < bestCost - 1e-9) {
        bestCost = cost;
        best = permuted;
        for (let j = 0; j < 3; j++) bestPlaces[j] = places[j];
      }
    }
    for (let j = 0; j < 3; j++) {
      order[k + j] = cells[best[j]];
      x[order[k + j]] = bestPlaces[j];
    }
  }
}

/**
 * Best places of a row's cells, order kept, within `reach` steps of where they are.
 *
 * With y_k = x_k minus the widths to its left, y_0 <= y_1 <= ..., and
 * F_k(y) = f_k(y) + min over y' <= y of F_{k-1}(y'): exact for any cost, in n (2 reach + 1) steps.
 */
export function shiftRow(
  model: PlacementModel,
  x: Int32Array,
  order: Int32Array,
  reach: number,
): void {
  const { width, widthSteps, first, edgeOf, driver, sink } = model;
  const n = order.length;
  if (n === 0) return;
  const span = 2 * reach + 1;
  const choice = new Int32Array(n * span); // y of cell k - 1, for each y of cell k
  const low = new Int32Array(n); // lowest y of cell k
  const count = new Int32Array(n);
  let used = 0;
  for (const c of order) used += width[c];
  const slack = widthSteps - used;
  let previous = new Float64Array(span);
  let current = new Float64Array(span);
  let left = 0;
  for (let k = 0; k < n; k++) {
    const c = order[k];
    const y = x[c] - left;
    low[k] = Math.max(0, y - reach);
    count[k] = Math.min(slack, y + reach) - low[k] + 1;
    // Cost of the cell alone.
    current.fill(0, 0, count[k]);
    for (let q = first[c]; q < first[c + 1]; q++) {
      const e = edgeOf[q];
      const drives = driver[e] === c;
      const other = x[drives ? sink[e] : driver[e]];
      for (let i = 0; i < count[k]; i++) {
        const at = left + low[k] + i;
        current[i] += drives
          ? edgeCost(model, e, at, other)
          : edgeCost(model, e, other, at);
      }
    }
    // Plus the best of the cells to its left.
    if (k > 0) {
      let best = Infinity;
      let bestY = 0;
      let i = 0;
      for (let j = 0; j < count[k]; j++) {
        for (; i < count[k - 1] && low[k - 1] + i <= low[k] + j; i++) {
          if (previous[i] < best) {
            best = previous[i];
            bestY = low[k - 1] + i;
          }
        }
        current[j] += best;
        choice[k * span + j] = bestY;
      }
    }
    left += width[c];
    [previous, current] = [current, previous];
  }
  let best = 0;
  for (let j = 1; j < count[n - 1]; j++) {
    if (previous[j] < previous[best]) best = j;
  }
  let y = low[n - 1] + best;
  for (let k = n - 1; k >= 0; k--) {
    left -= width[order[k]];
    x[order[k]] = left + y;
    y = choice[k * span + y - low[k]];
  }
}

/** Temperatures of the random exchanges, in grid steps, and how they fall. Our choice. */
const WARMTH = { startSteps: 3, endSteps: 0.2, cooling: 0.9 };

/** Random exchanges per temperature at least: small circuits can afford more per cell. Our choice. */
const LEAST_MOVES = 8000;

/**
 * Improves a legal placement; assigning pins changes the model's.
 *
 * @param start Left edges in steps, legal.
 * @returns Left edges in steps, legal, of no higher cost.
 */
export function placeDetailed(
  model: PlacementModel,
  start: Int32Array,
  {
    key = keyOf(0),
    movesPerCell = 30,
    passes = 20,
    tolerance = 1e-3,
    reachSteps = 16,
    pins = "assigned",
  }: DetailedOptions = {},
): Int32Array {
  let x: Int32Array = start.slice();
  let cost = totalCost(model, x);
  if (movesPerCell > 0) {
    const annealed = anneal(model, x, key, {
      ...WARMTH,
      movesPerCell: Math.max(
        movesPerCell,
        Math.round(LEAST_MOVES / Math.max(1, x.length)),
      ),
    });
    const annealedCost = totalCost(model, annealed);
    if (annealedCost < cost) [x, cost] = [annealed, annealedCost];
  }
  const orders = rowOrders(model, x);
  const upAndDown = [...orders, ...orders.slice().reverse()];
  for (let pass = 0; pass < passes; pass++) {
    for (const order of upAndDown) {
      exchangeCells(model, x, order);
      permuteWindows(model, x, order);
      shiftRow(model, x, order, reachSteps);
    }
    if (pins === "assigned") assignPins(model, x);
    const next = totalCost(model, x);
    const done = cost - next <= tolerance * cost;
    cost = next;
    if (done) break;
  }
  return x;
}
