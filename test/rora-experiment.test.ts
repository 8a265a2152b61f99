import { test } from "uvu";
import * as assert from "uvu/assert";
import experiment, { type Config } from "../lib/experiments/rora.ts";
import { key } from "../lib/core/rng.ts";
import type {
  ArmSummary,
  Metrics,
  MetricSummary,
  RunContext,
} from "../lib/core/runs.ts";
import { summariseMetric } from "../lib/core/runs.ts";
import { ready } from "../lib/core/tensor.ts";

await ready();

// Reports on made-up summaries, whose gains are known --------------------------------------------

const config: Config = {
  ...experiment.profiles.full,
  ranks: [2, 8, 32, 128],
  doraRanks: [8, 128],
  prunedRanks: { pruned: [2, 32], recovered: [2, 32] },
  seeds: 3,
};

/** Accuracy in %, without what a seed adds. */
const ACCURACY: Record<string, (rank: number) => number> = {
  frozen: () => 40,
  full: () => 70,
  lora: () => 50,
  rora: (rank) => 50 + 2 * Math.log2(rank), // 2 points per doubling
  dora: () => 51,
  "dora-sqrt": () => 52,
};
/** Far larger than the gains: only pairing by seed sees through it. */
const SEED_NOISE = [-20, 0, 20];
const QUESTIONS = 100;

function summary(values: number[]): MetricSummary {
  return summariseMetric(values);
}

/** What the full experiment would leave if accuracies and losses were those above. */
function madeUp(): ArmSummary[] {
  return experiment.arms(config).map(({ id, config: arm, seeds }) => {
    const { method, rank, learningRate } = arm as {
      method: string;
      rank: number;
      learningRate: number;
    };
    const empty: ArmSummary = {
      id,
      config: arm,
      seeds,
      metrics: {},
      series: {},
      timings: {},
      seconds: 1,
    };
    if (id === "gradient") {
      const metrics: Record<string, MetricSummary> = {};
      for (const r of config.gradient.ranks) {
        const batch = seeds.map((s) => 1 + s);
        metrics[`rora.r${r}`] = summary(batch);
        metrics[`lora.r${r}`] = summary(batch.map((b) => b / Math.sqrt(r)));
      }
      return { ...empty, metrics };
    }
    if (id === "prune") {
      const names = ["dense", "pruned", "recovered"].flatMap((name) => [
        `${name}Parameters`,
        `${name}Perplexity`,
      ]);
      const all = [...names, "prunedFraction", "recoveryTokens"];
      const metrics = Object.fromEntries(all.map((n) => [n, summary([0.5])]));
      return { ...empty, metrics };
    }
    if (method === undefined) return empty;
    const accuracy = ACCURACY[method](rank);
    // Best at 4e-3 by validation loss for LoRA, at 1e-3 for the others; test says the opposite.
    const best = method === "lora" ? 4e-3 : 1e-3;
    const loss = learningRate === best ? 2 : 3;
    const right = Array.from(
      { length: QUESTIONS },
      (_, q) => q < accuracy ? 1 : 0,
    );
    return {
      ...empty,
      metrics: {
        accuracyPercent: summary(
          seeds.map((s) => accuracy + SEED_NOISE[s - 1]),
        ),
        validationLoss: summary(seeds.map(() => loss)),
        testLoss: summary(seeds.map(() => 5 - loss)),
        testPerplexity: summary(seeds.map(() => Math.exp(5 - loss))),
        gradNormBFirst: summary(seeds.map(() => 1)),
        gradNormBLast: summary(seeds.map(() => 1)),
        gradNormALast: summary(seeds.map(() => 1)),
        deltaNorm: summary(seeds.map(() => Math.max(1, rank))),
        adapterBytes: summary(seeds.map(() => 4 * rank)),
      },
      series: {
        right: { n: seeds.length, mean: right, sd: right.map(() => 0) },
      },
    };
  });
}

const arms = madeUp();
const measured = experiment.measure(arms, config);
const near = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) < 1e-6, `${actual} is not ${expected}`);

test("gains are means over the shared ranks, paired by seed", () => {
  // Dense: ranks 8 and 128, RoRA 56 and 64, so 60 on average.
  near(measured["rora-dense-lora"].value, 10);
  near(measured["rora-dense-dora"].value, 9);
  assert.match(measured["rora-dense-lora"].note!, /ranks 8, 128/);
  // Pruned: ranks 2 and 32, RoRA 52 and 60.
  near(measured["rora-pruned-lora"].value, 6);
  near(measured["rora-pruned-dora"].value, 5);
});

test("the interval is that of the questions where the seeds agree", () => {
  // Paired by seed nothing varies; over questions 10 in 100 differ: sd about 3 points.
  const { low, high } = measured["rora-dense-lora"];
  assert.ok(low > 3 && low < 7, `${low}`);
  assert.ok(high > 13 && high < 18, `${high}`);
});

