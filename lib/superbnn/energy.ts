/**
 * Energy, latency, area and efficiency of a binary network on crossbars of AQFP devices.
 *
 * Every junction dissipates a fixed energy in every clock cycle, whatever the data (accelergy AQFP
 * estimator). So the energy of an inference is a count: junctions of crossbars, counters, accumulators and
 * memory, times cycles, times the energy of a junction and cycle; at the wall times the cooling overhead.
 *
 * | symbol | identifier | unit |
 * | --- | --- | --- |
 * | Cs, K, L | crossbarSize, tiles, streamLength | |
 * | N_JJ(Cs) = 12 Cs^2 + 48 Cs | crossbarJj() | junctions |
 * | t(Cs) = 40 + 5 Cs | crossbarLatencyPs() | ps |
 * | e_JJ | energy.energyPerJjJ | J per junction and cycle |
 *
 * Scope: a model, not silicon. N_JJ and t are recalled and were not read again; counters and
 * accumulators are counted from netlists of our own (counter.ts), memory by a stated cell. On the device:
 * sums, device decisions, accumulation. Not counted: encoding of the image, pooling, the affine function
 * per class, generation and distribution of the clock, memory of weights beyond the crossbar's cells,
 * interfaces to room temperature. Efficiencies of rivals are not assumed: see `ratioSweep`.
 *
 * Li et al., "SupeRBNN", MICRO 2023, arXiv 2309.12212.
 */
import {
  carnotOverhead,
  CELL_SIDE_UM,
  CLOCK_PHASES,
  COOLING_OVERHEAD,
  ENERGY_SETS,
  energyPerJjJ,
  type EnergySet,
  JJ_COUNT,
  ROUTING_OVERHEAD,
  type Standing,
} from "../core/aqfp.ts";
import type { Counter } from "./accumulate.ts";
import { checkStreamLength } from "./binomial.ts";
import {
  accumulator,
  type BalancedCount,
  balancedCount,
  parallelCounter,
} from "./counter.ts";
import { tilingOf } from "./crossbar.ts";
import { checkCrossbarSize } from "./device.ts";
import { type BinaryNetwork, checkNetwork, layerSizes } from "./network.ts";

/** Junctions and latency of a crossbar as polynomials of its size. */
export interface CrossbarModel {
  name: string;
  /** Junctions per cell and per row and column. */
  jjPerCell: number;
  jjPerLine: number;
  latencyPs: number;
  latencyPerCellPs: number;
  standing: Standing;
  source: string;
}

/** Recalled: closed forms of numbers remembered for sizes 4 to 144; not re-read, no value of the paper. */
export const RECALLED_CROSSBAR: CrossbarModel = {
  name: "recalled",
  jjPerCell: 12,
  jjPerLine: 48,
  latencyPs: 40,
  latencyPerCellPs: 5,
  standing: "recalled",
  source:
    "12 Cs^2 + 48 Cs junctions and 40 + 5 Cs ps, closed forms of remembered numbers, not re-read",
};

/**
 * Memory of an activation that is clocked L times: a loop of one cycle.
 *
 * Four phases: two and gates (new or held), or, splitter (out and back), buffer. Assumed, ours.
 */
export const MEMORY_JJ_PER_BIT = 2 * JJ_COUNT.and + JJ_COUNT.or +
  JJ_COUNT.splitter + JJ_COUNT.buffer;

/**
 * A crossbar of standard gates, for comparison: nothing merged, nothing recalled.
 *
 * A cell of 26: xnor of two and gates and an or (18), splitters of input, weight and row (6), constant (2).
 * Assumed, ours, and without buffers between the cells of a row.
 */
export const GATE_CROSSBAR: CrossbarModel = {
  ...RECALLED_CROSSBAR,
  name: "gates",
  jjPerCell: 2 * JJ_COUNT.and + JJ_COUNT.or + 3 * JJ_COUNT.splitter +
    JJ_COUNT.constant,
  standing: "assumed",
  source:
    "26 junctions per cell: an xnor of standard gates, three splitters, a constant; lines and latency as recalled",
};

