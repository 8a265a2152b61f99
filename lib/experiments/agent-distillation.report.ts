/** What the runs of structured agent distillation say: claims, tables and figures. Computes no runs. */
import { barFigure, lineFigure } from "../core/figure.ts";
import { key } from "../core/rng.ts";
import {
  type ArmSummary,
  type FigureSpec,
  findArm,
  type Measurement,
  type MetricSummary,
  type ResultTable,
} from "../core/runs.ts";
import { bootstrapInterval, mean, pairedDifference } from "../core/stats.ts";
import type { Row } from "../core/table.ts";
import {
  type Config,
  type Method,
  METHODS,
  type MethodSpec,
  trainingIn,
  type World,
} from "./agent-distillation.methods.ts";

/** Whether students of a method act without reasoning. */
const isSilent = (method: Method) =>
  (METHODS[method] as MethodSpec).actionOnly === true;

/** How many seeds stand behind a table or figure. */
const seedsText = ({ seeds, moreSeeds = 0 }: Config) =>
  moreSeeds === 0
    ? `${seeds} seeds`
    : `${seeds} seeds, or ${seeds + moreSeeds} for methods that claims compare`;

const ORDER = Object.values(METHODS).map(({ label }) => label);

/** A teacher that solves less, in percent of the unseen episodes, is said to be weak. */
const GOOD_TEACHER = 90;

/** Arms of two sides that differ in one thing alone. */
type Pair = [ArmSummary, ArmSummary];

const studentOf = (
  arms: ArmSummary[],
  world: World,
  method: Method,
  width: number,
) => findArm(arms, `${world}/${method}/d${width}`);

const teacherOf = (arms: ArmSummary[], world: World) =>
  findArm(arms, `${world}/teacher`);

/** Worlds that say something of distillation: those with a good teacher, or all if none has one. */
export function tellingWorlds(arms: ArmSummary[], { worlds }: Config): World[] {
  const good = worlds.filter((world) =>
    teacherOf(arms, world).metrics.successPercent.mean >= GOOD_TEACHER
  );
  return good.length > 0 ? good : worlds;
}

function pairsOf(
  arms: ArmSummary[],
  config: Config,
  a: Method,
  b: Method,
): Pair[] {
  const { student: { hiddenSize } } = config;
  return tellingWorlds(arms, config).map((world) => [
    studentOf(arms, world, a, hiddenSize),
    studentOf(arms, world, b, hiddenSize),
  ]);
}

/** Value with its 95 % interval as a table cell. */
function cell({ mean, low, high, n }: MetricSummary) {
  return { mean, halfWidth: n > 1 ? (high - low) / 2 : 0, n };
}

/** "1.2 ± 0.4", or one number if nothing varies. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  const half = (high - low) / 2;
  if (n < 2 || !(half > 0)) return Number(mean.toPrecision(4));
  const digits = Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(half))));
  return `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
}

// Claims --------------------------------------------------------------------------------------------

/** A metric's value for each of the first seeds of an arm; the only one of a teacher stands beside each. */
function valuesOf(arm: ArmSummary, metric: string, seeds: number): number[] {
  const { values } = arm.metrics[metric];
  return values.length === 1
    ? Array.from({ length: seeds }, () => values[0])
    : values.slice(0, seeds);
}

/** Mean over pairs of the difference in a metric, paired by seed. */
function seedDifference(pairs: Pair[], metric: string) {
  const counts = pairs.flat().map(({ seeds }) => seeds.length);
  const seeds = Math.min(...counts.filter((n) => n > 1), Math.max(...counts));
  const side = (i: 0 | 1) =>
    Array.from(
      { length: seeds },
      (_, s) => mean(pairs.map((pair) => valuesOf(pair[i], metric, seeds)[s])),
    );
  return pairedDifference(side(0), side(1));
}

/**
 * Mean difference in success over pairs of arms.
 *
 * Training varies (paired by seed, Student t) and so does which episodes are played (paired by
 * episode, bootstrap). The seeds share the episodes and the episodes' means the seeds, so the squares of the two
 * half-widths are added. Teacher and transcripts of a world are the same for all.
 */
