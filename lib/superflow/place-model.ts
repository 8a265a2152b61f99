/**
 * What all placers share: a netlist as flat arrays, and the cost of a connection.
 *
 * The row of a cell is its level, so only its place along the row is free. Cells have different widths
 * and pins off their centres; wires are measured from pin to pin.
 *
 *   N cells, E connections, R rows      x left edge of a cell, in grid steps
 *   dx_e = (x_sink + pin_sink) - (x_driver + pin_driver)
 *
 * | term | meaning | weight |
 * | --- | --- | --- |
 * | abs(dx_e) | wire length along the row, exact as every net has two pins | 1 |
 * | T_e = T(max(0, -setup)) + T(max(0, -hold)) | timing, ps^2; T(v) = v^2 up to a knee h, then its tangent | lambda_t |
 * | max(0, abs(dx_e) + dy_e - Lmax)^2 | maximum length, steps^2 | lambda_w |
 *
 * Scope: our reading of "wirelength, timing and routability together" (Xie et al., DATE 2024, arXiv
 * 2407.18209, abstract), whose equations were not available. The weights are our choice.
 */
import { type CellLibrary, libraryCellOf } from "../core/aqfp.ts";
import { type ClockModel, clockPathUm, isReversed, phasePs } from "./clock.ts";
import { edges, type LevelledNetlist, outputCount } from "./netlist.ts";

/** How the terms of the cost are weighed; lengths in grid steps. */
export interface CostWeights {
  /**
   * lambda_t, in steps per ps^2. In a model it is lowered by h over the worst violation of a straight
   * wire: on a chip too wide for its clock most violations are there to stay, and must not outweigh
   * all wires.
   */
  timing: number;
  /** lambda_w, per step. */
  length: number;
  /** Lmax. */
  maxWireUm: number;
  clock: ClockModel;
}

/** A levelled netlist as flat arrays, for the hot loops of the placers. */
export interface PlacementModel {
  netlist: LevelledNetlist;
  library: CellLibrary;
  weights: CostWeights;
  rowCount: number;
  /** Width of the chip: no cell may reach beyond it. */
  widthSteps: number;
  row: Int32Array; // [N]
  width: Int32Array; // [N], grid steps
  /** Cells of each row, in the order of the netlist. */
  rows: Int32Array[]; // [R][cells of the row]
  driver: Int32Array; // [E]
  sink: Int32Array; // [E]
  /** Output pin of the driver and input of the sink: `assignPins` exchanges equal ones. */
  pin: Int32Array; // [E]
  input: Int32Array; // [E]
  /** pin_sink - pin_driver, so that dx_e = x_sink - x_driver + offset. */
  offset: Float64Array; // [E]
  /** Connections of cell c: edgeOf[first[c]] to edgeOf[first[c + 1] - 1]. */
  first: Int32Array; // [N + 1]
  edgeOf: Int32Array; // [2 E]
  /** Setup slack = setup0 + skewSink x_sink + skewDriver x_driver - wirePs abs(dx). */
  setup0: Float64Array; // [E], ps
  /** Hold slack = hold0 - skewSink x_sink - skewDriver x_driver + wirePs abs(dx). */
  hold0: Float64Array; // [E], ps
  skewSink: Float64Array; // [E], ps per step
  skewDriver: Float64Array; // [E], ps per step
  wirePs: number;
  /** Longest abs(dx) that keeps a wire within Lmax. */
  maxSteps: number;
}

/** h: violations beyond it weigh linearly. Our choice. */
const KNEE_PS = 5;

/** Number of grid steps in a length. */
function steps(um: number, library: CellLibrary, what: string): number {
  const count = um / library.gridUm;
  if (!Number.isInteger(count) || count <= 0) {
    throw new RangeError(
      `Cannot place with library ${library.name} as ${what} must be a positive multiple of the grid of ${library.gridUm} um: ${um} um`,
    );
  }
  return count;
}

/** @throws RangeError that names a cell whose library cell lacks one of its pins. */
function checkPins({ name, cells }: LevelledNetlist, library: CellLibrary) {
  for (const cell of cells) {
    const { inputsUm, outputsUm } = libraryCellOf(library, cell);
    const outputs = outputCount(cell);
    if (inputsUm.length < cell.inputs.length || outputsUm.length < outputs) {
      throw new RangeError(
        `Cannot place ${name} as ${cell.kind} ${cell.name} must have all its pins in library ${library.name}: inputs ${cell.inputs.length} of ${inputsUm.length}, outputs ${outputs} of ${outputsUm.length}`,
      );
    }
  }
}

