/**
 * Adiabatic quantum-flux-parametron (AQFP) logic: what its cells cost and how its clock runs.
 *
 * Costs in Josephson junctions (JJ): the benchmark set of the Integrated Systems Laboratory, EPFL,
 * github.com/lsils/SCE-benchmarks, README (buffer, inverter, constant and splitter 2; and, or and
 * majority of three 6). Every cell takes one clock phase. Four phases make a cycle, 200 ps at 5 GHz
 * (accelergy AQFP estimator, default frequency and number of phases).
 *
 * Energies, cooling and areas say how they stand: "read" in the source named, "recalled" (believed,
 * not read again), "derived" from others, or "assumed".
 *
 * Sizes, pins and wires are a library of our own on a 10 um grid, not those of a foundry: the process
 * kits are not public. A library is plain JSON and can be replaced.
 */

/** Josephson junctions per cell. Source: lsils/SCE-benchmarks, README. */
export const JJ_COUNT = {
  input: 0,
  output: 0,
  buffer: 2,
  inverter: 2,
  constant: 2,
  splitter: 2, // with 2, 3 or 4 outputs
  and: 6,
  or: 6,
  maj: 6,
} as const;

/** Clock phases of a cycle. Source: accelergy AQFP estimator, its default. */
export const CLOCK_PHASES = 4;

/** Clock frequency. Source: accelergy AQFP estimator, its default. */
export const CLOCK_FREQ_HZ = 5e9;

/** How a constant is known. */
export type Standing = "read" | "recalled" | "derived" | "assumed";

/** Energy that a Josephson junction dissipates in a clock cycle, whatever its data. */
export interface EnergySet {
  name: string;
  /** Per junction and cycle, at `freqHz`. */
  energyPerJjJ: number;
  freqHz: number;
  source: string;
  standing: Standing;
}

/** Magnetic flux quantum h / 2e. Source: CODATA 2018, exact since the SI of 2019. */
export const FLUX_QUANTUM_WB = 2.067833848e-15;

/**
 * Energy of one excitation of an AQFP cell, 2 Phi0 Ic tau_j / tau_x, tau_x = 1 / (4 f).
 *
 * Source of the formula and of both defaults: accelergy AQFP estimator, which cites a tutorial review
 * by Takeuchi. Adiabatic: in proportion to the frequency.
 */
export function switchingEnergyJ(
  freqHz: number,
  { criticalCurrentA = 50e-6, switchingTimeS = 9.15e-14 } = {},
): number {
  const excitationTimeS = 1 / (CLOCK_PHASES * freqHz); // tau_x
  return 2 * FLUX_QUANTUM_WB * criticalCurrentA * switchingTimeS /
    excitationTimeS;
}

/** Sets of assumptions on which sources differ; a result names the one it uses. */
export const ENERGY_SETS: Record<"formula" | "mana" | "superbnn", EnergySet> = {
  formula: {
    name: "formula",
    // The formula counts a cell, and the smallest has two junctions; taken per junction, it is an
    // upper bound.
    energyPerJjJ: switchingEnergyJ(CLOCK_FREQ_HZ),
    freqHz: CLOCK_FREQ_HZ,
    source: "2 Phi0 Ic tau_j / tau_x as in the accelergy AQFP estimator",
    standing: "derived",
  },
  mana: {
    name: "mana",
    energyPerJjJ: 1.4e-21,
    freqHz: 5e9,
    source: "MANA microprocessor, 1.4 zJ per junction at 5 GHz",
    standing: "recalled",
  },
  superbnn: {
    name: "superbnn",
    energyPerJjJ: 5e-21,
    freqHz: 5e9,
    source: "SupeRBNN's crossbars, 5 zJ per junction at 5 GHz",
    standing: "recalled",
  },
};

/** Energy per junction and cycle at another frequency: adiabatic, in proportion to it. */
export function energyPerJjJ(set: EnergySet, freqHz = set.freqHz): number {
  return set.energyPerJjJ * freqHz / set.freqHz;
}

/** Temperature of liquid helium at normal pressure, and of the room. */
export const HELIUM_TEMP_K = 4.2;
export const ROOM_TEMP_K = 300;

/** Work that an ideal cooler needs per heat removed, (T_hot - T_cold) / T_cold: 70.43 at 4.2 K. */
export function carnotOverhead(
  coldTempK = HELIUM_TEMP_K,
  hotTempK = ROOM_TEMP_K,
): number {
  return (hotTempK - coldTempK) / coldTempK;
}

/** Power at the wall per power at 4.2 K. Recalled: a large plant, and a small cooler. */
export const COOLING_OVERHEAD = { none: 1, large: 400, small: 1000 } as const;

