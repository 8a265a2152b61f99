/**
 * From and, or and inverter to majority gates: which three-input functions become gates.
 *
 * - SuperFlow, DATE 2024, arXiv 2407.18209, and before it R. Cai et al., "A Majority Logic Synthesis
 *   Framework for Adiabatic Quantum-Flux-Parametron Superconducting Circuits", GLSVLSI 2019: cones of
 *   logic with three leaves whose function one gate computes are replaced by that gate. 40 functions
 *   qualify ("majority primary"): constants, a variable, and, or, majority, with any inversions.
 * - The cover (which cones) follows A. Mishchenko et al., "Improvements to technology mapping for
 *   LUT-based FPGAs", FPGA 2006: shortest depth first, then area recovered by area flow and by exact
 *   local area, under the required times.
 *
 * | symbol | identifier | meaning |
 * | --- | --- | --- |
 * | cut | Cut | up to 3 leaves that determine a node; cuts of a node are merged from those of its fanins |
 * | f | table | function of the cut, 8 bits; leaf i is the variable with table VARIABLES[i] |
 * | AF | flow | gates of the node's cone, each shared by its readers |
 * | req | required | latest level at which the node may stand for the depth to be kept |
 *
 * A graph is covered again until nothing is gained, since its new nodes have new cuts. Extensions of
 * ours: with `functions: "all"` every function of three inputs is a candidate, at the price of the
 * smallest network of majority gates (3 for xor and multiplexer); rewriting (rewrite.ts) follows the
 * covers; of all graphs met the one with the fewest junctions, buffers and splitters estimated, is kept.
 *
 * Scope: single outputs, three leaves. Larger cuts are absent.
 */
import { JJ_COUNT } from "../core/aqfp.ts";
import {
  alapLevels,
  asapLevels,
  INFEASIBLE,
  levelProblem,
  totalCells,
} from "./levels.ts";
import {
  isInverted,
  Mig,
  netlistOf,
  nodeOf,
  type PortNames,
  portNames,
} from "./mig.ts";
import { checkNetlist, type Netlist, ports } from "./netlist.ts";
import { rewrite } from "./rewrite.ts";

/** How cones are chosen. */
export type Cover = "gates" | "first-fit" | "flow" | "exact";

export interface MappingOptions {
  /**
   * `"gates"` maps gate by gate, `"first-fit"` walks from the outputs and takes the cone that absorbs
   * most, `"flow"` (default) recovers area over the whole graph, `"exact"` solves for the fewest gates
   * as an integer program, for some hundred gates.
   */
  cover?: Cover;
  /** The 40 functions of one gate (the paper's), or all 256, by up to four gates (default, ours). */
  functions?: "primary" | "all";
  /** Levels above the shortest depth that may be spent to save gates; several are tried by default. */
  slack?: number;
  /** Covers at most so often; 8 by default, our choice. */
  rounds?: number;
}

// ---------------------------------------------------------------------------------------------
// Functions of three variables

const VARIABLES = [0xaa, 0xcc, 0xf0];

/** A gate of a small network: fanins are 2 signal + inversion, signals 0 = false, 1-3 = variables. */
export type Gate = [number, number, number];

/** How a function is built: gates, and the literal of the result. */
export interface Structure {
  gates: Gate[];
  output: number;
  /** Levels from each variable to the result, -1 where it has no influence. */
  depths: [number, number, number];
}

function majority(a: number, b: number, c: number): number {
  return (a & b) | (a & c) | (b & c);
}

function bitCount(word: number): number {
  let count = 0;
  for (; word !== 0; word &= word - 1) count++;
  return count;
}

/** Levels from each variable to the result of a network. */
function structureDepths(
  gates: Gate[],
  output: number,
): [number, number, number] {
  return [1, 2, 3].map((variable) => {
    const depths = new Array(4 + gates.length).fill(-1);
    depths[variable] = 0;
    gates.forEach((gate, i) => {
      for (const literal of gate) {
        const depth = depths[literal >> 1];
        if (depth >= 0) depths[4 + i] = Math.max(depths[4 + i], depth + 1);
      }
    });
    return depths[output >> 1];
  }) as [number, number, number];
}

