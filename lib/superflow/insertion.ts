/**
 * Insertion of buffers and splitters: from a netlist of gates to one that AQFP logic can carry.
 *
 * After insertion every connection leads from one level (clock phase) to the next, every output pin
 * drives one input, inputs stand at level 0 and outputs at one common level. Which levels: `levels.ts`.
 *
 * Inversions cost nothing at a gate's pins, but buffers, splitters and output ports have none. Where an output
 * port wants the complement of a signal, the gate itself is complemented (De Morgan: and <-> or with
 * all inputs inverted; majority is its own dual) and its other sinks are inverted at their pins; where
 * that is not possible, as both polarities are wanted or the signal is an input, an inverter takes the
 * place of a buffer of the path. It is a cell like any other, so its level is chosen with the rest; it
 * deepens the circuit only where the path has no buffer.
 *
 * Phase skipping (extension, off by default): with `maxLevelsPerHop` s > 1 a connection may lead up to
 * s levels on, for a clock of 4 s phases; see `skipping.ts`.
 *
 * Scope: combinational logic; minimum depth. Constants are one cell per pin, beside the gate.
 */
import { type Key, key as keyOf } from "../core/rng.ts";
import {
  alapLevels,
  asapLevels,
  improveLevels,
  type ImproveOptions,
  type LevelProblem,
  levelProblem,
  lpLevels,
  splitterLevels,
  totalCells,
} from "./levels.ts";
import {
  type Cell,
  checkNetlist,
  type Connection,
  isGate,
  type LevelledNetlist,
  type Netlist,
  topologicalOrder,
} from "./netlist.ts";
import { clockPhasesFor } from "./simulation.ts";
import { chainCells, skippingTree } from "./skipping.ts";

/**
 * How levels are chosen. `naive`: earliest levels with all splitters next to the source and one chain
 * of buffers per sink; the others share the chains: `asap` and `alap` as early and as late as
 * possible, `lp` the linear program, `improved` the linear program followed by annealing.
 */
export type LevelMethod = "naive" | "asap" | "alap" | "lp" | "improved";

const METHODS: LevelMethod[] = ["naive", "asap", "alap", "lp", "improved"];

export interface InsertionOptions extends ImproveOptions {
  /** Default `"improved"`, ours. */
  levels?: LevelMethod;
  /** Most outputs of a splitter, from 2. Default 4, that of the published table. */
  splitterCapacity?: number;
  /**
   * s: most levels that one connection may lead on ("phase skipping"), from 1. Default 1, as
   * published; more is an extension that needs a clock of 4 s phases, and rows that are not neighbours
   * cannot be placed and routed. The linear program then still minimises lengths; the count of cells
   * that `improved` works on is exact.
   */
  maxLevelsPerHop?: number;
  /** All inputs at level 0; otherwise each arrives in the phase that suits it. Default true, as published. */
  balanceInputs?: boolean;
  /** All outputs at one level; otherwise each leaves when it is ready. Default true, as published. */
  balanceOutputs?: boolean;
  /** For annealing. Default `key(0)`. */
  key?: Key;
  /**
   * Most gates and ports for which the linear program is solved; above, the earliest levels take its
   * place. Default 20 000, ours: about 10 s and 400 MB on one core.
   */
  maxProgramNodes?: number;
  /** Most cells of the result. Default 4 million, ours: about 3 GB. */
  maxCells?: number;
}

export interface Insertion extends LevelledNetlist {
  /** D: level of the last cell. */
  depth: number;
  /** What was left out or done in another way than asked, in words. */
  notes: string[];
}

// Inversions --------------------------------------------------------------------------------------

/** Follows buffers, splitters and inverters back to what drives them. */
function root(cells: Cell[], connection: Connection): Connection {
  let { cell, inverted } = connection;
  for (;;) {
    const { kind, inputs } = cells[cell];
    if (kind === "inverter") inverted = !inverted;
    else if (kind !== "buffer" && kind !== "splitter") break;
    inverted = inverted !== inputs[0].inverted;
    cell = inputs[0].cell;
  }
  return { cell, pin: 0, inverted };
}

