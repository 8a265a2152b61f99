/** What the RoRA runs say: claims, tables and figures. Reads summaries, computes no runs. */
import {
  type FigureOptions,
  lineFigure,
  type LineOptions,
} from "../core/figure.ts";
import { formatMeasurement } from "../core/claims.ts";
import { key } from "../core/rng.ts";
import {
  type ArmSummary,
  type FigureSpec,
  findArm,
  type Measurement,
  type MetricSummary,
  type ResultTable,
} from "../core/runs.ts";
import {
  bootstrapInterval,
  mean,
  pairedDifference,
  slope,
  tInterval,
} from "../core/stats.ts";
import type { Row } from "../core/table.ts";
import type { Base, Config, Method } from "./rora.ts";

const LABELS: Record<Method, string> = {
  frozen: "frozen",
  lora: "LoRA",
  rora: "RoRA (= rsLoRA)",
  dora: "DoRA",
  "dora-sqrt": "DoRA, alpha / sqrt(r)",
  full: "full fine-tuning",
};

const BASES: Record<Base, string> = {
  dense: "dense model",
  pruned: "pruned model, not recovered",
  recovered: "pruned and recovered model",
};

const ADAPTER_METHODS: Method[] = ["lora", "rora", "dora", "dora-sqrt"];
const ORDER = ADAPTER_METHODS.map((method) => LABELS[method]);

/** An adaptation arm with the parts of its config that reports sort by. */
interface Adapted {
  base: Base;
  method: Method;
  rank: number;
  learningRate: number;
  metrics: Record<string, MetricSummary>;
  /** Share of the seeds that answered each question right. */
  right: number[];
  seconds: number;
}

function adapted(arms: ArmSummary[]): Adapted[] {
  return arms
    .filter(({ config }) => "method" in config)
    .map(({ config, metrics, series, timings, seconds }) => ({
      base: config.base as Base,
      method: config.method as Method,
      rank: config.rank as number,
      learningRate: config.learningRate as number,
      metrics,
      right: series.right.mean,
      seconds: timings.trainSeconds?.mean ?? seconds,
    }));
}

/** The arms of a method on a base at the fixed learning rate, by rank. */
function series(
  runs: Adapted[],
  base: Base,
  method: Method,
  learningRate: number,
): Adapted[] {
  return runs
    .filter((run) =>
      run.base === base && run.method === method &&
      run.learningRate === learningRate && run.rank > 0
    )
    .sort((a, b) => a.rank - b.rank);
}

/** Value with its 95 % interval as a table cell. */
function cell({ mean, low, high, n }: MetricSummary) {
  return { mean, halfWidth: n > 1 ? (high - low) / 2 : 0, n };
}

// Claims --------------------------------------------------------------------------------------------

/** Ranks at which all adapter methods ran on a base: comparisons of methods share them. */
function sharedRanks(
  runs: Adapted[],
  base: Base,
  { learningRate }: Config,
): number[] {
  const [first, ...others] = ADAPTER_METHODS.map((method) =>
    series(runs, base, method, learningRate).map(({ rank }) => rank)
  );
  return first.filter((rank) => others.every((ranks) => ranks.includes(rank)));
}

/** Mean over ranks of a metric's value for each seed. */
function perSeed(runs: Adapted[], metric: string): number[] {
  const seeds = Math.min(...runs.map(({ metrics }) => metrics[metric].n));
  return Array.from(
    { length: seeds },
    (_, s) => mean(runs.map(({ metrics }) => metrics[metric].values[s])),
  );
}

/** Mean over ranks and seeds of each question's answer, 0 to 1. */
function perQuestion(runs: Adapted[]): number[] {
  return runs[0].right.map((_, q) => mean(runs.map(({ right }) => right[q])));
}

/**
 * Gain of RoRA in accuracy over another method, mean over the shared ranks, at the fixed rate.
 *
 * Two things vary: training (paired by seed, Student t) and which questions are asked (paired by
 * question, bootstrap). The interval is the wider of the two on each side.
 */