/**
 * The smallest networks of majority gates for all functions of three variables, by search.
 *
 * Networks of n gates are those of n - 1 gates with one more on any three signals. A function keeps
 * every network of its smallest size, up to a number: which of them shares gates with the rest of the
 * graph, or is shallow from the late input, is seen only in place.
 */
function searchStructures(limit: number): Structure[][] {
  const found: Structure[][] = Array.from({ length: 256 }, () => []);
  const size = new Int32Array(256).fill(99);
  const note = (table: number, gates: Gate[], output: number) => {
    for (const inverted of [0, 1]) {
      const f = inverted ? ~table & 255 : table;
      if (gates.length > size[f]) continue;
      size[f] = gates.length;
      if (found[f].length < MAX_STRUCTURES) {
        const literal = output ^ inverted;
        found[f].push({
          gates: [...gates],
          output: literal,
          depths: structureDepths(gates, literal),
        });
      }
    }
  };
  note(0, [], 0);
  VARIABLES.forEach((table, i) => note(table, [], 2 * (i + 1)));
  const tables = [0, ...VARIABLES];
  const gates: Gate[] = [];
  /** Adds `remaining` gates; `unused` has the bits of the signals that no gate reads yet. */
  const extend = (remaining: number, unused: number) => {
    const n = tables.length;
    const last = gates[gates.length - 1];
    for (let c = 2; c < n; c++) {
      for (let b = 1; b < c; b++) {
        for (let a = 0; a < b; a++) {
          const open = unused & ~(1 << a | 1 << b | 1 << c);
          // the last gate must read all that is left, one before it can leave two for each that follows
          if (remaining === 1 ? open !== 0 : bitCount(open) >= 2 * remaining) {
            continue;
          }
          // gates that do not read each other are the same network in either order
          if (last !== undefined && c !== n - 1 && c < last[2] >> 1) continue;
          for (let inversion = 0; inversion < 4; inversion++) {
            const x = inversion & 1;
            const y = inversion >> 1;
            const table = majority(
              x ? ~tables[a] : tables[a],
              y ? ~tables[b] : tables[b],
              tables[c],
            ) & 255;
            if (tables.some((t) => t === table || (t ^ 255) === table)) {
              continue;
            }
            gates.push([2 * a + x, 2 * b + y, 2 * c]);
            note(table, gates, 2 * n);
            if (remaining > 1) {
              tables.push(table);
              extend(remaining - 1, open | 1 << n);
              tables.pop();
            }
            gates.pop();
          }
        }
      }
    }
  };
  for (let gateCount = 1; gateCount <= limit; gateCount++) extend(gateCount, 0);
  return found;
}

/** Networks kept per function. */
const MAX_STRUCTURES = 24;

const structureCache = new Map<string, Structure[][]>();

/** Networks for each of the 256 functions: none where a function is not to be used. */
function structures(functions: "primary" | "all"): Structure[][] {
  let table = structureCache.get(functions);
  if (table === undefined) {
    table = searchStructures(functions === "primary" ? 1 : 4);
    structureCache.set(functions, table);
  }
  return table;
}

/** The truth tables, 8 bits each, of the functions that one gate computes: 40 of 256. */
export function majorityPrimary(): number[] {
  return structures("primary").flatMap((list, table) =>
    list.length > 0 ? [table] : []
  );
}

/**
 * The smallest networks of majority gates for each of the 256 functions of three inputs: gates whose
 * inputs are 2 signal + inversion, signal 0 the constant false, 1 to 3 the inputs, 4 on the gates.
 */
export function smallestNetworks(): readonly (readonly Structure[])[] {
  return structures("all");
}

// ---------------------------------------------------------------------------------------------
// Cuts

interface Cut {
  /** Nodes, ascending. */
  leaves: number[];
  table: number;
  /** Number of nodes between the leaves and the root, the root included, as merged. */
  absorbed: number;
}

/** Cuts kept per node, our choice. */
const MAX_CUTS = 12;