/**
 * The arrays of a netlist.
 *
 * @param utilisation Share of the widest row that cells take, above 0 and up to 1; the rest is free.
 * @throws RangeError if a connection does not lead from one level to the next, a level is not a whole
 *   number from 0, or the library lacks a cell; the message names the cell.
 */
export function placementModel(
  netlist: LevelledNetlist,
  library: CellLibrary,
  weights: CostWeights,
  utilisation: number,
): PlacementModel {
  const { cells, levels } = netlist;
  if (levels.length !== cells.length) {
    throw new RangeError(
      `Cannot place ${netlist.name} as each cell must have a level: cells ${cells.length}, levels ${levels.length}`,
    );
  }
  if (!(utilisation > 0 && utilisation <= 1)) {
    throw new RangeError(
      `Cannot place ${netlist.name} as utilisation must be above 0 and up to 1: utilisation ${utilisation}`,
    );
  }
  const badLevel = levels.findIndex((level) => level < 0);
  if (badLevel >= 0) {
    throw new RangeError(
      `Cannot place ${netlist.name} as levels must be 0 or more: cell ${
        cells[badLevel].name
      }, level ${levels[badLevel]}`,
    );
  }
  const list = edges(netlist);
  for (const { driver, sink } of list) {
    if (levels[sink] !== levels[driver] + 1) {
      throw new RangeError(
        `Cannot place ${netlist.name} as every connection must lead to the next level: ${
          cells[driver].name
        } at level ${levels[driver]} drives ${cells[sink].name} at level ${
          levels[sink]
        }; insert buffers first`,
      );
    }
  }

  const rowCount = levels.reduce((most, level) => Math.max(most, level), -1) +
    1;
  const width = Int32Array.from(
    cells,
    (cell) =>
      steps(
        libraryCellOf(library, cell).widthUm,
        library,
        `width of cell ${cell.name}`,
      ),
  );
  const members: number[][] = Array.from({ length: rowCount }, () => []);
  const used = new Int32Array(rowCount);
  cells.forEach((_, i) => {
    members[levels[i]].push(i);
    used[levels[i]] += width[i];
  });
  const widest = used.reduce((a, b) => Math.max(a, b), 0);
  const widthSteps = Math.ceil(widest / utilisation);

  const { gridUm } = library;
  const { clock, maxWireUm } = weights;
  const first = new Int32Array(cells.length + 1);
  for (const { driver, sink } of list) {
    first[driver + 1]++;
    first[sink + 1]++;
  }
  for (let i = 0; i < cells.length; i++) first[i + 1] += first[i];
  const next = first.slice();
  const edgeOf = new Int32Array(2 * list.length);
  list.forEach(({ driver, sink }, e) => {
    edgeOf[next[driver]++] = e;
    edgeOf[next[sink]++] = e;
  });

  const perStep = gridUm / clock.clockVelocityUmPerPs;
  const sign = (row: number) => isReversed(row) ? -perStep : perStep;
  /** Clock path of a cell at x = 0, in ps. */
  const start = (i: number) =>
    clockPathUm(
      levels[i],
      width[i] * gridUm / 2,
      widthSteps * gridUm,
      clock.rowPitchUm,
    ) / clock.clockVelocityUmPerPs;
  const skew0 = list.map(({ driver, sink }) => start(sink) - start(driver));
  const delay0 = list.map(({ driver }) =>
    libraryCellOf(library, cells[driver]).delayPs +
    clock.rowPitchUm / clock.signalVelocityUmPerPs
  );
  checkPins(netlist, library);
  const model: PlacementModel = {
    netlist,
    library,
    weights,
    rowCount,
    widthSteps,
    row: levels,
    width,
    rows: members.map((row) => Int32Array.from(row)),
    driver: Int32Array.from(list, ({ driver }) => driver),
    sink: Int32Array.from(list, ({ sink }) => sink),
    pin: Int32Array.from(list, ({ pin }) => pin),
    input: Int32Array.from(list, ({ input }) => input),
    offset: Float64Array.from(
      list,
      ({ driver, pin, sink, input }) =>
        (libraryCellOf(library, cells[sink]).inputsUm[input] -
          libraryCellOf(library, cells[driver]).outputsUm[pin]) / gridUm,
    ),
    first,
    edgeOf,
    setup0: Float64Array.from(
      skew0,
      (skew, e) => phasePs(clock) + skew - delay0[e] - clock.setupPs,
    ),
    hold0: Float64Array.from(
      skew0,
      (skew, e) => phasePs(clock) - skew + delay0[e] - clock.holdPs,
    ),
    skewSink: Float64Array.from(list, ({ sink }) => sign(levels[sink])),
    skewDriver: Float64Array.from(list, ({ driver }) => -sign(levels[driver])),
    wirePs: gridUm / clock.signalVelocityUmPerPs,
    maxSteps: (maxWireUm - clock.rowPitchUm) / gridUm,
  };
  const timing = weights.timing * Math.min(1, KNEE_PS / worstViolation(model));
  return { ...model, weights: { ...weights, timing } };
}

