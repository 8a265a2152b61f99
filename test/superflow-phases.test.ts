/** Phase skipping: trees and levels against brute force, legality and the clock's hold condition. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readVerilog } from "../lib/core/formats/verilog.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";
import { superflow } from "../lib/superflow/flow.ts";
import {
  insertBuffers,
  type Insertion,
  type LevelMethod,
} from "../lib/superflow/insertion.ts";
import { checkLegality } from "../lib/superflow/legality.ts";
import { INFEASIBLE, treeCells } from "../lib/superflow/levels.ts";
import {
  bufferAndSplitterCount,
  countCells,
  type LevelledNetlist,
  type Netlist,
  topologicalOrder,
} from "../lib/superflow/netlist.ts";
import { phaseSkippingTable } from "../lib/superflow/phases.ts";
import {
  checkSimulation,
  clockPhasesFor,
} from "../lib/superflow/simulation.ts";
import {
  chainCells,
  skippingTree,
  skippingTreeCells,
} from "../lib/superflow/skipping.ts";

const METHODS: LevelMethod[] = ["naive", "asap", "alap", "lp", "improved"];

/** Enough for circuits of a few gates. */
const SHORT = { moves: 2000, runs: 2 };

/** A ladder: a, b, c and d wait for deeper and deeper gates; no inversions. */
const LADDER =
  "module m(input a, b, c, d, e, f, output y); assign y = a & (b | (c & (d | (e & f)))); endmodule";

/** Shared signals, no inversions at outputs. */
const SHARED = `module s(input a, b, c, output y, z);
  wire d = a & b, e = d | c, f = e & a;
  assign y = f | d;
  assign z = e & c;
endmodule`;

// Trees -------------------------------------------------------------------------------------------

test("hand cases: chains and shared trees", () => {
  assert.equal([1, 2, 3, 4, 5].map((g) => chainCells(g, 1)), [0, 1, 2, 3, 4]);
  assert.equal([1, 2, 3, 4, 5].map((g) => chainCells(g, 2)), [0, 0, 1, 1, 2]);
  assert.equal([1, 3, 4, 6, 7].map((g) => chainCells(g, 3)), [0, 0, 1, 1, 2]);
  assert.is(chainCells(0, 2), INFEASIBLE);
  assert.is(treeCells(0, [9, 5, 5], 4, 4), 2, "docstring");
  assert.is(treeCells(0, [2, 3], 4, 2), 1, "one splitter at 1 for both");
  assert.is(treeCells(0, [2, 4], 4, 2), 2, "a splitter at 1 reaches 3 only");
  assert.is(treeCells(0, [1, 2], 4, 2), INFEASIBLE, "one output");
  // Five sinks two levels above the place of a splitter: one splitter under another, not three.
  assert.is(treeCells(0, [3, 3, 3, 3, 3], 4, 1), 3);
  assert.is(treeCells(0, [3, 3, 3, 3, 3], 4, 2), 2);
});

/** Whether n[x] cells at each level x can be wired as a tree: oldest outputs are used first. */
function canBeWired(
  n: number[],
  sinks: number[],
  capacity: number,
  reach: number,
): boolean {
  let free = [0]; // levels of unused outputs
  for (let level = 1; level <= Math.max(...sinks); level++) {
    const cells = n[level] ?? 0;
    const wanted = cells + sinks.filter((l) => l === level).length;
    free = free.filter((from) => level - from <= reach);
    if (wanted > free.length) return false;
    free = [
      ...free.slice(wanted),
      ...new Array<number>(cells * capacity).fill(level),
    ];
  }
  return true;
}

/** Fewest cells of a tree from level 0, by trying all numbers of cells per level up to `most`. */
function bruteTree(
  sinks: number[],
  capacity: number,
  reach: number,
  most: number,
): number {
  const top = Math.max(...sinks);
  const n: number[] = [];
  const search = (level: number, left: number): boolean => {
    if (level === top) {
      return left === 0 && canBeWired(n, sinks, capacity, reach);
    }
    for (n[level] = 0; n[level] <= left; n[level]++) {
      if (search(level + 1, left - n[level])) return true;
    }
    n[level] = 0;
    return false;
  };
  for (let total = 0; total <= most; total++) {
    if (search(1, total)) return total;
  }
  return INFEASIBLE;
}