/** A function of `from` leaves as a function of the leaves `to`, which contain them. */
function expand(table: number, from: number[], to: number[]): number {
  if (from.length === to.length) return table;
  const place = from.map((leaf) => to.indexOf(leaf));
  let result = 0;
  for (let row = 0; row < 8; row++) {
    let source = 0;
    place.forEach((p, i) => source |= ((row >> p) & 1) << i);
    result |= ((table >> source) & 1) << row;
  }
  return result;
}

/** True if the function depends on variable i. */
function dependsOn(table: number, i: number): boolean {
  const mask = ~VARIABLES[i] & 255;
  return ((table >> (1 << i)) & mask) !== (table & mask);
}

/** Drops leaves without influence; constants are never leaves. */
function reduced({ leaves, table, absorbed }: Cut): Cut {
  const kept = leaves.filter((_, i) => dependsOn(table, i));
  if (kept.length === leaves.length) return { leaves, table, absorbed };
  let result = 0;
  const place = kept.map((leaf) => leaves.indexOf(leaf));
  for (let row = 0; row < 8; row++) {
    let source = 0;
    place.forEach((p, i) => source |= ((row >> i) & 1) << p);
    result |= ((table >> source) & 1) << row;
  }
  return { leaves: kept, table: result, absorbed };
}

/** Cuts of every node with up to three leaves, without the node itself as its own leaf. */
function enumerateCuts(mig: Mig): Cut[][] {
  const cuts: Cut[][] = Array.from({ length: mig.size }, () => []);
  const own = (node: number): Cut[] =>
    node === 0
      ? [{ leaves: [], table: 0, absorbed: 0 }]
      : [{ leaves: [node], table: VARIABLES[0], absorbed: 0 }, ...cuts[node]];
  for (let node = 1; node < mig.size; node++) {
    if (!mig.isGate(node)) continue;
    const [f, g, h] = mig.fanins.slice(3 * node, 3 * node + 3);
    const seen = new Map<string, Cut>();
    for (const cf of own(nodeOf(f))) {
      for (const cg of own(nodeOf(g))) {
        const two = union(cf.leaves, cg.leaves);
        if (two === undefined) continue;
        for (const ch of own(nodeOf(h))) {
          const leaves = union(two, ch.leaves);
          if (leaves === undefined) continue;
          const value = (cut: Cut, literal: number) =>
            expand(cut.table, cut.leaves, leaves) ^
            (isInverted(literal) ? 255 : 0);
          const cut = reduced({
            leaves,
            table: majority(value(cf, f), value(cg, g), value(ch, h)) & 255,
            absorbed: 1 + cf.absorbed + cg.absorbed + ch.absorbed,
          });
          const key = cut.leaves.join();
          const other = seen.get(key);
          if (other === undefined || other.absorbed < cut.absorbed) {
            seen.set(key, cut);
          }
        }
      }
    }
    // gate by gate must stay possible: the cut of the fanins comes first
    const fanins = [f, g, h].map(nodeOf).filter((n) => n > 0).sort((a, b) =>
      a - b
    ).join();
    const direct = seen.get(fanins);
    seen.delete(fanins);
    cuts[node] = [
      ...(direct === undefined ? [] : [direct]),
      ...[...seen.values()].sort((a, b) => b.absorbed - a.absorbed),
    ].slice(0, MAX_CUTS);
  }
  return cuts;
}

/** Union of ascending lists, or undefined with more than three members. */
function union(a: number[], b: number[]): number[] | undefined {
  const result: number[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const next = j >= b.length || (i < a.length && a[i] <= b[j]) ? a[i] : b[j];
    if (result.length === 3) return undefined;
    result.push(next);
    if (a[i] === next) i++;
    if (b[j] === next) j++;
  }
  return result;
}

// ---------------------------------------------------------------------------------------------
// Covers

/** A cut that a network of gates can compute, with its price. */
interface Match {
  leaves: number[];
  table: number;
  /** Gates of the network. */
  gates: number;
  /** Levels from each leaf to the root. */
  depths: number[];
  absorbed: number;
}