function successGain(pairs: Pair[]): Omit<Measurement, "note"> {
  const overSeeds = seedDifference(pairs, "successPercent");
  const perEpisode = pairs[0][0].series.success.mean.map((_, e) =>
    100 *
    mean(pairs.map(([a, b]) =>
      a.series.success.mean[e] - b.series.success.mean[e]
    ))
  );
  const overEpisodes = bootstrapInterval(perEpisode, key(0));
  const { value } = overSeeds;
  const side = (own: "low" | "high") =>
    Math.hypot(
      overSeeds.n > 1 ? overSeeds[own] - value : 0,
      overEpisodes[own] - overEpisodes.value,
    );
  return {
    value,
    low: value - side("low"),
    high: value + side("high"),
    n: overSeeds.n,
    unit: "points",
  };
}

/** The width, of those at which both methods ran in the first world, whose share of the teacher is nearest to a twelfth. */
export function twelfth(arms: ArmSummary[], config: Config): number {
  const [world] = config.worlds;
  const teacher = teacherOf(arms, world).metrics.parameters.mean;
  const widths = [config.student.hiddenSize, ...config.scaling.hiddenSizes];
  const distance = (width: number) =>
    Math.abs(Math.log(
      12 * studentOf(arms, world, "sad", width).metrics.parameters.mean /
        teacher,
    ));
  return widths.reduce((a, b) => distance(b) < distance(a) ? b : a);
}

function successes(pairs: Pair[]): string {
  return pairs.map(([a, b]) =>
    `${a.metrics.successPercent.mean.toFixed(1)} against ${
      b.metrics.successPercent.mean.toFixed(1)
    } %`
  ).join(", ");
}

export function measure(
  arms: ArmSummary[],
  config: Config,
): Record<string, Measurement> {
  const { worlds, evaluation, student, scaling } = config;
  const telling = tellingWorlds(arms, config);
  const weak = worlds.filter((world) =>
    teacherOf(arms, world).metrics.successPercent.mean < GOOD_TEACHER
  );
  const where = `width ${student.hiddenSize}, ${
    telling.join(", ")
  }, ${evaluation.episodes} unseen episodes each${
    weak.length === 0
      ? ""
      : telling.some((world) => weak.includes(world))
      ? `, teachers below ${GOOD_TEACHER} %`
      : `; ${weak.join(", ")} left out: teacher below ${GOOD_TEACHER} %`
  }`;
  const gain = (other: Method): Measurement => {
    const pairs = pairsOf(arms, config, "sad", other);
    return {
      ...successGain(pairs),
      note: `${METHODS.sad.label} against ${METHODS[other].label}: ${
        successes(pairs)
      }; ${where}; interval over seeds and episodes; one teacher and its transcripts in each world`,
    };
  };
  const against = pairsOf(arms, config, "sad", "flat");
  const other = (metric: string, unit: string): Measurement => ({
    ...seedDifference(against, metric),
    unit,
    note: `${where}; paired by seed`,
  });
  const [first] = worlds;
  const width = twelfth(arms, config);
  const small = studentOf(arms, first, "sad", width);
  const teacher = teacherOf(arms, first);
  const ratio = teacher.metrics.parameters.mean / small.metrics.parameters.mean;
  const widths = [student.hiddenSize, ...scaling.hiddenSizes];
  const [rival] = scaling.methods;
  const everywhere = (method: Method) =>
    worlds.every((world) => config.methods[world].includes(method));
  return {
    "sad-token-level": gain("flat"),
    ...(everywhere("masked-simple-first")
      ? { "sad-token-level-matched": gain("masked-simple-first") }
      : {}),
    "sad-imitation": gain("imitation"),
    "sad-action-only": gain("action-only"),
    ...(everywhere("action-only-episode")
      ? { "sad-action-only-episode": gain("action-only-episode") }
      : {}),
    "sad-spans": gain("random-spans"),
    "sad-reasoning-length": other("reasoningTokens", "tokens per episode"),
    "sad-cot-match": other("matchPercent", "points"),
    "sad-compression": {
      ...successGain([[small, teacher]]),
      note: `${ratio.toFixed(1)} times fewer parameters, ${first}: ${
        successes([[small, teacher]])
      }`,
    },
    "sad-sizes": {
      ...successGain(
        widths.map((w) => [
          studentOf(arms, first, "sad", w),
          studentOf(arms, first, rival, w),
        ]),
      ),
      note: `${first}, against ${METHODS[rival].label}, mean over widths ${
        [...widths].sort((a, b) => a - b).join(", ")
      }`,
    },
  };
}

