/** What the EdgeQAT runs say: measurements and verdicts of hand-made arms, codes and sizes by hand. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { judge, loadClaims } from "../lib/core/claims.ts";
import { type ArmSummary, summariseMetric } from "../lib/core/runs.ts";
import { ready, tf } from "../lib/core/tensor.ts";
import {
  attentionMap,
  channelCurve,
  codeShares,
  LLAMA_58M,
  sizeBytes,
} from "../lib/experiments/edgeqat.details.ts";
import experiment, {
  averageBits,
  type Config,
  type VariantName,
} from "../lib/experiments/edgeqat.ts";
import {
  bootstrapSentences,
  figures,
  measure,
  tables,
} from "../lib/experiments/edgeqat.report.ts";

await ready();

const config = experiment.profiles.full;

interface Seen {
  variant: VariantName;
  /** Per seed. */
  accuracy: number[];
  loss: number[];
  /** Of the causal evaluation, per seed. */
  causal?: number[];
  /** Default 4. */
  bits?: number;
  /** Test loss of each window. */
  windows?: number[];
  /** Perplexity on whole numbers, per seed; that of fake quantisation is 30. */
  engine?: number[];
}

/** 400 pairs of which the given share is right, the first ones. */
function arm(
  id: string,
  { variant, accuracy, loss, causal, bits = 4, windows, engine }: Seen,
): ArmSummary {
  const summary = summariseMetric;
  const share = accuracy.reduce((a, b) => a + b, 0) / accuracy.length / 100;
  return {
    id,
    seeds: accuracy.map((_, s) => s + 1),
    config: {
      variant,
      bits: { weight: variant === "float" ? 16 : 4, activation: 4 },
    },
    metrics: {
      accuracyPercent: summary(accuracy),
      testLoss: summary(loss),
      testPerplexity: summary(loss.map(Math.exp)),
      validationLoss: summary(loss),
      mapLikeness: summary([0.9]),
      varianceQ: summary([1]),
      averageBits: summary(accuracy.map(() => bits)),
      sizeBytes: summary([2e6]),
      ...(causal === undefined ? {} : {
        causalTestLoss: summary(causal),
        causalTestPerplexity: summary(causal.map(Math.exp)),
        causalAverageBits: summary([5]),
      }),
      ...(engine === undefined ? {} : {
        engineTestPerplexity: summary(engine),
        fakeTestPerplexity: summary(engine.map(() => 30)),
      }),
    },
    series: {
      right: {
        n: accuracy.length,
        mean: Array.from({ length: 400 }, (_, i) => i < 400 * share ? 1 : 0),
        sd: new Array(400).fill(0),
      },
      ...(windows === undefined ? {} : {
        testLossByWindow: {
          n: accuracy.length,
          mean: windows,
          sd: windows.map(() => 0),
        },
      }),
    },
    timings: {},
    seconds: 1,
  };
}

const arms = [
  arm("float", {
    variant: "float",
    accuracy: [74],
    loss: [3.2],
    engine: [24],
  }),
  arm("w4a4/both", {
    variant: "both",
    accuracy: [72, 72.2, 71.8],
    loss: [3.5, 3.6, 3.4],
    engine: [31, 32, 33],
  }),
  arm("w4a4/pact", {
    variant: "pact",
    accuracy: [60, 60.2, 59.8],
    loss: [5, 5, 5],
  }),
  arm("w4a4/llm-qat", {
    variant: "llm-qat",
    accuracy: [72, 72.1, 71.9],
    loss: [3.6, 3.7, 3.5],
  }),
  arm("w4a4/base", {
    variant: "base",
    accuracy: [71, 71, 71],
    loss: [3.6, 3.71, 3.49],
  }),
  arm("w4mix0.5/whole", {
    variant: "base",
    accuracy: [72, 72, 72],
    loss: [3.3, 3.4, 3.2],
    bits: 6.25,
    causal: [3.4, 3.51, 3.29],
  }),
  arm("w4a6/base", {
    variant: "base",
    accuracy: [72, 72, 72],
    loss: [3.1, 3.2, 3.0],
    bits: 6,
  }),
  arm("w4a7/base", {
    variant: "base",
    accuracy: [72, 72, 72],
    loss: [3.02, 3.12, 2.92],
    bits: 7,
  }),
];