/** Depth profiles of the networks of a function, without those that another is never worse than. */
function profiles(list: Structure[]): number[][] {
  const all = list.map(({ depths }) => depths);
  const worse = (a: number[], b: number[]) => a.every((d, i) => d >= b[i]);
  return all.filter((a, i) =>
    !all.some((b, j) => worse(a, b) && (!worse(b, a) || j < i))
  );
}

const profileCache = new WeakMap<Structure[][], number[][][]>();

function matchesOf(cuts: Cut[][], table: Structure[][]): Match[][] {
  let profilesOf = profileCache.get(table)!;
  if (profilesOf === undefined) {
    profilesOf = table.map(profiles);
    profileCache.set(table, profilesOf);
  }
  return cuts.map((list) =>
    list.flatMap(({ leaves, table: f, absorbed }) =>
      profilesOf[f].map((depths): Match => ({
        leaves,
        table: f,
        gates: table[f][0].gates.length,
        depths,
        absorbed,
      }))
    )
  );
}

/** The match chosen for each node. */
type Choice = (Match | undefined)[];

/** Level of a match's root, given the levels of its leaves. */
function arrival({ leaves, depths }: Match, levels: Int32Array): number {
  let level = 0;
  for (let i = 0; i < leaves.length; i++) {
    level = Math.max(level, levels[leaves[i]] + depths[i]);
  }
  return level;
}

/** How often each node is read, from the outputs down; 0 for nodes that are not needed. */
function references(
  mig: Mig,
  outputs: readonly number[],
  chosen: Choice,
): Int32Array {
  const counts = new Int32Array(mig.size);
  for (const literal of outputs) counts[nodeOf(literal)]++;
  for (let node = mig.size - 1; node > 0; node--) {
    if (counts[node] === 0) continue;
    for (const leaf of chosen[node]?.leaves ?? []) counts[leaf]++;
  }
  return counts;
}

/** Takes at each needed node the cone that absorbs most, whatever else reads its inside. */
function firstFit(
  mig: Mig,
  outputs: readonly number[],
  matches: Match[][],
): Choice {
  const chosen: Choice = new Array(mig.size);
  const needed = new Uint8Array(mig.size);
  for (const literal of outputs) needed[nodeOf(literal)] = 1;
  for (let node = mig.size - 1; node > 0; node--) {
    if (!needed[node] || !mig.isGate(node)) continue;
    const best = matches[node].reduce((a, b) =>
      b.absorbed > a.absorbed ? b : a
    );
    chosen[node] = best;
    for (const leaf of best.leaves) needed[leaf] = 1;
  }
  return chosen;
}

/** Latest level of every node that keeps the outputs at `depth`. */
function requiredLevels(
  mig: Mig,
  outputs: readonly number[],
  chosen: Choice,
  depth: number,
): Int32Array {
  const required = new Int32Array(mig.size).fill(UNBOUNDED);
  for (const literal of outputs) required[nodeOf(literal)] = depth;
  for (let node = mig.size - 1; node > 0; node--) {
    const match = chosen[node];
    if (match === undefined || required[node] === UNBOUNDED) continue;
    match.leaves.forEach((leaf, i) =>
      required[leaf] = Math.min(
        required[leaf],
        required[node] - match.depths[i],
      )
    );
  }
  return required;
}

const UNBOUNDED = 1 << 29;

/** Passes by area flow and by exact local area after the one for depth, our choice. */
const FLOW_PASSES = 3;
const AREA_PASSES = 3;

/**
 * A cover of shortest depth (plus `slack`) with few gates.
 *
 * Area flow: AF(n) = (gates(n) + sum over leaves AF(leaf)) / readers(n), so that shared cones look
 * cheap before it is known that they will be shared. Exact local area: the gates that would vanish
 * with the node if nothing else changed, by counting references down and up again.
 */