// Tables --------------------------------------------------------------------------------------------

const COLUMNS: [string, string][] = [
  ["success (%)", "successPercent"],
  ["reasoning (tokens/episode)", "reasoningTokens"],
  ["reasoning (tokens/turn)", "reasoningPerTurn"],
  ["CoT match (%)", "matchPercent"],
  ["word F1", "wordF1"],
  ["steps per episode", "steps"],
  ["invalid actions (%)", "invalidPercent"],
  ["KL, reasoning (nats/token)", "klReason"],
  ["KL, action (nats/token)", "klAct"],
];

/** What says nothing of an agent that learnt to act without reasoning: others are compared on lines that have it. */
const OF_REASONING = ["matchPercent", "wordF1", "klReason", "klAct"];

/** Rows of success alone. */
function bareRow(name: string, success: number): (string | number | null)[] {
  return [
    name,
    null,
    Number(success.toPrecision(4)),
    ...COLUMNS.slice(1).map(() => null),
    null,
  ];
}

function worldTable(
  arms: ArmSummary[],
  world: World,
  config: Config,
): ResultTable {
  const { student: { hiddenSize } } = config;
  const { steps, batch, transcripts } = trainingIn(config, world);
  const teacher = teacherOf(arms, world);
  const { metrics } = teacher;
  const row = (name: string, arm: ArmSummary, silent = false) => [
    name,
    arm.metrics.parameters.mean,
    ...COLUMNS.map(([, metric]) =>
      metric in arm.metrics && !(silent && OF_REASONING.includes(metric))
        ? spread(arm.metrics[metric])
        : null
    ),
    Number((arm.timings.trainSeconds?.mean ?? arm.seconds).toPrecision(3)),
  ];
  const standIn = metrics.expertStandsIn.mean === 1
    ? " The teacher solved no episode: the students learnt from the expert's, under the teacher's distributions."
    : metrics.successPercent.mean < GOOD_TEACHER
    ? ` The teacher is weak: it solves less than ${GOOD_TEACHER} %, so that differences between the students say little of distillation.`
    : "";
  const bare =
    config.methods[world].some((method) =>
        method === "no-cot" || method === "no-act"
      )
      ? " A student starts from nothing: without L_CoT or L_Act it never learns to write such lines at all."
      : "";
  return {
    id: `agent-distillation-${world}`,
    title: `Unseen episodes of ${world}`,
    caption:
      `The paper's four metrics: success, length of reasoning, CoT match (share of turns of the teacher's own episodes at which the student's reasoning equals the teacher's, numbers and case aside), steps. ${steps} steps of ${batch} examples from ${
        Math.min(transcripts, metrics.transcripts.mean)
      } transcripts for each student; acting without reasoning means fewer tokens for the same examples. Mean ± half of the 95 % interval over ${
        seedsText(config)
      }; all agents play the same ${config.evaluation.episodes} episodes, greedily. Sampled at temperature 1 the teacher solves ${
        metrics.sampledSuccessPercent.mean.toFixed(1)
      } % of training episodes.${standIn}${bare}`,
    columns: [
      "agent",
      "parameters",
      ...COLUMNS.map(([title]) => title),
      "training (CPU s)",
    ],
    rows: [
      bareRow("expert", metrics.expertPercent.mean),
      bareRow("random admissible action", metrics.randomPercent.mean),
      row("teacher", teacher),
      ...config.methods[world].map((method) =>
        row(
          METHODS[method].label,
          studentOf(arms, world, method, hiddenSize),
          isSilent(method),
        )
      ),
    ],
  };
}

