/**
 * Netlists of majority logic: the one structure that every stage of the flow reads and writes.
 *
 * A netlist is a list of cells; a cell names the pins that drive its inputs. Ports are cells too, so
 * that a connection always has a cell at both ends. The same structure holds what comes out of
 * synthesis (gates with any fan-out) and what goes into placement (fan-out 1, splitters and
 * buffers in place, every connection one level long).
 *
 *   N cells; E connections (edges) from a driver's output pin to a sink's input pin
 *   level(c) clock phase in which cell c works, counted from the inputs; phase of the clock = level mod 4
 *
 * An inverted input is part of the receiving gate in adiabatic quantum-flux-parametron (AQFP) logic
 * and costs nothing; only where the receiver is a buffer, splitter or output port is an inverter needed.
 */
import type { CellLibrary } from "../core/aqfp.ts";

/** `input` and `output` are ports; a `constant` has no inputs; `maj` is the majority of three. */
export type CellKind =
  | "input"
  | "output"
  | "constant"
  | "buffer"
  | "inverter"
  | "splitter"
  | "and"
  | "or"
  | "maj";

/** What drives an input: output pin `pin` (0 except on splitters) of cell number `cell`. */
export interface Connection {
  cell: number;
  pin: number;
  inverted: boolean;
}

export interface Cell {
  /** Unique in the netlist; that of the port for ports. */
  name: string;
  kind: CellKind;
  inputs: Connection[];
  /** Number of outputs of a splitter; other cells have one, output ports none. */
  arity?: number;
  /** Value of a constant. */
  value?: 0 | 1;
}

/** Cells by number. Ports stand in the order of the module's ports. */
export interface Netlist {
  name: string;
  cells: Cell[];
}

/** A netlist with the level of each cell. Inputs have level 0, outputs one above the last gate's. */
export interface LevelledNetlist extends Netlist {
  levels: Int32Array; // [N]
}

/** One connection seen from both ends; its place in `edges()` is its number. */
export interface Edge {
  driver: number;
  pin: number;
  sink: number;
  /** Index of the sink's input. */
  input: number;
}

/** Number of inputs each kind requires. */
export const FANIN: Record<CellKind, number> = {
  input: 0,
  output: 1,
  constant: 0,
  buffer: 1,
  inverter: 1,
  splitter: 1,
  and: 2,
  or: 2,
  maj: 3,
};

/** Number of output pins of a cell. */
export function outputCount({ kind, arity }: Cell): number {
  return kind === "output" ? 0 : kind === "splitter" ? arity ?? 0 : 1;
}

/** True for the cells that compute: and, or, maj. */
export function isGate({ kind }: Cell): boolean {
  return kind === "and" || kind === "or" || kind === "maj";
}

/** Cell numbers of the ports of one direction, in the order of the module. */
export function ports(
  { cells }: Netlist,
  direction: "input" | "output",
): number[] {
  return cells.flatMap(({ kind }, i) => kind === direction ? [i] : []);
}

/** All connections, ordered by sink and input. */
export function edges({ cells }: Netlist): Edge[] {
  return cells.flatMap(({ inputs }, sink) =>
    inputs.map(({ cell, pin }, input) => ({ driver: cell, pin, sink, input }))
  );
}

/** The connections that leave each cell. */
export function fanouts(netlist: Netlist): Edge[][] {
  const lists: Edge[][] = netlist.cells.map(() => []);
  for (const edge of edges(netlist)) lists[edge.driver].push(edge);
  return lists;
}

/**
 * Cell numbers ordered so that drivers come before what they drive.
 *
 * @throws RangeError if the logic feeds back into itself; the message names the loop's cells.
 */
