/**
 * The four-phase clock of a placed circuit: when each row is clocked, and how much time every
 * connection has left.
 *
 * Two alternating currents, 90 degrees apart, snake through the rows: one line excites rows 1, 3, 5,
 * ... and the other rows 2, 4, 6, ... Both run left to right in rows 4k+1 and 4k+2, turn at the right
 * edge, and come back in rows 4k+3 and 4k+4, which reverses the coupling and so gives phases 3 and 4.
 * A row is therefore clocked one quarter of a period after the row before it, plus the time that the
 * clock takes along the difference of the two paths.
 *
 *   T period (200 ps at 5 GHz)   W width of the rows   x from the left edge of the chip
 *   c_e clock path from driver to sink beyond the quarter period, s_e = c_e / v the skew it makes
 *   d_e delay of the data: of the cell, and of its wire at velocity v_s
 *
 * Scope: a reading of "zigzag" clocking of our own, as the equations of the SuperFlow paper (Xie et al.,
 * DATE 2024, arXiv 2407.18209) were not available. Velocities and times are assumed: they decide every
 * slack, so a `ClockModel` is printed with each of them. Attenuation and reflections are left out.
 */
import {
  type CellLibrary,
  CLOCK_FREQ_HZ,
  CLOCK_PHASES,
  libraryCellOf,
} from "../core/aqfp.ts";
import { type Edge, edges } from "./netlist.ts";
import { outlineUm, type PlacedNetlist, wireUm } from "./placed.ts";

/** What every slack rests on. */
export interface ClockModel {
  name: string;
  /** Where the numbers come from; printed with every result. */
  note: string;
  freqHz: number;
  phases: number;
  /** v: of the clock along its line. */
  clockVelocityUmPerPs: number;
  /** v_s: of the data along a wire. */
  signalVelocityUmPerPs: number;
  /** t_su: data must be there this long before the sink is clocked. */
  setupPs: number;
  /** t_h: data must still be there this long after the sink is clocked. */
  holdPs: number;
  /** Distance from one row to the next, for the clock and for wires. */
  rowPitchUm: number;
}

/** Assumed values: a line of niobium over a ground plane carries about a third of the speed of light. */
export const DEFAULT_CLOCK: ClockModel = {
  name: "meander-5GHz",
  note:
    "5 GHz and four phases from the accelergy AQFP estimator; velocities, setup and hold times and the row pitch are assumed by this project",
  freqHz: CLOCK_FREQ_HZ,
  phases: CLOCK_PHASES,
  clockVelocityUmPerPs: 100, // assumed
  signalVelocityUmPerPs: 100, // assumed
  setupPs: 5, // assumed
  holdPs: 5, // assumed
  rowPitchUm: 200, // assumed: tallest cell and a channel of about a dozen tracks
};

/** Slack of every connection, in the order of `edges()`, and what is worst. */
export interface Timing {
  /** Smaller of setup and hold slack. */
  slackPs: Float64Array; // [E]
  /** WNS: the smallest slack, positive where every window is met. */
  worstSlackPs: number;
  /** TNS: sum of the negative slacks. */
  totalNegativeSlackPs: number;
  /** The connection with the smallest slack; null if there is none. */
  worst: Edge | null;
  clock: ClockModel;
}

/** Whether the clock runs right to left in a row: rows 4k+3 and 4k+4, hence also row 0. */
export function isReversed(row: number): boolean {
  return ((row + 3) & 2) === 2;
}

/**
 * Length of clock line from the source to a cell, beyond what the phases account for.
 *
 * rows 4k+1, 4k+2: q W + x,   rows 4k+3, 4k+4: q W + (W - x),   with q = floor((r - 1) / 2) runs before,
 * plus r row pitches    (derived from the meander)
 *
 * @example
 * [1, 2, 3, 4].map((row) => clockPathUm(row, 100, 1000, 0)); // [100, 100, 1900, 1900]
 */
export function clockPathUm(
  row: number,
  xUm: number,
  widthUm: number,
  rowPitchUm: number,
): number {
  const runs = Math.floor((row - 1) / 2);
  return runs * widthUm + (isReversed(row) ? widthUm - xUm : xUm) +
    row * rowPitchUm;
}

/**
 * d_e = t_cell + (|dx| + dy) / v_s: from the driver's clock to its value at the sink.
 */
export function dataDelayPs(
  cellDelayPs: number,
  wireLengthUm: number,
  { signalVelocityUmPerPs }: ClockModel,
): number {
  return cellDelayPs + wireLengthUm / signalVelocityUmPerPs;
}

/** Setup slack = T/4 + s_e - d_e - t_su: the value must be there before the sink is clocked. */
export function setupSlackPs(
  skewPs: number,
  delayPs: number,
  clock: ClockModel,
): number {
  return phasePs(clock) + skewPs - delayPs - clock.setupPs;
}

/**
 * Hold slack = T/4 - s_e + d_e - t_h: a row holds its value for about half a period, so that a sink
 * clocked too late finds it gone.
 */
export function holdSlackPs(
  skewPs: number,
  delayPs: number,
  clock: ClockModel,
): number {
  return phasePs(clock) - skewPs + delayPs - clock.holdPs;
}

/** T/4: from the clock of one row to that of the next. */
export function phasePs({ freqHz, phases }: ClockModel): number {
  return 1e12 / freqHz / phases;
}

