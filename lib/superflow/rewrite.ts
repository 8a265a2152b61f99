/**
 * Rewriting of majority graphs: cones of three leaves replaced by networks that share more.
 *
 * A. Mishchenko, S. Chatterjee, R. Brayton, "DAG-aware AIG rewriting", DAC 2006, with majority graphs in
 * place of and-inverter graphs. A cover (majority.ts) prices every cone as if its network were new; here
 * the price of a network is counted in place, gates that the graph already has being free, and its
 * worth is the number of gates that only the old cone used. What loses gates is taken at once.
 *
 * | symbol | identifier | meaning |
 * | --- | --- | --- |
 * | cut | leaves | up to 3 nodes that determine a node |
 * | MFFC | freed | gates that vanish with the node, down to the leaves |
 * | gain | gain | freed gates less new ones |
 *
 * Scope: three leaves and the smallest networks of each function. Order of visits is fixed, so that the
 * same graph gives the same result.
 */
import { Mig, nodeOf } from "./mig.ts";

/** A small network: see `Structure` in majority.ts. */
export interface SmallNetwork {
  gates: readonly (readonly [number, number, number])[];
  output: number;
}

/** Truth tables of the three variables of a cut. */
const VARIABLES = [0xaa, 0xcc, 0xf0];
/** Sets of leaves tried per node, and leaves in a set on the way to three; our choice. */
const MAX_SETS = 24;
const MAX_LEAVES = 4;
/** Largest graph: keys of gates are packed into one number. */
export const MAX_REWRITE_NODES = 60_000;
const RADIX = 1 << 17;
/** A signal that the graph does not have yet. */
const MISSING = -1;

/** A graph whose nodes can be replaced; nodes nobody reads are taken out at once. */
class Network {
  fanins: number[];
  readers: number[][];
  outputs: number[];
  /** Literal by the key of its gate. */
  private known = new Map<number, number>();
  private outputReaders: number[];
  levels: Int32Array | number[];

  constructor(mig: Mig, outputs: readonly number[]) {
    this.fanins = [...mig.fanins];
    this.readers = Array.from({ length: mig.size }, () => []);
    this.outputReaders = new Array(mig.size).fill(0);
    this.outputs = [...outputs];
    this.levels = [...mig.depths()];
    for (let node = 1; node < mig.size; node++) {
      if (mig.fanins[3 * node] < 0) continue;
      for (let i = 0; i < 3; i++) {
        this.readers[nodeOf(mig.fanins[3 * node + i])].push(node);
      }
      const { key, flip } = this.normal(...this.gate(node));
      this.known.set(key, 2 * node + flip);
    }
    for (const literal of outputs) this.outputReaders[nodeOf(literal)]++;
    for (let node = mig.size - 1; node > 0; node--) this.sweep(node);
  }

  get size(): number {
    return this.readers.length;
  }

  isGate(node: number): boolean {
    return this.fanins[3 * node] >= 0;
  }

  gate(node: number): [number, number, number] {
    const { fanins } = this;
    return [fanins[3 * node], fanins[3 * node + 1], fanins[3 * node + 2]];
  }

  uses(node: number): number {
    return this.readers[node].length + this.outputReaders[node];
  }

  /** Sorted fanins as one number, and whether their inversion is meant; or the literal they reduce to. */
  private normal(a: number, b: number, c: number) {
    let swap;
    if (a > b) swap = a, a = b, b = swap;
    if (b > c) swap = b, b = c, c = swap;
    if (a > b) swap = a, a = b, b = swap;
    if (a === b || b === c) return { trivial: b, key: 0, flip: 0 };
    if ((a ^ b) === 1) return { trivial: c, key: 0, flip: 0 };
    if ((b ^ c) === 1) return { trivial: a, key: 0, flip: 0 };
    const flip = (a & 1) + (b & 1) + (c & 1) >= 2 ? 1 : 0;
    if (flip) a ^= 1, b ^= 1, c ^= 1;
    return { key: (a * RADIX + b) * RADIX + c, flip };
  }

