/** Structural Verilog: what is read, what is written, what is refused and where. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  cellModels,
  readVerilog,
  verilogName,
  writeVerilog,
} from "../lib/core/formats/verilog.ts";
import { fold, key, randomInts, uniform } from "../lib/core/rng.ts";
import {
  type Cell,
  type CellKind,
  type Connection,
  countCells,
  evaluate,
  isGate,
  type Netlist,
  outputCount,
  ports,
} from "../lib/superflow/netlist.ts";
import { elaborate } from "../lib/superflow/synthesis.ts";
import { runYosys } from "../lib/superflow/yosys.ts";

/** Outputs for all patterns of up to 5 inputs, one word each. */
function truth(netlist: Netlist): number[] {
  const columns = [0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00, 0xffff0000];
  const inputs = ports(netlist, "input");
  assert.ok(inputs.length <= 5);
  const values = evaluate(
    netlist,
    Uint32Array.from(columns.slice(0, inputs.length)),
  );
  return ports(netlist, "output").map((i) => values[i]);
}

const word = (value: number) => value >>> 0;

/** A netlist with every kind of cell, from a seed. */
function randomNetlist(seed: number, size: number): Netlist {
  const k = key(seed);
  const cells: Cell[] = ["a", "b[0]", "b[1]", "c d".replace(" ", "$"), "\\e"]
    .map((name) => ({ name, kind: "input", inputs: [] }));
  const pins: Omit<Connection, "inverted">[] = cells.map((_, cell) => ({
    cell,
    pin: 0,
  }));
  const kinds: CellKind[] = [
    "and",
    "or",
    "maj",
    "buffer",
    "inverter",
    "splitter",
    "constant",
  ];
  const choices = randomInts(k, size * 5, 0, 1 << 20);
  for (let i = 0; i < size; i++) {
    const [which, ...drawn] = choices.slice(5 * i, 5 * i + 5);
    const kind = kinds[which % kinds.length];
    const count = kind === "maj"
      ? 3
      : kind === "and" || kind === "or"
      ? 2
      : kind === "constant"
      ? 0
      : 1;
    const inputs = [...drawn.slice(0, count)].map((d) => ({
      ...pins[d % pins.length],
      inverted: ((d >> 10) & 1) === 1,
    }));
    const cell: Cell = {
      // some names need escapes
      name: i % 3 === 0 ? `n${i}` : i % 3 === 1 ? `x.${i}` : `w[${i}]`,
      kind,
      inputs,
      ...(kind === "splitter" ? { arity: 2 + (drawn[3] % 3) } : {}),
      ...(kind === "constant" ? { value: (drawn[3] % 2) as 0 | 1 } : {}),
    };
    for (let pin = 0; pin < outputCount(cell); pin++) {
      pins.push({ cell: cells.length, pin });
    }
    cells.push(cell);
  }
  for (let i = 0; i < 4; i++) {
    const pin = pins[pins.length - 1 - 2 * i];
    cells.push({
      name: `y[${i}]`,
      kind: "output",
      inputs: [{ ...pin, inverted: i % 2 === 1 }],
    });
  }
  return { name: "random", cells };
}

test("assignments: precedence, inversions, constants, majority", () => {
  const netlist = readVerilog(`
    // a comment ( and another
    \`timescale 1ns/1ps
    (* keep = 1 *)
    module m (a, b, c, y, z, m3, k, x, n);
      input a, b, c; output y, z, m3, k, x, n;
      wire t = a & ~b;   /* t */
      assign y = t | c & b;
      assign z = a ^ b ^ c, k = 1'b1;
      assign m3 = (~a & b) | (~a & c) | (b & c);
      assign x = a ? b : ~c;
      assign n = ~(a & b);
    endmodule`);
  const [a, b, c] = [0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0];
  assert.equal(
    truth(netlist),
    [
      (a & ~b) | (c & b),
      a ^ b ^ c,
      (~a & b) | (~a & c) | (b & c),
      -1,
      (a & b) | (~a & ~c),
      ~(a & b),
    ].map(word),
  );
  const counts = countCells(netlist);
  assert.is(counts.maj, 1);
  // y 3 (t, c & b, or), z 3 for each of two, x 3, n 1
  assert.is((counts.and ?? 0) + (counts.or ?? 0), 3 + 6 + 3 + 1);
  const n = netlist.cells.find(({ name }) => name === "n")!;
  assert.is(n.inputs[0].inverted, true);
});

test("cells: pins by name and by position, inverted pins, splitters", () => {
  const netlist = readVerilog(`
    module m (input a, b, c, output y, z, w);
      wire a0, a1, a2, nb, s;
      spl3L s0 (.a(a), .q0(a0), .q1(a1), .q2(a2));
      inv i0 (b, nb);
      maj_bib g0 (.b(nb), .a(a0), .c(c), .q(s));
      and_ii g1 (.q(y), .a(a1), .b(1'b0));
      bfr b0 (.a(s), .q(z));
      or_bi g2 (a2, ~c, w);
    endmodule`);
  const [a, b, c] = [0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0];
  assert.equal(
    truth(netlist),
    [~a, (a & b) | (a & c) | (b & c), a | c].map(word),
  );
  assert.is(netlist.cells.find(({ name }) => name === "s0")!.arity, 3);
});

