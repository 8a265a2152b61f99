/** What the life-cycle runs say: claims, tables and figures. Reads summaries, computes no runs. */
import {
  barFigure,
  gridFigure,
  heatmapFigure,
  lineFigure,
  PALETTE,
} from "../core/figure.ts";
import {
  type ArmSummary,
  type FigureSpec,
  findArm,
  type Measurement,
  type ResultTable,
} from "../core/runs.ts";
import {
  aqfpInventory,
  type FunctionalUnit,
  type ImpactName,
  type Phase,
  PHASES,
  TECHNOLOGIES,
  type Technology,
} from "../aqfp-lca/comparison.ts";
import { type Config, logSteps, MAPS } from "./aqfp-lca.ts";

const UNITS: Record<FunctionalUnit, string> = {
  core: "one core each",
  throughput: "equal throughput",
  operations: "1e18 operations",
};

const IMPACT_UNITS: Record<ImpactName, string> = {
  electricity: "kWh",
  "climate change": "kg CO2e",
};

/** Rule of cooling of all figures that show one. */
const DEFAULT_BASELINE = "large plant, 400 W/W";

/** What is printed with every result that uses the inventory's default numbers. */
const ASSUMPTIONS =
  "Open data and assumed ranges, listed in data/inventory; no number is the paper's.";

function metric(arm: ArmSummary, name: string): number {
  const found = arm.metrics[name];
  if (found === undefined) {
    throw new RangeError(`Cannot find the metric "${name}" of arm ${arm.id}`);
  }
  return found.mean;
}

function seriesOf(arm: ArmSummary, name: string): number[] {
  const found = arm.series[name];
  if (found === undefined) {
    throw new RangeError(`Cannot find the series "${name}" of arm ${arm.id}`);
  }
  return found.mean;
}

/** Metrics whose name starts with `prefix|`, by the rest of their name. */
function under(arm: ArmSummary, prefix: string): Map<string, number> {
  const start = `${prefix}|`;
  return new Map(
    Object.entries(arm.metrics).filter(([name]) => name.startsWith(start))
      .map(([name, { mean }]) => [name.slice(start.length), mean]),
  );
}

const digits = (x: number, n = 3) => Number(x.toPrecision(n));

/** A ratio in a cell, small ones as powers of ten. */
const ratioText = (x: number) =>
  x < 1e-3 ? x.toExponential(1) : String(digits(x));

// Claims --------------------------------------------------------------------------------------------

/** Median and 95 % interval of a ratio over the draws. */
function ratio(
  arms: ArmSummary[],
  functionalUnit: FunctionalUnit,
  what: "use" | "total",
  { draws }: Config,
): Measurement {
  const arm = findArm(arms, `uncertainty/${functionalUnit}`);
  const of = (name: string) => metric(arm, `dependent|${what} ratio|${name}`);
  return {
    value: of("median"),
    low: of("low"),
    high: of("high"),
    n: draws,
    unit: "",
    note: `${
      UNITS[functionalUnit]
    }; median and 95 % interval of ${draws} draws; ${ASSUMPTIONS}`,
  };
}

export function measure(
  arms: ArmSummary[],
  config: Config,
): Record<string, Measurement> {
  return {
    "aqfp-lca-use": ratio(arms, "core", "use", config),
    "aqfp-lca-total": ratio(arms, "core", "total", config),
    "aqfp-lca-use-throughput": ratio(arms, "throughput", "use", config),
    "aqfp-lca-total-throughput": ratio(arms, "throughput", "total", config),
  };
}

// Tables --------------------------------------------------------------------------------------------

