/**
 * The shortest placement of a tiny circuit, by integer programming: the reference for the gap of all
 * other placers.
 *
 * min sum_e d_e   subject to   d_e >= +-(x_sink - x_driver + offset_e),   0 <= x_c <= W - w_c,
 * and for every two cells a, b of a row, with a 0-1 variable o_ab:
 * x_a + w_a <= x_b + W (1 - o_ab),   x_b + w_b <= x_a + W o_ab
 *
 * With the orders fixed, what is left are differences of two variables, so its corners are whole grid
 * steps and only the orders need be integer variables. HiGHS solves it (`highs`, MIT licence).
 */
import type { Highs } from "highs";
import type { LevelledNetlist } from "./netlist.ts";
import { type PlacementModel, totalSteps } from "./place-model.ts";
import { modelOf, type PlacedNetlist, type PlaceOptions } from "./placement.ts";

/** Largest number of pairs of cells in a row: some seconds of branch and bound. */
export const MAX_PAIRS = 80;

/** The program in CPLEX LP format, its 0-1 variables, and whether the sum of lengths is bounded above. */
function programText(model: PlacementModel, pairs: [number, number][]): string {
  const { driver, sink, offset, width, widthSteps } = model;
  const edges = Array.from(driver, (_, e) => e);
  const lines = ["Minimize", ` obj: ${edges.map((e) => `d${e}`).join(" + ")}`];
  lines.push("Subject To");
  for (const e of edges) {
    // Pins of a cell may lie off whole steps in other libraries; the constant goes to the right.
    lines.push(` d${e} - x${sink[e]} + x${driver[e]} >= ${offset[e]}`);
    lines.push(` d${e} + x${sink[e]} - x${driver[e]} >= ${-offset[e]}`);
  }
  for (const [a, b] of pairs) {
    lines.push(
      ` x${b} - x${a} - ${widthSteps} o${a}_${b} >= ${width[a] - widthSteps}`,
      ` x${a} - x${b} + ${widthSteps} o${a}_${b} >= ${width[b]}`,
    );
  }
  lines.push("Bounds");
  width.forEach((w, c) => lines.push(` 0 <= x${c} <= ${widthSteps - w}`));
  lines.push("Binary", ` ${pairs.map(([a, b]) => `o${a}_${b}`).join(" ")}`);
  lines.push("End");
  return lines.join("\n");
}

/**
 * The placement with the least wire length along the rows, pins as the netlist has them.
 *
 * @returns The placement and its length in grid steps; no other placement on a chip of this width is
 *   shorter.
 * @throws RangeError for a circuit with more than `MAX_PAIRS` pairs of cells in a row.
 */
export async function placeExact(
  netlist: LevelledNetlist,
  options: PlaceOptions = {},
): Promise<{ placed: PlacedNetlist; steps: number }> {
  const model = modelOf(netlist, options);
  const pairs = model.rows.flatMap((row) =>
    Array.from(row).flatMap((a, i) =>
      Array.from(row.subarray(i + 1), (b): [number, number] => [a, b])
    )
  );
  if (pairs.length > MAX_PAIRS) {
    throw new RangeError(
      `Cannot place ${netlist.name} exactly as rows must have at most ${MAX_PAIRS} pairs of cells in all: ${pairs.length} pairs`,
    );
  }
  if (netlist.cells.length === 0) {
    return { placed: { ...netlist, x: new Int32Array(0) }, steps: 0 };
  }
  // Deno reads the package's types as a module, not as its default export.
  const { default: load } = await import("highs");
  const highs = await (load as unknown as () => Promise<Highs>)();
  const { Status, Columns } = highs.solve(programText(model, pairs), {
    mip_rel_gap: 0,
  });
  if (Status !== "Optimal") {
    throw new Error(
      `Cannot place ${netlist.name} exactly as HiGHS must find an optimum: status ${Status}`,
    );
  }
  const x = Int32Array.from(netlist.cells, (_, c) => {
    const column = Columns[`x${c}`];
    return column !== undefined && "Primal" in column
      ? Math.round(column.Primal)
      : 0;
  });
  return { placed: { ...netlist, x }, steps: totalSteps(model, x) };
}
