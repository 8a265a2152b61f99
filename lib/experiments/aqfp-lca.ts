/**
 * Life cycle of an AQFP processor against CMOS, from a netlist of ours to maps of what flips the result.
 *
 * Zabihi et al., life-cycle energy and inventory analysis of adiabatic quantum-flux-parametron circuits,
 * arXiv 2307.12216 (2023). The method with open data; the paper's tables were not available.
 *
 *   netlist               junctions of an RV32I arithmetic unit, balanced, legal, equivalent to its source
 *   compare/<unit>        all baselines, phase by phase, with break-even points
 *   uncertainty/<unit>    Monte Carlo with shared draws, and with separate ones to show the difference
 *   map/<unit>            total ratio over two choices, for all maps
 *   chain/throughput      what flows between processes (Sankey), and where the burden arises
 *   sensitivity/throughput  Sobol indices, one at a time over ranges and by a tenth
 *   places                carbon over the places of fab and use
 *   flips/<unit>          one assumption changed at a time
 */
import { DEFAULT_LIBRARY } from "../core/aqfp.ts";
import { fold, type Key } from "../core/rng.ts";
import { join } from "node:path";
import {
  type Arm,
  type Experiment,
  type Json,
  type Metrics,
  projectRoot,
  type RunContext,
} from "../core/runs.ts";
import {
  type Amounts,
  amounts,
  amountsAt,
  aqfpInventory,
  compare,
  type FunctionalUnit,
  IMPACTS,
  parameterValue,
  PHASES,
  type Scenario,
  scenarioModel,
  TECHNOLOGIES,
} from "../aqfp-lca/comparison.ts";
import { gridIntensity } from "../aqfp-lca/grid.ts";
import { type Inventory } from "../aqfp-lca/inventory.ts";
import { assess, checkSankey, sankey, systemOf } from "../aqfp-lca/matrix.ts";
import { sobolOfModel, tornado } from "../aqfp-lca/sensitivity.ts";
import {
  type Alternative,
  convergence,
  discernibility,
  type MonteCarlo,
  monteCarlo,
} from "../aqfp-lca/uncertainty.ts";
import { checkEquivalence } from "../superflow/equivalence.ts";
import { insertBuffers } from "../superflow/insertion.ts";
import { assertLegal } from "../superflow/legality.ts";
import { isGate, jjCount } from "../superflow/netlist.ts";
import { synthesiseStages } from "../superflow/synthesis.ts";
import { figures, measure, tables } from "./aqfp-lca.report.ts";

export interface Config {
  /** Source whose junctions are counted. */
  circuit: string;
  functionalUnits: FunctionalUnit[];
  /** Draws of a Monte Carlo simulation. */
  draws: number;
  /** Base sample of the Sobol indices; (parameters + 2) times as many evaluations. */
  sobol: number;
  /** Steps along each side of a map. */
  steps: number;
  places: string[];
}

const full: Config = {
  circuit: "data/rtl/rv32alu.v",
  functionalUnits: ["core", "throughput", "operations"],
  draws: 100_000,
  sobol: 4096,
  steps: 21,
  places: [
    "ISL",
    "FRA",
    "BRA",
    "USA",
    "DEU",
    "KOR",
    "JPN",
    "WORLD",
    "TWN",
    "IND",
  ],
};

const quick: Config = { ...full, draws: 20_000, sobol: 1024, steps: 17 };

const smoke: Config = {
  circuit: "data/rtl/alu4.v",
  functionalUnits: ["core", "throughput"],
  draws: 1000,
  sobol: 64,
  steps: 5,
  places: ["FRA", "WORLD", "IND"],
};

// Scenarios -----------------------------------------------------------------------------------------

/** Small pulse-tube cooler. Recalled, as in the inventory. */
const SMALL_COOLER = { capacityW: 1, wallPowerW: 7500 };

