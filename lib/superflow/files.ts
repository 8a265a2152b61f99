/**
 * The flow's own files, all plain JSON: cell libraries, and placements in the manner of DEF.
 *
 * A placement file names every cell of a balanced netlist with its row and left edge, so that a
 * placement can be made, corrected or replaced by another program. A library file holds all that the
 * flow knows of a technology (`CellLibrary` in `core/aqfp.ts`).
 */
import {
  type CellLibrary,
  type LibraryCell,
  libraryCellOf,
} from "../core/aqfp.ts";
import { FANIN, type Netlist } from "./netlist.ts";
import { checkClock, type ClockModel, DEFAULT_CLOCK } from "./clock.ts";
import { DBU_PER_UM } from "./layout.ts";
import { checkPlacement, type PlacedNetlist } from "./placed.ts";

/** Kinds of cells that every design may need, by library key, with inputs and outputs. */
const REQUIRED: Record<string, [inputs: number, outputs: number]> = {
  input: [0, 1],
  output: [1, 0],
  constant: [0, 1],
  buffer: [1, 1],
  inverter: [1, 1],
  splitter2: [1, 2],
  and: [FANIN.and, 1],
  or: [FANIN.or, 1],
  maj: [FANIN.maj, 1],
};

type Fields = Record<string, unknown>;