/** Every number of the inventory that is not calculated. */
function inventoryTable(): ResultTable {
  const { parameters } = aqfpInventory();
  const given = parameters.filter(({ amount, distribution, standing }) =>
    typeof amount === "number" &&
    (distribution.kind !== "fixed" || standing !== "derived")
  );
  return {
    id: "aqfp-lca-inventory",
    title: "Numbers of the inventory, with their sources",
    caption:
      "Standing: read in the source named, recalled, derived or assumed. Range: ends of a triangle, or geometric standard deviation. Pedigree: scores 1 (best) to 5 for reliability, completeness, time, place and technology.",
    columns: [
      "parameter",
      "amount",
      "unit",
      "range",
      "pedigree",
      "standing",
      "source",
    ],
    rows: given.map((p) => {
      const { distribution: d } = p;
      return [
        p.name,
        p.amount as number,
        p.unit,
        d.kind === "triangular" || d.kind === "uniform"
          ? `${d.low} to ${d.high}`
          : d.kind === "lognormal"
          ? `× or ÷ ${d.gsd}`
          : d.kind === "pedigree"
          ? "by pedigree"
          : "–",
        p.pedigree?.join(" ") ?? "–",
        p.standing,
        p.source,
      ];
    }),
  };
}

function netlistTable(arms: ArmSummary[], { circuit }: Config): ResultTable {
  const arm = findArm(arms, "netlist");
  return {
    id: "aqfp-lca-netlist",
    title: "Where the number of junctions comes from",
    caption:
      `${circuit}, synthesised and balanced; the netlist is legal and proven equivalent to its source. The core has as many junctions for each gate equivalent, times an assumed factor.`,
    columns: [
      "two-input gates",
      "majority gates",
      "cells with buffers and splitters",
      "junctions",
      "phases",
    ],
    rows: [[
      metric(arm, "alu_gates"),
      metric(arm, "majorityGates"),
      metric(arm, "cells"),
      metric(arm, "alu_junctions"),
      metric(arm, "alu_phases"),
    ]],
  };
}

/** All baselines in all functional units. */
function baselineTable(
  arms: ArmSummary[],
  config: Config,
  baselines: string[],
): ResultTable {
  return {
    id: "aqfp-lca-baselines",
    title: "AQFP against CMOS: electricity of the life cycle",
    caption:
      `Three years; amounts without uncertainty, as a spreadsheet has them. Use-phase-only ratios, as papers on devices give them, leave out the making. Ratio: CMOS over AQFP, above 1 where AQFP is better. ${ASSUMPTIONS}`,
    columns: [
      "functional unit",
      "baseline",
      "AQFP making (kWh)",
      "AQFP use (kWh)",
      "CMOS making (kWh)",
      "CMOS use (kWh)",
      "ratio, use only",
      "ratio, life cycle",
      "ratio, carbon",
    ],
    rows: config.functionalUnits.flatMap((functionalUnit) => {
      const arm = findArm(arms, `compare/${functionalUnit}`);
      return baselines.map((baseline) => {
        const of = (technology: Technology, phase: Phase) =>
          metric(arm, `${baseline}|electricity|${technology}|${phase}`);
        const making = (technology: Technology) =>
          of(technology, "manufacturing") + of(technology, "assembly");
        return [
          UNITS[functionalUnit],
          baseline,
          digits(making("AQFP")),
          digits(of("AQFP", "use")),
          digits(making("CMOS")),
          digits(of("CMOS", "use")),
          digits(metric(arm, `${baseline}|electricity|use ratio`)),
          digits(metric(arm, `${baseline}|electricity|total ratio`)),
          digits(metric(arm, `${baseline}|climate change|total ratio`)),
        ];
      });
    }),
  };
}

