/**
 * Adiabatic quantum-flux-parametron (AQFP) logic: what its cells cost and how its clock runs.
 *
 * Costs in Josephson junctions (JJ): the benchmark set of the Integrated Systems Laboratory, EPFL,
 * github.com/lsils/SCE-benchmarks, README (buffer, inverter, constant and splitter 2; and, or and
 * majority of three 6). Every cell takes one clock phase. Four phases make a cycle, 200 ps at 5 GHz
 * (accelergy AQFP estimator, default frequency and number of phases).
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
