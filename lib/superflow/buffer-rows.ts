/**
 * Buffer rows: what to do about nets that are too long.
 *
 * A buffer on one net would break the balance of all paths, so a whole row of buffers is put between two
 * rows, one on each net that crosses: n_r buffers, 2 n_r junctions, one level more, and the phase of all
 * rows above moves on by one.
 *
 * `selection: "rows"` follows the README of Oilivia-C/AQFP_P-R_tool (an author of SuperFlow), of which
 * only the names and values of parameters could be read: rows are split where the number of over-long
 * nets reaches a threshold, and the threshold falls from round to round. The loop around it is our
 * reading.
 *
 * `selection: "cut"` is an extension of ours, the idea of RIVERPlace (arXiv 2608.13780, digest): buffers
 * go on the cheapest cut through the netlist that need not follow a row. Every path from an input to
 * an output crosses it once; everything above moves up one level. With p_c = 1 for cells above the
 * cut, the cost sum_e w_e (p_sink - p_driver), w_e = 1 less a reward on over-long nets, is a closure
 * problem, solved exactly as a minimum s-t cut.
 */
import {
  type CellLibrary,
  DEFAULT_LIBRARY,
  libraryCellOf,
} from "../core/aqfp.ts";
import { DEFAULT_CLOCK } from "./clock.ts";
import {
  type Cell,
  type Edge,
  edges,
  type LevelledNetlist,
  outputCount,
} from "./netlist.ts";
import { minCut } from "./min-cut.ts";
import {
  longestNetUm,
  MAX_WIRE_UM,
  type PlacedNetlist,
  type PlaceOptions,
  refine,
  wireUm,
} from "./placement.ts";

/** `split_threshold` of the README of Oilivia-C/AQFP_P-R_tool. */
export const SPLIT_THRESHOLDS: readonly number[] = [
  20,
  15,
  15,
  10,
  10,
  5,
  5,
  3,
  3,
  2,
  2,
  1,
  1,
];

/** `row_adjust_rounds` of the same README: rounds of placement update after an insertion. */
export const ROW_ADJUST_ROUNDS = 5;

/** `bfr_insert_rounds` of the same README: rounds of insertion; here, at each threshold. */
export const BUFFER_INSERT_ROUNDS = 5;

/** lambda_w of the updates: a buffer that is one step off must be worth moving others. Our choice. */
const OVERLENGTH_WEIGHT = 20;

export interface BufferRowOptions extends PlaceOptions {
  selection?: "rows" | "cut";
  thresholds?: readonly number[];
  adjustRounds?: number;
  insertRounds?: number;
}

/** One insertion. */
export interface BufferRound {
  threshold: number;
  overlong: number;
  rows: number;
  buffers: number;
}

export interface BufferRows {
  placed: PlacedNetlist;
  rounds: BufferRound[];
  rowsAdded: number;
  buffersAdded: number;
  /** Nets longer than the limit at the start; a better place is tried before the first insertion. */
  overlongAtStart: number;
  /** Nets still longer than the limit. */
  overlong: number;
  longestUm: number;
}

/** How much an over-long net is worth more than a buffer, so that a cut takes as many as it can. */
const REWARD = 1000;

/**
 * The netlist with a buffer on every connection from a cell below to a cell above, and the cells above
 * one level higher.
 *
 * @param above 1 for the cells that move up; whatever such a cell drives must be 1 as well.
 * @returns The new buffers stand behind the old cells, in the order of `edges(netlist)`.
 */
export function insertBuffersAcross<N extends LevelledNetlist>(
  netlist: N,
  above: ArrayLike<number>,
): LevelledNetlist & { buffered: Edge[] } {
  const cells: Cell[] = netlist.cells.map((cell) => ({
    ...cell,
    inputs: cell.inputs.slice(),
  }));
  const levels = Array.from(netlist.levels, (level, i) => level + above[i]);
  const names = new Set(cells.map(({ name }) => name));
  const buffered: Edge[] = [];
  let number = 0;
  for (const edge of edges(netlist)) {
    const { driver, sink, input } = edge;
    if (above[driver] === above[sink]) continue;
    if (above[driver] > above[sink]) {
      throw new RangeError(
        `Cannot insert buffers into ${netlist.name} as a cell above the cut must not drive one below it: ${
          cells[driver].name
        } drives ${cells[sink].name}`,
      );
    }
    while (names.has(`long_${number}`)) number++;
    const name = `long_${number++}`;
    const connection = cells[sink].inputs[input];
    cells[sink].inputs[input] = { ...connection, cell: cells.length, pin: 0 };
    cells.push({
      name,
      kind: "buffer",
      inputs: [{ ...connection, inverted: false }],
    });
    levels.push(netlist.levels[driver] + 1);
    buffered.push(edge);
  }
  return {
    name: netlist.name,
    cells,
    levels: Int32Array.from(levels),
    buffered,
  };
}

