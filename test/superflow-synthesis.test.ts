/** Synthesis: satisfiability, equivalence, the majority mapping. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { readVerilog } from "../lib/core/formats/verilog.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import {
  checkEquivalence,
  checkEquivalenceByAbc,
} from "../lib/superflow/equivalence.ts";
import { insertBuffers } from "../lib/superflow/insertion.ts";
import {
  estimateJunctions,
  majorityPrimary,
  mapToMajority,
  smallestNetworks,
} from "../lib/superflow/majority.ts";
import { Mig, netlistOf, portNames } from "../lib/superflow/mig.ts";
import {
  bufferAndSplitterCount,
  evaluate,
  isGate,
  type Netlist,
  ports,
} from "../lib/superflow/netlist.ts";
import { rewrite } from "../lib/superflow/rewrite.ts";
import { luby, SatSolver } from "../lib/superflow/sat.ts";

/** What is used of logic-solver, which has no types: MiniSat compiled to JavaScript. */
interface MiniSat {
  require(formula: unknown): void;
  solve(): unknown;
}
const Logic = createRequire(import.meta.url)("logic-solver") as {
  Solver: new () => MiniSat;
  or(terms: string[]): unknown;
};

const gateCount = ({ cells }: Netlist) => cells.filter(isGate).length;

/** A netlist of random gates over random earlier signals: `inputs` inputs and 4 outputs. */
function randomLogic(seed: number, inputs: number, gates: number): Netlist {
  const mig = new Mig();
  const signals = Array.from({ length: inputs }, () => mig.input());
  const drawn = randomInts(key(seed), gates * 4, 0, 1 << 16);
  for (let i = 0; i < gates; i++) {
    const pick = (d: number) =>
      signals[Math.max(0, signals.length - 1 - (d >> 1) % 12)] ^ (d & 1);
    const [kind, a, b, c] = drawn.slice(4 * i, 4 * i + 4);
    signals.push(
      kind % 3 === 0
        ? mig.maj(pick(a), pick(b), pick(c))
        : kind % 3 === 1
        ? mig.and(pick(a), pick(b))
        : mig.xor(pick(a), pick(b)),
    );
  }
  return netlistOf(mig, signals.slice(-4), {
    name: "random",
    inputs: Array.from({ length: inputs }, (_, i) => `x${i}`),
    outputs: ["y0", "y1", "y2", "y3"],
  });
}

// -- satisfiability

test("luby's sequence", () => {
  assert.equal(
    Array.from({ length: 15 }, (_, i) => luby(i)),
    [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8],
  );
});

test("random clauses: the solver agrees with MiniSat and with all assignments", () => {
  const counts = { satisfiable: 0, unsatisfiable: 0 };
  for (let seed = 0; seed < 150; seed++) {
    const variables = 4 + (seed % 9);
    // around 4.3 clauses of three literals per variable both answers are common
    const clauseCount = Math.round(variables * (3.6 + (seed % 5) * 0.4));
    const drawn = randomInts(key(seed), clauseCount * 3, 0, 2 * variables);
    const clauses = Array.from(
      { length: clauseCount },
      (_, i) => [...drawn.slice(3 * i, 3 * i + 3)],
    );
    const assumptions = seed % 3 === 0 ? [drawn[0] ^ 1] : [];
    const holds = (pattern: number) =>
      [...clauses, ...assumptions.map((l) => [l])].every((clause) =>
        clause.some((l) => ((pattern >> (l >> 1)) & 1) !== (l & 1))
      );
    let expected = false;
    for (let pattern = 0; pattern < 1 << variables; pattern++) {
      expected ||= holds(pattern);
    }
    const solver = new SatSolver();
    for (let v = 0; v < variables; v++) solver.addVariable();
    const minisat = new Logic.Solver();
    const name = (l: number) => `${l & 1 ? "-" : ""}v${l >> 1}`;
    for (const clause of clauses) {
      solver.addClause(clause);
      minisat.require(Logic.or(clause.map(name)));
    }
    for (const l of assumptions) minisat.require(name(l));
    const answer = solver.solve(assumptions);
    assert.is(
      answer,
      expected ? "satisfiable" : "unsatisfiable",
      `seed ${seed}`,
    );
    assert.is(minisat.solve() !== null, expected, `seed ${seed}, MiniSat`);
    counts[answer as keyof typeof counts]++;
    if (expected) {
      let pattern = 0;
      for (let v = 0; v < variables; v++) {
        if (solver.modelValue(v)) pattern |= 1 << v;
      }
      assert.ok(holds(pattern), `seed ${seed}: the model is none`);
    }
    // a second question to the same solver
    const opposite = solver.solve(assumptions.map((l) => l ^ 1));
    const other = new SatSolver();
    for (let v = 0; v < variables; v++) other.addVariable();
    clauses.forEach((clause) => other.addClause(clause));
    assert.is(opposite, other.solve(assumptions.map((l) => l ^ 1)));
  }
  assert.ok(counts.satisfiable > 25 && counts.unsatisfiable > 25);
});