/** Ports and the gates that some output depends on, without buffers, splitters and inverters. */
function bareLogic(netlist: Netlist, notes: string[]): Netlist {
  const { cells } = netlist;
  const wanted = new Uint8Array(cells.length);
  const stack: number[] = [];
  cells.forEach(({ kind }, i) => {
    if (kind === "input" || kind === "output") wanted[i] = 1;
    if (kind === "output") stack.push(i);
  });
  const roots = cells.map(({ inputs }) => inputs.map((c) => root(cells, c)));
  while (stack.length > 0) {
    for (const { cell } of roots[stack.pop()!]) {
      if (!wanted[cell]) {
        wanted[cell] = 1;
        stack.push(cell);
      }
    }
  }
  const dropped = cells.filter((cell, i) => isGate(cell) && !wanted[i]);
  if (dropped.length > 0) {
    notes.push(
      `${dropped.length} gates that no output depends on were left out: ${
        dropped.slice(0, 5).map(({ name }) => name).join(", ")
      }${dropped.length > 5 ? " ..." : ""}`,
    );
  }
  const numbers = new Int32Array(cells.length);
  const kept = cells.flatMap((_, i) => wanted[i] ? [i] : []);
  kept.forEach((i, n) => numbers[i] = n);
  return {
    name: netlist.name,
    cells: kept.map((i) => ({
      ...cells[i],
      inputs: roots[i].map((c) => ({ ...c, cell: numbers[c.cell] })),
    })),
  };
}

/** A name that no cell has yet; it is then taken. */
function freshName(names: Set<string>, wish: string): string {
  let name = wish;
  for (let n = 2; names.has(name); n++) name = `${wish}_${n}`;
  names.add(name);
  return name;
}

/** Outputs without inverted pins: gates complemented, constants flipped, inverters where needed. */
function resolveInversions(netlist: Netlist): void {
  const { cells } = netlist;
  const names = new Set(cells.map(({ name }) => name));
  const wishes = new Map<number, { plain: number; inverted: number[] }>();
  cells.forEach(({ kind, inputs }, i) => {
    if (kind !== "output") return;
    const { cell, inverted } = inputs[0];
    const wish = wishes.get(cell) ?? { plain: 0, inverted: [] };
    wishes.set(cell, wish);
    if (inverted) wish.inverted.push(i);
    else wish.plain++;
  });
  const complemented = new Set<number>();
  for (const [i, { plain, inverted }] of wishes) {
    if (isGate(cells[i]) && inverted.length > plain) complemented.add(i);
  }
  for (const i of complemented) {
    const cell = cells[i];
    if (cell.kind !== "maj") cell.kind = cell.kind === "and" ? "or" : "and";
    for (const input of cell.inputs) input.inverted = !input.inverted;
  }
  for (const { inputs } of [...cells]) {
    for (const input of inputs) {
      if (complemented.has(input.cell)) input.inverted = !input.inverted;
    }
  }
  // What is left: one inverter for all the outputs that want the complement of a signal.
  const inverters = new Map<number, number>();
  for (const cell of [...cells]) {
    const [input] = cell.inputs;
    if (cell.kind !== "output" || !input.inverted) continue;
    const from = cells[input.cell];
    if (from.kind !== "constant") {
      if (!inverters.has(input.cell)) {
        inverters.set(input.cell, cells.length);
        cells.push({
          name: freshName(names, `${from.name}_inv`),
          kind: "inverter",
          inputs: [{ cell: input.cell, pin: 0, inverted: false }],
        });
      }
      cell.inputs = [{
        cell: inverters.get(input.cell)!,
        pin: 0,
        inverted: false,
      }];
    }
  }
}

// Trees -------------------------------------------------------------------------------------------

/** An input pin that waits for its driver. */
interface Load {
  cell: number;
  input: number;
}

/** The netlist under construction. */
interface Builder {
  cells: Cell[];
  levels: number[];
  names: Set<string>;
  capacity: number;
  /** s. */
  reach: number;
}

