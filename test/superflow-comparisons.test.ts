/** Comparisons of SuperFlow's stages: equal effort, tiny circuits, what tables and figures make of runs. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_LIBRARY } from "../lib/core/aqfp.ts";
import { key } from "../lib/core/rng.ts";
import {
  type ArmSummary,
  type MetricSummary,
  profiles,
  projectRoot,
} from "../lib/core/runs.ts";
import experiment, { type Config } from "../lib/experiments/superflow.ts";
import {
  type BenchFlow,
  figures,
  growthFigure,
  measure,
  tables,
} from "../lib/experiments/superflow.report.ts";
import { insertBuffers } from "../lib/superflow/insertion.ts";
import {
  evaluate,
  gateDepth,
  jjCount,
  type LevelledNetlist,
  levelsOf,
  type Netlist,
  ports,
} from "../lib/superflow/netlist.ts";
import { hpwl, modelOf, place } from "../lib/superflow/placement.ts";
import { placeExact } from "../lib/superflow/place-exact.ts";
import { totalCost } from "../lib/superflow/place-model.ts";
import { synthesise } from "../lib/superflow/synthesis.ts";

/** Of sums of doubles. */
const TOLERANCE = 1e-9;

const TINY = join(projectRoot(), "data/rtl/tiny");
const synthesised = new Map<string, Netlist>();
async function tiny(name: string): Promise<Netlist> {
  const known = synthesised.get(name);
  if (known !== undefined) return known;
  const netlist = await synthesise({ path: join(TINY, `${name}.v`) });
  synthesised.set(name, netlist);
  return netlist;
}

// Tiny circuits ----------------------------------------------------------------------------------

/** All outputs for all inputs, as numbers by port. */
function truthTable(
  netlist: Netlist,
): [Record<string, number>, Record<string, number>][] {
  const inputs = ports(netlist, "input");
  return Array.from({ length: 2 ** inputs.length }, (_, pattern) => {
    const words = Uint32Array.from(inputs, (_, i) => (pattern >> i) & 1);
    const values = evaluate(netlist, words);
    const numbers = (direction: "input" | "output") => {
      const result: Record<string, number> = {};
      for (const i of ports(netlist, direction)) {
        const [, port, index] = /^(\w+)(?:\[(\d+)\])?$/.exec(
          netlist.cells[i].name,
        )!;
        result[port] = (result[port] ?? 0) |
          (values[i] & 1) << Number(index ?? 0);
      }
      return result;
    };
    return [numbers("input"), numbers("output")];
  });
}

test("every circuit of data/rtl/tiny computes what its name says, for all inputs", async () => {
  const ones = (x: number) => x.toString(2).replaceAll("0", "").length;
  const expected: Record<
    string,
    (x: Record<string, number>) => Record<string, number>
  > = {
    adder2: ({ a, b }) => ({ sum: a + b }),
    comparator2: ({ a, b }) => ({
      less: Number(a < b),
      equal: Number(a === b),
    }),
    fulladder: ({ a, b, cin }) => ({
      sum: (a + b + cin) & 1,
      cout: (a + b + cin) >> 1,
    }),
    gray5: ({ a }) => ({ y: a ^ (a >> 1) }),
    majority5: ({ a }) => ({ y: Number(ones(a) > 2) }),
    multiplier2: ({ a, b }) => ({ p: a * b }),
    mux4: ({ d, s }) => ({ y: (d >> s) & 1 }),
    popcount4: ({ a }) => ({ count: ones(a) }),
  };
  const names = readdirSync(TINY).map((file) => file.replace(/\.v$/, ""));
  assert.equal(names.sort(), Object.keys(expected));
  for (const name of names) {
    const netlist = await tiny(name);
    assert.is(netlist.name, name);
    for (const [inputs, outputs] of truthTable(netlist)) {
      assert.equal(outputs, expected[name](inputs), name);
    }
  }
});