export function topologicalOrder(netlist: Netlist): number[] {
  const { cells } = netlist;
  const waiting = cells.map(({ inputs }) => inputs.length);
  const order = cells.flatMap((_, i) => waiting[i] === 0 ? [i] : []);
  const leaving = fanouts(netlist);
  for (let head = 0; head < order.length; head++) {
    for (const { sink } of leaving[order[head]]) {
      if (--waiting[sink] === 0) order.push(sink);
    }
  }
  if (order.length < cells.length) {
    const loop = findLoop(netlist, waiting);
    throw new RangeError(
      `Cannot order the cells of ${netlist.name} as combinational logic must have no loop: ${
        loop.slice(0, 8).map((i) => cells[i].name).join(" -> ")
      }${loop.length > 8 ? " ..." : ""}`,
    );
  }
  return order;
}

/** A loop among the cells that still wait for an input. */
function findLoop({ cells }: Netlist, waiting: number[]): number[] {
  let at = waiting.findIndex((n) => n > 0);
  const seen = new Map<number, number>();
  const path: number[] = [];
  while (!seen.has(at)) {
    seen.set(at, path.length);
    path.push(at);
    at = cells[at].inputs.find(({ cell }) => waiting[cell] > 0)!.cell;
  }
  return path.slice(seen.get(at)).reverse();
}

/**
 * Checks that the netlist is whole: every input driven by an existing pin, right numbers of inputs,
 * unique names, no loop.
 *
 * @throws RangeError that names the first cell that breaks a rule.
 */
export function checkNetlist(netlist: Netlist): void {
  const { cells, name } = netlist;
  const refuse = (what: string, cell: Cell) => {
    throw new RangeError(
      `Cannot use netlist ${name} as ${what}: ${cell.kind} ${cell.name}`,
    );
  };
  const names = new Set<string>();
  for (const cell of cells) {
    if (names.has(cell.name)) refuse("names of cells must be unique", cell);
    names.add(cell.name);
    if (cell.inputs.length !== FANIN[cell.kind]) {
      refuse(
        `a cell of this kind must have ${
          FANIN[cell.kind]
        } inputs, not ${cell.inputs.length}`,
        cell,
      );
    }
    if (cell.kind === "splitter" && !((cell.arity ?? 0) >= 2)) {
      refuse("a splitter must have 2 or more outputs", cell);
    }
    if (cell.kind === "constant" && cell.value !== 0 && cell.value !== 1) {
      refuse("a constant must be 0 or 1", cell);
    }
    for (const { cell: driver, pin } of cell.inputs) {
      const from = cells[driver];
      if (from === undefined || !(pin >= 0 && pin < outputCount(from))) {
        refuse(
          `every input must be driven by an output pin that exists (cell ${driver}, pin ${pin})`,
          cell,
        );
      }
    }
  }
  topologicalOrder(netlist);
}

/**
 * Values of all cells for 32 input patterns at once: bit k of a word is the value in pattern k.
 *
 * @param words One word per input port.
 * @returns One word per cell, those of output ports included.
 */
export function evaluate(netlist: Netlist, words: Uint32Array): Uint32Array {
  const { cells } = netlist;
  const inputs = ports(netlist, "input");
  if (words.length !== inputs.length) {
    throw new RangeError(
      `Cannot evaluate ${netlist.name} as it needs one word per input port: ports ${inputs.length}, words ${words.length}`,
    );
  }
  const values = new Uint32Array(cells.length);
  inputs.forEach((cell, i) => values[cell] = words[i]);
  for (const i of topologicalOrder(netlist)) {
    if (cells[i].kind !== "input") {
      values[i] = cellValue(
        cells[i],
        cells[i].inputs.map(({ cell, inverted }) =>
          inverted ? ~values[cell] : values[cell]
        ),
      );
    }
  }
  return values;
}

/** What a cell computes from the words at its inputs, inversions already done. */
export function cellValue({ kind, value }: Cell, inputs: number[]): number {
  const [a, b, c] = inputs;
  switch (kind) {
    case "and":
      return a & b;
    case "or":
      return a | b;
    case "maj":
      return (a & b) | (a & c) | (b & c);
    case "inverter":
      return ~a;
    case "constant":
      return value === 1 ? -1 : 0;
    default:
      return a;
  }
}

