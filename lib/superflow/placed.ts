/**
 * Placed netlists: what a placement is, whether it is legal, how long its wires are.
 *
 * Row r holds the cells of level r, row 0 at the bottom; inputs at a cell's lower edge, outputs at its
 * upper edge. Every connection crosses the one channel between its two rows. Wires are measured from
 * pin to pin; as every net has two pins, half the perimeter of its box is exactly abs(dx) + dy.
 */
import { type CellLibrary, libraryCellOf } from "../core/aqfp.ts";
import { type Edge, edges, type LevelledNetlist } from "./netlist.ts";

/** A levelled netlist with a place for each cell: row = level, bottom to top. */
export interface PlacedNetlist extends LevelledNetlist {
  /** Left edge, in grid steps of the library. */
  x: Int32Array; // [N]
}

/** Left and right edge of a whole placement. */
export function outlineUm(
  { cells, x }: PlacedNetlist,
  library: CellLibrary,
): { leftUm: number; rightUm: number } {
  if (cells.length === 0) return { leftUm: 0, rightUm: 0 };
  let leftUm = Infinity;
  let rightUm = -Infinity;
  cells.forEach((cell, i) => {
    const at = x[i] * library.gridUm;
    leftUm = Math.min(leftUm, at);
    rightUm = Math.max(rightUm, at + libraryCellOf(library, cell).widthUm);
  });
  return { leftUm, rightUm };
}

/** dx_e: from the driver's pin to the sink's, along the row; positive to the right. */
export function wireUm(
  { cells, x }: PlacedNetlist,
  library: CellLibrary,
  { driver, pin, sink, input }: Edge,
): number {
  const from = libraryCellOf(library, cells[driver]).outputsUm[pin];
  const to = libraryCellOf(library, cells[sink]).inputsUm[input];
  return (x[sink] - x[driver]) * library.gridUm + to - from;
}

/**
 * HPWL: half-perimeter wire length of all nets, in um.
 *
 * sum_e (abs(dx_e) + dy_e), exact for nets of two pins
 *
 * @param dyUm Height of the channel that each connection crosses. 0 by default: the length along the
 *   rows, which is what a placer decides, while heights are the router's.
 */
export function hpwl(
  placed: PlacedNetlist,
  library: CellLibrary,
  { dyUm = 0 }: { dyUm?: number } = {},
): number {
  let sum = 0;
  for (const edge of edges(placed)) {
    sum += Math.abs(wireUm(placed, library, edge)) + dyUm;
  }
  return sum;
}

/** Longest net, abs(dx) + dy, in um; 0 without nets. */
export function longestNetUm(
  placed: PlacedNetlist,
  library: CellLibrary,
  { dyUm = 0 }: { dyUm?: number } = {},
): number {
  let longest = 0;
  for (const edge of edges(placed)) {
    longest = Math.max(
      longest,
      Math.abs(wireUm(placed, library, edge)) + dyUm,
    );
  }
  return longest;
}

/**
 * What is wrong with a placement: an empty list if it is legal.
 *
 * Legal: one place per cell, in whole grid steps and not left of 0; widths on the grid; no two cells of a
 * row overlap; every connection leads from one row to the next.
 *
 * @param widthSteps Width of the chip, in grid steps; no cell may reach beyond it.
 */
export function checkPlacement(
  { name, cells, levels, x }: {
    name: string;
    cells: PlacedNetlist["cells"];
    levels: ArrayLike<number>;
    x: ArrayLike<number>;
  },
  library: CellLibrary,
  { widthSteps = Infinity }: { widthSteps?: number } = {},
): string[] {
  if (x.length !== cells.length || levels.length !== cells.length) {
    return [
      `${name}: every cell must have a level and a place: cells ${cells.length}, levels ${levels.length}, places ${x.length}`,
    ];
  }
  const problems: string[] = [];
  const rows = new Map<number, number[]>();
  const width = cells.map((cell) =>
    libraryCellOf(library, cell).widthUm / library.gridUm
  );
  cells.forEach((cell, i) => {
    const where = `${cell.kind} ${cell.name} in row ${levels[i]}`;
    if (!Number.isInteger(levels[i]) || levels[i] < 0) {
      problems.push(`${where}: the row must be a whole number from 0`);
    }
    if (!Number.isInteger(x[i])) {
      problems.push(`${where}: must lie on the grid, not at step ${x[i]}`);
    }
    if (!Number.isInteger(width[i]) || width[i] <= 0) {
      problems.push(
        `${where}: must be a positive multiple of the grid of ${library.gridUm} um wide, not ${
          width[i] * library.gridUm
        } um`,
      );
    }
    if (x[i] < 0 || x[i] + width[i] > widthSteps) {
      problems.push(
        `${where}: must lie within the chip, steps 0 to ${widthSteps}, not ${
          x[i]
        } to ${x[i] + width[i]}`,
      );
    }
    for (const { cell: driver } of cell.inputs) {
      if (levels[driver] !== levels[i] - 1) {
        problems.push(
          `${where}: its driver ${
            cells[driver].name
          } must be in the row below, not in row ${levels[driver]}`,
        );
      }
    }
    const row = rows.get(levels[i]);
    if (row === undefined) rows.set(levels[i], [i]);
    else row.push(i);
  });
  for (const [level, row] of rows) {
    row.sort((a, b) => x[a] - x[b]);
    // The widest reach so far, as a long cell may overlap several that follow.
    let reach = row[0];
    for (const i of row.slice(1)) {
      if (x[i] < x[reach] + width[reach]) {
        problems.push(
          `${cells[i].kind} ${cells[i].name} overlaps ${cells[reach].kind} ${
            cells[reach].name
          } in row ${level}: from step ${x[i]}, while the other ends at ${
            x[reach] + width[reach]
          }`,
        );
      }
      if (x[i] + width[i] > x[reach] + width[reach]) reach = i;
    }
  }
  return problems;
}
