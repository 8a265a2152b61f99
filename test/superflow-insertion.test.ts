/** Levels, buffers and splitters: hand cases, brute force on tiny circuits, fuzzing, published counts. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readVerilog } from "../lib/core/formats/verilog.ts";
import { fold, type Key, key, randomInts } from "../lib/core/rng.ts";
import {
  insertBuffers,
  type Insertion,
  type InsertionOptions,
  type LevelMethod,
} from "../lib/superflow/insertion.ts";
import { checkLegality } from "../lib/superflow/legality.ts";
import {
  INFEASIBLE,
  levelProblem,
  splitterLevels,
  totalCells,
  treeCells,
} from "../lib/superflow/levels.ts";
import {
  bufferAndSplitterCount,
  type Cell,
  countCells,
  isGate,
  type Netlist,
  ports,
  topologicalOrder,
} from "../lib/superflow/netlist.ts";
import { checkSimulation } from "../lib/superflow/simulation.ts";

const METHODS: LevelMethod[] = ["naive", "asap", "alap", "lp", "improved"];

/** Enough for circuits of a few gates. */
const SHORT = { moves: 2000, runs: 2 };

/** A full adder, written here; its levels can be enumerated. */
const ADDER = `module adder(input a, b, c, output carry, sum);
  wire d = a & b, e = a | b, f = ~d & e, g = c & f, h = c | f;
  assign carry = d | g;
  assign sum = ~g & h;
endmodule`;

/** Two nands that share signals in three ranks. */
const NANDS = `module nands(input a, b, c, d, e, output y, z);
  wire f = ~(a & c), g = ~(c & d), h = ~(b & g), i = ~(g & e);
  assign y = ~(f & h);
  assign z = ~(h & i);
endmodule`;

function graphOf(
  { cells }: Netlist,
  order: number[],
  capacity: number,
  balance: boolean,
) {
  const sinks: number[][] = cells.map(() => []);
  cells.forEach(({ inputs }, i) => {
    for (const { cell } of inputs) sinks[cell].push(i);
  });
  const all = (wanted: string) =>
    cells.flatMap(({ kind }, i) => kind === wanted ? [i] : []);
  return {
    sinks,
    order,
    inputs: all("input"),
    outputs: all("output"),
    capacity,
    balanceInputs: balance,
    balanceOutputs: balance,
  };
}

// Counting ----------------------------------------------------------------------------------------

test("counting: trees worked by hand", () => {
  assert.is(treeCells(0, [], 4), 0);
  assert.is(treeCells(0, [1], 4), 0);
  assert.is(treeCells(0, [5], 4), 4, "a chain");
  assert.is(treeCells(0, [1, 1], 4), INFEASIBLE, "one output, two sinks");
  assert.is(treeCells(0, [1, 9], 4), INFEASIBLE);
  assert.is(treeCells(3, [3], 4), INFEASIBLE);
  assert.is(treeCells(0, [2, 2, 2, 2], 4), 1);
  assert.is(treeCells(0, [2, 2, 2, 2, 2], 4), INFEASIBLE);
  assert.is(treeCells(0, [3, 3, 3, 3, 3], 4), 3, "two below one");
  assert.is(treeCells(0, [2, 2, 2, 3, 3, 3, 3], 4), 2);
  assert.is(treeCells(0, [2, 4, 4, 4, 4, 4], 4), 4, "2, 1, 1");
  assert.is(treeCells(0, [2, 3, 3], 4), 2, "docstring");
  assert.is(treeCells(0, [3, 3, 3], 2), 3, "capacity 2: two below one");
  assert.equal([1, 2, 4, 5, 16, 17].map((k) => splitterLevels(k, 4)), [
    0,
    1,
    1,
    2,
    2,
    3,
  ]);
});

/** Smallest number of cells by trying all numbers of cells on every level. */
function bruteTree(source: number, sinks: number[], capacity: number): number {
  const last = Math.max(...sinks);
  const at = (level: number) => sinks.filter((l) => l === level).length;
  let best = Infinity;
  /** `above` cells stand at `level`, which must be driven from the level below. */
  const search = (level: number, above: number, cells: number) => {
    const edges = above + at(level);
    if (level === source + 1) {
      if (edges === 1) best = Math.min(best, cells);
      return;
    }
    for (let n = 1; n <= edges; n++) {
      if (n * capacity >= edges) search(level - 1, n, cells + n);
    }
  };
  if (Math.min(...sinks) <= source) return INFEASIBLE;
  search(last, 0, 0);
  return best === Infinity ? INFEASIBLE : best;
}

