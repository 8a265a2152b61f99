/**
 * AQFP against CMOS: one scenario in, both life cycles out, phase by phase.
 *
 * Zabihi et al., life-cycle energy and inventory analysis of adiabatic quantum-flux-parametron circuits,
 * arXiv 2307.12216 (2023); its method with open data, as its tables were not available.
 *
 * The inventory holds every number; a scenario replaces some of them by name and says why. Both
 * technologies are outputs of one system of processes, so that what they share, such as the electricity
 * of the fab, is one number also where it is drawn at random.
 *
 *   functional unit "core"        a chip with one core on either side, each at its own clock
 *                   "throughput"  as many CMOS cores, on one chip, as match the rate of the AQFP core
 *                   "operations"  shares of chips for a number of operations, used part of the time
 *
 * Scope: electricity and climate change. Left out unless a parameter adds them: masks, the building of
 * the fab, the cooler's making, helium, inputs and outputs, the clock's generator, end of life.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "csv-parse/sync";
import type { Standing } from "../core/aqfp.ts";
import { dataFolder } from "../core/datasets.ts";
import { sweep } from "./batch.ts";
import { type BreakEven, breakEven } from "./break-even.ts";
import { formulaFunctions } from "./foreground.ts";
import { GRID_SOURCE, gridIntensity } from "./grid.ts";
import {
  type Distribution,
  type Inventory,
  loadInventory,
  type Parameter,
} from "./inventory.ts";
import type { YieldModel } from "./manufacturing.ts";
import { compileInventory, type Model } from "./model.ts";
import { type Cooling, coolingOverhead } from "./use-phase.ts";

export type FunctionalUnit = "core" | "throughput" | "operations";

export const TECHNOLOGIES = ["AQFP", "CMOS"] as const;
export type Technology = typeof TECHNOLOGIES[number];

export const PHASES = ["manufacturing", "assembly", "use"] as const;
export type Phase = typeof PHASES[number];

/** Impacts of the inventory. */
export const IMPACTS = ["electricity", "climate change"] as const;
export type ImpactName = typeof IMPACTS[number];

/** What may be chosen; the rest stands in the inventory. */
export interface Scenario {
  /** Printed with every result; default "default". */
  name?: string;
  /** Default "core", the paper's. */
  functionalUnit?: FunctionalUnit;
  /** Service life (years), default the inventory's. */
  years?: number;
  /** Default the inventory's overhead, ideal and with its range. */
  cooling?: Cooling;
  /** CMOS node (nm), a row of nodes.csv; default 28. */
  node?: number;
  /** Code of the place whose electricity the fab uses, as "TWN"; default the inventory's number. */
  fabPlace?: string;
  /** Code of the place of use; default the inventory's number. */
  usePlace?: string;
  yieldModel?: YieldModel;
  /** Share of the life with work to do, for "operations"; default 0.3 (assumed). */
  utilisation?: number;
  /** Any parameter of the inventory by name, in its unit; fixed from then on. */
  parameters?: Record<string, number>;
}

/** A number that a scenario puts in the place of the inventory's. */
export interface Assumption {
  name: string;
  amount: number;
  unit: string;
  source: string;
  standing: Standing;
}

/** Use of a chip that is not always needed. Assumed. */
export const DEFAULT_UTILISATION = 0.3;

/** Folder of the inventory, of nodes.csv beside it. */
export function inventoryFolder(): string {
  return join(dataFolder(), "inventory");
}

/** The inventory of this study. */
export function aqfpInventory(): Inventory {
  return loadInventory(join(inventoryFolder(), "aqfp"), {
    name: "AQFP and CMOS",
    functions: formulaFunctions(),
  });
}

/** Rows of nodes.csv: what a CMOS node replaces in the inventory. */
export function nodeAssumptions(node: number): Assumption[] {
  const rows: Record<string, string>[] = parse(
    readFileSync(join(inventoryFolder(), "nodes.csv"), "utf8"),
    { columns: true },
  );
  const own = rows.filter((row) => Number(row.node) === node);
  if (own.length === 0) {
    const known = [...new Set(rows.map((row) => row.node))];
    throw new RangeError(
      `Cannot compare with CMOS at ${node} nm as the node must be one of ${
        known.join(", ")
      }`,
    );
  }
  return own.map(({ parameter, amount, unit, source, standing }) => ({
    name: parameter,
    amount: Number(amount),
    unit,
    source,
    standing: standing as Standing,
  }));
}