test("netlist: levels, depth and junctions by hand", () => {
  const connection = (cell: number, pin = 0) => ({
    cell,
    pin,
    inverted: false,
  });
  const netlist: Netlist = {
    name: "hand",
    cells: [
      { name: "a", kind: "input", inputs: [] },
      { name: "s", kind: "splitter", arity: 2, inputs: [connection(0)] },
      { name: "one", kind: "constant", value: 1, inputs: [] },
      { name: "g", kind: "and", inputs: [connection(1), connection(2)] },
      { name: "b", kind: "buffer", inputs: [connection(3)] },
      { name: "y", kind: "output", inputs: [connection(4)] },
      { name: "z", kind: "output", inputs: [connection(1, 1)] },
    ],
  };
  const { levels } = levelsOf(netlist);
  // The constant stands just before its reader, and both outputs together.
  assert.equal([...levels], [0, 1, 1, 2, 3, 4, 4]);
  assert.is(gateDepth(netlist), 1);
  const { splitter2, constant, and, buffer } = DEFAULT_LIBRARY.cells;
  assert.is(
    jjCount(netlist, DEFAULT_LIBRARY),
    splitter2.jj + constant.jj + and.jj + buffer.jj,
  );
});

// Effort -----------------------------------------------------------------------------------------

/** A circuit on which attempts differ. */
async function popcount(): Promise<LevelledNetlist> {
  return await insertBuffers(await tiny("popcount4"), { key: key(1) });
}

test("effort: the cheapest of the attempts, of which the first is that of effort 1", async () => {
  const netlist = await popcount();
  let differ = 0;
  for (const method of ["taas", "random", "gordian"] as const) {
    for (let seed = 0; seed < 2; seed++) {
      const options = { method, key: key(seed) };
      const costs: number[] = [];
      const placed: Int32Array[] = [];
      const best = place(netlist, {
        ...options,
        effort: 3,
        onAttempt: (attempt, cost) => {
          placed.push(attempt.x);
          costs.push(cost);
          assert.ok(
            Math.abs(totalCost(modelOf(attempt), attempt.x) - cost) < TOLERANCE,
          );
        },
      });
      assert.is(costs.length, 3);
      assert.equal(placed[0], place(netlist, options).x);
      assert.equal(best.x, placed[costs.indexOf(Math.min(...costs))]);
      if (Math.min(...costs) < costs[0]) differ++;
    }
  }
  // Else effort would buy nothing and this test would show nothing.
  assert.ok(differ > 0);
});

test("effort: annealing makes more moves instead of more attempts", async () => {
  const netlist = await popcount();
  let attempts = 0;
  const found = place(netlist, {
    method: "annealing",
    effort: 3,
    onAttempt: () => attempts++,
  });
  assert.is(attempts, 1);
  assert.equal(
    found.x,
    place(netlist, { method: "annealing", annealing: { movesPerCell: 30 } }).x,
  );
  assert.not.equal(found.x, place(netlist, { method: "annealing" }).x);
});

test("effort: what is no positive whole number is refused", async () => {
  const netlist = await popcount();
  for (const effort of [0, -1, 1.5, NaN]) {
    assert.throws(
      () => place(netlist, { effort }),
      (e: Error) =>
        e instanceof RangeError && e.message.includes(`effort ${effort}`),
    );
  }
});

test("optimum: no placer of a tiny circuit is below it, and ours is near", async () => {
  const netlist = await insertBuffers(await tiny("comparator2"), {
    key: key(1),
  });
  const options = {
    timingWeight: 0,
    lengthWeight: 0,
    detail: { pins: "given" },
  } as const;
  const { placed, steps } = await placeExact(netlist, options);
  assert.is(
    hpwl(placed, DEFAULT_LIBRARY),
    steps * DEFAULT_LIBRARY.gridUm,
  );
  for (const method of ["superflow", "barycentre", "random"] as const) {
    const found = hpwl(
      place(netlist, { ...options, method, effort: 2 }),
      DEFAULT_LIBRARY,
    );
    assert.ok(found >= steps * DEFAULT_LIBRARY.gridUm, method);
    if (method === "superflow") {
      assert.ok(found <= 1.2 * steps * DEFAULT_LIBRARY.gridUm);
    }
  }
});

// Arms -------------------------------------------------------------------------------------------

test("arms: what an arm needs is there, for each of its seeds", () => {
  for (const profile of profiles) {
    const arms = new Map(
      experiment.arms(experiment.profiles[profile]).map((arm) => [arm.id, arm]),
    );
    for (const { id, seeds, needs = [] } of arms.values()) {
      for (const need of needs) {
        const needed = arms.get(need);
        assert.ok(needed, `${profile}: ${id} needs ${need}`);
        if (needed.seeds.length > 1) {
          for (const seed of seeds) assert.ok(needed.seeds.includes(seed), id);
        }
      }
    }
  }
});