  find(a: number, b: number, c: number): number | undefined {
    const { trivial, key, flip } = this.normal(a, b, c);
    if (trivial !== undefined) return trivial;
    const literal = this.known.get(key);
    return literal === undefined ? undefined : literal ^ flip;
  }

  make(a: number, b: number, c: number): number {
    const found = this.find(a, b, c);
    if (found !== undefined) return found;
    const node = this.size;
    const { key, flip } = this.normal(a, b, c);
    this.fanins.push(a, b, c);
    this.readers.push([]);
    this.outputReaders.push(0);
    let level = 0;
    for (const literal of [a, b, c]) {
      this.readers[nodeOf(literal)].push(node);
      level = Math.max(level, this.levels[nodeOf(literal)] + 1);
    }
    (this.levels as number[]).push(level);
    this.known.set(key, 2 * node + flip);
    return 2 * node;
  }

  private forget(node: number): void {
    const { key, flip, trivial } = this.normal(...this.gate(node));
    if (trivial === undefined && this.known.get(key) === (2 * node + flip)) {
      this.known.delete(key);
    }
  }

  /** Takes out a gate that nobody reads, and what only it read. */
  sweep(node: number): void {
    const stack = [node];
    while (stack.length > 0) {
      const dead = stack.pop()!;
      if (!this.isGate(dead) || this.uses(dead) > 0) continue;
      this.forget(dead);
      for (const literal of this.gate(dead)) {
        const readers = this.readers[nodeOf(literal)];
        readers.splice(readers.indexOf(dead), 1);
        stack.push(nodeOf(literal));
      }
      this.fanins[3 * dead] = -1;
    }
  }

  /** Has all readers of a node read a literal instead; equal gates that arise are merged as well. */
  replace(node: number, literal: number): void {
    const queue: [number, number][] = [[node, literal]];
    /** Where a node went, should it be the target of a later replacement. */
    const moved = new Map<number, number>();
    /** Looked at last: a gate without readers may still be what another one is merged with. */
    const loose: number[] = [];
    const current = (target: number) => {
      for (;;) {
        const next = moved.get(nodeOf(target));
        if (next === undefined) return target;
        target = next ^ (target & 1);
      }
    };
    while (queue.length > 0) {
      const [old, given] = queue.shift()!;
      const target = current(given);
      if (nodeOf(target) === old || moved.has(old)) continue;
      moved.set(old, target);
      loose.push(old, nodeOf(target));
      this.outputs.forEach((output, i) => {
        if (nodeOf(output) !== old) return;
        this.outputs[i] = target ^ (output & 1);
        this.outputReaders[old]--;
        this.outputReaders[nodeOf(target)]++;
      });
      for (const reader of [...new Set(this.readers[old])]) {
        this.forget(reader);
        for (let i = 3 * reader; i < 3 * reader + 3; i++) {
          if (nodeOf(this.fanins[i]) !== old) continue;
          this.fanins[i] = target ^ (this.fanins[i] & 1);
          this.readers[nodeOf(target)].push(reader);
        }
        const { trivial, key, flip } = this.normal(...this.gate(reader));
        if (trivial !== undefined) queue.push([reader, trivial]);
        else {
          const other = this.known.get(key);
          if (other === undefined) this.known.set(key, 2 * reader + flip);
          else if (nodeOf(other) !== reader) queue.push([reader, other ^ flip]);
        }
      }
      this.readers[old] = [];
    }
    for (const at of loose) this.sweep(at);
  }

  /** Nodes in an order with fanins first. */
  order(): number[] {
    const state = new Uint8Array(this.size);
    const order: number[] = [];
    const stack = this.outputs.map(nodeOf).reverse();
    while (stack.length > 0) {
      const node = stack[stack.length - 1];
      if (state[node] === 2 || !this.isGate(node)) {
        stack.pop();
        continue;
      }
      if (state[node] === 1) {
        state[node] = 2;
        order.push(node);
        stack.pop();
        continue;
      }
      state[node] = 1;
      for (const literal of this.gate(node)) {
        if (state[nodeOf(literal)] === 0) stack.push(nodeOf(literal));
      }
    }
    return order;
  }

