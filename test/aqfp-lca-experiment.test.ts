/** AQFP life cycle: arms of the experiment at small scale, and what the report makes of them. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { claimsPath, loadClaims } from "../lib/core/claims.ts";
import { toSvg } from "../lib/core/figure.ts";
import { key } from "../lib/core/rng.ts";
import {
  type Arm,
  type ArmSummary,
  type Metrics,
  type RunContext,
} from "../lib/core/runs.ts";
import experiment, {
  type Config,
  FLIPS,
  MAPS,
} from "../lib/experiments/aqfp-lca.ts";

/** Counts as of the inventory, so that no synthesis is needed. */
const COUNTS = { alu_junctions: 15490, alu_gates: 1374, alu_phases: 36 };

const config: Config = {
  ...experiment.profiles.smoke,
  draws: 200,
  sobol: 16,
  steps: 3,
  places: ["FRA", "IND"],
};

const context = {
  progress: () => {},
  log: () => {},
  timing: () => {},
  cpuSeconds: () => 0,
  readArtifact: () => new TextEncoder().encode(JSON.stringify(COUNTS)),
} as unknown as RunContext;

function summaryOf(arm: Arm, metrics: Metrics): ArmSummary {
  const numbers = Object.entries(metrics).filter(([, v]) => !Array.isArray(v));
  const lists = Object.entries(metrics).filter(([, v]) => Array.isArray(v));
  return {
    ...arm,
    metrics: Object.fromEntries(numbers.map(([name, value]) => {
      const mean = value as number;
      return [name, {
        n: 1,
        mean,
        sd: 0,
        low: mean,
        high: mean,
        values: [mean],
      }];
    })),
    series: Object.fromEntries(
      lists.map((
        [name, mean],
      ) => [name, { n: 1, mean: mean as number[], sd: [] }]),
    ),
    timings: {},
    seconds: 0,
  };
}

const arms: ArmSummary[] = [];
for (const arm of experiment.arms(config)) {
  const metrics = arm.id === "netlist"
    ? { ...COUNTS, majorityGates: 1479, cells: 4900, verified: 1 }
    : await experiment.run(arm.config, key(1), context);
  arms.push(summaryOf(arm, metrics));
}
const armOf = (id: string) => arms.find((arm) => arm.id === id)!.metrics;

test("every claim is measured, with its interval around its value", () => {
  const { claims } = loadClaims("aqfp-lca", claimsPath("aqfp-lca"))!;
  const measured = experiment.measure(arms, config);
  assert.equal(
    claims.map(({ id }) => id).sort(),
    Object.keys(measured).sort(),
  );
  for (const { value, low, high } of Object.values(measured)) {
    assert.ok(low < value && value < high, `${low} ${value} ${high}`);
  }
});

test("the parts of an AQFP's life add up to its total", () => {
  const metrics = armOf("chain/throughput");
  const parts = Object.entries(metrics)
    .filter(([name]) => name.startsWith("part|"))
    .reduce((sum, [, { mean }]) => sum + mean, 0);
  const total = metrics.total.mean;
  assert.ok(Math.abs(parts - total) < 1e-9 * total, `${parts} ${total}`);
});

test("the recorded chain has no loops", () => {
  const edges = Object.keys(armOf("chain/throughput"))
    .filter((name) => name.startsWith("edge|"))
    .map((name) => name.split("|").slice(1));
  let left = edges;
  for (;;) {
    const fed = new Set(left.map(([, to]) => to));
    const next = left.filter(([from]) => fed.has(from));
    if (next.length === left.length) break;
    left = next;
  }
  assert.equal(left, []);
  assert.ok(edges.length > 40);
});

test("assumptions that favour a side move the ratio to it", () => {
  const metrics = armOf("flips/throughput");
  const of = (name: string) => metrics[`${name}|total`].mean;
  const base = of("as assumed");
  for (const name of Object.keys(FLIPS)) assert.ok(of(name) > 0, name);
  assert.ok(of("all that favours AQFP") > 100 * base);
  assert.ok(of("all that favours CMOS") < base / 100);
  assert.ok(of("2.2e5 cells/mm2") > of("1e4 cells/mm2"));
  assert.ok(of("whole small cooler") < 1e-5);
  // a ninth of the throughput: nine cycles of four phases
  const single = metrics["a single thread of dependent operations|use"].mean;
  const use = metrics["as assumed|use"].mean;
  assert.ok(Math.abs(single - use / 9) < 1e-9 * use);
});

test("longer service never makes the equal-throughput ratio worse", () => {
  const { series } = arms.find(({ id }) => id === "map/throughput")!;
  const { mean } = series["cooling total"]; // rows: cooling, columns: years
  // At the best cooling, use counts for AQFP.
  for (let i = 1; i < config.steps; i++) assert.ok(mean[i] > mean[i - 1]);
  assert.is(mean.length, config.steps ** 2);
  assert.is(Object.keys(series).length, 3 * Object.keys(MAPS).length);
});

test("tables have finite cells, figures can be drawn", () => {
  for (const { id, columns, rows } of experiment.tables!(arms, config)) {
    assert.ok(rows.length > 0, id);
    for (const row of rows) {
      assert.is(row.length, columns.length, id);
      for (const cell of row) {
        assert.ok(typeof cell === "string" || Number.isFinite(cell), id);
      }
    }
  }
  const figures = experiment.figures!(arms, config);
  assert.is(new Set(figures.map(({ id }) => id)).size, figures.length);
  const chain = figures.find(({ id }) => id === "aqfp-lca-sankey")!;
  assert.match(toSvg(chain), /class="sankey"/);
});

test.run();