/** The arms of the comparison over sizes, the main width included. */
function sizeArms(arms: ArmSummary[], config: Config) {
  const { worlds: [world], scaling, student } = config;
  return [...scaling.hiddenSizes, student.hiddenSize]
    .sort((a, b) => a - b)
    .flatMap((width) =>
      scaling.methods.map((method) => ({
        width,
        method,
        arm: studentOf(arms, world, method, width),
      }))
    );
}

function sizeTable(arms: ArmSummary[], config: Config): ResultTable {
  const [world] = config.worlds;
  const { metrics } = teacherOf(arms, world);
  return {
    id: "agent-distillation-sizes",
    title: `Students of several sizes, ${world}`,
    caption:
      `The same examples, steps and learning rate for all; mean ± half of the 95 % interval over ${
        seedsText(config)
      }. The teacher has ${metrics.parameters.mean} parameters and solves ${
        metrics.successPercent.mean.toFixed(1)
      } %.`,
    columns: [
      "width",
      "parameters",
      "times smaller than the teacher",
      "method",
      "success (%)",
      "CoT match (%)",
    ],
    rows: sizeArms(arms, config).map(({ width, method, arm }) => [
      width,
      arm.metrics.parameters.mean,
      Number(
        (metrics.parameters.mean / arm.metrics.parameters.mean).toPrecision(3),
      ),
      METHODS[method].label,
      spread(arm.metrics.successPercent),
      spread(arm.metrics.matchPercent),
    ]),
  };
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  return [
    ...config.worlds.map((world) => worldTable(arms, world, config)),
    sizeTable(arms, config),
  ];
}

// Figures -------------------------------------------------------------------------------------------

/** Bars with room for the long names of methods below them. */
function methodBars(
  rows: Row[],
  options: Parameters<typeof barFigure>[1],
): FigureSpec {
  const figure = barFigure(rows, options);
  const { layout } = figure;
  return {
    ...figure,
    layout: {
      ...layout,
      height: 560,
      margin: { ...layout.margin as object, l: 190, b: 260 },
      xaxis: { ...layout.xaxis as object, title: undefined, tickangle: -55 },
    },
  };
}

function worldFigure(
  arms: ArmSummary[],
  world: World,
  config: Config,
): FigureSpec {
  const rows = config.methods[world].map((method): Row => ({
    method: METHODS[method].label,
    success: cell(
      studentOf(arms, world, method, config.student.hiddenSize).metrics
        .successPercent,
    ),
  }));
  const { metrics } = teacherOf(arms, world);
  return methodBars(
    [{ method: "teacher", success: metrics.successPercent.mean }, ...rows],
    {
      id: `agent-distillation-${world}-success`,
      title: `Success on unseen episodes of ${world}`,
      caption:
        `Students of width ${config.student.hiddenSize}; bars are 95 % intervals over ${
          seedsText(config)
        }.`,
      x: "method",
      y: "success",
      yAxis: { title: "success", unit: "%", range: [0, 100] },
    },
  );
}

function sizeFigure(arms: ArmSummary[], config: Config): FigureSpec {
  const rows = sizeArms(arms, config).map(({ method, arm }): Row => ({
    method: METHODS[method].label,
    parameters: arm.metrics.parameters.mean,
    success: cell(arm.metrics.successPercent),
  }));
  return lineFigure(rows, {
    id: "agent-distillation-sizes",
    title: `Success against size of the student, ${config.worlds[0]}`,
    caption: `Unseen episodes; bars are 95 % intervals over ${
      seedsText(config)
    }.`,
    x: "parameters",
    y: "success",
    series: "method",
    order: ORDER,
    xAxis: {
      title: "parameters of the student",
      scale: "log",
      ticks: [...new Set(rows.map((row) => row.parameters as number))],
    },
    yAxis: { title: "success", unit: "%", range: [0, 100] },
  });
}

