/** What the SuperFlow runs say: claims, tables and figures. Reads summaries, computes no runs. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  barFigure,
  gridFigure,
  lineFigure,
  scatterFigure,
} from "../core/figure.ts";
import {
  type ArmSummary,
  type FigureSpec,
  type Measurement,
  type MetricSummary,
  projectRoot,
  type ResultTable,
} from "../core/runs.ts";
import { mean, slope, tInterval } from "../core/stats.ts";
import { DEFAULT_LIBRARY } from "../core/aqfp.ts";
import { DEFAULT_CLOCK } from "../superflow/clock.ts";
import type { Config } from "./superflow.ts";

/** Labels say that the earlier placers are our readings of them. */
const PLACERS: Record<string, string> = {
  superflow: "SuperFlow (ours)",
  taas: "TAAS-like (ours)",
  gordian: "GORDIAN-like (ours)",
  annealing: "annealing",
  barycentre: "barycentre",
  median: "median",
  topological: "topological order",
  random: "random order",
};

/** The placers that the paper's claims compare with. */
const EARLIER = ["taas", "gordian"];

const ROUTERS: Record<string, string> = {
  "left-edge": "left edge",
  negotiated: "negotiated (ours)",
};

const SELECTIONS: Record<string, string> = {
  rows: "whole rows",
  cut: "minimum cut (ours)",
};

const LEVELS: Record<string, string> = {
  naive: "naive",
  asap: "ASAP",
  alap: "ALAP",
  lp: "LP",
  improved: "ours",
};

interface Published {
  source: string;
  circuits: Record<
    string,
    {
      gates: number;
      depth: number;
      bufferSplitterCount: number;
      seconds: number;
    }
  >;
}

/** Best published counts of buffers and splitters, with their source. */
function published(): Published {
  const path = join(projectRoot(), "data/published/aqfp-insertion.json");
  return JSON.parse(readFileSync(path, "utf8"));
}

/** The published result for an arm's circuit; null unless it is the very netlist of the table. */
function publishedFor({ config }: ArmSummary) {
  const [folder, file] = (config.circuit as string).split("/");
  return folder === "iscas85"
    ? published().circuits[file.replace(/\.v$/, "")] ?? null
    : null;
}

/** Arms of one kind by the rest of their id. */
function armsOf(arms: ArmSummary[], kind: string): [string, ArmSummary][] {
  return arms.flatMap((arm) =>
    arm.id.startsWith(`${kind}/`)
      ? [[arm.id.slice(kind.length + 1), arm] as [string, ArmSummary]]
      : []
  );
}

/** Placements by circuit and method. */
function placements(
  arms: ArmSummary[],
): Map<string, Map<string, ArmSummary>> {
  const circuits = new Map<string, Map<string, ArmSummary>>();
  for (const [id, arm] of armsOf(arms, "place")) {
    const [circuit, method] = id.split("/");
    const methods = circuits.get(circuit) ?? new Map();
    circuits.set(circuit, methods.set(method, arm));
  }
  return circuits;
}

// Claims --------------------------------------------------------------------------------------------

/** Gain of our placer over the better of some others, in %, for each circuit. */
function gains(
  arms: ArmSummary[],
  metric: string,
  others: string[] = EARLIER,
): number[] {
  return [...placements(arms).values()].map((methods) => {
    const of = (method: string) => methods.get(method)!.metrics[metric].mean;
    const best = Math.min(...others.map(of));
    return 100 * (best - of("superflow")) / best;
  });
}

function gain(arms: ArmSummary[], metric: string, what: string): Measurement {
  const values = gains(arms, metric);
  const shown = values.map((value) => value.toFixed(1)).join(", ");
  return {
    ...tInterval(values),
    unit: "%",
    note: `${what}; per circuit (${
      [...placements(arms).keys()].join(", ")
    }): ${shown}`,
  };
}