/** All that the energy of a network rests on, under one name: pass it to `inferenceEnergy`. */
export interface AssumptionSet {
  name: string;
  energy: EnergySet;
  crossbar: CrossbarModel;
  counter: Counter;
  phases: number;
  schedule: "gated" | "clocked";
}

/** Common to the named sets: counters without error, four phases, layers clocked while they work. */
const COMMON_ASSUMPTIONS = {
  crossbar: RECALLED_CROSSBAR,
  counter: "exact",
  phases: CLOCK_PHASES,
  schedule: "gated",
} as const;

/**
 * Sets of assumptions on which sources differ; a result names the ones it uses, the first is the main one.
 *
 * They differ in the energy of a junction and in the junctions of a crossbar, which make up most of it.
 */
export const ASSUMPTION_SETS: Record<
  "superbnn" | "mana" | "formula" | "gates",
  AssumptionSet
> = {
  superbnn: {
    ...COMMON_ASSUMPTIONS,
    name: "superbnn",
    energy: ENERGY_SETS.superbnn,
  },
  mana: { ...COMMON_ASSUMPTIONS, name: "mana", energy: ENERGY_SETS.mana },
  formula: {
    ...COMMON_ASSUMPTIONS,
    name: "formula",
    energy: ENERGY_SETS.formula,
  },
  gates: {
    ...COMMON_ASSUMPTIONS,
    name: "gates",
    energy: ENERGY_SETS.superbnn,
    crossbar: GATE_CROSSBAR,
  },
};

/** What a set assumes, in words. */
export function describeAssumptions(
  { name, energy, crossbar }: AssumptionSet,
): string {
  return `${name}: ${
    (energy.energyPerJjJ * 1e21).toPrecision(3)
  } zJ per junction and cycle (${energy.standing}), crossbar ${crossbar.name} (${crossbar.standing})`;
}

/** Junctions of a cell whose area is `CELL_SIDE_UM` squared: the source gives that of a buffer. */
const JJ_PER_CELL_AREA = JJ_COUNT.buffer;

/** Efficiencies published elsewhere, as context; not of this paper, not of this network. */
export const CONTEXT = [
  {
    name: "AQFP over 12 nm FinFET, energy per operation",
    ratio: 9313,
    standing: "read",
    source:
      "Chen et al., Sci. Rep. 9:10514 (2019), abstract; 18 circuits, no cooling stated here",
  },
  {
    name: "AQFP over 28 nm CMOS, energy per operation",
    ratio: 25242,
    standing: "read",
    source: "Chen et al., Sci. Rep. 9:10514 (2019), abstract",
  },
  {
    name: "AQFP over 40 nm CMOS, energy per operation",
    ratio: 48466,
    standing: "read",
    source: "Chen et al., Sci. Rep. 9:10514 (2019), abstract",
  },
] as const satisfies {
  name: string;
  ratio: number;
  standing: Standing;
  source: string;
}[];

export interface EnergyOptions {
  /** Cs */
  crossbarSize: number;
  /** L. Default 16, ours. */
  streamLength?: number;
  /** Default `"exact"`. */
  counter?: Counter;
  /** Phases per cycle, a multiple of 4; more save buffers. Default 4. */
  phases?: number;
  /** Default: 5 zJ per junction and cycle at 5 GHz, recalled. */
  energy?: EnergySet;
  /** Default: that of the energy set. */
  freqHz?: number;
  /** Default `RECALLED_CROSSBAR`. */
  crossbar?: CrossbarModel;
  /**
   * `gated`: a layer is clocked only while it works. `clocked`: the whole chip is, as long as its slowest
   * layer takes. The same for networks without convolutions. Default `"gated"`.
   */
  schedule?: "gated" | "clocked";
  /** Power at the wall per power in the cold, by name. Default `COOLING_OVERHEAD`. */
  cooling?: Record<string, number>;
  /** Area for wiring per area of cells. Default moderate, 1.2. */
  routingOverhead?: number;
}

/** Junctions of a part by what they are for. */
export interface JjBudget {
  crossbars: number;
  counters: number;
  accumulators: number;
  memory: number;
}