function gain(
  runs: Adapted[],
  base: Base,
  other: Method,
  config: Config,
): Measurement {
  const ranks = sharedRanks(runs, base, config);
  const at = (method: Method) =>
    series(runs, base, method, config.learningRate)
      .filter(({ rank }) => ranks.includes(rank));
  const [ours, theirs] = [at("rora"), at(other)];
  const overSeeds = pairedDifference(
    perSeed(ours, "accuracyPercent"),
    perSeed(theirs, "accuracyPercent"),
  );
  const [right, rightTheirs] = [perQuestion(ours), perQuestion(theirs)];
  const overQuestions = bootstrapInterval(
    right.map((share, q) => 100 * (share - rightTheirs[q])),
    key(0),
  );
  return {
    value: overSeeds.value,
    low: Math.min(overSeeds.low, overQuestions.low),
    high: Math.max(overSeeds.high, overQuestions.high),
    n: overSeeds.n,
    unit: "points",
    note: `${LABELS[other]} on the ${BASES[base]}, mean over ranks ${
      ranks.join(", ")
    }, paired${
      base === "dense" ? "" : ", one pruned model"
    }; interval over seeds and over ${right.length} questions, the wider of the two`,
  };
}

/** Least-squares slope over the ranks for each seed. */
function slopes(
  ranks: number[],
  values: number[][], // [R, seeds]
  x: (rank: number) => number,
  y: (value: number) => number = (value) => value,
): number[] {
  const seeds = Math.min(...values.map((row) => row.length));
  return Array.from(
    { length: seeds },
    (_, s) => slope(ranks.map(x), values.map((row) => y(row[s]))).value,
  );
}

/** Slopes of an arm's metric over its ranks, one per seed: all ranks of a seed see the same batches. */
function metricSlopes(
  runs: Adapted[],
  metric: string,
  x: (rank: number) => number,
  y?: (value: number) => number,
): number[] {
  return slopes(
    runs.map(({ rank }) => rank),
    runs.map(({ metrics }) => metrics[metric].values),
    x,
    y,
  );
}

/** Norms of the first gradient by rank and seed, [R][seeds], from the arm that measures only them. */
function firstGradients(arms: ArmSummary[], method: "lora" | "rora") {
  const { config, metrics } = findArm(arms, "gradient");
  const ranks = config.ranks as number[];
  return {
    ranks,
    norms: ranks.map((rank) => metrics[`${method}.r${rank}`].values),
  };
}

export function measure(
  arms: ArmSummary[],
  config: Config,
): Record<string, Measurement> {
  const runs = adapted(arms);
  const at = (method: Method) =>
    series(runs, "dense", method, config.learningRate);
  const exponent = (method: "lora" | "rora") => {
    const { ranks, norms } = firstGradients(arms, method);
    return tInterval(slopes(ranks, norms, Math.log, Math.log));
  };
  const perDoubling = (method: Method) =>
    metricSlopes(at(method), "accuracyPercent", Math.log2);
  const means = (method: Method) =>
    at(method).map(({ rank, metrics }) =>
      `${rank}: ${metrics.accuracyPercent.mean.toFixed(1)}`
    ).join(", ");
  return {
    "rora-gradient-rank": {
      ...exponent("rora"),
      unit: "",
      note: `ranks ${
        firstGradients(arms, "rora").ranks.join(", ")
      }; LoRA's exponent is ${exponent("lora").value.toFixed(3)}`,
    },
    "rora-rank-trend": {
      ...tInterval(perDoubling("rora")),
      unit: "points per doubling",
      note: `RoRA's accuracy in % by rank ${means("rora")}`,
    },
    "rora-lora-limited": {
      ...pairedDifference(perDoubling("rora"), perDoubling("lora")),
      unit: "points per doubling",
      note: `LoRA alone ${
        formatMeasurement({
          ...tInterval(perDoubling("lora")),
          unit: "points per doubling",
        })
      }; LoRA's accuracy in % by rank ${means("lora")}`,
    },
    "rora-dense-lora": gain(runs, "dense", "lora", config),
    "rora-dense-dora": gain(runs, "dense", "dora", config),
    "rora-pruned-lora": gain(runs, "recovered", "lora", config),
    "rora-pruned-dora": gain(runs, "recovered", "dora", config),
  };
}