/** Our counts over the published ones; nothing without a circuit of the published table. */
function insertionRatio(
  arms: ArmSummary[],
): Record<string, Measurement> {
  const ratios = armsOf(arms, "insert").flatMap(([name, arm]) => {
    const best = publishedFor(arm);
    return best === null ? [] : [{
      name,
      ratio: arm.metrics.improvedCount.mean / best.bufferSplitterCount,
    }];
  });
  if (ratios.length === 0) return {};
  const values = ratios.map(({ ratio }) => ratio);
  const below = values.filter((ratio) => ratio < 1).length;
  const measurement: Measurement = {
    value: mean(values),
    low: Math.min(...values),
    high: Math.max(...values),
    n: values.length,
    unit: "",
    note: `range over ${
      ratios.map(({ name }) => name).join(", ")
    }; fewer than published on ${below}`,
  };
  return { "superflow-insertion": measurement };
}

export function measure(arms: ArmSummary[]): Record<string, Measurement> {
  const flows = armsOf(arms, "flow");
  const verified = 100 *
    mean(flows.map(([, arm]) => arm.metrics.verified.mean));
  return {
    "superflow-wirelength": gain(
      arms,
      "hpwlUm",
      "length along the rows after detailed placement, the others with at least our processor time on average",
    ),
    "superflow-timing": gain(
      arms,
      "shortestPeriodPs",
      `clock model ${DEFAULT_CLOCK.name}: ${DEFAULT_CLOCK.note}`,
    ),
    ...insertionRatio(arms),
    "superflow-complete": {
      value: verified,
      low: verified,
      high: verified,
      n: flows.length,
      unit: "%",
      note: `circuits: ${flows.map(([name]) => name).join(", ")}`,
    },
  };
}

// Tables --------------------------------------------------------------------------------------------

/** "123 (119 to 126)": mean and range, or one number if nothing varies. */
function range(values: number[], digits?: number): string | number {
  const centre = mean(values);
  const text = (x: number) =>
    // No "-0.0".
    (Number(x.toFixed(digits ?? (Math.abs(centre) < 100 ? 1 : 0))) + 0)
      .toString();
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return text(low) === text(high)
    ? Number(text(centre))
    : `${text(centre)} (${text(low)} to ${text(high)})`;
}

function spread({ values }: MetricSummary): string | number {
  return range(values);
}

/** Two significant digits: what a time of one machine is worth. */
function brief({ mean }: MetricSummary): number {
  return Number(mean.toPrecision(2));
}

function flowTable(arms: ArmSummary[]): ResultTable {
  const columns: [string, string, number][] = [
    ["gates", "gates", 0],
    ["majority gates", "majorityGates", 0],
    ["buffers and splitters", "buffersAndSplitters", 0],
    ["JJ", "jj", 0],
    ["phases", "depth", 0],
    ["tracks", "tracks", 0],
    ["at least", "tracksLowerBound", 0],
    ["vias", "vias", 0],
    ["wire (um)", "wirelengthUm", 0],
    ["worst slack (ps)", "worstSlackPs", 1],
    ["area (mm2)", "areaMm2", 2],
  ];
  return {
    id: "superflow-flow",
    title: "From RTL to GDSII",
    caption:
      `Every circuit: no design rule violation, layout equal to its netlist, layout's netlist proven equivalent to the source. Cells: ${DEFAULT_LIBRARY.name} (${DEFAULT_LIBRARY.note}). Slack: clock model ${DEFAULT_CLOCK.name} (${DEFAULT_CLOCK.note}).`,
    columns: ["circuit", ...columns.map(([title]) => title), "time (CPU s)"],
    rows: armsOf(arms, "flow").map(([name, { metrics, timings }]) => [
      name,
      ...columns.map(([, metric, digits]) =>
        Number(metrics[metric].mean.toFixed(digits))
      ),
      Number(timings.totalSeconds.mean.toPrecision(3)),
    ]),
  };
}

function insertionTable(
  arms: ArmSummary[],
  { insertion }: Config,
): ResultTable {
  return {
    id: "superflow-insertion",
    title: "Buffers and splitters",
    caption:
      `Inputs and outputs balanced, splitters of up to four, logic unchanged; every netlist is legal and equivalent to its source. Published: ${published().source}.`,
    columns: [
      "circuit",
      "gates",
      "phases",
      ...insertion.methods.map((method) => LEVELS[method]),
      "published",
      "ours (CPU s)",
      "published (s)",
    ],
    rows: armsOf(arms, "insert").map(([name, arm]) => {
      const { metrics, timings } = arm;
      const row = publishedFor(arm);
      return [
        name,
        metrics.gates.mean,
        metrics.improvedDepth.mean,
        ...insertion.methods.map((method) => metrics[`${method}Count`].mean),
        row?.bufferSplitterCount ?? null,
        Number(timings.improvedSeconds.mean.toPrecision(2)),
        row?.seconds ?? null,
      ];
    }),
  };
}