/** One cell at a level that drives the loads: a buffer for one, a splitter for more. */
function drive(
  builder: Builder,
  name: string,
  level: number,
  loads: Load[],
): Load {
  const { cells, levels, names } = builder;
  const cell = cells.length;
  const split = loads.length > 1;
  cells.push({
    name: freshName(names, `${name}_L${level}`),
    kind: split ? "splitter" : "buffer",
    inputs: [],
    ...(split ? { arity: loads.length } : {}),
  });
  levels.push(level);
  loads.forEach((load, pin) => connect(builder, load, cell, pin));
  return { cell, input: 0 };
}

function connect({ cells }: Builder, to: Load, cell: number, pin: number) {
  const inverted = cells[to.cell].inputs[to.input]?.inverted ?? false;
  cells[to.cell].inputs[to.input] = { cell, pin, inverted };
}

/** The loads in as few cells of one level as can drive them, evenly filled. */
function driveAll(
  builder: Builder,
  name: string,
  level: number,
  loads: Load[],
): Load[] {
  const n = Math.ceil(loads.length / builder.capacity);
  return Array.from({ length: n }, (_, i) =>
    drive(
      builder,
      name,
      level,
      loads.slice(
        Math.floor(i * loads.length / n),
        Math.floor((i + 1) * loads.length / n),
      ),
    ));
}

/** The smallest tree: `treeCells` cells, from the farthest sinks to the source. */
function sharedTree(builder: Builder, source: number, sinks: Load[]): void {
  const { levels, cells } = builder;
  const { name } = cells[source];
  const waiting = [...sinks].sort((a, b) => levels[b.cell] - levels[a.cell]);
  let loads: Load[] = [];
  let next = 0;
  for (
    let level = levels[waiting[0].cell];
    level > levels[source] + 1;
    level--
  ) {
    while (next < waiting.length && levels[waiting[next].cell] === level) {
      loads.push(waiting[next++]);
    }
    loads = driveAll(builder, name, level - 1, loads);
  }
  connect(builder, loads[0] ?? waiting[0], source, 0);
}

/** The smallest tree with hops of up to s levels: the cells of `skippingTree`. */
function sharedSkippingTree(
  builder: Builder,
  source: number,
  sinks: Load[],
): void {
  const { levels, cells, capacity, reach } = builder;
  const { name } = cells[source];
  const sorted = [...sinks].sort((a, b) => levels[b.cell] - levels[a.cell]);
  const made: Load[] = [];
  for (
    const { level, loads } of skippingTree(
      levels[source],
      sorted.map(({ cell }) => levels[cell]),
      capacity,
      reach,
    )
  ) {
    const driven = loads.map((i) => i < 0 ? made[~i] : sorted[i]);
    made.push(drive(builder, name, level, driven));
  }
  connect(builder, made[made.length - 1] ?? sorted[0], source, 0);
}

/** All splitters next to the source, then a chain of buffers for each sink. */
function separateChains(builder: Builder, source: number, sinks: Load[]): void {
  const { levels, capacity, reach, cells } = builder;
  const { name } = cells[source];
  const split = splitterLevels(sinks.length, capacity);
  const leaf = levels[source] + split;
  let loads = sinks.map((sink) => {
    let load = sink;
    for (let level = levels[sink.cell] - reach; level > leaf; level -= reach) {
      load = drive(builder, name, level, [load]);
    }
    return load;
  });
  for (let level = leaf; level > levels[source]; level--) {
    loads = driveAll(builder, name, level, loads);
  }
  connect(builder, loads[0], source, 0);
}

/** Earliest levels when every tree has all its splitters next to the source. */
function naiveLevels(
  problem: LevelProblem,
  outputs: number[],
  balanceOutputs: boolean,
): Int32Array {
  const { order, lowest, sinkStart, sinks, capacity } = problem;
  const levels = lowest.slice();
  for (const v of order) {
    const [a, b] = [sinkStart[v], sinkStart[v + 1]];
    const next = levels[v] + 1 + splitterLevels(b - a, capacity);
    for (let i = a; i < b; i++) {
      levels[sinks[i]] = Math.max(levels[sinks[i]], next);
    }
  }
  if (balanceOutputs) {
    const last = outputs.reduce((l, v) => Math.max(l, levels[v]), 1);
    for (const v of outputs) levels[v] = last;
  }
  return levels;
}