test("trees are the smallest of all, and are built as counted", () => {
  let [feasible, many] = [0, 0];
  for (let n = 0; n < 800; n++) {
    const k = fold(key(77), n);
    const draw = (what: string, from: number, to: number) =>
      randomInts(fold(k, what), 1, from, to)[0];
    const [size, capacity] = [draw("size", 1, 10), draw("capacity", 2, 5)];
    const [reach, span] = [draw("reach", 1, 5), draw("span", 3, 9)];
    const sinks = [...randomInts(fold(k, "sinks"), size, 1, 1 + span)]
      .sort((a, b) => b - a);
    const what = `sinks ${sinks}, capacity ${capacity}, reach ${reach}`;
    const cells = skippingTreeCells(0, sinks, size, capacity, reach);
    const plain = treeCells(0, sinks, capacity);
    // Hops change the count only, not what is possible.
    assert.is(cells === INFEASIBLE, plain === INFEASIBLE, what);
    if (reach === 1) assert.is(cells, plain, what);
    if (cells === INFEASIBLE) continue;
    feasible++;
    if (size > capacity) many++;
    assert.is(cells, bruteTree(sinks, capacity, reach, cells), what);
    const tree = skippingTree(0, sinks, capacity, reach);
    assert.is(tree.length, cells, what);
    const driven = new Set<number>();
    for (const { level, loads } of tree) {
      assert.ok(loads.length >= 1 && loads.length <= capacity, what);
      for (const load of loads) {
        assert.not.ok(driven.has(load), what);
        driven.add(load);
        const hop = (load < 0 ? tree[~load].level : sinks[load]) - level;
        assert.ok(hop >= 1 && hop <= reach, what);
      }
    }
    if (cells > 0) {
      assert.is(driven.size, size + cells - 1, `${what}: all but the first`);
      assert.not.ok(driven.has(~(cells - 1)), what);
      assert.ok(tree[cells - 1].level <= reach, what);
    }
  }
  assert.ok(feasible > 200 && many > 70, `${feasible}, ${many}`);
});

// Levels ------------------------------------------------------------------------------------------

/** Fewest cells over all levels of the gates at a given depth, ports balanced. */
function bruteLevels(
  { cells, ...netlist }: Netlist,
  depth: number,
  reach: number,
): number {
  const order = topologicalOrder({ cells, ...netlist });
  const sinks: number[][] = cells.map(() => []);
  cells.forEach(({ inputs }, i) => {
    for (const { cell } of inputs) sinks[cell].push(i);
  });
  const levels = new Int32Array(cells.length);
  let best = Infinity;
  const search = (n: number) => {
    if (n === order.length) {
      let total = 0;
      for (let v = 0; v < cells.length; v++) {
        const tree = treeCells(
          levels[v],
          sinks[v].map((w) => levels[w]),
          4,
          reach,
        );
        if (tree === INFEASIBLE) return;
        total += tree;
      }
      best = Math.min(best, total);
      return;
    }
    const v = order[n];
    const { kind, inputs } = cells[v];
    const low = inputs.reduce((l, { cell }) => Math.max(l, levels[cell]), -1);
    const [from, to] = kind === "input"
      ? [0, 0]
      : kind === "output"
      ? [depth + 1, depth + 1]
      : [low + 1, depth];
    for (levels[v] = from; levels[v] <= to; levels[v]++) search(n + 1);
  };
  search(0);
  return best;
}

test("improved levels are optimal where all assignments can be tried", async () => {
  const counts: number[] = [];
  for (const source of [LADDER, SHARED]) {
    const netlist = readVerilog(source);
    for (const maxLevelsPerHop of [1, 2, 3]) {
      const result = await insertBuffers(netlist, {
        maxLevelsPerHop,
        ...SHORT,
      });
      const cells = bufferAndSplitterCount(result);
      assert.is(cells, bruteLevels(netlist, result.depth, maxLevelsPerHop));
      counts.push(cells);
    }
  }
  // Chains of b, c, d to or 4, and 3, or 2, a to and 5: 4 + 3 + 2 + 1 buffers without hops;
  // ceil(g / 2) - 1: 2 + 1 + 1 + 0; ceil(g / 3) - 1: 1 + 1 + 0 + 0.
  assert.equal(counts.slice(0, 3), [10, 4, 2]);
  assert.ok(counts[5] < counts[4] && counts[4] < counts[3], `${counts}`);
});

/** A random netlist with shared signals, all of whose gates are used. */
function randomNetlist(n: number): Netlist {
  const k = fold(key(5), n);
  const [inputs, gates] = randomInts(fold(k, "shape"), 2, 3, 14);
  const lines: string[] = [];
  const names = Array.from({ length: inputs }, (_, i) => `i${i}`);
  const used = new Set<string>();
  for (let g = 0; g < gates; g++) {
    const draws = randomInts(fold(k, g), 4, 0, 1 << 20);
    const from = [draws[1], draws[2]].map((d) => names[d % names.length]);
    for (const name of from) used.add(name);
    lines.push(
      `wire g${g} = ${draws[3] % 2 ? "~" : ""}${from[0]} ${
        draws[0] % 2 ? "&" : "|"
      } ${from[1]};`,
    );
    names.push(`g${g}`);
  }
  const ends = names.slice(inputs).filter((name) => !used.has(name));
  return readVerilog(
    `module r(input ${names.slice(0, inputs).join(", ")}, output ${
      ends.map((name) => `o_${name}`).join(", ")
    }); ${lines.join(" ")} ${
      ends.map((name) => `assign o_${name} = ~${name};`).join(" ")
    } endmodule`,
  );
}