/** Every choice of a scenario: a name without a place here would not compile. */
const CHOICES = Object.keys(
  {
    name: true,
    functionalUnit: true,
    years: true,
    cooling: true,
    node: true,
    fabPlace: true,
    usePlace: true,
    yieldModel: true,
    utilisation: true,
    parameters: true,
  } satisfies Record<keyof Scenario, true>,
);

/** Refuses choices that nothing would read, and numbers that are none, as a file of JSON may hold. */
function checkScenario(scenario: Scenario): void {
  for (const choice of Object.keys(scenario)) {
    if (CHOICES.includes(choice)) continue;
    throw new RangeError(
      `Cannot use the scenario as "${choice}" is none of its choices: ${
        CHOICES.join(", ")
      }; a parameter of the inventory goes into parameters`,
    );
  }
  const { functionalUnit = "core", utilisation, years } = scenario;
  if (utilisation !== undefined && functionalUnit !== "operations") {
    throw new RangeError(
      `Cannot use the scenario as utilisation ${utilisation} counts for the functional unit operations only: ${functionalUnit}; the parameter of that name goes into parameters`,
    );
  }
  const numbers = {
    ...scenario.parameters,
    ...(years === undefined ? {} : { years }),
    ...(utilisation === undefined ? {} : { utilisation }),
  };
  for (const [name, value] of Object.entries(numbers)) {
    if (Number.isFinite(value)) continue;
    throw new (typeof value === "number" ? RangeError : TypeError)(
      `Cannot use the scenario as ${name} must be a finite number: ${
        typeof value === "number" ? value : JSON.stringify(value)
      }`,
    );
  }
}

/** What the functional unit sets. */
function unitChoices(
  { functionalUnit = "core", utilisation = DEFAULT_UTILISATION }: Scenario,
): Record<string, number> {
  switch (functionalUnit) {
    case "core":
      return {};
    case "throughput":
      return { match_rate: 1 };
    case "operations":
      return { by_operations: 1, utilisation };
    default:
      throw new RangeError(
        `Cannot compare as the functional unit must be core, throughput or operations: ${functionalUnit}`,
      );
  }
}

/** What the rule of allocation sets. */
function coolingChoices(cooling: Cooling): Record<string, number> {
  if (cooling.rule === "whole") {
    const { capacityW, wallPowerW } = cooling;
    return {
      cooler_whole: 1,
      cooler_capacity: capacityW,
      cooler_power: wallPowerW / 1000, // kW
    };
  }
  return { cooling_overhead: coolingOverhead(cooling) };
}

/**
 * Everything in which a scenario differs from the inventory.
 *
 * A fixed assumption loses its range; one of a place or node keeps it, in proportion.
 */
export function assumptionsOf(
  scenario: Scenario,
  inventory: Inventory,
): (Assumption & { fixed: boolean })[] {
  checkScenario(scenario);
  const units = new Map(inventory.parameters.map((p) => [p.name, p.unit]));
  const { years, cooling, node, fabPlace, usePlace, parameters } = scenario;
  const chosen = {
    ...unitChoices(scenario),
    ...(years === undefined ? {} : { years }),
    ...(cooling === undefined ? {} : coolingChoices(cooling)),
    ...parameters,
  };
  const grid = (name: string, place: string) => ({
    name,
    amount: gridIntensity(place),
    unit: "g CO2e/kWh",
    source: `${GRID_SOURCE}, ${place}`,
    standing: "read" as const,
    fixed: false,
  });
  return [
    ...(node === undefined ? [] : nodeAssumptions(node))
      .map((row) => ({ ...row, fixed: false })),
    ...(fabPlace === undefined ? [] : [grid("grid_fab", fabPlace)]),
    ...(usePlace === undefined ? [] : [grid("grid_use", usePlace)]),
    ...Object.entries(chosen).map(([name, amount]) => ({
      name,
      amount,
      unit: units.get(name) ?? "",
      source: "scenario",
      standing: "assumed" as const,
      fixed: true,
    })),
  ];
}

/** The same spread around another amount: a range moves in proportion. */
function scaled(distribution: Distribution, ratio: number): Distribution {
  switch (distribution.kind) {
    case "triangular": {
      const { low, mode, high } = distribution;
      return {
        kind: "triangular",
        low: low * ratio,
        high: high * ratio,
        ...(mode === undefined ? {} : { mode: mode * ratio }),
      };
    }
    case "uniform":
      return {
        kind: "uniform",
        low: distribution.low * ratio,
        high: distribution.high * ratio,
      };
    case "normal":
      return { kind: "normal", sd: distribution.sd * ratio };
    default:
      return distribution;
  }
}

