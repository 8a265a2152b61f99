/**
 * Combinational equivalence: whether two netlists compute the same, with a counterexample if not.
 *
 * A. Kuehlmann, F. Krohm, "Equivalence checking using cuts and heaps", DAC 1997, and A. Mishchenko et
 * al., "Improvements to combinational equivalence checking", ICCAD 2006 (sweeping). Both netlists are
 * built in one majority graph, where equal gates are one node. Random patterns find most differences
 * and tell which nodes may be equal; these are proven equal from the inputs on, by satisfiability, and
 * merged, so that each proof builds on the ones before. The outputs come last, and are then often one
 * node already. With few inputs all patterns are simulated instead, which needs no solver.
 *
 * | symbol | identifier | meaning |
 * | --- | --- | --- |
 * | signature | words | values of a node in all patterns tried so far |
 * | class | candidates | nodes with equal or opposite signatures |
 *
 * Scope: netlists of any stage, ports matched by name. A second route, through Berkeley's ABC inside
 * Yosys, shares nothing with this file: `checkEquivalenceByAbc`.
 */
import { writeVerilog } from "../core/formats/verilog.ts";
import { bits, key as seedKey } from "../core/rng.ts";
import { Mig, nodeOf } from "./mig.ts";
import { type Netlist, ports } from "./netlist.ts";
import { SatSolver } from "./sat.ts";
import { runYosys } from "./yosys.ts";

/** An input pattern for which the netlists differ. */
export interface Counterexample {
  inputs: Record<string, 0 | 1>;
  /** The output ports that differ, with the value of each netlist. */
  outputs: { name: string; a: 0 | 1; b: 0 | 1 }[];
}

export interface Equivalence {
  equivalent: boolean;
  counterexample?: Counterexample;
  /** How it was decided. */
  method: "structure" | "simulation" | "exhaustive" | "sat" | "abc";
  /** Nodes of the common graph. */
  nodes: number;
  /** Questions to the solver, and pairs of inner nodes that it proved equal. */
  questions: number;
  merged: number;
}

export interface EquivalenceOptions {
  /** `"auto"` (default) simulates all patterns where these are few, and else asks the solver. */
  method?: "auto" | "exhaustive" | "sat";
  /** Seed of the random patterns. */
  seed?: number;
}

/** Words of 32 random patterns tried first, our choice. */
const RANDOM_WORDS = 32;
/** Most node words that "auto" simulates for all patterns: about a second. */
const EXHAUSTIVE_WORK = 1 << 27;
/** Conflicts spent on one pair of inner nodes before it is left unmerged, our choice. */
const INNER_CONFLICTS = 2000;
/** Patterns of the five lowest inputs within a word of 32. */
const COLUMNS = [0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00, 0xffff0000];

/** Both netlists in one graph, inputs and outputs matched by name. */
interface Miter {
  mig: Mig;
  inputs: string[];
  outputs: { name: string; a: number; b: number }[];
}

function buildMiter(a: Netlist, b: Netlist): Miter {
  const named = (netlist: Netlist, direction: "input" | "output") =>
    new Map(
      ports(netlist, direction).map((i) => [netlist.cells[i].name, i]),
    );
  for (const direction of ["input", "output"] as const) {
    const [first, second] = [named(a, direction), named(b, direction)];
    const missing = [
      ...[...first.keys()].filter((name) => !second.has(name)).map((name) =>
        `${name} (only in the first)`
      ),
      ...[...second.keys()].filter((name) => !first.has(name)).map((name) =>
        `${name} (only in the second)`
      ),
    ];
    if (missing.length > 0) {
      throw new RangeError(
        `Cannot compare ${a.name} and ${b.name} as they must have the same ${direction}s: ${
          missing.slice(0, 6).join(", ")
        }${missing.length > 6 ? ` and ${missing.length - 6} more` : ""}`,
      );
    }
  }
  const mig = new Mig();
  const inputs = [...named(a, "input").keys()];
  const literal = new Map(inputs.map((name) => [name, mig.input()]));
  const add = (netlist: Netlist) =>
    mig.add(
      netlist,
      [...named(netlist, "input").keys()].map((name) => literal.get(name)!),
    );
  const [inA, inB] = [add(a), add(b)];
  const second = named(b, "output");
  return {
    mig,
    inputs,
    outputs: [...named(a, "output")].map(([name, cell]) => ({
      name,
      a: inA[cell],
      b: inB[second.get(name)!],
    })),
  };
}