/** Buffers and splitters of the trees that `separateChains` builds. */
function naiveCells(
  { size, sinkStart, sinks, capacity, reach }: LevelProblem,
  levels: Int32Array,
): number {
  let cells = 0;
  for (let v = 0; v < size; v++) {
    const [a, b] = [sinkStart[v], sinkStart[v + 1]];
    const split = splitterLevels(b - a, capacity);
    for (let n = b - a, i = 0; i < split; i++) {
      n = Math.ceil(n / capacity);
      cells += n;
    }
    for (let i = a; i < b; i++) {
      cells += chainCells(levels[sinks[i]] - levels[v] - split, reach);
    }
  }
  return cells;
}

// The whole ---------------------------------------------------------------------------------------

function resolve(
  netlist: Netlist,
  {
    levels = "improved",
    splitterCapacity = 4,
    maxLevelsPerHop = 1,
    ...rest
  }: InsertionOptions,
) {
  if (!METHODS.includes(levels)) {
    throw new TypeError(
      `Cannot insert buffers as levels must be one of ${
        METHODS.join(", ")
      }: levels ${JSON.stringify(levels)}`,
    );
  }
  if (!Number.isInteger(splitterCapacity) || splitterCapacity < 2) {
    throw new RangeError(
      `Cannot insert buffers as splitterCapacity must be a whole number from 2: splitterCapacity ${splitterCapacity}`,
    );
  }
  if (!Number.isInteger(maxLevelsPerHop) || maxLevelsPerHop < 1) {
    throw new RangeError(
      `Cannot insert buffers as maxLevelsPerHop must be a whole number from 1: maxLevelsPerHop ${maxLevelsPerHop}`,
    );
  }
  checkNetlist(netlist);
  if (!netlist.cells.some(({ kind }) => kind === "output")) {
    throw new RangeError(
      `Cannot insert buffers into ${netlist.name} as it must have an output: outputs 0`,
    );
  }
  return {
    levels,
    splitterCapacity,
    maxLevelsPerHop,
    balanceInputs: rest.balanceInputs ?? true,
    balanceOutputs: rest.balanceOutputs ?? true,
    maxProgramNodes: rest.maxProgramNodes ?? 20_000,
    maxCells: rest.maxCells ?? 4_000_000,
    key: rest.key ?? keyOf(0),
  };
}

/**
 * The netlist with buffers, splitters and levels.
 *
 * Buffers, splitters and inverters of the argument are taken out first, so a netlist that is already
 * balanced can be balanced again. Gates keep their names and order; gates that no output depends on
 * are left out.
 *
 * @returns Gates, ports and new cells with their levels; smallest depth except for `naive`
 * @throws RangeError if the netlist is not whole or has no output
 */