/** Technologies and rules that are compared in every functional unit. */
export const BASELINES: Record<string, Scenario> = {
  "large plant, 400 W/W": { cooling: { rule: "ideal", overhead: 400 } },
  "small cooler, 1000 W/W": { cooling: { rule: "ideal", overhead: 1000 } },
  "share of a half-loaded small cooler": {
    cooling: { rule: "share", ...SMALL_COOLER, loadRatio: 0.5 },
  },
  "whole small cooler": { cooling: { rule: "whole", ...SMALL_COOLER } },
  "large plant, against CMOS at 7 nm": {
    cooling: { rule: "ideal", overhead: 400 },
    node: 7,
  },
};

/** One assumption changed at a time, the last two all at once. */
export const FLIPS: Record<string, Scenario> = {
  "as assumed": {},
  "0.38 zJ per junction (formula)": { parameters: { junction_energy: 0.38 } },
  "5 zJ per junction": { parameters: { junction_energy: 5 } },
  "ideal cooling (Carnot)": { cooling: { rule: "ideal", overhead: 70.5 } },
  "cooling at 1000 W/W": { cooling: { rule: "ideal", overhead: 1000 } },
  "share of a half-loaded small cooler": {
    cooling: { rule: "share", ...SMALL_COOLER, loadRatio: 0.5 },
  },
  "whole small cooler": { cooling: { rule: "whole", ...SMALL_COOLER } },
  "1 mW of heat through leads": { parameters: { heat_leak: 1 } },
  "10 mW for the clock's generator": { parameters: { clock_power: 10 } },
  "1e4 cells/mm2": { parameters: { aqfp_density: 1e4 } },
  "2.2e5 cells/mm2": { parameters: { aqfp_density: 2.2e5 } },
  "wafers with 2 defects/cm2": { parameters: { aqfp_defects: 2 } },
  "niobium layer costs three of CMOS": { parameters: { niobium_scale: 3 } },
  "steps as listed, not scaled by masks": { parameters: { calibrated: 0 } },
  "one year of service": { years: 1 },
  "ten years of service": { years: 10 },
  "CMOS at 7 nm": { node: 7 },
  "CMOS gate of 1 fJ": { parameters: { gate_energy: 1 } },
  "CMOS core at 3 GHz": { parameters: { cmos_frequency: 3 } },
  "core of 120 kGE": { parameters: { core_size: 120_000 } },
  "fab and use in France": { fabPlace: "FRA", usePlace: "FRA" },
  "yield after Seeds": { yieldModel: "seeds" },
  "all that favours AQFP": {
    years: 10,
    cooling: { rule: "ideal", overhead: 200 },
    parameters: {
      junction_energy: 0.38,
      aqfp_density: 2.2e5,
      aqfp_defects: 0.1,
      gate_energy: 1,
      pue: 1.1,
    },
  },
  "all that favours CMOS": {
    years: 1,
    cooling: { rule: "ideal", overhead: 1000 },
    node: 7,
    parameters: {
      junction_energy: 5,
      aqfp_defects: 2,
      niobium_scale: 3,
      heat_leak: 1,
      clock_power: 10,
    },
  },
};

/** A thread of its own gets an operation only when the last one has passed all phases. */
const SINGLE_THREAD = "a single thread of dependent operations";

interface Axis {
  parameter: string;
  low: number;
  high: number;
}

/** Both axes logarithmic; `set` holds what else differs from the inventory. */
export const MAPS: Record<
  string,
  { x: Axis; y: Axis; set?: Record<string, number> }
> = {
  cooling: {
    x: { parameter: "years", low: 0.5, high: 20 },
    y: { parameter: "cooling_overhead", low: 80, high: 20_000 },
  },
  density: {
    x: { parameter: "aqfp_density", low: 1e3, high: 2.2e5 },
    y: { parameter: "years", low: 0.5, high: 20 },
  },
  energy: {
    x: { parameter: "junction_energy", low: 0.1, high: 10 },
    y: { parameter: "gate_energy", low: 0.03, high: 3 },
  },
  dense: {
    x: { parameter: "junction_energy", low: 0.1, high: 10 },
    y: { parameter: "gate_energy", low: 0.03, high: 3 },
    set: { aqfp_density: 2.2e5 },
  },
};

