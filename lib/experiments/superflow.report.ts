/** What the SuperFlow runs say: claims, tables and figures. Reads summaries, computes no runs. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { barFigure, scatterFigure } from "../core/figure.ts";
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

/** Gain of our placer over the better of the earlier ones, in %, for each circuit. */
function gains(arms: ArmSummary[], metric: string): number[] {
  return [...placements(arms).values()].map((methods) => {
    const of = (method: string) => methods.get(method)!.metrics[metric].mean;
    const earlier = Math.min(...EARLIER.map(of));
    return 100 * (earlier - of("superflow")) / earlier;
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
      "length along the rows after detailed placement",
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

/** "123 ± 4" over the seeds, or one number if nothing varies. */
function spread({ mean, low, high, n }: MetricSummary): string | number {
  const half = (high - low) / 2;
  const digits = Math.abs(mean) < 100 ? 1 : 0;
  return n < 2 || half === 0
    ? Number(mean.toFixed(digits))
    : `${mean.toFixed(digits)} ± ${half.toFixed(digits)}`;
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
      `Mean ± half of the 95 % interval over ${seeds} seeds. Length along the rows. Earlier placers are re-implementations after their published principles; ours was tuned on adder8, c432, c880, c1355, c1908 and counter_128, and starts four times where they start once. Period: shortest clock period at which all windows are met, ${DEFAULT_CLOCK.name} (${DEFAULT_CLOCK.note}).`,
    columns: [
      "circuit",
      "cells",
      "placer",
      "length (um)",
      "longest net (um)",
      "period (ps)",
      "time (CPU s)",
    ],
    rows: [...placements(arms)].flatMap(([circuit, methods]) => {
      const cells = armsOf(arms, "balance").find(([name]) => name === circuit);
      return [...methods].map(([method, { metrics, timings }]) => [
        circuit,
        cells?.[1].metrics.cells.mean ?? null,
        PLACERS[method],
        spread(metrics.hpwlUm),
        spread(metrics.longestNetUm),
        spread(metrics.shortestPeriodPs),
        Number(timings.placeSeconds.mean.toPrecision(2)),
      ]);
    }),
  };
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  return [
    flowTable(arms),
    insertionTable(arms, config),
    placementTable(arms, config),
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
      `Ratio to our SuperFlow placer on the same netlist, mean over ${circuits.length} circuits with 95 % intervals; above 1 is worse than ours.`,
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

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  return [
    placerFigure(arms, config),
    ...insertionFigure(arms, config),
    ...scalingFigure(arms),
  ];
}
