/**
 * Levels of gates: how many buffers and splitters a choice of levels needs, and how to choose well.
 *
 * - Counting rule: that of irredundant buffer insertion, S.-Y. Lee, H. Riener, G. De Micheli, "Beyond
 *   local optimality of buffer and splitter insertion for AQFP circuits", DAC 2022; the wording is our
 *   reconstruction, checked against brute force.
 * - Linear program: difference constraints, so that its vertices are whole numbers; our formulation.
 * - Improvement: simulated annealing (Kirkpatrick et al., Science 220, 1983) whose moves carry
 *   neighbours along or take clusters of them; our method.
 *
 * Every cell takes one clock phase, so a connection must lead from one level to the next. A cell has
 * one output that drives one input; a signal with several sinks, or a far one, needs a tree of
 * splitters and buffers. Given the levels, the smallest tree of each signal is known exactly, and the
 * trees do not interact: all that is left to choose are the levels.
 *
 * | symbol | identifier | meaning |
 * | --- | --- | --- |
 * | L_v | levels[v] | level of node v, whole, from 0 |
 * | D | depth | level of the last cell; outputs stand at D + 1 |
 * | c | capacity | outputs that a splitter can have |
 * | e | edges | connections that enter a level in one tree |
 * | B(v) | treeCells | buffers and splitters in the tree of v |
 *
 * With `maxLevelsPerHop` s > 1 a connection may lead up to s levels on; the trees are then those of
 * `skipping.ts`. Which levels are possible does not change, as buffers can fill any hop.
 *
 * Scope: minimum depth, inputs and outputs balanced or free. Joint choice of logic and levels, and
 * trading depth for cells, are absent.
 */
import type { Highs } from "highs";
import { bits, fold, type Key } from "../core/rng.ts";
import { chainCells, INFEASIBLE, skippingTreeCells } from "./skipping.ts";

export { INFEASIBLE };

/**
 * Who drives whom, as nodes 0 ... size - 1. A signal that drives a node twice is listed twice among
 * the sinks. Lists are packed: those of v are at start[v] ... start[v + 1] - 1.
 */
export interface LevelProblem {
  size: number;
  /** c, from 2. */
  capacity: number;
  /** s, most levels of one connection, from 1. */
  reach: number;
  /** D, the smallest possible. */
  depth: number;
  /** Nodes with drivers before their sinks. */
  order: Int32Array; // [size]
  /** 1 where only one level is possible: balanced ports, critical paths, nodes without wires. */
  fixed: Uint8Array; // [size]
  /** A level that no node can go below at any depth: the longest way from an input. */
  lowest: Int32Array; // [size]
  /** Latest levels at the smallest depth. */
  latest: Int32Array; // [size]
  sinkStart: Int32Array; // [size + 1]
  sinks: Int32Array;
  driverStart: Int32Array; // [size + 1]
  /** Each driver once. */
  drivers: Int32Array;
}

// Counting ----------------------------------------------------------------------------------------

/**
 * Buffers and splitters between a source and its sinks.
 *
 * Start at the farthest sink's level with e = 0; at each level add to e the sinks there; the level
 * below needs B_l = ceil(e / c) cells, which are the edges that enter it: e := B_l. The source has one
 * output, so the tree fits if e = 1 at the level after the source with no sink left.
 *
 *   B = sum over levels of ceil(e / c)
 *
 * It is the smallest tree: a level's cells can drive at most c edges each, and fewer cells on a level
 * never make more cells necessary nearer to the source.
 *
 * @param source Level of the source
 * @param sinks Levels of its sinks, in any order
 * @param capacity c
 * @param reach s, most levels of one connection; default 1, for which the above holds. For more see
 * `skippingTreeCells`
 * @returns The number of cells, or `INFEASIBLE`
 *
 * @example
 * treeCells(0, [2, 3, 3], 4); // 2
 */
export function treeCells(
  source: number,
  sinks: ArrayLike<number>,
  capacity: number,
  reach = 1,
): number {
  const sorted = Int32Array.from(sinks).sort().reverse();
  return reach > 1
    ? skippingTreeCells(source, sorted, sorted.length, capacity, reach)
    : sortedTreeCells(source, sorted, sorted.length, capacity);
}