test("counting equals brute force over all numbers of cells per level", () => {
  let feasible = 0;
  for (let n = 0; n < 400; n++) {
    const k = fold(key(1), n);
    const [size, capacity, source] = [
      randomInts(fold(k, "size"), 1, 1, 8)[0],
      randomInts(fold(k, "capacity"), 1, 2, 5)[0],
      randomInts(fold(k, "source"), 1, 0, 2)[0],
    ];
    const sinks = [
      ...randomInts(fold(k, "sinks"), size, source + 1, source + 6),
    ];
    const expected = bruteTree(source, sinks, capacity);
    assert.is(treeCells(source, sinks, capacity), expected, `${sinks}`);
    if (expected !== INFEASIBLE) feasible++;
  }
  assert.ok(feasible > 100 && feasible < 300, `feasible ${feasible} of 400`);
});

// Brute force over levels -------------------------------------------------------------------------

/** Fewest cells over all level assignments of a given depth, Infinity if none is feasible. */
function bruteLevels(
  netlist: Netlist,
  depth: number,
  capacity: number,
  balance: boolean,
): number {
  const { cells } = netlist;
  const order = topologicalOrder(netlist);
  const { sinks } = graphOf(netlist, order, capacity, balance);
  const levels = new Int32Array(cells.length);
  let best = Infinity;
  const search = (n: number) => {
    if (n === order.length) {
      let total = 0;
      for (let v = 0; v < cells.length; v++) {
        const tree = treeCells(
          levels[v],
          sinks[v].map((w) => levels[w]),
          capacity,
        );
        if (tree === INFEASIBLE) return;
        total += tree;
      }
      best = Math.min(best, total);
      return;
    }
    const v = order[n];
    const { kind, inputs } = cells[v];
    const low = inputs.reduce(
      (l, { cell }) => Math.max(l, levels[cell] + 1),
      0,
    );
    const [from, to] = balance && kind === "input"
      ? [0, 0]
      : balance && kind === "output"
      ? [depth + 1, depth + 1]
      : [low, kind === "output" ? depth + 1 : depth];
    if (from < low) return;
    for (levels[v] = from; levels[v] <= to; levels[v]++) search(n + 1);
  };
  search(0);
  return best;
}

/** Plain gates only, no inversions: a random netlist whose every gate is used. */
function randomNetlist(k: Key, inputs: number, gates: number): Netlist {
  const cells: Cell[] = [];
  for (let i = 0; i < inputs; i++) {
    cells.push({ name: `i${i}`, kind: "input", inputs: [] });
  }
  const used = new Set<number>();
  for (let g = 0; g < gates; g++) {
    const draws = randomInts(fold(k, g), 4, 0, 1 << 30);
    const kind = (["and", "or", "maj"] as const)[draws[0] % 3];
    const sources = [...draws.subarray(1, kind === "maj" ? 4 : 3)].map((d) =>
      d % cells.length
    );
    sources.forEach((s) => used.add(s));
    cells.push({
      name: `g${g}`,
      kind,
      inputs: sources.map((cell, i) => ({
        cell,
        pin: 0,
        inverted: (draws[0] >> (3 + i)) % 2 === 1,
      })),
    });
  }
  for (let v = inputs; v < inputs + gates; v++) {
    if (!used.has(v)) {
      cells.push({
        name: `o${v}`,
        kind: "output",
        inputs: [{ cell: v, pin: 0, inverted: false }],
      });
    }
  }
  return { name: "random", cells };
}

/** The same netlist as insertion sees it: no inverted output ports in these. */
async function assertOptimal(
  netlist: Netlist,
  options: InsertionOptions,
  what: string,
) {
  const capacity = options.splitterCapacity ?? 4;
  const balance = options.balanceInputs ?? true;
  const result = await insertBuffers(netlist, { ...SHORT, ...options });
  const problem = levelProblem(
    graphOf(netlist, topologicalOrder(netlist), capacity, balance),
  );
  assert.is(
    bruteLevels(netlist, problem.depth - 1, capacity, balance),
    Infinity,
    `${what}: the depth can be smaller`,
  );
  assert.is(result.depth, problem.depth, what);
  assert.is(
    bufferAndSplitterCount(result),
    bruteLevels(netlist, problem.depth, capacity, balance),
    what,
  );
}

