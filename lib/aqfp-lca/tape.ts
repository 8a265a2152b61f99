/**
 * A tape: straight-line arithmetic, recorded once and run for many draws at a time.
 *
 * What is recorded is folded at once: an operation on constants is a constant, adding zero or multiplying
 * by one is nothing, and the same operation on the same operands is one operation. So whatever does not
 * depend on an input is reckoned while recording and never again; recording an elimination eliminates the
 * part of a system that stays as it is once and for all.
 *
 * A program keeps every quantity of a block of runs side by side, and each instruction is one loop over
 * the block. That costs about a nanosecond per operation and run and needs no generated source.
 */
import type { Expression, Operator } from "./expression.ts";

/** Runs of a block: some hundred quantities of so many runs stay in the second-level cache. */
export const BLOCK = 128;

/** A quantity on a tape, by number. */
export type Node = number;

type Operation = Operator | "max" | "abs" | "call";

interface Instruction {
  operation: Operation;
  operands: Node[];
  f?: (...x: number[]) => number;
}

/** A program over blocks of runs. */
export interface Program {
  /** Instructions of a run. */
  length: number;
  /** Input `i` of run `r` at [i * BLOCK + r]; the caller fills it. */
  inputs: Float64Array;
  /** Output `k`, run by run. */
  outputs: Float64Array[];
  /** Runs the first `count` runs of the block. */
  run(count: number): void;
}

const OPERATIONS: Record<Exclude<Operation, "call">, typeof Math.max> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "^": (a, b) => a ** b,
  max: Math.max,
  abs: Math.abs,
};

/** A recording. Every node knows its value at the centre, where inputs have the values given for them. */
export class Tape {
  /** Value of each node at the centre. */
  readonly central: number[] = [];
  readonly instructions: (Instruction | undefined)[] = [];
  /** Nodes of the inputs, in order. */
  readonly inputs: Node[] = [];
  /** Nodes that are the same in every run. */
  readonly isConstant: boolean[] = [];
  readonly #known = new Map<string, Node>();
  readonly #functions = new Map<(...x: number[]) => number, number>();

  /** A node that is the same in every run. */
  constant(value: number): Node {
    return this.#once(`${Object.is(value, -0) ? "-0" : value}`, value, true);
  }

  /** A node whose value comes with each run. */
  input(central: number): Node {
    const node = this.#add(central, false);
    this.inputs.push(node);
    return node;
  }

  isZero(node: Node): boolean {
    return this.isConstant[node] && this.central[node] === 0;
  }

