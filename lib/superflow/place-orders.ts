/**
 * Placements from orders alone: random, as the netlist has it, and barycentre or median sweeps.
 *
 * Sweeps: Sugiyama, Tagawa, Toda, IEEE Trans. Systems, Man and Cybernetics 11 (1981). Row by row, upwards
 * and downwards, each cell moves to the mean (or median) of what it connects to in the row before, and
 * the row is made legal. Fifty lines, and the baseline that every placer for rows has to beat.
 */
import { type Key, uniform } from "../core/rng.ts";
import { topologicalOrder } from "./netlist.ts";
import { legalise, legaliseRow } from "./place-legal.ts";
import { type PlacementModel, totalSteps } from "./place-model.ts";

/** Every row in random order, spread over the chip. */
export function placeRandom(model: PlacementModel, key: Key): Float64Array {
  return Float64Array.from(
    uniform(key, model.row.length),
    (u) => u * model.widthSteps,
  );
}

/** Every row in the order in which a topological walk from the input ports reaches its cells. */
export function placeTopological(model: PlacementModel): Float64Array {
  const x = new Float64Array(model.row.length);
  const next = new Float64Array(model.rowCount);
  for (const c of topologicalOrder(model.netlist)) {
    x[c] = next[model.row[c]];
    next[model.row[c]] += model.width[c];
  }
  // Rows in the middle of the chip.
  return x.map((at, c) => at + (model.widthSteps - next[model.row[c]]) / 2);
}

export interface SweepOptions {
  sweeps?: number;
  by?: "mean" | "median";
}

/** Places where the connections of cell c to rows below (or above) would have it. */
function pulls(
  { first, edgeOf, driver, sink, offset }: PlacementModel,
  x: Float64Array,
  c: number,
  upwards: boolean,
): number[] {
  const places: number[] = [];
  for (let k = first[c]; k < first[c + 1]; k++) {
    const e = edgeOf[k];
    if (upwards && sink[e] === c) places.push(x[driver[e]] - offset[e]);
    if (!upwards && driver[e] === c) places.push(x[sink[e]] + offset[e]);
  }
  return places.sort((a, b) => a - b);
}

/**
 * Barycentre or median sweeps from a start; the best placement met.
 *
 * @param start Left edges in steps, anywhere.
 */
export function placeBarycentre(
  model: PlacementModel,
  start: Float64Array,
  { sweeps = 24, by = "mean" }: SweepOptions = {},
): Float64Array {
  const { width, widthSteps, rows } = model;
  const x = Float64Array.from(legalise(model, start));
  let best = x.slice();
  let bestSteps = totalSteps(model, x);
  for (let sweep = 0; sweep < sweeps; sweep++) {
    const upwards = sweep % 2 === 0;
    const sequence = upwards ? rows : rows.slice().reverse();
    for (const row of sequence) {
      const wanted = new Map<number, number>();
      for (const c of row) {
        const places = pulls(model, x, c, upwards);
        const n = places.length;
        wanted.set(
          c,
          n === 0
            ? x[c]
            : by === "mean"
            ? places.reduce((a, b) => a + b, 0) / n
            : (places[(n - 1) >> 1] + places[n >> 1]) / 2,
        );
      }
      const centre = (c: number) => wanted.get(c)! + width[c] / 2;
      const order = row.slice().sort((a, b) => centre(a) - centre(b) || a - b);
      const legal = legaliseRow(
        Float64Array.from(order, (c) => wanted.get(c)!),
        order.map((c) => width[c]),
        widthSteps,
      );
      order.forEach((c, k) => x[c] = legal[k]);
    }
    const steps = totalSteps(model, x);
    if (steps < bestSteps) [best, bestSteps] = [x.slice(), steps];
  }
  return best;
}