test("five pigeons in four holes: unsatisfiable, by conflicts", () => {
  const [pigeons, holes] = [6, 5];
  const solver = new SatSolver();
  const at = (p: number, h: number) => 2 * (p * holes + h);
  for (let i = 0; i < pigeons * holes; i++) solver.addVariable();
  for (let p = 0; p < pigeons; p++) {
    solver.addClause(Array.from({ length: holes }, (_, h) => at(p, h)));
    for (let q = 0; q < p; q++) {
      for (let h = 0; h < holes; h++) {
        solver.addClause([at(p, h) ^ 1, at(q, h) ^ 1]);
      }
    }
  }
  assert.is(solver.solve([], { conflicts: 3 }), "unknown");
  assert.is(solver.solve(), "unsatisfiable");
  assert.ok(solver.conflicts > 10);
});

// -- graphs and functions

test("a majority graph knows its trivial and equal nodes", () => {
  const mig = new Mig();
  const [a, b, c] = [mig.input(), mig.input(), mig.input()];
  assert.is(mig.maj(a, a, b), a);
  assert.is(mig.maj(a, a ^ 1, b), b);
  assert.is(mig.and(a, 1), a);
  assert.is(mig.and(a, 0), 0);
  assert.is(mig.or(a, 1), 1);
  assert.is(mig.maj(c, a, b), mig.maj(b, c, a));
  assert.is(mig.maj(a ^ 1, b ^ 1, c ^ 1), mig.maj(a, b, c) ^ 1);
  assert.is(mig.or(a ^ 1, b ^ 1), mig.and(a, b) ^ 1);
  assert.is(mig.size, 4 + 2);
});

test("40 functions are majority primary", () => {
  const tables = majorityPrimary();
  assert.is(tables.length, 40);
  // cold-flux-project/AQFP_synthesis_tools, majority_mapper.py: the eight majorities
  for (const table of [232, 23, 212, 43, 178, 77, 142, 113]) {
    assert.ok(tables.includes(table), `${table}`);
  }
});

test("every function of three inputs has a network of at most four gates", () => {
  const networks = smallestNetworks();
  const bySize = [0, 0, 0, 0, 0];
  networks.forEach((list, table) => {
    bySize[list[0].gates.length]++;
    for (const { gates, output } of list) {
      const signals = [0, 0xaa, 0xcc, 0xf0];
      const value = (l: number) => (l & 1 ? ~signals[l >> 1] : signals[l >> 1]);
      for (const [a, b, c] of gates) {
        signals.push(
          (value(a) & value(b)) | (value(a) & value(c)) |
            (value(b) & value(c)),
        );
      }
      assert.is(value(output) & 255, table);
      assert.is(gates.length, list[0].gates.length);
    }
  });
  // by hand: 8 constants and variables; 24 of and/or type and 8 majorities; both xor3 need 3 gates
  assert.equal(bySize, [8, 32, 64, 56, 96]);
  assert.is(networks[0x96][0].gates.length, 3);
  assert.is(networks[0xca][0].gates.length, 3);
});