function verdictOf(id: string, seen: ArmSummary[] = arms): string {
  const claim = loadClaims("edgeqat")!.claims.find((claim) => claim.id === id);
  assert.ok(claim, id);
  return judge(claim, measure(seen, config as Config)).verdict;
}

test("measurements are the differences of the arms that the claims name", () => {
  const measured = measure(arms, config as Config);
  const near = (id: string, value: number) =>
    assert.ok(
      Math.abs(measured[id].value - value) < 1e-9,
      `${id}: ${measured[id].value}`,
    );
  near("edgeqat-w4a4-pact", 12);
  near("edgeqat-w4a4-float", -2);
  near("edgeqat-losses", 0.1); // without minus with: 3.6 - 3.5
  // Uniform at 6.25 bits minus mixed: 0.75 3.1 + 0.25 3.02 - 3.3.
  near("edgeqat-mixed-uniform", -0.22);
  assert.match(
    measured["edgeqat-mixed-uniform"].note!,
    /^0\.75 of w4a6\/base and 0\.25 of w4a7\/base minus .* 6\.250 bits/,
  );
  const without = arms.filter(({ id }) => id !== "w4a7/base");
  assert.not("edgeqat-mixed-uniform" in measure(without, config as Config));
  assert.not.ok("edgeqat-w4a4-nipq" in measured); // no such arm
  // Same mean and the same pairs right: no gain either way.
  assert.ok(measured["edgeqat-w4a4-llmqat"].low < 0);
  assert.ok(measured["edgeqat-w4a4-llmqat"].high > 0);
});

test("which windows and sentences are asked widens the seeds' interval in quadrature", () => {
  const windows = [3.5, 3.7, 3.2, 3.9, 3.4, 3.6, 3.8, 3.3];
  const of = (id: string, windows: number[]) =>
    arm(id, {
      variant: "both",
      accuracy: [72, 72.2],
      loss: [3.5, 3.6],
      windows,
    });
  const gapOf = (a: ArmSummary, b: ArmSummary) =>
    measure([a, b], config as Config)["edgeqat-losses"];
  const spread = windows.map((loss, w) => loss + (w % 2 === 0 ? 0.3 : -0.3));
  // Same losses at every seed: without windows there is no width.
  const plain = gapOf(
    arm("w4a4/both", { variant: "both", accuracy: [72], loss: [3.5] }),
    arm("w4a4/base", { variant: "both", accuracy: [72], loss: [3.5] }),
  );
  assert.is(plain.high - plain.low, 0);
  const even = gapOf(of("w4a4/both", windows), of("w4a4/base", windows));
  assert.is(even.high - even.low, 0);
  const wide = gapOf(of("w4a4/both", windows), of("w4a4/base", spread));
  // sd 0.3 over 8 windows: half-width near 1.96 0.3 / sqrt(8) = 0.21.
  assert.ok(Math.abs((wide.high - wide.low) / 2 - 0.21) < 0.04);
  assert.is(wide.value, 0);
  assert.match(wide.note!, /2 seeds, paired, 8 windows/);
});

