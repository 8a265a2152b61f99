/**
 * Cycle-accurate simulation of a clocked AQFP circuit with several waves of data in flight.
 *
 * A cell of level l works in phase l mod p of the clock, p = 4 unless stated otherwise. When its phase
 * comes it takes the values at its inputs and holds its result for a quarter of the cycle, h = p / 4
 * phases: then its excitation falls and the value is gone. So a cell receives data only from cells of the
 * h phases before its own, with p = 4 of the phase just before; whatever else drives it is unknown to it,
 * and the simulation says so. A new input is applied every p phases, long before the one before has
 * left: a circuit of depth D holds about D / p waves. A path that is p levels too short keeps the
 * phases right and still fails: it mixes two waves.
 *
 * Time t is counted in phases. Wave k enters an input of level l at t = p k + l and is read at an
 * output of level m at t = p k + m.
 *
 * That a value lasts for a quarter of the cycle whatever p is (assumed) is the four-phase rule in time:
 * there it lasts until the next phase has taken it.
 *
 * Scope: logic values (0, 1, unknown), no currents. One number holds 32 independent patterns.
 */
import { bits, fold, type Key, key as keyOf } from "../core/rng.ts";
import { CLOCK_PHASES } from "../core/aqfp.ts";
import {
  cellValue,
  evaluate,
  type LevelledNetlist,
  type Netlist,
  ports,
} from "./netlist.ts";

/** A cell that reads a driver whose value is gone or not there yet. */
export interface PhaseProblem {
  time: number;
  cell: string;
  driver: string;
  message: string;
}

export interface Simulation {
  /** Per wave, one word per output port. */
  outputs: Uint32Array[]; // [waves][outputs]
  /** Bits that are known; where a bit is 0 the output is unknown. */
  known: Uint32Array[]; // [waves][outputs]
  /** Phases from an input at level 0 to the last output. */
  latencyPhases: number;
  /** Most waves that are inside at one time. */
  wavesInFlight: number;
  /** At most `MAX_PROBLEMS`. */
  problems: PhaseProblem[];
}

export interface SimulationOptions {
  /**
   * p: phases of a clock cycle, from 4; a value can be read up to floor(p / 4) phases later. Default 4. A
   * netlist with hops of up to s levels needs 4 s.
   */
  clockPhases?: number;
}

/** Phases for which a value can be read: a quarter of the cycle. */
export function holdPhases(clockPhases: number): number {
  return Math.floor(clockPhases / CLOCK_PHASES);
}

/** Phases that the clock needs so that a value lasts for hops of up to s levels. */
export function clockPhasesFor(maxLevelsPerHop: number): number {
  return CLOCK_PHASES * maxLevelsPerHop;
}

/** Problems listed; a broken circuit has the same ones every cycle. */
export const MAX_PROBLEMS = 20;

/**
 * What comes out of the circuit, phase by phase.
 *
 * @param waves Per wave, one word per input port.
 */
export function simulate(
  netlist: LevelledNetlist,
  waves: Uint32Array[],
  { clockPhases = CLOCK_PHASES }: SimulationOptions = {},
): Simulation {
  const { cells, levels, name } = netlist;
  if (!Number.isInteger(clockPhases) || clockPhases < CLOCK_PHASES) {
    throw new RangeError(
      `Cannot simulate ${name} as clockPhases must be a whole number from ${CLOCK_PHASES}: clockPhases ${clockPhases}`,
    );
  }
  const hold = holdPhases(clockPhases);
  const inputs = ports(netlist, "input");
  const outputs = ports(netlist, "output");
  for (const wave of waves) {
    if (wave.length !== inputs.length) {
      throw new RangeError(
        `Cannot simulate ${name} as a wave must have one word per input port: ports ${inputs.length}, words ${wave.length}`,
      );
    }
  }
  const bad = cells.findIndex((_, i) => !(levels[i] >= 0));
  if (bad >= 0) {
    throw new RangeError(
      `Cannot simulate ${name} as every cell must have a level from 0: ${
        cells[bad].name
      } has ${levels[bad]}`,
    );
  }
  const inputIndex = new Map(inputs.map((cell, i) => [cell, i]));
  const outputIndex = new Map(outputs.map((cell, i) => [cell, i]));
  const last = levels.reduce((a, b) => Math.max(a, b), 0);
  const byLevel: number[][] = Array.from({ length: last + 1 }, () => []);
  cells.forEach((_, i) => byLevel[levels[i]].push(i));

  const value = new Uint32Array(cells.length);
  const known = new Uint32Array(cells.length);
  /** When each cell last took a value. */
  const taken = new Int32Array(cells.length).fill(-clockPhases);
  const next = {
    value: new Uint32Array(cells.length),
    known: new Uint32Array(cells.length),
  };
  const result: Simulation = {
    outputs: waves.map(() => new Uint32Array(outputs.length)),
    known: waves.map(() => new Uint32Array(outputs.length)),
    latencyPhases: last,
    wavesInFlight: 0,
    problems: [],
  };
  const reported = new Set<string>();

  const low: number[] = [];
  const high: number[] = [];
  const end = clockPhases * (waves.length - 1) + last;
  for (let t = 0; t <= end; t++) {
    // The levels of this phase that hold one of the waves; elsewhere nothing is known.
    const working: number[] = [];
    const first = Math.max(0, t - clockPhases * (waves.length - 1));
    for (let level = t; level >= first; level -= clockPhases) {
      if (level <= last) working.push(level);
    }
    for (const level of working) {
      const wave = (t - level) / clockPhases;
      for (const i of byLevel[level]) take(i, wave, t);
    }
    for (const level of working) {
      for (const i of byLevel[level]) {
        value[i] = next.value[i];
        known[i] = next.known[i];
        taken[i] = t;
      }
    }
    const entered = Math.min(waves.length, Math.floor(t / clockPhases) + 1);
    const left = Math.max(0, Math.floor((t - last) / clockPhases) + 1);
    result.wavesInFlight = Math.max(result.wavesInFlight, entered - left);
  }
  return result;

  /** What a cell makes of its inputs at time t. */
  function take(i: number, wave: number, t: number) {
    const cell = cells[i];
    if (cell.kind === "input") {
      next.value[i] = waves[wave][inputIndex.get(i)!];
      next.known[i] = -1;
      return;
    }
    // Unknown inputs all 0, then all 1: as cells are unate, the result is known where both agree.
    low.length = high.length = cell.inputs.length;
    for (let n = 0; n < cell.inputs.length; n++) {
      const { cell: driver, inverted } = cell.inputs[n];
      const age = t - taken[driver];
      const readable = age >= 1 && age <= hold ? known[driver] : 0;
      // The hold condition: 1 <= hop mod p <= h, the phases between the clocks of driver and reader.
      const hop = levels[i] - levels[driver];
      const phases = ((hop % clockPhases) + clockPhases) % clockPhases;
      if (!(phases >= 1 && phases <= hold)) complain(i, driver, t);
      const seen = inverted ? ~value[driver] : value[driver];
      low[n] = seen & readable;
      high[n] = seen | ~readable;
    }
    next.value[i] = cellValue(cell, low);
    next.known[i] = ~(next.value[i] ^ cellValue(cell, high));
    const output = outputIndex.get(i);
    if (output !== undefined) {
      result.outputs[wave][output] = next.value[i];
      result.known[wave][output] = next.known[i];
    }
  }

  function complain(sink: number, driver: number, time: number) {
    const pair = `${sink} ${driver}`;
    if (reported.has(pair) || result.problems.length >= MAX_PROBLEMS) return;
    reported.add(pair);
    result.problems.push({
      time,
      cell: cells[sink].name,
      driver: cells[driver].name,
      message: `${cells[sink].kind} ${cells[sink].name} (phase ${
        levels[sink] % clockPhases
      }) reads ${cells[driver].name} (phase ${
        levels[driver] % clockPhases
      }), whose value lasts for ${
        hold === 1 ? "one phase" : `${hold} phases`
      } only`,
    });
  }
}