/** `n` numbers from low to high in equal ratios, rounded to four digits. */
export function logSteps({ low, high }: Axis, n: number): number[] {
  return Array.from(
    { length: n },
    (_, i) => Number((low * (high / low) ** (i / (n - 1))).toPrecision(4)),
  );
}

// Arms ----------------------------------------------------------------------------------------------

function arms(config: Config): Arm[] {
  const { circuit, functionalUnits, draws, sobol, steps, places } = config;
  const arm = (id: string, rest: Record<string, Json>): Arm => ({
    id,
    config: { kind: id.split("/")[0], ...rest },
    seeds: [1],
    needs: ["netlist"],
  });
  return [
    { id: "netlist", config: { kind: "netlist", circuit }, seeds: [1] },
    ...functionalUnits.flatMap((functionalUnit) => [
      arm(`compare/${functionalUnit}`, { functionalUnit }),
      arm(`uncertainty/${functionalUnit}`, { functionalUnit, draws }),
      arm(`map/${functionalUnit}`, { functionalUnit, steps }),
      arm(`flips/${functionalUnit}`, { functionalUnit }),
    ]),
    // Where both do the same work.
    arm("chain/throughput", { functionalUnit: "throughput" }),
    arm("sensitivity/throughput", { functionalUnit: "throughput", sobol }),
    arm("places", { functionalUnit: "throughput", places }),
  ];
}

// Runs ----------------------------------------------------------------------------------------------

/** What the netlist says, as parameters of the inventory. */
type Counts = {
  alu_junctions: number;
  alu_gates: number;
  alu_phases: number;
};

async function countJunctions(
  { circuit }: { circuit: string },
  key: Key,
  context: RunContext,
): Promise<Metrics> {
  const { reference, optimised, netlist } = await synthesiseStages({
    path: join(projectRoot(), circuit),
  }, { carry: "ripple" }); // an eighth fewer junctions than lookahead, and fewer phases
  context.progress(0.4, "synthesised");
  const levelled = await insertBuffers(netlist, {
    key: fold(key, "insertion"),
  });
  assertLegal(levelled);
  const { counterexample } = checkEquivalence(reference, levelled);
  if (counterexample !== undefined) {
    throw new Error(`${levelled.name} differs from its source`);
  }
  const counts: Counts = {
    alu_junctions: jjCount(levelled, DEFAULT_LIBRARY),
    alu_gates: optimised.cells.filter(isGate).length,
    alu_phases: levelled.depth,
  };
  context.writeArtifact(
    "counts.json",
    new TextEncoder().encode(JSON.stringify(counts)),
  );
  return {
    ...counts,
    majorityGates: netlist.cells.filter(isGate).length,
    cells: levelled.cells.length,
    verified: 1, // thrown otherwise
  };
}

/** The inventory with the counts of this run's netlist. */
function countedInventory(context: RunContext): {
  inventory: Inventory;
  counts: Counts;
} {
  const counts: Counts = JSON.parse(
    new TextDecoder().decode(context.readArtifact("netlist", "counts.json")),
  );
  const inventory = aqfpInventory();
  const parameters = inventory.parameters.map((parameter) =>
    parameter.name in counts
      ? { ...parameter, amount: counts[parameter.name as keyof Counts] }
      : parameter
  );
  return { inventory: { ...inventory, parameters }, counts };
}

/** Metrics of both life cycles under `prefix`. */
function amountMetrics(prefix: string, result: Amounts): Metrics {
  const metrics: Metrics = {};
  for (const impact of IMPACTS) {
    for (const technology of TECHNOLOGIES) {
      for (const phase of PHASES) {
        metrics[`${prefix}|${impact}|${technology}|${phase}`] =
          result.phases[impact][technology][phase];
      }
    }
    metrics[`${prefix}|${impact}|cooling`] = result.cooling[impact];
    metrics[`${prefix}|${impact}|use ratio`] = result.ratios[impact].use;
    metrics[`${prefix}|${impact}|total ratio`] = result.ratios[impact].total;
  }
  return metrics;
}

