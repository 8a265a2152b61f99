/**
 * Structural Verilog: netlists of majority logic as text, read and written.
 *
 * Two styles are read and written, also mixed in one file:
 *
 *   cells   instances of the cells below with their pins by name, as in the benchmark files of
 *           github.com/Super-EDA/AQFP-Benchmark
 *   assign  continuous assignments of `~ & | ^ ?:`, as in the strashed files of
 *           github.com/lsils/SCE-benchmarks; (a & b) | (a & c) | (b & c) is one majority gate
 *
 * | cell | pins | computes |
 * | --- | --- | --- |
 * | bfr, inv | a -> q | a, ~a |
 * | spl2, spl3L, spl4L ... | a -> q0, q1 ... | copies of a |
 * | and_XX, or_XX | a, b -> q | X is b for a plain input, i for an inverted one |
 * | maj_XXX | a, b, c -> q | majority |
 * | const0, const1 | q | a constant |
 *
 * Scope: one flat module of one-bit nets and vectors (a vector `a` becomes nets `a[0]`, `a[1]` ...,
 * from its right-hand index on), escaped names, gate primitives (and, nand, not ...), constants.
 * Modules named like a cell are taken for its model and skipped. Processes, parameters and
 * hierarchy belong to a synthesiser and are refused with line and column.
 */
import {
  type Cell,
  type CellKind,
  checkNetlist,
  type Connection,
  type Netlist,
  outputCount,
  ports,
} from "../../superflow/netlist.ts";

export interface ReadVerilogOptions {
  /** Name of the file for messages. */
  file?: string;
  /** The module to read, needed where the file has several. */
  top?: string;
}

export interface WriteVerilogOptions {
  /** Instances of cells, or expressions, which lose buffers and splitters; `"cells"` by default. */
  style?: "cells" | "assign";
  /** Ports named `a[0]`, `a[1]` ... in a row as one vector `a`; true by default. */
  vectors?: boolean;
  /** Appends behavioural models of the cells, so that any simulator reads the file; false by default. */
  models?: boolean;
}

// ---------------------------------------------------------------------------------------------
// Cells

const CELL_PATTERN =
  /^(?:(bfr|inv)|spl([2-9]|[1-9]\d+)L?|(and|or)_([bi]{2})|(maj)_([bi]{3})|const([01]))$/;

interface CellType {
  kind: CellKind;
  inputs: string[];
  outputs: string[];
  inverted: boolean[];
  arity?: number;
  value?: 0 | 1;
}

/** What the name of a cell means, or undefined for a name that is none of the cells. */
function cellType(name: string): CellType | undefined {
  const match = CELL_PATTERN.exec(name);
  if (match === null) return undefined;
  const [, unary, arity, gate, gateLetters, maj, majLetters, value] = match;
  if (unary !== undefined) {
    const kind = unary === "bfr" ? "buffer" : "inverter";
    return { kind, inputs: ["a"], outputs: ["q"], inverted: [false] };
  }
  if (arity !== undefined) {
    const outputs = Array.from({ length: Number(arity) }, (_, i) => `q${i}`);
    return {
      kind: "splitter",
      inputs: ["a"],
      outputs,
      inverted: [false],
      arity: outputs.length,
    };
  }
  if (value !== undefined) {
    return {
      kind: "constant",
      inputs: [],
      outputs: ["q"],
      inverted: [],
      value: value === "1" ? 1 : 0,
    };
  }
  const letters = gateLetters ?? majLetters;
  return {
    kind: (gate ?? maj) as CellKind,
    inputs: ["a", "b", "c"].slice(0, letters.length),
    outputs: ["q"],
    inverted: [...letters].map((letter) => letter === "i"),
  };
}

/** Name of the Verilog cell for a cell of a netlist; ports have none. */
export function cellTypeName(cell: Cell): string {
  switch (cell.kind) {
    case "buffer":
      return "bfr";
    case "inverter":
      return "inv";
    case "splitter":
      return cell.arity === 2 ? "spl2" : `spl${cell.arity}L`;
    case "constant":
      return `const${cell.value}`;
    case "and":
    case "or":
    case "maj":
      return `${cell.kind}_${
        cell.inputs.map(({ inverted }) => inverted ? "i" : "b").join("")
      }`;
    default:
      throw new TypeError(
        `Cannot name a Verilog cell for ${cell.name} as ports are not cells: ${cell.kind}`,
      );
  }
}

/** Behavioural model of one cell, by its Verilog name. */
function cellModel(name: string): string {
  const { kind, inputs, outputs, inverted, value } = cellType(name)!;
  const terms = inputs.map((pin, i) => inverted[i] ? `~${pin}` : pin);
  const [a, b, c] = terms;
  const expression = kind === "maj"
    ? `(${a} & ${b}) | (${a} & ${c}) | (${b} & ${c})`
    : kind === "constant"
    ? `1'b${value}`
    : kind === "inverter"
    ? `~${a}`
    : terms.join(kind === "or" ? " | " : " & ");
  const declared = [
    ...inputs.map((pin) => `input ${pin}`),
    ...outputs.map((pin) => `output ${pin}`),
  ].join(", ");
  return `module ${name} (${declared});\n${
    outputs.map((pin) => `  assign ${pin} = ${expression};\n`).join("")
  }endmodule\n`;
}