/** Values of all nodes for one word of patterns per input. */
function simulate(mig: Mig, words: ArrayLike<number>): Int32Array {
  const values = new Int32Array(mig.size);
  const { fanins } = mig;
  mig.inputs.forEach((node, i) => values[node] = words[i]);
  for (let node = 1; node < mig.size; node++) {
    const f = fanins[3 * node];
    if (f < 0) continue;
    const g = fanins[3 * node + 1];
    const h = fanins[3 * node + 2];
    const a = values[f >> 1] ^ -(f & 1);
    const b = values[g >> 1] ^ -(g & 1);
    const c = values[h >> 1] ^ -(h & 1);
    values[node] = (a & b) | (a & c) | (b & c);
  }
  return values;
}

function literalValue(values: Int32Array, literal: number): number {
  return values[nodeOf(literal)] ^ -(literal & 1);
}

/** The counterexample in a word of patterns, if there is one. */
function difference(
  { inputs, outputs }: Miter,
  words: ArrayLike<number>,
  values: Int32Array,
): Counterexample | undefined {
  let differing = 0;
  for (const { a, b } of outputs) {
    differing = literalValue(values, a) ^ literalValue(values, b);
    if (differing !== 0) break;
  }
  if (differing === 0) return undefined;
  const pattern = 31 - Math.clz32(differing);
  const bit = (word: number) => ((word >>> pattern) & 1) as 0 | 1;
  return {
    inputs: Object.fromEntries(
      inputs.map((name, i) => [name, bit(words[i])]),
    ),
    outputs: outputs.flatMap(({ name, a, b }) => {
      const [va, vb] = [a, b].map((l) => bit(literalValue(values, l)));
      return va === vb ? [] : [{ name, a: va, b: vb }];
    }),
  };
}