test("sentences are drawn whole, and phenomena have equal weight", () => {
  // One phenomenon of two pairs, one of 20, all of different sentences.
  const values = [0, 100, ...new Array(20).fill(50)];
  const phenomena = values.map((_, i) => i < 2 ? 0 : 1);
  const apart = bootstrapSentences(values, values.map((_, i) => i), phenomena);
  assert.is(apart.value, 50);
  // The phenomenon of two pairs is 0, 50 or 100, and half of the mean.
  assert.equal([apart.low, apart.high], [25, 75]);
  // Ten sentences with two pairs each vary as ten pairs do, not as twenty.
  const twice = Array.from({ length: 20 }, (_, i) => i < 10 ? 0 : 100);
  const one = twice.map(() => 0);
  const pairs = bootstrapSentences(twice, twice.map((_, i) => i >> 1), one);
  const single = bootstrapSentences(twice, twice.map((_, i) => i), one);
  const width = ({ low, high }: { low: number; high: number }) => high - low;
  assert.ok(Math.abs(width(pairs) / width(single) / Math.SQRT2 - 1) < 0.15);
  // The arm of pairs numbers them.
  const data = arm("pairs", { variant: "float", accuracy: [0], loss: [0] });
  const series = (mean: number[]) => ({ n: 1, mean, sd: mean });
  data.series = {
    pairSentence: series(Array.from({ length: 400 }, (_, i) => i % 40)),
    pairPhenomenon: series(new Array(400).fill(0)),
  };
  const gapOf = (seen: ArmSummary[]) =>
    width(measure(seen, config as Config)["edgeqat-w4a4-pact"]);
  assert.not(gapOf([...arms, data]) === gapOf(arms));
});

test("average bits count the first attention, which has 8 for all", () => {
  const important = [[1, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]]
    .map((row) => [Uint8Array.from(row)]);
  // Shares before 1, 1/2, 1/4; own 1/2, 1/4, 1.
  assert.is(
    averageBits({ activationBits: { importantRatio: 0.5 } }, important),
    4 + 4 * (1 + 0.5 + 0.25 + 0.5 + 0.25 + 1) / 6,
  );
  assert.is(averageBits({ activationBits: 6 }, []), 6);
});

test("verdicts follow, and turn round when two arms are exchanged", () => {
  assert.is(verdictOf("edgeqat-losses"), "trend holds");
  assert.is(verdictOf("edgeqat-mixed-uniform"), "differs");
  assert.is(verdictOf("edgeqat-w4a4-llmqat"), "differs");
  const swapped = arms.map((arm) => ({
    ...arm,
    id: ({ "w4a4/both": "w4a4/base", "w4a4/base": "w4a4/both" })[arm.id] ??
      arm.id,
  }));
  assert.is(verdictOf("edgeqat-losses", swapped), "differs");
});

test("sizes: the table's ratios need embeddings and head, the released code's are smaller", () => {
  assert.is(sizeBytes(LLAMA_58M, 16), 2 * 58_343_936); // the card's count
  assert.is(verdictOf("edgeqat-size-w4"), "match");
  assert.is(verdictOf("edgeqat-size-w8"), "match");
  // 114 matrices, 33 norms of 512.
  const norms = 33 * 512;
  assert.is(
    sizeBytes(LLAMA_58M, 8, "all"),
    58_343_936 + norms + 114 * 2,
  );
  // Blocks: 16 (4 512^2 + 3 512 1024) = 41,943,040 weights in 112 matrices.
  const blocks = 41_943_040;
  assert.is(
    sizeBytes(LLAMA_58M, 4),
    blocks / 2 + 2 * (58_343_936 - blocks) + 112 * 2,
  );
});

/** Seconds of reading, for three processes. */
function speedArm(seconds: Record<string, number[]>): ArmSummary {
  const names = Object.keys(seconds);
  const per = (name: string, phase: string) =>
    [`${name}.${phase}Seconds`, summariseMetric(seconds[name])] as const;
  return {
    ...arm("speed", { variant: "float", accuracy: [0], loss: [0] }),
    config: {},
    metrics: Object.fromEntries(
      names.map((name) => [`${name}.modelBytes`, summariseMetric([2e6])]),
    ),
    timings: Object.fromEntries(
      names.flatMap((name) => [per(name, "prefill"), per(name, "decode")]),
    ),
  };
}