function placementTable(arms: ArmSummary[], { seeds }: Config): ResultTable {
  return {
    id: "superflow-placement",
    title: "Placers on the same netlist, library, row width and legaliser",
    caption:
      `Mean and range over ${seeds} seeds. Length along the rows. Earlier placers are re-implementations after their published principles; ours was tuned on adder8, c432, c880, c1355, c1908 and counter_128. Ours starts four times and places two results in detail; every other placer makes as many attempts, each placed in detail, as give it about our processor time or more on average over the circuits (time ratio in the table of gains), and the cheapest counts ("once": after the first attempt); annealing makes that many times as many moves in one attempt. Period: shortest clock period at which all windows are met; negative slack: sum over all connections that miss theirs, ${DEFAULT_CLOCK.name} (${DEFAULT_CLOCK.note}).`,
    columns: [
      "circuit",
      "cells",
      "placer",
      "attempts",
      "length once (um)",
      "length (um)",
      "longest net (um)",
      "period (ps)",
      "negative slack (ps)",
      "time (CPU s)",
    ],
    rows: [...placements(arms)].flatMap(([circuit, methods]) => {
      const cells = armsOf(arms, "balance").find(([name]) => name === circuit);
      return [...methods].map(([method, { metrics, timings, config }]) => [
        circuit,
        cells?.[1].metrics.cells.mean ?? null,
        PLACERS[method],
        config.effort as number,
        spread(metrics.firstHpwlUm),
        spread(metrics.hpwlUm),
        spread(metrics.longestNetUm),
        spread(metrics.shortestPeriodPs),
        spread(metrics.totalNegativeSlackPs),
        brief(timings.placeSeconds),
      ]);
    }),
  };
}

/** Sum of negative slacks that our placer saves against the best of some others: in all, by circuit. */
function slackGains(
  arms: ArmSummary[],
  others: string[],
): { total: number; each: { circuit: string; gain: number }[] } {
  let [ours, theirs] = [0, 0];
  const each: { circuit: string; gain: number }[] = [];
  for (const [circuit, methods] of placements(arms)) {
    const of = (method: string) =>
      -methods.get(method)!.metrics.totalNegativeSlackPs.mean;
    const best = Math.min(...others.map(of));
    const own = of("superflow");
    ours += own;
    theirs += best;
    // A share of nothing is no number.
    if (best > 0) each.push({ circuit, gain: 100 * (best - own) / best });
  }
  return { total: 100 * (theirs - ours) / theirs, each };
}

/** Our placer against each of the others, over all circuits. */
function gainsTable(
  arms: ArmSummary[],
  { placement }: Config,
): ResultTable {
  const circuits = [...placements(arms).values()];
  const single = placement.methods.filter((method) => method !== "superflow");
  const cases: [string, string[]][] = [
    ["the better of TAAS-like and GORDIAN-like", EARLIER],
    ...single.map((method) =>
      [PLACERS[method], [method]] as [string, string[]]
    ),
  ];
  return {
    id: "superflow-gains",
    title: "Gain of our placer at equal processor time",
    caption:
      `Mean and range over ${circuits.length} circuits, in %; below 0 the other is better. Negative slack is no measure of the paper's: the first number is the gain of the sum over all circuits, the range is that of the circuits that have any. Time: theirs over ours, processor seconds.`,
    columns: [
      "against",
      "wirelength (%)",
      "shorter on",
      "clock period (%)",
      "negative slack (%)",
      "time ratio",
    ],
    rows: circuits.length === 0 ? [] : cases.map(([name, others]) => {
      const lengths = gains(arms, "hpwlUm", others);
      const { total, each } = slackGains(arms, others);
      const values = each.map(({ gain }) => gain);
      const seconds = (methods: typeof circuits[number], method: string) =>
        methods.get(method)!.timings.placeSeconds.mean;
      return [
        name,
        range(lengths, 1),
        `${lengths.filter((gain) => gain > 0).length} of ${lengths.length}`,
        range(gains(arms, "shortestPeriodPs", others), 1),
        values.length === 0
          ? null
          : `${total.toFixed(1)} (${Math.min(...values).toFixed(1)} to ${
            Math.max(...values).toFixed(1)
          })`,
        others.length > 1 ? null : range(
          circuits.map((methods) =>
            seconds(methods, others[0]) / seconds(methods, "superflow")
          ),
          1,
        ),
      ];
    }),
  };
}

