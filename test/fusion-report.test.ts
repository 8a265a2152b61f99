import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadClaims, verdictRows } from "../lib/core/claims.ts";
import { fold, key, normal } from "../lib/core/rng.ts";
import type { ArmSummary, MetricSummary } from "../lib/core/runs.ts";
import experiment, { type Config } from "../lib/experiments/fusion.ts";
import { METHODS, sourcesOf, TAUS } from "../lib/experiments/fusion.methods.ts";
import {
  failingExperts,
  interference,
  measure,
  reduction,
} from "../lib/experiments/fusion.report.ts";

const config = { ...experiment.profiles.full, domains: ["a", "b"], pools: [] };

const summary = (values: number[]): MetricSummary => ({
  n: values.length,
  mean: values.reduce((x, y) => x + y, 0) / values.length,
  sd: 0,
  low: 0,
  high: 0,
  values,
});

/** An arm with bits per byte [seed][domain]. */
function armOf(id: string, own: object, bits: number[][]): ArmSummary {
  const metrics: Record<string, MetricSummary> = {
    meanBits: summary(bits.map(([a, b]) => (a + b) / 2)),
    "bits.a": summary(bits.map(([a]) => a)),
    "bits.b": summary(bits.map(([, b]) => b)),
  };
  return {
    id,
    config: { ...own },
    seeds: bits.map((_, s) => s + 1),
    metrics,
    series: {},
    timings: {},
    seconds: 1,
  };
}

function setOf(leads: [number, number]): ArmSummary[] {
  const sources = armOf("sources", { prepare: "sources" }, [[2, 2], [2, 2]]);
  sources.metrics["lead.a"] = summary([leads[0], leads[0]]);
  sources.metrics["lead.b"] = summary([leads[1], leads[1]]);
  sources.metrics.parameters = summary([1000]);
  sources.metrics["meanBits.merge-linear"] = summary([2.5, 2.6]);
  sources.metrics["meanBits.ensemble-logits"] = summary([2.3, 2.4]);
  const arm = (method: string, lambda: number, bits: number[][]) =>
    armOf(
      `pure/all/${method}/${lambda}`,
      { method, lambda, pool: "all", blocks: "pure" },
      bits,
    );
  return [
    sources,
    armOf("pure/clm", { method: "clm", lambda: 0.5 }, [[2, 2], [2, 2]]),
    ...[0.5, 0.9].flatMap((lambda) => [
      arm("avgce", lambda, [[2.4, 1.9], [2.42, 1.9]]),
      arm("gate", lambda, [[2.1, 1.9], [2.11, 1.9]]),
      arm("mince", lambda, [[1.9, 1.9], [1.91, 1.92]]),
    ]),
  ];
}

test("interference counts and sums only what is worse", () => {
  const { count, sum } = interference([2, 1.5, 3], [1.75, 2, 3]);
  assert.is(count, 1);
  assert.is(sum, 0.25);
});

test("reduction: by hand, with an exact multiple, and without anything to reduce", () => {
  // b is always half of a: the ratio is certain whatever a is
  const half = reduction([1, 2, 3, 2], [0.5, 1, 1.5, 1]);
  assert.type(half, "object");
  if (typeof half === "string") return;
  for (const x of [half.value, half.low, half.high]) {
    assert.ok(Math.abs(x - 50) < 1e-6, `${x}`);
  }
  // a constant: Fieller's is the plain interval, b = 0.5 +- 4.3027 * 0.1 / sqrt 3
  const plain = reduction([1, 1, 1], [0.4, 0.5, 0.6]);
  assert.type(plain, "object");
  if (typeof plain === "string") return;
  assert.ok(Math.abs(plain.value - 50) < 1e-9);
  const width = 100 * 4.302653 * 0.1 / Math.sqrt(3);
  assert.ok(Math.abs(plain.high - 50 - width) < 1e-3, `${plain.high}`);
  assert.ok(Math.abs(50 - plain.low - width) < 1e-3, `${plain.low}`);
  assert.match(reduction([0, 0], [0, 0.1]) as string, /nothing to reduce/);
  assert.match(
    reduction([0.1, 2], [0, 0.1]) as string,
    /not above 0 beyond its interval/,
  );
});