test("slopes along the rank: RoRA gains 2 points per doubling, LoRA none", () => {
  near(measured["rora-rank-trend"].value, 2);
  near(measured["rora-lora-limited"].value, 2);
  near(measured["rora-gradient-rank"].value, 0);
  assert.match(measured["rora-gradient-rank"].note!, /exponent is -0\.500/);
});

test("the rate of a method is chosen by validation loss, and marked at the edge", () => {
  const table = experiment.tables!(arms, config)
    .find(({ id }) => id === "rora-survival")!;
  const row = table.rows.find(([name, rank, kind]) =>
    name === "RoRA - LoRA" && rank === 8 && kind === "tuned"
  )!;
  assert.equal(row.slice(3, 5), ["0.001 (smallest tried)", "0.004"]);
  const fixed = table.rows.find(([name, rank, kind]) =>
    name === "RoRA - LoRA" && rank === 8 && kind === "fixed"
  )!;
  assert.is(fixed[5], 6); // accuracy of 56 against 50
  assert.is(fixed[6], 1); // test loss 3 against 2
});

test("figures show each method's means at its ranks", () => {
  const figure = experiment.figures!(arms, config)
    .find(({ id }) => id === "rora-accuracy-dense")!;
  const rora = figure.data.find(({ name }) => `${name}`.startsWith("RoRA"))!;
  assert.equal(rora.y, [52, 56, 60, 64]);
});

test("a changed configuration is checked before anything runs", () => {
  const arms = (change: Partial<Config>) => () =>
    experiment.arms({ ...config, ...change });
  assert.throws(arms({ alpha: 0 }), /alpha must be a finite number above 0/);
  assert.throws(arms({ learningRate: NaN }), /learningRate must be/);
  assert.throws(
    arms({ ranks: [2, 8, 512] }),
    /from 1 to the width 256 of the model: rank 512/,
  );
  assert.throws(arms({ ranks: [2, 8] }), /at least 3 ranks: ranks 2, 8/);
  assert.throws(arms({ doraRanks: [4] }), /must share a rank/);
  assert.throws(arms({ model: "huge" }), /must have the base model: huge/);
});

// Runs -----------------------------------------------------------------------------------------------

/** A context that keeps artefacts in memory. */
function context(stored: Map<string, Uint8Array>, arm: string): RunContext {
  return {
    progress() {},
    log() {},
    timing() {},
    seconds: () => 0,
    cpuSeconds: () => 0,
    data() {},
    writeArtifact: (name, bytes) => void stored.set(`${arm}/${name}`, bytes),
    readArtifact: (from, name) => stored.get(`${from}/${name}`)!,
  };
}

/** A text of the pretraining kind, tokenised, and one question about it. */
async function data(answer: number) {
  const stored = new Map<string, Uint8Array>();
  const smoke = { ...experiment.profiles.smoke };
  const [dataArm] = experiment.arms(smoke);
  await experiment.run(dataArm.config, key(1), context(stored, "data"));
  const question = {
    id: "q",
    context: "He was elected President of the United",
    choices: [" States", " apple", " seven", " slowly"],
    answer,
    sources: [],
  };
  stored.set(
    "data/questions.json",
    new TextEncoder().encode(JSON.stringify([question])),
  );
  return stored;
}

function smokeArm(id: string) {
  return experiment.arms(experiment.profiles.smoke)
    .find((arm) => arm.id === id)!.config;
}

test("a question is right if the context speaks for its true continuation", async () => {
  const run = async (answer: number): Promise<Metrics> => {
    const stored = await data(answer);
    return experiment.run(
      smokeArm("dense/frozen"),
      key(1),
      context(stored, "x"),
    );
  };
  assert.is((await run(0)).accuracyPercent, 100);
  assert.is((await run(2)).accuracyPercent, 0);
});

test("the same key gives the same metrics, another key others; RoRA's first gradient is LoRA's times sqrt(r)", async () => {
  const stored = await data(0);
  const run = (id: string, seed: number) =>
    experiment.run(smokeArm(id), key(seed), context(stored, "x"));
  const first = await run("dense/rora/r8/lr0.001", 1);
  assert.equal(await run("dense/rora/r8/lr0.001", 1), first);
  const other = await run("dense/rora/r8/lr0.001", 2);
  assert.is.not(other.testLoss, first.testLoss);
  const lora = await run("dense/lora/r8/lr0.001", 1);
  const ratio = (first.gradNormBFirst as number) /
    (lora.gradNormBFirst as number);
  assert.ok(Math.abs(ratio - Math.sqrt(8)) < 1e-3, `${ratio}`);
  // The same batch at the first step, whatever the method.
  assert.is((lora.lossCurve as number[])[0], (first.lossCurve as number[])[0]);
});

test.run();