/** Shared draws against separate ones. */
function uncertaintyTable(
  arms: ArmSummary[],
  { functionalUnits, draws }: Config,
): ResultTable {
  return {
    id: "aqfp-lca-uncertainty",
    title: "What is certain of the comparison",
    caption:
      `Electricity, ${draws} draws. Shared: what both technologies use, such as the fab's electricity, is one number in a draw; separate draws overstate the spread of the ratio. AQFP better: share of the draws.`,
    columns: [
      "functional unit",
      "draws",
      "use ratio, median",
      "95 % interval of it",
      "total ratio, median",
      "95 % interval of the total",
      "AQFP better (%)",
      "AQFP better by 100 (%)",
    ],
    rows: functionalUnits.flatMap((functionalUnit) => {
      const arm = findArm(arms, `uncertainty/${functionalUnit}`);
      return ["dependent", "independent"].map((mode) => {
        const of = (name: string) => metric(arm, `${mode}|${name}`);
        const interval = (name: string) =>
          `${digits(of(`${name}|low`))} to ${digits(of(`${name}|high`))}`;
        return [
          UNITS[functionalUnit],
          mode === "dependent" ? "shared" : "separate",
          digits(of("use ratio|median")),
          interval("use ratio"),
          digits(of("total ratio|median")),
          interval("total ratio"),
          digits(100 * of("better")),
          digits(100 * of("better by 100")),
        ];
      });
    }),
  };
}

function flipTable(arms: ArmSummary[], config: Config): ResultTable {
  const { functionalUnits } = config;
  const of = (functionalUnit: FunctionalUnit) =>
    findArm(arms, `flips/${functionalUnit}`);
  const names = [
    ...new Set(
      Object.keys(of(functionalUnits[0]).metrics).map((name) =>
        name.split("|")[0]
      ),
    ),
  ];
  return {
    id: "aqfp-lca-flips",
    title: "One assumption changed at a time",
    caption:
      "Electricity of CMOS over that of AQFP, use phase and life cycle: above 1 where AQFP is better, above 100 where the paper's second claim holds.",
    columns: [
      "assumption",
      ...functionalUnits.flatMap((unit) => [
        `${UNITS[unit]}: use`,
        `${UNITS[unit]}: life cycle`,
      ]),
    ],
    rows: names.map((name) => [
      name,
      ...functionalUnits.flatMap((unit) => [
        digits(metric(of(unit), `${name}|use`)),
        digits(metric(of(unit), `${name}|total`)),
      ]),
    ]),
  };
}

export function tables(arms: ArmSummary[], config: Config): ResultTable[] {
  const first = findArm(arms, `compare/${config.functionalUnits[0]}`);
  const baselines = [
    ...new Set(Object.keys(first.metrics).map((name) => name.split("|")[0])),
  ];
  return [
    netlistTable(arms, config),
    baselineTable(arms, config, baselines),
    uncertaintyTable(arms, config),
    flipTable(arms, config),
    inventoryTable(),
  ];
}

// Figures -------------------------------------------------------------------------------------------

/** Stacked phases of both technologies, a panel per functional unit. */
function phaseFigure(
  arms: ArmSummary[],
  { functionalUnits }: Config,
  impact: ImpactName,
): FigureSpec {
  const panels = functionalUnits.map((functionalUnit) => {
    const arm = findArm(arms, `compare/${functionalUnit}`);
    const rows = TECHNOLOGIES.flatMap((technology) =>
      PHASES.map((phase) => ({
        technology,
        phase,
        amount: metric(
          arm,
          `${DEFAULT_BASELINE}|${impact}|${technology}|${phase}`,
        ),
      }))
    );
    return barFigure(rows, {
      id: functionalUnit,
      title: UNITS[functionalUnit],
      x: "technology",
      y: "amount",
      series: "phase",
      order: [...PHASES],
      xAxis: { title: "" },
      yAxis: { title: impact, unit: IMPACT_UNITS[impact] },
    });
  });
  const figure = gridFigure(panels, {
    id: `aqfp-lca-phases-${impact.replace(" ", "-")}`,
    title: `Phases of both life cycles: ${impact}`,
    caption:
      `Three years, ${DEFAULT_BASELINE}, CMOS at 28 nm; each panel has its own scale. AQFP is mostly made, CMOS is mostly used. ${ASSUMPTIONS}`,
    columns: functionalUnits.length,
  });
  figure.layout.barmode = "stack";
  return figure;
}

interface Flow {
  from: string;
  to: string;
  value: number;
}

/** Processes with one output that add nothing of their own. */
const PASSING = [
  "AQFP manufacturing",
  "AQFP assembly",
  "AQFP use",
  "AQFP chip use",
  "AQFP die",
];