export interface LayerEnergy {
  kind: string;
  fanIn: number;
  neurons: number;
  /** Times that the layer's crossbars are used for one image. */
  positions: number;
  /** K: tiles of a fan-in. */
  tiles: number;
  /** Crossbars side by side, ceil(neurons / Cs). */
  columns: number;
  jj: JjBudget;
  totalJj: number;
  /** Cycles in which the layer works for one image: L per position. */
  cycles: number;
  energyJ: number;
  /** From the first input to the last output. */
  latencyPs: number;
  /** 2 per product and addition. */
  ops: number;
}

export interface EnergyReport {
  layers: LayerEnergy[];
  jj: JjBudget;
  totalJj: number;
  /** In the cold. */
  energyPerInferenceJ: number;
  latencyPs: number;
  /** Images per second if layers work on different images at the same time. */
  inferencesPerS: number;
  /** Power in the cold at that rate. */
  powerW: number;
  areaMm2: number;
  /** 2 per XNOR and addition of the layers on the device; pooling and encoding count nothing. */
  opsPerInference: number;
  /** By kind of cooling: energy at the wall, and 10^12 operations per joule of it. */
  cooled: Record<
    string,
    { overhead: number; energyPerInferenceJ: number; topsPerW: number }
  >;
  /** What the numbers rest on, in words. */
  assumptions: { name: string; standing: Standing; text: string }[];
}

// Equations ---------------------------------------------------------------------------------------

/**
 * Junctions of a crossbar.
 *
 * N_JJ = 12 Cs^2 + 48 Cs    (recalled)
 *
 * @example
 * ```ts
 * crossbarJj(16); // 3840
 * ```
 */
export function crossbarJj(
  crossbarSize: number,
  { jjPerCell, jjPerLine }: CrossbarModel = RECALLED_CROSSBAR,
): number {
  checkCrossbarSize(crossbarSize);
  return jjPerCell * crossbarSize * crossbarSize + jjPerLine * crossbarSize;
}

/**
 * Time from the input of a crossbar to its output.
 *
 * t = 40 + 5 Cs ps    (recalled)
 */
export function crossbarLatencyPs(
  crossbarSize: number,
  { latencyPs, latencyPerCellPs }: CrossbarModel = RECALLED_CROSSBAR,
): number {
  checkCrossbarSize(crossbarSize);
  return latencyPs + latencyPerCellPs * crossbarSize;
}

/**
 * Operations per joule of a bare crossbar, in 10^12: an upper bound for every network on it.
 *
 * 2 Cs^2 / (L N_JJ e_JJ)    (derived)
 */
export function crossbarTopsPerW(
  crossbarSize: number,
  {
    streamLength = 1,
    energy = ENERGY_SETS.superbnn,
    crossbar = RECALLED_CROSSBAR,
  }: {
    streamLength?: number;
    energy?: EnergySet;
    crossbar?: CrossbarModel;
  } = {},
): number {
  checkStreamLength(streamLength);
  const energyJ = streamLength * crossbarJj(crossbarSize, crossbar) *
    energy.energyPerJjJ;
  return 2 * crossbarSize * crossbarSize / energyJ / 1e12;
}

/**
 * Checks a cooling overhead: 1 leaves cooling out, anything else must be at least Carnot's.
 *
 * @throws RangeError for a cooler better than any
 */
export function checkCooling(name: string, overhead: number): void {
  const least = carnotOverhead();
  if (overhead === 1 || (overhead >= least && overhead < Infinity)) return;
  throw new RangeError(
    `Cannot cool with "${name}" as the overhead must be 1 (none counted) or at least Carnot's ${
      least.toFixed(2)
    } at 4.2 K: ${overhead}`,
  );
}

// Parts -------------------------------------------------------------------------------------------

/** Bits of a count of K tiles, and of the state that adds L of them with a sign bit. */
export function accumulatorBits(
  tiles: number,
  streamLength: number,
): { countBits: number; stateBits: number } {
  return {
    countBits: Math.ceil(Math.log2(tiles + 1)),
    stateBits: Math.ceil(Math.log2(tiles * streamLength + 1)) + 1,
  };
}