/** Negative slack of every placer where there is any. */
function timingTable(
  arms: ArmSummary[],
  { placement, seeds }: Config,
): ResultTable {
  const { each } = slackGains(arms, EARLIER);
  return {
    id: "superflow-timing",
    title: "Sum of negative slacks",
    caption:
      `ps, mean and range over ${seeds} seeds, circuits with any; nearer to 0 is better. The measure is ours: the worst slack, and with it the shortest period, hardly moves at the default weight of timing, while the sum tells how many connections miss their window and by how much. Gain: against the better of TAAS-like and GORDIAN-like. ${DEFAULT_CLOCK.name} (${DEFAULT_CLOCK.note}).`,
    columns: [
      "circuit",
      "worst slack, ours (ps)",
      ...placement.methods.map((method) => PLACERS[method]),
      "gain (%)",
    ],
    rows: each.map(({ circuit, gain }) => {
      const methods = placements(arms).get(circuit)!;
      return [
        circuit,
        spread(methods.get("superflow")!.metrics.worstSlackPs),
        ...placement.methods.map((method) =>
          spread(methods.get(method)!.metrics.totalNegativeSlackPs)
        ),
        Number(gain.toFixed(1)),
      ];
    }),
  };
}

/** Number of seeds of the arms of one kind. */
function seedsOf(arms: ArmSummary[], kind: string): number {
  return armsOf(arms, kind)[0]?.[1].seeds.length ?? 0;
}

function routingTable(arms: ArmSummary[]): ResultTable {
  const seeds = seedsOf(arms, "route");
  return {
    id: "superflow-routing",
    title: "Routers on the same placement",
    caption:
      `Our placement, mean and range over ${seeds} seeds; every layout has no design rule violation and is equal to its netlist. "At least": tracks that no router can do without. Expansions: tracks beyond that number that channels were given as some connection could not be completed; left edge takes tracks as it needs them.`,
    columns: [
      "circuit",
      "router",
      "tracks",
      "at least",
      "expansions",
      "vias",
      "wire (um)",
      "time (CPU s)",
    ],
    rows: armsOf(arms, "route").map(([id, { metrics, timings, config }]) => [
      id.split("/")[0],
      ROUTERS[config.router as string],
      spread(metrics.tracks),
      spread(metrics.tracksLowerBound),
      config.router === "negotiated" ? spread(metrics.expansions) : null,
      spread(metrics.vias),
      spread(metrics.wirelengthUm),
      brief(timings.routeSeconds),
    ]),
  };
}

function rowsTable(arms: ArmSummary[]): ResultTable {
  const seeds = seedsOf(arms, "rows");
  return {
    id: "superflow-rows",
    title: "Buffers against long nets",
    caption:
      `From our placement, mean and range over ${seeds} seeds; every netlist is legal and equivalent to what it was. At the usual limit of 1000 um better places are enough on all circuits, hence the shorter ones; where both add nothing, the same holds. "Whole rows" splits rows by falling thresholds of over-long nets, "minimum cut" puts buffers across the cheapest cut.`,
    columns: [
      "circuit",
      "limit (um)",
      "selection",
      "too long before",
      "buffers added",
      "phases added",
      "too long after",
      "longest net (um)",
      "worst slack (ps)",
      "length (um)",
      "time (CPU s)",
    ],
    rows: armsOf(arms, "rows").map(([id, { metrics, timings, config }]) => [
      id.split("/")[0],
      config.maxWireUm as number,
      SELECTIONS[config.selection as string],
      spread(metrics.overlongAtStart),
      spread(metrics.buffersAdded),
      spread(metrics.rowsAdded),
      spread(metrics.overlong),
      spread(metrics.longestNetUm),
      spread(metrics.worstSlackPs),
      spread(metrics.hpwlUm),
      brief(timings.rowsSeconds),
    ]),
  };
}