  /** The graph as it stands, and its outputs. */
  rebuilt(mig: Mig): { mig: Mig; outputs: number[] } {
    const result = new Mig();
    const image: number[] = new Array(this.size).fill(0);
    for (const node of mig.inputs) image[node] = result.input();
    const literal = (l: number) => image[nodeOf(l)] ^ (l & 1);
    for (const node of this.order()) {
      const [a, b, c] = this.gate(node).map(literal);
      image[node] = result.maj(a, b, c);
    }
    return { mig: result, outputs: this.outputs.map(literal) };
  }
}

/** Adds a number to an ascending list, once. */
function insert(list: number[], n: number): void {
  let i = list.length;
  while (i > 0 && list[i - 1] > n) i--;
  if (i === 0 || list[i - 1] !== n) list.splice(i, 0, n);
}

/** Sets of up to three leaves that determine a node. */
function leafSets(network: Network, node: number): number[][] {
  const { fanins } = network;
  const withFanins = (leaves: number[], of: number) => {
    for (let i = 3 * of; i < 3 * of + 3; i++) {
      if (fanins[i] > 1) insert(leaves, nodeOf(fanins[i]));
    }
    return leaves;
  };
  const same = (a: number[], b: number[]) =>
    a.length === b.length && a.every((n, i) => n === b[i]);
  const sets = [withFanins([], node)];
  for (let i = 0; i < sets.length && sets.length < MAX_SETS; i++) {
    for (const leaf of sets[i]) {
      if (fanins[3 * leaf] < 0) continue;
      const next = withFanins(sets[i].filter((n) => n !== leaf), leaf);
      if (next.length <= MAX_LEAVES && !sets.some((set) => same(set, next))) {
        sets.push(next);
      }
    }
  }
  return sets.filter((set) => set.length <= 3);
}

/** Function of a node in terms of leaves; undefined if the leaves do not determine it. */
function tableOf(
  network: Network,
  node: number,
  leaves: number[],
): number | undefined {
  const tables = new Map<number, number>([[0, 0]]);
  leaves.forEach((leaf, i) => tables.set(leaf, VARIABLES[i]));
  const visit = (at: number): number | undefined => {
    const known = tables.get(at);
    if (known !== undefined) return known;
    if (!network.isGate(at)) return undefined;
    const values: number[] = [];
    for (const literal of network.gate(at)) {
      const value = visit(nodeOf(literal));
      if (value === undefined) return undefined;
      values.push(literal & 1 ? ~value : value);
    }
    const [a, b, c] = values;
    const table = ((a & b) | (a & c) | (b & c)) & 255;
    tables.set(at, table);
    return table;
  };
  return visit(node);
}

/** Gates that only `node` needs, above the leaves: those that vanish with it. */
function freedGates(
  network: Network,
  node: number,
  leaves: number[],
): Set<number> {
  const freed = new Set([node]);
  const lost = new Map<number, number>();
  const stack = [node];
  while (stack.length > 0) {
    for (const literal of network.gate(stack.pop()!)) {
      const fanin = nodeOf(literal);
      if (!network.isGate(fanin) || leaves.includes(fanin)) continue;
      const count = (lost.get(fanin) ?? 0) + 1;
      lost.set(fanin, count);
      if (count === network.uses(fanin)) {
        freed.add(fanin);
        stack.push(fanin);
      }
    }
  }
  return freed;
}

export interface RewriteOptions {
  /** Latest level of the outputs; levels may not rise above it. */
  depth: number;
  /** Also takes what changes nothing in the number of gates: a step sideways before the next pass. */
  sideways?: boolean;
}

