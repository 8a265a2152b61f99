/**
 * Matrix life-cycle assessment.
 *
 * R. Heijungs and S. Suh, "The computational structure of life cycle assessment", Kluwer (2002).
 *
 *   A s = f        supply s of the demand f                  h = C g        scores
 *   g = B s        inventory                                 lambda = A^-T (C B)^T   intensity per unit of product
 *
 * Row i of A is the reference product of process i, so A is close to its diagonal; s counts runs.
 *
 * Scope: square systems. Several outputs of a process are solved by substitution (another process makes
 * the by-product, and is run less) or by `partition`.
 */
import type { Inventory, Quantity } from "./inventory.ts";
import {
  factorise,
  type Factors,
  multiply,
  SingularError,
  type SparseMatrix,
  sparseMatrix,
} from "./linear.ts";
import type { Entry, Model } from "./model.ts";

/** Matrices of a model at given values. */
export interface System {
  model: Model;
  processes: string[];
  phases: string[];
  /** Reference product of each process: the rows of A. */
  products: string[];
  flows: string[];
  impacts: string[];
  A: SparseMatrix;
  /** Entries of B, flows x processes. */
  B: { row: number; column: number; value: number }[];
  /** C, impacts x flows. */
  C: Float64Array[];
}

const list = (names: string[]) =>
  names.slice(0, 8).map((name) => `"${name}"`).join(", ") +
  (names.length > 8 ? ` and ${names.length - 8} more` : "");

/**
 * Row of A for each product: that of the process which it is the reference of.
 *
 * @throws RangeError naming the products and processes that keep A from being square
 */
export function productRows(
  { inventory: { processes, products, exchanges }, technosphere }: Model,
): Int32Array {
  const at = new Map(products.map(({ name }, i) => [name, i]));
  const rows = new Int32Array(products.length).fill(-1);
  const refuse = (reason: string): never => {
    throw new RangeError(
      `Cannot solve as the technosphere must be square with one process for each product: ${products.length} products, ${processes.length} processes; ${reason}`,
    );
  };
  processes.forEach(({ name, product }, j) => {
    const i = at.get(product)!;
    if (rows[i] >= 0) {
      refuse(
        `"${product}" is the reference product of "${
          processes[rows[i]].name
        }" and "${name}": mix them in a process of its own that uses both`,
      );
    }
    rows[i] = j;
  });
  const orphans = products.flatMap(({ name }, i) => rows[i] < 0 ? [name] : []);
  if (orphans.length > 0) {
    const makers = technosphere.filter(({ row, origin }) =>
      rows[row] < 0 && exchanges[origin].direction === "output"
    );
    refuse(
      makers.length > 0
        ? `${
          list([...new Set(makers.map(({ column }) => processes[column].name))])
        } makes ${
          list(orphans)
        } besides: use partition() or add a process that makes it (substitution)`
        : `no process makes ${list(orphans)}`,
    );
  }
  return rows;
}

/** Refuses a process that uses as much of its own product as it makes, or more: it could run backwards only. */
function refuseSelfUse(
  { processes }: Inventory,
  entries: readonly { row: number; column: number; value: number }[],
): void {
  const made = new Float64Array(processes.length);
  const used = new Float64Array(processes.length);
  for (const { row, column, value } of entries) {
    if (row !== column) continue;
    if (value > 0) made[column] += value;
    else used[column] -= value;
  }
  processes.forEach(({ name, product }, j) => {
    if (made[j] === 0 || used[j] < made[j]) return;
    throw new RangeError(
      `Cannot solve as "${name}" must make more "${product}" than it uses itself: it makes ${
        made[j]
      } and uses ${used[j]}`,
    );
  });
}

