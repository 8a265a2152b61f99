/** What the SupeRBNN runs say: claims and tables. Reads summaries, computes no runs. */
import { COOLING_OVERHEAD } from "../core/aqfp.ts";
import type {
  ArmSummary,
  Measurement,
  MetricSummary,
  ResultTable,
} from "../core/runs.ts";
import { mean, tInterval } from "../core/stats.ts";
import { DEFAULT_DEVICE } from "../superbnn/device.ts";
import {
  ASSUMPTION_SETS,
  describeAssumptions,
  MEMORY_JJ_PER_BIT,
  ratioSweep,
} from "../superbnn/energy.ts";
import {
  armOf,
  armsOf,
  describePoint,
  frontOf,
  hardwareName,
  isSimilar,
  MAIN_SET,
  METHODS,
  type Point,
  points,
  RERAM,
  setsOf,
  SIMILAR_POINTS,
  SUPERSNN,
  topsPerW,
  trainingName,
} from "./superbnn.points.ts";
import type { Hardware } from "./superbnn.ts";

// Energy --------------------------------------------------------------------------------------------

/** Of a setting, per named set of assumptions: their range stands in place of an interval. */
function overSets(
  ratio: (set: string) => number,
  sets: string[],
  note: string,
): Measurement {
  const ratios = sets.map(ratio);
  return {
    value: ratio(MAIN_SET),
    low: Math.min(...ratios),
    high: Math.max(...ratios),
    n: sets.length,
    unit: "",
    note: `${note}; range over the sets of assumptions ${
      sets.join(", ")
    }, not an interval of chance`,
  };
}

/**
 * A ratio at the best of the settings of similar accuracy; without one it is 0, up to that of the setting
 * nearest in accuracy.
 */
function atSimilarAccuracy(
  all: Point[],
  similar: (point: Point) => boolean,
  ratio: (point: Point, set: string) => number,
  sets: string[],
): Measurement {
  const able = all.filter(similar);
  if (able.length > 0) {
    const best = able.reduce((a, b) =>
      ratio(a, MAIN_SET) >= ratio(b, MAIN_SET) ? a : b
    );
    return overSets((set) => ratio(best, set), sets, describePoint(best));
  }
  const none = { value: 0, low: 0, high: 0, n: sets.length, unit: "" };
  if (all.length === 0) return { ...none, note: "no setting was swept" };
  const nearest = all.reduce((a, b) => a.gap.mean >= b.gap.mean ? a : b);
  return {
    ...none,
    high: Math.max(...sets.map((set) => ratio(nearest, set))),
    note: `NO setting is of similar accuracy; high is that of the nearest, ${
      describePoint(nearest)
    }`,
  };
}