// -- mapping

const FULL_ADDER = `module fa(input a, b, c, output s, k);
  wire x = a ^ b; assign s = x ^ c; assign k = (a & b) | (x & c); endmodule`;

test("a full adder is three gates, and seven by the paper's functions", async () => {
  const netlist = readVerilog(FULL_ADDER);
  assert.is(gateCount(netlist), 9);
  const mapped = await mapToMajority(netlist);
  assert.is(gateCount(mapped), 3);
  // two xor of three gates each, and one majority
  const primary = await mapToMajority(netlist, { functions: "primary" });
  assert.is(gateCount(primary), 7);
  for (const result of [mapped, primary]) {
    assert.ok(checkEquivalence(netlist, result).equivalent);
  }
});

test("the flow's cover against first fit and the exact one, all equivalent", async () => {
  let [firstFit, flow, exact] = [0, 0, 0];
  for (let seed = 0; seed < 6; seed++) {
    const netlist = randomLogic(seed, 6, 24);
    const results = [];
    for (const cover of ["first-fit", "flow", "exact"] as const) {
      const mapped = await mapToMajority(netlist, { cover, slack: 99 });
      const { equivalent } = checkEquivalence(netlist, mapped, {
        method: "exhaustive",
      });
      assert.ok(equivalent, `seed ${seed} ${cover}`);
      results.push(gateCount(mapped));
    }
    firstFit += results[0];
    flow += results[1];
    exact += results[2];
  }
  assert.ok(flow < firstFit, `flow ${flow}, first fit ${firstFit}`);
  // both repeat their covers on what the last one made, so that either may end lower
  assert.ok(flow <= exact * 1.06, `flow ${flow}, exact ${exact}`);
});

test("mapping keeps the function, whatever the options", async () => {
  for (let seed = 100; seed < 106; seed++) {
    const netlist = randomLogic(seed, 9, 60);
    for (
      const options of [
        { cover: "gates" },
        { functions: "primary" },
        { functions: "all" },
        { slack: 3 },
      ] as const
    ) {
      const mapped = await mapToMajority(netlist, options);
      const result = checkEquivalence(netlist, mapped);
      assert.ok(result.equivalent, `seed ${seed} ${JSON.stringify(options)}`);
    }
  }
});

test("rewriting: c17 in five gates, one of them a majority", () => {
  const c17 = readVerilog(`module c17(input a, b, c, d, e, output y, z);
    wire s = ~(c & d); wire l = ~(a & c); wire m = ~(b & s); wire r = ~(s & e);
    assign y = ~(l & m), z = ~(m & r); endmodule`);
  const mig = new Mig();
  const literals = mig.add(c17, ports(c17, "input").map(() => mig.input()));
  let graph = {
    mig,
    outputs: ports(c17, "output").map((i) => literals[i]),
  };
  for (const sideways of [true, false, true, false]) {
    graph = rewrite(graph.mig, graph.outputs, smallestNetworks(), {
      depth: 3,
      sideways,
    });
  }
  const back = netlistOf(graph.mig, graph.outputs, portNames(c17));
  assert.ok(checkEquivalence(c17, back).equivalent);
  assert.is(gateCount(back), 5);
});