// Tables --------------------------------------------------------------------------------------------

const RESULT_COLUMNS: [string, string][] = [
  ["accuracy (%)", "accuracyPercent"],
  ["validation loss (nats/token)", "validationLoss"],
  ["test loss (nats/token)", "testLoss"],
  ["perplexity", "testPerplexity"],
  ["|dW|", "deltaNorm"],
  ["adapter (bytes)", "adapterBytes"],
];

function comparison(
  runs: Adapted[],
  base: Base,
  { learningRate, seeds }: Config,
): ResultTable {
  const rows = runs.filter((run) =>
    run.base === base &&
    (["frozen", "full"].includes(run.method) ||
      run.learningRate === learningRate)
  );
  return {
    id: `rora-${base}`,
    title: `Methods on the ${BASES[base]}`,
    caption:
      `alpha and steps are the same for all; adapters at learning rate ${learningRate}. Mean ± half of the 95 % interval over ${seeds} seeds.`,
    columns: [
      "method",
      "rank",
      "learning rate",
      ...RESULT_COLUMNS.map(([title]) => title),
      "training (CPU s)",
    ],
    rows: rows.map(({ method, rank, learningRate, metrics, seconds }) => [
      LABELS[method],
      rank || null,
      learningRate || null,
      ...RESULT_COLUMNS.map(([, name]) =>
        name in metrics ? spread(metrics[name]) : null
      ),
      method === "frozen" ? null : Number(seconds.toPrecision(3)),
    ]),
  };
}

/** "1.23 ± 0.04", or one number if nothing varies. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  const half = (high - low) / 2;
  if (n < 2 || !(half > 0)) return Number(mean.toPrecision(5));
  const digits = Math.max(0, 1 - Math.floor(Math.log10(half)));
  return `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
}

/** All runs of a method at a rank on the dense model, whatever the learning rate. */
function triedRates(runs: Adapted[], method: Method, rank: number): Adapted[] {
  return runs
    .filter((run) =>
      run.base === "dense" && run.method === method && run.rank === rank
    )
    .sort((a, b) => a.learningRate - b.learningRate);
}

/** The run with the lowest validation loss. */
function bestOf(tried: Adapted[]): Adapted {
  return tried.reduce((best, run) =>
    run.metrics.validationLoss.mean < best.metrics.validationLoss.mean
      ? run
      : best
  );
}

/** A learning rate, marked if no smaller or no larger one was tried. */
function atEdge({ learningRate }: Adapted, tried: Adapted[]): string {
  const edge = learningRate === tried.at(-1)!.learningRate
    ? " (largest tried)"
    : learningRate === tried[0].learningRate
    ? " (smallest tried)"
    : "";
  return `${learningRate}${edge}`;
}

/** RoRA's gain over others at the fixed learning rate, and at each method's own best one. */
function survival(runs: Adapted[], config: Config): ResultTable {
  const { sweep, learningRate } = config;
  const rows: ResultTable["rows"] = [];
  for (const rank of sweep.ranks.rora ?? []) {
    for (const [method, ranks] of Object.entries(sweep.ranks)) {
      if (method === "rora" || !ranks.includes(rank)) continue;
      const ours = triedRates(runs, "rora", rank);
      const theirs = triedRates(runs, method as Method, rank);
      const fixed = (tried: Adapted[]) =>
        tried.find((run) => run.learningRate === learningRate)!;
      for (
        const [name, choose] of [["fixed", fixed], ["tuned", bestOf]] as const
      ) {
        const [a, b] = [choose(ours), choose(theirs)];
        const difference = (metric: string) => {
          const n = Math.min(a.metrics[metric].n, b.metrics[metric].n);
          const { value, low, high } = pairedDifference(
            a.metrics[metric].values.slice(0, n),
            b.metrics[metric].values.slice(0, n),
          );
          return spread({ mean: value, low, high, n, sd: 0, values: [] });
        };
        rows.push([
          `RoRA - ${LABELS[method as Method]}`,
          rank,
          name,
          name === "fixed" ? learningRate : atEdge(a, ours),
          name === "fixed" ? learningRate : atEdge(b, theirs),
          difference("accuracyPercent"),
          difference("testLoss"),
        ]);
      }
    }
  }
  return {
    id: "rora-survival",
    title: "What of RoRA's gain survives a learning rate chosen per method",
    caption:
      `Fixed: every method at ${learningRate}, ${config.seeds} seeds. Tuned: ${sweep.seeds} seeds; each method and rank at the rate with the lowest validation loss; the differences are measured on the test part, paired by seed (± half of the 95 % interval).`,
    columns: [
      "comparison",
      "rank",
      "learning rate",
      "RoRA's",
      "the other's",
      "accuracy (points)",
      "test loss (nats/token)",
    ],
    rows,
  };
}

