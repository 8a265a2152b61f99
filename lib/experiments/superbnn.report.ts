/** What the SupeRBNN runs say: claims, tables and figures. Reads summaries, computes no runs. */
import { COOLING_OVERHEAD, ENERGY_SETS, type EnergySet } from "../core/aqfp.ts";
import {
  barFigure,
  gridFigure,
  heatmapFigure,
  lineFigure,
} from "../core/figure.ts";
import type {
  ArmSummary,
  FigureSpec,
  Measurement,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import { mean, tInterval } from "../core/stats.ts";
import type { Row } from "../core/table.ts";
import {
  attenuatedCurrentUa,
  DEFAULT_DEVICE,
  grayZoneValue,
} from "../superbnn/device.ts";
import type { Config, Hardware } from "./superbnn.ts";

/** Projected efficiency and accuracy on MNIST: Sun et al., XNOR-RRAM, DATE 2018, abstract. */
const RERAM = { topsPerW: 141.18, accuracy: 98.43 };

/** Energy per inference and accuracy on MNIST: SuperSNN, arXiv 2509.05532, abstract; dynamic energy only. */
const SUPERSNN = { energyJ: 6.55e-15, accuracy: 96.47 };

/** "Similar accuracy": at most this far below the deterministic network, in points. */
const SIMILAR_POINTS = 1;

/** Set of the paper's own constant, as far as it is remembered. */
const MAIN_SET = ENERGY_SETS.superbnn;

/** What is trained, in the order of the ablation. */
const METHODS: Record<string, string> = {
  float: "float (ReLU)",
  bnn: "deterministic BNN, deployed unchanged",
  aware: "randomised-aware",
  matched: "+ thresholds of the tiles in training",
  clamped: "+ weight rectified clamp",
};

/** "16 cells, gray zone 4, 8 cycles". */
function hardwareName(
  { crossbarSize, grayZone, streamLength }: Hardware,
): string {
  return `${crossbarSize} cells, gray zone ${grayZone}, ${streamLength} ${
    streamLength === 1 ? "cycle" : "cycles"
  }`;
}

/** Arms of one kind with the parts of their ids. */
function armsOf(arms: ArmSummary[], kind: string): [string[], ArmSummary][] {
  return arms.flatMap((arm) => {
    const [first, ...rest] = arm.id.split("/");
    return first === kind ? [[rest, arm] as [string[], ArmSummary]] : [];
  });
}

function armOf(arms: ArmSummary[], id: string): ArmSummary | undefined {
  return arms.find((arm) => arm.id === id);
}

// Energy --------------------------------------------------------------------------------------------

/** One way to run a network: crossbar size, best gray zone and stream length. */
interface Point {
  data: string;
  model: string;
  crossbarSize: number;
  streamLength: number;
  grayZone: number;
  accuracy: number;
  /** Junctions of the whole network. */
  jj: number;
  /** Junctions times the cycles that each is clocked for one image. */
  junctionCycles: number;
  operations: number;
}

/** Every swept network at the best gray zone of each stream length, means over the seeds. */
function points(arms: ArmSummary[]): Point[] {
  return armsOf(arms, "sweep").flatMap(([[data, model], { metrics, config }]) =>
    (config.streamLengths as number[]).map((L) => ({
      data,
      model,
      crossbarSize: config.crossbarSize as number,
      streamLength: L,
      grayZone: metrics[`bestGrayZoneL${L}`].mean,
      accuracy: metrics[`bestAccuracyL${L}`].mean,
      jj: metrics.jj.mean,
      junctionCycles: metrics[`junctionCyclesL${L}`].mean,
      operations: metrics.operations.mean,
    }))
  );
}

/** Energy of an image at 4.2 K: every junction spends it in every cycle, whatever its data. */
function energyJ({ junctionCycles }: Point, set: EnergySet): number {
  return junctionCycles * set.energyPerJjJ;
}

/** The point of least energy among those that reach an accuracy, or else the most accurate one. */
function cheapest(
  candidates: Point[],
  accuracy: number,
): { point: Point; note: string } {
  const [point] = candidates
    .filter((point) => point.accuracy >= accuracy)
    .sort((a, b) => energyJ(a, MAIN_SET) - energyJ(b, MAIN_SET));
  if (point !== undefined) return { point, note: describePoint(point) };
  const best = candidates.reduce((a, b) => a.accuracy >= b.accuracy ? a : b);
  return {
    point: best,
    note: `NONE reaches ${
      accuracy.toFixed(2)
    } %, so this is the most accurate: ${describePoint(best)}`,
  };
}

/** A ratio under the main set, with its range over all sets in place of an interval. */
function overSets(
  ratio: (set: EnergySet) => number,
  note: string,
): Measurement {
  const sets = Object.values(ENERGY_SETS);
  const ratios = sets.map(ratio);
  return {
    value: ratio(MAIN_SET),
    low: Math.min(...ratios),
    high: Math.max(...ratios),
    n: sets.length,
    unit: "",
    note: `${note}; range over energy sets ${
      sets.map(({ name, energyPerJjJ, standing }) =>
        `${name} (${(energyPerJjJ * 1e21).toPrecision(3)} zJ, ${standing})`
      ).join(", ")
    }, not an interval of chance`,
  };
}

function describePoint(point: Point): string {
  return `${point.model} at ${point.accuracy.toFixed(2)} %, ${
    hardwareName(point)
  }, ${Math.round(point.jj)} JJ`;
}

function energyClaims(arms: ArmSummary[]): Record<string, Measurement> {
  const mnist = points(arms).filter(({ data }) => data === "mnist");
  const { model } = mnist[0]; // the largest
  const ideal = armOf(arms, `train/mnist/${model}/bnn`)!.metrics.accuracy.mean;
  const similar = cheapest(
    mnist.filter((point) => point.model === model),
    ideal - SIMILAR_POINTS,
  );
  const rival = cheapest(mnist, SUPERSNN.accuracy);
  return {
    "superbnn-reram": overSets(
      (set) =>
        similar.point.operations / energyJ(similar.point, set) * 1e-12 /
        RERAM.topsPerW,
      similar.note,
    ),
    "superbnn-superconducting": overSets(
      (set) => SUPERSNN.energyJ / energyJ(rival.point, set),
      rival.note,
    ),
  };
}

// Claims --------------------------------------------------------------------------------------------

/** Gains in points of one method over another per seed, mean over hardware, at the trained length. */
function gains(arms: ArmSummary[], method: string, over: string): number[] {
  const differences = armsOf(arms, "deploy").flatMap(
    ([[data, model, name, hardware], arm]) => {
      if (data !== "fashion-mnist" || name !== method) return [];
      const other = armOf(
        arms,
        ["deploy", data, model, over, hardware].join("/"),
      );
      if (other === undefined) return [];
      const { streamLength } = arm.config.hardware as unknown as Hardware;
      const metric = `accuracyL${streamLength}`;
      const baseline = other.metrics[metric].values;
      return [arm.metrics[metric].values.map((v, i) => v - baseline[i])];
    },
  );
  const seeds = differences[0]?.length ?? 0;
  return Array.from(
    { length: seeds },
    (_, i) => mean(differences.map((values) => values[i])),
  );
}

function gain(
  arms: ArmSummary[],
  method: string,
  over: string,
): Measurement | undefined {
  const values = gains(arms, method, over);
  return values.length === 0 ? undefined : {
    ...tInterval(values),
    unit: "points",
    note: `${METHODS[method]} against ${
      METHODS[over]
    }, Fashion-MNIST, ${values.length} seeds, paired, mean over hardware`,
  };
}

/** Octaves between the best gray zones of the longest and the shortest stream, per seed. */
function shift(arms: ArmSummary[]): Measurement {
  const sweeps = armsOf(arms, "sweep")
    .filter(([[data]]) => data === "fashion-mnist")
    .map(([, { metrics, config }]) => {
      const lengths = config.streamLengths as number[];
      const grayZones = config.grayZones as number[];
      const [short, long] = [lengths[0], lengths.at(-1)!].map((L) =>
        metrics[`bestGrayZoneL${L}`].values
      );
      return {
        size: config.crossbarSize as number,
        octaves: long.map((g, i) => Math.log2(g / short[i])),
        inside: [...short, ...long].every((g) =>
          g > Math.min(...grayZones) && g < Math.max(...grayZones)
        ),
      };
    });
  const inside = sweeps.filter((sweep) => sweep.inside);
  const used = inside.length > 0 ? inside : sweeps;
  const seeds = used[0].octaves.map((_, i) =>
    mean(used.map(({ octaves }) => octaves[i]))
  );
  const where = inside.length > 0 ? "" : "; AT AN EDGE of the sweep for all";
  return {
    ...tInterval(seeds),
    unit: "octaves",
    note: `crossbars of ${
      used.map(({ size }) => size).join(", ")
    } cells${where}`,
  };
}

export function measure(arms: ArmSummary[]): Record<string, Measurement> {
  const found: Record<string, Measurement | undefined> = {
    ...energyClaims(arms),
    "superbnn-optimum": shift(arms),
    "superbnn-training": gain(arms, "matched", "bnn"),
    "superbnn-clamp": gain(arms, "clamped", "matched"),
  };
  const trained = armsOf(arms, "train").flatMap(([, { metrics }]) =>
    "agreeing" in metrics ? [metrics] : []
  );
  if (trained.length > 0) {
    const total = (metric: string) =>
      trained.flatMap((metrics) => metrics[metric].values)
        .reduce((sum, value) => sum + value, 0);
    const share = 100 * total("agreeing") / total("compared");
    found["superbnn-matching"] = {
      value: share,
      low: share,
      high: share,
      n: total("compared"),
      unit: "%",
      note: "every integer sum of every neuron of every trained network",
    };
  }
  const savings = armsOf(arms, "clocking").map(([[circuit], { metrics }]) => ({
    circuit,
    percent: 100 * (1 - metrics.jj2.mean / metrics.jj1.mean),
  }));
  if (savings.length > 0) {
    found["superbnn-clocking"] = {
      ...tInterval(savings.map(({ percent }) => percent)),
      unit: "%",
      note: savings.map(({ circuit, percent }) =>
        `${circuit} ${percent.toFixed(1)}`
      ).join(", "),
    };
  }
  return Object.fromEntries(
    Object.entries(found).filter(([, value]) => value !== undefined),
  ) as Record<string, Measurement>;
}

// Tables --------------------------------------------------------------------------------------------

/** "84.2 ± 0.3" over the seeds. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  return n < 2
    ? Number(mean.toFixed(2))
    : `${mean.toFixed(2)} ± ${((high - low) / 2).toFixed(2)}`;
}

function trainingTable(arms: ArmSummary[]): ResultTable {
  return {
    id: "superbnn-trained",
    title: "Trained networks, before any device",
    caption:
      "Test accuracy with exact sums and signs; 95 % intervals over the seeds. Images are the whole test set.",
    columns: ["data", "model", "method", "accuracy (%)", "seeds", "time (s)"],
    rows: armsOf(arms, "train").map(
      ([[data, model, method, hardware], { metrics, timings, seeds }]) => [
        data,
        model,
        METHODS[method] + (hardware === undefined ? "" : ` (${hardware})`),
        spread(metrics.accuracy),
        seeds.length,
        timings.trainSeconds === undefined
          ? null
          : Number(timings.trainSeconds.mean.toFixed(0)),
      ],
    ),
  };
}

function ablationTable(arms: ArmSummary[]): ResultTable {
  const deployed = armsOf(arms, "deploy");
  const lengths = (deployed[0]?.[1].config.streamLengths ?? []) as number[];
  return {
    id: "superbnn-ablation",
    title: "On the device: each step of the method",
    caption:
      "Test accuracy (%) of the bit-true simulation on the hardware of training, for other stream lengths too; 95 % intervals over the seeds.",
    columns: [
      "data",
      "model",
      "hardware in training",
      "method",
      ...lengths.map((L) => `${L} ${L === 1 ? "cycle" : "cycles"} (%)`),
    ],
    rows: deployed.map(([[data, model, method], { metrics, config }]) => [
      data,
      model,
      hardwareName(config.hardware as unknown as Hardware),
      METHODS[method],
      ...lengths.map((L) => spread(metrics[`accuracyL${L}`])),
    ]),
  };
}

function counterTable(arms: ArmSummary[]): ResultTable {
  return {
    id: "superbnn-counters",
    title: "Accumulation: exact and approximate counters",
    caption:
      "Test accuracy (%) at the best gray zone of each stream length, which was chosen on the other half of the images. The approximate counter replaces the first row of adders by pairs of AND and OR.",
    columns: [
      "data",
      "model",
      "crossbar (cells)",
      "cycles",
      "exact counter (%)",
      "approximate counter (%)",
    ],
    rows: armsOf(arms, "sweep").flatMap(
      ([[data, model], { metrics, config }]) =>
        (config.streamLengths as number[]).map((L) => [
          data,
          model,
          config.crossbarSize as number,
          L,
          spread(metrics[`bestAccuracyL${L}`]),
          spread(metrics[`approximateL${L}`]),
        ]),
    ),
  };
}

function streamsTable(arms: ArmSummary[]): ResultTable {
  const rows = armsOf(arms, "streams");
  const lengths = (rows[0]?.[1].config.streamLengths ?? []) as number[];
  return {
    id: "superbnn-streams",
    title: "Without a random device: streams from number generators",
    caption:
      "The same network; every pixel's grey level becomes a stream by a generator of its own, sums are exact in every cycle. The device's randomness is free, a generator is not.",
    columns: [
      "data",
      "model",
      ...lengths.map((L) => `${L} ${L === 1 ? "cycle" : "cycles"} (%)`),
      "a generator (JJ)",
    ],
    rows: rows.map(([[data, model], { metrics }]) => [
      data,
      model,
      ...lengths.map((L) => spread(metrics[`accuracyL${L}`])),
      metrics.generatorJj.mean,
    ]),
  };
}

function energyTable(arms: ArmSummary[]): ResultTable {
  const sets = Object.values(ENERGY_SETS);
  return {
    id: "superbnn-energy",
    title: "Energy per inference",
    caption:
      `Junctions times cycles times energy per junction, at 4.2 K, without cooling; times ${COOLING_OVERHEAD.large} (large plant) or ${COOLING_OVERHEAD.small} (small cooler) at the wall, both recalled. Sets: ${
        sets.map(({ name, source, standing }) =>
          `${name}: ${source} (${standing})`
        ).join("; ")
      }. Operations: two per XNOR and its addition, all layers on the device.`,
    columns: [
      "data",
      "model",
      "crossbar (cells)",
      "cycles",
      "gray zone",
      "accuracy (%)",
      "JJ",
      ...sets.map(({ name }) => `${name} (fJ)`),
      "TOPS/W, superbnn",
      "TOPS/W, cooled by 400",
    ],
    rows: points(arms).map((point) => {
      const efficiency = point.operations / energyJ(point, MAIN_SET) * 1e-12;
      return [
        point.data,
        point.model,
        point.crossbarSize,
        point.streamLength,
        Number(point.grayZone.toPrecision(3)),
        Number(point.accuracy.toFixed(2)),
        Math.round(point.jj),
        ...sets.map((set) =>
          Number((energyJ(point, set) * 1e15).toPrecision(3))
        ),
        Number(efficiency.toPrecision(3)),
        Number((efficiency / COOLING_OVERHEAD.large).toPrecision(3)),
      ];
    }),
  };
}

function clockingTable(arms: ArmSummary[]): ResultTable {
  const rows = armsOf(arms, "clocking");
  const skips = (rows[0]?.[1].config.skips ?? []) as number[];
  return {
    id: "superbnn-clocking",
    title: "Junctions when data may pass several phases",
    caption:
      "Buffers and splitters inserted for hops of up to so many phases; legal, simulated with waves in flight, and equivalent to the source.",
    columns: [
      "circuit",
      ...skips.map((s) => `${s} ${s === 1 ? "phase" : "phases"} (JJ)`),
      "saved by 2 (%)",
    ],
    rows: rows.map(([[circuit], { metrics }]) => [
      circuit,
      ...skips.map((s) => metrics[`jj${s}`].mean),
      Number((100 * (1 - metrics.jj2.mean / metrics.jj1.mean)).toFixed(1)),
    ]),
  };
}

function assumptionsTable(): ResultTable {
  const { attenuation } = DEFAULT_DEVICE;
  return {
    id: "superbnn-assumptions",
    title: "Assumptions",
    columns: ["quantity", "value", "standing", "source"],
    rows: [
      [
        "gray zone of the device (uA)",
        DEFAULT_DEVICE.grayZoneUa,
        DEFAULT_DEVICE.standing,
        DEFAULT_DEVICE.source,
      ],
      [
        "current of one cell, A (uA)",
        attenuation.aUa,
        attenuation.standing,
        attenuation.source,
      ],
      [
        "exponent of the attenuation, B",
        attenuation.b,
        attenuation.standing,
        attenuation.source,
      ],
      ...Object.values(ENERGY_SETS).map((set) => [
        `energy per junction and cycle, set ${set.name} (zJ)`,
        Number((set.energyPerJjJ * 1e21).toPrecision(3)),
        set.standing,
        set.source,
      ]),
      [
        "power at the wall per power at 4.2 K, large plant",
        COOLING_OVERHEAD.large,
        "recalled",
        "convention for large helium plants",
      ],
      [
        "power at the wall per power at 4.2 K, small cooler",
        COOLING_OVERHEAD.small,
        "recalled",
        "convention for small coolers",
      ],
      [
        "ReRAM comparator (TOPS/W)",
        RERAM.topsPerW,
        "read",
        `Sun et al., XNOR-RRAM, DATE 2018, abstract; ${RERAM.accuracy} % on MNIST`,
      ],
      [
        "superconducting comparator (fJ per inference)",
        SUPERSNN.energyJ * 1e15,
        "read",
        `SuperSNN, arXiv 2509.05532, abstract; ${SUPERSNN.accuracy} % on MNIST; without its static power`,
      ],
    ],
  };
}

export function tables(arms: ArmSummary[]): ResultTable[] {
  return [
    assumptionsTable(),
    trainingTable(arms),
    ablationTable(arms),
    counterTable(arms),
    streamsTable(arms),
    energyTable(arms),
    clockingTable(arms),
  ].filter(({ rows }) => rows.length > 0);
}

// Figures -------------------------------------------------------------------------------------------

/** A value with its interval as a table cell. */
function cell({ mean, low, high, n }: MetricSummary) {
  return n < 2 ? mean : { mean, halfWidth: (high - low) / 2, n };
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
    xAxis: { title: "input current minus threshold", unit: "uA" },
    yAxis: { title: "probability of +1", range: [-0.03, 1.03] },
  })];
}