  #add(central: number, constant: boolean, instruction?: Instruction): Node {
    this.central.push(central);
    this.isConstant.push(constant);
    return this.instructions.push(instruction) - 1;
  }

  #once(
    name: string,
    central: number,
    constant: boolean,
    instruction?: Instruction,
  ): Node {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const node = this.#add(central, constant, instruction);
    this.#known.set(name, node);
    return node;
  }

  /** a op b. */
  binary(op: Operator | "max", a: Node, b: Node): Node {
    const is = (node: Node, value: number) =>
      this.isConstant[node] && this.central[node] === value;
    if (op === "+" && is(a, 0)) return b;
    if ((op === "+" || op === "-") && is(b, 0)) return a;
    if ((op === "*" || op === "/") && is(b, 1)) return a;
    if (op === "*" && is(a, 1)) return b;
    if ((op === "*" || op === "/") && is(a, 0) && !is(b, 0)) return a;
    if (op === "*" && is(b, 0)) return b;
    return this.#operation(op, [a, b]);
  }

  abs(a: Node): Node {
    return this.#operation("abs", [a]);
  }

  #operation(operation: Exclude<Operation, "call">, operands: Node[]): Node {
    const value = OPERATIONS[operation](
      ...operands.map((node) => this.central[node]),
    );
    if (operands.every((node) => this.isConstant[node])) {
      return this.constant(value);
    }
    return this.#once(`${operation} ${operands.join(" ")}`, value, false, {
      operation,
      operands,
    });
  }

  /** f of some nodes; f is a function of its arguments alone. */
  call(f: (...x: number[]) => number, operands: Node[]): Node {
    const value = f(...operands.map((node) => this.central[node]));
    if (operands.every((node) => this.isConstant[node])) {
      return this.constant(value);
    }
    const id = this.#functions.get(f) ?? this.#functions.size;
    this.#functions.set(f, id);
    return this.#once(`call ${id} ${operands.join(" ")}`, value, false, {
      operation: "call",
      operands,
      f,
    });
  }

  /** An expression over nodes of the values. */
  record(expression: Expression, values: ArrayLike<Node>): Node {
    switch (expression.op) {
      case "number":
        return this.constant(expression.value);
      case "value":
        return values[expression.index];
      case "call":
        return this.call(
          expression.f,
          expression.args.map((part) => this.record(part, values)),
        );
      default:
        return this.binary(
          expression.op,
          this.record(expression.a, values),
          this.record(expression.b, values),
        );
    }
  }

  /** Sum of nodes in their order. */
  sum(nodes: Node[]): Node {
    return nodes.reduce(
      (total, node) => this.binary("+", total, node),
      this.constant(0),
    );
  }

  /** What the outputs need, as a program; a place is used again when its last reader has run. */
  compile(outputs: Node[]): Program {
    const needed = new Set(outputs);
    const lastUse = new Map<Node, number>();
    for (let node = this.instructions.length - 1; node >= 0; node--) {
      const instruction = this.instructions[node];
      if (instruction === undefined || !needed.has(node)) continue;
      for (const operand of instruction.operands) {
        needed.add(operand);
        if (!lastUse.has(operand)) lastUse.set(operand, node);
      }
    }
    for (const node of outputs) lastUse.set(node, Infinity);
    const slots = new Map<Node, number>();
    this.inputs.forEach((node, i) => slots.set(node, i));
    let used = this.inputs.length;
    const constants: Node[] = [];
    for (const node of [...needed].sort((a, b) => a - b)) {
      if (this.isConstant[node]) {
        constants.push(node);
        slots.set(node, used++);
      }
    }
    const free: number[] = [];
    const code: Code[] = [];
    this.instructions.forEach((instruction, node) => {
      if (instruction === undefined || !needed.has(node)) return;
      const { operation, operands, f } = instruction;
      const from = operands.map((operand) => slots.get(operand)! * BLOCK);
      for (const operand of new Set(operands)) {
        // In place is safe, as a run reads its operands before it writes.
        if (
          lastUse.get(operand) === node &&
          this.instructions[operand] !== undefined
        ) free.push(slots.get(operand)!);
      }
      const slot = free.pop() ?? used++;
      slots.set(node, slot);
      code.push({ operation, from, to: slot * BLOCK, f });
    });
    const memory = new Float64Array(used * BLOCK);
    for (const node of constants) {
      const start = slots.get(node)! * BLOCK;
      memory.fill(this.central[node], start, start + BLOCK);
    }
    return {
      length: code.length,
      inputs: memory.subarray(0, this.inputs.length * BLOCK),
      outputs: outputs.map((node) => {
        const start = slots.get(node)! * BLOCK;
        return memory.subarray(start, start + BLOCK);
      }),
      run: (count) => execute(code, memory, count),
    };
  }
}

interface Code {
  operation: Operation;
  /** Places of the operands in memory. */
  from: number[];
  to: number;
  f?: (...x: number[]) => number;
}

function execute(code: Code[], m: Float64Array, count: number): void {
  for (const { operation, from, to, f } of code) {
    const [a, b] = from;
    switch (operation) {
      case "+":
        for (let r = 0; r < count; r++) m[to + r] = m[a + r] + m[b + r];
        break;
      case "-":
        for (let r = 0; r < count; r++) m[to + r] = m[a + r] - m[b + r];
        break;
      case "*":
        for (let r = 0; r < count; r++) m[to + r] = m[a + r] * m[b + r];
        break;
      case "/":
        for (let r = 0; r < count; r++) m[to + r] = m[a + r] / m[b + r];
        break;
      case "^":
        for (let r = 0; r < count; r++) m[to + r] = m[a + r] ** m[b + r];
        break;
      case "max":
        for (let r = 0; r < count; r++) {
          m[to + r] = Math.max(m[a + r], m[b + r]);
        }
        break;
      case "abs":
        for (let r = 0; r < count; r++) m[to + r] = Math.abs(m[a + r]);
        break;
      case "call":
        callAll(f!, from, to, m, count);
    }
  }
}

/** f for every run of the block, without an array per call for up to three arguments. */
function callAll(
  f: (...x: number[]) => number,
  from: number[],
  to: number,
  m: Float64Array,
  count: number,
): void {
  const [a, b, c] = from;
  if (from.length === 1) {
    for (let r = 0; r < count; r++) m[to + r] = f(m[a + r]);
  } else if (from.length === 2) {
    for (let r = 0; r < count; r++) m[to + r] = f(m[a + r], m[b + r]);
  } else if (from.length === 3) {
    for (let r = 0; r < count; r++) {
      m[to + r] = f(m[a + r], m[b + r], m[c + r]);
    }
  } else {
    const x = new Array<number>(from.length);
    for (let r = 0; r < count; r++) {
      for (let i = 0; i < x.length; i++) x[i] = m[from[i] + r];
      m[to + r] = f(...x);
    }
  }
}