test("reduction: the interval has the true value in 95 of 100 cases", () => {
  const trials = 800;
  let covered = 0;
  for (let i = 0; i < trials; i++) {
    const own = fold(key(11), i);
    const [shared, x, y] = [0, 1, 2].map((j) => normal(fold(own, j), 5));
    const a = Array.from(shared, (s, k) => 1 + 0.15 * s + 0.1 * x[k]);
    const b = Array.from(shared, (s, k) => 0.4 + 0.1 * s + 0.1 * y[k]);
    const result = reduction(a, b);
    if (typeof result === "string") continue; // counts as missed
    if (result.low <= 60 && 60 <= result.high) covered++;
  }
  // three standard errors of a share of 0.95 are 0.023
  assert.ok(Math.abs(covered / trials - 0.95) < 0.03, `${covered / trials}`);
});

test("claims: measured by hand, each judged", () => {
  const measured = measure(setOf([0.1, 0.2]), config);
  const gain = measured["fusion-fusellm"];
  assert.ok(Math.abs(gain.value - (0.3 + 0.31) / 4) < 1e-9, `${gain.value}`);
  const { value } = measured["fusion-interference"];
  assert.ok(Math.abs(value - 100 * (1 - 0.105 / 0.41)) < 1e-6, `${value}`);
  assert.ok(measured["fusion-mince"].value < 0, "MinCE is better here");
  assert.match(measured["fusion-ensemble"].note!, /ensemble-logits/);
  const rows = verdictRows(loadClaims("fusion")!, measured);
  const verdict = (id: string) =>
    rows.find(({ claim }) => claim.id === id)!.verdict;
  assert.is(verdict("fusion-mince"), "differs");
  assert.is.not(verdict("fusion-fusellm"), "not run");
  assert.is(verdict("fusion-memory"), "trend holds");
});

test("an expert that does not lead on its own domain: every claim refused, by name", () => {
  const arms = setOf([0.1, -0.02]);
  assert.equal(failingExperts(arms[0], config), ["b (-0.020 bits per byte)"]);
  const measured = measure(arms, config);
  const rows = verdictRows(loadClaims("fusion")!, measured);
  for (const { claim, verdict, sentence, recorded } of rows) {
    if (claim.id === "fusion-memory") continue;
    assert.is(verdict, "not run", claim.id);
    assert.is(recorded, null);
    assert.match(sentence, /not ahead there: b \(-0\.020 bits per byte\)/);
  }
});

test("arms: the same seeds for all, ids once, methods and pools of the issue", () => {
  for (const profile of Object.values(experiment.profiles)) {
    const arms = experiment.arms(profile);
    const ids = arms.map(({ id }) => id);
    assert.is(new Set(ids).size, ids.length);
    for (const { id, seeds } of arms) {
      assert.is(seeds.length, id === "data" ? 1 : profile.seeds, id);
    }
  }
  const full = experiment.profiles.full;
  assert.ok(full.domains.length >= 8 && full.seeds >= 3);
  const sizes = full.pools.filter((pool) => pool.startsWith("grown"))
    .map((pool) => sourcesOf(pool, full.domains).length);
  assert.equal(sizes, [2, 3, 4, 5, 6, 7, 8]);
  for (const tau of TAUS) assert.ok(`gate-tau${tau}` in METHODS);
  assert.throws(() => sourcesOf("grown-9", full.domains), /grown-8: grown-9/);
  assert.throws(
    () =>
      experiment.arms({ ...full, methods: ["magic"] } as Config & typeof full),
    /one of clm.*: magic/,
  );
});

test.run();
