/**
 * Majority-inverter graphs: the form in which logic is hashed, mapped and proven equal.
 *
 * L. Amaru, P.-E. Gaillardon, G. De Micheli, "Majority-Inverter Graph", DAC 2014: every node is the
 * majority of three, every edge may be inverted; and(a, b) = M(a, b, 0), or(a, b) = M(a, b, 1). Nodes
 * are unique: equal or trivial majorities are never made twice,
 *
 *   M(a, a, b) = a     M(a, ~a, b) = b     M(~a, ~b, ~c) = ~M(a, b, c)
 *
 * so that and, or, nand and nor of the same signals are one node.
 *
 *   literal   2 node + inversion; node 0 is the constant 0, so literal 0 is false and 1 is true
 *   fanins    literals of node n at 3n, 3n + 1, 3n + 2; inputs and the constant have none (-1)
 *
 * Scope: construction, simulation, conversion from netlists and back. Nodes come after their fanins.
 */
import {
  type Cell,
  type Connection,
  type Netlist,
  ports,
  topologicalOrder,
} from "./netlist.ts";

/** The literal with the opposite value. */
export const not = (literal: number): number => literal ^ 1;
export const nodeOf = (literal: number): number => literal >> 1;
export const isInverted = (literal: number): boolean => (literal & 1) === 1;

/** A graph under construction: grows, never changes what it has. */
export class Mig {
  /** [3 N], see the head of the file. */
  fanins: number[] = [-1, -1, -1];
  /** Nodes of the inputs, in order. */
  inputs: number[] = [];
  private known = new Map<string, number>();

  /** Number of nodes, the constant and the inputs included. */
  get size(): number {
    return this.fanins.length / 3;
  }

  isInput(node: number): boolean {
    return node > 0 && this.fanins[3 * node] < 0;
  }

  isGate(node: number): boolean {
    return this.fanins[3 * node] >= 0;
  }

  /** A new input; returns its literal. */
  input(): number {
    const node = this.size;
    this.fanins.push(-1, -1, -1);
    this.inputs.push(node);
    return 2 * node;
  }

  /** The majority of three literals. */
  maj(a: number, b: number, c: number): number {
    return this.majority(a, b, c, true)!;
  }

  /** The majority of three literals if the graph has it already. */
  find(a: number, b: number, c: number): number | undefined {
    return this.majority(a, b, c, false);
  }

  private majority(a: number, b: number, c: number, make: boolean) {
    let swap;
    if (a > b) swap = a, a = b, b = swap;
    if (b > c) swap = b, b = c, c = swap;
    if (a > b) swap = a, a = b, b = swap;
    if (a === b || b === c) return b;
    if ((a ^ b) === 1) return c;
    if ((b ^ c) === 1) return a;
    // at most one inverted input, the constant counted by its value
    const flip = (a & 1) + (b & 1) + (c & 1) >= 2 ? 1 : 0;
    if (flip) a ^= 1, b ^= 1, c ^= 1;
    const key = `${a},${b},${c}`;
    let node = this.known.get(key);
    if (node === undefined) {
      if (!make) return undefined;
      node = this.size;
      this.fanins.push(a, b, c);
      this.known.set(key, node);
    }
    return 2 * node + flip;
  }

  and(a: number, b: number): number {
    return this.maj(a, b, 0);
  }

  or(a: number, b: number): number {
    return this.maj(a, b, 1);
  }

  xor(a: number, b: number): number {
    return this.and(this.or(a, b), not(this.and(a, b)));
  }

  /**
   * Adds the logic of a netlist.
   *
   * @param inputs Literal for each input port.
   * @returns Literal of every cell, its output ports included.
   */
  add(netlist: Netlist, inputs: readonly number[]): number[] {
    const { cells } = netlist;
    const literals: number[] = new Array(cells.length).fill(0);
    ports(netlist, "input").forEach((cell, i) => literals[cell] = inputs[i]);
    for (const i of topologicalOrder(netlist)) {
      const { kind, value } = cells[i];
      if (kind === "input") continue;
      const [a, b, c] = cells[i].inputs.map(({ cell, inverted }) =>
        literals[cell] ^ (inverted ? 1 : 0)
      );
      literals[i] = kind === "constant"
        ? value!
        : kind === "and"
        ? this.and(a, b)
        : kind === "or"
        ? this.or(a, b)
        : kind === "maj"
        ? this.maj(a, b, c)
        : kind === "inverter"
        ? not(a)
        : a;
    }
    return literals;
  }

