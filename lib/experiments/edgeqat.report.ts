/** What the EdgeQAT runs say: claims, tables and figures. Reads summaries, computes no runs. */
import {
  barFigure,
  heatmapFigure,
  lineFigure,
  scatterFigure,
} from "../core/figure.ts";
import { FIELDS, PHENOMENA } from "../core/minimal-pairs.ts";
import { key, randomInts } from "../core/rng.ts";
import {
  type ArmSummary,
  type FigureSpec,
  type Measurement,
  type MetricSummary,
  type ResultTable,
  summariseMetric,
} from "../core/runs.ts";
import {
  bootstrapInterval,
  type Estimate,
  mean,
  pairedDifference,
  tInterval,
} from "../core/stats.ts";
import type { Row } from "../core/table.ts";
import { speedTable, timeRatio } from "./speed.ts";
import { LLAMA_58M, MAP_TOKENS, sizeBytes } from "./edgeqat.details.ts";
import {
  type Bits,
  type Config,
  type VariantName,
  VARIANTS,
} from "./edgeqat.ts";

/** "1.23 ± 0.04", or one number if nothing varies. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  const half = (high - low) / 2;
  if (n < 2 || !(half > 0)) return Number(mean.toPrecision(5));
  const digits = Math.max(0, 1 - Math.floor(Math.log10(half)));
  return `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
}

/** Value with its 95 % interval as a table cell. */
function cell({ mean, low, high, n }: MetricSummary) {
  return { mean, halfWidth: n > 1 ? (high - low) / 2 : 0, n };
}

const labelOf = ({ config }: ArmSummary) =>
  VARIANTS[config.variant as VariantName].label;

const trained = (arms: ArmSummary[]) =>
  arms.filter(({ config }) => "variant" in config);

/** The first width of the configuration, the one with several seeds. */
const headline = ({ widths }: Config) => Object.keys(widths)[0];

// Claims --------------------------------------------------------------------------------------------

/**
 * The seeds' estimate with a wider interval: what is asked (pairs, windows) varies as well as the training, and the
 * seeds share the first as its mean does the second, so that the squares of the half-widths are added on each side.
 */
function combined(overSeeds: Estimate, overQuestions?: Estimate): Estimate {
  const { value, n } = overSeeds;
  const side = (own: "low" | "high") =>
    Math.hypot(
      n > 1 ? overSeeds[own] - value : 0,
      overQuestions === undefined
        ? 0
        : overQuestions[own] - overQuestions.value,
    );
  return { value, low: value - side("low"), high: value + side("high"), n };
}

/** Resamples of the sentences. */
const RESAMPLES = 2000;

/** The last resamples: all claims of a record ask for those of one number of sentences. */
let resampled = { count: 0, times: new Uint16Array(0) };

/** How often each resample draws each of `count` sentences: [RESAMPLES, count]. */
function resamples(count: number): Uint16Array {
  if (count === resampled.count) return resampled.times;
  const draws = randomInts(key(0), RESAMPLES * count, 0, count);
  const times = new Uint16Array(RESAMPLES * count);
  for (let r = 0; r < RESAMPLES; r++) {
    for (let i = 0; i < count; i++) times[r * count + draws[r * count + i]]++;
  }
  resampled = { count, times };
  return times;
}

/**
 * 95 % percentile bootstrap of a mean over phenomena: sentences are drawn with replacement, and all pairs of one
 * come together.
 *
 * @param values of each pair
 * @param sentences number of each pair's sentence, from 0
 * @param phenomena number of each pair's phenomenon, from 0
 */