test("one pass of rewriting: same function, never more gates, never deeper", () => {
  let saved = 0;
  for (let seed = 300; seed < 330; seed++) {
    const netlist = randomLogic(seed, 8, 60);
    const mig = new Mig();
    const inputs = ports(netlist, "input").map(() => mig.input());
    const literals = mig.add(netlist, inputs);
    const outputs = ports(netlist, "output").map((i) => literals[i]);
    const depthOf = (m: Mig, out: readonly number[]) =>
      Math.max(...out.map((l) => m.depths()[l >> 1]));
    const gates = (m: Mig, out: readonly number[]) =>
      m.cone(out).filter((node) => m.isGate(node)).length;
    const depth = depthOf(mig, outputs);
    for (const sideways of [false, true]) {
      const next = rewrite(mig, outputs, smallestNetworks(), {
        depth,
        sideways,
      });
      const back = netlistOf(next.mig, next.outputs, portNames(netlist));
      const { equivalent } = checkEquivalence(netlist, back, {
        method: "exhaustive",
      });
      assert.ok(equivalent, `seed ${seed}`);
      const less = gates(mig, outputs) - gates(next.mig, next.outputs);
      assert.ok(less >= 0, `seed ${seed}: ${less}`);
      assert.ok(depthOf(next.mig, next.outputs) <= depth, `seed ${seed}`);
      saved += less;
    }
  }
  assert.ok(saved > 30, `${saved}`);
});

test("the estimate of junctions is that of a legal circuit, and ranks", async () => {
  const netlist = readVerilog(FULL_ADDER);
  const mapped = await mapToMajority(netlist);
  const levelled = await insertBuffers(mapped, { levels: "alap" });
  const cost = 6 * gateCount(mapped) + 2 * bufferAndSplitterCount(levelled);
  assert.ok(estimateJunctions(mapped) <= cost);
  const best = await insertBuffers(mapped, { levels: "lp" });
  assert.ok(
    estimateJunctions(mapped) >=
      6 * gateCount(mapped) + 2 * bufferAndSplitterCount(best),
  );
  assert.ok(estimateJunctions(mapped) < estimateJunctions(netlist));
});

test("constants, passed inputs and both polarities of a signal at outputs", async () => {
  const netlist = readVerilog(
    `module m(input a, b, output y, z, p, n, zero, one);
    assign y = a & b, z = ~(a & b), p = a, n = ~b, zero = a & ~a, one = 1'b1;
  endmodule`,
  );
  const mapped = await mapToMajority(netlist);
  assert.ok(checkEquivalence(netlist, mapped).equivalent);
  assert.is(gateCount(mapped), 1);
  const output = (name: string) =>
    mapped.cells.find((cell) => cell.name === name)!.inputs[0];
  assert.is(mapped.cells[output("zero").cell].value, 0);
  assert.is(mapped.cells[output("one").cell].value, 1);
  assert.is(output("n").inverted, true);
  assert.is(output("y").cell, output("z").cell);
  assert.is(output("y").inverted !== output("z").inverted, true);
});

test("an output that is only wanted inverted is made so by its gate", async () => {
  const netlist = readVerilog(
    "module m(input a, b, output y); assign y = ~(a & b); endmodule",
  );
  const { cells } = await mapToMajority(netlist);
  const [gate] = cells.filter(isGate);
  assert.is(gate.kind, "or");
  assert.equal(gate.inputs.map(({ inverted }) => inverted), [true, true]);
  assert.is(cells[3].inputs[0].inverted, false);
});

// -- equivalence

test("equivalence: all methods agree with all patterns, on equal and damaged netlists", async () => {
  const methods = new Map<string, number>();
  for (let seed = 0; seed < 30; seed++) {
    const netlist = randomLogic(200 + seed, 8, 50);
    const other = await mapToMajority(netlist, { slack: seed % 3 });
    if (seed % 2 === 1) {
      // one damaged gate
      const gates = other.cells.filter(isGate);
      if (gates.length === 0) continue;
      const [which, pin] = randomInts(fold(key(seed), 1), 2, 0, 1 << 20);
      const gate = gates[which % gates.length];
      const input = gate.inputs[pin % gate.inputs.length];
      input.inverted = !input.inverted;
    }
    const byAll = checkEquivalence(netlist, other, { method: "exhaustive" });
    const bySat = checkEquivalence(netlist, other, { method: "sat" });
    assert.is(bySat.equivalent, byAll.equivalent, `seed ${seed}`);
    for (const { counterexample, method } of [byAll, bySat]) {
      methods.set(method, (methods.get(method) ?? 0) + 1);
      if (counterexample === undefined) continue;
      for (const [side, n] of [["a", netlist], ["b", other]] as const) {
        const values = evaluate(
          n,
          Uint32Array.from(
            ports(n, "input"),
            (i) => counterexample.inputs[n.cells[i].name],
          ),
        );
        for (const output of counterexample.outputs) {
          const cell = n.cells.findIndex(({ name }) => name === output.name);
          assert.is(values[cell] & 1, output[side]);
        }
      }
    }
  }
  assert.ok(methods.get("sat")! > 10, JSON.stringify([...methods]));
});