test("fuzz: every method gives legal netlists that compute the same, with fewer cells for longer hops", async () => {
  for (let n = 0; n < 12; n++) {
    const netlist = randomNetlist(n);
    const depths = new Set<number>();
    for (const levels of METHODS) {
      const counts: number[] = [];
      for (const maxLevelsPerHop of [1, 2, 3, 4]) {
        const options = { levels, maxLevelsPerHop, moves: 500, runs: 1 };
        const result = await insertBuffers(netlist, options);
        const what = `netlist ${n}, ${levels}, s ${maxLevelsPerHop}`;
        assert.equal(
          checkLegality(result, options).map(({ message }) => message),
          [],
          what,
        );
        const check = checkSimulation(result, netlist, {
          clockPhases: clockPhasesFor(maxLevelsPerHop),
        });
        assert.ok(check.equal, check.mismatch?.message ?? what);
        counts.push(bufferAndSplitterCount(result));
        if (levels !== "naive") depths.add(result.depth);
      }
      // The levels of these do not depend on s.
      if (levels !== "lp" && levels !== "improved") {
        assert.ok(
          counts.every((c, i) => i === 0 || c <= counts[i - 1]),
          `netlist ${n}, ${levels}: ${counts}`,
        );
      }
    }
    assert.is(depths.size, 1, "hops do not change the depth");
  }
});

test("default: no hops, the same netlist as with 1 and no note", async () => {
  const netlist = readVerilog(SHARED);
  const plain = await insertBuffers(netlist, SHORT);
  assert.equal(
    plain,
    await insertBuffers(netlist, { ...SHORT, maxLevelsPerHop: 1 }),
  );
  assert.equal(plain.notes, []);
  const skipping = await insertBuffers(netlist, {
    ...SHORT,
    maxLevelsPerHop: 2,
  });
  assert.match(skipping.notes[0], "clock of 8 phases");
});

// Verifiers ---------------------------------------------------------------------------------------

/** The netlist with the buffers of one chain removed: what they drove hangs on what drove them. */
function without(netlist: LevelledNetlist, remove: number[]): LevelledNetlist {
  const cells = netlist.cells.map((cell) => ({
    ...cell,
    inputs: cell.inputs.map((c) => ({ ...c })),
  }));
  for (const { inputs } of cells) {
    for (const input of inputs) {
      while (remove.includes(input.cell)) {
        const [{ cell, pin }] = cells[input.cell].inputs;
        [input.cell, input.pin] = [cell, pin];
      }
    }
  }
  const kept = cells.flatMap((_, i) => remove.includes(i) ? [] : [i]);
  const number = new Map(kept.map((i, n) => [i, n]));
  return {
    name: netlist.name,
    cells: kept.map((i) => ({
      ...cells[i],
      inputs: cells[i].inputs.map((c) => ({ ...c, cell: number.get(c.cell)! })),
    })),
    levels: Int32Array.from(kept, (i) => netlist.levels[i]),
  };
}

/** A pin that waits for a gate at level 13, and the way to that gate. */
const LONG = "module m(input a, " +
  Array.from({ length: 13 }, (_, i) => `b${i}`).join(", ") +
  ", output y); assign y = a & (" +
  Array.from({ length: 12 }, (_, i) => `b${i} ${i % 2 ? "&" : "|"} (`).join(
    "",
  ) + "b12" + ")".repeat(12) + "); endmodule";

const chainOf = ({ cells }: LevelledNetlist, name: string) =>
  cells.flatMap((cell, i) =>
    cell.kind === "buffer" && cell.name.startsWith(`${name}_L`) ? [i] : []
  );

async function long(
  maxLevelsPerHop: number,
): Promise<{ netlist: Netlist; good: Insertion }> {
  const netlist = readVerilog(LONG);
  const good = await insertBuffers(netlist, {
    levels: "alap",
    maxLevelsPerHop,
  });
  return { netlist, good };
}