/** Simulates all patterns: a proof without a solver. */
function exhaust(miter: Miter): Counterexample | undefined {
  const { length } = miter.inputs;
  const words = new Int32Array(length);
  const total = 2 ** Math.max(0, length - 5);
  for (let word = 0; word < total; word++) {
    for (let i = 0; i < length; i++) {
      words[i] = i < 5 ? COLUMNS[i] : (word >>> (i - 5)) & 1 ? -1 : 0;
    }
    const found = difference(miter, words, simulate(miter.mig, words));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A graph in which equal nodes of another are found and merged, one node after the other. */
class Sweeper {
  readonly source: Mig;
  readonly mig = new Mig();
  readonly solver = new SatSolver();
  questions = 0;
  merged = 0;
  /** By node of the swept graph: its variable in the solver, or -1. */
  private variable: number[] = [-1];
  /** Literal in the swept graph of each node of the source. */
  private image: Int32Array;
  /** Patterns: words per input, and values of all nodes of the source for them. */
  private patterns: Int32Array[];
  private values: Int32Array[];
  /** Counterexamples since the last full word, one pattern each. */
  private pending = 0;
  private order: number[];
  /** By node of the swept graph: the question that last met it. */
  private marks: number[] = [];

  constructor(source: Mig, roots: readonly number[], patterns: Int32Array[]) {
    this.source = source;
    this.image = new Int32Array(source.size);
    this.patterns = [...patterns];
    this.values = patterns.map((words) => simulate(source, words));
    this.order = source.cone(roots);
    for (const node of source.inputs) {
      const literal = this.mig.input();
      this.image[node] = literal;
      this.variable[nodeOf(literal)] = -1;
    }
  }

  literal(sourceLiteral: number): number {
    return this.image[nodeOf(sourceLiteral)] ^ (sourceLiteral & 1);
  }

  /** The solver's literal for a literal of the swept graph; its cone is told to the solver once. */
  private solverLiteral(literal: number): number {
    const { mig, solver, variable } = this;
    const stack = [nodeOf(literal)];
    while (stack.length > 0) {
      const node = stack[stack.length - 1];
      if ((variable[node] ?? -1) >= 0) {
        stack.pop();
        continue;
      }
      if (!mig.isGate(node)) {
        variable[node] = solver.addVariable();
        if (node === 0) solver.addClause([2 * variable[node] + 1]);
        stack.pop();
        continue;
      }
      const fanins = mig.fanins.slice(3 * node, 3 * node + 3);
      const missing = fanins.map(nodeOf).filter((n) => (variable[n] ?? -1) < 0);
      if (missing.length > 0) {
        stack.push(...missing);
        continue;
      }
      const q = 2 * (variable[node] = solver.addVariable());
      const [a, b, c] = fanins.map((l) => 2 * variable[nodeOf(l)] + (l & 1));
      // two equal inputs decide: a & b -> q, ~a & ~b -> ~q
      for (const [x, y] of [[a, b], [a, c], [b, c]]) {
        solver.addClause([x ^ 1, y ^ 1, q]);
        solver.addClause([x, y, q ^ 1]);
      }
      stack.pop();
    }
    return 2 * variable[nodeOf(literal)] + (literal & 1);
  }

  /**
   * Asks whether two literals of the swept graph can differ: false proves that they cannot, undefined
   * is "not found out"; a difference is kept as a pattern.
   */
  differ(a: number, b: number, conflicts: number): boolean | undefined {
    const [x, y] = [this.solverLiteral(a), this.solverLiteral(b)];
    const decide = this.coneVariables(a, b);
    let known: boolean | undefined = false;
    for (const assumptions of [[x, y ^ 1], [x ^ 1, y]]) {
      this.questions++;
      const answer = this.solver.solve(assumptions, { decide, conflicts });
      if (answer === "satisfiable") {
        this.keepPattern();
        return true;
      }
      if (answer === "unknown") known = undefined;
    }
    return known;
  }

  /** Variables of the nodes below two literals of the swept graph. */
  private coneVariables(a: number, b: number): number[] {
    const { mig, marks, variable } = this;
    const mark = this.questions + 1;
    const nodes = [nodeOf(a), nodeOf(b)];
    for (const node of nodes) marks[node] = mark;
    for (let i = 0; i < nodes.length; i++) {
      if (!mig.isGate(nodes[i])) continue;
      for (let k = 3 * nodes[i]; k < 3 * nodes[i] + 3; k++) {
        const fanin = nodeOf(mig.fanins[k]);
        if (marks[fanin] !== mark) {
          marks[fanin] = mark;
          nodes.push(fanin);
        }
      }
    }
    return nodes.flatMap((node) => variable[node] >= 0 ? [variable[node]] : []);
  }

  /** The inputs of the solver's last solution. */
  solution(): number[] {
    return this.mig.inputs.map((node) => {
      const v = this.variable[node];
      return v >= 0 && this.solver.modelValue(v) ? 1 : 0;
    });
  }

  private keepPattern(): void {
    const solution = this.solution();
    if (this.pending % 32 === 0) {
      this.patterns.push(new Int32Array(solution.length));
      this.values.push(new Int32Array(0));
    }
    const last = this.patterns.length - 1;
    const bit = this.pending++ % 32;
    solution.forEach((value, i) => this.patterns[last][i] |= value << bit);
    this.values[last] = simulate(this.source, this.patterns[last]);
  }

  /** Equal (0) or opposite (1) in all patterns, or undefined. */
  private relation(a: number, b: number): 0 | 1 | undefined {
    const opposite = (this.values[0][a] ^ this.values[0][b]) & 1 ? -1 : 0;
    for (const values of this.values) {
      if ((values[a] ^ values[b] ^ opposite) !== 0) return undefined;
    }
    return opposite ? 1 : 0;
  }

  /** Builds the swept graph. */
  sweep(): void {
    const { source, mig } = this;
    const words = this.values.length;
    const classes = new Map<number, number[]>();
    const hash = (node: number) => {
      const flip = this.values[0][node] & 1 ? -1 : 0;
      let h = 0;
      for (let w = 0; w < words; w++) {
        h = Math.imul(h ^ this.values[w][node] ^ flip, 0x9e3779b1);
        h ^= h >>> 15;
      }
      return h;
    };
    classes.set(hash(0), [0]);
    for (const node of this.order) {
      if (source.isGate(node)) {
        const [f, g, h] = source.fanins.slice(3 * node, 3 * node + 3).map((l) =>
          this.literal(l)
        );
        this.image[node] = mig.maj(f, g, h);
      }
      const signature = hash(node);
      const members = classes.get(signature);
      if (members === undefined) {
        classes.set(signature, [node]);
        continue;
      }
      let known = false;
      for (const other of members) {
        const opposite = this.relation(node, other);
        if (opposite === undefined) continue;
        const target = this.image[other] ^ opposite;
        if (target === this.image[node]) {
          known = true;
          break;
        }
        // an input equals another node only if that was found by structure
        if (!source.isGate(node)) continue;
        if (this.differ(this.image[node], target, INNER_CONFLICTS) === false) {
          this.image[node] = target;
          this.merged++;
          known = true;
          break;
        }
      }
      if (!known) members.push(node);
    }
  }
}

/**
 * Whether two netlists compute the same at every output for every input.
 *
 * @param a, b Netlists with the same names of ports, in any order.
 * @param options.method `"auto"` by default.
 * @param options.seed Of the random patterns; any seed gives the same verdict.
 * @returns The verdict, and an input pattern with the outputs that differ if they do.
 * @throws RangeError that lists the ports which only one of the netlists has.
 *
 * @example
 * const a = readVerilog("module m(input a, b, output y); assign y = ~(a & b); endmodule");
 * const b = readVerilog("module m(input a, b, output y); assign y = ~a | ~b; endmodule");
 * checkEquivalence(a, b).equivalent; // true
 */
export function checkEquivalence(
  a: Netlist,
  b: Netlist,
  { method = "auto", seed = 1 }: EquivalenceOptions = {},
): Equivalence {
  const miter = buildMiter(a, b);
  const { mig, inputs, outputs } = miter;
  const report = (
    how: Equivalence["method"],
    counterexample?: Counterexample,
    sweeper?: Sweeper,
  ): Equivalence => ({
    equivalent: counterexample === undefined,
    ...(counterexample === undefined ? {} : { counterexample }),
    method: how,
    nodes: mig.size,
    questions: sweeper?.questions ?? 0,
    merged: sweeper?.merged ?? 0,
  });
  if (outputs.every((output) => output.a === output.b)) {
    return report("structure");
  }
  const work = 2 ** Math.max(0, inputs.length - 5) * mig.size;
  if (method === "exhaustive" && inputs.length > 30) {
    throw new RangeError(
      `Cannot simulate all patterns as there must be at most 30 inputs: ${inputs.length}`,
    );
  }
  const patterns = Array.from(
    { length: RANDOM_WORDS },
    (_, word) => {
      const random = bits(seedKey(seed * RANDOM_WORDS + word), inputs.length);
      return Int32Array.from(random, (x) => x | 0);
    },
  );
  // all zero, all one, and one input alone: corners that random patterns of many inputs miss
  patterns.push(
    Int32Array.from(inputs, (_, i) => 2 | (i < 30 ? 4 << i : 0)),
  );
  for (const words of patterns) {
    const found = difference(miter, words, simulate(mig, words));
    if (found !== undefined) return report("simulation", found);
  }
  if (
    method === "exhaustive" || (method === "auto" && work <= EXHAUSTIVE_WORK)
  ) return report("exhaustive", exhaust(miter));
  const sweeper = new Sweeper(
    mig,
    outputs.flatMap((output) => [output.a, output.b]),
    patterns,
  );
  sweeper.sweep();
  for (const output of outputs) {
    const [x, y] = [sweeper.literal(output.a), sweeper.literal(output.b)];
    if (x === y || sweeper.differ(x, y, Infinity) === false) continue;
    const words = sweeper.solution().map((value) => -value);
    const found = difference(miter, words, simulate(mig, words));
    if (found === undefined) {
      throw new Error(
        `Cannot trust the solver as its counterexample for output ${output.name} must differ in simulation: it does not`,
      );
    }
    return report("sat", found, sweeper);
  }
  return report("sat", undefined, sweeper);
}

/** Keeps ABC busy: its pass runs only on a design that has a gate. */
const ANY_DESIGN =
  "module any(input a, b, output y); assign y = a & b; endmodule";

/**
 * As `checkEquivalence`, by another route: both netlists are written as Verilog with models of their
 * cells, read by Yosys and compared by the command `cec` of Berkeley's ABC. Shares only the writer
 * with the first route, and so checks the writer too.
 *
 * @throws Error if neither verdict can be read from what ABC says.
 */
export async function checkEquivalenceByAbc(
  a: Netlist,
  b: Netlist,
): Promise<Equivalence> {
  const miter = buildMiter(a, b);
  const text = (netlist: Netlist) =>
    writeVerilog({ ...netlist, name: "design" }, {
      models: true,
      vectors: false,
    });
  const read = (name: string) => [
    "design -reset",
    `read_verilog ${name}.v`,
    "hierarchy -top design",
    "flatten",
    "aigmap",
    "opt_clean",
    `write_blif ${name}.blif`,
  ];
  const { messages, error } = await runYosys(
    [
      ...read("a"),
      ...read("b"),
      "design -reset",
      "read_verilog any.v",
      "simplemap",
      "abc -g AND -script +cec,/a.blif,/b.blif",
    ],
    { "a.v": text(a), "b.v": text(b), "any.v": ANY_DESIGN },
    { log: true },
  );
  const log = messages.join("\n");
  const report = (counterexample?: Counterexample): Equivalence => ({
    equivalent: counterexample === undefined,
    ...(counterexample === undefined ? {} : { counterexample }),
    method: "abc",
    nodes: miter.mig.size,
    questions: 1,
    merged: 0,
  });
  if (/Networks are equivalent/.test(log)) return report();
  const pattern = /Input pattern: *(.*)/.exec(log)?.[1];
  if (!/NOT EQUIVALENT/.test(log) || pattern === undefined) {
    throw new Error(
      `Cannot compare ${a.name} and ${b.name} by ABC as it must give a verdict: ${
        error ?? messages.slice(-3).join("; ")
      }`,
    );
  }
  const value = new Map(
    [...pattern.matchAll(/(\S+)=([01])/g)].map(([, name, bit]) => [name, bit]),
  );
  const words = miter.inputs.map((name) => value.get(name) === "1" ? -1 : 0);
  const found = difference(miter, words, simulate(miter.mig, words));
  if (found === undefined) {
    throw new Error(
      `Cannot trust the comparison by ABC as its counterexample must differ in simulation: ${pattern}`,
    );
  }
  return report(found);
}

/** One line for messages: which outputs differ, and for which inputs. */
export function describeCounterexample(
  { inputs, outputs }: Counterexample,
): string {
  const pattern = Object.entries(inputs).map(([name, value]) =>
    `${name}=${value}`
  );
  return `outputs ${
    outputs.slice(0, 8).map(({ name, a, b }) => `${name} (${a}, ${b})`)
      .join(", ")
  } for inputs ${pattern.slice(0, 64).join(" ")}${
    pattern.length > 64 ? " ..." : ""
  }`;
}