/** Result of comparing the waves with the combinational function. */
export interface SimulationCheck {
  equal: boolean;
  waves: number;
  patterns: number;
  latencyPhases: number;
  wavesInFlight: number;
  problems: PhaseProblem[];
  /** The first wave and output that are wrong. */
  mismatch?: { wave: number; output: string; message: string };
}

/** Numbers of ports matched by name, so that their order does not matter. */
function portOrder(
  of: Netlist,
  like: Netlist,
  direction: "input" | "output",
): number[] {
  const names = ports(of, direction).map((i) => of.cells[i].name);
  const at = new Map(names.map((name, i) => [name, i]));
  const wanted = ports(like, direction).map((i) => like.cells[i].name);
  const missing = wanted.find((name) => !at.has(name));
  if (missing !== undefined || wanted.length !== names.length) {
    throw new RangeError(
      `Cannot compare ${of.name} with ${like.name} as they must have the same ${direction}s: ${
        missing === undefined
          ? `${names.length} and ${wanted.length}`
          : `${missing} is missing`
      }`,
    );
  }
  return wanted.map((name) => at.get(name)!);
}

/**
 * Whether the circuit, clocked with a new random input every cycle, computes the reference's
 * function of each of them.
 *
 * @param reference Any netlist with the same ports, for instance that before insertion
 * @param waves Inputs applied one after the other, each of 32 patterns; at least enough to fill the
 * circuit. Default: twice the waves that it holds, plus 4
 */
export function checkSimulation(
  netlist: LevelledNetlist,
  reference: Netlist,
  { key = keyOf(0), waves, clockPhases = CLOCK_PHASES }:
    & SimulationOptions
    & { key?: Key; waves?: number } = {},
): SimulationCheck {
  const inputOrder = portOrder(netlist, reference, "input");
  const outputOrder = portOrder(netlist, reference, "output");
  const last = netlist.levels.reduce((a, b) => Math.max(a, b), 0);
  const count = waves ?? 2 * Math.ceil(last / clockPhases) + 4;
  const applied = Array.from(
    { length: count },
    (_, wave) => bits(fold(key, wave), inputOrder.length),
  );
  const { outputs, known, latencyPhases, wavesInFlight, problems } = simulate(
    netlist,
    applied.map((words) => {
      const own = new Uint32Array(words.length);
      inputOrder.forEach((at, i) => own[at] = words[i]);
      return own;
    }),
    { clockPhases },
  );
  const check: SimulationCheck = {
    equal: problems.length === 0,
    waves: count,
    patterns: 32 * count,
    latencyPhases,
    wavesInFlight,
    problems,
  };
  const ends = ports(reference, "output");
  for (let wave = 0; wave < count; wave++) {
    const values = evaluate(reference, applied[wave]);
    for (let o = 0; o < ends.length; o++) {
      const at = outputOrder[o];
      const unknown = ~known[wave][at];
      const wrong = (values[ends[o]] ^ outputs[wave][at]) | unknown;
      if (wrong !== 0) {
        const output = reference.cells[ends[o]].name;
        return {
          ...check,
          equal: false,
          mismatch: {
            wave,
            output,
            message: `output ${output} is ${
              unknown !== 0 ? "unknown" : "wrong"
            } in wave ${wave}, pattern ${31 - Math.clz32(wrong & -wrong)}`,
          },
        };
      }
    }
  }
  return check;
}