function lambdaFigure(arms: ArmSummary[], config: Config): FigureSpec[] {
  const { worlds: [world], lambdas, student: { hiddenSize } } = config;
  const middle = arms.find(({ id }) =>
    id === `${world}/sad-all-at-once/d${hiddenSize}`
  );
  if (lambdas.length === 0 || middle === undefined) return [];
  const id = (lambda: number) =>
    `${world}/sad-all-at-once/d${hiddenSize}/lambda${lambda}`;
  const rows = [1, ...lambdas].sort((a, b) => a - b).map((lambda): Row => ({
    lambda,
    success: cell(
      (lambda === 1 ? middle : findArm(arms, id(lambda))).metrics
        .successPercent,
    ),
  }));
  return [lineFigure(rows, {
    id: "agent-distillation-lambda",
    title: `Weight of actions against weight of reasoning, ${world}`,
    caption:
      `Span means without curriculum, width ${hiddenSize}; lambda_r + lambda_a = 2 throughout. Bars are 95 % intervals over ${
        seedsText(config)
      }.`,
    x: "lambda",
    y: "success",
    xAxis: {
      title: "lambda_a / lambda_r",
      scale: "log",
      ticks: rows.map((row) => row.lambda as number),
    },
    yAxis: { title: "success", unit: "%", range: [0, 100] },
  })];
}

/** Divergence from the teacher during training, for reasoning or for action. */
function divergenceFigure(
  arms: ArmSummary[],
  config: Config,
  series: "klReasonCurve" | "klActCurve",
): FigureSpec {
  const { worlds: [world], student: { hiddenSize } } = config;
  const { steps } = trainingIn(config, world);
  const what = series === "klActCurve" ? "actions" : "reasoning";
  const methods = config.methods[world].filter((m) =>
    ["imitation", "flat", "masked-simple-first", "sad", "no-cot", "no-act"]
      .includes(m)
  );
  const rows = methods.flatMap((method) => {
    const { mean: values } =
      studentOf(arms, world, method, hiddenSize).series[series];
    return values.map((value, i): Row => ({
      method: METHODS[method].label,
      step: Math.round(i * steps / (values.length - 1)),
      kl: value,
    }));
  });
  return lineFigure(rows, {
    id: `agent-distillation-${series}`,
    title: `Divergence from the teacher over training: ${what}`,
    caption:
      `Mean KL(p_T || p_S) over tokens of ${what} in unseen episodes of ${world}, at width ${hiddenSize}, mean over ${
        seedsText(config)
      }.`,
    x: "step",
    y: "kl",
    series: "method",
    order: ORDER,
    xAxis: { title: "step" },
    yAxis: { title: "KL", unit: "nats per token", scale: "log" },
  });
}

function lengthFigure(arms: ArmSummary[], config: Config): FigureSpec {
  const rows = config.worlds.flatMap((world) =>
    config.methods[world].filter((method) => !isSilent(method))
      .map((method): Row => ({
        method: METHODS[method].label,
        world,
        tokens: cell(
          studentOf(arms, world, method, config.student.hiddenSize).metrics
            .reasoningTokens,
        ),
      }))
  );
  return methodBars(rows, {
    id: "agent-distillation-length",
    title: "Length of reasoning",
    caption:
      `Tokens of reasoning per unseen episode; an agent that does not find the way reasons until the limit of steps. Bars are 95 % intervals over ${
        seedsText(config)
      }.`,
    x: "method",
    y: "tokens",
    series: "world",
    yAxis: { title: "reasoning", unit: "tokens per episode" },
  });
}

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  return [
    ...config.worlds.map((world) => worldFigure(arms, world, config)),
    sizeFigure(arms, config),
    ...lambdaFigure(arms, config),
    divergenceFigure(arms, config, "klReasonCurve"),
    divergenceFigure(arms, config, "klActCurve"),
    lengthFigure(arms, config),
  ];
}