/** Refuses a supply below 0 where nothing can avoid a process: a loop then uses more than it makes. */
function refuseBackwards(
  { A, processes, products }: System,
  demand: Float64Array,
  supply: Float64Array,
): void {
  if (demand.some((amount) => amount < 0)) return;
  for (let j = 0; j < A.n; j++) {
    for (let p = A.starts[j]; p < A.starts[j + 1]; p++) {
      // A by-product lowers another process's supply; so does a process that takes something in.
      const own = A.rows[p] === j;
      if (own ? A.values[p] <= 0 : A.values[p] > 0) return;
    }
  }
  const most = supply.reduce((m, s) => Math.max(m, Math.abs(s)), 0);
  const j = supply.findIndex((s) => s < -1e-9 * most);
  if (j >= 0) {
    throw new RangeError(
      `Cannot meet the demand as "${
        processes[j]
      }" would have to run backwards: a loop through "${
        products[j]
      }" uses more than it makes`,
    );
  }
}

/** The matrices at given values; by default at the amounts of the inventory. */
export function systemOf(
  model: Model,
  values: Float64Array = model.central,
): System {
  const { inventory, technosphere, biosphere, characterisation } = model;
  const rows = productRows(model);
  const at = ({ row, column, evaluate }: Entry) => ({
    row,
    column,
    value: evaluate(values),
  });
  const C = inventory.impacts.map(() =>
    new Float64Array(inventory.flows.length)
  );
  for (const entry of characterisation) {
    C[entry.row][entry.column] += entry.evaluate(values);
  }
  const entries = technosphere.map((entry) => ({
    ...at(entry),
    row: rows[entry.row],
  }));
  refuseSelfUse(inventory, entries);
  return {
    model,
    processes: inventory.processes.map(({ name }) => name),
    phases: inventory.processes.map(({ phase }) => phase),
    products: inventory.processes.map(({ product }) => product),
    flows: inventory.flows.map(({ name }) => name),
    impacts: inventory.impacts.map(({ name }) => name),
    A: sparseMatrix(inventory.processes.length, entries),
    B: biosphere.map(at),
    C,
  };
}

/** The demand as a vector over the rows of A. */
export function demandVector(
  products: string[],
  demand: Record<string, number>,
): Float64Array {
  const f = new Float64Array(products.length);
  for (const [name, amount] of Object.entries(demand)) {
    const row = products.indexOf(name);
    if (row < 0 || !Number.isFinite(amount)) {
      throw new RangeError(
        `Cannot assess a demand of ${amount} of "${name}" as it must be a finite amount of one of ${
          list(products)
        }`,
      );
    }
    f[row] += amount;
  }
  return f;
}

/** Solvers of a system; a singular matrix is refused by name. */
export function solverOf(
  { A, processes, products }: System,
  options: { method?: "auto" | Factors["method"] } = {},
): Factors & { condition: number } {
  try {
    return factorise(A, options);
  } catch (error) {
    if (!(error instanceof SingularError)) throw error;
    const j = error.column;
    throw new RangeError(
      `Cannot solve as the technosphere is singular at process "${
        processes[j]
      }", which makes "${
        products[j]
      }": its column depends on the others, as in a loop that uses up all that it makes`,
    );
  }
}

/** Result for one demand. Vectors over processes or rows are in the order of the system. */
export interface Assessment {
  system: System;
  demand: Float64Array;
  /** s: runs of each process. */
  supply: Float64Array;
  /** g: amount of each flow, in its unit. */
  inventory: Float64Array;
  /** h: by impact, in its unit. */
  scores: Float64Array;
  /** (C B)_ij: burden of one run of process j, by impact. */
  burdens: Float64Array[];
  /** (C B)_ij s_j: direct burden of process j, by impact. */
  contributions: Float64Array[];
  /** lambda: burden of one unit of product, upstream included, by impact. */
  intensities: Float64Array[];
  /** max |A s - f|, relative to the largest term. */
  residual: number;
  /** Of A scaled to rows and columns of magnitude 1, 1-norm, estimated. */
  condition: number;
}

/** Largest residual, relative to the terms of its row, of a solution that is believed. */
const RESIDUAL_LIMIT = 1e-9;

/** max_i |A s - f|_i / (|A| |s| + |f|)_i. */
export function relativeResidual(
  A: SparseMatrix,
  s: Float64Array,
  f: Float64Array,
): number {
  const left = multiply(A, s);
  const size = multiply(
    { ...A, values: A.values.map(Math.abs) },
    s.map(Math.abs),
  );
  let most = 0;
  for (let i = 0; i < f.length; i++) {
    const terms = size[i] + Math.abs(f[i]);
    const share = terms === 0 ? 0 : Math.abs(left[i] - f[i]) / terms;
    if (!(share <= most)) most = share;
  }
  return most;
}