/** Behavioural Verilog models of all cells, or of those a netlist uses. */
export function cellModels(netlist?: Netlist): string {
  const all = [
    "bfr",
    "inv",
    "spl2",
    "spl3L",
    "spl4L",
    "const0",
    "const1",
    ...["bb", "bi", "ib", "ii"].flatMap((l) => [`and_${l}`, `or_${l}`]),
    ...["bbb", "bbi", "bib", "ibb", "bii", "ibi", "iib", "iii"].map((l) =>
      `maj_${l}`
    ),
  ];
  const used = netlist?.cells.flatMap((cell) =>
    cell.kind === "input" || cell.kind === "output" ? [] : [cellTypeName(cell)]
  );
  return [...new Set(used?.sort() ?? all)].map(cellModel).join("\n");
}

// ---------------------------------------------------------------------------------------------
// Tokens

interface Token {
  type: "name" | "number" | "symbol" | "end";
  text: string;
  /** Offset in the source. */
  at: number;
  /** Written as `\name `, so never a keyword. */
  escaped: boolean;
}

/** Blanks, comments, attributes and compiler directives. */
const SKIP =
  /(?:\s+|\/\/[^\n]*|\/\*[^]*?\*\/|\(\*(?!\s*\))[^]*?\*\)|`[^\n]*)+/y;
const TOKEN =
  /\\(\S+)|([A-Za-z_][\w$]*)|((?:\d[\d_]*)?\s*'[sS]?[bodhBODH]\s*[\da-fA-FxXzZ?_]+|\d[\d_]*)|(~\^|\^~|&&|\|\||[()[\]{},;:=.~!&|^?#@+*/<>-])/y;

const KEYWORDS = new Set(
  ("always always_comb always_ff always_latch assign begin case casex casez default defparam else end endcase " +
    "endfunction endgenerate endmodule endtask for forever function generate genvar if initial inout input integer " +
    "localparam logic module output parameter real reg repeat signed supply0 supply1 task time tri while wire")
    .split(" "),
);

const PRIMITIVES: Record<string, ["and" | "or" | "xor", boolean]> = {
  and: ["and", false],
  nand: ["and", true],
  or: ["or", false],
  nor: ["or", true],
  xor: ["xor", false],
  xnor: ["xor", true],
  buf: ["and", false],
  not: ["and", true],
};

/** A one-bit expression. Chains of an operator are one node, however long. */
type Bit =
  | { op: "net"; net: number }
  | { op: "constant"; value: 0 | 1 }
  | { op: "not"; of: Bit }
  | { op: "and" | "or" | "xor"; args: Bit[] }
  | { op: "mux"; select: Bit; yes: Bit; no: Bit };

/** The deepest nesting of brackets and prefixes, far above what tools write. */
const MAX_DEPTH = 400;

/** A net, perhaps inverted. */
interface Literal {
  net: number;
  inverted: boolean;
}

/** What drives a net: a cell's pin, or another net. */
type Driver = { cell: number; pin: number } | Literal;

interface Net {
  name: string;
  /** First mention, for messages. */
  at: number;
  driver?: Driver;
  drivenAt: number;
}

/** Reads one module; holds the position in the text and the netlist under construction. */
class Reader {
  source: string;
  file: string;
  offset = 0;
  token: Token;
  depth = 0;
  nets: Net[] = [];
  netByName = new Map<string, number>();
  /** Bits of the declared vectors, right-hand index first, and the index of each. */
  vectors = new Map<string, { bits: number[]; indices: number[] }>();
  direction = new Map<string, "input" | "output">();
  /** Names that the text gives: ports and instances. */
  names = new Set<string>();
  /** Cells under construction; `given` are the names that are not to be changed. */
  cells: { cell: Omit<Cell, "inputs">; inputs: Literal[]; given?: true }[] = [];
  constants = new Map<0 | 1, number>();

  constructor(source: string, file: string) {
    this.source = source;
    this.file = file;
    this.token = this.scan();
  }

  // -- text

  fail(message: string, at = this.token.at): never {
    const before = this.source.slice(0, at);
    const line = before.split("\n").length;
    const column = at - before.lastIndexOf("\n");
    throw new SyntaxError(
      `Cannot read Verilog at ${this.file}:${line}:${column}: ${message}`,
    );
  }

  scan(): Token {
    SKIP.lastIndex = this.offset;
    if (SKIP.test(this.source)) this.offset = SKIP.lastIndex;
    const at = this.offset;
    if (at >= this.source.length) {
      return { type: "end", text: "end of file", at, escaped: false };
    }
    if (this.source.startsWith("/*", at)) {
      this.fail("a comment is not closed", at);
    }
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(this.source);
    if (match === null) {
      const text = this.source.slice(at, at + 12).split(/\s/)[0];
      this.fail(
        text.startsWith("(*")
          ? "an attribute is not closed"
          : `structural Verilog has no ${JSON.stringify(text)}`,
        at,
      );
    }
    this.offset = TOKEN.lastIndex;
    const [text, escaped, name, number] = match;
    if (escaped !== undefined) {
      return { type: "name", text: escaped, at, escaped: true };
    }
    const type = name !== undefined
      ? "name"
      : number !== undefined
      ? "number"
      : "symbol";
    return { type, text, at, escaped: false };
  }

  next(): Token {
    const token = this.token;
    this.token = this.scan();
    return token;
  }

  is(text: string): boolean {
    return this.token.text === text && !this.token.escaped &&
      this.token.type !== "end";
  }

  accept(text: string): boolean {
    if (!this.is(text)) return false;
    this.next();
    return true;
  }

  expect(text: string, why: string): void {
    if (!this.accept(text)) {
      this.fail(
        `expected ${JSON.stringify(text)} ${why}, found ${this.found()}`,
      );
    }
  }

  found(): string {
    return this.token.type === "end"
      ? "the end of the file"
      : JSON.stringify(this.token.text);
  }

  identifier(what: string): Token {
    const { type, text, escaped } = this.token;
    if (type !== "name" || (!escaped && KEYWORDS.has(text))) {
      this.fail(`expected ${what}, found ${this.found()}`);
    }
    return this.next();
  }

  integer(what: string): number {
    if (this.token.type !== "number" || !/^[\d_]+$/.test(this.token.text)) {
      this.fail(`expected ${what}, found ${this.found()}`);
    }
    const value = Number(this.next().text.replaceAll("_", ""));
    if (!Number.isSafeInteger(value)) this.fail(`${what} is too large`);
    return value;
  }

  /** `[left:right]`, or undefined. */
  range(): [number, number] | undefined {
    if (!this.accept("[")) return undefined;
    const at = this.token.at;
    const left = this.integer("the left bound of a vector");
    this.expect(":", "in a vector's range");
    const right = this.integer("the right bound of a vector");
    this.expect("]", "after a vector's range");
    if (Math.abs(left - right) >= 1 << 20) {
      this.fail(
        `a vector must have fewer than 2^20 bits: [${left}:${right}]`,
        at,
      );
    }
    return [left, right];
  }

  // -- nets

  net(name: string, at: number): number {
    let net = this.netByName.get(name);
    if (net === undefined) {
      net = this.nets.length;
      this.nets.push({ name, at, drivenAt: -1 });
      this.netByName.set(name, net);
    }
    return net;
  }

  declare(name: string, at: number, range?: [number, number]): void {
    if (range === undefined) {
      this.net(name, at);
      return;
    }
    const [left, right] = range;
    const step = left >= right ? 1 : -1;
    const indices = Array.from(
      { length: Math.abs(left - right) + 1 },
      (_, i) => right + step * i,
    );
    const known = this.vectors.get(name);
    if (known !== undefined) {
      if (
        known.indices.length !== indices.length || known.indices[0] !== right
      ) this.fail(`${name} is declared with two ranges`, at);
      return;
    }
    if (this.netByName.has(name)) {
      this.fail(`${name} is declared as a vector after its use as one bit`, at);
    }
    const bits = indices.map((i) => this.net(`${name}[${i}]`, at));
    this.vectors.set(name, { bits, indices });
  }

  drive(net: number, driver: Driver, at: number): void {
    const { name, driver: other, drivenAt } = this.nets[net];
    if (other !== undefined || this.direction.get(name) === "input") {
      const first = this.source.slice(0, drivenAt).split("\n").length;
      this.fail(
        other === undefined
          ? `net ${name} must have one driver: it is an input port`
          : `net ${name} must have one driver: line ${first} drives it too`,
        at,
      );
    }
    this.nets[net].driver = driver;
    this.nets[net].drivenAt = at;
  }

  // -- expressions: arrays of bits, right-hand bit first

  /** Name, bit or part of a vector. */
  reference(): number[] {
    const { text, at, escaped } = this.identifier("the name of a net");
    const vector = this.vectors.get(text);
    if (!this.is("[") || (vector === undefined && escaped)) {
      return vector?.bits ?? [this.net(text, at)];
    }
    if (vector === undefined) this.fail(`${text} is not declared as a vector`);
    this.next();
    const bit = () => {
      const position = this.token.at;
      const index = this.integer("the index of a bit");
      const place = vector.indices.indexOf(index);
      if (place < 0) {
        this.fail(`${text} has no bit ${index}`, position);
      }
      return place;
    };
    const first = bit();
    const last = this.accept(":") ? bit() : first;
    this.expect("]", "after an index");
    if (last > first) {
      this.fail(`the part of ${text} runs against its declaration`, at);
    }
    return vector.bits.slice(last, first + 1);
  }

  number(): Bit[] {
    const { text, at } = this.next();
    const match = /^(?:([\d_]+)\s*)?'[sS]?([bodhBODH])\s*([\da-fA-F_]+)$/.exec(
      text,
    );
    const plain = /^[\d_]+$/.test(text);
    if (match === null && !plain) {
      this.fail(
        `a constant must be made of the digits 0 and 1, not x or z: ${text}`,
        at,
      );
    }
    const [, size, base, digits] = match ?? [text, "32", "d", text];
    const radix = { b: 2, o: 8, d: 10, h: 16 }[base.toLowerCase()]!;
    const width = Number((size ?? "32").replaceAll("_", ""));
    if (!(width >= 1 && width <= 1 << 16)) {
      this.fail(`a constant must have 1 to 65536 bits: ${text}`, at);
    }
    let value = 0n;
    for (const digit of digits.replaceAll("_", "")) {
      const d = parseInt(digit, radix);
      if (Number.isNaN(d)) this.fail(`${digit} is no digit of ${text}`, at);
      value = value * BigInt(radix) + BigInt(d);
    }
    const bits: Bit[] = [];
    for (let i = 0; i < width; i++, value >>= 1n) {
      bits.push({ op: "constant", value: (value & 1n) === 1n ? 1 : 0 });
    }
    return bits;
  }

  nested<T>(parse: () => T): T {
    if (++this.depth > MAX_DEPTH) {
      this.fail(`expressions must be nested at most ${MAX_DEPTH} deep`);
    }
    const result = parse();
    this.depth--;
    return result;
  }

  primary(): Bit[] {
    const { text, type, at } = this.token;
    if (type === "number") return this.number();
    if (type === "symbol") {
      if (text === "~" || text === "!") {
        this.next();
        const bits = this.nested(() => this.primary());
        if (text === "!" && bits.length !== 1) {
          this.fail("the operand of ! must have one bit", at);
        }
        return bits.map((of): Bit =>
          of.op === "not" ? of.of : ({
            op: "not",
            of,
          })
        );
      }
      if (text === "(") {
        this.next();
        const bits = this.nested(() => this.expression());
        this.expect(")", "after an expression");
        return bits;
      }
      if (text === "{") {
        this.next();
        const parts: Bit[][] = [];
        do parts.push(this.nested(() => this.expression())); while (
          this.accept(",")
        );
        this.expect("}", "after a concatenation");
        return parts.reverse().flat();
      }
      this.fail(
        `expected the name of a net, a constant, "~" or "(", found ${this.found()}`,
      );
    }
    return this.reference().map((net): Bit => ({ op: "net", net }));
  }

  sameWidth(a: Bit[], b: Bit[], at: number): void {
    if (a.length !== b.length) {
      this.fail(
        `both sides must have the same number of bits: ${a.length} and ${b.length}`,
        at,
      );
    }
  }

  /** Operators of one precedence; `level` 0 is the weakest. */
  chain(level: number): Bit[] {
    const operators = [["||"], ["&&"], ["|"], ["^", "~^", "^~"], ["&"]][level];
    const operand = () => level === 4 ? this.primary() : this.chain(level + 1);
    const first = operand();
    let chains: { op: "and" | "or" | "xor"; args: Bit[] }[] | undefined;
    let inverted = false;
    while (
      this.token.type === "symbol" && operators.includes(this.token.text)
    ) {
      const { text, at } = this.next();
      const right = operand();
      this.sameWidth(first, right, at);
      if (text.length === 2 && text[0] === text[1] && first.length !== 1) {
        this.fail(`the operands of ${text} must have one bit`, at);
      }
      if (text.includes("~")) inverted = !inverted;
      const op = text[0] === "|" ? "or" : text[0] === "&" ? "and" : "xor";
      chains ??= first.map((bit) => ({ op, args: [bit] }));
      right.forEach((bit, i) => chains![i].args.push(bit));
    }
    if (chains === undefined) return first;
    return inverted
      ? chains.map((of): Bit => ({ op: "not", of }))
      : chains as Bit[];
  }

  expression(): Bit[] {
    const condition = this.chain(0);
    if (!this.is("?")) return condition;
    const { at } = this.next();
    if (condition.length !== 1) {
      this.fail("the condition of ?: must have one bit", at);
    }
    const yes = this.nested(() => this.expression());
    this.expect(":", "in a choice");
    const no = this.nested(() => this.expression());
    this.sameWidth(yes, no, at);
    return yes.map((bit, i): Bit => ({
      op: "mux",
      select: condition[0],
      yes: bit,
      no: no[i],
    }));
  }

  // -- gates

  /** A cell with one output, on a net of its own. */
  gate(cell: Omit<Cell, "inputs">, inputs: Literal[], at: number): Literal {
    const net = this.nets.length;
    this.nets.push({
      name: cell.name,
      at,
      driver: { cell: this.cells.length, pin: 0 },
      drivenAt: at,
    });
    this.cells.push({ cell, inputs });
    return { net, inverted: false };
  }

  constant(value: 0 | 1, at: number): Literal {
    let net = this.constants.get(value);
    if (net === undefined) {
      const name = value === 0 ? "zero" : "one";
      net = this.gate({ name, kind: "constant", value }, [], at).net;
      this.constants.set(value, net);
    }
    return { net, inverted: false };
  }

  lower(bit: Bit, name: string, at: number): Literal {
    const make = (kind: CellKind, inputs: Literal[]) =>
      this.gate({ name, kind }, inputs, at);
    switch (bit.op) {
      case "net":
        return { net: bit.net, inverted: false };
      case "constant":
        return this.constant(bit.value, at);
      case "not":
        return invert(this.lower(bit.of, name, at));
      case "mux": {
        const select = this.lower(bit.select, `${name}_s`, at);
        return make("or", [
          make("and", [select, this.lower(bit.yes, `${name}_y`, at)]),
          make("and", [invert(select), this.lower(bit.no, `${name}_n`, at)]),
        ]);
      }
      default: {
        const majority = majorityLiterals(bit);
        if (majority !== undefined) return make("maj", majority);
        const inputs = bit.args.map((arg, i) =>
          this.lower(arg, `${name}_${"abcdefgh"[i] ?? i}`, at)
        );
        const last = inputs.length - 1;
        // inner gates of a chain get derived names, the last one the name itself
        return inputs.reduce((left, right, i) => {
          const stem = i === last ? name : `${name}_${i}`;
          const gate = (kind: CellKind, pair: Literal[], suffix = "") =>
            this.gate({ name: stem + suffix, kind }, pair, at);
          return bit.op !== "xor" ? gate(bit.op, [left, right]) : gate("or", [
            gate("and", [left, invert(right)], "_x"),
            gate("and", [invert(left), right], "_y"),
          ]);
        });
      }
    }
  }

  // -- statements

  assign(): void {
    do {
      const at = this.token.at;
      const targets = this.is("{") ? this.targets() : this.reference();
      this.expect("=", "in an assignment");
      this.assignBits(targets, this.expression(), at);
    } while (this.accept(","));
    this.expect(";", "after an assignment");
  }

  targets(): number[] {
    this.next();
    const parts: number[][] = [];
    do parts.push(this.reference()); while (this.accept(","));
    this.expect("}", "after a concatenation");
    return parts.reverse().flat();
  }

  assignBits(targets: number[], bits: Bit[], at: number): void {
    const fitted = bits.length > targets.length &&
        bits.every(({ op }) => op === "constant")
      ? bits.slice(0, targets.length)
      : bits;
    if (fitted.length !== targets.length) {
      this.fail(
        `both sides must have the same number of bits: ${targets.length} and ${fitted.length}`,
        at,
      );
    }
    targets.forEach((net, i) => {
      const { name } = this.nets[net];
      // brackets belong to ports: tools that read names of cells stumble over them
      const stem = this.direction.has(name)
        ? `${name.replace(/\[(\d+)\]$/, "_$1")}_g`
        : name;
      this.drive(net, this.lower(fitted[i], stem, at), at);
    });
  }

  primitive(type: string): void {
    const [op, inverted] = PRIMITIVES[type];
    do {
      const name = this.token.type === "name" ? this.next().text : type;
      this.expect("(", `after ${type}`);
      const at = this.token.at;
      const [output] = this.one(this.reference(), "an output", at);
      const args: Bit[] = [];
      while (this.accept(",")) {
        args.push(this.one(this.expression(), "an input", at)[0]);
      }
      this.expect(")", `after the pins of ${type}`);
      const single = type === "buf" || type === "not";
      if (single ? args.length !== 1 : args.length < 2) {
        this.fail(
          `${type} must have ${
            single ? "one input" : "two or more inputs"
          }: ${args.length}`,
          at,
        );
      }
      const bit: Bit = args.length === 1 ? args[0] : { op, args };
      this.drive(
        output,
        this.lower(inverted ? { op: "not", of: bit } : bit, name, at),
        at,
      );
    } while (this.accept(","));
    this.expect(";", `after ${type}`);
  }

  one<T>(bits: T[], what: string, at: number): T[] {
    if (bits.length !== 1) {
      this.fail(`${what} pin must have one bit: ${bits.length}`, at);
    }
    return bits;
  }

  instances({ text: typeName, at: typeAt }: Token): void {
    const type = cellType(typeName);
    if (type === undefined) {
      this.fail(
        `${typeName} is none of the cells (bfr, inv, spl2, spl3L, spl4L, and_bb, or_bi, maj_bbi, const0 ...)`,
        typeAt,
      );
    }
    do this.instance(typeName, type); while (this.accept(","));
    this.expect(";", "after an instance");
  }

  instance(typeName: string, type: CellType): void {
    const { text, at } = this.identifier(`the name of an instance`);
    if (this.names.has(text)) {
      this.fail(`the name of an instance must be unique: ${text}`, at);
    }
    this.names.add(text);
    this.expect("(", `after the instance ${text}`);
    const pins = [...type.outputs, ...type.inputs];
    const connected = new Map<
      string,
      { at: number; bit?: Bit; net?: number }
    >();
    const connect = (pin: string, pinAt: number) => {
      if (!pins.includes(pin)) {
        this.fail(`${typeName} has pins ${pins.join(", ")}: ${pin}`, pinAt);
      }
      if (connected.has(pin)) {
        this.fail(`pin ${pin} of ${text} is connected twice`, pinAt);
      }
      const output = type.outputs.includes(pin);
      connected.set(
        pin,
        output
          ? {
            at: pinAt,
            net: this.one(this.reference(), "an output", pinAt)[0],
          }
          : {
            at: pinAt,
            bit: this.one(this.expression(), "an input", pinAt)[0],
          },
      );
    };
    // by position: inputs first, as the benchmark files order their pins
    const order = [...type.inputs, ...type.outputs];
    for (let i = 0; !this.is(")"); i++) {
      const pinAt = this.token.at;
      if (this.accept(".")) {
        const pin = this.identifier("the name of a pin").text;
        this.expect("(", "after the name of a pin");
        if (!this.is(")")) connect(pin, pinAt);
        this.expect(")", `after the connection of pin ${pin}`);
      } else connect(order[i] ?? String(i), pinAt);
      if (!this.accept(",")) break;
    }
    this.expect(")", `after the pins of ${text}`);
    const inputs = type.inputs.map((pin, i): Literal => {
      const bit = connected.get(pin)?.bit;
      if (bit === undefined) {
        this.fail(`input pin ${pin} of ${text} must be connected`, at);
      }
      const literal = this.lower(bit, `${text}_${pin}`, at);
      return type.inverted[i] ? invert(literal) : literal;
    });
    const { kind, arity, value } = type;
    const cell = this.cells.length;
    this.cells.push({
      cell: {
        name: text,
        kind,
        ...(arity === undefined ? {} : { arity }),
        ...(value === undefined ? {} : { value }),
      },
      inputs,
      given: true,
    });
    type.outputs.forEach((pin, i) => {
      const connection = connected.get(pin);
      if (connection?.net !== undefined) {
        this.drive(connection.net, { cell, pin: i }, connection.at);
      }
    });
  }

  /** What may stand between `input` or `wire` and the first name: the range, if any. */
  declarationRange(): [number, number] | undefined {
    while (this.is("wire") || this.is("logic") || this.is("tri")) this.next();
    if (this.is("reg") || this.is("signed")) {
      this.fail(
        `structural Verilog has no ${this.token.text}; read it as RTL instead`,
      );
    }
    return this.range();
  }

  /** One name of a declaration. */
  declared(
    direction: "input" | "output" | undefined,
    range: [number, number] | undefined,
  ): { text: string; at: number } {
    const token = this.identifier("the name of a port or net");
    const { text, at } = token;
    this.declare(text, at, range);
    if (direction === undefined) return token;
    this.names.add(text);
    for (const net of this.bitsOf(text, at)) {
      const { name, driver } = this.nets[net];
      if (this.direction.has(name)) {
        this.fail(`port ${name} is declared twice`, at);
      }
      if (driver !== undefined && direction === "input") {
        this.fail(`net ${name} must have one driver: it is an input port`, at);
      }
      this.direction.set(name, direction);
      this.names.add(name);
    }
    return token;
  }

  bitsOf(text: string, at: number): number[] {
    return this.vectors.get(text)?.bits ?? [this.net(text, at)];
  }

  declaration(direction: "input" | "output" | undefined): void {
    const range = this.declarationRange();
    do {
      const { text, at } = this.declared(direction, range);
      if (this.accept("=")) {
        this.assignBits(this.bitsOf(text, at), this.expression(), at);
      }
    } while (this.accept(","));
    this.expect(";", "after a declaration");
  }

  module(): Netlist {
    this.expect("module", "before a module");
    const name = this.identifier("the name of a module").text;
    if (this.is("#")) {
      this.fail("structural Verilog has no parameters; read it as RTL instead");
    }
    const order: { text: string; at: number }[] = [];
    if (this.accept("(")) {
      let direction: "input" | "output" | undefined;
      let range: [number, number] | undefined;
      while (!this.is(")")) {
        if (this.is("inout")) this.fail("ports must be input or output");
        if (this.is("input") || this.is("output")) {
          direction = this.next().text as "input" | "output";
          range = this.declarationRange();
        }
        // input [1:0] a, b: b has the direction and range of a
        order.push(
          direction === undefined
            ? this.identifier("the name of a port")
            : this.declared(direction, range),
        );
        if (!this.accept(",")) break;
      }
      this.expect(")", "after the ports of a module");
    }
    this.expect(";", "after the head of a module");
    for (const { text } of order) this.names.add(text);
    while (!this.accept("endmodule")) this.statement(name);
    return this.finish(name, order);
  }

  statement(module: string): void {
    const { token } = this;
    if (token.type === "end") {
      this.fail(`expected endmodule after the module ${module}`);
    }
    if (this.accept(";")) return;
    if (!token.escaped) {
      switch (token.text) {
        case "input":
        case "output":
          this.next();
          this.declaration(token.text);
          return;
        case "wire":
        case "tri":
        case "logic":
          this.next();
          this.declaration(undefined);
          return;
        case "inout":
          this.fail("ports must be input or output");
          break;
        case "assign":
          this.next();
          this.assign();
          return;
        default:
          if (KEYWORDS.has(token.text)) {
            this.fail(
              `structural Verilog has no ${token.text}; read it as RTL instead`,
            );
          }
          if (token.text in PRIMITIVES) {
            this.next();
            this.primitive(token.text);
            return;
          }
      }
    }
    this.instances(this.identifier("a statement"));
  }

  // -- the whole

  /** Follows assignments of nets to nets until a cell's pin. */
  resolve(literal: Literal): Connection {
    let { net, inverted } = literal;
    const path: number[] = [];
    for (;;) {
      const { name, at, driver } = this.nets[net];
      if (driver === undefined) {
        this.fail(`net ${name} must have a driver: nothing drives it`, at);
      }
      if ("cell" in driver) {
        // shorten the path for whoever comes next
        path.reduceRight((parity, passed) => {
          const through = this.nets[passed].driver as Literal;
          const total = through.inverted !== parity;
          this.nets[passed].driver = { net, inverted: total };
          return total;
        }, false);
        return { cell: driver.cell, pin: driver.pin, inverted };
      }
      path.push(net);
      if (path.length > this.nets.length) {
        this.fail(`net ${name} is assigned to itself in a loop`, at);
      }
      net = driver.net;
      inverted = inverted !== driver.inverted;
    }
  }

  finish(name: string, order: { text: string; at: number }[]): Netlist {
    const portBits = (text: string, at: number) =>
      this.bitsOf(text, at).map((net) => {
        const direction = this.direction.get(this.nets[net].name);
        if (direction === undefined) {
          this.fail(`port ${text} must be declared input or output`, at);
        }
        return { net, direction };
      });
    const bits = order.flatMap(({ text, at }) => portBits(text, at));
    const listed = new Set(bits.map(({ net }) => net));
    for (const port of this.direction.keys()) {
      const net = this.netByName.get(port)!;
      if (!listed.has(net)) {
        this.fail(
          `${port} is declared a port but not listed in the head of ${name}`,
          this.nets[net].at,
        );
      }
    }
    if (listed.size < bits.length) {
      this.fail(`a port is listed twice in the head of ${name}`, order[0].at);
    }
    const inputs = bits.filter(({ direction }) => direction === "input");
    const outputs = bits.filter(({ direction }) => direction === "output");
    if (outputs.length === 0) {
      this.fail(`module ${name} must have an output`, order[0]?.at ?? 0);
    }
    for (const { net } of inputs) {
      this.nets[net].driver = { cell: this.cells.length, pin: 0 };
      this.cells.push({
        cell: { name: this.nets[net].name, kind: "input" },
        inputs: [],
        given: true,
      });
    }
    for (const { net } of outputs) {
      this.cells.push({
        cell: { name: this.nets[net].name, kind: "output" },
        inputs: [{ net, inverted: false }],
        given: true,
      });
    }
    // inputs first, then gates in the order of the file, then outputs
    const gates = this.cells.length - bits.length;
    const rank = (i: number) =>
      i < gates ? inputs.length + i : i < gates + inputs.length ? i - gates : i;
    const generated = uniqueNames(this.names);
    const cells: Cell[] = new Array(this.cells.length);
    this.cells.forEach(({ cell, inputs: literals, given }, i) => {
      cells[rank(i)] = {
        ...cell,
        name: given ? cell.name : generated(cell.name),
        inputs: literals.map((literal) => {
          const connection = this.resolve(literal);
          return { ...connection, cell: rank(connection.cell) };
        }),
      };
    });
    const netlist = { name, cells };
    checkNetlist(netlist);
    return netlist;
  }
}

/** Gives names not among `taken` nor given before, by a number at the end where needed. */
function uniqueNames(taken: Iterable<string>): (name: string) => string {
  const names = new Set(taken);
  return (stem) => {
    let name = stem;
    for (let i = 1; names.has(name); i++) name = `${stem}_${i}`;
    names.add(name);
    return name;
  };
}

function invert({ net, inverted }: Literal): Literal {
  return { net, inverted: !inverted };
}

/** The three inputs of (a & b) | (a & c) | (b & c), or undefined for anything else. */
function majorityLiterals(bit: Bit): Literal[] | undefined {
  if (bit.op !== "or" || bit.args.length !== 3) return undefined;
  const found = new Map<string, { literal: Literal; pairs: number[] }>();
  for (const [pair, { args }] of (bit.args as { args?: Bit[] }[]).entries()) {
    const product = bit.args[pair];
    if (product.op !== "and" || args?.length !== 2) return undefined;
    for (const arg of args) {
      const inverted = arg.op === "not";
      const net = arg.op === "not" ? arg.of : arg;
      if (net.op !== "net") return undefined;
      const id = `${net.net}${inverted ? "i" : "b"}`;
      const entry = found.get(id) ??
        { literal: { net: net.net, inverted }, pairs: [] };
      entry.pairs.push(pair);
      found.set(id, entry);
    }
  }
  const entries = [...found.values()];
  const nets = new Set(entries.map(({ literal }) => literal.net));
  const whole = entries.length === 3 && nets.size === 3 &&
    entries.every(({ pairs }) => pairs.length === 2 && pairs[0] !== pairs[1]);
  return whole ? entries.map(({ literal }) => literal) : undefined;
}

/**
 * The netlist of a structural Verilog file.
 *
 * Inversions (`~`, the letter i of a cell's name) become inverted inputs of the reading gate; an
 * output port keeps an inverted connection. An assigned net names its gate. Buffers, splitters and
 * gates that nothing reads are kept, so that a file at any stage of the flow is read as it is.
 *
 * @param source Text of the file.
 * @throws SyntaxError with file, line and column for text that is not structural Verilog, nets with
 *   no driver or several, modules without outputs.
 * @throws RangeError for loops, naming the cells.
 *
 * @example
 * const { cells } = readVerilog("module m(input a, b, output y); assign y = ~(a & b); endmodule");
 * cells.map(({ kind }) => kind); // ["input", "input", "and", "output"]
 * cells[3].inputs; // [{ cell: 2, pin: 0, inverted: true }]
 */
export function readVerilog(
  source: string,
  { file = "text", top }: ReadVerilogOptions = {},
): Netlist {
  const modules: { name: string; at: number }[] = [];
  const reader = new Reader(source, file);
  for (let depth = 0; reader.token.type !== "end"; reader.next()) {
    if (reader.is("module")) {
      const { at } = reader.token;
      reader.next();
      if (depth++ > 0) reader.fail("expected endmodule before module", at);
      modules.push({ name: reader.token.text, at });
    } else if (reader.is("endmodule")) depth--;
    else if (depth === 0) {
      reader.fail(`expected "module", found ${reader.found()}`);
    }
  }
  const own = modules.filter(({ name }) => cellType(name) === undefined);
  const chosen = top === undefined
    ? own[0]
    : modules.find(({ name }) => name === top);
  if (chosen === undefined || (top === undefined && own.length > 1)) {
    throw new SyntaxError(
      `Cannot read Verilog at ${file} as ${
        chosen === undefined
          ? `it must have a module${top === undefined ? "" : ` ${top}`}`
          : "one module must be named as top"
      }: modules ${own.map(({ name }) => name).join(", ") || "none"}`,
    );
  }
  const module = new Reader(source, file);
  module.offset = chosen.at;
  module.token = module.scan();
  return module.module();
}

// ---------------------------------------------------------------------------------------------
// Writing

const RESERVED = new Set([...KEYWORDS, ...Object.keys(PRIMITIVES)]);

/** A name as Verilog writes it: escaped where it is not a plain identifier. */
export function verilogName(name: string): string {
  if (/^[A-Za-z_][\w$]*$/.test(name) && !RESERVED.has(name)) return name;
  if (!/^[\x21-\x7e]+$/.test(name)) {
    throw new RangeError(
      `Cannot write a Verilog name as it must be printable ASCII without blanks: ${
        JSON.stringify(name)
      }`,
    );
  }
  return `\\${name} `;
}

/** One port, or the bits of a vector; `text` is how a bit is referred to. */
interface PortGroup {
  declared: string;
  direction: "input" | "output";
  cells: number[];
}

/** Ports in the order of the module; bits in a row with a common stem are joined. */
function portGroups(
  { cells }: Netlist,
  vectors: boolean,
): { groups: PortGroup[]; reference: Map<number, string> } {
  const all = cells.flatMap(({ kind, name }, cell) =>
    kind === "input" || kind === "output"
      ? [{ cell, name, direction: kind, bit: /^(.+)\[(\d+)\]$/.exec(name) }]
      : []
  );
  const names = new Set(cells.map(({ name }) => name));
  const stems = new Map<string, number>();
  const groups: PortGroup[] = [];
  const reference = new Map<number, string>();
  for (let i = 0; i < all.length;) {
    const { bit, direction, name, cell } = all[i];
    let end = i + 1;
    const index = (j: number) => Number(all[j].bit?.[2]);
    const stem = bit?.[1];
    if (vectors && stem !== undefined) {
      const step = end < all.length ? index(end) - index(i) : 0;
      while (
        Math.abs(step) === 1 && end < all.length &&
        all[end].bit?.[1] === stem && all[end].direction === direction &&
        index(end) - index(end - 1) === step
      ) end++;
      // a vector must own all the bits with its stem, and its name
      const others = all.filter((port) => port.bit?.[1] === stem).length;
      const plain = /^[A-Za-z_][\w$]*$/.test(stem);
      if (plain && others === end - i && !names.has(stem)) {
        stems.set(stem, end - i);
        groups.push({
          direction,
          declared: `[${index(end - 1)}:${index(i)}] ${verilogName(stem)}`,
          cells: all.slice(i, end).map((port) => port.cell),
        });
        for (let j = i; j < end; j++) {
          reference.set(all[j].cell, `${verilogName(stem)}[${index(j)}]`);
        }
        i = end;
        continue;
      }
    }
    groups.push({ direction, declared: verilogName(name), cells: [cell] });
    reference.set(cell, verilogName(name));
    i++;
  }
  return { groups, reference };
}

/** Name of the net at each output pin of each cell. */
function netNames(
  netlist: Netlist,
  reference: Map<number, string>,
  style: "cells" | "assign",
): { nets: string[][]; wires: string[] } {
  const { cells } = netlist;
  const unique = uniqueNames(
    cells.flatMap(({ name }) => [name, name.replace(/\[\d+\]$/, "")]),
  );
  const nets = cells.map((_, cell): string[] =>
    cells[cell].kind === "input" ? [reference.get(cell)!] : []
  );
  // the first output port that reads a pin plain names the pin's net
  for (const port of ports(netlist, "output")) {
    const { cell, pin, inverted } = cells[port].inputs[0];
    if (!inverted && cells[cell].kind !== "input") {
      nets[cell][pin] ??= reference.get(port)!;
    }
  }
  const wires: string[] = [];
  cells.forEach((cell, i) => {
    for (let pin = 0; pin < outputCount(cell); pin++) {
      if (nets[i][pin] !== undefined) continue;
      const single = outputCount(cell) === 1;
      const name = single && style === "assign"
        ? cell.name
        : unique(`${cell.name}_q${single ? "" : pin}`);
      nets[i][pin] = verilogName(name);
      wires.push(nets[i][pin]);
    }
  });
  return { nets, wires };
}

/** Right-hand side of a cell in the style of assignments. */
function assignExpression(cell: Cell, terms: string[]): string {
  const [a, b, c] = terms;
  switch (cell.kind) {
    case "and":
      return `${a} & ${b}`;
    case "or":
      return `${a} | ${b}`;
    case "maj":
      return `( ${a} & ${b} ) | ( ${a} & ${c} ) | ( ${b} & ${c} )`;
    case "constant":
      return `1'b${cell.value}`;
    case "inverter":
      return a.startsWith("~") ? a.slice(1) : `~${a}`;
    default:
      return a;
  }
}