function compareAll(
  { functionalUnit }: { functionalUnit: FunctionalUnit },
  context: RunContext,
): Metrics {
  const { inventory } = countedInventory(context);
  const metrics: Metrics = {};
  for (const [name, scenario] of Object.entries(BASELINES)) {
    const result = compare({ name, functionalUnit, ...scenario }, inventory);
    Object.assign(metrics, amountMetrics(name, result));
    const { model } = result;
    for (
      const parameter of [
        "junctions",
        "cold_power",
        "aqfp_wall_power",
        "aqfp_die",
        "cmos_die",
        "cores_needed",
      ]
    ) {
      metrics[`${name}|${parameter}`] = parameterValue(model, parameter);
    }
  }
  return metrics;
}

/** Ratios over both axes of every map, row by row. */
function drawMaps(
  { functionalUnit, steps }: { functionalUnit: FunctionalUnit; steps: number },
  context: RunContext,
): Metrics {
  const { inventory } = countedInventory(context);
  const model = scenarioModel({ functionalUnit }, inventory);
  const metrics: Metrics = {};
  for (const [map, { x, y, set }] of Object.entries(MAPS)) {
    const [xs, ys] = [logSteps(x, steps), logSteps(y, steps)];
    const results = amountsAt(model, {
      [x.parameter]: ys.flatMap(() => xs),
      [y.parameter]: ys.flatMap((value) => xs.map(() => value)),
    }, set);
    const use = results.map(({ ratios }) => ratios.electricity.use);
    const total = results.map(({ ratios }) => ratios.electricity.total);
    const carbon = results.map(({ ratios }) => ratios["climate change"].total);
    Object.assign(metrics, {
      [`${map} use`]: use,
      [`${map} total`]: total,
      [`${map} carbon`]: carbon,
    });
  }
  return metrics;
}

function flipAll(
  { functionalUnit }: { functionalUnit: FunctionalUnit },
  context: RunContext,
): Metrics {
  const { inventory, counts } = countedInventory(context);
  const metrics: Metrics = {};
  const scenarios: Record<string, Scenario> = {
    ...FLIPS,
    [SINGLE_THREAD]: {
      // Four phases are a cycle.
      parameters: { aqfp_op_per_cycle: 4 / counts.alu_phases },
    },
  };
  for (const [name, scenario] of Object.entries(scenarios)) {
    const { ratios } = amounts(
      scenarioModel({ functionalUnit, ...scenario }, inventory),
    );
    metrics[`${name}|use`] = ratios.electricity.use;
    metrics[`${name}|total`] = ratios.electricity.total;
    metrics[`${name}|carbon`] = ratios["climate change"].total;
  }
  return metrics;
}

function comparePlaces(
  { functionalUnit, places }: {
    functionalUnit: FunctionalUnit;
    places: string[];
  },
  context: RunContext,
): Metrics {
  const { inventory } = countedInventory(context);
  const model = scenarioModel({ functionalUnit }, inventory);
  const pairs = places.flatMap((fab) => places.map((use) => [fab, use]));
  const intensities = new Map(
    places.map((place) => [place, gridIntensity(place)]),
  );
  const results = amountsAt(model, {
    grid_fab: pairs.map(([fab]) => intensities.get(fab)!),
    grid_use: pairs.map(([, use]) => intensities.get(use)!),
  });
  const metrics: Metrics = {};
  pairs.forEach(([fab, use], i) => {
    const { totals, ratios } = results[i];
    const prefix = `${fab}|${use}`;
    metrics[`${prefix}|ratio`] = ratios["climate change"].total;
    for (const technology of TECHNOLOGIES) {
      metrics[`${prefix}|${technology}`] = totals["climate change"][technology];
    }
  });
  return metrics;
}

/** Directed graph without its loops: edges that return to a node still being left are dropped. */
function withoutLoops(
  edges: { from: string; to: string; value: number }[],
): { from: string; to: string; value: number }[] {
  const order = [...edges].sort((a, b) => b.value - a.value);
  const kept: typeof edges = [];
  const reaches = (from: string, to: string): boolean =>
    from === to ||
    kept.some((edge) => edge.from === from && reaches(edge.to, to));
  for (const edge of order) {
    if (!reaches(edge.to, edge.from)) kept.push(edge);
  }
  return kept;
}