/** `treeCells` of the first k sinks, whose levels fall or stay. */
function sortedTreeCells(
  source: number,
  sinks: Int32Array,
  k: number,
  capacity: number,
): number {
  if (k === 0) return 0;
  const first = source + 1;
  if (sinks[k - 1] < first) return INFEASIBLE;
  let level = sinks[0];
  let edges = 0;
  let cells = 0;
  for (let i = 0;;) {
    while (i < k && sinks[i] === level) {
      edges++;
      i++;
    }
    if (level === first) return edges === 1 ? cells : INFEASIBLE;
    edges = edges <= capacity ? 1 : Math.ceil(edges / capacity);
    if (edges === 1) { // one cell per level down to the next sink
      const next = i < k ? sinks[i] : first;
      cells += level - next;
      level = next;
    } else {
      cells += edges;
      level--;
    }
  }
}

/** `treeCells` of sinks given as their number per level, none above `top`. */
function countedTreeCells(
  source: number,
  counts: Int32Array,
  top: number,
  capacity: number,
): number {
  let edges = 0;
  let cells = 0;
  for (let level = top; level > source + 1; level--) {
    edges = Math.ceil((edges + counts[level]) / capacity);
    cells += edges;
  }
  for (let level = source; level >= 0; level--) {
    if (counts[level] > 0) return INFEASIBLE;
  }
  return edges + counts[source + 1] === 1 ? cells : INFEASIBLE;
}

/** The latest level at which a source can drive sinks at levels that fall or stay. */
function latestSource(sinks: Int32Array, capacity: number): number {
  let level = sinks[0];
  let edges = 0;
  for (let i = 0;;) {
    while (i < sinks.length && sinks[i] === level) {
      edges++;
      i++;
    }
    if (i === sinks.length && edges === 1) return level - 1;
    edges = Math.ceil(edges / capacity);
    level = edges === 1 && i < sinks.length ? sinks[i] : level - 1;
  }
}

/**
 * Number of splitters between a source and any of k sinks that all stand at one level: ceil(log_c k).
 */
export function splitterLevels(k: number, capacity: number): number {
  let levels = 0;
  for (let reach = 1; reach < k; reach *= capacity) levels++;
  return levels;
}

/** Buffers and splitters of all trees, or `INFEASIBLE` if one cannot be built. */
export function totalCells(problem: LevelProblem, levels: Int32Array): number {
  let total = 0;
  for (let v = 0; v < problem.size; v++) {
    const cells = treeCells(
      levels[v],
      sinkLevels(problem, levels, v),
      problem.capacity,
      problem.reach,
    );
    if (cells === INFEASIBLE) return INFEASIBLE;
    total += cells;
  }
  return total;
}

/** Levels of the sinks of a node. */
function sinkLevels(
  { sinkStart, sinks }: LevelProblem,
  levels: Int32Array,
  v: number,
): Int32Array {
  return sinks.subarray(sinkStart[v], sinkStart[v + 1]).map((w) => levels[w]);
}

// The problem -------------------------------------------------------------------------------------

/** What `levelProblem` is made from. */
export interface LevelGraph {
  /** Sinks of each node, one entry per input driven. */
  sinks: number[][];
  /** Nodes with drivers before their sinks. */
  order: number[];
  inputs: number[];
  outputs: number[];
  capacity: number;
  /** s; default 1. */
  reach?: number;
  balanceInputs: boolean;
  balanceOutputs: boolean;
}

function pack(lists: number[][]): { start: Int32Array; items: Int32Array } {
  const start = new Int32Array(lists.length + 1);
  lists.forEach((list, i) => start[i + 1] = start[i] + list.length);
  const items = new Int32Array(start[lists.length]);
  lists.forEach((list, i) => items.set(list, start[i]));
  return { start, items };
}