/** Edges past a process that passes on what it gets. */
function contract(edges: Flow[], process: string): Flow[] {
  const to = edges.find(({ from }) => from === process)?.to;
  if (to === undefined) return edges;
  return edges.filter(({ from }) => from !== process)
    .map((edge) => edge.to === process ? { ...edge, to } : edge);
}

/** What flows between the processes of the AQFP's life. */
function sankeyFigure(arms: ArmSummary[]): FigureSpec {
  const arm = findArm(arms, "chain/throughput");
  const edges = [...under(arm, "edge")].map(([name, value]) => {
    const [from, to] = name.split("|");
    return { from, to, value };
  }).filter(({ to }) => to !== "demand");
  const total = metric(arm, "total");
  // Processes that only pass on what they get would hide the others' names.
  const contracted = PASSING.reduce(contract, edges);
  // Thin flows would only be lines without a reading.
  const shown = contracted.filter(({ value }) => value > 0.002 * total);
  const nodes = [...new Set(shown.flatMap(({ from, to }) => [from, to]))];
  const last = "AQFP service";
  const base = barFigure([], { id: "", title: "", x: "", y: "" }).layout;
  const { xaxis: _, yaxis: __, title: style, ...layout } = base;
  const title =
    "Electricity of an AQFP processor's life, from source to service";
  return {
    id: "aqfp-lca-sankey",
    title,
    caption:
      `Electricity (kWh) that each flow carries, ${UNITS.throughput}. Inflow and own burden of every process equal its outflow to 1e-9; the picture leaves out what returns to an earlier process and flows below 0.2 %.`,
    data: [{
      type: "sankey",
      arrangement: "snap",
      valueformat: ".3g",
      valuesuffix: " kWh",
      node: {
        // The last one's name would lie on the flows into it.
        label: nodes.map((name) =>
          name === last ? "" : name.replace(/ \(.*\)$/, "")
        ),
        pad: 14,
        thickness: 14,
        color: nodes.map((_, i) => PALETTE[i % PALETTE.length]),
        line: { width: 0 },
      },
      link: {
        source: shown.map(({ from }) => nodes.indexOf(from)),
        target: shown.map(({ to }) => nodes.indexOf(to)),
        value: shown.map(({ value }) => value),
        color: shown.map(() => "rgba(0, 114, 178, 0.22)"),
      },
    }],
    layout: {
      ...layout,
      title: { ...style as object, text: title },
      width: 1200,
      height: 620,
      margin: { l: 16, r: 106, t: 56, b: 16 },
      showlegend: false,
      annotations: [{
        text: last,
        showarrow: false,
        xref: "paper",
        yref: "paper",
        x: 1,
        y: 0.5,
        xanchor: "left",
        xshift: 4,
      }],
    },
  };
}

/** Where the electricity of the AQFP's life goes, up to the total of CMOS. */
function waterfallFigure(arms: ArmSummary[]): FigureSpec {
  const arm = findArm(arms, "chain/throughput");
  const parts = [...under(arm, "part")].filter(([, value]) => value > 0);
  const cmos = metric(arm, "cmos total");
  const names = [...parts.map(([name]) => name), "AQFP", "CMOS saves", "CMOS"];
  const aqfp = parts.reduce((sum, [, value]) => sum + value, 0);
  names[names.length - 2] = "difference";
  const figure = barFigure(names.map((name) => ({ name, kwh: 0 })), {
    id: "aqfp-lca-waterfall",
    title: "What an AQFP processor's life consists of",
    caption:
      `Electricity, ${UNITS.throughput}, three years, 400 W/W; steps of the niobium process with tools, clean room and utilities.`,
    x: "name",
    y: "kwh",
    height: 520,
    xAxis: { title: "" },
    yAxis: { title: "electricity", unit: "kWh" },
  });
  const mark = (color: string) => ({ marker: { color } });
  figure.data = [{
    type: "waterfall",
    orientation: "v",
    x: names,
    y: [...parts.map(([, value]) => value), aqfp, cmos - aqfp, cmos],
    measure: [
      ...parts.map(() => "relative"),
      "total",
      "relative",
      "total",
    ],
    increasing: mark(PALETTE[1]),
    decreasing: mark(PALETTE[2]),
    totals: mark(PALETTE[0]),
    connector: { line: { color: "#bbbbbb", width: 1 } },
  }];
  figure.layout.showlegend = false;
  return figure;
}

