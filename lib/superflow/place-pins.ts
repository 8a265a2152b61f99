/**
 * Pin assignment: which of its equal pins a connection uses.
 *
 * The inputs of and, or and majority gates may be exchanged, and so may the outputs of a splitter, as
 * they carry the same value. An inversion belongs to the connection and moves with it, so the logic
 * stays as it is. For a cell with all others held, the best of at most 24 orders is taken.
 */
import { libraryCellOf } from "../core/aqfp.ts";
import { isGate, type LevelledNetlist } from "./netlist.ts";
import { edgeCost, type PlacementModel } from "./place-model.ts";

/** All orders of 0 ... n - 1. */
function ordersOf(n: number): number[][] {
  if (n === 0) return [[]];
  return ordersOf(n - 1).flatMap((shorter) =>
    Array.from({ length: n }, (_, at) => shorter.toSpliced(at, 0, n - 1))
  );
}

/** Orders of 0, 1, 2, 3 and 4 things. */
const ORDERS = [0, 1, 2, 3, 4].map(ordersOf);

/**
 * Gives the connections of every cell the best of its equal pins; changes `pin`, `input` and `offset`
 * of the model.
 */
export function assignPins(model: PlacementModel, x: ArrayLike<number>): void {
  const { netlist: { cells }, library, first, edgeOf, driver, sink } = model;
  const { pin, input, offset } = model;
  const { gridUm } = library;
  cells.forEach((cell, c) => {
    const drives = cell.kind === "splitter";
    if (!drives && !isGate(cell)) return;
    const own = Array.from(edgeOf.subarray(first[c], first[c + 1]))
      .filter((e) => (drives ? driver : sink)[e] === c);
    const libraryCell = libraryCellOf(library, cell);
    const pinsUm = drives ? libraryCell.outputsUm : libraryCell.inputsUm;
    const used = drives ? pin : input;
    const slots = own.map((e) => used[e]);
    /** Offset of connection e if it used another pin. */
    const moved = (e: number, slot: number) => {
      const by = (pinsUm[slot] - pinsUm[used[e]]) / gridUm;
      return offset[e] + (drives ? -by : by);
    };
    const costs = own.map((e) => {
      const before = offset[e];
      const row = slots.map((slot) => {
        offset[e] = moved(e, slot);
        const cost = edgeCost(model, e, x[driver[e]], x[sink[e]]);
        offset[e] = before;
        return cost;
      });
      return row;
    });
    let best = slots.map((_, i) => i);
    const total = (order: number[]) =>
      order.reduce((sum, slot, i) => sum + costs[i][slot], 0);
    let bestCost = total(best);
    for (const order of ORDERS[own.length] ?? []) {
      const cost = total(order);
      if (cost < bestCost - 1e-9) [best, bestCost] = [order, cost];
    }
    own.forEach((e, i) => {
      const slot = slots[best[i]];
      offset[e] = moved(e, slot);
      used[e] = slot;
    });
  });
}

/** The model's netlist with the pins that were assigned. */
export function netlistWithPins(model: PlacementModel): LevelledNetlist {
  const { netlist, driver, sink, pin, input } = model;
  const cells = netlist.cells.map((cell) => ({
    ...cell,
    inputs: cell.inputs.slice(),
  }));
  // The connections of the model stand in the order of the netlist it was made from.
  let e = 0;
  netlist.cells.forEach(({ inputs }) => {
    for (const { inverted } of inputs) {
      cells[sink[e]].inputs[input[e]] = {
        cell: driver[e],
        pin: pin[e],
        inverted,
      };
      e++;
    }
  });
  return { ...netlist, cells };
}
