import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Config,
  NEEDED,
} from "../lib/experiments/agent-distillation.methods.ts";
import experiment, {
  normalizeReasoning,
  wordF1,
} from "../lib/experiments/agent-distillation.ts";
import { checkMeasured, loadClaims } from "../lib/core/claims.ts";
import { key } from "../lib/core/rng.ts";
import {
  type Arm,
  type ArmSummary,
  type Metrics,
  type RunContext,
  summariseMetric,
} from "../lib/core/runs.ts";
import { ready } from "../lib/core/tensor.ts";

await ready();

test("reasoning: case and numbers do not count, words count as often as they occur", () => {
  assert.is(
    normalizeReasoning("Hold mug 1 ,  next bed 2"),
    "hold mug , next bed",
  );
  assert.is(normalizeReasoning(null), "");
  assert.is(wordF1("a b b", "a b c"), 2 / 3);
  assert.is(wordF1("", "a"), 0);
  assert.is(wordF1("", ""), 1);
});

test("arms: students of a world read their teacher, and all arms have the same training", () => {
  for (const profile of ["smoke", "quick", "full"] as const) {
    const config = experiment.profiles[profile] as Config;
    const arms = experiment.arms(config);
    assert.is(new Set(arms.map(({ id }) => id)).size, arms.length);
    const students = arms.filter(({ id }) => !id.endsWith("/teacher"));
    for (const { id, config: own, needs, seeds } of students) {
      assert.equal(needs, [`${own.world}/teacher`]);
      const first = students.find(({ config }) => config.world === own.world)!;
      assert.equal(own.training, first.config.training);
      const claimed = NEEDED.some((method) =>
        id.startsWith(`${own.world}/${method}/`)
      );
      const more = claimed ? config.moreSeeds : 0;
      assert.is(seeds.length, config.seeds + more, id);
    }
  }
  const config = experiment.profiles.smoke as Config;
  assert.throws(
    () => experiment.arms({ ...config, worlds: ["castle"] }),
    /a world must be one of .*: castle/,
  );
  assert.throws(
    () => experiment.arms({ ...config, methods: { house: ["flat"] } }),
    /need the method/,
  );
});

/** Runs arms in this process. */
function runHere(arms: Arm[]): ArmSummary[] {
  const files = new Map<string, Uint8Array>();
  return arms.map(({ id, config, seeds }) => {
    const context: RunContext = {
      progress() {},
      log() {},
      timing() {},
      seconds: () => 0,
      cpuSeconds: () => 0,
      data() {},
      writeArtifact: (name, bytes) => void files.set(`${id}/${name}`, bytes),
      readArtifact: (arm, name) => files.get(`${arm}/${name}`)!,
    };
    const runs = seeds.map((seed) =>
      experiment.run(config, key(seed), context) as Metrics
    );
    const names = Object.keys(runs[0]);
    const isSeries = (name: string) => Array.isArray(runs[0][name]);
    return {
      id,
      config,
      seeds,
      metrics: Object.fromEntries(
        names.filter((name) => !isSeries(name)).map((name) => [
          name,
          summariseMetric(runs.map((run) => run[name] as number)),
        ]),
      ),
      series: Object.fromEntries(
        names.filter(isSeries).map((name) => [name, {
          n: runs.length,
          mean: runs[0][name] as number[],
          sd: (runs[0][name] as number[]).map(() => 0),
        }]),
      ),
      timings: {},
      seconds: 1,
    };
  });
}

test("runs: every arm of the smoke profile in each world, and reports that measure what claims there are", () => {
  const full = experiment.profiles.full as Config;
  const config: Config = {
    ...(experiment.profiles.smoke as Config),
    worlds: full.worlds,
    methods: full.methods,
    lambdas: [2],
  };
  assert.ok(config.worlds.length > 1);
  const arms = runHere(experiment.arms(config));
  const teachers = arms.filter(({ id }) => id.endsWith("/teacher"));
  assert.is(teachers.length, config.worlds.length);
  for (const { id, metrics } of teachers) {
    assert.is(metrics.expertPercent.mean, 100, id);
    assert.ok(metrics.randomPercent.mean < 15, id);
  }
  for (const { id, metrics } of arms) {
    for (const [name, { mean }] of Object.entries(metrics)) {
      assert.ok(Number.isFinite(mean), `${id} ${name} ${mean}`);
    }
  }
  const measured = experiment.measure(arms, config);
  const file = loadClaims("agent-distillation")!;
  checkMeasured(file, measured);
  // No teacher of four steps is good: all worlds count, and that is said. With one good teacher, only its world.
  assert.match(measured["sad-spans"].note!, /teachers below 90 %/);
  const better = arms.map((arm) =>
    arm.id === "house/teacher"
      ? {
        ...arm,
        metrics: { ...arm.metrics, successPercent: summariseMetric([95]) },
      }
      : arm
  );
  const { note } = experiment.measure(better, config)["sad-spans"];
  assert.match(note!, /, house, .*; shop, facts left out: teacher below 90 %/);
  const titles = experiment.tables!(arms, config).map(({ title }) => title);
  assert.is(new Set(titles).size, titles.length);
  for (const figure of experiment.figures!(arms, config)) {
    assert.ok(figure.data.length > 0, figure.id);
  }
});

test.run();
