/**
 * Quadratic placement with recursive bipartition, after GORDIAN: the earlier kind of analytic placer.
 *
 * Kleinhans, Sigl, Johannes, Antreich, "GORDIAN: VLSI Placement by Quadratic Programming and Slicing
 * Optimization", IEEE Trans. CAD 10 (1991). Wire length is squared, 1/2 x' C x + d' x; input and output
 * ports are fixed at even distances; cells that belong to a region of the chip must have their centre
 * of gravity, weighed by width, at the region's centre (A x = u). Solve, cut every region in two at the
 * median, solve again, until regions hold few cells.
 *
 * Scope: from recollection of the method, for rows: only x is free, so that regions are vertical strips
 * of the chip over all rows. The constraints are kept by projection within conjugate gradients.
 */
import { type PlacementModel, rowOrders } from "./place-model.ts";

export interface GordianOptions {
  /** Regions with no more cells per row than this are not cut. */
  cellsPerRegionRow?: number;
  /** Of conjugate gradients, relative. */
  tolerance?: number;
}

/** Regions by number: cells of each, and its strip of the chip. */
interface Region {
  cells: number[];
  left: number;
  right: number;
}

/** Result = C x for the Laplacian of the connections; fixed cells give 0. */
function laplacian(
  { driver, sink }: PlacementModel,
  x: Float64Array,
  fixed: Uint8Array,
  result: Float64Array,
): void {
  result.fill(0);
  for (let e = 0; e < driver.length; e++) {
    const d = x[sink[e]] - x[driver[e]];
    result[sink[e]] += d;
    result[driver[e]] -= d;
  }
  for (let i = 0; i < result.length; i++) if (fixed[i] === 1) result[i] = 0;
}

/** Takes away from `v` what would move a region's centre of gravity: v -= w (w . v) / (w . w). */
function keepCentres(
  v: Float64Array,
  regions: Region[],
  width: Int32Array,
): void {
  for (const { cells } of regions) {
    let along = 0;
    let norm = 0;
    for (const c of cells) {
      along += width[c] * v[c];
      norm += width[c] * width[c];
    }
    if (norm === 0) continue;
    for (const c of cells) v[c] -= width[c] * along / norm;
  }
}

/** Minimises 1/2 x' C x + d' x under A x = u from x, which meets the constraints; changes x. */
function solve(
  model: PlacementModel,
  x: Float64Array,
  fixed: Uint8Array,
  regions: Region[],
  tolerance: number,
): void {
  const { driver, sink, offset, width } = model;
  const n = x.length;
  const residual = new Float64Array(n);
  const product = new Float64Array(n);
  laplacian(model, x, fixed, product);
  for (let i = 0; i < n; i++) residual[i] = -product[i];
  for (let e = 0; e < driver.length; e++) {
    // Pins off the left edges: the linear term d.
    residual[sink[e]] -= offset[e];
    residual[driver[e]] += offset[e];
  }
  for (let i = 0; i < n; i++) if (fixed[i] === 1) residual[i] = 0;
  keepCentres(residual, regions, width);
  const direction = residual.slice();
  const dot = (a: Float64Array, b: Float64Array) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
  };
  let rr = dot(residual, residual);
  const enough = rr * tolerance * tolerance;
  for (let round = 0; round < n && rr > enough && rr > 1e-18; round++) {
    laplacian(model, direction, fixed, product);
    keepCentres(product, regions, width);
    const alpha = rr / dot(direction, product);
    if (!Number.isFinite(alpha)) break;
    for (let i = 0; i < n; i++) {
      x[i] += alpha * direction[i];
      residual[i] -= alpha * product[i];
    }
    const next = dot(residual, residual);
    const beta = next / rr;
    rr = next;
    for (let i = 0; i < n; i++) {
      direction[i] = residual[i] + beta * direction[i];
    }
  }
}

/** Moves the cells of every region together so that its centre of gravity is where it must be. */
function centre(
  x: Float64Array,
  regions: Region[],
  width: Int32Array,
): void {
  for (const { cells, left, right } of regions) {
    let moment = 0;
    let norm = 0;
    for (const c of cells) {
      moment += width[c] * (x[c] + width[c] / 2 - (left + right) / 2);
      norm += width[c];
    }
    for (const c of cells) x[c] -= moment / norm;
  }
}

/**
 * Global placement by quadratic programming and slicing.
 *
 * @param start Left edges in steps: gives the order of the ports along the edges of the chip.
 */
export function placeGordian(
  model: PlacementModel,
  start: Float64Array,
  { cellsPerRegionRow = 1, tolerance = 1e-4 }: GordianOptions = {},
): Float64Array {
  const { netlist, row, rows, rowCount, width, widthSteps } = model;
  const n = row.length;
  const x = Float64Array.from(start);
  const fixed = new Uint8Array(n);
  const orders = rowOrders(model, start);
  for (const end of [0, rowCount - 1]) {
    const order = orders[end] ?? [];
    order.forEach((c, k) => {
      const { kind } = netlist.cells[c];
      if (kind !== "input" && kind !== "output") return;
      fixed[c] = 1;
      x[c] = (k + 0.5) / order.length * widthSteps - width[c] / 2;
    });
  }
  const free = Array.from({ length: n }, (_, i) => i)
    .filter((c) => fixed[c] === 0);
  if (free.length === 0) return x;
  const enough = cellsPerRegionRow * rows.length;
  let regions: Region[] = [{ cells: free, left: 0, right: widthSteps }];
  for (;;) {
    centre(x, regions, width);
    solve(model, x, fixed, regions, tolerance);
    const next: Region[] = [];
    let cut = false;
    for (const region of regions) {
      const { cells, left, right } = region;
      if (cells.length <= Math.max(2, enough)) {
        next.push(region);
        continue;
      }
      cut = true;
      // Every row is cut in its own middle, so that both halves can be made legal.
      const halves: [number[], number[]] = [[], []];
      const byRow = new Map<number, number[]>();
      for (const c of cells) {
        const list = byRow.get(row[c]);
        if (list === undefined) byRow.set(row[c], [c]);
        else list.push(c);
      }
      for (const list of byRow.values()) {
        list.sort((a, b) => x[a] + width[a] / 2 - x[b] - width[b] / 2 || a - b);
        const total = list.reduce((sum, c) => sum + width[c], 0);
        let used = 0;
        for (const c of list) {
          halves[used + width[c] / 2 <= total / 2 ? 0 : 1].push(c);
          used += width[c];
        }
      }
      const middle = (left + right) / 2;
      if (halves[0].length > 0) {
        next.push({ cells: halves[0], left, right: middle });
      }
      if (halves[1].length > 0) {
        next.push({ cells: halves[1], left: middle, right });
      }
    }
    regions = next;
    if (!cut) return x;
  }
}