/** Side of an AQFP cell today. Source: accelergy AQFP estimator, 20 um x 20 um. */
export const CELL_SIDE_UM = 20;

/** Area per cell area for wiring. Source: accelergy AQFP estimator. */
export const ROUTING_OVERHEAD = {
  conservative: 1.3,
  moderate: 1.2,
  aggressive: 1.1,
} as const;

/** A cell of the library. Rows run along x; inputs are at the lower edge, outputs at the upper. */
export interface LibraryCell {
  jj: number;
  widthUm: number;
  heightUm: number;
  /** Centres of the pins from the left edge, in the order of the netlist's inputs and output pins. */
  inputsUm: number[];
  outputsUm: number[];
  /** From the rising clock to a valid output. */
  delayPs: number;
}

/** Two wiring layers: `horizontal` runs along the rows, `vertical` across them. */
export interface WireRules {
  /** Numbers of the GDSII layers. */
  gdsLayers: {
    outline: number;
    horizontal: number;
    vertical: number;
    via: number;
    pin: number;
    label: number;
  };
  wireWidthUm: number;
  wireSpacingUm: number;
  viaSizeUm: number;
  /** By how much a wire must surround a via. */
  viaEnclosureUm: number;
}

/** Everything that placement, routing and layout know of the technology. */
export interface CellLibrary {
  name: string;
  /** Where the numbers come from; printed with every result. */
  note: string;
  /** Cells and wires lie on multiples of it. */
  gridUm: number;
  rules: WireRules;
  /** By kind; splitters as splitter2, splitter3, splitter4. */
  cells: Record<string, LibraryCell>;
}

/** Delay of a cell from its clock: assumed, of the order of a tenth of a phase. */
const DELAY_PS = 5;

function libraryCell(
  jj: number,
  widthUm: number,
  heightUm: number,
  inputsUm: number[],
  outputsUm: number[],
): LibraryCell {
  return { jj, widthUm, heightUm, inputsUm, outputsUm, delayPs: DELAY_PS };
}

/** Library of our own. Sizes are assumed: no foundry's cells are public. */
export const DEFAULT_LIBRARY: CellLibrary = {
  name: "adiabat-10um",
  note:
    "sizes, pins, delays and wire rules are assumed by this project, on a 10 um grid; JJ counts from lsils/SCE-benchmarks",
  gridUm: 10,
  rules: {
    gdsLayers: {
      outline: 1,
      horizontal: 10,
      vertical: 20,
      via: 15,
      pin: 30,
      label: 63,
    },
    wireWidthUm: 4,
    wireSpacingUm: 4,
    viaSizeUm: 2,
    viaEnclosureUm: 1,
  },
  cells: {
    input: libraryCell(JJ_COUNT.input, 40, 30, [], [20]),
    output: libraryCell(JJ_COUNT.output, 40, 30, [20], []),
    constant: libraryCell(JJ_COUNT.constant, 40, 30, [], [20]),
    buffer: libraryCell(JJ_COUNT.buffer, 40, 30, [20], [20]),
    inverter: libraryCell(JJ_COUNT.inverter, 40, 30, [20], [20]),
    splitter2: libraryCell(JJ_COUNT.splitter, 40, 40, [20], [10, 30]),
    splitter3: libraryCell(JJ_COUNT.splitter, 50, 40, [20], [10, 20, 40]),
    splitter4: libraryCell(JJ_COUNT.splitter, 60, 40, [30], [10, 20, 40, 50]),
    and: libraryCell(JJ_COUNT.and, 60, 70, [20, 40], [30]),
    or: libraryCell(JJ_COUNT.or, 60, 70, [20, 40], [30]),
    maj: libraryCell(JJ_COUNT.maj, 60, 70, [10, 30, 50], [30]),
  },
};

/** Key of a netlist cell in a library. */
export function libraryKey(
  { kind, arity }: { kind: string; arity?: number },
): string {
  return kind === "splitter" ? `splitter${arity}` : kind;
}

/**
 * The library's cell for a cell of a netlist.
 *
 * @throws RangeError if the library has none.
 */
export function libraryCellOf(
  library: CellLibrary,
  cell: { kind: string; arity?: number; name?: string },
): LibraryCell {
  const key = libraryKey(cell);
  const found = library.cells[key];
  if (found === undefined) {
    throw new RangeError(
      `Cannot place cell ${
        cell.name ?? ""
      } as library ${library.name} must have a cell "${key}": it has ${
        Object.keys(library.cells).join(", ")
      }`,
    );
  }
  return found;
}