export function bootstrapSentences(
  values: number[],
  sentences: number[],
  phenomena: number[],
): Estimate {
  const count = Math.max(...sentences) + 1;
  const kinds = Math.max(...phenomena) + 1;
  const sums = new Float64Array(kinds);
  const sizes = new Float64Array(kinds);
  /** Mean over phenomena with sentence i counted times[from + i] times. */
  const over = (times: Uint16Array, from: number) => {
    sums.fill(0);
    sizes.fill(0);
    for (let i = 0; i < values.length; i++) {
      const drawn = times[from + sentences[i]];
      sums[phenomena[i]] += drawn * values[i];
      sizes[phenomena[i]] += drawn;
    }
    let sum = 0;
    let seen = 0;
    for (let k = 0; k < kinds; k++) {
      if (sizes[k] === 0) continue;
      sum += sums[k] / sizes[k];
      seen++;
    }
    return sum / seen;
  };
  const times = resamples(count);
  const means = Float64Array.from(
    { length: RESAMPLES },
    (_, r) => over(times, r * count),
  ).sort();
  const at = (part: number) => means[Math.round(part * (RESAMPLES - 1))];
  const once = new Uint16Array(count).fill(1);
  return { value: over(once, 0), low: at(0.025), high: at(0.975), n: count };
}

/** Over which pairs are asked; a record without an arm that numbers their sentences takes each pair by itself. */
function overPairs(differences: number[], pairs?: ArmSummary): Estimate {
  const { pairSentence, pairPhenomenon } = pairs?.series ?? {};
  return pairSentence?.mean.length === differences.length
    ? bootstrapSentences(differences, pairSentence.mean, pairPhenomenon.mean)
    : bootstrapInterval(differences, key(0));
}

/** A metric at the first n seeds; that of an arm that is not trained counts for each. */
function valuesAt(
  { metrics }: ArmSummary,
  name: string,
  n: number,
): number[] {
  const { values } = metrics[name];
  return values.length === 1
    ? new Array(n).fill(values[0])
    : values.slice(0, n);
}

/** Seeds that arms can be compared at. */
function seedsOf(...arms: ArmSummary[]): number {
  const counts = arms.map(({ seeds }) => seeds.length);
  return Math.min(...counts.filter((n) => n > 1), Math.max(...counts));
}

/**
 * Gain of one arm over another in % of minimal pairs right.
 *
 * Two things vary: training (paired by seed, Student t) and which sentences are asked (paired, bootstrap); see `combined`.
 * An untrained arm counts for every seed.
 */
function gain(
  ours: ArmSummary,
  theirs: ArmSummary,
  data?: ArmSummary,
): Measurement {
  const n = seedsOf(ours, theirs);
  const at = (arm: ArmSummary, name: string) => valuesAt(arm, name, n);
  const [a, b] = [ours, theirs].map((arm) => at(arm, "accuracyPercent"));
  const right = ours.series.right.mean;
  const differences = right.map((share, i) =>
    100 * (share - theirs.series.right.mean[i])
  );
  const [p, q] = [ours, theirs].map((arm) => mean(at(arm, "testPerplexity")));
  return {
    ...combined(pairedDifference(a, b), overPairs(differences, data)),
    unit: "points",
    note: `${labelOf(ours)} ${mean(a).toFixed(1)} %, ${labelOf(theirs)} ${
      mean(b).toFixed(1)
    } %; perplexity ${p.toFixed(1)} and ${
      q.toFixed(1)
    }; ${n} seeds, ${right.length} pairs`,
  };
}

/** Over which windows are read, from the mean losses of each; none in older records. */
function overWindows(differences: number[] | undefined): Estimate | undefined {
  return differences === undefined
    ? undefined
    : bootstrapInterval(differences, key(0));
}

/**
 * How much worse `theirs` predicts the test text than `ours`, in nats per token: paired by seed, and by window.
 *
 * @param theirs one arm, or several with weights: the loss between theirs
 */