/**
 * Supply, inventory, scores, contributions and intensities of a demand.
 *
 * @param demand amount of each product, in its unit
 * @throws RangeError for a system that is not square, singular or too close to it, or an unknown product
 */
export function assess(
  system: System,
  demand: Record<string, number>,
  options: { method?: "auto" | Factors["method"] } = {},
): Assessment {
  const { A, B, C, products, flows, impacts, processes } = system;
  const f = demandVector(products, demand);
  const solver = solverOf(system, options);
  const supply = solver.solve(f); // s = A^-1 f
  const residual = relativeResidual(A, supply, f);
  // A residual may be large in a row whose terms are all rounding; that is no error.
  const scale = Math.max(...f.map(Math.abs));
  if (
    !(residual <= RESIDUAL_LIMIT) &&
    !(absoluteResidual(A, supply, f) <= 1e-12 * scale)
  ) {
    throw new RangeError(
      `Cannot trust the solution as its relative residual must be at most ${RESIDUAL_LIMIT}: ${residual}, condition ${solver.condition}`,
    );
  }
  refuseBackwards(system, f, supply);
  const inventory = new Float64Array(flows.length); // g = B s
  const burdens = impacts.map(() => new Float64Array(processes.length)); // C B
  for (const { row, column, value } of B) {
    inventory[row] += value * supply[column];
    C.forEach((c, i) => burdens[i][column] += c[row] * value);
  }
  const contributions = burdens.map((b) => b.map((v, j) => v * supply[j]));
  return {
    system,
    demand: f,
    supply,
    inventory,
    scores: Float64Array.from(C, (c) => { // h = C g
      let sum = 0;
      for (let k = 0; k < c.length; k++) sum += c[k] * inventory[k];
      return sum;
    }),
    burdens,
    contributions,
    intensities: burdens.map((b) => solver.solveTransposed(b)), // A^-T (C B)^T
    residual,
    condition: solver.condition,
  };
}

function absoluteResidual(A: SparseMatrix, s: Float64Array, f: Float64Array) {
  return multiply(A, s).reduce((m, v, i) => Math.max(m, Math.abs(v - f[i])), 0);
}

/** Position of an impact by name. */
export function impactIndex({ impacts }: System, name: string): number {
  const i = impacts.indexOf(name);
  if (i < 0) {
    throw new RangeError(
      `Cannot find the impact "${name}"; there are ${list(impacts)}`,
    );
  }
  return i;
}

/** Derivative of a score with respect to an entry of A or B, and its elasticity. */
export interface Sensitivity {
  matrix: "A" | "B";
  /** Product or flow. */
  item: string;
  process: string;
  value: number;
  /** dh / d value. */
  derivative: number;
  /** Relative change of the score per relative change of the entry. */
  elasticity: number;
}

/**
 * Derivatives of a score with respect to every entry of A and B, largest elasticity first.
 *
 *   dh / dA_ij = -lambda_i s_j        dh / dB_kj = C_k s_j        elasticity = derivative * entry / h
 */
export function sensitivities(
  { system, supply, intensities, scores }: Assessment,
  impact: string,
): Sensitivity[] {
  const { A, B, C, products, processes, flows } = system;
  const i = impactIndex(system, impact);
  const [lambda, h] = [intensities[i], scores[i]];
  const elasticity = (derivative: number, value: number) =>
    h === 0 ? 0 : derivative * value / h;
  const result: Sensitivity[] = [];
  for (let j = 0; j < A.n; j++) {
    for (let p = A.starts[j]; p < A.starts[j + 1]; p++) {
      const derivative = -lambda[A.rows[p]] * supply[j];
      result.push({
        matrix: "A",
        item: products[A.rows[p]],
        process: processes[j],
        value: A.values[p],
        derivative,
        elasticity: elasticity(derivative, A.values[p]),
      });
    }
  }
  for (const { row, column, value } of B) {
    const derivative = C[i][row] * supply[column];
    result.push({
      matrix: "B",
      item: flows[row],
      process: processes[column],
      value,
      derivative,
      elasticity: elasticity(derivative, value),
    });
  }
  return result.sort((a, b) => Math.abs(b.elasticity) - Math.abs(a.elasticity));
}