test("arms: no placer has less effort than ours", () => {
  for (const profile of profiles) {
    const { effort, methods } = experiment.profiles[profile].placement;
    assert.is(effort.superflow, 1);
    for (const method of methods) assert.ok(effort[method] >= 1, method);
  }
});

// Tables and figures of made-up runs -------------------------------------------------------------

function summary(...values: number[]): MetricSummary {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return {
    n: values.length,
    mean,
    sd: 0,
    low: mean,
    high: mean,
    values,
  };
}

function arm(
  id: string,
  config: ArmSummary["config"],
  metrics: Record<string, number[]>,
  timings: Record<string, number> = {},
): ArmSummary {
  const summaries = (list: Record<string, number[]>) =>
    Object.fromEntries(
      Object.entries(list).map(([name, values]) => [name, summary(...values)]),
    );
  return {
    id,
    config,
    seeds: Object.values(metrics)[0].map((_, i) => i + 1),
    metrics: summaries(metrics),
    series: {},
    timings: summaries(
      Object.fromEntries(Object.entries(timings).map(([k, v]) => [k, [v]])),
    ),
    seconds: 1,
  };
}

/** A placement with these lengths, periods and sums of negative slacks; two seeds. */
function placement(
  circuit: string,
  method: string,
  [length, period, slack]: number[],
): ArmSummary {
  return arm(`place/${circuit}/${method}`, { effort: 2 }, {
    hpwlUm: [length - 10, length + 10],
    firstHpwlUm: [length, length + 40],
    longestNetUm: [100, 100],
    shortestPeriodPs: [period, period],
    totalNegativeSlackPs: [slack, slack],
    worstSlackPs: [-1, -1],
  }, { placeSeconds: method === "superflow" ? 2 : 3 });
}

const METHODS = ["superflow", "taas", "gordian", "barycentre"];

/** Two circuits: gains in length of 20 % and -10 %, one with negative slack. */
const MADE_UP: ArmSummary[] = [
  ...[[800, 99, -30], [1000, 100, -60], [1200, 110, -40], [700, 100, -15]]
    .map((values, i) => placement("one", METHODS[i], values)),
  ...[[1100, 100, 0], [1000, 100, 0], [1000, 100, 0], [2200, 100, -10]]
    .map((values, i) => placement("two", METHODS[i], values)),
  ...["one", "two"].map((name) => arm(`balance/${name}`, {}, { cells: [5] })),
  arm("flow/one", {}, {
    verified: [1],
    ...Object.fromEntries(
      [
        "gates",
        "majorityGates",
        "buffersAndSplitters",
        "jj",
        "depth",
        "tracks",
        "tracksLowerBound",
        "vias",
        "wirelengthUm",
        "worstSlackPs",
        "areaMm2",
        "cells",
      ].map((name) => [name, [1]]),
    ),
  }, { totalSeconds: 1 }),
];

const CONFIG: Config = {
  ...experiment.profiles.smoke,
  placement: {
    ...experiment.profiles.smoke.placement,
    methods: ["superflow", "taas", "gordian", "barycentre"],
  },
};

const tableOf = (arms: ArmSummary[], id: string) =>
  tables(arms, CONFIG).find((table) => table.id === id);

test("gains: against each placer and the better of the earlier ones, by hand", () => {
  const rows = tableOf(MADE_UP, "superflow-gains")!.rows;
  // Lengths: 800 against 1000, 1100 against 1000. Slack in all: 30 against 40.
  assert.equal(rows[0], [
    "the better of TAAS-like and GORDIAN-like",
    "5 (-10 to 20)",
    "1 of 2",
    "0.5 (0 to 1)",
    "25.0 (25.0 to 25.0)",
    null,
  ]);
  // Against barycentre: 30 against 15 + 10; circuits -100 % and +100 %.
  const barycentre = rows.find(([name]) => name === "barycentre")!;
  assert.is(barycentre[4], "-20.0 (-100.0 to 100.0)");
  assert.is(barycentre[5], 1.5);
  assert.is(
    measure(MADE_UP)["superflow-wirelength"].value,
    5,
  );
  assert.ok(
    Math.abs(measure(MADE_UP)["superflow-timing"].value - 0.5) < TOLERANCE,
  );
});