/** Gaps to the optimum by circuit and method. */
function gapTable(arms: ArmSummary[]): ResultTable {
  const circuits = armsOf(arms, "optimum");
  const methods = [
    ...new Set(armsOf(arms, "gap").map(([id]) => id.split("/")[1])),
  ];
  const gapsOf = (circuit: string, method: string) =>
    arms.find(({ id }) => id === `gap/${circuit}/${method}`)!.metrics.gapPercent
      .values;
  const all = methods.map((method) =>
    circuits.flatMap(([circuit]) => gapsOf(circuit, method))
  );
  return {
    id: "superflow-gap",
    title: "Gap to the shortest placement",
    caption: `Length beyond the optimum in %, mean and range over ${
      seedsOf(arms, "gap")
    } seeds; efforts as in the comparison. Wire length only, pins as the netlist has them. The optimum is that of an integer program (HiGHS), over all orders and places.`,
    columns: [
      "circuit",
      "cells",
      "optimum (um)",
      "exact (CPU s)",
      ...methods.map((method) => PLACERS[method]),
    ],
    rows: circuits.length === 0 ? [] : [
      ...circuits.map(([circuit, { metrics, timings }]) => [
        circuit,
        metrics.cells.mean,
        metrics.optimumUm.mean,
        brief(timings.exactSeconds),
        ...methods.map((method) => range(gapsOf(circuit, method), 1)),
      ]),
      ["all", null, null, null, ...all.map((values) => range(values, 1))],
    ],
  };
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  return [
    flowTable(arms),
    insertionTable(arms, config),
    gainsTable(arms, config),
    placementTable(arms, config),
    timingTable(arms, config),
    gapTable(arms),
    rowsTable(arms),
    routingTable(arms),
  ].filter(({ rows }) => rows.length > 0);
}

// Figures -------------------------------------------------------------------------------------------

/** Wirelength of every placer relative to ours, mean over the circuits. */
function placerFigure(arms: ArmSummary[], { placement }: Config): FigureSpec {
  const circuits = [...placements(arms).values()];
  const rows = placement.methods
    .filter((method) => method !== "superflow")
    .flatMap((method) =>
      (["hpwlUm", "shortestPeriodPs"] as const).map((metric) => {
        const ratios = circuits.map((methods) =>
          methods.get(method)!.metrics[metric].mean /
          methods.get("superflow")!.metrics[metric].mean
        );
        const { value, low, high, n } = tInterval(ratios);
        return {
          placer: PLACERS[method],
          metric: metric === "hpwlUm" ? "wirelength" : "clock period",
          ratio: { mean: value, halfWidth: n > 1 ? (high - low) / 2 : 0, n },
        };
      })
    );
  return barFigure(rows, {
    id: "superflow-placers",
    title: "Other placers relative to SuperFlow's",
    caption:
      `Ratio to our SuperFlow placer on the same netlist at equal processor time, mean over ${circuits.length} circuits with 95 % intervals; above 1 is worse than ours.`,
    x: "placer",
    y: "ratio",
    series: "metric",
    yAxis: { title: "ratio to SuperFlow" },
  });
}

/** Time of each stage against the number of cells. */
function scalingFigure(arms: ArmSummary[]): FigureSpec[] {
  const flows = armsOf(arms, "flow");
  if (flows.length < 4) return [];
  const stages = ["synthesis", "legalisation", "placement", "routing"];
  const rows = flows.flatMap(([, { metrics, timings }]) =>
    stages.map((stage) => ({
      stage,
      cells: metrics.cells.mean,
      seconds: Math.max(timings[`${stage}Seconds`].mean, 1e-3),
    }))
  );
  const fits = Object.fromEntries(stages.map((stage) => {
    const own = rows.filter((row) => row.stage === stage);
    const { value, intercept } = slope(
      own.map(({ cells }) => Math.log(cells)),
      own.map(({ seconds }) => Math.log(seconds)),
    );
    return [stage, { slope: value, intercept }];
  }));
  const exponents = stages.map((stage) =>
    `${stage} ${fits[stage].slope.toFixed(2)}`
  );
  return [scatterFigure(rows, {
    id: "superflow-scaling",
    title: "Time of each stage against the size of the circuit",
    caption:
      `Processor time with the stage's own verifiers, one circuit per mark. Exponents of time against cells: ${
        exponents.join(", ")
      }; the start of Yosys, some seconds, hides the growth of synthesis.`,
    x: "cells",
    y: "seconds",
    series: "stage",
    order: stages,
    fits,
    xAxis: { title: "cells in the layout", scale: "log" },
    yAxis: { title: "processor time", unit: "s", scale: "log" },
  })];
}