/** Sankey edges of the AQFP's life, whether they balance, and what its parts are. */
function chain(
  { functionalUnit }: { functionalUnit: FunctionalUnit },
  context: RunContext,
): Metrics {
  const { inventory } = countedInventory(context);
  const model = scenarioModel({ functionalUnit }, inventory);
  const system = systemOf(model);
  const assessment = assess(system, { "AQFP service": 1 });
  const diagram = sankey(assessment, "electricity");
  const problems = checkSankey(diagram, SANKEY_TOLERANCE);
  if (problems.length > 0) throw new Error(problems.join("; "));
  const { totals } = amounts(model);
  const metrics: Metrics = {
    total: totals.electricity.AQFP,
    "cmos total": totals.electricity.CMOS,
    residual: assessment.residual,
    condition: assessment.condition,
  };
  for (const { from, to, value } of withoutLoops(diagram.edges)) {
    metrics[`edge|${from}|${to}`] = value;
  }
  // What enters the services from the processes right before the die, and from use.
  const into = (process: string) =>
    diagram.edges.filter(({ to }) => to === process);
  const die =
    diagram.edges.find(({ from, to }) =>
      from === "niobium wafer" && to === "AQFP die"
    )!.value;
  const wafer = into("niobium wafer");
  for (const { from, value } of wafer) metrics[`part|${from}`] = value;
  metrics["wafer gap"] = die - wafer.reduce((sum, e) => sum + e.value, 0);
  for (const { from, value } of into("AQFP chip use")) {
    metrics[`part|${from}`] = value;
  }
  metrics["part|package and test"] = into("AQFP assembly")
    .reduce((sum, { value }) => sum + value, 0);
  return metrics;
}

/** Imbalance of a node, relative to all burdens, that is taken for rounding. */
const SANKEY_TOLERANCE = 1e-9;

/** Demands of both services. */
const SERVICES: Alternative[] = TECHNOLOGIES.map((technology) => ({
  name: technology,
  demand: { [`${technology} service`]: 1 },
}));

/** Levels at which distributions are recorded. */
const LEVELS = Array.from({ length: 99 }, (_, i) => (i + 1) / 100);

function quantiles(values: Float64Array, levels: number[]): number[] {
  const sorted = values.slice().sort();
  return levels.map((level) =>
    sorted[Math.min(sorted.length - 1, Math.floor(level * sorted.length))]
  );
}

/** Scores of an impact, by technology, with the part of the use phase. */
function drawn(result: MonteCarlo, impact: string) {
  const i = result.impacts.indexOf(impact);
  const use = result.phases.indexOf("use");
  const of = (alternative: number) => ({
    total: result.scores[alternative][i],
    use: result.contributions[alternative][i][use],
  });
  return { AQFP: of(0), CMOS: of(1) };
}

function simulate(
  { functionalUnit, draws }: { functionalUnit: FunctionalUnit; draws: number },
  key: Key,
  context: RunContext,
): Metrics {
  const { inventory } = countedInventory(context);
  const model = scenarioModel({ functionalUnit }, inventory);
  const metrics: Metrics = { levels: LEVELS };
  for (const sampling of ["dependent", "independent"] as const) {
    const start = context.cpuSeconds();
    const result = monteCarlo(model, SERVICES, { runs: draws, key, sampling });
    context.timing(`${sampling}Seconds`, context.cpuSeconds() - start);
    context.progress(sampling === "dependent" ? 0.5 : 0.9, sampling);
    const { AQFP, CMOS } = drawn(result, "electricity");
    const carbon = drawn(result, "climate change");
    const ratios: Record<string, Float64Array> = {
      "use ratio": CMOS.use.map((value, i) => value / AQFP.use[i]),
      "total ratio": CMOS.total.map((value, i) => value / AQFP.total[i]),
      "carbon ratio": carbon.CMOS.total.map((value, i) =>
        value / carbon.AQFP.total[i]
      ),
    };
    for (const [name, values] of Object.entries(ratios)) {
      const [low, median, high] = quantiles(values, [0.025, 0.5, 0.975]);
      Object.assign(metrics, {
        [`${sampling}|${name}|low`]: low,
        [`${sampling}|${name}|median`]: median,
        [`${sampling}|${name}|high`]: high,
        [`${sampling} ${name}`]: quantiles(values, LEVELS),
      });
    }
    const better = discernibility(AQFP.total, CMOS.total);
    metrics[`${sampling}|better`] = better.probability;
    metrics[`${sampling}|better low`] = better.low;
    metrics[`${sampling}|better high`] = better.high;
    metrics[`${sampling}|better by 100`] = ratios["total ratio"].filter((r) =>
      r >= 100
    ).length / draws;
    metrics[`${sampling}|use better by 1000`] =
      ratios["use ratio"].filter((r) => r >= 1000).length / draws;
    metrics[`${sampling}|residual`] = result.residual;
    for (const technology of TECHNOLOGIES) {
      const { total } = technology === "AQFP" ? AQFP : CMOS;
      metrics[`${sampling} ${technology}`] = quantiles(total, LEVELS);
    }
    if (sampling === "dependent") {
      const steps = convergence(ratios["total ratio"]);
      metrics["convergence n"] = steps.map(({ n }) => n);
      metrics["convergence median"] = steps.map(({ median }) => median);
      metrics["convergence se"] = steps.map(({ medianSe }) => medianSe);
    }
  }
  return metrics;
}

