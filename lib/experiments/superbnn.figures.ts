/** Figures of SupeRBNN. */
import { COOLING_OVERHEAD } from "../core/aqfp.ts";
import {
  barFigure,
  gridFigure,
  heatmapFigure,
  lineFigure,
} from "../core/figure.ts";
import type { ArmSummary, FigureSpec, MetricSummary } from "../core/runs.ts";
import type { Row } from "../core/table.ts";
import {
  attenuatedCurrentUa,
  DEFAULT_DEVICE,
  grayZoneValue,
} from "../superbnn/device.ts";
import { ASSUMPTION_SETS, describeAssumptions } from "../superbnn/energy.ts";
import {
  armOf,
  armsOf,
  cyclesName,
  frontOf,
  hardwareName,
  MAIN_SET,
  METHODS,
  points,
  trainingName,
} from "./superbnn.points.ts";
import type { Config, Hardware } from "./superbnn.ts";

/** An accuracy with its standard deviation: an interval around the mean of a few seeds could pass 100 %. */
function deviating({ mean, sd, n }: MetricSummary) {
  return n < 2 ? mean : { mean, halfWidth: sd, n };
}

/** Powers of ten that the values lie between. */
function powersOfTen(values: number[]): number[] {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.ceil(Math.log10(Math.max(...values)));
  return Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
}

function deviceFigure(arms: ArmSummary[]): FigureSpec[] {
  const arm = armOf(arms, "device");
  if (arm === undefined) return [];
  const { series, metrics } = arm;
  const at = series.currentUa.mean;
  const rows: Row[] = at.flatMap((currentUa, i) => [
    {
      current: currentUa,
      probability: {
        mean: series.rate.mean[i],
        halfWidth: series.halfWidth.mean[i],
        n: arm.config.samples as number,
      },
      what: "sampled",
    },
    {
      current: currentUa,
      probability: series.probability.mean[i],
      what: "model",
    },
  ]);
  return [lineFigure(rows, {
    id: "superbnn-device",
    title: "A buffer near its threshold",
    caption:
      `Share of +1 among ${arm.config.samples} samples with 95 % binomial intervals, and the error function. Gray zone fitted to the samples: ${
        metrics.fitted.mean.toFixed(2)
      } ± ${
        metrics.fittedError.mean.toFixed(2)
      } uA; set: ${DEFAULT_DEVICE.grayZoneUa} uA (assumed).`,
    x: "current",
    y: "probability",
    series: "what",
    order: ["sampled", "model"],
    marks: { sampled: "points", model: "line" },
    xAxis: { title: "input current minus threshold", unit: "uA" },
    yAxis: { title: "probability of +1", range: [-0.03, 1.03] },
  })];
}

function attenuationFigure(): FigureSpec {
  const rows: Row[] = [4, 8, 16, 36, 72, 144].flatMap((size) =>
    [0.5, 1].map((b) => {
      const device = {
        ...DEFAULT_DEVICE,
        attenuation: { ...DEFAULT_DEVICE.attenuation, b },
      };
      return {
        size,
        current: attenuatedCurrentUa(size, device),
        grayZone: grayZoneValue(size, device),
        exponent: `B = ${b}`,
      };
    })
  );
  const common = {
    series: "exponent",
    x: "size",
    xAxis: { title: "cells per column", scale: "log" as const },
  };
  return gridFigure([
    lineFigure(rows, {
      ...common,
      id: "superbnn-current",
      title: "current of a unit",
      y: "current",
      yAxis: { title: "current of one unit", unit: "uA", scale: "log" },
    }),
    lineFigure(rows, {
      ...common,
      id: "superbnn-gray-zone-value",
      title: "gray zone in units of the sum",
      y: "grayZone",
      yAxis: { title: "gray zone", unit: "units of the sum", scale: "log" },
    }),
  ], {
    id: "superbnn-attenuation",
    title: "Larger crossbars, less current, wider gray zone",
    caption:
      "I1 = A Cs^-B and the gray zone it leaves; A, B and the device's gray zone are assumed.",
  });
}