/** Numbers of cells by kind; splitters by arity as `splitter2` and so on. */
export function countCells({ cells }: Netlist): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind, arity } of cells) {
    const key = kind === "splitter" ? `splitter${arity}` : kind;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

/** Buffers, inverters and splitters: what legalisation adds. */
export function bufferAndSplitterCount({ cells }: Netlist): number {
  return cells.filter(({ kind }) =>
    kind === "buffer" || kind === "inverter" || kind === "splitter"
  ).length;
}

/** Josephson junctions of a netlist in a library. */
export function jjCount(netlist: Netlist, library: CellLibrary): number {
  return Object.entries(countCells(netlist))
    .reduce((sum, [key, n]) => sum + n * (library.cells[key]?.jj ?? 0), 0);
}

/** Gates on the longest way from an input to an output. */
export function gateDepth(netlist: Netlist): number {
  const { cells } = netlist;
  const depth = new Int32Array(cells.length);
  for (const i of topologicalOrder(netlist)) {
    for (const { cell } of cells[i].inputs) {
      depth[i] = Math.max(depth[i], depth[cell]);
    }
    if (isGate(cells[i])) depth[i]++;
  }
  return depth.reduce((a, b) => Math.max(a, b), 0);
}

/**
 * Levels of a netlist whose buffers and splitters are in place: the longest way from the inputs.
 * Outputs stand together, and what depends on constants only as late as its readers allow.
 */
export function levelsOf(netlist: Netlist): LevelledNetlist {
  const { cells } = netlist;
  const levels = new Int32Array(cells.length);
  const moves = cells.map(({ kind }) => kind !== "input"); // depends on no input port
  const order = topologicalOrder(netlist);
  for (const i of order) {
    for (const { cell } of cells[i].inputs) {
      levels[i] = Math.max(levels[i], levels[cell] + 1);
      if (!moves[cell]) moves[i] = false;
    }
  }
  const last = levels.reduce((a, b) => Math.max(a, b), 0);
  const leaving = fanouts(netlist);
  for (const i of [...order].reverse()) {
    if (cells[i].kind === "output") levels[i] = last;
    else if (moves[i] && leaving[i].length > 0) {
      levels[i] = Math.min(...leaving[i].map(({ sink }) => levels[sink])) - 1;
    }
  }
  return { ...netlist, levels };
}

/**
 * Levels of a netlist whose connections lead on 1 to s levels: the least ones with inputs at 0 and
 * outputs together.
 *
 * l(sink) >= l(driver) + 1,   l(driver) >= l(sink) - s,   raised from 0 until nothing changes
 *
 * @throws RangeError if there are none; names the connection that is too long.
 */
export function levelsWithin(netlist: Netlist, s: number): LevelledNetlist {
  const { cells } = netlist;
  const levels = new Int32Array(cells.length);
  const order = topologicalOrder(netlist);
  const outputs = ports(netlist, "output");
  for (let changed = true; changed;) {
    changed = false;
    const raise = (i: number, level: number) => {
      if (level <= levels[i]) return;
      if (cells[i].kind === "input" || level > cells.length) {
        throw new RangeError(
          `Cannot give levels to ${netlist.name} as a connection must lead on at most ${s}: ${
            cells[i].name
          } would have to stand at level ${level}`,
        );
      }
      levels[i] = level;
      changed = true;
    };
    for (const i of order) {
      for (const { cell } of cells[i].inputs) raise(i, levels[cell] + 1);
    }
    const last = levels.reduce((a, b) => Math.max(a, b), 0);
    for (const i of outputs) raise(i, last);
    for (const i of [...order].reverse()) {
      for (const { cell } of cells[i].inputs) raise(cell, levels[i] - s);
    }
  }
  return { ...netlist, levels };
}
