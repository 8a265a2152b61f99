/** What the reader of designs says: which module, which file, which line, and what to do. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ports } from "../lib/superflow/netlist.ts";
import { elaborate, type SynthesisSource } from "../lib/superflow/synthesis.ts";

const message = (source: SynthesisSource) =>
  elaborate(source, { optimise: false }).then(
    () => "no error",
    (error: Error) => error.message,
  );

const TWO = `module one(input a, output y); assign y = ~a; endmodule
module two(input a, b, output y); assign y = a & b; endmodule`;

test("several modules that no other uses: none is dropped in silence", async () => {
  assert.is(
    await message({ text: TWO }),
    "Cannot synthesise design.v as one module must be the top: no other module uses one, two; name one of them as top",
  );
  const { reference } = await elaborate({ text: TWO, top: "one" });
  assert.is(reference.name, "one");
  assert.is(ports(reference, "input").length, 1);
  const models =
    ".model m\n.inputs a\n.outputs y\n.names a y\n1 1\n.end\n.model n\n.inputs a\n.outputs y\n.names a y\n0 1\n.end\n";
  assert.match(
    await message({ text: models, format: "blif" }),
    /no other module uses m, n/,
  );
});

test("modules used with parameters, in arrays, by themselves or in a branch count as used", async () => {
  const { reference } = await elaborate({
    text: `module leaf(input a, output y); assign y = ~a; endmodule
module tree #(parameter N = 4) (input [N-1:0] a, output y);
  generate if (N == 1) leaf l (a[0], y);
  else begin
    wire p, q;
    tree #(.N(N / 2)) low (a[N/2-1:0], p);
    tree #(.N(N / 2)) high (a[N-1:N/2], q);
    assign y = p ^ q;
  end endgenerate
endmodule
module part(input a, output y); assign y = a; endmodule
module top(input [3:0] a, output y, output [1:0] z);
  tree #(.N(4)) t (a, y);
  part parts [1:0] (a[1:0], z);
endmodule`,
  });
  assert.is(reference.name, "top");
});

test("a top that is not there lists the modules; other formats name file and line", async () => {
  assert.is(
    await message({ text: TWO, top: "three" }),
    "Cannot synthesise design.v as it has no module three: its modules are one, two",
  );
  assert.is(
    await message({ text: ".model m\n.nonsense\n", format: "blif" }),
    "Cannot read design.blif:2: syntax error",
  );
  assert.match(
    await message({ text: "no aiger", format: "aiger" }),
    /^Cannot synthesise design\.aig: /,
  );
});

test("an undeclared name and a word in the middle of operators are found in their columns", async () => {
  assert.is(
    await message({
      text:
        "module m(input a, output y);\n  wire t;\n  assign y = a & missing;\nendmodule",
    }),
    "Cannot synthesise m as every net must have a driver: missing has none at design.v:3:18; it is not declared: is the name misspelt?",
  );
  assert.match(
    await message({
      text: "module m(input a, output y);\n  assign y = a +* 3;\nendmodule",
    }),
    /^Cannot read design\.v:2:17: syntax error, unexpected '\*'/,
  );
});

test("a register is refused with what to write instead", async () => {
  const text = (body: string, head: string) =>
    `module m(input clk, d, ${head}); ${body} endmodule`;
  const refused = await message({
    text: text("always @(posedge clk) q <= d;", "output reg q"),
  });
  assert.match(refused, /it has register q at design\.v:1:\d+; cut it open/);
  // the advice, taken as it is printed, works
  const [, , advice] = refused.match(
    /`(input q, output q_next)` and `(assign q_next = d;)`/,
  )!;
  const { reference } = await elaborate({
    text: text(advice, "input q, output q_next"),
  });
  assert.is(ports(reference, "output").length, 1);
});

test("AIGER keeps the names of its symbol table and of its file; a folder is no design", async () => {
  const text = new TextEncoder().encode(
    "aig 3 2 0 1 1\n6\n\x02\x02i0 alpha\ni1 be[3]\no0 out\n",
  );
  const { reference } = await elaborate({ text, format: "aiger" });
  const names = (direction: "input" | "output") =>
    ports(reference, direction).map((i) => reference.cells[i].name).sort();
  assert.equal(names("input"), ["alpha", "be[3]"]);
  assert.equal(names("output"), ["out"]);
  assert.is(reference.name, "design");
  const folder = mkdtempSync(`${tmpdir()}/superflow-`);
  assert.is(
    await message({ path: folder }),
    `Cannot synthesise ${folder} as it must be a file: it is a folder`,
  );
  rmSync(folder, { recursive: true });
});

test.run();
