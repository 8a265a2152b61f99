/**
 * Parallel counters and accumulators as AQFP netlists: what they cost in junctions and clock phases.
 *
 * A counter adds K bits by full and half adders, column by column of equal weight; the approximate one
 * replaces its first layer by and and or gates in turn (`approximateCount`). In AQFP logic every cell
 * takes a clock phase, an output drives one input, and data must arrive in the phase before: so
 * splitters and buffers are counted with the gates.
 *
 * Clocking: with four phases per cycle an edge over g levels needs g - 1 buffers. With p phases, data
 * stay valid for s = p / 4 of them, and ceil(g / s) - 1 buffers will do.
 *
 * Scope: this is a mini-model of the paper's clocking scheme adjustment (Li et al., arXiv 2309.12212),
 * whose text was not available: the rule above is derived. Levels are earliest; a net's splitters stand
 * right before its first sink, so buffers before them are shared and those behind are not: an upper bound.
 * Full adder of three majority gates; costs of cells in lib/core/aqfp.ts.
 */
import { CLOCK_PHASES, JJ_COUNT } from "../core/aqfp.ts";
import { type Counter } from "./accumulate.ts";

/** A gate; inversions at its pins are free. */
interface Gate {
  kind: "input" | "and" | "or" | "maj";
  inputs: { from: number; inverted: boolean }[];
}

/** Gates in order, each after those it reads. */
export interface CounterNetlist {
  gates: Gate[];
  /** Gates that drive the outputs, the least significant first; `weights` are powers of two. */
  outputs: { from: number; weight: number }[];
}

/** What a balanced netlist holds. */
export interface BalancedCount {
  gates: number;
  splitters: number;
  buffers: number;
  jj: number;
  /** Phases from inputs to outputs. */
  depth: number;
}

/** Outputs of the largest splitter. Source: lsils/SCE-benchmarks (1 to 2, 3 or 4). */
const SPLITTER_OUTPUTS = 4;

/** A netlist under construction. */
function builder(inputs: number) {
  const gates: Gate[] = Array.from(
    { length: inputs },
    () => ({ kind: "input", inputs: [] }),
  );
  const level: number[] = new Array(inputs).fill(0);
  const add = (kind: Gate["kind"], ...from: number[]) => {
    // A gate reads ~i as the complement of i.
    const pins = from.map((i) =>
      i < 0 ? { from: ~i, inverted: true } : { from: i, inverted: false }
    );
    gates.push({ kind, inputs: pins });
    level.push(1 + Math.max(...pins.map((pin) => level[pin.from])));
    return gates.length - 1;
  };
  return {
    gates,
    level,
    add,
    /** carry = a and b, sum = (a or b) and not carry */
    halfAdder(a: number, b: number) {
      const carry = add("and", a, b);
      return { carry, sum: add("and", add("or", a, b), ~carry) };
    },
    /** carry = maj(a, b, c), sum = maj(not carry, c, maj(a, b, not c)) */
    fullAdder(a: number, b: number, c: number) {
      const carry = add("maj", a, b, c);
      return { carry, sum: add("maj", ~carry, c, add("maj", a, b, ~c)) };
    },
  };
}

/**
 * A counter of K bits.
 *
 * @param inputs K, from 1
 */
export function parallelCounter(
  inputs: number,
  kind: Counter = "exact",
): CounterNetlist {
  if (!Number.isInteger(inputs) || inputs < 1) {
    throw new RangeError(
      `Cannot build a counter as it must have a whole number >= 1 of inputs: ${inputs}`,
    );
  }
  const net = builder(inputs);
  const columns: number[][] = [[], []];
  for (let k = 0; k < inputs; k++) {
    if (kind === "exact" || (inputs % 2 === 1 && k === inputs - 1)) {
      columns[0].push(k);
    } else if (k % 2 === 1) {
      columns[1].push(net.add(k % 4 === 1 ? "and" : "or", k - 1, k));
    }
  }
  for (let w = 0; w < columns.length; w++) {
    const column = columns[w];
    while (column.length > 1) {
      // Earliest first keeps the tree flat.
      column.sort((a, b) => net.level[a] - net.level[b]);
      const operands = column.splice(0, 3);
      const { carry, sum } = operands.length === 3
        ? net.fullAdder(operands[0], operands[1], operands[2])
        : net.halfAdder(operands[0], operands[1]);
      column.push(sum);
      (columns[w + 1] ??= []).push(carry);
    }
  }
  return {
    gates: net.gates,
    outputs: columns.flatMap(([from], w) =>
      from === undefined ? [] : [{ from, weight: 2 ** w }]
    ),
  };
}

/**
 * An accumulator: adds a count to its state, which starts where the sign bit becomes the comparison.
 *
 * Inputs are the bits of the count, those of the state, and the reset; every state bit passes a gate
 * that clears or sets it at the start.
 *
 * @param countBits Bits of the count
 * @param stateBits Bits of the state, at least `countBits`
 */