/** Counter and accumulator of a neuron with K tiles. */
export function neuronLogic(
  tiles: number,
  streamLength: number,
  { counter = "exact", phases = CLOCK_PHASES }: {
    counter?: Counter;
    phases?: number;
  } = {},
): { counter: BalancedCount; accumulator: BalancedCount; stateBits: number } {
  const { countBits, stateBits } = accumulatorBits(tiles, streamLength);
  return {
    counter: balancedCount(parallelCounter(tiles, counter), { phases }),
    accumulator: balancedCount(accumulator(countBits, stateBits), { phases }),
    stateBits,
  };
}

function assumptionsOf(
  options: Required<EnergyOptions>,
): EnergyReport["assumptions"] {
  const { energy, crossbar, freqHz, schedule, routingOverhead, phases } =
    options;
  return [
    {
      name: "energy of a junction",
      standing: energy.standing,
      text: `${energyPerJjJ(energy, freqHz)} J per junction and cycle at ${
        freqHz / 1e9
      } GHz: ${energy.source}`,
    },
    {
      name: "crossbar",
      standing: crossbar.standing,
      text: crossbar.source,
    },
    {
      name: "counters and accumulators",
      standing: "derived",
      text:
        `netlists of full adders of three majority gates, balanced for ${phases} phases per cycle, one per neuron; an accumulator's loop is longer than a cycle, so several images are interleaved in it`,
    },
    {
      name: "memory",
      standing: "assumed",
      text:
        `${MEMORY_JJ_PER_BIT} junctions per input held for the stream, and splitters to the crossbars side by side`,
    },
    {
      name: "schedule",
      standing: "assumed",
      text: schedule === "gated"
        ? "a layer is clocked only while it works"
        : "all junctions are clocked as long as the slowest layer takes",
    },
    {
      name: "area",
      standing: "read",
      text:
        `${CELL_SIDE_UM} um x ${CELL_SIDE_UM} um per buffer of ${JJ_PER_CELL_AREA} junctions, taken per junction for all cells, wiring overhead ${routingOverhead}: accelergy AQFP estimator`,
    },
  ];
}

// The whole ---------------------------------------------------------------------------------------

/**
 * Energy, latency, area and efficiency of one inference.
 *
 * E = sum over layers of (N_crossbars N_JJ(Cs) + neurons (counter + accumulator) + memory) e_JJ L positions
 *
 * A layer of fan-in n and m neurons takes K = ceil(n / Cs) times ceil(m / Cs) whole crossbars, whether
 * their cells are used or not.
 *
 * @throws RangeError for sizes, phases, frequencies or coolers that cannot be
 */
