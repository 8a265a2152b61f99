/**
 * What a clock of more phases saves: buffers, splitters and junctions of one netlist by the hop allowed.
 *
 * The trees are those of `skipping.ts`; the depth in levels does not change with s, but a level takes a
 * shorter part of the cycle: a clock of 4 s phases passes 4 s levels per cycle.
 *
 * Scope: counts of legalised netlists. What more phases cost in clock lines, and at which frequency
 * the junctions can still follow, is absent.
 */
import { JJ_COUNT } from "../core/aqfp.ts";
import { insertBuffers, type InsertionOptions } from "./insertion.ts";
import { assertLegal } from "./legality.ts";
import {
  bufferAndSplitterCount,
  type LevelledNetlist,
  type Netlist,
} from "./netlist.ts";
import { checkSimulation, clockPhasesFor } from "./simulation.ts";

/** Counts of one legalised netlist. */
export interface PhaseSkippingRow {
  /** s. */
  maxLevelsPerHop: number;
  /** Phases of the clock that s levels per hop need: 4 s. */
  clockPhases: number;
  buffersAndSplitters: number;
  /** Junctions of all cells. */
  jj: number;
  /** D: level of the last cell. */
  depth: number;
  /** (D + 1) / clockPhases: from the inputs at level 0 to the outputs. */
  latencyCycles: number;
  wavesInFlight: number;
}

export interface PhaseSkippingOptions
  extends Omit<InsertionOptions, "maxLevelsPerHop"> {
  /** Values of s. Default 1, 2, 3, 4, ours. */
  hops?: number[];
}

/** Josephson junctions of all cells, by `JJ_COUNT`. */
function junctions({ cells }: LevelledNetlist): number {
  let total = 0;
  for (const { kind } of cells) {
    if (kind !== "input" && kind !== "output") total += JJ_COUNT[kind];
  }
  return total;
}

/**
 * One row for each hop length. Every netlist counted is legal and computes the same as the argument in
 * a simulation with waves in flight under its clock.
 *
 * @param netlist Gates with any fan-out
 * @throws Error if a netlist fails the simulation, RangeError if it is not legal
 */
export async function phaseSkippingTable(
  netlist: Netlist,
  { hops = [1, 2, 3, 4], ...options }: PhaseSkippingOptions = {},
): Promise<PhaseSkippingRow[]> {
  const rows: PhaseSkippingRow[] = [];
  for (const maxLevelsPerHop of hops) {
    const insertion = { ...options, maxLevelsPerHop };
    const legal = await insertBuffers(netlist, insertion);
    assertLegal(legal, insertion);
    const clockPhases = clockPhasesFor(maxLevelsPerHop);
    const check = checkSimulation(legal, netlist, { clockPhases });
    if (!check.equal) {
      throw new Error(
        `Cannot count ${netlist.name} as it must compute the same with hops of up to ${maxLevelsPerHop} levels: ${
          check.mismatch?.message ?? check.problems[0]?.message
        }`,
      );
    }
    rows.push({
      maxLevelsPerHop,
      clockPhases,
      buffersAndSplitters: bufferAndSplitterCount(legal),
      jj: junctions(legal),
      depth: legal.depth,
      latencyCycles: (legal.depth + 1) / clockPhases,
      wavesInFlight: check.wavesInFlight,
    });
  }
  return rows;
}