/** What an assumption can be: above or from the first number, up to the second. */
const LIMITS: Record<string, { above?: number; from?: number; to?: number }> = {
  years: { above: 0 },
  utilisation: { above: 0, to: 1 },
  pue: { from: 1 }, // a site's power over that of its computers
  line_yield: { above: 0, to: 1 },
  pv_share: { from: 0, to: 1 },
  tool_share: { from: 0, to: 1 },
  cleanroom_share: { from: 0, to: 1 },
  sputter_use: { above: 0, to: 1 },
  by_operations: { from: 0, to: 1 },
  match_rate: { from: 0, to: 1 },
  cooler_whole: { from: 0, to: 1 },
  calibrated: { from: 0, to: 1 },
};

/** Refuses values that an assumption cannot have, by its name. */
function checkLimits(name: string, values: ArrayLike<number>): void {
  const { above = -Infinity, from = -Infinity, to = Infinity } = LIMITS[name] ??
    {};
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value > above && value >= from && value <= to) continue;
    const wanted = [
      above > -Infinity ? `above ${above}` : "",
      from > -Infinity ? `from ${from}` : "",
      to < Infinity ? `up to ${to}` : "",
    ].filter((text) => text !== "").join(" ");
    throw new RangeError(
      `Cannot use the scenario as ${name} must be ${
        wanted === "" ? "a finite number" : wanted
      }: ${value}`,
    );
  }
}

/**
 * The inventory with a scenario's assumptions in it.
 *
 * @throws RangeError if the scenario names a parameter that is not there, one that is calculated, or a
 *   value that it cannot have
 */
export function applyScenario(
  inventory: Inventory,
  scenario: Scenario,
): Inventory {
  const changes = new Map(
    assumptionsOf(scenario, inventory).map((a) => [a.name, a]),
  );
  const names = new Set(inventory.parameters.map(({ name }) => name));
  for (const [name, { amount }] of changes) {
    if (Number.isFinite(amount)) checkLimits(name, [amount]);
    if (!names.has(name)) {
      throw new RangeError(
        `Cannot use scenario "${
          scenario.name ?? "default"
        }" as the inventory has no parameter "${name}"; its parameters are rows of parameters.csv`,
      );
    }
  }
  const parameters = inventory.parameters.map((parameter): Parameter => {
    const change = changes.get(parameter.name);
    if (change === undefined) return parameter;
    const { amount, unit, source, standing, fixed } = change;
    if (typeof parameter.amount === "string") {
      throw new RangeError(
        `Cannot set "${parameter.name}" as it is calculated: ${parameter.amount}; set what it depends on`,
      );
    }
    const distribution: Distribution = fixed
      ? { kind: "fixed" }
      : scaled(parameter.distribution, amount / parameter.amount);
    // A fixed number has no spread to share and no quality to turn into one.
    const { group: _, loading: __, pedigree: ___, ...plain } = parameter;
    const kept = fixed ? plain : parameter;
    return { ...kept, amount, unit, source, standing, distribution };
  });
  return { ...inventory, parameters };
}

/** Amount of an impact for each phase. */
export type Phases = Record<Phase, number>;

/** What both technologies cost, phase by phase. */
export interface Amounts {
  /** kWh, or kg CO2e. */
  phases: Record<ImpactName, Record<Technology, Phases>>;
  totals: Record<ImpactName, Record<Technology, number>>;
  /** CMOS over AQFP: above 1 where AQFP is better. */
  ratios: Record<ImpactName, { use: number; total: number }>;
  /** Part of the AQFP's use that cools. */
  cooling: Record<ImpactName, number>;
}

export interface Comparison extends Amounts {
  scenario: Scenario;
  /** In which the scenario differs from the inventory. */
  assumptions: Assumption[];
  model: Model;
  /** Service life (years) from which on, or up to which, AQFP is better. */
  breakEvenYears: Record<ImpactName, BreakEven>;
  /** Overhead of cooling (W/W) up to which AQFP is better. */
  breakEvenOverhead: Record<ImpactName, BreakEven>;
}

/** Value of a named parameter in its unit. */
export function parameterValue(
  model: Model,
  name: string,
  values: Float64Array = model.central,
): number {
  const index = model.names.indexOf(name);
  if (index < 0) {
    throw new RangeError(
      `Cannot read the parameter "${name}" as the inventory has none of that name`,
    );
  }
  return values[index] / model.scales[index];
}

/** An object with an entry for each impact. */
function perImpact<T>(of: (impact: ImpactName) => T): Record<ImpactName, T> {
  return {
    electricity: of("electricity"),
    "climate change": of("climate change"),
  };
}

