/**
 * The inventory: processes, what they exchange, what the exchanges cause, and how well each number is known.
 *
 * A number is an amount with a unit, a source, a standing and a distribution, or a formula over
 * parameters. Formulas reckon with quantities, not with bare numbers: `power * time` is an energy
 * whatever the units of both, so a formula holds no conversion factors, and a wrong dimension is an
 * error at load (`units.ts`, `formula.ts`).
 *
 * An exchange belongs to one run of its process. Its amount has the unit of the product or flow; a
 * formula may also give an amount per unit of the process's reference product (g/kWh for a process
 * that makes kWh), which is then multiplied by the output.
 *
 * Files: a folder with `parameters.csv`, `products.csv`, `flows.csv`, `impacts.csv`, `processes.csv`,
 * `exchanges.csv` and `factors.csv` (RFC 4180), or one JSON file with the same tables.
 */
import type { Standing } from "../core/aqfp.ts";

/**
 * How a number is spread. `lognormal`: the amount is the median, `gsd` the geometric standard
 * deviation, above 1. `pedigree`: lognormal with the spread of the five scores. `normal`: the amount is
 * the mean. `triangular`: the amount is the mode unless given. `uniform`: the amount lies between.
 */
export type Distribution =
  | { kind: "fixed" }
  | { kind: "lognormal"; gsd: number }
  | { kind: "pedigree"; basicVariance?: number }
  | { kind: "normal"; sd: number }
  | { kind: "triangular"; low: number; mode?: number; high: number }
  | { kind: "uniform"; low: number; high: number };

/** Scores 1 (best) to 5: reliability, completeness, time, place, technology. */
export type Pedigree = [number, number, number, number, number];

/** What every number of the inventory carries. */
export interface Quantity {
  /** In `unit`; or a formula over parameters. */
  amount: number | string;
  unit: string;
  /** Of an amount; a formula has the spread of its parameters. In the unit of the amount. */
  distribution: Distribution;
  pedigree?: Pedigree;
  /** Numbers of one group move together: z = loading Z + sqrt(1 - loading^2) e. */
  group?: string;
  /** In [-1, 1]; default 1. Two numbers of a group correlate (as normals) by the product of loadings. */
  loading?: number;
  source: string;
  standing: Standing;
  comment?: string;
}

/** A named number that formulas use. */
export interface Parameter extends Quantity {
  name: string;
}

/** What processes make and use. */
export interface Product {
  name: string;
  unit: string;
  /** Per unit of product, for partitioning: kg, MJ, and a price in any one currency. */
  mass?: number;
  energy?: number;
  price?: number;
  comment?: string;
}

/** What comes from or goes to the environment. Amounts count in this direction. */
export interface Flow {
  name: string;
  unit: string;
  direction: "emission" | "resource";
  compartment?: string;
  comment?: string;
}

/** An impact category, as climate change in kg CO2e. */
export interface Impact {
  name: string;
  unit: string;
  comment?: string;
}

export interface Process {
  name: string;
  /** Product that the process is run for; one of its outputs. */
  product: string;
  /** Group in which contributions are summed, as "manufacturing". */
  phase: string;
  location?: string;
  comment?: string;
}

/** One input or output of a process, a product or a flow. */
export interface Exchange extends Quantity {
  process: string;
  direction: "input" | "output";
  /** Name of a product or flow. */
  item: string;
}

/** Impact per unit of flow; the unit is that of the impact over that of the flow. */
export interface Factor extends Quantity {
  impact: string;
  flow: string;
}

export interface Inventory {
  name: string;
  comment?: string;
  parameters: Parameter[];
  products: Product[];
  flows: Flow[];
  impacts: Impact[];
  processes: Process[];
  exchanges: Exchange[];
  factors: Factor[];
}

/** A function that formulas may call: arguments and result in the units named. */
export interface FormulaFunction {
  /** Unit of each argument; amounts are converted. */
  arguments: string[];
  unit: string;
  evaluate: (...values: number[]) => number;
}

/** Functions by the name that formulas use. */
export type FormulaFunctions = Record<string, FormulaFunction>;