export function accumulator(
  countBits: number,
  stateBits: number,
): CounterNetlist {
  const net = builder(countBits + stateBits + 1);
  const reset = countBits + stateBits;
  const outputs: CounterNetlist["outputs"] = [];
  let carry: number | null = null;
  for (let i = 0; i < stateBits; i++) {
    const state = net.add("and", countBits + i, ~reset);
    const operands: number[] = i < countBits ? [i, state] : [state];
    if (carry !== null) operands.push(carry);
    if (operands.length === 1) {
      outputs.push({ from: state, weight: 2 ** i });
      continue;
    }
    const added = operands.length === 3
      ? net.fullAdder(operands[0], operands[1], operands[2])
      : net.halfAdder(operands[0], operands[1]);
    outputs.push({ from: added.sum, weight: 2 ** i });
    carry = added.carry;
  }
  return { gates: net.gates, outputs };
}

/**
 * The comparator of a stochastic number generator: 1 where the value exceeds the random number.
 *
 * Inputs are the bits of the value, then those of the random number, least significant first;
 * c_(i+1) = maj(x_i, not r_i, c_i). What a network of streams needs per input, and the device does not.
 */
export function streamGenerator(bits: number): CounterNetlist {
  if (!Number.isInteger(bits) || bits < 1) {
    throw new RangeError(
      `Cannot build a generator as it must have a whole number >= 1 of bits: ${bits}`,
    );
  }
  const net = builder(2 * bits);
  let above = net.add("and", 0, ~bits);
  for (let i = 1; i < bits; i++) above = net.add("maj", i, ~(bits + i), above);
  return { gates: net.gates, outputs: [{ from: above, weight: 1 }] };
}

/** Junctions of a generator: its comparator, and a buffer at its threshold for every random bit. */
export function streamGeneratorJj(
  bits: number,
  options: { phases?: number } = {},
): number {
  return balancedCount(streamGenerator(bits), options).jj +
    bits * JJ_COUNT.buffer;
}

/** What a netlist computes: the weighted sum of its outputs, for bits at its inputs. */
export function evaluateCounter(
  { gates, outputs }: CounterNetlist,
  bits: ArrayLike<number>,
): number {
  const values = new Uint8Array(gates.length);
  gates.forEach(({ kind, inputs }, i) => {
    if (kind === "input") {
      values[i] = bits[i];
      return;
    }
    const ones = inputs.filter(({ from, inverted }) =>
      (values[from] === 1) !== inverted
    ).length;
    const needed = kind === "and" ? inputs.length : kind === "or" ? 1 : 2;
    values[i] = ones >= needed ? 1 : 0;
  });
  return outputs.reduce(
    (sum, { from, weight }) => sum + weight * values[from],
    0,
  );
}

/**
 * Cells of a netlist once every path is balanced.
 *
 * Net over levels a -> b:  ceil((b - a) / s) - 1 buffers, s = phases / 4    (derived)
 *
 * @param phases Clock phases per cycle, a multiple of 4. Default 4
 */
export function balancedCount(
  { gates, outputs }: CounterNetlist,
  { phases = CLOCK_PHASES }: { phases?: number } = {},
): BalancedCount {
  if (
    !Number.isInteger(phases) || phases < CLOCK_PHASES ||
    phases % CLOCK_PHASES !== 0
  ) {
    throw new RangeError(
      `Cannot balance a netlist as it must have a multiple of ${CLOCK_PHASES} clock phases: phases ${phases}`,
    );
  }
  const hop = phases / CLOCK_PHASES;
  const sinks: number[][] = gates.map(() => []);
  gates.forEach(({ inputs }, i) => {
    for (const { from } of inputs) sinks[from].push(i);
  });
  const fanout = sinks.map((list) => list.length);
  for (const { from } of outputs) fanout[from]++;
  /** Levels of splitters between a gate and its sinks. */
  const treeDepth = (f: number) =>
    f <= 1 ? 0 : Math.ceil(Math.log(f) / Math.log(SPLITTER_OUTPUTS) - 1e-9);
  const level = new Int32Array(gates.length);
  gates.forEach(({ inputs }, i) => {
    for (const { from } of inputs) {
      const earliest = level[from] + treeDepth(fanout[from]) + 1;
      level[i] = Math.max(level[i], earliest);
    }
  });
  const depth = outputs.reduce(
    (max, { from }) => Math.max(max, level[from] + treeDepth(fanout[from])),
    0,
  );
  const drives = new Set(outputs.map(({ from }) => from));
  let splitters = 0;
  let buffers = 0;
  let cells = 0;
  let jj = 0;
  gates.forEach(({ kind }, i) => {
    if (kind !== "input") {
      cells++;
      jj += JJ_COUNT[kind];
    }
    // An output port reads in the phase after the last cell.
    const ends = sinks[i].map((sink) => level[sink]);
    if (drives.has(i)) ends.push(depth + 1);
    if (ends.length === 0) return;
    const first = Math.min(...ends);
    const stand = first - 1; // where the last splitter stands
    const tree = treeDepth(ends.length);
    splitters += tree === 0
      ? 0
      : Math.ceil((ends.length - 1) / (SPLITTER_OUTPUTS - 1));
    if (tree === 0) {
      buffers += Math.ceil((first - level[i]) / hop) - 1;
      return;
    }
    buffers += Math.ceil((stand - tree + 1 - level[i]) / hop) - 1;
    for (const end of ends) buffers += Math.ceil((end - stand) / hop) - 1;
  });
  jj += splitters * JJ_COUNT.splitter + buffers * JJ_COUNT.buffer;
  return { gates: cells, splitters, buffers, jj, depth };
}