/** One parameter at a time: the total ratio over its range, or with a tenth less and more. */
function tornadoFigure(
  arms: ArmSummary[],
  by: "range" | "tenth",
): FigureSpec {
  const arm = findArm(arms, "sensitivity/throughput");
  const central = metric(arm, "central");
  const [less, more] = by === "range" ? ["low", "high"] : ["minus", "plus"];
  const high = under(arm, more);
  const bars = [...under(arm, less)].map(([name, at]) => ({
    name,
    low: at,
    high: high.get(name)!,
  }));
  const span = (b: typeof bars[0]) => Math.abs(Math.log(b.high / b.low));
  bars.sort((a, b) => span(b) - span(a));
  const shown = bars.slice(0, 14).reverse();
  const figure = barFigure(shown.map(({ name }) => ({ name, ratio: 0 })), {
    id: by === "range" ? "aqfp-lca-tornado" : "aqfp-lca-tornado-tenth",
    title: by === "range"
      ? "One assumption at a time over its 90 % range"
      : "One number at a time, a tenth less and a tenth more",
    caption: `${
      by === "range" ? "" : "Fixed numbers too, the 14 that move it most. "
    }Electricity of CMOS over that of AQFP, ${UNITS.throughput}; all others at their amounts, where the ratio is ${
      digits(central)
    }.${by === "range" ? " Left of the dotted line CMOS is better." : ""}`,
    x: "name",
    y: "ratio",
    height: 560,
  });
  const bar = (
    name: string,
    index: number,
    of: (b: typeof bars[0]) => number,
  ) => ({
    type: "bar",
    orientation: "h",
    name,
    y: shown.map((b) => b.name),
    // From the middle outwards on a log axis: base and length.
    base: shown.map((b) => Math.min(of(b), central)),
    x: shown.map((b) => Math.abs(of(b) - central)),
    marker: { color: PALETTE[index] },
    customdata: shown.map(of),
    hovertemplate: "%{y}: %{customdata:.3g}",
  });
  figure.data = [
    bar(by === "range" ? "5 % end of the range" : "10 % less", 0, (b) => b.low),
    bar(
      by === "range" ? "95 % end of the range" : "10 % more",
      1,
      (b) => b.high,
    ),
  ];
  const { xaxis, yaxis } = figure.layout as Record<string, object>;
  const ends = shown.flatMap((b) => [b.low, b.high]);
  // The line of equality is in the picture of the ranges, and would squeeze that of the tenths.
  const edges = by === "range"
    ? [Math.min(0.9, ...ends) / 1.15, Math.max(...ends) * 1.15]
    : [Math.min(...ends) / 1.02, Math.max(...ends) * 1.02];
  const step = by === "range" ? [1, 2, 5] : [1, 1.2, 1.4, 1.6, 1.8]
    .flatMap((t) => [t, t + 1, t + 2, t + 4, t + 6]);
  const ticks = [0.01, 0.1, 1, 10, 100, 1000]
    .flatMap((p) => step.map((t) => digits(p * t, 2)))
    .filter((t, i, all) =>
      t >= edges[0] && t <= edges[1] && all.indexOf(t) === i
    );
  figure.layout = {
    ...figure.layout,
    barmode: "overlay",
    showlegend: true,
    margin: { l: 76, r: 24, t: 84, b: 64 },
    xaxis: {
      ...yaxis,
      type: "log",
      range: edges.map(Math.log10),
      tickmode: "array",
      tickvals: ticks,
      ticktext: ticks.map(String),
      title: { text: "CMOS over AQFP, life-cycle electricity", standoff: 12 },
    },
    yaxis: { ...xaxis, title: { text: "" }, automargin: true, ticks: "" },
    shapes: by === "tenth" ? [] : [{
      type: "line",
      xref: "x",
      yref: "paper",
      x0: 1,
      x1: 1,
      y0: 0,
      y1: 1,
      line: { color: "#666666", width: 1, dash: "dot" },
    }],
  };
  return figure;
}