/** The graph in packed form, with the smallest depth and the latest levels. */
export function levelProblem(graph: LevelGraph): LevelProblem {
  const { sinks, order, inputs, outputs, capacity } = graph;
  const size = sinks.length;
  const drivers: number[][] = sinks.map(() => []);
  sinks.forEach((list, v) => {
    for (const w of list) {
      if (drivers[w][drivers[w].length - 1] !== v) drivers[w].push(v);
    }
  });
  const isInput = new Uint8Array(size);
  for (const v of inputs) isInput[v] = 1;
  const isOutput = new Uint8Array(size);
  for (const v of outputs) isOutput[v] = 1;
  const given = (v: number) =>
    (isInput[v] && graph.balanceInputs) ||
    (isOutput[v] && graph.balanceOutputs) ||
    (sinks[v].length === 0 && drivers[v].length === 0);

  const lowest = Int32Array.from(isInput, (input) => 1 - input);
  for (const v of order) {
    const next = lowest[v] + (sinks[v].length > 1 ? 2 : 1);
    for (const w of sinks[v]) lowest[w] = Math.max(lowest[w], next);
  }

  // Latest levels, counted from the outputs at 0, then shifted until inputs reach 0 and gates 1.
  const latest = new Int32Array(size);
  let shift = 1;
  for (const v of [...order].reverse()) {
    if (sinks[v].length > 0) {
      const levels = Int32Array.from(sinks[v], (w) => latest[w]);
      latest[v] = latestSource(levels.sort().reverse(), capacity);
    } else latest[v] = isOutput[v] ? 0 : -1;
    shift = Math.max(shift, (isInput[v] ? 0 : 1) - latest[v]);
  }
  for (let v = 0; v < size; v++) {
    const unwired = sinks[v].length === 0 && isInput[v];
    latest[v] = isInput[v] && (graph.balanceInputs || unwired)
      ? 0
      : latest[v] + shift;
  }
  const to = pack(sinks);
  const from = pack(drivers);
  return {
    size,
    capacity,
    reach: graph.reach ?? 1,
    depth: shift - 1,
    order: Int32Array.from(order),
    fixed: Uint8Array.from(
      latest,
      (level, v) => given(v) || level === lowest[v] ? 1 : 0,
    ),
    lowest,
    latest,
    sinkStart: to.start,
    sinks: to.items,
    driverStart: from.start,
    drivers: from.items,
  };
}

/** Latest levels at the smallest depth ("as late as possible"). */
export function alapLevels({ latest }: LevelProblem): Int32Array {
  return latest.slice();
}

/**
 * Earliest levels at the smallest depth ("as soon as possible"): from the latest ones, each node moves
 * down as far as its drivers' trees allow, drivers before their sinks. Where a tree cannot serve all its sinks
 * early, those that are due first come first.
 */
export function asapLevels(problem: LevelProblem): Int32Array {
  const { order, fixed, latest, lowest, driverStart, drivers } = problem;
  const state = new LevelState(problem, latest);
  const { levels } = state;
  // Drivers first: a driver's latest level is below that of its sinks.
  for (const v of Array.from(order).sort((a, b) => latest[a] - latest[b])) {
    if (fixed[v]) continue;
    let level = lowest[v];
    for (let i = driverStart[v]; i < driverStart[v + 1]; i++) {
      level = Math.max(level, levels[drivers[i]] + 1);
    }
    for (; level < levels[v]; level++) {
      const change = state.propose(v, level - levels[v], false);
      if (!Number.isNaN(change)) state.accept(change);
      else state.undo();
    }
  }
  return levels;
}

// Linear program ----------------------------------------------------------------------------------

/**
 * Distances from each driver to its sinks that a tree can serve together and that the given levels
 * keep: d_i = min(L_i - L_v, h) with the smallest h for which the sum of c^(1 - d_i) is at most 1
 * (Kraft's inequality for trees of arity c below the source's single output).
 */