/** Cells above the cheapest cut that takes the over-long nets. */
export function bestCut(
  netlist: LevelledNetlist,
  overlong: (edge: Edge) => boolean,
): Uint8Array {
  const { cells } = netlist;
  const list = edges(netlist);
  // sum_e w_e (p_sink - p_driver) = sum_c p_c (weights in - weights out)
  const weight = new Float64Array(cells.length);
  for (const edge of list) {
    const w = overlong(edge) ? 1 - REWARD : 1;
    weight[edge.sink] += w;
    weight[edge.driver] -= w;
  }
  const source = cells.length;
  const target = source + 1;
  const arcs: [from: number, to: number, capacity: number][] = [];
  cells.forEach((cell, c) => {
    const drivesNone = outputCount(cell) === 0;
    if (cell.kind === "input") arcs.push([source, c, Infinity]);
    else if (drivesNone) arcs.push([c, target, Infinity]);
    if (weight[c] > 0) arcs.push([source, c, weight[c]]);
    if (weight[c] < 0) arcs.push([c, target, -weight[c]]);
  });
  // Above the cut is the target's side: a cell above must not drive one below.
  for (const { driver, sink } of list) arcs.push([sink, driver, Infinity]);
  const below = minCut(cells.length + 2, arcs, source, target);
  return Uint8Array.from(cells, (_, c) => below[c] === 1 ? 0 : 1);
}

/** Left edge of a buffer in the middle of a net, in steps. */
function bufferPlace(
  placed: PlacedNetlist,
  library: CellLibrary,
  edge: Edge,
): number {
  const { driver, pin } = edge;
  const { inputsUm, outputsUm } = libraryCellOf(library, {
    kind: "buffer",
  });
  const pins = libraryCellOf(library, placed.cells[driver]).outputsUm;
  const fromUm = placed.x[driver] * library.gridUm + pins[pin];
  const middleUm = fromUm + wireUm(placed, library, edge) / 2;
  const centreUm = (inputsUm[0] + outputsUm[0]) / 2;
  return Math.round((middleUm - centreUm) / library.gridUm);
}

/**
 * Inserts rows (or cuts) of buffers until no net is longer than allowed, or the rounds are over.
 *
 * @param options Those of `place`, for the updates of the placement.
 * @returns The new placement; what was inserted in each round; how many nets are still too long.
 */
export function insertBufferRows(
  start: PlacedNetlist,
  {
    selection = "rows",
    thresholds = SPLIT_THRESHOLDS,
    adjustRounds = ROW_ADJUST_ROUNDS,
    insertRounds = BUFFER_INSERT_ROUNDS,
    ...options
  }: BufferRowOptions = {},
): BufferRows {
  const {
    library = DEFAULT_LIBRARY,
    clock = DEFAULT_CLOCK,
    maxWireUm = MAX_WIRE_UM,
  } = options;
  const dyUm = clock.rowPitchUm;
  const updates = {
    lengthWeight: OVERLENGTH_WEIGHT,
    ...options,
    detail: { ...options.detail, passes: adjustRounds },
  };
  const rounds: BufferRound[] = [];
  let placed = start;
  const isLong = (edge: Edge) =>
    Math.abs(wireUm(placed, library, edge)) + dyUm > maxWireUm;
  const overlong = () => edges(placed).filter(isLong);

  /** Inserts along cuts, one after the other, and updates the placement. */
  const insert = (threshold: number, cuts: (() => Uint8Array)[]) => {
    const before = overlong().length;
    let buffers = 0;
    for (const cut of cuts) {
      const { buffered, ...next } = insertBuffersAcross(placed, cut());
      const x = [
        ...placed.x,
        ...buffered.map((edge) => bufferPlace(placed, library, edge)),
      ];
      placed = { ...next, x: Int32Array.from(x) };
      buffers += buffered.length;
    }
    placed = refine(placed, updates);
    rounds.push({ threshold, overlong: before, rows: cuts.length, buffers });
  };

  const overlongAtStart = overlong().length;
  // Some nets need no buffer but only a better place, at the price of others.
  if (overlongAtStart > 0) placed = refine(placed, updates);

  if (selection === "rows") {
    for (const threshold of thresholds) {
      for (let round = 0; round < insertRounds; round++) {
        const count = new Map<number, number>();
        for (const { driver } of overlong()) {
          const row = placed.levels[driver];
          count.set(row, (count.get(row) ?? 0) + 1);
        }
        // From the top, so that the numbers of the rows below stay.
        const crowded = [...count.keys()]
          .filter((row) => count.get(row)! >= threshold)
          .sort((a, b) => b - a);
        if (crowded.length === 0) break;
        insert(
          threshold,
          crowded.map((row) => () =>
            Uint8Array.from(placed.levels, (level) => level > row ? 1 : 0)
          ),
        );
      }
    }
  } else {
    for (let round = 0; round < insertRounds * thresholds.length; round++) {
      if (overlong().length === 0) break;
      insert(1, [() => bestCut(placed, isLong)]);
    }
  }
  return {
    placed,
    rounds,
    rowsAdded: rounds.reduce((sum, { rows }) => sum + rows, 0),
    buffersAdded: rounds.reduce((sum, { buffers }) => sum + buffers, 0),
    overlongAtStart,
    overlong: overlong().length,
    longestUm: longestNetUm(placed, library, { dyUm }),
  };
}