/** Distributions of both totals as shares of draws below. */
function monteCarloFigure(
  arms: ArmSummary[],
  { functionalUnits, draws }: Config,
): FigureSpec {
  const panels = functionalUnits.map((functionalUnit) => {
    const arm = findArm(arms, `uncertainty/${functionalUnit}`);
    const levels = seriesOf(arm, "levels");
    const rows = TECHNOLOGIES.flatMap((technology) =>
      seriesOf(arm, `dependent ${technology}`).map((kwh, i) => ({
        technology,
        kwh,
        share: 100 * levels[i],
      }))
    );
    const better = 100 * metric(arm, "dependent|better");
    const figure = lineFigure(rows, {
      id: functionalUnit,
      title: `${UNITS[functionalUnit]}: ${digits(better)} %`,
      x: "kwh",
      y: "share",
      series: "technology",
      order: [...TECHNOLOGIES],
      xAxis: { title: "life-cycle electricity", unit: "kWh", scale: "log" },
      yAxis: { title: "draws below", unit: "%" },
    });
    for (const trace of figure.data) trace.mode = "lines";
    return figure;
  });
  return gridFigure(panels, {
    id: "aqfp-lca-monte-carlo",
    title: "Both totals under uncertainty, and how often AQFP is better",
    caption:
      `${draws} draws, what both share is drawn once for both; above each panel the share of the draws in which AQFP is better. The curves may overlap though one technology is better in nearly every draw: the share is counted draw by draw.`,
    columns: functionalUnits.length,
  });
}

/** Median of the total ratio with its standard error after more and more draws. */
function convergenceFigure(
  arms: ArmSummary[],
  { functionalUnits }: Config,
): FigureSpec {
  const rows = functionalUnits.flatMap((functionalUnit) => {
    const arm = findArm(arms, `uncertainty/${functionalUnit}`);
    const [medians, errors] = ["median", "se"]
      .map((name) => seriesOf(arm, `convergence ${name}`));
    const final = medians.at(-1)!;
    return seriesOf(arm, "convergence n").map((draws, i) => ({
      unit: UNITS[functionalUnit],
      draws,
      change: {
        mean: 100 * (medians[i] / final - 1),
        halfWidth: 100 * errors[i] / final,
        n: draws,
      },
    }));
  });
  return lineFigure(rows, {
    id: "aqfp-lca-convergence",
    title: "How many draws the median needs",
    caption:
      "Median of the total ratio (electricity, CMOS over AQFP) after so many draws, against that of all draws; bars: one standard error, from the order statistics around the median.",
    x: "draws",
    y: "change",
    series: "unit",
    order: functionalUnits.map((unit) => UNITS[unit]),
    xAxis: { title: "draws", scale: "log" },
    yAxis: { title: "distance from the last median", unit: "%" },
  });
}

function sobolFigure(arms: ArmSummary[], { sobol }: Config): FigureSpec {
  const arm = findArm(arms, "sensitivity/throughput");
  const names = [...under(arm, "total index")]
    .sort(([, a], [, b]) => b - a).slice(0, 10).map(([name]) => name);
  const rows = names.flatMap((parameter) =>
    (["first index", "total index"] as const).map((index) => ({
      parameter,
      index,
      share: {
        mean: metric(arm, `${index}|${parameter}`),
        halfWidth: (metric(arm, `${index} high|${parameter}`) -
          metric(arm, `${index} low|${parameter}`)) / 2,
        n: sobol,
      },
    }))
  );
  return barFigure(rows, {
    id: "aqfp-lca-sobol",
    title: "Which assumptions carry the uncertainty",
    caption:
      `Sobol indices of the logarithm of the total ratio, ${UNITS.throughput}: first order alone, total with all interactions; base sample ${sobol}, 95 % intervals by bootstrap.`,
    x: "parameter",
    y: "share",
    series: "index",
    height: 520,
    xAxis: { title: "" },
    yAxis: { title: "share of the variance" },
  });
}

