/** RTL from outside: formats, names, architectures; what cannot be a circuit is refused by name and place. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { readVerilog, writeVerilog } from "../lib/core/formats/verilog.ts";
import {
  checkEquivalence,
  describeCounterexample,
} from "../lib/superflow/equivalence.ts";
import { isGate, ports } from "../lib/superflow/netlist.ts";
import {
  elaborate,
  synthesise,
  type SynthesisSource,
} from "../lib/superflow/synthesis.ts";

test("what cannot be a circuit is refused by name and place", async () => {
  const cases: [string, RegExp][] = [
    [
      "module m(input a, b, output y);\n  assign y = a & ;\nendmodule",
      /^SyntaxError: Cannot read design\.v:2:18: syntax error, unexpected ';'/,
    ],
    [
      "module m(input a, b, output y);\n  assign y = a; assign y = b assign y = 1;\nendmodule",
      /^SyntaxError: Cannot read design\.v:2:30: syntax error/,
    ],
    [
      "module m(input clk, d, output reg [3:0] count);\n  always @(posedge clk) count <= count + d;\nendmodule",
      /must be combinational: it has register count \(4 bits\) at design\.v:2:3/,
    ],
    [
      "module m(input en, d, output reg q);\n  always @* if (en) q = d;\nendmodule",
      /must be combinational: it has latch q at design\.v:2:3/,
    ],
    [
      "module m(input a, output y);\n  wire x;\n  assign x = y & a;\n  assign y = x | a;\nendmodule",
      /must have no loop: through .*x \(design\.v:2:8\)/,
    ],
    [
      "module m(input a, output y);\n  wire x;\n  assign y = x & a;\nendmodule",
      /every net must have a driver: x has none/,
    ],
    [
      "module m(input a, output y, z);\n  assign y = a;\nendmodule",
      /every net must have a driver: z has none/,
    ],
    [
      "module m(input a, b, output y);\n  assign y = a & b;\n  assign y = a | b;\nendmodule",
      /every net must have one driver: y has several, at design\.v:\d and design\.v:\d/,
    ],
    ["module m(input a);\nendmodule", /must have an output/],
    [
      "module m(input a, output y);\n  part p(.a(a), .y(y));\nendmodule",
      /Module `part' referenced in module `m' in cell `p' is not part of the design/,
    ],
    [
      "module m(inout a, output y);\n  assign y = a;\nendmodule",
      /ports must be input or output: a is inout/,
    ],
    [
      "module m(input en, a, output y);\n  assign y = en ? a : 1'bz;\nendmodule",
      /must be combinational: it has tri-state buffer y at design\.v:2:14$/,
    ],
    ["", /must have a module/],
  ];
  for (const [text, pattern] of cases) {
    let message = "";
    try {
      await elaborate({ text });
    } catch (error) {
      message = String(error);
    }
    assert.match(message, pattern);
  }
});

test("a design above the limit is refused when it is counted, whatever its format", async () => {
  const and = "module m (input [3:0] a, output y); assign y = &a; endmodule";
  const blif =
    ".model m\n.inputs a b c\n.outputs y\n.names a b t\n11 1\n.names t c y\n11 1\n.end\n";
  const netlist =
    "module m (input a, b, c, output y); wire t; and_bb g (.a(a), .b(b), .q(t)); and_bb h (.a(t), .b(c), .q(y)); endmodule";
  for (
    const [source, gates] of [
      [{ text: and }, 3],
      [{ text: blif, format: "blif" }, 2],
      [{ text: netlist, format: "netlist" }, 2],
    ] as [SynthesisSource, number][]
  ) {
    let message = "";
    try {
      await elaborate(source, { maxGates: gates - 1 });
    } catch (error) {
      message = String(error);
    }
    assert.match(
      message,
      new RegExp(
        `at most ${gates - 1} gates, .* it has ${gates} or more; .*maxGates`,
      ),
    );
    const { optimised } = await elaborate(source, { maxGates: gates });
    assert.ok(optimised.cells.length > gates);
  }
});

test("a source is a path or a text, of a known format", async () => {
  for (
    const [source, pattern] of [
      [{}, /either a path or a text: neither is given/],
      [{ path: "a.v", text: "" }, /both are given/],
      [{ path: "a.vhdl" }, /its format must be known: \.vhdl/],
      [{ text: "", top: "a; b" }, /top module must be a plain name/],
    ] as const
  ) {
    let message = "";
    try {
      await elaborate(source);
    } catch (error) {
      message = String(error);
    }
    assert.match(message, pattern);
  }
});

test("two kinds of multiplier are proven equal, a damaged one is not", async () => {
  // array multiplier of our own against Yosys' own expansion of `*`
  const file = fileURLToPath(
    new URL("../data/rtl/multiplier8.v", import.meta.url),
  );
  const array = await elaborate({ path: file }, { optimise: false });
  const star = await elaborate({
    text:
      "module multiplier8(input [4:0] a, b, output [9:0] p); assign p = a * b; endmodule",
  });
  const rows = await synthesise({
    text: readFileSync(file, "utf8")
      .replaceAll("7:0]", "4:0]").replaceAll("8", "5").replaceAll("15:", "9:")
      .replaceAll("[1:7]", "[1:4]").replaceAll("[0:7]", "[0:4]")
      .replaceAll("[7:1]", "[4:1]").replaceAll("[7]", "[4]")
      .replaceAll("p[9:5]", "p[9:5]").replaceAll("multiplier5", "multiplier8"),
  });
  const proof = checkEquivalence(star.reference, rows, { method: "sat" });
  assert.is(proof.equivalent, true);
  assert.is(proof.method, "sat");
  assert.ok(proof.merged > 0);
  const broken = structuredClone(array.reference);
  const last = broken.cells.findLast(isGate)!;
  last.inputs[0].inverted = !last.inputs[0].inverted;
  const caught = checkEquivalence(array.reference, broken, { method: "sat" });
  assert.is(caught.equivalent, false);
  assert.match(
    describeCounterexample(caught.counterexample!),
    /^outputs p\[\d+\] \([01], [01]\)/,
  );
});

test("names with brackets and escapes come through", async () => {
  const netlist = await synthesise({
    text:
      "module m(input [3:2] a, input \\b[0] , input \\c.d , output \\y<1> , output [1:0] z);\n" +
      "  assign \\y<1> = a[2] & \\b[0] ; assign z = {a[3] | \\c.d , a[2]};\nendmodule",
  });
  const names = (direction: "input" | "output") =>
    ports(netlist, direction).map((i) => netlist.cells[i].name);
  assert.equal(names("input"), ["a[2]", "a[3]", "b[0]", "c.d"]);
  assert.equal(names("output"), ["y<1>", "z[0]", "z[1]"]);
  const again = readVerilog(writeVerilog(netlist, { models: true }));
  assert.ok(checkEquivalence(netlist, again).equivalent);
});

test("BLIF and AIGER are read; their state is refused", async () => {
  const reference = readVerilog(
    "module m(input a, b, c, output y); assign y = a & (b | ~c); endmodule",
  );
  const blif =
    `.model m\n.inputs a b c\n.outputs y\n.names a b c y\n11- 1\n1-0 1\n.end\n`;
  const fromBlif = await synthesise({ text: blif, format: "blif" });
  assert.ok(checkEquivalence(reference, fromBlif).equivalent);
  // a & ~(~b & c): literals a 2, b 4, c 6
  const aag =
    "aag 5 3 0 1 2\n2\n4\n6\n10\n8 5 6\n10 2 9\ni0 a\ni1 b\ni2 c\no0 y\n";
  const fromAiger = await synthesise({
    text: aag,
    format: "aiger",
    top: "m",
  });
  assert.ok(checkEquivalence(reference, fromAiger).equivalent);
  let message = "";
  try {
    await elaborate({
      text: ".model m\n.inputs d\n.outputs q\n.latch d q 0\n.end\n",
      format: "blif",
    });
  } catch (error) {
    message = String(error);
  }
  assert.match(message, /must be combinational: it has register q/);
});

test("carries one after the other or by lookahead: same sum, fewer gates or levels", async () => {
  const source = {
    text:
      "module m(input [15:0] a, b, output [16:0] s); assign s = a + b; endmodule",
  };
  const ripple = await synthesise(source, { carry: "ripple" });
  const lookahead = await synthesise(source, { carry: "lookahead" });
  assert.ok(
    checkEquivalence(ripple, lookahead, { method: "sat" }).equivalent,
  );
  const gates = (n: typeof ripple) => n.cells.filter(isGate).length;
  // three gates per bit
  assert.is(gates(ripple), 48);
  assert.ok(gates(lookahead) > 48);
});

test("included files are found by name", async () => {
  const netlist = await synthesise({
    text:
      '`include "part.vh"\nmodule m(input a, output y); `INVERT(y, a) endmodule',
    include: { "part.vh": "`define INVERT(o, i) assign o = ~i;" },
  });
  const output = netlist.cells.find(({ kind }) => kind === "output")!;
  assert.is(output.inputs[0].inverted, true);
});

test.run();