function lossGap(
  ours: ArmSummary,
  theirs: ArmSummary | [arm: ArmSummary, weight: number][],
): Measurement {
  const others = Array.isArray(theirs)
    ? theirs.filter(([, weight]) => weight !== 0)
    : [[theirs, 1] as [ArmSummary, number]];
  const n = seedsOf(ours, ...others.map(([arm]) => arm));
  const seedGaps = valuesAt(ours, "testLoss", n).map((loss, s) =>
    others.reduce(
      (sum, [arm, weight]) => sum + weight * valuesAt(arm, "testLoss", n)[s],
      -loss,
    )
  );
  const every = [ours, ...others.map(([arm]) => arm)]
    .every(({ series }) => series.testLossByWindow !== undefined);
  const windowGaps = every
    ? ours.series.testLossByWindow.mean.map((loss, w) =>
      others.reduce(
        (sum, [{ series }, weight]) =>
          sum + weight * series.testLossByWindow.mean[w],
        -loss,
      )
    )
    : undefined;
  const names = others.map(([arm, weight]) =>
    weight === 1
      ? `${labelOf(arm)} (${arm.id})`
      : `${weight.toFixed(2)} of ${arm.id}`
  );
  return {
    ...combined(tInterval(seedGaps), overWindows(windowGaps)),
    unit: "nats per token",
    note: `${names.join(" and ")} minus ${
      labelOf(ours)
    } (${ours.id}), ${n} seeds, paired${
      windowGaps === undefined ? "" : `, ${windowGaps.length} windows`
    }`,
  };
}

/** A mix against the line between the uniform widths around its own average bits; undefined without those arms. */
function againstUniform(
  mix: ArmSummary | undefined,
  find: (bits: number) => ArmSummary | undefined,
): Measurement | undefined {
  if (mix === undefined) return undefined;
  const bits = mix.metrics.averageBits.mean;
  const below = Math.floor(bits);
  const [low, high] = [find(below), find(below + 1)];
  if (low === undefined || high === undefined) return undefined;
  const gap = lossGap(mix, [[low, below + 1 - bits], [high, bits - below]]);
  return {
    ...gap,
    note: `${gap.note}; the mix has ${
      bits.toFixed(3)
    } bits on average over all sites, as the first layer's attention reads all tokens with 8`,
  };
}

/** How many times fewer bytes the paper's LLaMA-58M has than in 16 bits, all matrices rounded. */
function sizeRatio(bits: number): Measurement {
  const ratio = (quantised: "blocks" | "all") =>
    sizeBytes(LLAMA_58M, 16, quantised) / sizeBytes(LLAMA_58M, bits, quantised);
  const value = ratio("all");
  return {
    value,
    low: value,
    high: value,
    n: 1,
    unit: "x",
    note:
      `every matrix in ${bits} bits with a scale of 16; with embeddings and head left in 16 bits, as in the released code, ${
        ratio("blocks").toFixed(2)
      }x`,
  };
}

/** Causally evaluated loss minus loss as trained, paired by seed: what a ranking that looks ahead flatters. */
function lookingAhead(metrics: ArmSummary["metrics"]): MetricSummary {
  const { values } = metrics.causalTestLoss;
  return summariseMetric(
    values.map((loss, s) => loss - metrics.testLoss.values[s]),
  );
}

export function measure(
  arms: ArmSummary[],
  config: Config,
): Record<string, Measurement> {
  const find = (id: string) => arms.find((arm) => arm.id === id);
  const pairs = find("pairs");
  const width = headline(config);
  const measured: Record<string, Measurement> = {};
  const compare = (
    claim: string,
    ours: string,
    theirs: string,
    how: (a: ArmSummary, b: ArmSummary) => Measurement = (a, b) =>
      gain(a, b, pairs),
  ) => {
    const [a, b] = [find(ours), find(theirs)];
    if (a !== undefined && b !== undefined) measured[claim] = how(a, b);
  };
  compare("edgeqat-w4a4-llmqat", `${width}/both`, `${width}/llm-qat`);
  compare("edgeqat-w4a4-pact", `${width}/both`, `${width}/pact`);
  compare("edgeqat-w4a4-nipq", `${width}/both`, `${width}/nipq`);
  compare("edgeqat-w4a4-float", `${width}/both`, "float");
  compare("edgeqat-w8a8-float", "w8a8/both", "float");
  compare("edgeqat-w4a8-float", "w4a8/both", "float");
  compare("edgeqat-losses", `${width}/both`, `${width}/base`, lossGap);
  const released = ["both-released", "base-released"]
    .map((name) => find(`${width}/${name}`));
  if (released[0] && released[1] && "edgeqat-losses" in measured) {
    const { value, low, high, n } = lossGap(released[0], released[1]);
    measured["edgeqat-losses"].note +=
      `; with the divergence as released, which counts ${config.training.length} times as much beside them, ${
        value.toFixed(3)
      } [${low.toFixed(3)}, ${high.toFixed(3)}], ${n} seed${
        n === 1 ? "" : "s"
      }`;
  }
  compare(
    "edgeqat-losses-order",
    `${width}/distribution`,
    `${width}/entropy`,
    lossGap,
  );
  const mixed = againstUniform(
    find("w4mix0.5/whole"),
    (bits) => find(`w4a${bits}/${config.mixVariant}`),
  );
  if (mixed !== undefined) measured["edgeqat-mixed-uniform"] = mixed;
  const speed = find("speed");
  if (speed !== undefined) {
    measured["edgeqat-device"] = timeRatio(speed, "float", "w4a4", "prefill");
    measured["edgeqat-device-mixed"] = timeRatio(
      speed,
      "w4a8",
      "w4mix0.5",
      "prefill",
    );
  }
  measured["edgeqat-size-w8"] = sizeRatio(8);
  measured["edgeqat-size-w4"] = sizeRatio(4);
  return measured;
}