function pruningTable(arms: ArmSummary[]): ResultTable[] {
  const arm = arms.find(({ id }) => id === "prune");
  if (arm === undefined) return [];
  const value = (name: string) => arm.metrics[name].mean;
  return [{
    id: "rora-pruning",
    title: "The base model before and after pruning",
    caption: `Perplexity on held-out pretraining text; ${
      (100 * value("prunedFraction")).toFixed(1)
    } % of the parameters are pruned, the recovery takes ${
      value("recoveryTokens")
    } tokens.`,
    columns: ["model", "parameters", "perplexity"],
    rows: [
      ["dense", value("denseParameters"), value("densePerplexity")],
      ["pruned", value("prunedParameters"), value("prunedPerplexity")],
      [
        "pruned and recovered",
        value("prunedParameters"),
        value("recoveredPerplexity"),
      ],
    ],
  }];
}

/** Exponents p of |gradient| ~ r^p for both factors, with intervals over seeds. */
function exponentTable(
  runs: Adapted[],
  { learningRate }: Config,
): ResultTable {
  const METRICS = [
    ["|dL/dB|, first step", "gradNormBFirst"],
    ["|dL/dB|, last step", "gradNormBLast"],
    ["|dL/dA|, last step", "gradNormALast"],
    ["|dW|, after training", "deltaNorm"],
  ];
  const lists = ADAPTER_METHODS
    .map((method) => series(runs, "dense", method, learningRate))
    .filter((list) => list.length >= 3);
  return {
    id: "rora-exponents",
    title: "How norms grow with the rank, dense model",
    caption:
      "Exponent p of norm ~ r^p: slope in logarithms per seed, mean ± half of the 95 % interval over the seeds. At the first step B = 0, so |dL/dA| = 0. From the training runs; the claim's exponent is measured apart, at more ranks and seeds.",
    columns: ["method", ...METRICS.map(([title]) => title)],
    rows: lists.map((list) => [
      LABELS[list[0].method],
      ...METRICS.map(([, metric]) => {
        const { value, low, high, n } = tInterval(
          metricSlopes(list, metric, Math.log, Math.log),
        );
        return spread({ mean: value, low, high, n, sd: 0, values: [] });
      }),
    ]),
  };
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  const runs = adapted(arms);
  const bases = [...new Set(runs.map(({ base }) => base))];
  return [
    ...bases.map((base) => comparison(runs, base, config)),
    exponentTable(runs, config),
    survival(runs, config),
    ...pruningTable(arms),
  ].filter(({ rows }) => rows.length > 0);
}

// Figures -------------------------------------------------------------------------------------------

const RANK_AXIS = { title: "rank", scale: "log" as const };