function treeDistances(problem: LevelProblem, levels: Int32Array): Int32Array {
  const { size, capacity, sinkStart, sinks } = problem;
  const distances = new Int32Array(sinks.length);
  for (let v = 0; v < size; v++) {
    const [a, b] = [sinkStart[v], sinkStart[v + 1]];
    // No farther than the tree with all sinks at one level, so that the sum is exact in double precision.
    for (let sum = a < b ? 2 : 0, h = 1; sum > 1; h++) {
      sum = 0;
      for (let i = a; i < b; i++) {
        distances[i] = Math.min(levels[sinks[i]] - levels[v], h);
        sum += capacity ** (1 - distances[i]);
      }
    }
  }
  return distances;
}

/**
 * The linear program. Column v is the level of node v, column size + v the farthest sink of v; each row
 * says that one column exceeds another by a gap.
 */
function linearProgram(problem: LevelProblem, levels: Int32Array) {
  const { size, fixed, lowest, depth, sinkStart, sinks } = problem;
  const rows: number[] = []; // columns in pairs: the greater, the lesser
  const cost = new Float64Array(2 * size);
  for (let v = 0; v < size; v++) {
    const [a, b] = [sinkStart[v], sinkStart[v + 1]];
    if (a === b) continue;
    cost[v] -= 1;
    cost[b - a > 1 ? size + v : sinks[a]] += 1;
    for (let i = a; i < b; i++) rows.push(sinks[i], v);
    if (b - a > 1) {
      for (let i = a; i < b; i++) rows.push(size + v, sinks[i]);
    }
  }
  const numRows = rows.length / 2;
  return {
    numCols: 2 * size,
    numRows,
    colCost: cost,
    colLower: Float64Array.from(
      cost,
      (_, i) => i >= size ? 0 : fixed[i] ? levels[i] : lowest[i],
    ),
    colUpper: Float64Array.from(
      cost,
      (_, i) => i < size && fixed[i] ? levels[i] : depth + 1,
    ),
    rowLower: rowGaps(problem, levels),
    rowUpper: new Float64Array(numRows).fill(Infinity),
    matrix: {
      format: "csr" as const,
      numRows,
      numCols: 2 * size,
      starts: Int32Array.from({ length: numRows + 1 }, (_, i) => 2 * i),
      indices: Int32Array.from(rows),
      values: Float64Array.from(rows, (_, i) => i % 2 === 0 ? 1 : -1),
    },
  };
}

/** Gap of each row: a tree's distances, then 0 for the rows of its farthest sink. */
function rowGaps(problem: LevelProblem, levels: Int32Array): Float64Array {
  const { size, sinkStart } = problem;
  const distances = treeDistances(problem, levels);
  const gaps: number[] = [];
  for (let v = 0; v < size; v++) {
    const [a, b] = [sinkStart[v], sinkStart[v + 1]];
    for (let i = a; i < b; i++) gaps.push(distances[i]);
    if (b - a > 1) { for (let i = a; i < b; i++) gaps.push(0); }
  }
  return Float64Array.from(gaps);
}

/** The solver, loaded when first needed. Every solution starts afresh, so they do not depend on each other. */
let solver: Promise<Highs> | undefined;

/**
 * Levels that minimise the length of the trees.
 *
 *   min sum over v of (M_v - L_v)   with  M_v >= L_w,  L_w - L_v >= d_vw  for every sink w of v
 *
 * M_v - L_v - 1 is the number of cells of a tree without branches beside its longest path; the cells
 * of other branches are not in the objective. The constraints are difference constraints, so the
 * matrix is totally unimodular and every vertex is whole. The distances d_vw are those of the current
 * trees; the program is solved again with those of its own solution until the count stops falling.
 *
 * @param rounds Most solutions, from 1; default 8, ours
 */