// Tables --------------------------------------------------------------------------------------------

const COLUMNS: [string, string][] = [
  ["minimal pairs (%)", "accuracyPercent"],
  ["test perplexity", "testPerplexity"],
  ["validation loss (nats/token)", "validationLoss"],
  ["likeness of maps", "mapLikeness"],
  ["variance of q", "varianceQ"],
  ["bits per activation", "averageBits"],
  ["size (MB)", "sizeMB"],
];

/** The first word of a phenomenon's field. */
function fieldOf(phenomenon: typeof PHENOMENA[number]): string {
  const [field] = Object.entries(FIELDS)
    .find(([, own]) => own.includes(phenomenon))!;
  return field.split(" ")[0];
}

const isMix = (engine: string) => engine.includes("mix");

/** Whether an arm's weights are rounded. */
const isQuantised = ({ bits }: ArmSummary["config"]) =>
  (bits as unknown as Bits).weight <= 8;

/** Loss on whole numbers minus loss in fake quantisation, paired by seed. */
function deploymentCost({ metrics }: ArmSummary): MetricSummary {
  const { fakeTestPerplexity: fake, engineTestPerplexity: engine } = metrics;
  return summariseMetric(
    engine.values.map((p, s) => Math.log(p / fake.values[s])),
  );
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  const runs = trained(arms);
  const rankings = runs.filter(({ metrics }) => "causalTestLoss" in metrics);
  const result: ResultTable[] = [{
    id: "edgeqat-arms",
    title: "All arms",
    caption:
      `Quality on held-out text. Every trained arm has the same start, batches, steps (${config.training.steps}) and learning rate, and learns from the float model, but for float/trained, which learns from the text alone; one scale per matrix throughout, for RTN and LLM-QAT that of the range of the whole sequence, which looks ahead. The steps of quantizers learn at the same rate too, as released, or at a tenth of it where that is said. Mean ± half of the 95 % interval over seeds, where there are several. Bits per activation: mean over the sites, softmax apart, which has 8. Size: matrices of the blocks in the bits of the weights, all else 16 bits, counted.`,
    columns: [
      "arm",
      "variant",
      "seeds",
      ...COLUMNS.map(([title]) => title),
      "training (CPU s)",
    ],
    rows: runs.map((arm) => [
      arm.id,
      labelOf(arm),
      arm.seeds.length,
      ...COLUMNS.map(([, name]) =>
        name === "sizeMB"
          ? Number((arm.metrics.sizeBytes.mean / 1e6).toPrecision(4))
          : spread(arm.metrics[name])
      ),
      arm.timings.trainSeconds === undefined
        ? null
        : Number(arm.timings.trainSeconds.mean.toPrecision(3)),
    ]),
  }, {
    id: "edgeqat-phenomena",
    title: "Minimal pairs by phenomenon",
    caption:
      "Share of pairs in % whose grammatical sentence is the more likely one; 50 % is chance. Real sentences from held-out documents of the Brown corpus, one word changed by a rule; not BLiMP itself. The number of pairs is in the second row. A model that agrees a verb with the nearest noun is below chance where that is not its subject (attractor).",
    columns: ["arm", ...PHENOMENA],
    rows: [
      ["field", ...PHENOMENA.map((name) => fieldOf(name))],
      ...arms.filter(({ id }) => id === "pairs").map(({ metrics }) => [
        "pairs",
        ...PHENOMENA.map((name) => metrics[`pairs.${name}`]?.mean ?? null),
      ]),
      ...runs.map(({ id, metrics }) => [
        id,
        ...PHENOMENA.map((name) => {
          const own = metrics[`accuracy.${name}`];
          return own === undefined ? null : spread(own);
        }),
      ]),
    ],
  }];
  if (rankings.length > 0) {
    result.push({
      id: "edgeqat-ranking",
      title: "What looking ahead is worth",
      caption:
        "Test perplexity of one trained student whose tokens get their bits by a ranking of the whole window, as in paper and code, or only of the tokens so far, which is all that a model that writes can know; students of arms named causal were trained that way. Softmax scores fall with the position, so the causal ranking gives 8 bits to fewer tokens.",
      columns: [
        "arm",
        "as trained: perplexity",
        "as trained: bits",
        "evaluated causally: perplexity",
        "evaluated causally: bits",
        "looking ahead is worth (nats per token)",
      ],
      rows: rankings.map(({ id, metrics }) => [
        id,
        spread(metrics.testPerplexity),
        spread(metrics.averageBits),
        spread(metrics.causalTestPerplexity),
        spread(metrics.causalAverageBits),
        spread(lookingAhead(metrics)),
      ]),
    });
  }
  const deployed = runs.filter(({ metrics, config }) =>
    "engineTestPerplexity" in metrics && isQuantised(config)
  );
  if (deployed.length > 0) {
    result.push({
      id: "edgeqat-deployed",
      title: "Fake quantisation against whole numbers",
      caption:
        "Perplexity of the same test windows, of students whose steps are learned or calibrated: in fake quantisation, as they were trained, and in our engine on whole numbers. There the input of o_proj, which the student leaves float, has 8 bits and for each token a step of its own; queries, keys, values and softmax are rounded to the student's steps, and multiplied as float32.",
      columns: [
        "arm",
        "variant",
        "fake quantisation: perplexity",
        "whole numbers: perplexity",
        "whole numbers cost (nats per token)",
      ],
      rows: deployed.map((arm) => [
        arm.id,
        labelOf(arm),
        spread(arm.metrics.fakeTestPerplexity),
        spread(arm.metrics.engineTestPerplexity),
        spread(deploymentCost(arm)),
      ]),
    });
  }
  const speed = arms.find(({ id }) => id === "speed");
  if (speed !== undefined) {
    result.push(speedTable(speed, {
      id: "edgeqat-speed",
      mixes: isMix,
      caption:
        `CPU time on the machine of this run, one core, WebAssembly: reading ${config.speed.tokens} tokens, and writing one. Learned steps, one a matrix; quantising the inputs and, in mixes, choosing and gathering tokens are counted; w4mix0.25 gives 8 bits to a quarter of the tokens. A token that is written is alone in its pass, with no others to be ranked among, so that the mixes have no time of writing; a mix computes the scores of attention twice, as its values are rounded by what they say. Norms, head and the products of attention are float32 in all, queries, keys, values and softmax rounded to their steps; the input of o_proj, for which nothing is learned, has 8 bits and for each token a step of its own. 4-bit codes lie in bytes, which is faster here and saves nothing. A native float library is faster than all of them (see the benchmark).`,
    }));
  }
  return result;
}