test("a difference in one pattern of 2^40 is found", () => {
  const inputs = Array.from({ length: 40 }, (_, i) => `x${i}`);
  const text = (output: string) =>
    `module m(input ${
      inputs.join(", ")
    }, z, output y); assign y = ${output}; endmodule`;
  const all = inputs.map((name, i) => i % 2 ? name : `~${name}`).join(" & ");
  const result = checkEquivalence(
    readVerilog(text("z")),
    readVerilog(text(`z ^ (${all})`)),
  );
  assert.is(result.equivalent, false);
  assert.is(result.method, "sat");
  inputs.forEach((name, i) =>
    assert.is(result.counterexample!.inputs[name], i % 2)
  );
});

test("ports that only one netlist has are listed", () => {
  assert.throws(
    () =>
      checkEquivalence(
        readVerilog("module m(input a, output y); assign y = a; endmodule"),
        readVerilog("module m(input b, output y); assign y = b; endmodule"),
      ),
    /same inputs: a \(only in the first\), b \(only in the second\)/,
  );
});

test("ABC agrees, also that a damaged netlist differs", async () => {
  const netlist = randomLogic(5, 8, 40);
  const mapped = await mapToMajority(netlist);
  assert.is((await checkEquivalenceByAbc(netlist, mapped)).equivalent, true);
  const gate = mapped.cells.findLast(isGate)!;
  gate.inputs[0].inverted = !gate.inputs[0].inverted;
  const ours = checkEquivalence(netlist, mapped);
  const theirs = await checkEquivalenceByAbc(netlist, mapped);
  assert.is(ours.equivalent, false);
  assert.is(theirs.equivalent, false);
  assert.ok(theirs.counterexample!.outputs.length > 0);
});

const circuits = process.env.ADIABAT_CIRCUITS;
if (circuits !== undefined && existsSync(circuits)) {
  const open = (folder: string, name: string) => {
    const file = join(circuits, folder, `${name}.v`);
    return readVerilog(readFileSync(file, "utf8"), { file: name });
  };

  test("benchmark circuits: mapped with fewer gates, proven equal in seconds", async () => {
    for (
      const name of ["c432", "c499", "c880", "c1355", "c1908", "counter128"]
    ) {
      const netlist = open("iscas85", name);
      const mapped = await mapToMajority(netlist, { slack: 4 });
      const start = performance.now();
      const result = checkEquivalence(netlist, mapped, { method: "sat" });
      const seconds = (performance.now() - start) / 1000;
      assert.ok(result.equivalent, name);
      assert.ok(seconds < 5, `${name}: ${seconds} s`);
      assert.ok(gateCount(mapped) < gateCount(netlist), name);
    }
  });

  test("balanced benchmark circuits compute what their originals do", () => {
    for (
      const [balanced, original] of [
        ["c880_pb", "c880"],
        ["c1355_pb", "c1355"],
        ["c1908_pb", "c1908"],
        ["counter_128_pb", "counter128"],
      ]
    ) {
      const netlist = open("placer", balanced);
      assert.ok(
        checkEquivalence(netlist, open("iscas85", original)).equivalent,
        balanced,
      );
    }
  });
}

test.run();