function isObject(value: unknown): value is Fields {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** Whether `x` is a whole number of grid steps. */
function onGrid(x: number, gridUm: number): boolean {
  return Math.abs(x / gridUm - Math.round(x / gridUm)) < 1e-9;
}

/**
 * A cell library from parsed JSON, checked.
 *
 * @throws SyntaxError that names the field, what it must be and what it is.
 */
export function readLibrary(json: unknown): CellLibrary {
  const fail = (what: string, given: unknown): never => {
    throw new SyntaxError(
      `Cannot read the cell library as ${what}: ${JSON.stringify(given)}`,
    );
  };
  const positive = (value: unknown, name: string): number => {
    if (typeof value !== "number" || !(value > 0 && Number.isFinite(value))) {
      fail(`${name} must be a finite number above 0`, value);
    }
    return value as number;
  };
  if (!isObject(json)) fail("an object is required", json);
  const { name, note, gridUm, rules, cells } = json as Fields;
  if (typeof name !== "string" || name === "") {
    fail("name must be a text", name);
  }
  if (typeof note !== "string") {
    fail("note must say where the numbers come from", note);
  }
  /** The layout has whole database units: no shape may be rounded away. */
  const exact = (um: number, name: string, parts: number) => {
    if (!onGrid(um * DBU_PER_UM, parts)) {
      fail(`${name} must be a multiple of ${parts / DBU_PER_UM} um`, um);
    }
  };
  const grid = positive(gridUm, "gridUm");
  exact(grid, "gridUm", 2); // names stand in the middle of grid steps
  if (!isObject(rules)) fail("rules must be an object", rules);
  const { gdsLayers, ...lengths } = rules as Fields;
  for (
    const field of [
      "wireWidthUm",
      "wireSpacingUm",
      "viaSizeUm",
      "viaEnclosureUm",
    ]
  ) {
    const halves = field === "wireWidthUm" || field === "viaSizeUm"; // both sides of a line
    const um = positive(lengths[field], `rules.${field}`);
    exact(um, `rules.${field}`, halves ? 2 : 1);
  }
  if (!isObject(gdsLayers)) {
    fail("rules.gdsLayers must be an object", gdsLayers);
  }
  const seen = new Map<unknown, string>();
  for (
    const field of ["outline", "horizontal", "vertical", "via", "pin", "label"]
  ) {
    const layer = (gdsLayers as Fields)[field];
    if (!Number.isInteger(layer) || Number(layer) < 0 || Number(layer) > 255) {
      fail(
        `rules.gdsLayers.${field} must be a whole number from 0 to 255`,
        layer,
      );
    }
    if (seen.has(layer)) {
      fail(
        `rules.gdsLayers.${field} must differ from ${seen.get(layer)}`,
        layer,
      );
    }
    seen.set(layer, field);
  }
  if (!isObject(cells)) fail("cells must be an object", cells);
  for (const key of Object.keys(REQUIRED)) {
    if (!isObject((cells as Fields)[key])) {
      fail(
        `cells.${key} must be given`,
        Object.keys(cells as Fields).join(", "),
      );
    }
  }
  for (const [key, cell] of Object.entries(cells as Fields)) {
    const splitter = /^splitter([2-9])$/.exec(key);
    const counts = splitter ? [1, Number(splitter[1])] : REQUIRED[key];
    if (counts === undefined) fail("a cell of this kind is not known", key);
    if (!isObject(cell)) fail(`cells.${key} must be an object`, cell);
    const c = cell as unknown as LibraryCell;
    if (!(Number.isInteger(c.jj) && c.jj >= 0)) {
      fail(`cells.${key}.jj must be a whole number from 0`, c.jj);
    }
    for (const field of ["widthUm", "heightUm"] as const) {
      if (!onGrid(positive(c[field], `cells.${key}.${field}`), grid)) {
        fail(
          `cells.${key}.${field} must be a multiple of the grid of ${grid} um`,
          c[field],
        );
      }
    }
    if (!(Number.isFinite(c.delayPs) && c.delayPs >= 0)) {
      fail(`cells.${key}.delayPs must be a finite number from 0`, c.delayPs);
    }
    for (const [i, field] of (["inputsUm", "outputsUm"] as const).entries()) {
      const pins: unknown = c[field];
      if (!Array.isArray(pins) || pins.length !== counts[i]) {
        fail(`cells.${key}.${field} must have ${counts[i]} places`, pins);
      }
      for (const at of pins as unknown[]) {
        if (
          typeof at !== "number" || !(at > 0 && at < c.widthUm) ||
          !onGrid(at, grid)
        ) {
          fail(
            `cells.${key}.${field} must lie inside the cell, on the grid of ${grid} um`,
            at,
          );
        }
      }
      if (new Set(pins as number[]).size < (pins as number[]).length) {
        fail(`pins of cells.${key}.${field} must have different places`, pins);
      }
    }
  }
  return json as unknown as CellLibrary;
}

/**
 * The default clock model with numbers of parsed JSON in place of some of its own, checked. Its note
 * says which, unless the JSON brings a note.
 *
 * @throws SyntaxError for a field that the model does not have.
 * @throws RangeError for a number that cannot be.
 *
 * @example
 * ```ts
 * readClock({ freqHz: 1e10 }).name; // "meander-5GHz, changed"
 * ```
 */
export function readClock(json: unknown): ClockModel {
  const known = Object.keys(DEFAULT_CLOCK);
  const fail = (what: string, given: unknown): never => {
    throw new SyntaxError(
      `Cannot read the clock model as ${what}: ${JSON.stringify(given)}`,
    );
  };
  if (!isObject(json)) return fail("an object is required", json);
  for (const [field, value] of Object.entries(json)) {
    if (!known.includes(field)) {
      fail(`its fields are ${known.join(", ")}`, field);
    }
    const text = field === "name" || field === "note";
    if (text && (typeof value !== "string" || value === "")) {
      fail(`${field} must be a text`, value);
    }
  }
  const changed = Object.entries(json).filter(([field]) =>
    field !== "name" && field !== "note"
  );
  const { name, note } = DEFAULT_CLOCK;
  const clock: ClockModel = {
    ...DEFAULT_CLOCK,
    ...(changed.length > 0 && {
      name: `${name}, changed`,
      note: `${note}; replaced by the reader: ${
        changed.map(([field, value]) => `${field} ${value}`).join(", ")
      }`,
    }),
    ...json,
  };
  checkClock(clock);
  return clock;
}

/** A placement as it is written to a file. */
export interface PlacementFile {
  format: "adiabat-placement";
  version: 1;
  design: string;
  library: string;
  gridUm: number;
  /** Bottom to top; cells from left to right. */
  rows: {
    row: number;
    cells: { name: string; cell: string; xUm: number; widthUm: number }[];
  }[];
}

/** The placement of a design as plain JSON. */
export function placementFile(
  placed: PlacedNetlist,
  library: CellLibrary,
): PlacementFile {
  const { name, cells, levels, x } = placed;
  const rows = new Map<number, number[]>();
  levels.forEach((row, i) => rows.set(row, [...(rows.get(row) ?? []), i]));
  return {
    format: "adiabat-placement",
    version: 1,
    design: name,
    library: library.name,
    gridUm: library.gridUm,
    rows: [...rows].sort(([a], [b]) => a - b).map(([row, members]) => ({
      row,
      cells: members.sort((a, b) => x[a] - x[b]).map((i) => ({
        name: cells[i].name,
        cell: cells[i].kind,
        xUm: x[i] * library.gridUm,
        widthUm: libraryCellOf(library, cells[i]).widthUm,
      })),
    })),
  };
}

/**
 * A placement file applied to its netlist: every cell once, on the grid, without overlaps.
 *
 * @throws SyntaxError for a file that is no placement of this netlist; names the cell.
 */
export function readPlacement(
  json: unknown,
  netlist: Netlist,
  library: CellLibrary,
): PlacedNetlist {
  const fail = (what: string): never => {
    throw new SyntaxError(
      `Cannot read the placement of ${netlist.name} as ${what}`,
    );
  };
  if (
    !isObject(json) || json.format !== "adiabat-placement" ||
    json.version !== 1 || !Array.isArray(json.rows)
  ) {
    fail(
      `format adiabat-placement, version 1 and rows are required: ${
        JSON.stringify(json)?.slice(0, 80)
      }`,
    );
  }
  const number = new Map(netlist.cells.map(({ name }, i) => [name, i]));
  const levels = new Int32Array(netlist.cells.length).fill(-1);
  const x = new Int32Array(netlist.cells.length);
  for (const { row, cells } of (json as unknown as PlacementFile).rows) {
    if (!Number.isInteger(row) || row < 0 || !Array.isArray(cells)) {
      fail(`a row must have a number and cells: row ${JSON.stringify(row)}`);
    }
    for (const { name, xUm } of cells) {
      const i = number.get(name) ??
        fail(`the netlist has no cell ${JSON.stringify(name)}`);
      if (levels[i] !== -1) fail(`cell ${name} stands in it twice`);
      if (typeof xUm !== "number" || !onGrid(xUm, library.gridUm)) {
        fail(
          `cell ${name} must lie on the grid of ${library.gridUm} um: xUm ${xUm}`,
        );
      }
      levels[i] = row;
      x[i] = Math.round(xUm / library.gridUm);
    }
  }
  const missing = levels.indexOf(-1);
  if (missing >= 0) fail(`cell ${netlist.cells[missing].name} is missing`);
  const placed = { ...netlist, levels, x };
  const [problem] = checkPlacement(placed, library);
  if (problem !== undefined) fail(problem);
  return placed;
}