test("improved levels are optimal where all assignments can be tried", async () => {
  const plain = (source: string) => {
    const netlist = readVerilog(source);
    for (const cell of netlist.cells) {
      for (const input of cell.inputs) input.inverted = false; // levels do not depend on it
    }
    return netlist;
  };
  await assertOptimal(plain(ADDER), {}, "adder");
  await assertOptimal(plain(NANDS), {}, "nands");
  await assertOptimal(plain(NANDS), { splitterCapacity: 2 }, "nands, 2");
  for (let n = 0; n < 12; n++) {
    const netlist = randomNetlist(fold(key(2), n), 3, 5);
    await assertOptimal(netlist, {}, `random ${n}`);
    await assertOptimal(netlist, { splitterCapacity: 2 }, `random ${n}, 2`);
    await assertOptimal(
      randomNetlist(fold(key(3), n), 2, 3),
      { balanceInputs: false, balanceOutputs: false },
      `random ${n}, free ports`,
    );
  }
});

test("latest levels are the published ones of a full adder", async () => {
  // adder1 of the published table (SCE-benchmarks, ISCAS): 7 gates, depth 8, 16 buffers and splitters.
  const netlist = readVerilog(ADDER);
  const result = await insertBuffers(netlist, SHORT);
  assert.equal(
    [
      netlist.cells.filter(isGate).length,
      result.depth,
      bufferAndSplitterCount(result),
    ],
    [7, 8, 16],
  );
});

// Netlists that are built -------------------------------------------------------------------------

/** Cells counted again from the levels of the gates of the result. */
function recount({ cells, levels }: Insertion, capacity: number): number {
  const drives: number[][] = cells.map(() => []);
  let inverters = 0;
  cells.forEach(({ kind, inputs }, i) => {
    if (kind === "buffer" || kind === "splitter") return;
    if (kind === "inverter") inverters++;
    for (let { cell } of inputs) {
      while (cells[cell].kind === "buffer" || cells[cell].kind === "splitter") {
        cell = cells[cell].inputs[0].cell;
      }
      drives[cell].push(levels[i]);
    }
  });
  return drives.reduce(
    (sum, sinks, v) => sum + treeCells(levels[v], sinks, capacity),
    inverters,
  );
}

/** A random netlist with everything that synthesis may leave. */
function roughNetlist(k: Key): Netlist {
  const [inputs, gates, outputs] = randomInts(fold(k, "shape"), 3, 1, 9);
  const cells: Cell[] = [];
  for (let i = 0; i < inputs; i++) {
    cells.push({ name: `i[${i}]`, kind: "input", inputs: [] });
  }
  cells.push({ name: "zero", kind: "constant", inputs: [], value: 0 });
  for (let g = 0; g < 3 * gates + outputs; g++) {
    const draws = randomInts(fold(k, g), 5, 0, 1 << 30);
    const kind = g >= 3 * gates ? "output" : ([
      "and",
      "or",
      "maj",
      "maj",
      "inverter",
      "buffer",
      "splitter",
    ] as const)[
      draws[0] % 7
    ];
    const fanin = kind === "maj" ? 3 : kind === "and" || kind === "or" ? 2 : 1;
    const drivers = cells.flatMap((c, i) => c.kind === "output" ? [] : [i]);
    cells.push({
      name: kind === "output" ? `o${g}` : `g${g}`,
      kind,
      inputs: [...draws.subarray(1, 1 + fanin)].map((d, i) => ({
        cell: drivers[d % drivers.length],
        pin: 0,
        inverted: (draws[0] >> (4 + i)) % 2 === 1,
      })),
      ...(kind === "splitter" ? { arity: 3 } : {}),
    });
  }
  return { name: "rough", cells };
}