/** Accuracy over the gray zone, a line per stream length, a panel per crossbar size. */
function grayZoneFigure(arms: ArmSummary[], data: string): FigureSpec[] {
  const sweeps = armsOf(arms, "sweep").filter(([[name, , method]]) =>
    name === data && method === "bnn"
  );
  if (sweeps.length === 0) return [];
  const panels = sweeps.map(([, { series, config, id }]) => {
    const lengths = config.streamLengths as number[];
    const rows: Row[] = lengths.flatMap((L) =>
      (config.grayZones as number[]).map((grayZone, i) => {
        const { mean, sd, n } = series[`accuracyL${L}`];
        return {
          grayZone,
          accuracy: n < 2 ? mean[i] : { mean: mean[i], halfWidth: sd[i], n },
          cycles: cyclesName(L),
        };
      })
    );
    return lineFigure(rows, {
      id: id.replaceAll("/", "-"),
      title: `${config.crossbarSize} cells`,
      x: "grayZone",
      y: "accuracy",
      series: "cycles",
      spread: "band",
      order: lengths.map(cyclesName),
      xAxis: {
        title: "gray zone",
        unit: "units of the sum",
        scale: "log",
      },
      yAxis: { title: "test accuracy", unit: "%" },
    });
  });
  return [gridFigure(panels, {
    id: `superbnn-optimum-${data}`,
    title: "Noise helps: the best gray zone, and how it moves",
    caption:
      "The deterministic network on the device, unchanged. Too little noise: every tile is a hard majority, and the majority of majorities is not the sum. Too much: the streams are too short to average it. Bands: standard deviation over the seeds.",
  })];
}

function mismatchFigure(arms: ArmSummary[]): FigureSpec[] {
  const rows: Row[] = armsOf(arms, "mismatch").flatMap((
    [, { series, config }],
  ) =>
    (config.crossbarSizes as number[]).flatMap((size) =>
      (config.grayZones as number[]).map((grayZone, i) => ({
        size,
        grayZone,
        mismatch: series[`mismatch${size}`].mean[i],
      }))
    )
  );
  if (rows.length === 0) return [];
  const arm = armsOf(arms, "mismatch")[0][1];
  return [heatmapFigure(rows, {
    id: "superbnn-mismatch",
    title: "Average mismatch of the accumulation",
    caption:
      `Chance that the accumulated stream of ${arm.config.streamLength} cycles and the exact sum disagree about a neuron's sign, over the sums of the first hidden layer on test images; computed, not sampled.`,
    x: "grayZone",
    y: "size",
    value: "mismatch",
    digits: 2,
    xAxis: { title: "gray zone (units of the sum)" },
    yAxis: { title: "cells per column" },
    valueAxis: { title: "share" },
  })];
}

/** What training for the hardware is worth at each stream length, a panel per model and crossbar. */
function lengthFigure(arms: ArmSummary[]): FigureSpec[] {
  const all = points(arms).filter(({ data }) => data === "mnist");
  const models = [...new Set(all.map(({ model }) => model))];
  const trained = all.filter(({ method }) => method !== "bnn");
  const sizes = [...new Set(trained.map((p) => p.crossbarSize))];
  const order = [
    "exact sums, no device",
    trainingName({ method: "" }),
    trainingName({ method: "bnn" }),
  ];
  const panels = models.flatMap((model) =>
    sizes.map((size) => {
      const own = all.filter((p) =>
        p.model === model && p.crossbarSize === size
      );
      const rows: Row[] = own.flatMap((point) => [
        {
          cycles: point.streamLength,
          accuracy: deviating(point.accuracy),
          network: trainingName(point),
        },
        ...(point.method === "bnn"
          ? [{
            cycles: point.streamLength,
            accuracy: point.ideal.mean,
            network: order[0],
          }]
          : []),
      ]);
      return lineFigure(rows, {
        id: `superbnn-length-${model}-${size}`,
        title: `${model}, ${size} cells`,
        x: "cycles",
        y: "accuracy",
        series: "network",
        order,
        xAxis: { title: "stream length", unit: "cycles", scale: "log" },
        yAxis: { title: "test accuracy", unit: "%" },
      });
    })
  );
  return panels.length === 0 ? [] : [gridFigure(panels, {
    id: "superbnn-length",
    title: "How long the streams must be, MNIST",
    caption:
      "At the best gray zone of each stream length, chosen on other images. Bars: standard deviation over the seeds.",
    columns: Math.min(3, panels.length),
    rowHeight: 300,
  })];
}