function analyse(
  { functionalUnit, sobol }: { functionalUnit: FunctionalUnit; sobol: number },
  key: Key,
  context: RunContext,
): Metrics {
  const { inventory } = countedInventory(context);
  const model = scenarioModel({ functionalUnit }, inventory);
  const at = model.inventory.impacts.findIndex(({ name }) =>
    name === "electricity"
  );
  const count = model.inventory.impacts.length;
  /** CMOS over AQFP. */
  const ratio = (scores: Float64Array) => scores[count + at] / scores[at];
  const metrics: Metrics = {
    central: amounts(model).ratios.electricity.total,
  };
  for (const row of tornado(model, SERVICES, ratio)) {
    metrics[`minus|${row.name}`] = row.minus;
    metrics[`plus|${row.name}`] = row.plus;
    if (row.p5 !== row.p95) {
      metrics[`low|${row.name}`] = row.p5;
      metrics[`high|${row.name}`] = row.p95;
    }
  }
  context.progress(0.3, "one at a time");
  const indices = sobolOfModel(
    model,
    SERVICES,
    (scores) => Math.log(ratio(scores)),
    { key, samples: sobol },
  );
  for (const index of indices) {
    const { name } = index;
    metrics[`first index|${name}`] = index.first;
    metrics[`first index low|${name}`] = index.firstLow;
    metrics[`first index high|${name}`] = index.firstHigh;
    metrics[`total index|${name}`] = index.total;
    metrics[`total index low|${name}`] = index.totalLow;
    metrics[`total index high|${name}`] = index.totalHigh;
  }
  return metrics;
}

const experiment: Experiment<Config> = {
  name: "aqfp-lca",
  title: "Life cycle of an AQFP processor against CMOS",
  citation:
    "Zabihi et al., life-cycle energy and inventory analysis of adiabatic quantum-flux-parametron circuits, arXiv 2307.12216, 2023 (title not read word by word)",
  engine: "none",
  profiles: { smoke, quick, full },
  packages: ["@tgwf/co2"],
  inputs: ["data/inventory", "data/rtl/rv32alu.v", "data/rtl/alu4.v"],
  arms,
  run(arm, key, context) {
    const config = arm as never;
    switch (arm.kind) {
      case "netlist":
        return countJunctions(config, key, context);
      case "compare":
        return compareAll(config, context);
      case "chain":
        return chain(config, context);
      case "uncertainty":
        return simulate(config, key, context);
      case "sensitivity":
        return analyse(config, key, context);
      case "map":
        return drawMaps(config, context);
      case "flips":
        return flipAll(config, context);
      case "places":
        return comparePlaces(config, context);
      default:
        throw new RangeError(`Cannot run an arm of the kind "${arm.kind}"`);
    }
  },
  measure,
  tables,
  figures,
};

export default experiment;