test("negative controls: a hop that is too long is named by legality and simulation", async () => {
  const { netlist, good } = await long(2);
  assert.is(chainOf(good, "a").length, chainCells(good.depth, 2));
  const options = { maxLevelsPerHop: 2 };
  assert.equal(checkLegality(good, options), []);
  assert.ok(checkSimulation(good, netlist, { clockPhases: 8 }).equal);
  for (const buffer of chainOf(good, "a")) {
    const sink = good.cells.find(({ inputs }) =>
      inputs.some(({ cell }) => cell === buffer)
    )!;
    const driver = good.cells[good.cells[buffer].inputs[0].cell];
    const broken = without(good, [buffer]);
    const [problem] = checkLegality(broken, options);
    assert.equal([problem.rule, problem.cell], ["level", sink.name]);
    assert.match(problem.message, "1 to 2 levels above");
    assert.match(problem.message, `driver ${driver.name} at`);
    const { equal, problems } = checkSimulation(broken, netlist, {
      clockPhases: 8,
    });
    assert.not.ok(equal);
    assert.equal(
      [problems[0].cell, problems[0].driver],
      [sink.name, driver.name],
    );
    assert.match(problems[0].message, "lasts for 2 phases only");
  }
  // Hops of two levels under the rules and the clock of one.
  assert.ok(checkLegality(good).some(({ rule }) => rule === "level"));
  const slow = checkSimulation(good, netlist);
  assert.not.ok(slow.equal);
  assert.match(slow.problems[0].message, "one phase only");
});

test("negative control: a hop longer than a cycle keeps the phases right and reads the wrong wave", async () => {
  const { netlist, good } = await long(2);
  const chain = chainOf(good, "a");
  // Four buffers of two levels each: eight levels, one cycle.
  const broken = without(good, chain.slice(1, 5));
  assert.is(
    checkLegality(broken, { maxLevelsPerHop: 2 })[0].rule,
    "level",
    "legality sees the levels",
  );
  const { equal, problems, mismatch } = checkSimulation(broken, netlist, {
    clockPhases: 8,
  });
  assert.not.ok(equal);
  assert.equal(problems, [], "each value is there when it is read");
  assert.match(mismatch!.message, /output y is wrong/);
});

test("a clock with more phases than the hops need is right, too", async () => {
  const { netlist, good } = await long(3);
  for (const clockPhases of [12, 13, 16]) {
    assert.ok(checkSimulation(good, netlist, { clockPhases }).equal);
  }
  assert.not.ok(checkSimulation(good, netlist, { clockPhases: 11 }).equal);
});

test("bad options are refused", async () => {
  const netlist = readVerilog(SHARED);
  const good = await insertBuffers(netlist, SHORT);
  for (const maxLevelsPerHop of [0, 1.5, NaN]) {
    const message = new RegExp(
      `whole number from 1: maxLevelsPerHop ${maxLevelsPerHop}`,
    );
    assert.throws(() => checkLegality(good, { maxLevelsPerHop }), message);
    try {
      await insertBuffers(netlist, { maxLevelsPerHop });
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, message);
    }
  }
  assert.throws(
    () => checkSimulation(good, netlist, { clockPhases: 3 }),
    /whole number from 4: clockPhases 3/,
  );
});

// Flow and table ----------------------------------------------------------------------------------

test("the flow stops after legalisation and refuses a layout before it starts", async () => {
  const source = { text: LADDER, file: "ladder.v" };
  const insertion = { maxLevelsPerHop: 2 };
  const { report, placed } = await superflow(source, {
    insertion,
    stopAfter: "legalisation",
  });
  assert.is(placed, undefined);
  assert.match(report.checks.join("; "), "equal in 8-phase simulation");
  assert.match(report.legalisation!.notes[0], "phase skipping");
  for (const stopAfter of ["placement", "routing"] as const) {
    try {
      await superflow(source, { insertion, stopAfter });
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, /neighbouring rows.*Hop 2/);
    }
  }
});

test("table: naive chains are ceil(g / s) - 1 buffers each", async () => {
  const rows = await phaseSkippingTable(readVerilog(LADDER), {
    levels: "naive",
  });
  // No signal is shared: e, f at 1; gaps of d, c, b, a: 2, 3, 4, 5.
  const gaps = [2, 3, 4, 5];
  assert.equal(
    rows.map(({ buffersAndSplitters }) => buffersAndSplitters),
    [1, 2, 3, 4].map((s) =>
      gaps.reduce((sum, g) => sum + Math.ceil(g / s) - 1, 0)
    ),
  );
  assert.equal(
    rows.map(({ jj, buffersAndSplitters }) => jj - 2 * buffersAndSplitters),
    [30, 30, 30, 30],
    "five gates",
  );
  assert.equal(rows.map(({ clockPhases }) => clockPhases), [4, 8, 12, 16]);
  assert.equal(rows.map(({ latencyCycles }) => latencyCycles), [
    6 / 4,
    6 / 8,
    6 / 12,
    6 / 16,
  ]);
  const shared = await insertBuffers(readVerilog(SHARED), {
    ...SHORT,
    maxLevelsPerHop: 4,
  });
  assert.ok((countCells(shared).splitter2 ?? 0) > 0, "splitters remain");
});

test.run();