export function inferenceEnergy(
  network: BinaryNetwork,
  options: EnergyOptions,
): EnergyReport {
  const {
    crossbarSize,
    streamLength = 16,
    counter = "exact",
    phases = CLOCK_PHASES,
    energy = ENERGY_SETS.superbnn,
    freqHz = energy.freqHz,
    crossbar = RECALLED_CROSSBAR,
    schedule = "gated",
    cooling = COOLING_OVERHEAD,
    routingOverhead = ROUTING_OVERHEAD.moderate,
  } = options;
  checkNetwork(network);
  checkCrossbarSize(crossbarSize);
  checkStreamLength(streamLength);
  for (
    const [name, value] of Object.entries({
      freqHz,
      routingOverhead,
      energyPerJjJ: energy.energyPerJjJ,
    })
  ) {
    if (!(value > 0 && value < Infinity)) {
      throw new RangeError(
        `Cannot compute an energy as ${name} must be finite and above 0: ${value}`,
      );
    }
  }
  if (schedule !== "gated" && schedule !== "clocked") {
    throw new RangeError(
      `Cannot compute an energy as the schedule must be "gated" or "clocked": ${schedule}`,
    );
  }
  for (const [name, overhead] of Object.entries(cooling)) {
    checkCooling(name, overhead);
  }
  const joule = energyPerJjJ(energy, freqHz);
  const periodPs = 1e12 / freqHz;
  const layers = network.layers.flatMap((layer): LayerEnergy[] => {
    if (layer.kind === "pool") return [];
    const { fanIn, neurons, positions } = layerSizes(layer);
    const { tiles } = tilingOf(fanIn, crossbarSize);
    const columns = Math.ceil(neurons / crossbarSize);
    const logic = neuronLogic(tiles, streamLength, { counter, phases });
    // An input reaches the crossbars beside each other through splitters of up to four outputs.
    const splitters = Math.ceil((columns - 1) / 3);
    const jj: JjBudget = {
      crossbars: tiles * columns * crossbarJj(crossbarSize, crossbar),
      counters: neurons * logic.counter.jj,
      accumulators: neurons * logic.accumulator.jj,
      memory: fanIn * (MEMORY_JJ_PER_BIT + splitters * JJ_COUNT.splitter),
    };
    const totalJj = jj.crossbars + jj.counters + jj.accumulators + jj.memory;
    const cycles = streamLength * positions;
    const logicDepth = logic.counter.depth + logic.accumulator.depth;
    return [{
      kind: layer.kind,
      fanIn,
      neurons,
      positions,
      tiles,
      columns,
      jj,
      totalJj,
      cycles,
      energyJ: totalJj * cycles * joule,
      latencyPs: cycles * periodPs +
        crossbarLatencyPs(crossbarSize, crossbar) +
        logicDepth * periodPs / phases,
      ops: 2 * fanIn * neurons * positions,
    }];
  });
  const sum = (of: (layer: LayerEnergy) => number) =>
    layers.reduce((total, layer) => total + of(layer), 0);
  const jj: JjBudget = {
    crossbars: sum((layer) => layer.jj.crossbars),
    counters: sum((layer) => layer.jj.counters),
    accumulators: sum((layer) => layer.jj.accumulators),
    memory: sum((layer) => layer.jj.memory),
  };
  const totalJj = sum((layer) => layer.totalJj);
  const interval = Math.max(...layers.map(({ cycles }) => cycles));
  const energyPerInferenceJ = schedule === "gated"
    ? sum(({ energyJ }) => energyJ)
    : totalJj * interval * joule;
  const inferencesPerS = freqHz / interval;
  const opsPerInference = sum(({ ops }) => ops);
  return {
    layers,
    jj,
    totalJj,
    energyPerInferenceJ,
    latencyPs: sum(({ latencyPs }) => latencyPs),
    inferencesPerS,
    powerW: energyPerInferenceJ * inferencesPerS,
    areaMm2: totalJj / JJ_PER_CELL_AREA * CELL_SIDE_UM ** 2 * routingOverhead *
      1e-6,
    opsPerInference,
    cooled: Object.fromEntries(
      Object.entries(cooling).map(([name, overhead]) => {
        const wall = energyPerInferenceJ * overhead;
        return [name, {
          overhead,
          energyPerInferenceJ: wall,
          topsPerW: opsPerInference / wall / 1e12,
        }];
      }),
    ),
    assumptions: assumptionsOf({
      crossbarSize,
      streamLength,
      counter,
      phases,
      energy,
      freqHz,
      crossbar,
      schedule,
      cooling,
      routingOverhead,
    }),
  };
}

/**
 * How many times as efficient as a rival, over a range of rivals: no rival's number is assumed.
 *
 * @param topsPerW Ours, with the cooling that is to be compared
 * @param rivals 10^12 operations per joule of rivals; a CMOS rival needs no cooling
 */
export function ratioSweep(
  topsPerW: number,
  rivals: readonly number[],
): { rivalTopsPerW: number; ratio: number }[] {
  for (const value of [topsPerW, ...rivals]) {
    if (!(value > 0 && value < Infinity)) {
      throw new RangeError(
        `Cannot compare efficiencies as they must be finite and above 0: ${value}`,
      );
    }
  }
  return rivals.map((rivalTopsPerW) => ({
    rivalTopsPerW,
    ratio: topsPerW / rivalTopsPerW,
  }));
}

/** Efficiency that a rival may at most have for us to be `ratio` times as efficient. */
export function rivalFor(topsPerW: number, ratio: number): number {
  return ratioSweep(topsPerW, [1])[0].ratio / ratio;
}