test("speeds are ratios by process, and turn round when two engines are exchanged", () => {
  const seconds = {
    float: [0.4, 0.44, 0.36],
    w4a8: [0.2, 0.22, 0.18],
    "w4mix0.5": [0.25, 0.27, 0.23],
    w4a4: [0.1, 0.11, 0.09],
  };
  const timed = [...arms, speedArm(seconds)];
  const measured = measure(timed, config as Config);
  assert.ok(Math.abs(measured["edgeqat-device"].value - 4) < 1e-9);
  assert.is(verdictOf("edgeqat-device", timed), "trend holds");
  assert.is(verdictOf("edgeqat-device-mixed", timed), "differs"); // 0.8: mixing is slower
  const other = speedArm({
    ...seconds,
    w4a8: seconds["w4mix0.5"],
    "w4mix0.5": seconds.w4a8,
  });
  assert.is(verdictOf("edgeqat-device-mixed", [...arms, other]), "trend holds");
  const table = tables(timed, config as Config).find(({ id }) =>
    id === "edgeqat-speed"
  );
  assert.equal(table!.rows.map(([name]) => name), Object.keys(seconds));
  const [plain, mix] = ["w4a8", "w4mix0.5"].map((name) =>
    table!.rows.find((row) => row[0] === name)!
  );
  assert.ok(plain.every((cell) => cell !== null));
  assert.equal(mix.map((cell) => cell === null), [
    false,
    false,
    true,
    false,
    true,
    false,
  ]);
  const pareto = figures(timed, config as Config).at(-1)!;
  assert.is(pareto.id, "edgeqat-pareto");
  assert.match(JSON.stringify(pareto.data), /\[32\]/); // the engine's mean, not that of fake quantisation
});

test("shares of codes by hand; a step of another size changes nothing", () => {
  const values = [-8, -1, 0, 0, 0, 1, 2, 7];
  const shares = codeShares(Float32Array.from(values), 4);
  assert.equal([shares[0], shares[7], shares[8], shares[9], shares[15]], [
    1 / 8,
    1 / 8,
    3 / 8,
    1 / 8,
    1 / 8,
  ]);
  const scaled = Float32Array.from(values, (x) => x * 0.0371);
  assert.equal(codeShares(scaled, 4), shares);
  assert.is(codeShares(new Float32Array(5), 4)[8] > 0.999, true);
});

test("maps sum to 1 over the tokens so far; channels are sorted by their largest number", () => {
  const map = attentionMap(tf.zeros([1, 2, 4, 4]), 3);
  const expected = [1, 0, 0, 1 / 2, 1 / 2, 0, 1 / 3, 1 / 3, 1 / 3];
  map.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-6));
  const curve = channelCurve(tf.tensor2d([[1, -9, 2], [-3, 0, 0]]));
  assert.equal([curve[0], curve.at(-1)], [9, 2]);
});

test("fake quantisation stands beside whole numbers, in nats per token", () => {
  const table = tables(arms, config as Config).find(({ id }) =>
    id === "edgeqat-deployed"
  )!;
  assert.equal(table.rows.length, 1); // not the float arm
  const [id, , fake, engine, cost] = table.rows[0];
  assert.equal([id, fake], ["w4a4/both", 30]);
  assert.match(String(engine), /^32\.0 ± 2\.5/);
  assert.match(String(cost), /^0\.06\d* ±/); // ln(32 / 30)
});

test("looking ahead has its worth in the table of rankings, and figures name what they compare", () => {
  const ranking = tables(arms, config as Config).find(({ id }) =>
    id === "edgeqat-ranking"
  );
  assert.is(ranking?.rows.length, 1);
  assert.match(String(ranking!.rows[0].at(-1)), /^0\.10\d* ±/);
  const ids = figures(arms, config as Config).map(({ id }) => id);
  assert.equal(ids, ["edgeqat-ablation", "edgeqat-bits", "edgeqat-size"]); // no maps, codes or channels left
});

test.run();