// Figures -------------------------------------------------------------------------------------------

/** Variants that a figure has in one colour. */
function familyOf({ id, config }: ArmSummary): string {
  const variant = config.variant as VariantName;
  const ranking = /^w\d+mix.*\/(whole|causal)$/.exec(id)?.[1];
  if (ranking === "whole") return "mix, ranked over the window";
  if (ranking === "causal") return "mix, ranked causally";
  if (/^(nipq|pact)/.test(variant)) return "NIPQ and PACT";
  if (/calibrated$/.test(variant)) return "EdgeQAT, calibrated start";
  if (/^float/.test(variant)) return "float";
  return ({ rtn: "RTN", "llm-qat": "LLM-QAT", lsq: "LSQ" } as Partial<
    Record<VariantName, string>
  >)[variant] ?? "EdgeQAT, released start";
}

/** Variants whose released starts leave them far from all others. */
const FAR: VariantName[] = ["nipq", "pact"];

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  const runs = trained(arms);
  const width = headline(config);
  const atHeadline = runs.filter(({ id }) => id.startsWith(`${width}/`));
  const bits = runs.filter(({ config }) =>
    (config.bits as unknown as Bits).weight === 4
  );
  return [
    barFigure(
      [...runs.filter(({ id }) => id === "float"), ...atHeadline].map((
        arm,
      ): Row => ({
        variant: labelOf(arm),
        accuracy: cell(arm.metrics.accuracyPercent),
      })),
      {
        id: "edgeqat-ablation",
        title: `Minimal pairs at ${width.toUpperCase()}`,
        caption:
          "Mean over phenomena of the pairs that are judged right; chance is 50 %. 95 % intervals over seeds; an arm without one is trained with one seed, or not at all.",
        x: "variant",
        y: "accuracy",
        yAxis: { title: "minimal pairs right", unit: "%" },
      },
    ),
    scatterFigure(
      bits.filter(({ config }) => !FAR.includes(config.variant as VariantName))
        .map((arm): Row => ({
          method: familyOf(arm),
          bits: arm.metrics.averageBits.mean,
          loss: arm.metrics.testLoss.mean,
        })),
      {
        id: "edgeqat-bits",
        title: "Bits of activations against quality, 4-bit weights",
        caption:
          "Test loss against the mean bits of a token's activations over the sites, softmax apart; mixes of 4- and 8-bit tokens lie between the uniform widths. NIPQ and PACT from their released starts lie far above and are left out here.",
        x: "bits",
        y: "loss",
        series: "method",
        xAxis: { title: "bits per activation" },
        yAxis: { title: "test loss", unit: "nats per token" },
      },
    ),
    scatterFigure(
      runs.map((arm): Row => ({
        method: familyOf(arm),
        size: arm.metrics.sizeBytes.mean / 1e6,
        accuracy: cell(arm.metrics.accuracyPercent),
      })),
      {
        id: "edgeqat-size",
        title: "Size against minimal pairs",
        caption:
          "Best is top left. Arms of one width share a size, whatever their activations have: those decide the speed, which the benchmark of the integer kernels measures.",
        x: "size",
        y: "accuracy",
        series: "method",
        xAxis: { title: "size of the weights", unit: "MB" },
        yAxis: { title: "minimal pairs right", unit: "%" },
      },
    ),
    ...paretoFigure(arms),
    ...insideFigures(runs, width),
  ];
}