export async function lpLevels(
  problem: LevelProblem,
  start: Int32Array,
  { rounds = 8 }: { rounds?: number } = {},
): Promise<Int32Array> {
  if (problem.fixed.every((f) => f === 1)) return start.slice();
  // Deno takes the package's types for CommonJS, where the default export is the module itself.
  solver ??= import("highs").then((module) =>
    (module.default as unknown as () => Promise<Highs>)()
  );
  const highs = await solver;
  return highs.withModel(linearProgram(problem, start), (model) => {
    model.options.set({ output_flag: false });
    let best = start.slice();
    let fewest = totalCells(problem, start);
    let levels = best;
    for (let round = 0; round < rounds; round++) {
      if (round > 0) {
        const gaps = rowGaps(problem, levels);
        model.changeRowsBounds(
          { kind: "range", from: 0, to: gaps.length - 1 },
          gaps,
          new Float64Array(gaps.length).fill(Infinity),
        );
      }
      model.run();
      const status = model.getModelStatus();
      if (status !== highs.constants.modelStatus.optimal) {
        throw new Error(
          `Cannot choose levels by the linear program as HiGHS must find an optimum: status ${status}`,
        );
      }
      const { colValue } = model.getSolution();
      levels = levels.map((_, v) => Math.round(colValue[v]));
      const total = totalCells(problem, levels);
      if (total === INFEASIBLE) {
        throw new Error(
          "Cannot choose levels by the linear program as its solution must keep the trees feasible",
        );
      }
      if (round > 0 && total >= fewest) break;
      if (total < fewest) [best, fewest] = [levels, total];
    }
    return best;
  });
}

// Improvement -------------------------------------------------------------------------------------

/** From here on a run of annealing takes tens of seconds. */
const MANY_NODES = 20_000;

/** Nodes that one move may carry along because they are in its way. */
const MAX_CARRIED = 40;

/** Sinks from which on a tree is counted from a histogram of levels instead of a sorted list. */
const MANY_SINKS = 25;

/** Trees with skipping whose count is remembered before the memory is emptied. */
const MAX_REMEMBERED = 100_000;

/** Nodes that a cluster grows to before its neighbours are no longer asked. */
const MAX_CLUSTER = 20;

/** Neighbours at most this many levels away may join a cluster ... */
const CLUSTER_REACH = 2;

/** ... each with this probability. */
const JOIN_PROBABILITY = 0.8;

/** Share of moves that take a cluster. These four: the best of seven settings tried on c1908. */
const CLUSTER_SHARE = 0.3;

/** How often each entry of `drivers` occurs among the sinks of that driver. */
function driverTimes(
  { size, driverStart, drivers, sinkStart, sinks }: LevelProblem,
): Uint32Array {
  const times = new Uint32Array(drivers.length);
  const next = driverStart.slice(); // the entry of a node that the next driver takes
  for (let v = 0; v < size; v++) {
    for (let i = sinkStart[v]; i < sinkStart[v + 1]; i++) {
      const w = sinks[i];
      let at = next[w];
      if (drivers[at] !== v) at = ++next[w];
      times[at]++;
    }
  }
  return times;
}

/** Levels under change: the cells of each tree, and a move that can be taken back. */
class LevelState {
  readonly problem: LevelProblem;
  readonly levels: Int32Array;
  total = 0;
  /** Cells of each node's tree as of the last accepted move. */
  private readonly cells: Int32Array;
  private readonly scratch: Int32Array;
  /** Trees with skipping that were counted. */
  private readonly remembered = new Map<string, number>();
  /** Of nodes with many sinks, the number of these per level. */
  private readonly counts = new Map<number, Int32Array>();
  /** For each entry of `drivers` of a node, how many of the driver's sinks are that node. */
  private readonly times: Uint32Array;
  /** Number of the move that last touched a node's tree. */
  private readonly stamp: Int32Array;
  private move = 0;
  private readonly moved: number[] = [];
  private readonly before: number[] = [];
  private readonly touched: number[] = [];
  private carried = 0;
  /** Number of the move in whose cluster a node last was. */
  private readonly inside: Int32Array;