function flowCover(
  mig: Mig,
  outputs: readonly number[],
  matches: Match[][],
  slack: number,
): Choice {
  const chosen: Choice = new Array(mig.size);
  const levels = new Int32Array(mig.size);
  const flow = new Float64Array(mig.size);
  const readers = new Float64Array(mig.size);
  for (const literal of outputs) readers[nodeOf(literal)]++;
  for (let i = 3; i < mig.fanins.length; i++) {
    if (mig.fanins[i] >= 0) readers[nodeOf(mig.fanins[i])]++;
  }
  let required: Int32Array = new Int32Array(mig.size).fill(UNBOUNDED);
  let depth = 0;
  const flowOf = ({ gates, leaves }: Match) => {
    let sum = gates;
    for (const leaf of leaves) sum += flow[leaf];
    return sum;
  };
  /** Choice by flow among the matches that arrive in time; `first` prefers early arrival. */
  const flowPass = (first: boolean) => {
    for (let node = 1; node < mig.size; node++) {
      if (!mig.isGate(node)) continue;
      let best: Match | undefined;
      let bestFlow = Infinity;
      let bestLevel = Infinity;
      for (const match of matches[node]) {
        const level = arrival(match, levels);
        if (level > required[node]) continue;
        const area = flowOf(match);
        const better = first
          ? level < bestLevel || (level === bestLevel && area < bestFlow)
          : area < bestFlow - 1e-9 ||
            (area < bestFlow + 1e-9 && level < bestLevel);
        if (better) best = match, bestFlow = area, bestLevel = level;
      }
      // the choice before this pass arrives in time, as required levels come from it
      best ??= chosen[node]!;
      chosen[node] = best;
      levels[node] = arrival(best, levels);
      flow[node] = flowOf(best) / Math.max(1, readers[node]);
    }
  };
  const update = () => {
    const counts = references(mig, outputs, chosen);
    // half old, half new: estimates that jump make the passes oscillate
    for (let i = 0; i < readers.length; i++) {
      readers[i] = (readers[i] + Math.max(1, counts[i])) / 2;
    }
    required = requiredLevels(mig, outputs, chosen, depth);
    return counts;
  };
  flowPass(true);
  for (const literal of outputs) {
    depth = Math.max(depth, levels[nodeOf(literal)]);
  }
  depth += slack;
  let counts = update();
  for (let pass = 0; pass < FLOW_PASSES; pass++) {
    flowPass(false);
    counts = update();
  }
  const reference = (match: Match): number => {
    let area = match.gates;
    for (const leaf of match.leaves) {
      if (counts[leaf]++ === 0 && mig.isGate(leaf)) {
        area += reference(chosen[leaf]!);
      }
    }
    return area;
  };
  const dereference = (match: Match): void => {
    for (const leaf of match.leaves) {
      if (--counts[leaf] === 0 && mig.isGate(leaf)) dereference(chosen[leaf]!);
    }
  };
  for (let pass = 0; pass < AREA_PASSES; pass++) {
    for (let node = 1; node < mig.size; node++) {
      if (!mig.isGate(node)) continue;
      const used = counts[node] > 0;
      if (used) dereference(chosen[node]!);
      let best = chosen[node]!;
      let bestArea = Infinity;
      let bestLevel = Infinity;
      for (const match of matches[node]) {
        const level = arrival(match, levels);
        if (level > required[node]) continue;
        const area = reference(match);
        dereference(match);
        if (area < bestArea || (area === bestArea && level < bestLevel)) {
          best = match, bestArea = area, bestLevel = level;
        }
      }
      chosen[node] = best;
      levels[node] = arrival(best, levels);
      if (used) reference(best);
    }
    counts = update();
  }
  return chosen;
}

/** The part of the package highs that is used. */
interface Highs {
  solve(
    problem: string,
    options: Record<string, unknown>,
  ): { Status: string; Columns: Record<string, { Primal: number }> };
}

/**
 * The cover with the fewest gates, whatever its depth, as an integer program.
 *
 *   min sum gates(m) y_m   y_m = 1 if match m is taken
 *   sum over m of n  y_m >= 1   for nodes n that an output reads
 *   sum over m of l  y_m >= y_k   for every match k with the leaf l
 */