/** Quality against measured speed: arms of the speed table whose students were trained. */
function paretoFigure(arms: ArmSummary[]): FigureSpec[] {
  const speed = arms.find(({ id }) => id === "speed");
  const students: [engine: string, arm: string][] = [
    ["float", "float"],
    ["w8a8", "w8a8/both"],
    ["w8a8", "w8a8/base-calibrated"],
    ["w8a8", "w8a8/both-calibrated"],
    ["w4a8", "w4a8/both"],
    ["w4a8", "w4a8/both-calibrated"],
    ...["0.75", "0.5", "0.25"].map((ratio): [string, string] => [
      `w4mix${ratio}`,
      `w4mix${ratio}/whole`,
    ]),
    ["w4a4", "w4a4/both"],
    ["w4a4", "w4a4/base-calibrated"],
    ["w4a4", "w4a4/both-calibrated"],
  ];
  const rows = students.flatMap(([engine, id]): Row[] => {
    const arm = arms.find((arm) => arm.id === id);
    if (speed?.timings[`${engine}.prefillSeconds`] === undefined) return [];
    if (arm?.metrics.engineTestPerplexity === undefined) return [];
    return [{
      student: familyOf(arm),
      speed: timeRatio(speed, "float", engine, "prefill").value,
      perplexity: cell(arm.metrics.engineTestPerplexity),
    }];
  });
  return rows.length < 2 ? [] : [scatterFigure(rows, {
    id: "edgeqat-pareto",
    title: "Quality against measured speed",
    caption:
      "Right and down is better; from left to right float32, W8A8 and W4A8 beside the mixes, W4A4. Speed of reading a prompt in our engine over its float32 self, CPU time on one core; perplexity of held-out text in the same engine, on whole numbers, 95 % intervals over seeds. The ranking of the mixes looks ahead, so their perplexity flatters.",
    x: "speed",
    y: "perplexity",
    series: "student",
    xAxis: { title: "speed / float32 of the same engine" },
    yAxis: { title: "test perplexity of the engine" },
  })];
}