/** Largest violation, in ps, of a straight wire at either edge of the chip; 0 if there is none. */
function worstViolation(model: PlacementModel): number {
  const { setup0, hold0, skewSink, skewDriver, widthSteps } = model;
  let worst = 0;
  for (let e = 0; e < setup0.length; e++) {
    for (const x of [0, widthSteps]) {
      const late = (skewSink[e] + skewDriver[e]) * x;
      worst = Math.max(worst, -setup0[e] - late, late - hold0[e]);
    }
  }
  return worst;
}

/**
 * Cost of a violation of v >= 0 ps, in ps^2.
 *
 * T(v) = v^2 for v <= h, 2 h v - h^2 beyond
 */
export function violationCost(v: number): number {
  return v <= KNEE_PS ? v * v : KNEE_PS * (2 * v - KNEE_PS);
}

/** dT/dv. */
export function violationSlope(v: number): number {
  return 2 * Math.min(v, KNEE_PS);
}

/**
 * Cost of connection e with its ends at given places: abs(dx) + lambda_t T_e + lambda_w overlength^2.
 */
export function edgeCost(
  model: PlacementModel,
  e: number,
  xDriver: number,
  xSink: number,
): number {
  const { timing, length } = model.weights;
  const d = Math.abs(xSink - xDriver + model.offset[e]);
  let cost = d;
  if (length > 0 && d > model.maxSteps) {
    cost += length * (d - model.maxSteps) * (d - model.maxSteps);
  }
  if (timing > 0) {
    const late = model.skewSink[e] * xSink + model.skewDriver[e] * xDriver -
      model.wirePs * d;
    const setup = model.setup0[e] + late;
    const hold = model.hold0[e] - late;
    if (setup < 0) cost += timing * violationCost(-setup);
    if (hold < 0) cost += timing * violationCost(-hold);
  }
  return cost;
}

/** Cost of all connections of cell c if it stood at `at`. */
export function cellCost(
  model: PlacementModel,
  x: ArrayLike<number>,
  c: number,
  at: number,
): number {
  const { first, edgeOf, driver, sink } = model;
  let cost = 0;
  for (let k = first[c]; k < first[c + 1]; k++) {
    const e = edgeOf[k];
    cost += driver[e] === c
      ? edgeCost(model, e, at, x[sink[e]])
      : edgeCost(model, e, x[driver[e]], at);
  }
  return cost;
}

/** Cost of all connections. */
export function totalCost(model: PlacementModel, x: ArrayLike<number>): number {
  const { driver, sink } = model;
  let cost = 0;
  for (let e = 0; e < driver.length; e++) {
    cost += edgeCost(model, e, x[driver[e]], x[sink[e]]);
  }
  return cost;
}

/** Sum of abs(dx) over all connections, in grid steps. */
export function totalSteps(
  { driver, sink, offset }: PlacementModel,
  x: ArrayLike<number>,
): number {
  let sum = 0;
  for (let e = 0; e < driver.length; e++) {
    sum += Math.abs(x[sink[e]] - x[driver[e]] + offset[e]);
  }
  return sum;
}

/** Cells of each row from left to right. */
export function rowOrders(
  { rows, width }: PlacementModel,
  x: ArrayLike<number>,
): Int32Array[] {
  return rows.map((row) =>
    row.slice().sort((a, b) =>
      x[a] + width[a] / 2 - x[b] - width[b] / 2 || a - b
    )
  );
}