/** Insertion methods relative to the published counts. */
function insertionFigure(
  arms: ArmSummary[],
  { insertion }: Config,
): FigureSpec[] {
  const rows = armsOf(arms, "insert").flatMap(([name, arm]) => {
    const best = publishedFor(arm);
    return best === null ? [] : insertion.methods.map((method) => ({
      circuit: name,
      method: LEVELS[method],
      ratio: arm.metrics[`${method}Count`].mean / best.bufferSplitterCount,
    }));
  });
  return rows.length === 0 ? [] : [barFigure(rows, {
    id: "superflow-insertion",
    title: "Buffers and splitters relative to the best published count",
    caption: "1 is the published count of the same circuit; lower is better.",
    x: "circuit",
    y: "ratio",
    series: "method",
    order: insertion.methods.map((method) => LEVELS[method]),
    yAxis: { title: "ratio to the published count" },
  })];
}

/** What the weight of timing buys: wirelength against slack, one line per circuit. */
function weightFigure(arms: ArmSummary[]): FigureSpec[] {
  const points = new Map<string, ArmSummary[]>();
  for (const [id, arm] of armsOf(arms, "weight")) {
    const [circuit] = id.split("/");
    points.set(circuit, [...points.get(circuit) ?? [], arm]);
  }
  const rows = [...points].flatMap(([circuit, list]) => {
    const of = (arm: ArmSummary, metric: string) => arm.metrics[metric].mean;
    const plain = list.find(({ config }) => config.timingWeight === 0)!;
    // Without a missed window there is nothing to trade.
    if (of(plain, "totalNegativeSlackPs") === 0) return [];
    return list.map((arm) => ({
      circuit,
      length: of(arm, "hpwlUm") / of(plain, "hpwlUm"),
      total: of(arm, "totalNegativeSlackPs") /
        of(plain, "totalNegativeSlackPs"),
      worst: of(arm, "worstSlackPs"),
    }));
  });
  if (rows.length === 0) return [];
  const weights = [...points.values()][0].map(({ config }) =>
    config.timingWeight
  );
  const panel = (
    y: "total" | "worst",
    title: string,
    yAxis: { title: string; unit?: string },
  ) =>
    lineFigure(rows, {
      id: `superflow-weights-${y}`,
      title,
      x: "length",
      y,
      series: "circuit",
      xAxis: { title: "wirelength relative to weight 0", scale: "log" },
      yAxis,
    });
  return [gridFigure([
    panel("total", "Sum of negative slacks", {
      title: "relative to weight 0",
    }),
    panel("worst", "Worst slack", { title: "worst slack", unit: "ps" }),
  ], {
    id: "superflow-weights",
    title: "What timing costs in wirelength",
    caption: `Our placer with weights of timing ${
      weights.join(", ")
    } (1 is the default), mean over ${
      seedsOf(arms, "weight")
    } seeds; every line begins at weight 0 with length 1. Both the sum of negative slacks and the worst slack can be bought with wire, at a price that rises steeply: weights above the default cost up to ${
      Math.max(...rows.map(({ length }) => length)).toFixed(1)
    } times the length of weight 0.`,
    rowHeight: 380,
  })];
}

/** What the growth figure reads of `data/bench/flow.json`. */
export interface BenchFlow {
  rows: {
    name: string;
    cells: number;
    stages: Record<string, number>;
    peakMemoryMb: number;
  }[];
  provenance: { machine: { cpu: string } };
}

/** Flows as `npm run bench` recorded them; null before it has. */
function recordedFlows(): BenchFlow | null {
  const path = join(projectRoot(), "data/bench/flow.json");
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : null;
}