/** Products whose scores make up a comparison. */
const PARTS = [
  ...TECHNOLOGIES.flatMap((technology) =>
    PHASES.map((phase) => `${technology} ${phase}`)
  ),
  "cooling at 4.2 K",
  "AQFP chip use",
];

/**
 * Both life cycles at many settings of some parameters: three demands on each side, their sum the total.
 *
 * @param settings values of each parameter that varies, in its unit, as of `sweep`
 * @param set parameters held at a value, in their units
 *
 * @example
 * const [one, ten] = amountsAt(scenarioModel(), { years: [1, 10] });
 * Math.round(ten.phases.electricity.CMOS.use / one.phases.electricity.CMOS.use); // 10
 */
export function amountsAt(
  model: Model,
  settings: Record<string, ArrayLike<number>>,
  set: Record<string, number> = {},
): Amounts[] {
  for (const [name, values] of Object.entries(settings)) {
    checkLimits(name, values);
  }
  for (const [name, value] of Object.entries(set)) checkLimits(name, [value]);
  const scores = sweep(
    model,
    PARTS.map((name) => ({ [name]: 1 })),
    settings,
    set,
  );
  const impacts = model.inventory.impacts.map(({ name }) => name);
  return Array.from(scores[0][0], (_, setting) => {
    const of = (impact: ImpactName, product: string) =>
      scores[PARTS.indexOf(product)][impacts.indexOf(impact)][setting];
    const phases = perImpact((impact) => {
      const own = (technology: Technology): Phases => ({
        manufacturing: of(impact, `${technology} manufacturing`),
        assembly: of(impact, `${technology} assembly`),
        use: of(impact, `${technology} use`),
      });
      return { AQFP: own("AQFP"), CMOS: own("CMOS") };
    });
    const totals = perImpact((impact) => {
      const sum = ({ manufacturing, assembly, use }: Phases) =>
        manufacturing + assembly + use;
      const { AQFP, CMOS } = phases[impact];
      return { AQFP: sum(AQFP), CMOS: sum(CMOS) };
    });
    return {
      phases,
      totals,
      ratios: perImpact((impact) => ({
        use: phases[impact].CMOS.use / phases[impact].AQFP.use,
        total: totals[impact].CMOS / totals[impact].AQFP,
      })),
      cooling: perImpact((impact) =>
        phases[impact].AQFP.use * of(impact, "cooling at 4.2 K") /
        of(impact, "AQFP chip use")
      ),
    };
  });
}

/** Both life cycles at the amounts of the inventory, with some parameters held at a value. */
export function amounts(
  model: Model,
  set: Record<string, number> = {},
): Amounts {
  return amountsAt(model, {}, set)[0];
}

/** The system of a scenario, ready to reckon. */
export function scenarioModel(
  scenario: Scenario = {},
  inventory: Inventory = aqfpInventory(),
): Model {
  const { yieldModel } = scenario;
  return compileInventory(
    applyScenario(inventory, scenario),
    formulaFunctions({ yieldModel }),
  );
}

/**
 * AQFP against CMOS in one scenario.
 *
 * Both life cycles are straight lines in the service life, T(t) = F + r t, and in the overhead of cooling,
 * so both break-even points have a closed form.
 *
 * @example
 * const { totals } = compare({ functionalUnit: "throughput", years: 3 });
 * totals.electricity.AQFP < totals.electricity.CMOS; // true
 */
export function compare(
  scenario: Scenario = {},
  inventory: Inventory = aqfpInventory(),
): Comparison {
  const model = scenarioModel(scenario, inventory);
  const result = amounts(model);
  const { phases, totals, cooling } = result;
  const years = parameterValue(model, "years");
  const overhead = parameterValue(model, "cooling_overhead");
  const whole = parameterValue(model, "cooler_whole") > 0.5;
  const line = ({ manufacturing, assembly, use }: Phases) => ({
    fixed: manufacturing + assembly,
    rate: use / years,
  });
  return {
    ...result,
    scenario,
    assumptions: assumptionsOf(scenario, inventory)
      .map(({ fixed: _, ...assumption }) => assumption),
    model,
    breakEvenYears: perImpact((impact) =>
      breakEven(line(phases[impact].AQFP), line(phases[impact].CMOS))
    ),
    breakEvenOverhead: perImpact((impact) =>
      breakEven({
        fixed: totals[impact].AQFP - (whole ? 0 : cooling[impact]),
        rate: whole ? 0 : cooling[impact] / overhead,
      }, { fixed: totals[impact].CMOS, rate: 0 })
    ),
  };
}
