/**
 * Simulated annealing of a placement: the slow and thorough baseline.
 *
 * Moves within a row: exchange two cells where both fit (equal widths anywhere, unequal ones where the
 * gaps allow it, neighbours always), or move one cell within its gap. Cost and legality as in
 * `place-model.ts`; every state is legal.
 *
 * Kirkpatrick, Gelatt, Vecchi, Science 220 (1983). Schedule, our choice: start where 95 % of the moves
 * are accepted, cool by a constant factor, a fixed number of moves per cell and temperature; the
 * reach of exchanges shrinks with the rate of acceptance (as in TimberWolf).
 */
import { bits, type Key } from "../core/rng.ts";
import { cellCost, type PlacementModel, rowOrders } from "./place-model.ts";

/** Moves per cell and temperature: our choice. */
export const MOVES_PER_CELL = 10;

export interface AnnealingOptions {
  /** Moves per cell and temperature. */
  movesPerCell?: number;
  /** Factor from one temperature to the next. */
  cooling?: number;
  /** Temperature at which to stop, in grid steps of wire length. */
  endSteps?: number;
  /** Temperature at which to start; found from the acceptance if left out. */
  startSteps?: number;
}

/** A generator of 32-bit words (xorshift), seeded from a key: the loop needs tens of millions. */
function wordSource(key: Key): () => number {
  const state = bits(key, 4);
  if (state.every((word) => word === 0)) state[0] = 1;
  return () => {
    // xorshift128, Marsaglia, Journal of Statistical Software 8 (2003)
    let t = state[3];
    t ^= t << 11;
    t ^= t >>> 8;
    const s = state[0];
    state[3] = state[2];
    state[2] = state[1];
    state[1] = s;
    state[0] = t ^ s ^ (s >>> 19);
    return state[0];
  };
}

/**
 * Anneals a legal placement.
 *
 * @param start Left edges in steps, legal.
 * @returns Left edges in steps, legal.
 */
export function anneal(
  model: PlacementModel,
  start: Int32Array,
  key: Key,
  {
    movesPerCell = MOVES_PER_CELL,
    cooling = 0.95,
    endSteps = 0.2,
    startSteps,
  }: AnnealingOptions = {},
): Int32Array {
  const { row, width, widthSteps } = model;
  const n = row.length;
  const x = start.slice();
  const orders = rowOrders(model, x);
  const place = new Int32Array(n); // position of a cell in its row's order
  for (const order of orders) order.forEach((c, k) => place[c] = k);
  const next = wordSource(key);
  const below = (limit: number) => Math.floor(next() / 2 ** 32 * limit);
  const unit = () => next() / 2 ** 32;
  let temperature = Infinity;
  const accepts = (delta: number) =>
    delta <= 0 || unit() < Math.exp(-delta / temperature);

  const leftEnd = (order: Int32Array, k: number) =>
    k === 0 ? 0 : x[order[k - 1]] + width[order[k - 1]];
  const rightEnd = (order: Int32Array, k: number) =>
    k === order.length - 1 ? widthSteps : x[order[k + 1]];

  /** Change of cost of the last move that could be made at all; undefined if it could not. */
  const tryShift = (c: number): number | undefined => {
    const order = orders[row[c]];
    const low = leftEnd(order, place[c]);
    const free = rightEnd(order, place[c]) - width[c] - low;
    if (free <= 0) return undefined;
    const at = low + below(free + 1);
    const delta = cellCost(model, x, c, at) - cellCost(model, x, c, x[c]);
    if (accepts(delta)) x[c] = at;
    else return NaN;
    return delta;
  };

  const tryExchange = (a: number, reach: number): number | undefined => {
    const order = orders[row[a]];
    if (order.length < 2) return undefined;
    const low = Math.max(0, place[a] - reach);
    const span = Math.min(order.length - 1, place[a] + reach) - low;
    let k = low + below(span);
    if (k >= place[a]) k++;
    const b = order[k];
    // l is the left one of the two, r the right one.
    const l = k < place[a] ? b : a;
    const r = l === a ? b : a;
    const lk = place[l];
    const rk = place[r];
    let atL: number;
    let atR: number;
    if (rk === lk + 1) {
      atR = x[l];
      atL = x[r] + width[r] - width[l];
    } else {
      atR = Math.min(x[l], x[order[lk + 1]] - width[r]);
      if (atR < leftEnd(order, lk)) return undefined;
      atL = Math.min(x[r], rightEnd(order, rk) - width[l]);
      if (atL < x[order[rk - 1]] + width[order[rk - 1]]) return undefined;
    }
    // Cells of one row share no connection, so the two costs are independent.
    const delta = cellCost(model, x, l, atL) - cellCost(model, x, l, x[l]) +
      cellCost(model, x, r, atR) - cellCost(model, x, r, x[r]);
    if (!accepts(delta)) return NaN;
    x[l] = atL;
    x[r] = atR;
    order[lk] = r;
    order[rk] = l;
    place[l] = rk;
    place[r] = lk;
    return delta;
  };

  const movesPerStep = movesPerCell * n;
  if (startSteps === undefined) {
    // Mean uphill move of a random walk: exp(-mean / T) = 0.95.
    let uphill = 0;
    let count = 0;
    for (let m = 0; m < Math.min(movesPerStep, 5000); m++) {
      const delta = tryExchange(below(n), n);
      if (delta !== undefined && delta > 0) {
        uphill += delta;
        count++;
      }
    }
    startSteps = count === 0 ? endSteps : uphill / count / -Math.log(0.95);
  }
  let reach = orders.reduce((most, { length }) => Math.max(most, length), 1);
  for (
    temperature = startSteps;
    temperature > endSteps;
    temperature *= cooling
  ) {
    let tried = 0;
    let accepted = 0;
    for (let m = 0; m < movesPerStep; m++) {
      const c = below(n);
      const delta = (m & 3) === 0 ? tryShift(c) : tryExchange(c, reach);
      if (delta === undefined) continue;
      tried++;
      if (!Number.isNaN(delta)) accepted++;
    }
    // TimberWolf keeps the rate of acceptance near 0.44 by the reach of its moves.
    const rate = tried === 0 ? 0 : accepted / tried;
    reach = Math.max(1, Math.min(n, Math.round(reach * (0.56 + rate))));
  }
  return x;
}