/** What each number of a clock model can be, ends included; velocities up to that of light. */
const RANGES = {
  freqHz: [1e6, 1e12],
  clockVelocityUmPerPs: [1, 300],
  signalVelocityUmPerPs: [1, 300],
  setupPs: [0, 1e5],
  holdPs: [0, 1e5],
  rowPitchUm: [0, 1e5],
} as const satisfies Partial<Record<keyof ClockModel, [number, number]>>;

/** @throws RangeError that names the first value that cannot be. */
export function checkClock(clock: ClockModel): void {
  if (clock.phases !== CLOCK_PHASES) {
    throw new RangeError(
      `Cannot use clock model ${clock.name} as the meander is that of ${CLOCK_PHASES} phases: phases ${clock.phases}`,
    );
  }
  for (const [name, [least, most]] of Object.entries(RANGES)) {
    const value = clock[name as keyof typeof RANGES];
    if (!(Number.isFinite(value) && value >= least && value <= most)) {
      throw new RangeError(
        `Cannot use clock model ${clock.name} as ${name} must be a finite number from ${least} to ${most}: ${name} ${value}`,
      );
    }
  }
}

/** What routing knows better than a placement. */
export interface RoutedLengths {
  /** From row r to row r + 1, where it is not the clock model's row pitch. */
  rowPitchesUm?: ArrayLike<number>; // [R - 1]
  /** Length of each wire, where it is not abs(dx) and one row pitch. */
  wireLengthsUm?: ArrayLike<number>; // [E], in the order of edges()
}

/**
 * Slack of every connection of a placed netlist.
 *
 * The clock reaches a cell at its centre; wires run from pin to pin and one row pitch up. W is the
 * width of the whole placement, its left edge being where the clock enters.
 *
 * @param routed Heights and lengths after routing; without them those of the clock model.
 */
export function timing(
  placed: PlacedNetlist,
  library: CellLibrary,
  clock: ClockModel = DEFAULT_CLOCK,
  { rowPitchesUm, wireLengthsUm }: RoutedLengths = {},
): Timing {
  checkClock(clock);
  const { cells, levels, x } = placed;
  const pitchUm = (row: number) => rowPitchesUm?.[row] ?? clock.rowPitchUm;
  const top = levels.reduce((a, b) => Math.max(a, b), 0);
  const climbUm = new Float64Array(top + 1);
  for (let row = 0; row < top; row++) {
    climbUm[row + 1] = climbUm[row] + pitchUm(row);
  }
  const { leftUm, rightUm } = outlineUm(placed, library);
  const pathUm = cells.map((cell, i) =>
    clockPathUm(
      levels[i],
      x[i] * library.gridUm + libraryCellOf(library, cell).widthUm / 2 - leftUm,
      rightUm - leftUm,
      0,
    ) + climbUm[levels[i]]
  );
  const list = edges(placed);
  for (
    const [what, lengths, count] of [
      ["row pitch per channel", rowPitchesUm, top],
      ["wire length per connection", wireLengthsUm, list.length],
    ] as const
  ) {
    if (lengths !== undefined && lengths.length !== count) {
      throw new RangeError(
        `Cannot time ${placed.name} as there must be one ${what}: ${count} required, ${lengths.length} given`,
      );
    }
  }
  const slackPs = Float64Array.from(list, (edge, e) => {
    const { driver, sink } = edge;
    const skew = (pathUm[sink] - pathUm[driver]) / clock.clockVelocityUmPerPs;
    const delay = dataDelayPs(
      libraryCellOf(library, cells[driver]).delayPs,
      wireLengthsUm?.[e] ??
        Math.abs(wireUm(placed, library, edge)) + pitchUm(levels[driver]),
      clock,
    );
    return Math.min(
      setupSlackPs(skew, delay, clock),
      holdSlackPs(skew, delay, clock),
    );
  });
  let worst = -1;
  let totalNegativeSlackPs = 0;
  slackPs.forEach((slack, e) => {
    if (worst < 0 || slack < slackPs[worst]) worst = e;
    totalNegativeSlackPs += Math.min(0, slack);
  });
  return {
    slackPs,
    worstSlackPs: worst < 0 ? Infinity : slackPs[worst],
    totalNegativeSlackPs,
    worst: worst < 0 ? null : list[worst],
    clock,
  };
}

/**
 * The highest frequency (Hz) at which no connection has a negative slack. Both slacks are T/4 less
 * what does not depend on T, so that the worst one gives the shortest quarter of a period.
 *
 * f_max = 1 / (4 (T/4 - WNS))
 */
export function highestFreqHz({ worstSlackPs, clock }: Timing): number {
  return 1e12 / ((phasePs(clock) - worstSlackPs) * clock.phases);
}

/** By how much timing is missed and what frequency fits, in words; undefined if it is met. */
export function describeMissed(timing: Timing): string | undefined {
  const { slackPs, worstSlackPs, clock } = timing;
  if (worstSlackPs >= 0) return undefined;
  const missed = slackPs.filter((slack) => slack < 0).length;
  // rounded down, so that what is printed fits
  const fits = Math.floor(highestFreqHz(timing) / 1e7) / 100;
  return `TIMING MISSED by ${(-worstSlackPs).toFixed(1)} ps at ${
    clock.freqHz / 1e9
  } GHz, in ${missed} of ${slackPs.length} ${
    slackPs.length === 1 ? "connection" : "connections"
  }; highest frequency that fits this result: ${fits.toFixed(2)} GHz`;
}