  /** Nodes that the given literals depend on, fanins before what they drive. */
  cone(literals: readonly number[]): number[] {
    const seen = new Uint8Array(this.size);
    for (const literal of literals) seen[nodeOf(literal)] = 1;
    for (let node = this.size - 1; node > 0; node--) {
      if (!seen[node] || !this.isGate(node)) continue;
      for (let i = 0; i < 3; i++) seen[nodeOf(this.fanins[3 * node + i])] = 1;
    }
    const nodes: number[] = [];
    for (let node = 1; node < this.size; node++) {
      if (seen[node]) nodes.push(node);
    }
    return nodes;
  }

  /** Number of majority nodes between the inputs and each node. */
  depths(): Int32Array {
    const depths = new Int32Array(this.size);
    for (let node = 1; node < this.size; node++) {
      if (!this.isGate(node)) continue;
      for (let i = 0; i < 3; i++) {
        const fanin = this.fanins[3 * node + i];
        depths[node] = Math.max(depths[node], depths[nodeOf(fanin)] + 1);
      }
    }
    return depths;
  }
}

/** The ports of a netlist that is rebuilt from a graph. */
export interface PortNames {
  name: string;
  inputs: readonly string[];
  outputs: readonly string[];
}

/** Names of the ports of a netlist. */
export function portNames(netlist: Netlist): PortNames {
  const names = (direction: "input" | "output") =>
    ports(netlist, direction).map((i) => netlist.cells[i].name);
  return {
    name: netlist.name,
    inputs: names("input"),
    outputs: names("output"),
  };
}

/**
 * The netlist of a graph: one and, or, or majority gate per node that an output needs.
 *
 * A gate is made in the polarity that most outputs reading it ask for, as inverted inputs of gates
 * cost nothing: an output port keeps an inverted connection only where the signal is wanted in both
 * polarities, or comes from an input. Gates are called g1, g2 ... in topological order.
 *
 * @param outputs Literal for each output port.
 */
export function netlistOf(
  mig: Mig,
  outputs: readonly number[],
  names: PortNames,
): Netlist {
  const cells: Cell[] = names.inputs.map((name) => ({
    name,
    kind: "input",
    inputs: [],
  }));
  const taken = new Set([...names.inputs, ...names.outputs]);
  const unique = (stem: string) => {
    let name = stem;
    for (let i = 1; taken.has(name); i++) name = `${stem}_${i}`;
    taken.add(name);
    return name;
  };
  /** Cell of each node, and whether the cell gives the node's complement. */
  const cellOf = new Int32Array(mig.size).fill(-1);
  const complement = new Uint8Array(mig.size);
  mig.inputs.forEach((node, i) => cellOf[node] = i);
  const constants: Record<number, number> = {};
  for (const value of [0, 1] as const) {
    if (!outputs.includes(value)) continue;
    constants[value] = cells.length;
    const name = unique(value === 0 ? "zero" : "one");
    cells.push({ name, kind: "constant", inputs: [], value });
  }
  const wanted = new Int32Array(mig.size);
  for (const literal of outputs) {
    wanted[nodeOf(literal)] += isInverted(literal) ? 1 : -1;
  }
  const connection = (literal: number): Connection => ({
    cell: cellOf[nodeOf(literal)],
    pin: 0,
    inverted: isInverted(literal) !== (complement[nodeOf(literal)] === 1),
  });
  let count = 0;
  for (const node of mig.cone(outputs)) {
    if (!mig.isGate(node)) continue;
    const flip = wanted[node] > 0 ? 1 : 0;
    const literals = mig.fanins.slice(3 * node, 3 * node + 3).map((literal) =>
      literal ^ flip
    );
    const constant = literals.find((literal) => literal < 2);
    const inputs = literals.filter((literal) => literal > 1).map(connection);
    cellOf[node] = cells.length;
    complement[node] = flip;
    cells.push({
      name: unique(`g${++count}`),
      kind: constant === undefined ? "maj" : constant === 0 ? "and" : "or",
      inputs,
    });
  }
  outputs.forEach((literal, i) =>
    cells.push({
      name: names.outputs[i],
      kind: "output",
      inputs: [
        literal < 2
          ? { cell: constants[literal], pin: 0, inverted: false }
          : connection(literal),
      ],
    })
  );
  return { name: names.name, cells };
}