function paretoFigure(arms: ArmSummary[]): FigureSpec[] {
  const all = points(arms).filter(({ data }) => data === "mnist");
  if (all.length === 0) return [];
  const coolings = [
    ["at 4.2 K", COOLING_OVERHEAD.none],
    [`cooled, ${COOLING_OVERHEAD.large} W/W`, COOLING_OVERHEAD.large],
    [`cooled, ${COOLING_OVERHEAD.small} W/W`, COOLING_OVERHEAD.small],
  ] as const;
  const trained = all.filter(({ method }) => method !== "bnn");
  const unchanged = all.filter(({ method }) => method === "bnn");
  const fronts = [
    ...coolings.map(([cooling, overhead]) => ({
      of: trained.length > 0 ? trained : unchanged,
      name: cooling,
      overhead,
    })),
    ...(trained.length > 0
      ? [{ of: unchanged, name: "at 4.2 K, deployed unchanged", overhead: 1 }]
      : []),
  ];
  const rows = fronts.flatMap(({ of, name, overhead }) =>
    frontOf(of).map((point) => ({
      energy: point.energyJ[MAIN_SET] * overhead * 1e15,
      accuracy: point.accuracy.mean,
      network: name,
    }))
  );
  const ideals = new Map(
    all.map((
      { model, ideal },
    ) => [model, `${model} ${ideal.mean.toFixed(1)} %`]),
  );
  return [lineFigure(rows, {
    id: "superbnn-pareto",
    title: "Accuracy against energy per inference, MNIST",
    caption:
      `Settings that no other beats in both, of all models, crossbar sizes, gray zones and stream lengths; trained for the hardware unless it says otherwise. With exact sums: ${
        [...ideals.values()].join(", ")
      }. Energy: ${describeAssumptions(ASSUMPTION_SETS[MAIN_SET])}.`,
    x: "energy",
    y: "accuracy",
    series: "network",
    order: fronts.map(({ name }) => name),
    xAxis: {
      title: "energy per inference",
      unit: "fJ",
      scale: "log",
      ticks: powersOfTen(rows.map(({ energy }) => energy)),
    },
    yAxis: { title: "test accuracy", unit: "%" },
  })];
}

function ablationFigure(arms: ArmSummary[]): FigureSpec[] {
  const bars = armsOf(arms, "deploy").flatMap(
    ([[data, , method], { metrics, config }]) => {
      if (data !== "fashion-mnist") return [];
      const hardware = config.hardware as unknown as Hardware;
      return [{
        hardware: hardwareName(hardware),
        accuracy: metrics[`accuracyL${hardware.streamLength}`],
        method: METHODS[method],
      }];
    },
  );
  if (bars.length === 0) return [];
  const means = bars.map(({ accuracy }) => accuracy.mean);
  const [lowest, highest] = [Math.min(...means), Math.max(...means)];
  const margin = Math.max(1, (highest - lowest) / 4);
  const rows: Row[] = bars.map((bar) => ({
    ...bar,
    accuracy: deviating(bar.accuracy),
  }));
  return [barFigure(rows, {
    id: "superbnn-ablation-figure",
    title: "What each step of the method is worth, Fashion-MNIST",
    caption:
      "On the hardware of training; bars: standard deviation over the seeds. The axis does not start at zero.",
    x: "hardware",
    y: "accuracy",
    series: "method",
    order: Object.values(METHODS),
    yAxis: {
      title: "test accuracy",
      unit: "%",
      range: [
        Math.max(0, Math.floor(lowest - margin)),
        Math.min(100, Math.ceil(highest + margin)),
      ],
    },
  })];
}

export function figures(arms: ArmSummary[], _config: Config): FigureSpec[] {
  return [
    ...deviceFigure(arms),
    attenuationFigure(),
    ...grayZoneFigure(arms, "fashion-mnist"),
    ...mismatchFigure(arms),
    ...ablationFigure(arms),
    ...lengthFigure(arms),
    ...paretoFigure(arms),
  ];
}