function energyClaims(arms: ArmSummary[]): Record<string, Measurement> {
  const sets = setsOf(arms);
  const mnist = points(arms).filter(({ data }) => data === "mnist");
  return {
    "superbnn-reram": atSimilarAccuracy(
      mnist,
      isSimilar,
      (point, set) => topsPerW(point, set) / RERAM.topsPerW,
      sets,
    ),
    "superbnn-superconducting": atSimilarAccuracy(
      mnist,
      (point) =>
        isSimilar(point) &&
        point.accuracy.mean >= SUPERSNN.accuracy - SIMILAR_POINTS,
      (point, set) => SUPERSNN.energyJ / point.energyJ[set],
      sets,
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
    const wrong = total("compared") - total("agreeing");
    found["superbnn-matching"] = {
      value: wrong,
      low: wrong,
      high: wrong,
      n: total("compared"),
      unit: "sums",
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

/**
 * An accuracy in %, "84.2 ± 0.3", or "97.1 [93.4, 100]" where that would pass an end of the scale: what no
 * accuracy can be is left out of the interval, which covers the true one as often as before.
 */
function spreadPercent(accuracy: MetricSummary): string {
  const { mean, low, high, n } = accuracy;
  if (n < 2 || (low >= 0 && high <= 100)) return spread(accuracy);
  return `${mean.toFixed(2)} [${Math.max(0, low).toFixed(2)}, ${
    Math.min(100, high).toFixed(2)
  }]`;
}

/** "84.2 ± 0.3" over the seeds; a single one has no interval, and says so. */
function spread({ mean, low, high, n }: MetricSummary): string {
  return n < 2
    ? `${mean.toFixed(2)} (1 seed)`
    : `${mean.toFixed(2)} ± ${((high - low) / 2).toFixed(2)}`;
}

/** Items with the same name, in order of appearance. */
function groups<T>(items: T[], name: (item: T) => string): T[][] {
  const found = new Map<string, T[]>();
  for (const item of items) {
    found.set(name(item), [...found.get(name(item)) ?? [], item]);
  }
  return [...found.values()];
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
        spreadPercent(metrics.accuracy),
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
      ...lengths.map((L) => spreadPercent(metrics[`accuracyL${L}`])),
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
    rows: armsOf(arms, "sweep").filter(([, { config }]) => config.approximate)
      .flatMap(([[data, model], { metrics, config }]) =>
        (config.streamLengths as number[]).map((L) => [
          data,
          model,
          config.crossbarSize as number,
          L,
          spreadPercent(metrics[`bestAccuracyL${L}`]),
          spreadPercent(metrics[`approximateL${L}`]),
        ])
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
      ...lengths.map((L) => spreadPercent(metrics[`accuracyL${L}`])),
      metrics.generatorJj.mean,
    ]),
  };
}

function energyTable(arms: ArmSummary[]): ResultTable {
  const sets = setsOf(arms);
  return {
    id: "superbnn-energy",
    title: "Energy per inference: what is worth building",
    caption:
      `Per data set and model, the settings that no other beats in both accuracy and energy (set ${MAIN_SET}), of all training hardware, crossbar sizes, gray zones and stream lengths. Energy: junctions times cycles times energy per junction, at 4.2 K, without cooling. Counted: crossbars, counters, accumulators and memory of activations, and the operations of the layers on them, all of them binary, the scores included: two per XNOR and its addition. Not counted, in neither: thresholding the image, the function of the score, the distribution of the clock. ${
        sets.map((set) =>
          describeAssumptions(
            ASSUMPTION_SETS[set as keyof typeof ASSUMPTION_SETS],
          )
        ).join("; ")
      }.`,
    columns: [
      "data",
      "model",
      "network",
      "crossbar (cells)",
      "gray zone",
      "cycles",
      "accuracy (%)",
      "to deterministic (points)",
      "JJ",
      ...sets.map((set) => `${set} (fJ)`),
      `TOPS/W, ${MAIN_SET}`,
      `cooled, ${COOLING_OVERHEAD.large} W/W`,
      `cooled, ${COOLING_OVERHEAD.small} W/W`,
    ],
    rows: groups(points(arms), ({ data, model }) => `${data} ${model}`)
      .flatMap(frontOf).map((point) => {
        const efficiency = topsPerW(point, MAIN_SET);
        return [
          point.data,
          point.model,
          trainingName(point),
          point.crossbarSize,
          Number(point.grayZone.toPrecision(3)),
          point.streamLength,
          spreadPercent(point.accuracy),
          spread(point.gap),
          Math.round(point.jj),
          ...sets.map((set) =>
            Number((point.energyJ[set] * 1e15).toPrecision(3))
          ),
          ...[1, COOLING_OVERHEAD.large, COOLING_OVERHEAD.small].map((
            overhead,
          ) => Number((efficiency / overhead).toPrecision(3))),
        ];
      }),
  };
}

/** Efficiency of rivals that nobody is said to have: what the ratio would be. */
const RIVALS_TOPS_PER_W = [1, 10, 100, 1000, 10_000];

function rivalsTable(arms: ArmSummary[]): ResultTable {
  const coolings = Object.values(COOLING_OVERHEAD);
  const able = points(arms).filter((point) =>
    point.data === "mnist" && isSimilar(point)
  );
  const best = able.length === 0
    ? null
    : able.reduce((a, b) =>
      topsPerW(a, MAIN_SET) >= topsPerW(b, MAIN_SET) ? a : b
    );
  const rivals = [
    ...RIVALS_TOPS_PER_W.map((tops) => ({
      name: "a rival at room temperature, if it had",
      tops,
    })),
    { name: "XNOR-RRAM, DATE 2018 (read)", tops: RERAM.topsPerW },
  ].sort((a, b) => a.tops - b.tops);
  return {
    id: "superbnn-rivals",
    title: "Times as efficient as a rival",
    caption: best === null
      ? ""
      : `Ours: ${describePoint(best)}; ${
        topsPerW(best, MAIN_SET).toPrecision(3)
      } TOPS/W at 4.2 K, set ${MAIN_SET}; MNIST. The paper's comparators could not be read, so the ratio is swept.`,
    columns: [
      "rival",
      "its TOPS/W",
      ...coolings.map((overhead) =>
        overhead === 1 ? "ratio, cooling not counted" : `${overhead} W/W`
      ),
    ],
    rows: best === null ? [] : rivals.map(({ name, tops }) => [
      name,
      tops,
      ...coolings.map((overhead) => {
        const [{ ratio }] = ratioSweep(topsPerW(best, MAIN_SET) / overhead, [
          tops,
        ]);
        return Number(ratio.toPrecision(3));
      }),
    ]),
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
      ...Object.values(ASSUMPTION_SETS).map(({ name, energy }) => [
        `energy per junction and cycle, set ${name} (zJ)`,
        Number((energy.energyPerJjJ * 1e21).toPrecision(3)),
        energy.standing,
        energy.source,
      ]),
      ...Object.values(ASSUMPTION_SETS).map(({ name, crossbar }) => [
        `junctions of a cell of a crossbar, set ${name}`,
        crossbar.jjPerCell,
        crossbar.standing,
        crossbar.source,
      ]),
      [
        "junctions of memory per activation",
        MEMORY_JJ_PER_BIT,
        "assumed",
        "a loop of one cycle: two and gates, or, splitter, buffer",
      ],
      [
        "clocking",
        "4 phases, layers clocked while they work",
        "assumed",
        "every set; an accumulator's loop is longer than a cycle, so images are interleaved in it",
      ],
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
    rivalsTable(arms),
    clockingTable(arms),
  ].filter(({ rows }) => rows.length > 0);
}