/**
 * One pass of rewriting over a graph.
 *
 * @param networks Candidates for each of the 256 functions of three inputs.
 * @returns A new graph with the same outputs, never with more gates nor deeper than `depth`; the same
 *   graph if the pass led deeper.
 */
export function rewrite(
  mig: Mig,
  outputs: readonly number[],
  networks: readonly (readonly SmallNetwork[])[],
  { depth, sideways = false }: RewriteOptions,
): { mig: Mig; outputs: number[] } {
  const network = new Network(mig, outputs);
  // required levels from below: an output may wait until `depth`
  const required: number[] = new Array(mig.size).fill(depth);
  const order = network.order();
  // of the candidate at hand: the literal of each signal, and its level
  const signals = new Int32Array(8);
  const levels = new Int32Array(8);
  for (let i = order.length - 1; i >= 0; i--) {
    for (const literal of network.gate(order[i])) {
      const fanin = nodeOf(literal);
      required[fanin] = Math.min(required[fanin], required[order[i]] - 1);
    }
  }
  for (const node of order) {
    if (network.size > MAX_REWRITE_NODES) break;
    if (!network.isGate(node) || network.uses(node) === 0) continue;
    // levels of what was rewritten before this node
    network.levels[node] = 1 +
      Math.max(...network.gate(node).map((l) => network.levels[nodeOf(l)]));
    let best: { network: SmallNetwork; variables: number[] } | undefined;
    let bestGain = sideways ? -1 : 0;
    for (const leaves of leafSets(network, node)) {
      const table = tableOf(network, node, leaves);
      if (table === undefined) continue;
      const freed = freedGates(network, node, leaves);
      if (freed.size <= bestGain) continue;
      const variables = leaves.map((leaf) => 2 * leaf);
      for (let i = 0; i < 3; i++) {
        // a function of fewer variables gives the same with 0 for the others
        signals[1 + i] = variables[i] ?? 0;
        levels[1 + i] = i < leaves.length ? network.levels[leaves[i]] : 0;
      }
      for (const candidate of networks[table]) {
        let added = 0;
        let circular = false;
        let next = 4;
        for (const [x, y, z] of candidate.gates) {
          const [u, v, w] = [signals[x >> 1], signals[y >> 1], signals[z >> 1]];
          const found = u < 0 || v < 0 || w < 0
            ? undefined
            : network.find(u ^ (x & 1), v ^ (y & 1), w ^ (z & 1));
          if (found === undefined) {
            added++;
            levels[next] = 1 +
              Math.max(levels[x >> 1], levels[y >> 1], levels[z >> 1]);
            signals[next++] = MISSING;
          } else {
            circular = nodeOf(found) === node;
            if (circular) break;
            if (freed.has(nodeOf(found))) added++;
            levels[next] = network.levels[nodeOf(found)];
            signals[next++] = found;
          }
          if (freed.size - added <= bestGain) break;
        }
        const gain = freed.size - added;
        if (circular || gain <= bestGain) continue;
        if (
          levels[candidate.output >> 1] >
            Math.max(network.levels[node], required[node] ?? 0)
        ) continue;
        best = { network: candidate, variables };
        bestGain = gain;
      }
    }
    if (best === undefined) continue;
    const built = [0, ...best.variables];
    while (built.length < 4) built.push(0);
    const value = (l: number) => built[l >> 1] ^ (l & 1);
    for (const [a, b, c] of best.network.gates) {
      built.push(network.make(value(a), value(b), value(c)));
    }
    const literal = value(best.network.output);
    const made = built.slice(4).map(nodeOf);
    if (nodeOf(literal) !== node) network.replace(node, literal);
    // what was made and is not read after all
    for (let i = made.length - 1; i >= 0; i--) network.sweep(made[i]);
  }
  const result = network.rebuilt(mig);
  // levels required were those before the pass: where they were too hopeful it is given up
  const depths = result.mig.depths();
  const deeper = result.outputs.some((l) => depths[nodeOf(l)] > depth);
  return deeper ? { mig, outputs: [...outputs] } : result;
}