/** A chain of supply, from the demand upstream. */
export interface StructuralPath {
  processes: string[];
  /** Burden of the last process of the chain itself. */
  direct: number;
  /** With everything upstream of it. */
  total: number;
}

/**
 * Chains of supply with the burden at their ends: the terms of A^-1 = sum_n Z^n, largest first.
 *
 * A chain is followed as long as its total is at least `cutOff` of the score, default 0.01, and it has at
 * most `maxDepth` processes, default 20.
 */
export function structuralPaths(
  { system, demand, burdens, intensities, scores }: Assessment,
  impact: string,
  { cutOff = 0.01, maxDepth = 20 } = {},
): StructuralPath[] {
  if (!(cutOff > 0)) {
    throw new RangeError(
      `Cannot list paths as the cut-off must be above 0: ${cutOff}`,
    );
  }
  const { A, processes } = system;
  const i = impactIndex(system, impact);
  const least = cutOff * Math.abs(scores[i]);
  const made = new Float64Array(A.n); // reference output of one run
  for (let j = 0; j < A.n; j++) {
    for (let p = A.starts[j]; p < A.starts[j + 1]; p++) {
      if (A.rows[p] === j) made[j] = A.values[p];
    }
  }
  const paths: StructuralPath[] = [];
  const follow = (j: number, amount: number, before: string[]): void => {
    const total = intensities[i][j] * amount;
    if (Math.abs(total) < least || total === 0) return;
    const chain = [...before, processes[j]];
    const runs = amount / made[j];
    paths.push({ processes: chain, direct: burdens[i][j] * runs, total });
    if (chain.length >= maxDepth) return;
    for (let p = A.starts[j]; p < A.starts[j + 1]; p++) {
      const k = A.rows[p];
      if (k !== j) follow(k, -A.values[p] * runs, chain);
    }
  };
  demand.forEach((amount, j) => follow(j, amount, []));
  return paths.sort((a, b) => Math.abs(b.direct) - Math.abs(a.direct));
}

/** Burden that a product carries from one process to another, or to the demand. */
export interface SankeyEdge {
  from: string;
  /** A process, or `demand`. */
  to: string;
  product: string;
  value: number;
}

export interface Sankey {
  impact: string;
  unit: string;
  /** Direct burden of each process. */
  nodes: { process: string; phase: string; direct: number }[];
  edges: SankeyEdge[];
}

/**
 * How the burden flows through the system.
 *
 *   edge i -> j = lambda_i (-A_ij) s_j        edge i -> demand = lambda_i f_i        node j = (C B)_j s_j
 */
export function sankey(
  { system, supply, demand, intensities, contributions }: Assessment,
  impact: string,
): Sankey {
  const { A, processes, products, phases, model } = system;
  const i = impactIndex(system, impact);
  const lambda = intensities[i];
  const edges: SankeyEdge[] = [];
  for (let j = 0; j < A.n; j++) {
    for (let p = A.starts[j]; p < A.starts[j + 1]; p++) {
      const k = A.rows[p];
      const value = lambda[k] * -A.values[p] * supply[j];
      if (k === j || value === 0) continue;
      edges.push({
        from: processes[k],
        to: processes[j],
        product: products[k],
        value,
      });
    }
    if (demand[j] !== 0) {
      edges.push({
        from: processes[j],
        to: "demand",
        product: products[j],
        value: lambda[j] * demand[j],
      });
    }
  }
  return {
    impact,
    unit: model.inventory.impacts[i].unit,
    nodes: processes.map((process, j) => ({
      process,
      phase: phases[j],
      direct: contributions[i][j],
    })),
    edges,
  };
}