/** A metric against the rank, one line per method. */
function againstRank(
  runs: Adapted[],
  base: Base,
  { learningRate, seeds }: Config,
  metric: string,
  yAxis: LineOptions["yAxis"],
  { id, title, caption }: FigureOptions,
): FigureSpec {
  const rows = ADAPTER_METHODS.flatMap((method) =>
    series(runs, base, method, learningRate).map((run): Row => ({
      method: LABELS[method],
      rank: run.rank,
      value: cell(run.metrics[metric]),
    }))
  );
  const ranks = [...new Set(rows.map(({ rank }) => rank as number))];
  return lineFigure(rows, {
    id,
    title,
    caption:
      `${caption} Learning rate ${learningRate}; bars are 95 % intervals over ${seeds} seeds.`,
    x: "rank",
    y: "value",
    series: "method",
    order: ORDER,
    xAxis: { ...RANK_AXIS, ticks: ranks.sort((a, b) => a - b) },
    yAxis,
  });
}

/** Norm of the first gradient against the rank, relative to RoRA's at the lowest rank of the same seed. */
function gradientFigure(arms: ArmSummary[], config: Config): FigureSpec {
  const reference = firstGradients(arms, "rora").norms[0];
  const rows = (["lora", "rora"] as const).flatMap((method) => {
    const { ranks, norms } = firstGradients(arms, method);
    return ranks.map((rank, i): Row => {
      const ratios = norms[i].map((norm, s) => norm / reference[s]);
      const { value, low, high, n } = tInterval(ratios);
      return {
        method: LABELS[method],
        rank,
        norm: { mean: value, halfWidth: n > 1 ? (high - low) / 2 : 0, n },
      };
    });
  });
  return lineFigure(rows, {
    id: "rora-gradient",
    title: "Gradient norm against rank, dense model",
    caption:
      `|dL/dB| over all adapters at the first step, relative to RoRA at rank ${
        config.gradient.ranks[0]
      } on the same batch. The algebra predicts a flat line for alpha / sqrt(r) and r^-0.5 for alpha / r. 95 % intervals over ${config.gradient.seeds} seeds.`,
    x: "rank",
    y: "norm",
    series: "method",
    order: ORDER,
    xAxis: { ...RANK_AXIS, ticks: config.gradient.ranks },
    yAxis: { title: "relative gradient norm", scale: "log" },
  });
}

/** Test loss against the learning rate for one rank. */
function sweepFigure(
  runs: Adapted[],
  rank: number,
  { sweep }: Config,
): FigureSpec {
  const rows = Object.entries(sweep.ranks)
    .filter(([, ranks]) => ranks.includes(rank))
    .flatMap(([method]) => triedRates(runs, method as Method, rank))
    .sort((a, b) => a.learningRate - b.learningRate)
    .map((run): Row => ({
      method: LABELS[run.method],
      learningRate: run.learningRate,
      loss: cell(run.metrics.testLoss),
    }));
  return lineFigure(rows, {
    id: `rora-sweep-r${rank}`,
    title: `Learning rates at rank ${rank}, ${BASES.dense}`,
    caption:
      "Test loss after the same number of steps; each method has its own best rate. Bars are 95 % intervals over the seeds.",
    x: "learningRate",
    y: "loss",
    series: "method",
    order: ORDER,
    xAxis: {
      title: "learning rate",
      scale: "log",
      ticks: [...new Set(rows.map((row) => row.learningRate as number))],
    },
    yAxis: { title: "test loss", unit: "nats per token" },
  });
}

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  const runs = adapted(arms);
  const accuracy = { title: "accuracy", unit: "%" };
  const loss = { title: "test loss", unit: "nats per token" };
  const bases = [...new Set(runs.map(({ base }) => base))];
  return [
    ...bases.map((base) =>
      againstRank(runs, base, config, "testLoss", loss, {
        id: `rora-loss-${base}`,
        title: `Test loss against rank, ${BASES[base]}`,
        caption: "After the same steps on the same batches.",
      })
    ),
    ...bases.map((base) =>
      againstRank(runs, base, config, "accuracyPercent", accuracy, {
        id: `rora-accuracy-${base}`,
        title: `Accuracy against rank, ${BASES[base]}`,
        caption: "Four-way continuation questions from held-out documents.",
      })
    ),
    gradientFigure(arms, config),
    ...(config.sweep.ranks.rora ?? []).map((rank) =>
      sweepFigure(runs, rank, config)
    ),
  ];
}