  constructor(problem: LevelProblem, levels: Int32Array) {
    const { size, sinkStart, sinks } = problem;
    this.problem = problem;
    this.levels = levels.slice();
    this.cells = new Int32Array(size);
    this.stamp = new Int32Array(size);
    this.inside = new Int32Array(size);
    for (let v = 0; v < size; v++) {
      const [a, b] = [sinkStart[v], sinkStart[v + 1]];
      if (b - a < MANY_SINKS) continue;
      const counts = new Int32Array(problem.depth + 2);
      for (let i = a; i < b; i++) counts[levels[sinks[i]]]++;
      this.counts.set(v, counts);
    }
    this.scratch = new Int32Array(MANY_SINKS);
    this.times = driverTimes(problem);
    for (let v = 0; v < size; v++) {
      this.cells[v] = this.tree(v);
      if (this.cells[v] === INFEASIBLE) {
        throw new RangeError(
          `Cannot improve levels as every tree must be feasible at the start: node ${v}`,
        );
      }
      this.total += this.cells[v];
    }
  }

  /** Cells of a tree at the present levels. */
  private tree(v: number): number {
    const { sinkStart, sinks, capacity, depth, reach } = this.problem;
    const { levels, scratch } = this;
    const a = sinkStart[v];
    const k = sinkStart[v + 1] - a;
    if (k === 0) return 0;
    if (k === 1) return chainCells(levels[sinks[a]] - levels[v], reach);
    if (reach > 1 && k > capacity) return this.skippingTree(v);
    if (k >= MANY_SINKS) {
      const counts = this.counts.get(v)!;
      return countedTreeCells(levels[v], counts, depth + 1, capacity);
    }
    for (let i = 0; i < k; i++) { // by insertion, falling
      const level = levels[sinks[a + i]];
      let j = i;
      for (; j > 0 && scratch[j - 1] < level; j--) scratch[j] = scratch[j - 1];
      scratch[j] = level;
    }
    return reach > 1
      ? skippingTreeCells(levels[v], scratch, k, capacity, reach)
      : sortedTreeCells(levels[v], scratch, k, capacity);
  }

  /** Cells of a tree with skipping and more than c sinks, remembered by the distances of the sinks. */
  private skippingTree(v: number): number {
    const { sinkStart, sinks, capacity, reach } = this.problem;
    const { levels, remembered } = this;
    const gaps = sinks.slice(sinkStart[v], sinkStart[v + 1]);
    for (let i = 0; i < gaps.length; i++) gaps[i] = levels[gaps[i]] - levels[v];
    gaps.sort().reverse();
    const name = gaps.join();
    let cells = remembered.get(name);
    if (cells === undefined) {
      cells = skippingTreeCells(0, gaps, gaps.length, capacity, reach);
      if (remembered.size >= MAX_REMEMBERED) remembered.clear();
      remembered.set(name, cells);
    }
    return cells;
  }

  private touch(v: number): void {
    if (this.stamp[v] === this.move) return;
    this.stamp[v] = this.move;
    this.touched.push(v);
  }

  private set(v: number, level: number): void {
    const { driverStart, drivers } = this.problem;
    this.moved.push(v);
    this.before.push(this.levels[v]);
    this.shift(v, level);
    this.touch(v);
    for (let i = driverStart[v]; i < driverStart[v + 1]; i++) {
      this.touch(drivers[i]);
    }
  }

  /** Changes a level, in the histograms too. */
  private shift(v: number, level: number): void {
    const { driverStart, drivers } = this.problem;
    if (this.counts.size > 0) {
      for (let i = driverStart[v]; i < driverStart[v + 1]; i++) {
        const counts = this.counts.get(drivers[i]);
        if (counts === undefined) continue;
        counts[this.levels[v]] -= this.times[i];
        counts[level] += this.times[i];
      }
    }
    this.levels[v] = level;
  }

  /** Moves a node up and, while its tree does not fit, its nearest sinks with it. */
  private raise(v: number, level: number): boolean {
    const { fixed, latest } = this.problem;
    if (fixed[v] || level > latest[v] || this.carried++ > MAX_CARRIED) {
      return false;
    }
    this.set(v, level);
    return this.makeRoomAbove(v, level);
  }