async function exactCover(
  mig: Mig,
  outputs: readonly number[],
  matches: Match[][],
  timeLimitSeconds: number,
): Promise<Choice> {
  const { default: load } = await import("highs");
  const highs = await (load as unknown as () => Promise<Highs>)();
  const cheapest = matches.map((list) => {
    const byLeaves = new Map<string, Match>();
    for (const match of list) {
      const key = match.leaves.join();
      if (!byLeaves.has(key)) byLeaves.set(key, match);
    }
    return [...byLeaves.values()];
  });
  const name = (node: number, i: number) => `y${node}_${i}`;
  const sum = (node: number) =>
    cheapest[node].map((_, i) => name(node, i)).join(" + ");
  const gates = mig.cone(outputs).filter((node) => mig.isGate(node));
  const objective: string[] = [];
  const constraints: string[] = [];
  const variables: string[] = [];
  for (const node of gates) {
    cheapest[node].forEach(({ gates, leaves }, i) => {
      variables.push(name(node, i));
      if (gates > 0) objective.push(`${gates} ${name(node, i)}`);
      for (const leaf of leaves) {
        if (mig.isGate(leaf)) {
          constraints.push(`${sum(leaf)} - ${name(node, i)} >= 0`);
        }
      }
    });
  }
  for (const node of new Set(outputs.map(nodeOf))) {
    if (mig.isGate(node)) constraints.push(`${sum(node)} >= 1`);
  }
  const problem = `Minimize\n ${wrap(objective.join(" + "))}\nSubject To\n${
    constraints.map((text, i) => ` c${i}: ${wrap(text)}`).join("\n")
  }\nBinary\n${wrap(variables.join(" "))}\nEnd\n`;
  const { Status, Columns } = highs.solve(problem, {
    time_limit: timeLimitSeconds,
  });
  if (Status !== "Optimal") {
    throw new RangeError(
      `Cannot find the exact cover of ${gates.length} gates as the integer program must be solved within ${timeLimitSeconds} s: ${Status}; use cover "flow"`,
    );
  }
  const chosen: Choice = new Array(mig.size);
  for (const node of gates) {
    const best = cheapest[node].findIndex((_, i) =>
      Columns[name(node, i)].Primal > 0.5
    );
    // nodes that the program left out are not needed by the others
    chosen[node] = cheapest[node][Math.max(0, best)];
  }
  return chosen;
}

/** Lines of at most some hundred characters, as solvers require. */
function wrap(text: string): string {
  return text.replaceAll(/(.{1,200})(?: |$)/g, "$1\n ").trimEnd();
}

/** The graph of a cover: each chosen function by the network that shares most with what is there. */
function rebuild(
  mig: Mig,
  outputs: readonly number[],
  chosen: Choice,
  table: Structure[][],
): Graph {
  const result = new Mig();
  const literals: number[] = new Array(mig.size).fill(0);
  for (const node of mig.inputs) literals[node] = result.input();
  const counts = references(mig, outputs, chosen);
  const run = (
    { gates, output }: Structure,
    variables: number[],
    make: boolean,
  ): { literal: number; missing: number } => {
    const signals: (number | undefined)[] = [0, ...variables];
    let missing = 0;
    const value = (literal: number) => {
      const signal = signals[literal >> 1];
      return signal === undefined ? undefined : signal ^ (literal & 1);
    };
    for (const gate of gates) {
      const [a, b, c] = gate.map(value);
      const known = a === undefined || b === undefined || c === undefined
        ? undefined
        : make
        ? result.maj(a, b, c)
        : result.find(a, b, c);
      if (known === undefined) missing++;
      signals.push(known);
    }
    return { literal: value(output) ?? 0, missing };
  };
  for (let node = 1; node < mig.size; node++) {
    const match = chosen[node];
    if (counts[node] === 0 || match === undefined) continue;
    const variables = [0, 1, 2].map((i) => literals[match.leaves[i]] ?? 0);
    let best = table[match.table][0];
    let fewest = Infinity;
    for (const structure of table[match.table]) {
      if (structure.depths.some((d, i) => d > (match.depths[i] ?? -1))) {
        continue;
      }
      const { missing } = run(structure, variables, false);
      if (missing < fewest) best = structure, fewest = missing;
    }
    literals[node] = run(best, variables, true).literal;
  }
  return {
    mig: result,
    outputs: outputs.map((literal) =>
      literals[nodeOf(literal)] ^ (literal & 1)
    ),
  };
}

// ---------------------------------------------------------------------------------------------
// The whole