test("timing table: only circuits on which an earlier placer misses a window", () => {
  const rows = tableOf(MADE_UP, "superflow-timing")!.rows;
  assert.equal(rows, [["one", -1, -30, -60, -40, -15, 25]]);
});

test("placement table: ranges over seeds, and what one attempt gave", () => {
  const [first] = tableOf(MADE_UP, "superflow-placement")!.rows;
  assert.equal(first.slice(0, 6), [
    "one",
    5,
    "SuperFlow (ours)",
    2,
    "820 (800 to 840)",
    "800 (790 to 810)",
  ]);
});

test("gap table: every circuit, and all of them together", () => {
  const optimum = (name: string) =>
    arm(`optimum/${name}`, {}, { cells: [9], optimumUm: [100] }, {
      exactSeconds: 0.5,
    });
  const gap = (name: string, method: string, ...gapPercent: number[]) =>
    arm(`gap/${name}/${method}`, {}, { gapPercent });
  const { rows, columns } = tableOf([
    ...MADE_UP,
    optimum("small"),
    optimum("smaller"),
    gap("small", "superflow", 0, 2),
    gap("small", "random", 10, 30),
    gap("smaller", "superflow", 0, 0),
    gap("smaller", "random", 4, 4),
  ], "superflow-gap")!;
  assert.equal(columns.slice(4), ["SuperFlow (ours)", "random order"]);
  assert.equal(rows, [
    ["small", 9, 100, 0.5, "1 (0 to 2)", "20 (10 to 30)"],
    ["smaller", 9, 100, 0.5, 0, 4],
    ["all", null, null, null, "0.5 (0 to 2)", "12 (4 to 30)"],
  ]);
});

test("weight figure: relative to weight 0, circuits without a missed window left out", () => {
  const weight = (circuit: string, w: number, [length, slack]: number[]) =>
    arm(`weight/${circuit}/${w}`, { timingWeight: w }, {
      hpwlUm: [length],
      totalNegativeSlackPs: [slack],
      worstSlackPs: [-w],
    });
  const all = figures([
    ...MADE_UP,
    weight("late", 0, [100, -50]),
    weight("late", 1, [110, -25]),
    weight("late", 10, [150, -5]),
    weight("fine", 0, [100, 0]),
    weight("fine", 1, [100, 0]),
  ], CONFIG);
  const { data } = all.find(({ id }) => id === "superflow-weights")!;
  assert.equal(data.map(({ name }) => name), ["late", "late"]);
  assert.equal(data[0].x, [1, 1.1, 1.5]);
  assert.equal(data[0].y, [1, 0.5, 0.1]);
  assert.equal(data[1].y, [-0, -1, -10]);
});

test("growth figure: exponents of made-up powers, and what is faster than n log n", () => {
  const bench: BenchFlow = {
    rows: [10, 100, 1000, 10_000].map((cells, i) => ({
      name: `adder, ${i + 2} bits`,
      cells,
      stages: { synthesis: 1, placement: 0.001 * cells ** 1.5 },
      peakMemoryMb: 2 * cells ** 0.5,
    })),
    provenance: { machine: { cpu: "made up" } },
  };
  bench.rows.push({ ...bench.rows[0], name: "other", cells: 1e6 });
  const [{ caption, data, layout }] = growthFigure(bench);
  // memory from 0 on a linear axis, without a line through it
  const axis = layout.yaxis2 as { type?: string; range: number[] };
  assert.is.not(axis.type, "log");
  assert.is(axis.range[0], 0);
  assert.match(caption, /Adders of 2 to 5 bits/);
  assert.match(caption, /against cells: synthesis 0.00, placement 1.50/);
  assert.match(caption, /memory 0.50/);
  assert.match(caption, /Faster than n log n: placement/);
  // Without the circuit that is no adder.
  assert.equal(data[0].x, [10, 100, 1000, 10_000]);
  const slower = bench.rows.map((row) => ({
    ...row,
    stages: { ...row.stages, placement: row.cells },
  }));
  assert.match(
    growthFigure({ ...bench, rows: slower })[0].caption,
    /No stage grows faster/,
  );
  assert.equal(growthFigure({ ...bench, rows: bench.rows.slice(0, 3) }), []);
});

test.run();