  /** Moves the nearest sinks up while the tree does not fit. */
  private makeRoomAbove(v: number, level: number): boolean {
    const { fixed, sinkStart, sinks } = this.problem;
    while (this.tree(v) === INFEASIBLE) {
      let nearest = -1;
      for (let i = sinkStart[v]; i < sinkStart[v + 1]; i++) {
        const w = sinks[i];
        if (
          !fixed[w] &&
          (nearest < 0 || this.levels[w] < this.levels[nearest])
        ) nearest = w;
      }
      if (nearest < 0) return false;
      const next = Math.max(this.levels[nearest], level) + 1;
      if (!this.raise(nearest, next)) return false;
    }
    return true;
  }

  /** Moves a node down and, while their trees do not fit, its drivers with it. */
  private lower(v: number, level: number): boolean {
    const { fixed, lowest } = this.problem;
    if (fixed[v] || level < lowest[v] || this.carried++ > MAX_CARRIED) {
      return false;
    }
    this.set(v, level);
    return this.makeRoomBelow(v, level);
  }

  /** Moves drivers down while their trees do not fit. */
  private makeRoomBelow(v: number, level: number): boolean {
    const { driverStart, drivers } = this.problem;
    for (let i = driverStart[v]; i < driverStart[v + 1]; i++) {
      const u = drivers[i];
      while (this.tree(u) === INFEASIBLE) {
        const next = Math.min(this.levels[u], level) - 1;
        if (!this.lower(u, next)) return false;
      }
    }
    return true;
  }

  /**
   * Moves node v by some levels; with `carry` also the neighbours that are in its way.
   *
   * @returns The change in cells, or NaN if the move is not possible. To be followed by `accept` or
   * `undo`.
   */
  propose(v: number, by: number, carry: boolean): number {
    this.begin();
    const level = this.levels[v] + by;
    if (carry) {
      if (!(by > 0 ? this.raise(v, level) : this.lower(v, level))) return NaN;
    } else if (!this.within(v, level)) return NaN;
    else this.set(v, level);
    return this.change();
  }

  /**
   * Moves a random cluster around node v by some levels, then whatever is in its way. Result as of
   * `propose`.
   */
  proposeCluster(v: number, by: number, unit: () => number): number {
    this.begin();
    const cluster = this.grow(v, unit);
    for (const w of cluster) {
      const level = this.levels[w] + by;
      if (!this.within(w, level)) return NaN;
      this.set(w, level);
    }
    for (const w of cluster) {
      const level = this.levels[w];
      if (
        !(by > 0 ? this.makeRoomAbove(w, level) : this.makeRoomBelow(w, level))
      ) {
        return NaN;
      }
    }
    return this.change();
  }

  /** A node and neighbours of neighbours, near in level, each with probability `JOIN_PROBABILITY`. */
  private grow(v: number, unit: () => number): number[] {
    const { fixed, sinkStart, sinks, driverStart, drivers } = this.problem;
    const { levels, inside, move } = this;
    const cluster = [v];
    inside[v] = move;
    const ask = (w: number, distance: number) => {
      if (fixed[w] || inside[w] === move || distance > CLUSTER_REACH) return;
      if (unit() >= JOIN_PROBABILITY) return;
      inside[w] = move;
      cluster.push(w);
    };
    for (let n = 0; n < cluster.length && cluster.length < MAX_CLUSTER; n++) {
      const x = cluster[n];
      const a = sinkStart[x];
      const k = sinkStart[x + 1] - a;
      // Of many sinks, some in a row from a random one on.
      const first = k > MANY_SINKS ? Math.floor(unit() * k) : 0;
      for (let i = 0; i < Math.min(k, MANY_SINKS); i++) {
        const w = sinks[a + (first + i) % k];
        ask(w, levels[w] - levels[x]);
      }
      for (let i = driverStart[x]; i < driverStart[x + 1]; i++) {
        ask(drivers[i], levels[x] - levels[drivers[i]]);
      }
    }
    return cluster;
  }

  private begin(): void {
    this.move++;
    this.moved.length = this.before.length = this.touched.length = 0;
    this.carried = 0;
  }

  private within(v: number, level: number): boolean {
    return level >= this.problem.lowest[v] && level <= this.problem.latest[v];
  }