test("vectors: parts, concatenation, direction of the range, order of ports", () => {
  const netlist = readVerilog(`
    module m (input [2:0] a, input [0:1] b, output [2:0] y, output z);
      wire [3:0] t;
      assign t = {b[0], a[1:0], 1'b1};
      assign y = t[3:1] & {3'b101};
      assign z = t[0] & b[1];
    endmodule`);
  assert.equal(
    netlist.cells.filter(({ kind }) => kind === "input").map(({ name }) =>
      name
    ),
    ["a[0]", "a[1]", "a[2]", "b[1]", "b[0]"],
  );
  const [a0, , , b1, b0] = [
    0xaaaaaaaa,
    0xcccccccc,
    0xf0f0f0f0,
    0xff00ff00,
    0xffff0000,
  ];
  assert.equal(truth(netlist), [a0, 0, b0, b1].map(word));
});

test("gate primitives of the older benchmark files", () => {
  const netlist = readVerilog(`
    module m (a, b, c, y, z, v, w);
      input a, b, c; output y, z, v, w;
      nand g1 (y, a, b, c);
      xnor (z, a, b, c);
      nor g3 (v, a, b);
      not g4 (w, a);
    endmodule`);
  const [a, b, c] = [0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0];
  assert.equal(
    truth(netlist),
    [~(a & b & c), ~(a ^ b ^ c), ~(a | b), ~a].map(word),
  );
});

test("what is written is read back: same cells, names, connections", () => {
  for (let seed = 0; seed < 60; seed++) {
    const netlist = randomNetlist(seed, 3 + seed);
    const again = readVerilog(writeVerilog(netlist, { models: true }));
    const sorted = ({ cells }: Netlist) =>
      cells.map(({ inputs, ...cell }) => ({
        ...cell,
        inputs: inputs.map(({ cell, ...pin }) => ({
          ...pin,
          from: cells[cell].name,
        })),
      }));
    assert.equal(sorted(again), sorted(netlist), `seed ${seed}`);
    for (const style of ["cells", "assign"] as const) {
      for (const vectors of [true, false]) {
        const other = readVerilog(writeVerilog(netlist, { style, vectors }));
        assert.equal(truth(other), truth(netlist), `seed ${seed} ${style}`);
      }
    }
  }
});

test("Yosys reads the same logic from what is written", async () => {
  for (const seed of [1, 2, 3]) {
    const netlist = randomNetlist(seed, 40);
    const text = writeVerilog(netlist, { models: true });
    const source = { text, top: "random" };
    const { reference } = await elaborate(source, { optimise: false });
    const byName = (n: Netlist) =>
      ports(n, "input").map((i) => n.cells[i].name);
    assert.equal(byName(reference), byName(netlist));
    assert.equal(truth(reference), truth(netlist), `seed ${seed}`);
  }
});

test("errors name file, line and column", () => {
  const cases: [string, RegExp][] = [
    [
      "module m(input a, output y);\n  assign y = a & ;\nendmodule",
      /x\.v:2:18: expected the name of a net/,
    ],
    [
      "module m(input a, output y);\n  assign y = b;\nendmodule",
      /x\.v:2:14: net b must have a driver/,
    ],
    [
      "module m(input a, output y);\n  assign y = a;\n  assign y = ~a;\nendmodule",
      /x\.v:3:10: net y must have one driver: line 2 drives it too/,
    ],
    [
      "module m(input a, output y);\n assign a = y; endmodule",
      /x\.v:2:9: net a must have one driver: it is an input port/,
    ],
    [
      "module m(input a, output reg y);\n always @(a) y = a; endmodule",
      /x\.v:1:26: structural Verilog has no reg; read it as RTL/,
    ],
    [
      "module m(input a, output y); wire p, q;\n assign p = q; assign q = p; assign y = p; endmodule",
      /is assigned to itself in a loop/,
    ],
    [
      "module m(input [3:0] a, output y);\n assign y = a[4]; endmodule",
      /x\.v:2:15: a has no bit 4/,
    ],
    [
      "module m(input [3:0] a, output y);\n assign y = a; endmodule",
      /x\.v:2:9: both sides must have the same number of bits: 1 and 4/,
    ],
    [
      "module m(input a, output y);\n nand4 g(.a(a), .q(y)); endmodule",
      /x\.v:2:2: nand4 is none of the cells/,
    ],
    [
      "module m(input a, output y);\n and_bb g(.a(a), .q(y)); endmodule",
      /x\.v:2:9: input pin b of g must be connected/,
    ],
    [
      "module m(input a, output y);\n bfr g(.a(a), .q(y)); bfr g(.a(a)); endmodule",
      /x\.v:2:27: the name of an instance must be unique: g/,
    ],
    [
      "module m(input a);\nendmodule",
      /x\.v:1:\d+: module m must have an output/,
    ],
    ["module m(input a, output y); assign y = a;", /expected endmodule/],
    ["module m(input a, output y); /* assign", /a comment is not closed/],
    [
      "module m(a, y); input a; output y; output z; assign y = a; assign z = a; endmodule",
      /z is declared a port but not listed/,
    ],
    [
      "module m(input a, output y); assign y = 1'bx; endmodule",
      /digits 0 and 1, not x or z/,
    ],
    ["", /must have a module: modules none/],
    [
      "module p(input a, output y); assign y = a; endmodule module q(input a, output y); assign y = a; endmodule",
      /one module must be named as top: modules p, q/,
    ],
    [
      `module m(input a, output y); assign y = ${"(".repeat(5000)}a; endmodule`,
      /nested at most 400 deep/,
    ],
  ];
  for (const [text, pattern] of cases) {
    let message = "";
    try {
      readVerilog(text, { file: "x.v" });
    } catch (error) {
      assert.instance(error, SyntaxError);
      message = (error as Error).message;
    }
    assert.match(message, pattern);
  }
});