export async function insertBuffers(
  netlist: Netlist,
  options: InsertionOptions = {},
): Promise<Insertion> {
  const {
    levels: method,
    splitterCapacity,
    maxLevelsPerHop,
    balanceInputs,
    balanceOutputs,
    maxProgramNodes,
    maxCells,
    key,
  } = resolve(netlist, options);
  const notes = maxLevelsPerHop === 1 ? [] : [
    `phase skipping: a connection may lead up to ${maxLevelsPerHop} levels on, which needs a clock of ${
      clockPhasesFor(maxLevelsPerHop)
    } phases and cannot be placed in neighbouring rows`,
  ];
  const logic = bareLogic(netlist, notes);
  resolveInversions(logic);

  const ofKind = (wanted: string) =>
    logic.cells.flatMap(({ kind }, i) => kind === wanted ? [i] : []);
  const outputs = ofKind("output");
  const loads: Load[][] = logic.cells.map(() => []);
  const constants: Load[] = [];
  logic.cells.forEach(({ inputs }, cell) =>
    inputs.forEach((from, input) => {
      const constant = logic.cells[from.cell].kind === "constant";
      (constant ? constants : loads[from.cell]).push({ cell, input });
    })
  );
  const problem = levelProblem({
    sinks: loads.map((list) => list.map(({ cell }) => cell)),
    order: topologicalOrder(logic),
    inputs: ofKind("input"),
    outputs,
    capacity: splitterCapacity,
    reach: maxLevelsPerHop,
    balanceInputs,
    balanceOutputs,
  });
  const levels = await chooseLevels();
  const added = method === "naive"
    ? naiveCells(problem, levels)
    : totalCells(problem, levels);
  if (logic.cells.length + added > maxCells) {
    throw new RangeError(
      `Cannot insert buffers into ${netlist.name} as the result must have at most ${maxCells} cells (option maxCells): ${logic.cells.length} and ${added} buffers and splitters`,
    );
  }
  return build(logic, levels, {
    loads,
    constants,
    capacity: splitterCapacity,
    reach: maxLevelsPerHop,
    tree: method === "naive"
      ? separateChains
      : maxLevelsPerHop > 1
      ? sharedSkippingTree
      : sharedTree,
    notes,
  });

  async function chooseLevels(): Promise<Int32Array> {
    if (method === "naive") {
      return naiveLevels(problem, outputs, balanceOutputs);
    }
    if (method === "asap") return asapLevels(problem);
    let levels = alapLevels(problem);
    if (method === "alap") return levels;
    if (problem.size <= maxProgramNodes) {
      levels = await lpLevels(problem, levels);
    } else {
      notes.push(
        `the linear program was not solved, the earliest levels take its place: ${problem.size} gates and ports, maxProgramNodes ${maxProgramNodes}`,
      );
      levels = asapLevels(problem);
    }
    return method === "lp"
      ? levels
      : improveLevels(problem, levels, key, options);
  }
}

/** The netlist for given levels of its gates and ports. */
function build(
  logic: Netlist,
  chosen: Int32Array,
  { loads, constants, capacity, reach, tree, notes }: {
    loads: Load[][];
    constants: Load[];
    capacity: number;
    reach: number;
    tree: typeof sharedTree;
    notes: string[];
  },
): Insertion {
  // Constants move to the end, one for each pin; the others keep their order.
  const numbers = new Int32Array(logic.cells.length);
  const kept = logic.cells.flatMap(({ kind }, i) =>
    kind === "constant" ? [] : [i]
  );
  kept.forEach((i, n) => numbers[i] = n);
  const renumber = ({ cell, input }: Load) => ({ cell: numbers[cell], input });
  const builder: Builder = {
    cells: kept.map((i) => ({
      ...logic.cells[i],
      inputs: logic.cells[i].inputs.map((c) => ({ ...c })),
    })),
    levels: kept.map((i) => chosen[i]),
    names: new Set(kept.map((i) => logic.cells[i].name)),
    capacity,
    reach,
  };
  for (const i of kept) {
    if (loads[i].length > 0) tree(builder, numbers[i], loads[i].map(renumber));
  }
  for (const load of constants) {
    const { name, value } = logic.cells[
      logic.cells[load.cell].inputs[load.input].cell
    ];
    const { cell, input } = renumber(load);
    const pin = builder.cells[cell].inputs[input];
    const flipped = pin.inverted ? 1 - value! : value!;
    pin.inverted = false;
    pin.cell = builder.cells.length;
    builder.cells.push({
      name: freshName(builder.names, name),
      kind: "constant",
      inputs: [],
      value: flipped === 1 ? 1 : 0,
    });
    builder.levels.push(builder.levels[cell] - 1);
  }
  const levels = Int32Array.from(builder.levels);
  let depth = 0;
  builder.cells.forEach(({ kind }, i) => {
    if (kind !== "output") depth = Math.max(depth, levels[i]);
  });
  return { name: logic.name, cells: builder.cells, levels, depth, notes };
}