  /** New cells minus old ones of all trees touched, NaN if one is infeasible. */
  private change(): number {
    let change = 0;
    for (const u of this.touched) {
      const cells = this.tree(u);
      if (cells === INFEASIBLE) return NaN;
      change += cells - this.cells[u];
    }
    return change;
  }

  accept(change: number): void {
    for (const u of this.touched) this.cells[u] = this.tree(u);
    this.total += change;
  }

  undo(): void {
    for (let i = this.moved.length - 1; i >= 0; i--) {
      this.shift(this.moved[i], this.before[i]);
    }
  }
}

export interface ImproveOptions {
  /**
   * Runs of annealing, each from the best levels so far. Default 4, or 1 above 20 000 nodes or with
   * phase skipping, ours.
   */
  runs?: number;
  /**
   * Moves tried in each run. Default 5000 per node that can move, at most 300 000 (60 000 with phase
   * skipping) or 50 per node, ours.
   */
  moves?: number;
  /** Temperature, in cells, at the start of a run. Default 0.8; 0.3 below 300 moves per node, ours. */
  hot?: number;
  /** Temperature at its end. Default 0.15, ours. */
  cold?: number;
}

/** Random words of a key, drawn one by one. */
function stream(key: Key): () => number {
  const BLOCK = 1 << 15;
  let words: Uint32Array = new Uint32Array(0);
  let block = 0;
  let at = 0;
  return () => {
    if (at === words.length) {
      words = bits(fold(key, block++), BLOCK);
      at = 0;
    }
    return words[at++];
  };
}

/**
 * Levels with fewer cells, by simulated annealing on the exact count.
 *
 * A move takes a node up or down by 1 to 3 levels: alone, with what stands in its way (going up, the nearest
 * sinks; going down, the drivers), or as a random cluster of near neighbours, so that chains and cones
 * travel in one step. A change of d cells is accepted with probability min(1, exp(-d / T)); T falls
 * geometrically. The best levels met are returned, so the result is never worse than the start.
 */
export function improveLevels(
  problem: LevelProblem,
  start: Int32Array,
  key: Key,
  { runs, moves, hot, cold = 0.15 }: ImproveOptions = {},
): Int32Array {
  const movable: number[] = [];
  for (let v = 0; v < problem.size; v++) if (!problem.fixed[v]) movable.push(v);
  if (movable.length === 0) return start.slice();
  const n = movable.length;
  const skipping = problem.reach > 1; // counting a tree of many sinks then takes about 0.1 ms
  const most = skipping ? 60_000 : 300_000;
  const tries = moves ?? Math.max(50 * n, Math.min(most, 5000 * n));
  let best = start;
  for (
    let run = 0;
    run < (runs ?? (n > MANY_NODES || skipping ? 1 : 4));
    run++
  ) {
    best = anneal(problem, best, movable, stream(fold(key, run)), {
      tries,
      hot: hot ?? (tries >= 300 * n ? 0.8 : 0.3),
      cold,
    });
  }
  return best;
}

/** One run of annealing; the best levels met. */
function anneal(
  problem: LevelProblem,
  start: Int32Array,
  movable: number[],
  draw: () => number,
  { tries, hot, cold }: { tries: number; hot: number; cold: number },
): Int32Array {
  const state = new LevelState(problem, start);
  const unit = () => draw() * 2 ** -32;
  let best = start.slice();
  let fewest = state.total;
  let temperature = hot;
  for (let n = 0; n < tries; n++) {
    if (n % 1024 === 0) temperature = hot * (cold / hot) ** (n / tries);
    const v = movable[Math.floor(unit() * movable.length)];
    const word = draw();
    const by = (1 + (word >>> 16) % 3) * (word & 1 ? 1 : -1);
    const change = unit() < CLUSTER_SHARE
      ? state.proposeCluster(v, by, unit)
      : state.propose(v, by, (word & 2) !== 0);
    if (
      change <= 0 || (change > 0 && unit() < Math.exp(-change / temperature))
    ) {
      state.accept(change);
      if (state.total < fewest) {
        fewest = state.total;
        best = state.levels.slice();
      }
    } else state.undo();
  }
  return best;
}