const AXES: Record<string, string> = {
  years: "service life (years)",
  cooling_overhead: "overhead of cooling (W/W)",
  aqfp_density: "cells of AQFP (1/mm²)",
  junction_energy: "energy of a junction per cycle (zJ)",
  gate_energy: "energy of a CMOS gate per cycle (fJ)",
};

const MAP_TITLES: Record<string, string> = {
  cooling: "service life and cooling",
  density: "density and service life",
  energy: "energy of both switches",
  dense: "energy of both switches, at 220,000 cells/mm²",
};

/** Total ratio over two choices, with the lines where it is 1 and 100. */
function mapFigure(
  arms: ArmSummary[],
  { functionalUnits, steps }: Config,
  map: string,
): FigureSpec {
  const { x, y } = MAPS[map];
  const [xs, ys] = [logSteps(x, steps), logSteps(y, steps)].map((all) =>
    all.map((at) => digits(at, 5))
  );
  const ticks = (low: number, high: number) =>
    Array.from({ length: 9 }, (_, i) => 10 ** (i - 2))
      .flatMap((p) => high / low > 200 ? [p] : [p, 2 * p, 5 * p])
      .filter((t) => t >= low && t <= high);
  const panels = functionalUnits.map((functionalUnit, place) => {
    const total = seriesOf(
      findArm(arms, `map/${functionalUnit}`),
      `${map} total`,
    );
    const z = ys.map((_, i) =>
      xs.map((_, j) => digits(Math.log10(total[i * xs.length + j]), 4))
    );
    const base = heatmapFigure([], {
      id: functionalUnit,
      title: UNITS[functionalUnit],
      x: "x",
      y: "y",
      value: "ratio",
    });
    const axis = (old: unknown, { parameter, low, high }: typeof x) => {
      const at = ticks(low, high);
      return {
        ...old as object,
        type: "log",
        autorange: false,
        range: [Math.log10(low), Math.log10(high)],
        tickmode: "array",
        tickvals: at,
        ticktext: at.map((t) =>
          t >= 1e4 ? t.toExponential(0).replace("+", "") : String(t)
        ),
        ticks: "outside",
        title: { text: AXES[parameter], standoff: 10 },
      };
    };
    base.layout.xaxis = axis(base.layout.xaxis, x);
    base.layout.yaxis = axis(base.layout.yaxis, y);
    // The panels share it, and there is no room between them.
    if (place > 0) (base.layout.yaxis as { title?: object }).title = {};
    const colorbar = {
      title: { text: "CMOS / AQFP", side: "top" },
      tickvals: [-4, -3, -2, -1, 0, 1, 2, 3, 4],
      ticktext: ["1e-4", "1e-3", "0.01", "0.1", "1", "10", "100", "1e3", "1e4"],
      thickness: 14,
      outlinewidth: 0,
    };
    const line = (level: number, color: string, dash: string) => ({
      type: "contour",
      x: xs,
      y: ys,
      z,
      showscale: false,
      showlegend: false,
      hoverinfo: "skip",
      contours: { coloring: "none", start: level, end: level, size: 1 },
      line: { color, width: 2.5, dash },
    });
    base.data = [
      {
        type: "heatmap",
        x: xs,
        y: ys,
        z,
        zmin: -2.5,
        zmax: 2.5,
        colorscale: [
          [0, "#B2560D"],
          [0.5, "#F7F7F7"],
          [1, "#0072B2"],
        ],
        colorbar,
        showscale: functionalUnit === functionalUnits.at(-1),
        hovertemplate: "%{x:.3g}, %{y:.3g}: 10^%{z:.2f}",
      },
      line(0, "#222222", "solid"),
      line(2, "#222222", "dash"),
    ];
    return base;
  });
  return gridFigure(panels, {
    id: `aqfp-lca-map-${map}`,
    title: `What decides: ${MAP_TITLES[map]}`,
    caption:
      "Life-cycle electricity of CMOS over that of AQFP; blue: AQFP is better. Solid line: both equal; dashed: AQFP better by a factor of 100, the paper's claim (no such line: nowhere in the panel). All else as in the inventory.",
    columns: functionalUnits.length,
    rowHeight: 340,
    width: 1100,
  });
}