test("fuzz: every method gives legal netlists that compute the same", async () => {
  for (let n = 0; n < 60; n++) {
    const netlist = roughNetlist(fold(key(4), n));
    const options = {
      splitterCapacity: 2 + n % 3,
      balanceInputs: n % 2 === 0,
      balanceOutputs: n % 3 !== 0,
      ...SHORT,
    };
    const counts: Record<string, number> = {};
    const depths: Record<string, number> = {};
    for (const levels of METHODS) {
      const what = `netlist ${n}, ${levels}`;
      const result = await insertBuffers(netlist, { levels, ...options });
      assert.equal(
        checkLegality(result, options).map(({ message }) => message),
        [],
        what,
      );
      const check = checkSimulation(result, netlist);
      assert.ok(
        check.equal,
        `${what}: ${check.mismatch?.message ?? check.problems[0]?.message}`,
      );
      for (const direction of ["input", "output"] as const) {
        assert.equal(
          ports(result, direction).map((i) => result.cells[i].name),
          ports(netlist, direction).map((i) => netlist.cells[i].name),
        );
      }
      counts[levels] = bufferAndSplitterCount(result);
      depths[levels] = result.depth;
      if (levels !== "naive") {
        assert.is(
          counts[levels],
          recount(result, options.splitterCapacity),
          what,
        );
      }
    }
    assert.ok(counts.lp <= counts.alap && counts.improved <= counts.lp, `${n}`);
    assert.equal(
      [depths.asap, depths.alap, depths.lp],
      [depths.improved, depths.improved, depths.improved],
    );
    assert.ok(depths.naive >= depths.improved);
  }
});

test("signals with many sinks: counts kept up to date while levels move", async () => {
  // An enable for gates in several ranks, some of which take it twice.
  const cells: Cell[] = ["en", "a"].map((name) => ({
    name,
    kind: "input",
    inputs: [],
  }));
  const pin = (cell: number) => ({ cell, pin: 0, inverted: false });
  cells.push({ name: "gate", kind: "and", inputs: [pin(0), pin(1)] });
  for (let i = 0; i < 70; i++) {
    cells.push({
      name: `g${i}`,
      kind: "maj",
      inputs: [
        pin(i % 2 === 0 ? 0 : 2),
        pin(i % 5 === 0 ? 0 : 2),
        pin(i < 9 ? 1 : cells.length - 7),
      ],
    });
  }
  for (let i = 66; i < 73; i++) {
    cells.push({ name: `o${i}`, kind: "output", inputs: [pin(i)] });
  }
  const netlist = { name: "enable", cells };
  const counts: number[] = [];
  for (const levels of ["asap", "alap", "lp", "improved"] as const) {
    const result = await insertBuffers(netlist, { levels, moves: 20_000 });
    assert.equal(checkLegality(result), [], levels);
    assert.ok(checkSimulation(result, netlist).equal, levels);
    assert.is(bufferAndSplitterCount(result), recount(result, 4), levels);
    counts.push(bufferAndSplitterCount(result));
  }
  assert.ok(counts[3] <= counts[2] && counts[2] <= counts[1], `${counts}`);
  assert.ok(counts[3] < counts[1], `something moved: ${counts}`);
});

test("hand case: naive chains against shared ones", async () => {
  // a drives gates in two ranks: one splitter, then two chains or a shared one.
  const netlist = readVerilog(
    "module m(input a, b, output y); assign y = a & (a | b); endmodule",
  );
  // or at 2 (a: splitter at 1, b: buffer at 1), and at 3, a's second pin: buffer at 2.
  const naive = await insertBuffers(netlist, { levels: "naive" });
  assert.equal(countCells(naive), {
    input: 2,
    output: 1,
    or: 1,
    and: 1,
    splitter2: 1,
    buffer: 2,
  });
  assert.is(naive.depth, 3);
  // Three sinks at ranks 2, 3, 4: naive 1 splitter + 0 + 1 + 2 buffers; shared 3 cells; b, c, d 1 + 2 + 3 chain.
  const ladder = readVerilog(
    "module m(input a, b, c, d, output y); assign y = a & (d | (a & (c | (a & b)))); endmodule",
  );
  const counts = [];
  for (const levels of ["naive", "asap"] as const) {
    counts.push(
      bufferAndSplitterCount(await insertBuffers(ladder, { levels })),
    );
  }
  // and 2, or 3, and 4, or 5, and 6: a to 2, 4, 6; b to 2, c to 3, d to 5.
  assert.equal(counts, [1 + 0 + 2 + 4 + 1 + 2 + 4, 5 + 1 + 2 + 4]);
});

// Inversions --------------------------------------------------------------------------------------

const counted = async (source: string, options: InsertionOptions = {}) => {
  const netlist = readVerilog(source);
  const result = await insertBuffers(netlist, { ...SHORT, ...options });
  assert.equal(checkLegality(result, options), []);
  assert.ok(checkSimulation(result, netlist).equal);
  return { result, counts: countCells(result) };
};