function attenuationFigure(): FigureSpec {
  const rows: Row[] = [4, 8, 16, 18, 36, 72, 144].flatMap((size) =>
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
  const sweeps = armsOf(arms, "sweep").filter(([[name, model]]) =>
    name === data &&
    model === armsOf(arms, "sweep").find(([[d]]) => d === data)![0][1]
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
          cycles: `${L} ${L === 1 ? "cycle" : "cycles"}`,
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
      order: lengths.map((L) => `${L} ${L === 1 ? "cycle" : "cycles"}`),
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

function paretoFigure(arms: ArmSummary[]): FigureSpec[] {
  const all = points(arms).filter(({ data }) => data === "mnist");
  if (all.length === 0) return [];
  const front = all.filter((p) =>
    !all.some((q) =>
      q !== p && q.accuracy >= p.accuracy &&
      energyJ(q, MAIN_SET) <= energyJ(p, MAIN_SET)
    )
  );
  const coolings = [
    ["at 4.2 K", COOLING_OVERHEAD.none],
    [`cooled, ${COOLING_OVERHEAD.large} W/W`, COOLING_OVERHEAD.large],
    [`cooled, ${COOLING_OVERHEAD.small} W/W`, COOLING_OVERHEAD.small],
  ] as const;
  const rows: Row[] = coolings.flatMap(([cooling, overhead]) =>
    front.map((point) => ({
      energy: energyJ(point, MAIN_SET) * overhead * 1e15,
      accuracy: point.accuracy,
      cooling,
    }))
  );
  return [lineFigure(rows, {
    id: "superbnn-pareto",
    title: "Accuracy against energy per inference, MNIST",
    caption:
      `Settings that no other beats in both, of all models, crossbar sizes, gray zones and stream lengths swept. Energy: ${MAIN_SET.source} (${MAIN_SET.standing}).`,
    x: "energy",
    y: "accuracy",
    series: "cooling",
    order: coolings.map(([name]) => name),
    xAxis: { title: "energy per inference", unit: "fJ", scale: "log" },
    yAxis: { title: "test accuracy", unit: "%" },
  })];
}

function ablationFigure(arms: ArmSummary[]): FigureSpec[] {
  const rows: Row[] = armsOf(arms, "deploy").flatMap(
    ([[data, , method], { metrics, config }]) => {
      if (data !== "fashion-mnist") return [];
      const hardware = config.hardware as unknown as Hardware;
      return [{
        hardware: hardwareName(hardware),
        accuracy: cell(metrics[`accuracyL${hardware.streamLength}`]),
        method: METHODS[method],
      }];
    },
  );
  if (rows.length === 0) return [];
  const lowest = Math.min(
    ...armsOf(arms, "deploy").flatMap(([[data], { metrics }]) =>
      data === "fashion-mnist"
        ? Object.values(metrics).filter(({ mean }) => mean > 0).map((m) =>
          m.low
        )
        : []
    ),
  );
  return [barFigure(rows, {
    id: "superbnn-ablation-figure",
    title: "What each step of the method is worth, Fashion-MNIST",
    caption:
      "On the hardware of training; bars: 95 % intervals over the seeds. The axis does not start at zero.",
    x: "hardware",
    y: "accuracy",
    series: "method",
    order: Object.values(METHODS),
    yAxis: {
      title: "test accuracy",
      unit: "%",
      range: [Math.floor(lowest / 5) * 5, 90],
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
    ...paretoFigure(arms),
  ];
}