test("a loop through gates names its gates", () => {
  assert.throws(
    () =>
      readVerilog(
        "module m(input a, output y); wire p, q; assign p = q & a; assign q = p | a; assign y = q; endmodule",
      ),
    /must have no loop: (p -> q|q -> p)/,
  );
});

test("a hundred thousand gates in a chain are read", () => {
  const gates = 100_000;
  const lines = Array.from(
    { length: gates },
    (_, i) => `assign n${i + 1} = n${i} ${i % 2 ? "&" : "|"} ~b;`,
  );
  const netlist = readVerilog(
    `module m(input a, b, output y); wire n0; assign n0 = a;\n${
      lines.join("\n")
    }\nassign y = n${gates}; endmodule`,
  );
  assert.is(netlist.cells.filter(isGate).length, gates);
});

test("damaged text: an error with a position or a netlist, nothing else", () => {
  const good = writeVerilog(randomNetlist(7, 30), { models: true });
  const pieces = [
    "(",
    ")",
    ";",
    "\\",
    "[",
    "~",
    "'",
    "wire",
    "assign",
    "",
    "{",
  ];
  for (let seed = 0; seed < 400; seed++) {
    const k = key(1000 + seed);
    const [at, length, piece] = randomInts(k, 3, 0, good.length);
    const text = uniform(fold(k, 1), 1)[0] < 0.3
      ? good.slice(0, at)
      : good.slice(0, at) + pieces[piece % pieces.length] +
        good.slice(at + (length % 12));
    try {
      readVerilog(text);
    } catch (error) {
      const known = error instanceof SyntaxError || error instanceof RangeError;
      assert.ok(known, `seed ${seed}: ${error}`);
      assert.match(
        (error as Error).message,
        /^Cannot (read Verilog at text|order the cells|use netlist)/,
      );
    }
  }
});

test("names are escaped only where they must be", () => {
  assert.is(verilogName("abc_1"), "abc_1");
  assert.is(verilogName("a[1]"), "\\a[1] ");
  assert.is(verilogName("wire"), "\\wire ");
  assert.throws(() => verilogName("a b"), /printable ASCII without blanks/);
});

test("models of all cells are Verilog that Yosys reads", async () => {
  const { error } = await runYosys(["read_verilog m.v", "hierarchy -check"], {
    "m.v": cellModels(),
  });
  assert.is(error, undefined);
});

const circuits = process.env.ADIABAT_CIRCUITS;
if (circuits !== undefined && existsSync(circuits)) {
  test("published circuits have the published numbers of gates", () => {
    // github.com/lsils/SCE-benchmarks, ISCAS/README.md, column #gates
    const published: Record<string, number> = {
      adder1: 7,
      adder8: 77,
      counter16: 29,
      counter32: 82,
      counter128: 428,
      c17: 6,
      c432: 121,
      c499: 387,
      c880: 306,
      c1355: 389,
      c1908: 289,
      sorter32: 480,
    };
    for (const [name, gates] of Object.entries(published)) {
      const file = join(circuits, "iscas85", `${name}.v`);
      const netlist = readVerilog(readFileSync(file, "utf8"), { file });
      assert.is(netlist.cells.filter(isGate).length, gates, name);
    }
  });

  test("balanced circuits of the placer's benchmark are read whole", () => {
    for (const file of readdirSync(join(circuits, "placer"))) {
      const text = readFileSync(join(circuits, "placer", file), "utf8");
      const netlist = readVerilog(text, { file });
      const instances = text.match(
        /^ *(bfr|inv|spl\dL?|(and|or|maj)_[bi]+) /gm,
      )!.length;
      const cells = netlist.cells.filter(({ kind }) =>
        kind !== "input" && kind !== "output" && kind !== "constant"
      );
      assert.is(cells.length, instances, file);
    }
  });
}

test.run();