function placesFigure(arms: ArmSummary[], { places }: Config): FigureSpec {
  const arm = findArm(arms, "places");
  const rows = places.flatMap((fab) =>
    places.map((use) => ({
      fab,
      use,
      ratio: metric(arm, `${fab}|${use}|ratio`),
    }))
  );
  const figure = heatmapFigure(rows, {
    id: "aqfp-lca-places",
    title: "Where it is made and where it is used",
    caption:
      `Carbon of CMOS over that of AQFP, ${UNITS.throughput}, three years, packages included: above 1 AQFP is better. Electricity of each place: Ember yearly averages in @tgwf/co2 0.19.0, CC BY-SA 4.0.`,
    x: "use",
    y: "fab",
    value: "ratio",
    height: 520,
    xAxis: { title: "place of use" },
    yAxis: { title: "place of the fab" },
    valueAxis: { title: "CMOS / AQFP" },
    digits: 2,
  });
  const [base] = figure.data;
  figure.data = [{
    ...base,
    // White where both are equal.
    zmin: 0,
    zmax: 2,
    colorscale: [[0, "#B2560D"], [0.5, "#F7F7F7"], [1, "#0072B2"]],
  }];
  return figure;
}

/** Whole picture of the changed assumptions. */
function flipFigure(arms: ArmSummary[], config: Config): FigureSpec {
  const { columns, rows } = flipTable(arms, config);
  const shown = columns.slice(1);
  const z = rows.map((row) => row.slice(1).map((v) => Math.log10(v as number)));
  const base = heatmapFigure([], {
    id: "aqfp-lca-flips",
    title: "Which assumptions make the claims true",
    caption:
      "Electricity of CMOS over that of AQFP; blue: AQFP is better. The paper's claims: use at least by 1000 (several orders of magnitude), life cycle at least by 100. One assumption is changed at a time; two rows change many at once.",
    x: "x",
    y: "y",
    value: "ratio",
    width: 980,
    height: 150 + 26 * rows.length,
  });
  base.data = [{
    type: "heatmap",
    x: shown,
    y: rows.map((row) => row[0]),
    z,
    text: rows.map((row) => row.slice(1).map((v) => ratioText(v as number))),
    texttemplate: "%{text}",
    zmin: -3,
    zmax: 3,
    colorscale: [[0, "#B2560D"], [0.5, "#F7F7F7"], [1, "#56B4E9"]],
    showscale: false,
    xgap: 2,
    ygap: 2,
  }];
  const { xaxis, yaxis } = base.layout as Record<string, object>;
  base.layout = {
    ...base.layout,
    xaxis: { ...xaxis, side: "top", title: { text: "" }, tickangle: -20 },
    yaxis: { ...yaxis, title: { text: "" } },
    margin: { l: 76, r: 24, t: 110, b: 20 },
  };
  return base;
}

export function figures(arms: ArmSummary[], config: Config): FigureSpec[] {
  return [
    phaseFigure(arms, config, "electricity"),
    phaseFigure(arms, config, "climate change"),
    sankeyFigure(arms),
    waterfallFigure(arms),
    monteCarloFigure(arms, config),
    convergenceFigure(arms, config),
    tornadoFigure(arms, "range"),
    tornadoFigure(arms, "tenth"),
    sobolFigure(arms, config),
    ...Object.keys(MAPS).map((map) => mapFigure(arms, config, map)),
    placesFigure(arms, config),
    flipFigure(arms, config),
  ];
}