test("inversions: an output's complement is the gate's dual", async () => {
  const { result, counts } = await counted(
    "module m(input a, b, c, output y, z); wire d = a & ~b; assign y = ~d; assign z = ~(d | c); endmodule",
  );
  assert.is(counts.inverter, undefined);
  assert.equal([counts.and, counts.or], [1, 1], "and became or, or became and");
  assert.is(result.depth, 3);
});

test("inversions: both polarities take an inverter for a buffer", async () => {
  // d must reach y and z: a splitter at 2, then a buffer and an inverter at 3.
  const { result, counts } = await counted(
    "module m(input a, b, output y, z); wire d = a & b; assign y = d; assign z = ~d; endmodule",
  );
  assert.equal([counts.inverter, counts.buffer, counts.splitter2], [1, 1, 1]);
  assert.is(result.depth, 3, "one level more than the splitter needs");
  // Where the way is long the inverter costs nothing: an input's complement next to a deep gate.
  const deep = await counted(
    "module m(input a, b, c, d, output y, z); assign y = a & (b & (c & d)); assign z = ~a; endmodule",
  );
  const plain = await counted(
    "module m(input a, b, c, d, output y, z); assign y = a & (b & (c & d)); assign z = a; endmodule",
  );
  assert.is(deep.counts.inverter, 1);
  assert.is(
    bufferAndSplitterCount(deep.result),
    bufferAndSplitterCount(plain.result),
  );
  assert.is(deep.result.depth, plain.result.depth);
});

test("inverters, buffers and splitters of the argument are absorbed", async () => {
  const source = "module m(input a, b, output y); assign y = ~a & b; endmodule";
  const once = await insertBuffers(readVerilog(source), SHORT);
  const twice = await insertBuffers(once, SHORT);
  assert.equal(twice, once);
  const c: Cell[] = [
    { name: "a", kind: "input", inputs: [] },
    {
      name: "n",
      kind: "inverter",
      inputs: [{ cell: 0, pin: 0, inverted: false }],
    },
    {
      name: "g",
      kind: "and",
      inputs: [{ cell: 1, pin: 0, inverted: true }, {
        cell: 1,
        pin: 0,
        inverted: false,
      }],
    },
    {
      name: "y",
      kind: "output",
      inputs: [{ cell: 2, pin: 0, inverted: false }],
    },
  ];
  const result = await insertBuffers({ name: "m", cells: c }, SHORT);
  assert.is(countCells(result).inverter, undefined);
  assert.ok(checkSimulation(result, { name: "m", cells: c }).equal);
});

test("constants, wires, unused inputs and gates", async () => {
  const { result, counts } = await counted(
    `module m(input a, b, unused, output one, zero, through, also, y);
      wire dead = a & b;
      assign one = 1'b1; assign zero = 1'b0; assign through = a; assign also = a; assign y = b | (b & a);
    endmodule`,
  );
  assert.is(counts.constant, 2);
  assert.is(counts.input, 3);
  assert.is(counts.and, 1, "the gate without a sink is left out");
  assert.is(result.notes.length, 1);
  assert.match(result.notes[0], "dead");
});

// Options and errors ------------------------------------------------------------------------------

test("same key, same netlist", async () => {
  const netlist = roughNetlist(fold(key(4), 7));
  const options = { key: key(9), moves: 3000 };
  assert.equal(
    await insertBuffers(netlist, options),
    await insertBuffers(netlist, options),
  );
});

test("free ports cost nothing", async () => {
  const source =
    "module m(input a, b, c, output y, z); assign y = a & (b & c); assign z = ~(b & c); endmodule";
  const balanced = await counted(source);
  const free = await counted(source, {
    balanceInputs: false,
    balanceOutputs: false,
  });
  // b & c: complemented or not, one inverter and one splitter; a waits for nobody.
  assert.ok(
    bufferAndSplitterCount(free.result) <
      bufferAndSplitterCount(balanced.result),
  );
});