/** A graph with its outputs. */
interface Graph {
  mig: Mig;
  outputs: number[];
}

/** Gates that the outputs need, and levels from inputs to outputs, fan-out not counted. */
function measure({ mig, outputs }: Graph): { gates: number; depth: number } {
  const depths = mig.depths();
  return {
    gates: mig.cone(outputs).filter((node) => mig.isGate(node)).length,
    depth: outputs.reduce(
      (depth, literal) => Math.max(depth, depths[nodeOf(literal)]),
      0,
    ),
  };
}

/**
 * Junctions (JJ) of the graph as a circuit: gates, and buffers and splitters at the earliest or the latest
 * levels, whichever is less. Better levels are found later, but seldom change which graph is cheaper.
 */
function estimatedJj({ mig, outputs }: Graph): number {
  const nodes = mig.cone(outputs);
  const place = new Map(nodes.map((node, i) => [node, i]));
  const sinks: number[][] = nodes.map(() => []);
  const inputs: number[] = [];
  let gates = 0;
  nodes.forEach((node, i) => {
    if (!mig.isGate(node)) {
      inputs.push(i);
      return;
    }
    gates++;
    for (const literal of mig.fanins.slice(3 * node, 3 * node + 3)) {
      if (literal > 1) sinks[place.get(nodeOf(literal))!].push(i);
    }
  });
  const ends: number[] = [];
  for (const literal of outputs) {
    if (literal < 2) continue;
    ends.push(sinks.length);
    sinks[place.get(nodeOf(literal))!].push(sinks.length);
    sinks.push([]);
  }
  const problem = levelProblem({
    sinks,
    order: sinks.map((_, i) => i),
    inputs,
    outputs: ends,
    capacity: 4,
    balanceInputs: true,
    balanceOutputs: true,
  });
  const cells = [alapLevels(problem), asapLevels(problem)].map((levels) =>
    totalCells(problem, levels)
  ).filter((count) => count !== INFEASIBLE);
  return JJ_COUNT.maj * gates + JJ_COUNT.buffer * Math.min(...cells);
}

/**
 * Junctions (JJ) that a netlist of gates will cost with buffers and splitters, from simple choices of
 * levels: an upper estimate that ranks netlists.
 */
export function estimateJunctions(netlist: Netlist): number {
  const mig = new Mig();
  const inputs = ports(netlist, "input").map(() => mig.input());
  const literals = mig.add(netlist, inputs);
  const outputs = ports(netlist, "output").map((i) => literals[i]);
  return estimatedJj({ mig, outputs });
}

/** Seconds that the integer program may take, our choice. */
const EXACT_SECONDS = 20;
/** Slacks tried where none is given, our choice. */
const SLACKS = [0, 2, 8];
/** Nodes from which only one slack is tried and no graph is judged by its junctions, our choice. */
const LARGE = 20_000;

/** Matches by graph: several slacks start from the same one. */
const matchCache = new WeakMap<Mig, Map<Structure[][], Match[][]>>();

function knownMatches(mig: Mig, table: Structure[][]): Match[][] {
  const known = matchCache.get(mig) ?? new Map<Structure[][], Match[][]>();
  matchCache.set(mig, known);
  const matches = known.get(table) ?? matchesOf(enumerateCuts(mig), table);
  known.set(table, matches);
  return matches;
}

/** Covers until nothing is gained, then rewriting at the depth that was reached; reports every graph. */
function* descend(
  start: Graph,
  table: Structure[][],
  slack: number,
  rounds: number,
): Generator<Graph> {
  let graph = start;
  let best = measure(graph);
  for (let round = 0; round < rounds; round++) {
    const { mig, outputs } = graph;
    const chosen = flowCover(
      mig,
      outputs,
      knownMatches(mig, table),
      round === 0 ? slack : 0,
    );
    const next = rebuild(mig, outputs, chosen, table);
    const { gates, depth } = measure(next);
    if (round > 0 && gates >= best.gates && depth >= best.depth) break;
    best = { gates, depth };
    graph = next;
    yield graph;
  }
  yield* rewriteOften(graph, table, best.depth, rounds);
}