/** Time and memory of the measured adders against their cells. */
export function growthFigure(
  { rows: all, provenance }: BenchFlow,
): FigureSpec[] {
  const adders = all.filter(({ name }) => name.startsWith("adder,"));
  if (adders.length < 4) return [];
  const stages = Object.keys(adders[0].stages);
  const exponent = (quantity: (row: typeof adders[number]) => number) =>
    slope(
      adders.map(({ cells }) => Math.log(cells)),
      adders.map((row) => Math.log(Math.max(quantity(row), 1e-3))),
    );
  const stageFits = stages.map((stage) => {
    const { value, intercept } = exponent(({ stages }) => stages[stage]);
    return { stage, fit: { slope: value, intercept } };
  });
  const memory = exponent(({ peakMemoryMb }) => peakMemoryMb);
  // Between the two largest, where what every run costs weighs least.
  const [before, last] = adders.slice(-2);
  const late = (stage: string) =>
    Math.log(last.stages[stage] / before.stages[stage]) /
    Math.log(last.cells / before.cells);
  const nLogN = (row: { cells: number }) => row.cells * Math.log(row.cells);
  const lateNLogN = Math.log(nLogN(last) / nLogN(before)) /
    Math.log(last.cells / before.cells);
  const faster = stages.filter((stage) => late(stage) > lateNLogN);
  const list = (of: (stage: string) => number) =>
    stages.map((stage) => `${stage} ${of(stage).toFixed(2)}`).join(", ");
  const cellsAxis = { title: "cells in the layout", scale: "log" } as const;
  const time = scatterFigure(
    adders.flatMap(({ cells, stages: seconds }) =>
      stages.map((stage) => ({
        stage,
        cells,
        seconds: Math.max(seconds[stage], 1e-3),
      }))
    ),
    {
      id: "superflow-growth-time",
      title: "Processor time",
      x: "cells",
      y: "seconds",
      series: "stage",
      order: stages,
      fits: Object.fromEntries(stageFits.map(({ stage, fit }) => [stage, fit])),
      xAxis: cellsAxis,
      yAxis: { title: "processor time", unit: "s", scale: "log" },
    },
  );
  const space = scatterFigure(
    adders.map(({ cells, peakMemoryMb }) => ({
      cells,
      peakMemoryMb,
      what: "memory",
    })),
    {
      id: "superflow-growth-memory",
      title: "Peak memory",
      x: "cells",
      y: "peakMemoryMb",
      series: "what",
      order: [...stages, "memory"],
      xAxis: cellsAxis,
      // From 0: what varies between runs of one size would look like growth.
      yAxis: {
        title: "memory of the process",
        unit: "MB",
        range: [
          0,
          1.1 * Math.max(...adders.map(({ peakMemoryMb }) => peakMemoryMb)),
        ],
      },
    },
  );
  return [gridFigure([time, space], {
    id: "superflow-growth",
    title: "Growth of time and memory with the circuit",
    caption: `Adders of ${adders[0].name.replace(/\D/g, "")} to ${
      last.name.replace(/\D/g, "")
    } bits, whole flows with verifiers in a fresh process each (${provenance.machine.cpu}). Fitted exponents against cells: ${
      list((stage) => stageFits.find((one) => one.stage === stage)!.fit.slope)
    }, memory ${memory.value.toFixed(2)}; between the two largest: ${
      list(late)
    }, where n log n would be ${lateNLogN.toFixed(2)}. ${
      faster.length === 0
        ? "No stage grows faster than n log n in this range"
        : `Faster than n log n: ${faster.join(", ")}`
    }. Steps of the analytic placement and moves per cell are fixed, so that every part of placement is linear in the cells; it rises above that where nets on a wider chip exceed the limit of length and rows are placed in detail once more. Starting Yosys and compiling the program take seconds at any size and hide the growth of the other stages.`,
    rowHeight: 380,
  })];
}

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  const bench = recordedFlows();
  return [
    placerFigure(arms, config),
    ...weightFigure(arms),
    ...insertionFigure(arms, config),
    ...scalingFigure(arms),
    ...(bench === null ? [] : growthFigure(bench)),
  ];
}
