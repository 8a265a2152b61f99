/** What the fusion runs say: claims, tables and figures. Reads summaries, computes no runs. */
import { barFigure, heatmapFigure, lineFigure } from "../core/figure.ts";
import type {
  ArmSummary,
  FigureSpec,
  Measurement,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import { mean, pairedDifference, tInterval } from "../core/stats.ts";
import type { Row } from "../core/table.ts";
import {
  type Config,
  type MethodName,
  METHODS,
  sourceNames,
} from "./fusion.ts";

const cell = ({ mean, low, high, n }: MetricSummary) => ({
  mean,
  halfWidth: n > 1 ? (high - low) / 2 : 0,
  n,
});

function spread({ mean, low, high, n }: MetricSummary): string {
  return n > 1
    ? `${mean.toFixed(3)} ± ${((high - low) / 2).toFixed(3)}`
    : mean.toFixed(3);
}

const fused = (arms: ArmSummary[]) =>
  arms.filter(({ config }) => "method" in config);
const labelOf = ({ config }: ArmSummary) =>
  METHODS[config.method as MethodName].label;

/** Domains on which an arm is worse than training without sources, and by how much in all. */
export function interference(
  bits: readonly number[],
  control: readonly number[],
): { count: number; sum: number } {
  const worse = bits.map((b, d) => b - control[d]).filter((x) => x > 0);
  return { count: worse.length, sum: worse.reduce((a, b) => a + b, 0) };
}

/** The series of means over seeds, as only these are kept. */
const harm = (arm: ArmSummary, control: ArmSummary) =>
  interference(arm.series.bits.mean, control.series.bits.mean);

/** How much lower the mean bits per byte of `ours` are, paired by seed. */
function gain(ours: ArmSummary, theirs: ArmSummary): Measurement {
  return {
    ...pairedDifference(
      theirs.metrics.meanBits.values,
      ours.metrics.meanBits.values,
    ),
    unit: "bits per byte",
    note: `${labelOf(theirs)} minus ${
      labelOf(ours)
    }, mean over domains, ${ours.seeds.length} seeds, paired`,
  };
}

export function measure(
  arms: ArmSummary[],
  config: Config,
): Record<string, Measurement> {
  const find = (id: string) => arms.find((arm) => arm.id === id);
  const K = config.domains.length + 1;
  const lambda = config.lambdas[0];
  const at = (method: string, pool = K) =>
    find(`pure/${pool}/${method}/${lambda}`);
  const sources = find("sources");
  const measured: Record<string, Measurement> = {};
  if (sources === undefined) return measured;
  const { parameters } = sources.metrics;
  measured["fusion-memory"] = {
    value: config.domains.length * parameters.mean / parameters.mean,
    low: config.domains.length,
    high: config.domains.length,
    n: 1,
    unit: "x",
    note:
      `${config.domains.length} experts of ${parameters.mean} weights against one`,
  };
  // Experts that are not the best on their own domain would have nothing to teach.
  if (sources.metrics.diagonalRatio.mean < 1) return measured;
  const [ours, average, best, clm] = [
    at("gate"),
    at("avgce"),
    at("mince"),
    find("pure/clm"),
  ];
  if (ours && average) measured["fusion-fusellm"] = gain(ours, average);
  if (ours && best) measured["fusion-mince"] = gain(ours, best);
  if (ours && average && clm) {
    const [a, b] = [harm(average, clm), harm(ours, clm)];
    // Per seed: how much each domain mean moves against the control, before positive parts are taken.
    const gaps = pairedDifference(
      average.metrics.meanBits.values,
      ours.metrics.meanBits.values,
    );
    const scale = a.sum > 0 ? 100 * config.domains.length / a.sum : 0;
    const value = a.sum > 0 ? 100 * (1 - b.sum / a.sum) : 0;
    const half = scale * (gaps.high - gaps.low) / 2;
    measured["fusion-interference"] = {
      value,
      low: value - half,
      high: value + half,
      n: ours.seeds.length,
      unit: "%",
      note: `summed loss of domains below plain training: AvgCE ${
        a.sum.toFixed(4)
      } bits per byte on ${a.count} of ${config.domains.length} domains, Fusion-X ${
        b.sum.toFixed(4)
      } on ${b.count}; interval from the paired difference of means`,
    };
  }
  const points = config.pools.flatMap((pool) => {
    const arm = at("gate", pool);
    if (arm === undefined) return [];
    const { value, low, high } = tInterval(arm.metrics.meanBits.values);
    return [{ x: pool, value, low, high }];
  });
  if (points.length > 1) {
    const last = points[points.length - 1];
    measured["fusion-scalable"] = {
      value: last.value,
      low: last.low,
      high: last.high,
      n: config.seeds,
      unit: "bits per byte",
      note: "Fusion-X, mean over domains, at each number of sources",
      points,
    };
  }
  return measured;
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  const sources = arms.find(({ id }) => id === "sources");
  const control = arms.find(({ id }) => id === "pure/clm");
  const result: ResultTable[] = [{
    id: "fusion-methods",
    title: "All methods",
    caption:
      `Bits per byte on held-out text, mean over ${config.domains.length} domains; lower is better. Same start, texts, order and ${config.fuse.steps} steps for all. Interference: domains worse than training on the same text without sources, and the sum of these losses, from means over seeds. Mean ± half of the 95 % interval, ${config.seeds} seeds.`,
    columns: [
      "arm",
      "method",
      "bits per byte",
      "domains worse",
      "summed loss (bits per byte)",
      "steps with opposed gradients",
      "sources used",
      "CV²",
      "training (CPU s)",
    ],
    rows: fused(arms).map((arm) => {
      const mixed = arm.id.startsWith("mixed");
      const own = mixed ? arms.find(({ id }) => id === "mixed/clm") : control;
      const lost = own && harm(arm, own);
      const { conflictRatio, lastSelected, lastCv2, meanBits } = arm.metrics;
      return [
        arm.id,
        labelOf(arm),
        spread(meanBits),
        lost?.count ?? null,
        lost === undefined ? null : Number(lost.sum.toFixed(4)),
        conflictRatio === undefined ? null : spread(conflictRatio),
        lastSelected === undefined ? null : spread(lastSelected),
        lastCv2 === undefined ? null : spread(lastCv2),
        arm.timings.trainSeconds === undefined
          ? null
          : Number(arm.timings.trainSeconds.mean.toPrecision(3)),
      ];
    }),
  }];
  if (sources !== undefined) {
    const names = Object.keys(sources.series)
      .filter((name) => name.startsWith("bits."))
      .map((name) => name.slice(5));
    const K = config.domains.length;
    result.push({
      id: "fusion-sources",
      title: "Sources, ensembles, merged weights",
      caption:
        `Bits per byte on each domain's held-out text. Share of domains on which their own expert is the best expert and better than the base: ${
          sources.metrics.diagonalRatio.mean.toFixed(2)
        }; below 1 nothing is claimed. Ensembles need ${K} forward passes for a token and all experts in memory.`,
      columns: [
        "model",
        ...config.domains,
        "mean",
        "forward passes",
        "memory (bytes)",
      ],
      rows: names.map((name) => {
        const copies = name.startsWith("ensemble") ? K : 1;
        return [
          name,
          ...sources.series[`bits.${name}`].mean.map((x) =>
            Number(x.toFixed(3))
          ),
          spread(sources.metrics[`meanBits.${name}`]),
          copies,
          4 * copies * sources.metrics.parameters.mean,
        ];
      }),
    });
  }
  return result;
}

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  const K = config.domains.length + 1;
  const lambda = config.lambdas[0];
  const main = fused(arms).filter(({ id, config }) =>
    id === "pure/clm" ||
    id === `pure/${K}/${config.method}/${lambda}`
  );
  const specs: FigureSpec[] = [
    barFigure(
      main.map((arm): Row => ({
        method: labelOf(arm),
        bits: cell(arm.metrics.meanBits),
      })),
      {
        id: "fusion-bits",
        title: `Held-out text after training, lambda ${lambda}`,
        caption:
          `Mean over ${config.domains.length} domains, lower is better; 95 % intervals over ${config.seeds} seeds.`,
        x: "method",
        y: "bits",
        yAxis: { title: "test loss", unit: "bits per byte" },
      },
    ),
    lineFigure(
      config.poolMethods.flatMap((method) =>
        config.pools.flatMap((pool): Row[] => {
          const arm = arms.find(({ id }) =>
            id === `pure/${pool}/${method}/${lambda}`
          );
          return arm === undefined ? [] : [{
            sources: pool,
            method: labelOf(arm),
            bits: cell(arm.metrics.meanBits),
          }];
        })
      ),
      {
        id: "fusion-pools",
        title: "More sources",
        caption:
          "Base and experts first, then a weak and two corrupted sources; mean over all domains.",
        x: "sources",
        y: "bits",
        series: "method",
        xAxis: { title: "sources" },
        yAxis: { title: "test loss", unit: "bits per byte" },
      },
    ),
  ];
  const weights = main.flatMap((arm): Row[] => {
    const last = arm.series.lastWeights?.mean ?? [];
    if (last.length !== K) return [];
    return last.map((weight, k) => ({
      method: labelOf(arm),
      source: sourceNames(config)[k],
      weight,
    }));
  });
  if (weights.length > 0) {
    specs.push(heatmapFigure(weights, {
      id: "fusion-weights",
      title: "Weights of the sources at the end of training",
      caption:
        `Mean over texts of the last ten steps and ${config.seeds} seeds.`,
      x: "source",
      y: "method",
      value: "weight",
      valueAxis: { title: "weight" },
    }));
  }
  const balance = main.flatMap((arm): Row[] =>
    (arm.series.cv2?.mean ?? []).flatMap((cv2, step) =>
      step % 5 === 0 ? [{ step, cv2, method: labelOf(arm) }] : []
    )
  );
  if (balance.length > 0) {
    const averages = mean(balance.map(({ cv2 }) => cv2 as number));
    specs.push(lineFigure(balance, {
      id: "fusion-balance",
      title: "Balance of the sources during training",
      caption:
        `Squared coefficient of variation of a batch's weights: 0 if all sources are used alike, ${K} if one takes all; ${
          averages.toFixed(2)
        } on average here.`,
      x: "step",
      y: "cv2",
      series: "method",
      xAxis: { title: "step" },
      yAxis: { title: "CV²" },
    }));
  }
  return specs;
}