/**
 * Nodes whose inflow and direct burden do not equal their outflow; empty if all balance.
 *
 * @param tolerance relative to the sum of all direct burdens; default 1e-9
 */
export function checkSankey(
  { nodes, edges }: Sankey,
  tolerance = 1e-9,
): string[] {
  const balance = new Map(
    nodes.map(({ process, direct }) => [process, direct]),
  );
  const size = nodes.reduce((sum, { direct }) => sum + Math.abs(direct), 0);
  for (const { from, to, value } of edges) {
    balance.set(from, (balance.get(from) ?? 0) - value);
    if (to !== "demand") balance.set(to, (balance.get(to) ?? 0) + value);
  }
  return [...balance].flatMap(([process, left]) =>
    Math.abs(left) <= tolerance * size
      ? []
      : [`"${process}" does not balance: in + direct - out = ${left}`]
  );
}

/** Direct burdens summed by phase, in order of appearance, with where each starts and ends. */
export function waterfall(
  { system, contributions }: Assessment,
  impact: string,
): { phase: string; value: number; from: number; to: number }[] {
  const sums = new Map<string, number>();
  contributions[impactIndex(system, impact)].forEach((value, j) =>
    sums.set(system.phases[j], (sums.get(system.phases[j]) ?? 0) + value)
  );
  let at = 0;
  return [...sums].map(([phase, value]) => ({
    phase,
    value,
    from: at,
    to: at += value,
  }));
}

/**
 * The inventory with every process of several products split into one process for each.
 *
 *   share_k = out_k p_k / sum_m out_m p_m        p: mass, energy or price per unit of product
 *
 * Inputs and flows are multiplied by the share. By-products that another process makes as its reference
 * are split off as well, so a partitioned system holds no substitution. Outputs must be numbers; their
 * distribution is lost in the share, which is taken at the amounts.
 *
 * @throws RangeError if a product lacks the property or a formula gives an output
 */
export function partition(
  inventory: Inventory,
  by: "mass" | "energy" | "price",
): Inventory {
  const { processes, exchanges, products } = inventory;
  const result: Inventory = { ...inventory, processes: [], exchanges: [] };
  const properties = new Map(products.map((p) => [p.name, p[by]]));
  for (const process of processes) {
    const own = exchanges.filter((e) => e.process === process.name);
    const outputs = own.filter((e) =>
      e.direction === "output" && properties.has(e.item)
    );
    if (outputs.length < 2) {
      result.processes.push(process);
      result.exchanges.push(...own);
      continue;
    }
    const weights = outputs.map(({ item, amount }) => {
      const property = properties.get(item);
      if (!(property !== undefined && property > 0) || !(Number(amount) > 0)) {
        throw new RangeError(
          `Cannot partition "${process.name}" by ${by} as "${item}" needs a positive ${by} and a number as amount: ${property}, ${amount}`,
        );
      }
      return property * Number(amount);
    });
    const sum = weights.reduce((a, b) => a + b, 0);
    outputs.forEach((output, k) => {
      const name = `${process.name} (${output.item})`;
      const share = weights[k] / sum;
      result.processes.push({ ...process, name, product: output.item });
      result.exchanges.push({ ...output, process: name });
      for (const exchange of own) {
        if (outputs.includes(exchange)) continue;
        result.exchanges.push({
          ...exchange,
          ...scaledQuantity(exchange, share),
          process: name,
        });
      }
    });
  }
  return result;
}

/** A number or formula times a factor, with its spread. */
function scaledQuantity(
  { amount, distribution: d }: Quantity,
  factor: number,
): Pick<Quantity, "amount" | "distribution"> {
  if (typeof amount === "string") {
    return { amount: `(${amount}) * ${factor}`, distribution: d };
  }
  const distribution = d.kind === "normal"
    ? { ...d, sd: d.sd * factor }
    : d.kind === "uniform"
    ? { ...d, low: d.low * factor, high: d.high * factor }
    : d.kind === "triangular"
    ? {
      ...d,
      low: d.low * factor,
      high: d.high * factor,
      ...(d.mode === undefined ? {} : { mode: d.mode * factor }),
    }
    : d;
  return { amount: amount * factor, distribution };
}