/**
 * Verilog text of a netlist at any stage of the flow, which `readVerilog` reads back: in the style
 * `"cells"` with the same cells, names and connections.
 *
 * @param options.style `"cells"` (default) or `"assign"`.
 * @param options.vectors Joins ports `a[0]`, `a[1]` ... into vectors; true by default.
 * @param options.models Appends models of the cells for simulators; false by default.
 *
 * @example
 * const netlist = readVerilog("module m(input a, b, output y); assign y = a | ~b; endmodule");
 * writeVerilog(netlist).includes("or_bi y_g (.a(a), .b(b), .q(y));"); // true
 */
export function writeVerilog(
  netlist: Netlist,
  { style = "cells", vectors = true, models = false }: WriteVerilogOptions = {},
): string {
  checkNetlist(netlist);
  const { cells } = netlist;
  const { groups, reference } = portGroups(netlist, vectors);
  const { nets, wires } = netNames(netlist, reference, style);
  const lines = [`module ${verilogName(netlist.name)} (`];
  groups.forEach(({ direction, declared }, i) =>
    lines.push(`  ${direction} ${declared}${i + 1 < groups.length ? "," : ""}`)
  );
  lines.push(");");
  for (let i = 0; i < wires.length; i += 12) {
    lines.push(`  wire ${wires.slice(i, i + 12).join(", ")};`);
  }
  const source = ({ cell, pin }: Connection) => nets[cell][pin];
  const term = (input: Connection) =>
    `${input.inverted ? "~" : ""}${source(input)}`;
  cells.forEach((cell, i) => {
    const { kind, name, inputs } = cell;
    if (kind === "input") return;
    if (kind === "output") {
      if (inputs[0].inverted || source(inputs[0]) !== reference.get(i)) {
        lines.push(`  assign ${reference.get(i)} = ${term(inputs[0])};`);
      }
    } else if (style === "assign") {
      nets[i].forEach((net) =>
        lines.push(
          `  assign ${net} = ${assignExpression(cell, inputs.map(term))};`,
        )
      );
    } else {
      const type = cellTypeName(cell);
      const { inputs: pins, outputs } = cellType(type)!;
      // the inversion of a gate's input is in the gate's name
      const gate = kind === "and" || kind === "or" || kind === "maj";
      const connections = [
        ...inputs.map((input, k) =>
          `.${pins[k]}(${gate ? source(input) : term(input)})`
        ),
        ...outputs.map((pin, k) => `.${pin}(${nets[i][k]})`),
      ];
      lines.push(
        `  ${type} ${verilogName(name)} (${connections.join(", ")});`,
      );
    }
  });
  lines.push("endmodule", "");
  return lines.join("\n") + (models ? "\n" + cellModels(netlist) : "");
}
