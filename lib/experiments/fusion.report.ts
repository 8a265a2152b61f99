/** What the fusion runs say: claims, tables and figures. Reads summaries, computes no runs. */
import { barFigure, heatmapFigure, lineFigure } from "../core/figure.ts";
import type {
  ArmSummary,
  FigureSpec,
  Measurement,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import { mean, pairedDifference, tInterval, tQuantile } from "../core/stats.ts";
import type { Row } from "../core/table.ts";
import { armId, type Config, WEIGHT_BINS } from "./fusion.ts";
import {
  DOUBTFUL,
  FOREIGN,
  METHODS,
  sourcesOf,
  TAUS,
} from "./fusion.methods.ts";

const UNIT = "bits per byte";

const cell = ({ mean, low, high, n }: MetricSummary) => ({
  mean,
  halfWidth: n > 1 ? (high - low) / 2 : 0,
  n,
});

function spread(
  { mean, low, high, n }: Omit<MetricSummary, "sd" | "values">,
  digits = 3,
): string {
  return n > 1
    ? `${mean.toFixed(digits)} ± ${((high - low) / 2).toFixed(digits)}`
    : mean.toFixed(digits);
}

/** Mean over seeds with its interval, as `spread` and `cell` want it. */
function over(values: number[]): MetricSummary {
  const { value, low, high, n } = tInterval(values);
  return { mean: value, low, high, n, sd: 0, values };
}

const seedsOf = (n: number) => `${n} seed${n === 1 ? "" : "s"}`;

/** How much more bits per byte than another arm, for each seed. */
const excess = (arm: ArmSummary, control: ArmSummary) =>
  over(
    arm.metrics.meanBits.values.map((x, s) =>
      x - control.metrics.meanBits.values[s]
    ),
  );

const labelOf = ({ config }: ArmSummary) =>
  METHODS[config.method as string].label;

// Interference --------------------------------------------------------------------------------------

/** Domains on which an arm is worse than training without sources, and by how much in all. */
export function interference(
  bits: readonly number[],
  control: readonly number[],
): { count: number; sum: number } {
  const worse = bits.map((b, d) => b - control[d]).filter((x) => x > 0);
  return { count: worse.length, sum: worse.reduce((a, b) => a + b, 0) };
}

/** The interference of an arm for each seed, against the same seed without sources. */
function harms(
  arm: ArmSummary,
  control: ArmSummary,
  domains: readonly string[],
): { count: number; sum: number }[] {
  const bits = ({ metrics }: ArmSummary, s: number) =>
    domains.map((domain) => metrics[`bits.${domain}`].values[s]);
  return arm.seeds.map((_, s) => interference(bits(arm, s), bits(control, s)));
}

/**
 * By how many percent b is smaller than a, 100 (1 - mean(b) / mean(a)), with Fieller's interval for the
 * ratio of paired means (E. C. Fieller, J. R. Stat. Soc. B 16 (1954) 175).
 *
 *   rho = (R - g c / v_a -+ t/mean(a) sqrt(v_b - 2 R c + R^2 v_a - g (v_b - c^2 / v_a))) / (1 - g),
 *   R = mean(b) / mean(a),  g = t^2 v_a / mean(a)^2,  v_a, v_b, c variances and covariance of the means
 *
 * A text instead of numbers where there is nothing to reduce: mean(a) is not above 0 beyond its own interval
 * (g >= 1), so the ratio has no bounded interval.
 */
export function reduction(
  a: readonly number[],
  b: readonly number[],
): { value: number; low: number; high: number; n: number } | string {
  const n = a.length;
  const [A, B] = [mean(a), mean(b)];
  if (!(A > 0)) return "there is nothing to reduce: 0";
  const R = B / A;
  if (n === 1) {
    const value = 100 * (1 - R);
    return { value, low: value, high: value, n };
  }
  const covariance = (x: readonly number[], y: readonly number[]) => {
    const [mx, my] = [mean(x), mean(y)];
    return x.reduce((sum, v, i) => sum + (v - mx) * (y[i] - my), 0) /
      (n - 1) / n;
  };
  const [va, vb, c] = [covariance(a, a), covariance(b, b), covariance(a, b)];
  const t = tQuantile(0.95, n - 1);
  const g = t * t * va / (A * A);
  if (g >= 1) {
    return `what is to be reduced is not above 0 beyond its interval: ${
      A.toFixed(4)
    } ± ${(t * Math.sqrt(va)).toFixed(4)}, n = ${n}`;
  }
  const shift = va > 0 ? g * c / va : 0;
  const rest = va > 0 ? g * (vb - c * c / va) : 0;
  const root = t / A *
    Math.sqrt(Math.max(0, vb - 2 * R * c + R * R * va - rest));
  const [low, high] = [
    (R - shift - root) / (1 - g),
    (R - shift + root) / (1 - g),
  ];
  return {
    value: 100 * (1 - R),
    low: 100 * (1 - high),
    high: Math.min(100, 100 * (1 - low)), // b is not below 0
    n,
  };
}

// Claims --------------------------------------------------------------------------------------------

/**
 * Experts that are not ahead of the base and of every other expert on their own domain, with the mean lead
 * over seeds: they would have nothing to teach, so nothing is claimed.
 */
export function failingExperts(
  sources: ArmSummary,
  { domains }: Pick<Config, "domains">,
): string[] {
  return domains.flatMap((domain) => {
    const lead = sources.metrics[`lead.${domain}`];
    return lead.mean > 0 ? [] : [`${domain} (${lead.mean.toFixed(3)} ${UNIT})`];
  });
}

/** A measurement that is refused. */
const refuse = (unit: string, refused: string): Measurement => ({
  value: 0,
  low: 0,
  high: 0,
  n: 0,
  unit,
  refused,
});

/** How much lower the mean bits per byte of `ours` are, paired by seed. */
function gain(
  ours: MetricSummary,
  theirs: MetricSummary,
  what: string,
): Measurement {
  return {
    ...pairedDifference(theirs.values, ours.values),
    unit: UNIT,
    note: `${what}, mean over domains, ${seedsOf(ours.n)}, paired`,
  };
}

/** Claims of which each measurement depends on the experts. */
const CLAIMED_UNITS: Record<string, string> = {
  "fusion-interference": "%",
  "fusion-interference-half": "%",
  "fusion-fusellm": UNIT,
  "fusion-fusellm-half": UNIT,
  "fusion-mince": UNIT,
  "fusion-ensemble": UNIT,
  "fusion-scalable": UNIT,
  "fusion-selection": UNIT,
};

export function measure(
  arms: ArmSummary[],
  config: Config,
): Record<string, Measurement> {
  const { domains, lambdas: [first], pools } = config;
  const find = (id: string) => arms.find((arm) => arm.id === id);
  const at = (method: string, pool = "all", lambda = first) =>
    find(armId("pure", pool, method, lambda));
  const sources = find("sources");
  if (sources === undefined) return {};
  const { parameters } = sources.metrics;
  const measured: Record<string, Measurement> = {
    "fusion-memory": {
      value: domains.length * parameters.mean / parameters.mean,
      low: domains.length,
      high: domains.length,
      n: 1,
      unit: "x",
      note:
        `${domains.length} experts of ${parameters.mean} weights against one`,
    },
  };
  const failing = failingExperts(sources, config);
  if (failing.length > 0) {
    const reason =
      `refused, as every expert must be the best on its own domain; not ahead there: ${
        failing.join(", ")
      }`;
    for (const [id, unit] of Object.entries(CLAIMED_UNITS)) {
      measured[id] = refuse(unit, reason);
    }
    return measured;
  }
  const clm = find("pure/clm");
  for (
    const [suffix, lambda] of [["", 0.9], ["-half", 0.5]] as const
  ) {
    const [ours, average] = [
      at("gate", "all", lambda),
      at("avgce", "all", lambda),
    ];
    if (!ours || !average || !clm) continue;
    measured[`fusion-fusellm${suffix}`] = gain(
      ours.metrics.meanBits,
      average.metrics.meanBits,
      `FuseLLM AvgCE minus Fusion-X, lambda ${lambda}`,
    );
    const [a, b] = [average, ours].map((arm) => harms(arm, clm, domains));
    const sums = (own: { sum: number }[]) => own.map(({ sum }) => sum);
    const counts = (own: { count: number }[]) =>
      mean(own.map(({ count }) => count)).toFixed(1);
    const estimate = reduction(sums(a), sums(b));
    const note =
      `summed loss of domains below plain training, lambda ${lambda}: AvgCE ${
        mean(sums(a)).toFixed(4)
      } ${UNIT} on ${counts(a)} of ${domains.length} domains, Fusion-X ${
        mean(sums(b)).toFixed(4)
      } on ${counts(b)}; means over ${
        seedsOf(ours.seeds.length)
      }, Fieller's interval`;
    measured[`fusion-interference${suffix}`] = typeof estimate === "string"
      ? refuse("%", `no ratio of interference, as ${estimate} (${note})`)
      : { ...estimate, unit: "%", note };
  }
  const [ours, best] = [at("gate"), at("mince")];
  if (ours && best) {
    measured["fusion-mince"] = gain(
      ours.metrics.meanBits,
      best.metrics.meanBits,
      `FuseLLM MinCE minus Fusion-X, lambda ${first}`,
    );
  }
  if (ours) {
    const rivals = Object.entries(sources.metrics)
      .filter(([name]) => /^meanBits\.(ensemble|merge)/.test(name))
      .sort(([, a], [, b]) => a.mean - b.mean);
    const [name, strongest] = rivals[0];
    measured["fusion-ensemble"] = gain(
      ours.metrics.meanBits,
      strongest,
      `${
        name.replace("meanBits.", "")
      }, the best of ${rivals.length}, minus Fusion-X, lambda ${first}`,
    );
  }
  const grown = pools.filter((pool) => pool.startsWith("grown-"));
  const points = grown.flatMap((pool) => {
    const arm = at("gate", pool);
    if (arm === undefined) return [];
    const { value, low, high } = tInterval(arm.metrics.meanBits.values);
    return [{ x: sourcesOf(pool, domains).length, value, low, high }];
  });
  if (points.length > 1) {
    const { value, low, high } = points[points.length - 1];
    measured["fusion-scalable"] = {
      value,
      low: low ?? value,
      high: high ?? value,
      n: config.seeds,
      unit: UNIT,
      note:
        `Fusion-X at each number of sources: base and up to four experts, then ${
          Object.keys(DOUBTFUL).slice(0, 3).join(", ")
        }`,
      points,
    };
  }
  const [clean, dirty] = ["grown-5", "grown-8"].map((pool) => ({
    ours: at("gate", pool)?.metrics.meanBits,
    theirs: at("avgce", pool)?.metrics.meanBits,
  }));
  if (clean.ours && clean.theirs && dirty.ours && dirty.theirs) {
    const rise = (after: MetricSummary, before: MetricSummary) =>
      after.values.map((x, s) => x - before.values[s]);
    const [theirs, own] = [
      rise(dirty.theirs, clean.theirs),
      rise(dirty.ours, clean.ours),
    ];
    measured["fusion-selection"] = {
      ...pairedDifference(theirs, own),
      unit: UNIT,
      note: `with three doubtful sources added AvgCE gets worse by ${
        mean(theirs).toFixed(4)
      }, Fusion-X by ${mean(own).toFixed(4)}; ${seedsOf(own.length)}, paired`,
    };
  }
  return measured;
}

// Tables --------------------------------------------------------------------------------------------

/** Rows of arms against their control. */
function methodRows(
  arms: ArmSummary[],
  control: ArmSummary | undefined,
  { domains }: Config,
): (string | number | null)[][] {
  return arms.map((arm) => {
    const { conflictRatio, lastSelected, lastCv2, meanBits } = arm.metrics;
    const compared = control !== undefined && control !== arm;
    const lost = compared ? harms(arm, control, domains) : null;
    const { value, ...ends } = compared
      ? pairedDifference(meanBits.values, control.metrics.meanBits.values)
      : { value: 0, low: 0, high: 0, n: 1 };
    return [
      labelOf(arm),
      arm.config.method === "clm" ? null : arm.config.lambda as number,
      spread(meanBits),
      compared ? spread({ mean: value, ...ends }, 4) : null,
      lost && spread(over(lost.map(({ count }) => count)), 1),
      lost && spread(over(lost.map(({ sum }) => sum)), 4),
      conflictRatio === undefined ? null : spread(conflictRatio, 2),
      lastSelected === undefined ? null : spread(lastSelected, 1),
      lastCv2 === undefined ? null : spread(lastCv2, 2),
    ];
  });
}

const METHOD_COLUMNS = [
  "method",
  "lambda",
  UNIT,
  `minus CLM (${UNIT})`,
  "domains worse",
  `summed loss (${UNIT})`,
  "steps with opposed gradients (share)",
  "sources used",
  "CV²",
];

const of = (arms: ArmSummary[], blocks: string, pool?: string) =>
  arms.filter(({ config }) =>
    "method" in config && config.blocks === blocks &&
    (pool === undefined || config.pool === pool)
  );

function sourcesTable(sources: ArmSummary, config: Config): ResultTable {
  const { domains } = config;
  const failing = failingExperts(sources, config);
  const scale = (name: string) => {
    const own = sources.metrics[`scale.${name}`];
    return own === undefined ? "" : `${name} ${own.values.join(", ")}`;
  };
  return {
    id: "fusion-sources",
    title: "Sources, ensembles, merged weights",
    caption: `Bits per byte on each domain's held-out text. ${
      failing.length === 0
        ? "Every expert is ahead of the base and of all other experts on its own domain"
        : `Not ahead on their own domain, so that no claim is judged: ${
          failing.join(", ")
        }`
    }. Merging scales chosen on validation text, per seed: ${
      scale("task-arithmetic")
    }; ${scale("ties")}.`,
    columns: ["model", ...domains, "mean"],
    rows: Object.keys(sources.series)
      .filter((name) => name.startsWith("bits."))
      .map((name) => [
        name.slice(5),
        ...sources.series[name].mean.map((x) => Number(x.toFixed(3))),
        spread(sources.metrics[`meanBits.${name.slice(5)}`]),
      ]),
  };
}

/** Forward passes and bytes of each way to use K sources. */
function costTable(
  sources: ArmSummary,
  { domains, windows, fuse: { length } }: Config,
): ResultTable {
  const K = domains.length + 1; // with the base
  const E = domains.length;
  const modelBytes = 4 * sources.metrics.parameters.mean;
  const cached = sources.metrics.cacheBytesPerToken.mean * windows * length;
  const seconds = sources.timings.pureCacheSeconds;
  return {
    id: "fusion-cost",
    title: "What each way costs",
    caption:
      `Forward passes for a token at inference, and for a text of the training set before training starts; 32-bit weights of ${sources.metrics.parameters.mean} parameters; cached predictions (ten logits of each source, with probabilities of the true token, entropy and peak: ${
        sources.metrics.cacheBytesPerToken.mean.toFixed(1)
      } bytes for a token and source) of ${windows} texts of ${length} tokens.${
        seconds === undefined
          ? ""
          : ` Asking all sources took ${
            seconds.mean.toPrecision(3)
          } s of processor time, once for all methods.`
      }`,
    columns: [
      "way",
      "forward passes at inference",
      "weights in memory at inference (bytes)",
      "forward passes of sources per training text",
      "cached predictions (bytes)",
    ],
    rows: [
      ["base, or continued without sources", 1, modelBytes, 0, 0],
      [`ensemble of ${E} experts`, E, E * modelBytes, 0, 0],
      [`merged weights of ${E} experts`, 1, modelBytes, 0, 0],
      ["single teacher", 1, modelBytes, K, cached],
      ["MinCE, AvgCE, uniform", 1, modelBytes, K, K * cached],
      ["Fusion-X", 1, modelBytes, K, K * cached],
    ],
  };
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  const { domains, lambdas: [first], pools, poolMethods } = config;
  const sources = arms.find(({ id }) => id === "sources");
  const control = arms.find(({ id }) => id === "pure/clm");
  const seeds = `Mean ± half of the 95 % interval, ${seedsOf(config.seeds)}`;
  const result: ResultTable[] = [{
    id: "fusion-methods",
    title: "All methods, base and all experts as sources",
    caption:
      `Bits per byte on held-out text, mean over ${domains.length} domains; lower is better. Same start, texts, order and ${config.fuse.steps} steps for all. Interference in three ways: domains worse than training on the same text without sources (CLM), the sum of these losses, and the share of steps at which the gradients of sources and true tokens point apart. ${seeds}, differences paired.`,
    columns: METHOD_COLUMNS,
    rows: methodRows(of(arms, "pure", "all"), control, config),
  }];
  const main = of(arms, "pure", "all")
    .filter(({ config }) => config.lambda === first);
  result.push({
    id: "fusion-domains",
    title: "By domain",
    caption: `Bits per byte on held-out text, lambda ${first}. ${seeds}.`,
    columns: ["method", ...domains],
    rows: main.map((arm) => [
      labelOf(arm),
      ...domains.map((domain) => spread(arm.metrics[`bits.${domain}`])),
    ]),
  });
  if (sources !== undefined) {
    result.push(sourcesTable(sources, config), costTable(sources, config));
  }
  const shown = [...pools, "all"].filter((pool) => pool !== "foreign")
    .sort((a, b) =>
      sourcesOf(a, domains).length - sourcesOf(b, domains).length
    );
  if (pools.length > 0) {
    result.push({
      id: "fusion-pools",
      title: "Pools of sources",
      caption:
        `Bits per byte minus those of CLM, paired, mean over all ${domains.length} domains (the four without an expert in the smaller pools as well), lambda ${first}. Doubtful sources: ${
          Object.entries(DOUBTFUL).map(([name, what]) => `${name}, ${what}`)
            .join("; ")
        }. ${seeds}.`,
      columns: [
        "sources",
        "pool",
        ...poolMethods.flatMap((method) => [
          METHODS[method].label,
          `used by ${METHODS[method].label}`,
        ]),
      ],
      rows: shown.map((pool) => {
        const names = sourcesOf(pool, domains);
        return [
          names.length,
          names.join(", "),
          ...poolMethods.flatMap((method) => {
            const arm = arms.find(({ id }) =>
              id === armId("pure", pool, method, first)
            );
            const own = arm?.metrics;
            return [
              arm === undefined || control === undefined
                ? null
                : spread(excess(arm, control), 4),
              own === undefined ? null : spread(own.lastSelected, 1),
            ];
          }),
        ];
      }),
    });
  }
  if (of(arms, "mixed").length > 0) {
    result.push({
      id: "fusion-mixed",
      title: "Texts of two domains",
      caption:
        `Each training text is half of one domain and half of another, so that one weight for a text fits neither half; the same measures as above, against CLM on these texts. ${seeds}.`,
      columns: METHOD_COLUMNS,
      rows: methodRows(
        of(arms, "mixed"),
        arms.find(({ id }) => id === "mixed/clm"),
        config,
      ),
    });
  }
  if (of(arms, "pure", "foreign").length > 0 && sources !== undefined) {
    const { alignedRatio, foreignVocabSize, vocabSize } = sources.metrics;
    const domain = domains[3];
    result.push({
      id: "fusion-tokenizers",
      title: "A source with another tokenizer",
      caption:
        `The expert of ${domain} missing, with the target's ${vocabSize.mean} tokens, and with ${foreignVocabSize.mean} tokens of its own, aligned by dynamic time warping (${
          (100 * alignedRatio.mean).toFixed(1)
        } % of positions carried over, the true token elsewhere). Bits per byte on ${domain} and in the mean; lambda ${first}. ${seeds}.`,
      columns: [
        "method",
        "pool",
        domain,
        "mean",
        "weight of the expert on its domain",
      ],
      rows: poolMethods.flatMap((method) =>
        ["grown-4", "grown-5", "foreign"].flatMap((pool) => {
          const arm = arms.find(({ id }) =>
            id === armId("pure", pool, method, first)
          );
          if (arm === undefined) return [];
          const names = sourcesOf(pool, domains);
          const at = Math.max(names.indexOf(domain), names.indexOf(FOREIGN));
          const weights = arm.series.lastWeights?.mean;
          return [[
            labelOf(arm),
            pool === "grown-4"
              ? "without"
              : pool === "grown-5"
              ? "same tokens"
              : "other tokens",
            spread(arm.metrics[`bits.${domain}`]),
            spread(arm.metrics.meanBits),
            at < 0 || weights === undefined
              ? null
              : Number(weights[3 * names.length + at].toFixed(2)),
          ]];
        })
      ),
    });
  }
  return result;
}

// Figures -------------------------------------------------------------------------------------------

/** Methods of the bars; the rest is in the table. */
const BARS = [
  "clm",
  "uniform",
  "avgce",
  "mince",
  "single",
  "random",
  "gate",
  "gate-gold",
];

/** A weight of domains by sources as a heat map's rows. */
function weightRows(weights: number[], config: Config, pool: string): Row[] {
  const names = sourcesOf(pool, config.domains);
  return config.domains.flatMap((domain, d) =>
    names.map((source, k): Row => ({
      domain,
      source,
      weight: Number(weights[d * names.length + k].toFixed(3)),
    }))
  );
}

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  const { domains, lambdas: [first], pools, poolMethods, fuse: { steps } } =
    config;
  const find = (method: string, pool = "all", lambda = first) =>
    arms.find(({ id }) => id === armId("pure", pool, method, lambda));
  const control = find("clm");
  const seeds = `95 % intervals over ${seedsOf(config.seeds)}`;
  const bars = BARS.flatMap((method) => find(method) ?? []);
  const specs: FigureSpec[] = [];
  const both = config.lambdas.flatMap((lambda) =>
    BARS.flatMap((method) => {
      const arm = method === "clm" ? undefined : find(method, "all", lambda);
      return arm === undefined ? [] : [{ arm, lambda: `lambda ${lambda}` }];
    })
  );
  if (control !== undefined && both.length > 0) {
    specs.push(
      barFigure(
        both.map(({ arm, lambda }): Row => ({
          method: labelOf(arm),
          lambda,
          gain: cell(excess(arm, control)),
        })),
        {
          id: "fusion-bits",
          title: "Held-out text against training without sources",
          caption:
            `Bits per byte minus those of CLM on the same texts, mean over ${domains.length} domains; below 0 the sources helped; ${seeds}, paired.`,
          x: "method",
          y: "gain",
          series: "lambda",
          yAxis: { title: "difference to CLM", unit: UNIT },
        },
      ),
      barFigure(
        both.map(({ arm, lambda }): Row => ({
          method: labelOf(arm),
          lambda,
          harm: cell(over(
            harms(arm, control, domains).map(({ sum }) => sum),
          )),
        })),
        {
          id: "fusion-interference",
          title: "Interference",
          caption:
            `Sum over the domains that end up worse than with CLM of what they lose; ${seeds}.`,
          x: "method",
          y: "harm",
          series: "lambda",
          yAxis: { title: "summed loss", unit: UNIT },
        },
      ),
    );
  }
  const grown = poolMethods.flatMap((method) =>
    pools.filter((pool) => pool.startsWith("grown-")).flatMap((pool): Row[] => {
      const arm = find(method, pool);
      return arm === undefined || control === undefined ? [] : [{
        sources: sourcesOf(pool, domains).length,
        method: labelOf(arm),
        bits: cell(excess(arm, control)),
      }];
    })
  );
  if (grown.length > 0) {
    specs.push(lineFigure(grown, {
      id: "fusion-pools",
      title: "More sources, then worse ones",
      caption:
        `Base and one to four experts up to 5 sources; then a weak, a redundant and a corrupted one. Bits per byte minus those of CLM, mean over all ${domains.length} domains, also the four without an expert; ${seeds}, paired.`,
      x: "sources",
      y: "bits",
      series: "method",
      xAxis: { title: "sources" },
      yAxis: { title: "difference to CLM", unit: UNIT },
    }));
  }
  const ours = find("gate");
  for (
    const [part, title] of [["first", "start"], ["last", "end"]] as const
  ) {
    const weights = ours?.series[`${part}Weights`]?.mean;
    if (!weights?.some((w) => w > 0)) continue;
    specs.push(heatmapFigure(weightRows(weights, config, "all"), {
      id: `fusion-weights-${part}`,
      title: `Weights of the sources at the ${title} of training`,
      caption:
        `Fusion-X, mean over the texts of the ${part} tenth of ${steps} steps and ${
          seedsOf(config.seeds)
        }; texts of a domain in each row.`,
      x: "source",
      y: "domain",
      value: "weight",
      digits: 2,
      valueAxis: { title: "weight" },
    }));
  }
  const names = sourcesOf("all", domains);
  const overTime = ours?.series.weightsOverTime?.mean;
  if (overTime !== undefined) {
    const bins = overTime.length / names.length;
    const size = Math.max(1, Math.floor(steps / WEIGHT_BINS));
    specs.push(heatmapFigure(
      Array.from({ length: bins }, (_, i) =>
        names.map((source, k): Row => ({
          source,
          step: i * size,
          weight: Number(overTime[i * names.length + k].toFixed(3)),
        }))).flat(),
      {
        id: "fusion-weights-time",
        title: "Weights of the sources during training",
        caption: `Fusion-X, mean over texts of all domains and ${
          seedsOf(config.seeds)
        }; ${size} steps in each column, from the step written below it.`,
        x: "step",
        y: "source",
        value: "weight",
        digits: 2,
        valueAxis: { title: "weight" },
      },
    ));
  }
  const feedbacks: [string, string][] = [
    ["gate-feedback0", "feedback 0"],
    ["gate-feedback0.05", "feedback 0.05"],
    ["gate", "feedback 0.5"],
  ];
  for (
    const [series, title, y, text] of [
      [
        "cv2",
        "Balance of the sources",
        "CV²",
        `Squared coefficient of variation of a batch's weights: 0 if all sources are used alike, ${names.length} if one takes all`,
      ],
      [
        "selected",
        "Sources that pass the threshold",
        "sources",
        "Mean number of sources used for a text",
      ],
    ]
  ) {
    const rows = feedbacks.flatMap(([method, feedback]): Row[] =>
      (find(method)?.series[series]?.mean ?? []).flatMap((_, step, all) =>
        step % 5 === 0
          ? [{ step, feedback, value: mean(all.slice(step, step + 5)) }]
          : []
      )
    );
    if (rows.length === 0) continue;
    specs.push(lineFigure(rows, {
      id: `fusion-${series}`,
      title,
      caption:
        `${text}; Fusion-X with three weights of the feedback loss, means of five steps and ${
          seedsOf(config.seeds)
        }.`,
      x: "step",
      y: "value",
      series: "feedback",
      xAxis: { title: "step" },
      yAxis: { title: y },
    }));
  }
  const taus = TAUS.flatMap((tau): Row[] => {
    const arm = find(`gate-tau${tau}`);
    return arm === undefined || control === undefined ? [] : [{
      tau,
      bits: cell(excess(arm, control)),
      used: cell(arm.metrics.lastSelected),
    }];
  });
  if (taus.length > 0) {
    const shared =
      `Fusion-X with ${names.length} sources; one over their number is ${
        (1 / names.length).toFixed(3)
      }; ${seeds}.`;
    specs.push(
      lineFigure(taus, {
        id: "fusion-tau",
        title: "Threshold and loss",
        caption: `Bits per byte minus those of CLM, paired. ${shared}`,
        x: "tau",
        y: "bits",
        xAxis: { title: "tau" },
        yAxis: { title: "difference to CLM", unit: UNIT },
      }),
      lineFigure(taus, {
        id: "fusion-tau-used",
        title: "Threshold and sources used",
        caption: `At the end of training. ${shared}`,
        x: "tau",
        y: "used",
        xAxis: { title: "tau" },
        yAxis: { title: "sources used for a text" },
      }),
    );
  }
  if (bars.length > 0 && control !== undefined) {
    specs.push(heatmapFigure(
      bars.filter((arm) => arm !== control).flatMap((arm) =>
        domains.map((domain): Row => ({
          method: labelOf(arm),
          domain,
          gain: Number((1000 * (arm.metrics[`bits.${domain}`].mean -
            control.metrics[`bits.${domain}`].mean)).toFixed(1)),
        }))
      ),
      {
        id: "fusion-domains",
        title: "Which domains gain and lose",
        caption:
          `Difference to CLM in thousandths of a bit per byte, lambda ${first}, mean over ${
            seedsOf(config.seeds)
          }; above 0 the sources interfered.`,
        x: "domain",
        y: "method",
        value: "gain",
        valueAxis: { title: "to CLM", unit: `0.001 ${UNIT}` },
      },
    ));
  }
  return specs;
}
