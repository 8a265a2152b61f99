/**
 * The legaliser that all placers share: the legal row nearest to the wanted places, order kept.
 *
 * Per row: min sum_k (x_k - g_k)^2 subject to x_{k+1} >= x_k + w_k, 0 <= x, x_last + w_last <= W, all x
 * whole grid steps. With y_k = x_k - (w_1 + ... + w_{k-1}) this is isotonic regression, which
 * pooling adjacent violators solves in linear time; rounding its blocks to whole numbers and clamping
 * them keeps it exact, as the best whole-numbered y_k is at least m exactly where the real one is at
 * least m - 1/2. Spindler, Schlichtmann, Johannes, "Abacus", ISPD 2008, is the same idea for cells in
 * rows.
 */
import { type PlacementModel, rowOrders } from "./place-model.ts";

/**
 * Nearest non-decreasing sequence to `targets` in the sense of least squares, between `low` and `high`.
 * Real-valued; see `legaliseRow` for whole steps.
 */
export function isotonic(
  targets: Float64Array,
  low: number,
  high: number,
): Float64Array {
  const n = targets.length;
  const sum = new Float64Array(n);
  const count = new Int32Array(n);
  let blocks = 0;
  for (let k = 0; k < n; k++) {
    sum[blocks] = targets[k];
    count[blocks] = 1;
    blocks++;
    while (
      blocks > 1 &&
      sum[blocks - 2] * count[blocks - 1] >= sum[blocks - 1] * count[blocks - 2]
    ) {
      sum[blocks - 2] += sum[blocks - 1];
      count[blocks - 2] += count[blocks - 1];
      blocks--;
    }
  }
  const y = new Float64Array(n);
  for (let b = 0, k = 0; b < blocks; b++) {
    const level = Math.min(high, Math.max(low, sum[b] / count[b]));
    for (const end = k + count[b]; k < end; k++) y[k] = level;
  }
  return y;
}

/**
 * Legal places of one row nearest to `wanted`, cells in the given order.
 *
 * @param wanted Left edge of each cell of the order, in steps.
 * @param width Width of each cell of the order, in steps.
 * @param whole Whether the result must be whole steps.
 * @throws RangeError if the cells are wider than the row.
 *
 * @example
 * Array.from(legaliseRow(Float64Array.of(3, 5, 20), [4, 4, 4], 22)); // [2, 6, 18]
 */
export function legaliseRow(
  wanted: Float64Array,
  width: ArrayLike<number>,
  widthSteps: number,
  whole = true,
): Float64Array {
  const n = wanted.length;
  const targets = new Float64Array(n);
  let used = 0;
  for (let k = 0; k < n; k++) {
    targets[k] = wanted[k] - used;
    used += width[k];
  }
  if (used > widthSteps) {
    throw new RangeError(
      `Cannot legalise a row as its cells must fit into the width of the chip: ${used} steps of cells, ${widthSteps} steps of width`,
    );
  }
  const y = isotonic(targets, 0, widthSteps - used);
  for (let k = 0, at = 0; k < n; at += width[k++]) {
    y[k] = (whole ? Math.round(y[k]) : y[k]) + at;
  }
  return y;
}

/**
 * A legal placement near `wanted`: every row in the order of its cells' centres.
 *
 * @param wanted Left edges in steps, anywhere.
 */
export function legalise(
  model: PlacementModel,
  wanted: ArrayLike<number>,
): Int32Array {
  const x = new Int32Array(model.row.length);
  for (const order of rowOrders(model, wanted)) {
    const legal = legaliseRow(
      Float64Array.from(order, (c) => wanted[c]),
      order.map((c) => model.width[c]),
      model.widthSteps,
    );
    order.forEach((c, k) => x[c] = legal[k]);
  }
  return x;
}