test("bad input is refused with what is wrong", async () => {
  const netlist = readVerilog(ADDER);
  const refused = async (
    what: Netlist,
    options: Record<string, unknown>,
    pattern: RegExp,
  ) => {
    try {
      await insertBuffers(what, options as InsertionOptions);
    } catch (error) {
      assert.match((error as Error).message, pattern);
      return;
    }
    assert.unreachable(`${pattern}`);
  };
  await refused(
    netlist,
    { levels: "best" },
    /levels must be one of naive.*"best"/,
  );
  await refused(
    netlist,
    { splitterCapacity: 1 },
    /whole number from 2: splitterCapacity 1/,
  );
  await refused(netlist, { splitterCapacity: 2.5 }, /2\.5/);
  await refused(
    {
      name: "mute",
      cells: netlist.cells.filter(({ kind }) => kind !== "output"),
    },
    {},
    /mute as it must have an output/,
  );
  const loop: Cell[] = [
    { name: "a", kind: "input", inputs: [] },
    {
      name: "p",
      kind: "and",
      inputs: [{ cell: 0, pin: 0, inverted: false }, {
        cell: 2,
        pin: 0,
        inverted: false,
      }],
    },
    {
      name: "q",
      kind: "or",
      inputs: [{ cell: 0, pin: 0, inverted: false }, {
        cell: 1,
        pin: 0,
        inverted: false,
      }],
    },
    {
      name: "y",
      kind: "output",
      inputs: [{ cell: 2, pin: 0, inverted: false }],
    },
  ];
  await refused({ name: "loop", cells: loop }, {}, /no loop/);
});

test("limits: too many cells are refused, a large program is replaced with a note", async () => {
  const netlist = readVerilog(NANDS);
  for (const levels of METHODS) {
    const options = { levels, ...SHORT };
    const { cells } = await insertBuffers(netlist, options);
    await insertBuffers(netlist, { ...options, maxCells: cells.length });
    try {
      await insertBuffers(netlist, { ...options, maxCells: cells.length - 1 });
      assert.unreachable(levels);
    } catch (error) {
      assert.match(
        (error as Error).message,
        new RegExp(`at most ${cells.length - 1} cells .option maxCells.: `),
      );
    }
  }
  const large = await insertBuffers(netlist, { maxProgramNodes: 10, ...SHORT });
  assert.equal(checkLegality(large), []);
  assert.match(large.notes[0], "linear program was not solved");
  assert.match(large.notes[0], "maxProgramNodes 10");
  const small = await insertBuffers(netlist, SHORT);
  assert.equal(small.notes, []);
  assert.is(bufferAndSplitterCount(large), bufferAndSplitterCount(small));
});

// Published counts --------------------------------------------------------------------------------

/**
 * Depth and number of buffers and splitters: lsils/SCE-benchmarks, ISCAS/README.md, inputs and outputs
 * balanced, capacity 4. The circuits are not ours to ship: they are read from ADIABAT_CIRCUITS.
 */
const PUBLISHED: Record<string, [gates: number, depth: number, cells: number]> =
  {
    adder1: [7, 8, 16],
    adder8: [77, 33, 371],
    c17: [6, 5, 12],
    c432: [121, 37, 839],
    c499: [387, 29, 1173],
    c880: [306, 40, 1511],
    c1355: [389, 29, 1184],
    c1908: [289, 34, 1234],
    counter16: [29, 17, 65],
    counter32: [82, 23, 154],
    counter128: [428, 38, 747],
    sorter32: [480, 30, 480],
  };

const circuits = process.env.ADIABAT_CIRCUITS;
if (circuits !== undefined) {
  for (const [name, [gates, depth, cells]] of Object.entries(PUBLISHED)) {
    test(`${name}: at most the published number of cells`, async () => {
      const file = join(circuits, "iscas85", `${name}.v`);
      const netlist = readVerilog(readFileSync(file, "utf8"), { file });
      assert.is(netlist.cells.filter(isGate).length, gates);
      const result = await insertBuffers(netlist, { runs: 1 });
      assert.is(result.depth, depth);
      assert.equal(checkLegality(result), []);
      assert.ok(checkSimulation(result, netlist).equal);
      assert.ok(
        bufferAndSplitterCount(result) <= cells,
        `${bufferAndSplitterCount(result)}`,
      );
    });
  }
}

test("totals of a problem are those of its trees", () => {
  const netlist = readVerilog(ADDER);
  const problem = levelProblem(
    graphOf(netlist, topologicalOrder(netlist), 4, true),
  );
  const levels = problem.latest.slice();
  assert.is(totalCells(problem, levels), 18, "latest levels of a full adder");
  const gate = netlist.cells.findIndex(isGate);
  levels[gate] = problem.depth + 5;
  assert.is(totalCells(problem, levels), INFEASIBLE);
});

test.run();