/** Attention maps, codes and channels, from the arms that left them. */
function insideFigures(runs: ArmSummary[], width: string): FigureSpec[] {
  const [float, rtn, both] = ["float", `${width}/rtn`, `${width}/both`]
    .map((id) => runs.find((arm) => arm.id === id && arm.series.attentionMap));
  const figures: FigureSpec[] = [];
  for (const arm of [float, rtn, both]) {
    if (arm === undefined) continue;
    const map = arm.series.attentionMap.mean;
    const n = Math.round(Math.sqrt(map.length));
    figures.push(heatmapFigure(
      map.flatMap((value, i): Row[] => {
        const [query, key] = [Math.floor(i / n), i % n];
        return key > query ? [] : [{ query, key, value }];
      }),
      {
        id: `edgeqat-map-${arm.id.replace(/\W/g, "-")}`,
        title: `Attention map: ${labelOf(arm)} (${arm.id})`,
        caption:
          `Last layer, mean over heads, the first ${MAP_TOKENS} tokens of a held-out window; ${
            arm.seeds.length === 1
              ? "one seed"
              : `mean of ${arm.seeds.length} seeds`
          }.`,
        x: "key",
        y: "query",
        value: "value",
        xAxis: { title: "token attended to" },
        yAxis: { title: "token that attends" },
        valueAxis: { title: "attention" },
        digits: 1,
      },
    ));
  }
  const coded = [rtn, both].filter((arm) => arm?.series.weightCodes);
  if (coded.length > 0) {
    figures.push(barFigure(
      coded.flatMap((arm) =>
        arm!.series.weightCodes.mean.map((share, i): Row => ({
          method: labelOf(arm!),
          code: i - arm!.series.weightCodes.mean.length / 2,
          share: 100 * share,
        }))
      ),
      {
        id: "edgeqat-codes",
        title: "Codes of the weights",
        caption:
          "Mean over the matrices of the blocks. A range set by the largest weight leaves the outer codes empty; a learned step uses them.",
        x: "code",
        y: "share",
        series: "method",
        xAxis: { title: "code" },
        yAxis: { title: "weights", unit: "%" },
      },
    ));
  }
  const ranges = Object.entries(float?.series ?? {})
    .filter(([name]) => name.startsWith("range."));
  if (ranges.length > 0) {
    figures.push(lineFigure(
      ranges.flatMap(([name, { mean }]) =>
        mean.map((largest, i): Row => ({
          what: name.slice("range.".length),
          rank: 100 * i / (mean.length - 1),
          relative: largest / mean[0],
        }))
      ),
      {
        id: "edgeqat-channels",
        title: "Ranges of channels in the float model",
        caption:
          "Largest magnitude of each channel of the last layer over that of its widest one, channels sorted. One scale for the matrix has to serve them all: a channel at 0.1 has a tenth of the codes.",
        x: "rank",
        y: "relative",
        series: "what",
        xAxis: { title: "channels", unit: "%" },
        yAxis: { title: "range relative to the widest", range: [0, 1.05] },
      },
    ));
  }
  return figures;
}