/** Rewriting in turns: what loses gates, then a step sideways. */
function* rewriteOften(
  start: Graph,
  table: Structure[][],
  depth: number,
  rounds: number,
): Generator<Graph> {
  let graph = start;
  let { gates } = measure(graph);
  for (let pass = 0, idle = 0; pass < 4 * rounds && idle < 3; pass++) {
    const next = rewrite(graph.mig, graph.outputs, table, {
      depth,
      sideways: pass % 2 === 1,
    });
    const measured = measure(next);
    if (measured.depth > depth || measured.gates > gates) return;
    idle = measured.gates < gates ? 0 : idle + 1;
    gates = measured.gates;
    graph = next;
    yield graph;
  }
}

/** The cheapest graph that covers and rewriting lead to, from several starts. */
function cheapest(
  start: Graph,
  table: Structure[][],
  slack: number | undefined,
  rounds: number,
): Graph {
  if (start.mig.size > LARGE) {
    let last = start;
    for (const graph of descend(start, table, slack ?? 0, rounds)) last = graph;
    return last;
  }
  let best = start;
  let bestJj = estimatedJj(start);
  const take = (graphs: Iterable<Graph>): Graph => {
    let last = start;
    for (const graph of graphs) {
      const jj = estimatedJj(graph);
      if (jj < bestJj) best = graph, bestJj = jj;
      last = graph;
    }
    return last;
  };
  const rewritten = take(
    rewriteOften(start, table, measure(start).depth, rounds),
  );
  for (const from of [start, rewritten]) {
    for (const s of slack === undefined ? SLACKS : [slack]) {
      take(descend(from, table, s, rounds));
    }
  }
  // from the best again, while that helps
  for (let round = 0, before = Infinity; round < rounds; round++) {
    if (bestJj >= before) break;
    before = bestJj;
    take(descend(best, table, 0, rounds));
  }
  return best;
}

/**
 * The netlist as majority gates: and, or and maj with inverted inputs, any fan-out, no buffers.
 *
 * Constants are propagated and equal gates merged. Outputs that are constant get a constant cell. An
 * output keeps an inverted connection only where its signal is needed in both polarities.
 *
 * @param netlist Any netlist; its buffers and splitters are dropped.
 * @param options.cover How cones are chosen, `"flow"` by default.
 * @param options.functions `"all"` by default; `"primary"` is the paper's.
 * @param options.slack Levels above the shortest depth; by default several are tried and the netlist
 *   that costs fewest junctions with its buffers and splitters is taken.
 * @param options.rounds Number of covers; 8 by default, fewer where nothing is gained.
 *
 * @example
 * const carry = readVerilog(
 *   "module m(input a, b, c, output y); assign y = (a & b) | ((a ^ b) & c); endmodule",
 * );
 * const mapped = await mapToMajority(carry); // two inputs agree or not: one majority gate
 */
export async function mapToMajority(
  netlist: Netlist,
  {
    cover = "flow",
    functions = "all",
    slack,
    rounds = 8,
  }: MappingOptions = {},
): Promise<Netlist> {
  checkNetlist(netlist);
  if (slack !== undefined && !(Number.isInteger(slack) && slack >= 0)) {
    throw new RangeError(
      `Cannot map ${netlist.name} as slack must be a whole number >= 0: ${slack}`,
    );
  }
  const names: PortNames = portNames(netlist);
  const mig = new Mig();
  const literals = mig.add(netlist, names.inputs.map(() => mig.input()));
  const outputs = ports(netlist, "output").map((i) => literals[i]);
  const mapped = (graph: Graph) => netlistOf(graph.mig, graph.outputs, names);
  if (cover === "gates") return mapped({ mig, outputs });
  const table = structures(functions);
  if (cover === "flow") {
    return mapped(cheapest({ mig, outputs }, table, slack, rounds));
  }
  const matches = matchesOf(enumerateCuts(mig), table);
  const chosen = cover === "first-fit"
    ? firstFit(mig, outputs, matches)
    : await exactCover(mig, outputs, matches, EXACT_SECONDS);
  return mapped(rebuild(mig, outputs, chosen, table));
}
