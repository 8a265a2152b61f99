/**
 * Legality of a netlist with levels: what every later stage relies on, checked from the netlist alone.
 *
 * The rules of path-balanced AQFP circuits: a connection leads from one clock phase to the next, an
 * output pin drives one input, splitters have at most a given number of outputs, and only gates can
 * invert at a pin.
 */
import {
  type Cell,
  checkNetlist,
  type Edge,
  fanouts,
  isGate,
  type LevelledNetlist,
  outputCount,
} from "./netlist.ts";

export type LegalityRule =
  | "structure"
  | "level"
  | "balance"
  | "fanout"
  | "arity"
  | "inversion"
  | "absorbable";

/** One broken rule. Warnings waste cells, errors break the circuit. */
export interface LegalityProblem {
  rule: LegalityRule;
  severity: "error" | "warning";
  /** Name of the cell; empty if the netlist as a whole is meant. */
  cell: string;
  message: string;
}

export interface LegalityOptions {
  /** Most outputs of a splitter. Default 4. */
  splitterCapacity?: number;
  /** s: most levels that a connection may lead on, from 1. Default 1: to the next level. */
  maxLevelsPerHop?: number;
  /** Whether inputs must stand at level 0. Default true. */
  balanceInputs?: boolean;
  /** Whether outputs must stand at one level, that of the last cell plus 1. Default true. */
  balanceOutputs?: boolean;
}

/** Whether every way from a cell ends at a pin of a gate, through buffers and splitters only. */
function feedsOnlyGates(
  cells: Cell[],
  leaving: Edge[][],
  cell: number,
): boolean {
  const stack = [cell];
  while (stack.length > 0) {
    for (const { sink } of leaving[stack.pop()!]) {
      const { kind } = cells[sink];
      if (kind === "buffer" || kind === "splitter") stack.push(sink);
      else if (!isGate(cells[sink])) return false;
    }
  }
  return true;
}

/**
 * All broken rules, in the order of the cells; empty for a legal netlist.
 *
 * - structure: every input driven by an existing pin, right numbers of inputs, unique names, no loop
 * - level: one level per cell, whole and not negative; every connection leads to the next level, or 1 to
 *   `maxLevelsPerHop` levels on
 * - balance: inputs at level 0, outputs together at the level after the last cell
 * - fanout: every output pin drives exactly one input (an input port may drive none)
 * - arity: splitters have 2 to `splitterCapacity` outputs
 * - inversion: no inverted pin on buffers, inverters, splitters and output ports
 * - absorbable (warning): an inverter that only feeds pins of gates, which could invert for free
 */
export function checkLegality(
  netlist: LevelledNetlist,
  {
    splitterCapacity = 4,
    maxLevelsPerHop = 1,
    balanceInputs = true,
    balanceOutputs = true,
  }: LegalityOptions = {},
): LegalityProblem[] {
  if (!Number.isInteger(maxLevelsPerHop) || maxLevelsPerHop < 1) {
    throw new RangeError(
      `Cannot check ${netlist.name} as maxLevelsPerHop must be a whole number from 1: maxLevelsPerHop ${maxLevelsPerHop}`,
    );
  }
  const { cells, levels } = netlist;
  const problems: LegalityProblem[] = [];
  const report = (rule: LegalityRule, cell: string, message: string) =>
    problems.push({
      rule,
      severity: rule === "absorbable" ? "warning" : "error",
      cell,
      message,
    });
  try {
    checkNetlist(netlist);
  } catch (error) {
    const { message } = error as Error;
    const named = cells.find(({ name }) => message.endsWith(` ${name}`));
    report("structure", named?.name ?? "", message);
    return problems;
  }
  if (levels.length !== cells.length) {
    report(
      "level",
      "",
      `Every cell must have a level: cells ${cells.length}, levels ${levels.length}`,
    );
    return problems;
  }

  let last = 0;
  cells.forEach(({ kind }, i) => {
    if (kind !== "output") last = Math.max(last, levels[i]);
  });
  const leaving = fanouts(netlist);
  cells.forEach((cell, i) => {
    const { kind, name, inputs } = cell;
    if (levels[i] < 0) {
      report(
        "level",
        name,
        `${kind} ${name} must not be below level 0: ${levels[i]}`,
      );
    }
    inputs.forEach(({ cell: driver, inverted }, input) => {
      const hop = levels[i] - levels[driver];
      if (!(hop >= 1 && hop <= maxLevelsPerHop)) {
        report(
          "level",
          name,
          `${kind} ${name} must stand ${
            maxLevelsPerHop === 1
              ? "one level"
              : `1 to ${maxLevelsPerHop} levels`
          } above what drives its input ${input}: level ${levels[i]}, driver ${
            cells[driver].name
          } at ${levels[driver]}`,
        );
      }
      if (inverted && !isGate(cell)) {
        report(
          "inversion",
          name,
          `${kind} ${name} cannot invert at its input: only gates can`,
        );
      }
    });
    if (kind === "input" && balanceInputs && levels[i] !== 0) {
      report(
        "balance",
        name,
        `input ${name} must stand at level 0: ${levels[i]}`,
      );
    }
    if (kind === "output" && balanceOutputs && levels[i] !== last + 1) {
      report(
        "balance",
        name,
        `output ${name} must stand at level ${last + 1}, after the last cell: ${
          levels[i]
        }`,
      );
    }
    if (kind === "splitter" && cell.arity! > splitterCapacity) {
      report(
        "arity",
        name,
        `splitter ${name} must have at most ${splitterCapacity} outputs: ${cell.arity}`,
      );
    }
    const pins = outputCount(cell);
    if (
      leaving[i].length !== pins ||
      pins > 1 && new Set(leaving[i].map(({ pin }) => pin)).size !== pins
    ) {
      for (let pin = 0; pin < pins; pin++) {
        const driven = leaving[i].filter((edge) => edge.pin === pin);
        if (driven.length === 1 || (driven.length === 0 && kind === "input")) {
          continue;
        }
        report(
          "fanout",
          name,
          `output pin ${pin} of ${kind} ${name} must drive one input: it drives ${
            driven.map(({ sink }) => cells[sink].name).join(", ") || "none"
          }`,
        );
      }
    }
    if (
      kind === "inverter" && leaving[i].length > 0 &&
      feedsOnlyGates(cells, leaving, i)
    ) {
      report(
        "absorbable",
        name,
        `inverter ${name} only feeds gates, whose pins invert for free`,
      );
    }
  });
  return problems;
}

/**
 * Throws unless the netlist is legal. Warnings pass.
 *
 * @throws RangeError that names the first cells that break a rule.
 */
export function assertLegal(
  netlist: LevelledNetlist,
  options: LegalityOptions = {},
): void {
  const errors = checkLegality(netlist, options).filter(({ severity }) =>
    severity === "error"
  );
  if (errors.length === 0) return;
  throw new RangeError(
    `Cannot use netlist ${netlist.name} as it must be legal: ${
      errors.slice(0, 3).map(({ message }) => message).join("; ")
    }${errors.length > 3 ? `; and ${errors.length - 3} more` : ""}`,
  );
}
