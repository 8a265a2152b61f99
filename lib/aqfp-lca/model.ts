/**
 * The inventory made ready to reckon: names resolved, units checked, formulas compiled.
 *
 * A model has one list of values, in base units: the parameters, then every exchange and factor that has
 * a distribution of its own. Random values are drawn, calculated ones follow in the order in which they
 * depend on each other, and the entries of the matrices follow from the values:
 *
 *   A  technosphere, products x processes, outputs +, inputs -    in the product's unit
 *   B  interventions, flows x processes, in the flow's direction  in the flow's unit
 *   C  characterisation, impacts x flows                          in impact per flow
 */
import {
  distributionProblem,
  normalCdf,
  normalQuantile,
  quantile,
  quantiles,
  type Sampler,
  samplerOf,
} from "./distributions.ts";
import {
  type Closure,
  closureOf,
  combine,
  type Expression,
  numberOf,
  valueOf,
} from "./expression.ts";
import { compileFormula, RESERVED } from "./formula.ts";
import type { FormulaFunctions, Inventory, Quantity } from "./inventory.ts";
import {
  conversion,
  dimensionText,
  ONE,
  parseUnit,
  sameDimension,
  timesUnit,
  type Unit,
} from "./units.ts";

/** Something wrong with an inventory, and where. */
export interface Problem {
  /** File and row, or table and number. */
  place: string;
  column: string;
  message: string;
}

/** An entry of a matrix: its place, and its value from the list of values. */
export interface Entry {
  row: number;
  column: number;
  expression: Expression;
  evaluate: Closure;
  /** Whether it changes with a random value. */
  random: boolean;
  /** Position of the exchange or factor in the inventory. */
  origin: number;
}

/** A value that is drawn. */
export interface RandomValue {
  index: number;
  sampler: Sampler;
  /** Dimension of its own uniform number; -1 where the group's decides alone. */
  own: number;
  /** Dimension of its group; -1 for none. */
  group: number;
  loading: number;
}

export interface Model {
  inventory: Inventory;
  /** Parameters, then exchanges and factors with a distribution. */
  names: string[];
  /** Unit of each value, as declared. */
  units: string[];
  /** Base units per declared unit, of each value. */
  scales: Float64Array;
  /** All values at their amounts, in base units. */
  central: Float64Array;
  random: RandomValue[];
  /** Independent uniform numbers behind the random values, by name. */
  dimensions: string[];
  /** Values that follow from others, in order. */
  calculated: {
    index: number;
    expression: Expression;
    evaluate: Closure;
    random: boolean;
  }[];
  technosphere: Entry[];
  biosphere: Entry[];
  characterisation: Entry[];
}

/** Names that the grammar of formulas takes for itself. */
const KEYWORDS = new Set([
  "to",
  "in",
  "mod",
  "and",
  "or",
  "xor",
  "not",
  "true",
  "false",
  "null",
  "undefined",
  "NaN",
  "Infinity",
  "end",
]);

export type Places = WeakMap<object, string>;

type Table =
  | "parameters"
  | "products"
  | "flows"
  | "impacts"
  | "processes"
  | "exchanges"
  | "factors";

class Builder {
  readonly problems: Problem[] = [];
  readonly inventory: Inventory;
  readonly functions: FormulaFunctions;
  readonly places: Places;
  readonly names: string[] = [];
  readonly units: string[] = [];
  readonly scales: number[] = [];
  readonly central: number[] = [];
  readonly random: RandomValue[] = [];
  readonly dimensions: string[] = [];
  readonly calculated: Model["calculated"] = [];
  /** Values that are drawn or follow from such. */
  readonly moving = new Set<number>();

  constructor(
    inventory: Inventory,
    functions: FormulaFunctions,
    places: Places,
  ) {
    this.inventory = inventory;
    this.functions = functions;
    this.places = places;
  }

  report(table: Table, i: number, column: string, message: string): void {
    const place = this.places.get(this.inventory[table][i]) ??
      `${table}[${i}]`;
    this.problems.push({ place, column, message });
  }

  unit(table: Table, i: number, text: string): Unit | undefined {
    try {
      return parseUnit(text);
    } catch (error) {
      this.report(table, i, "unit", (error as Error).message);
      return undefined;
    }
  }

  /** Position by name; a name twice is a problem. */
  byName(
    table: "parameters" | "products" | "flows" | "impacts" | "processes",
  ): Map<string, number> {
    const map = new Map<string, number>();
    this.inventory[table].forEach(({ name }, i) => {
      if (name === "") this.report(table, i, "name", "a name, given none");
      if (map.has(name)) {
        this.report(table, i, "name", `"${name}" stands twice`);
      } else map.set(name, i);
    });
    return map;
  }

  dimension(name: string): number {
    const known = this.dimensions.indexOf(name);
    return known >= 0 ? known : this.dimensions.push(name) - 1;
  }

  /** A new value that is given or drawn. */
  value(name: string, quantity: Quantity, unit: Unit): number {
    const index = this.names.push(name) - 1;
    this.units.push(quantity.unit);
    this.scales.push(unit.factor);
    this.central.push(
      typeof quantity.amount === "number" ? quantity.amount * unit.factor : NaN,
    );
    if (typeof quantity.amount === "string") return index;
    const sampler = samplerOf(quantity, unit.factor);
    if (sampler === undefined) return index;
    const { group, loading = 1 } = quantity;
    this.moving.add(index);
    this.random.push({
      index,
      sampler,
      own: group === undefined || Math.abs(loading) < 1
        ? this.dimension(name)
        : -1,
      group: group === undefined ? -1 : this.dimension(`group ${group}`),
      loading,
    });
    return index;
  }

  parameters(): Map<string, { index: number; unit: Unit }> {
    const { parameters } = this.inventory;
    const known = new Map<string, { index: number; unit: Unit }>();
    const first = this.byName("parameters");
    parameters.forEach((parameter, i) => {
      const { name, unit: text } = parameter;
      const problem = distributionProblem(parameter);
      if (problem !== undefined) {
        this.report("parameters", i, problem.column, problem.message);
      }
      if (
        !/^[A-Za-z_]\w*$/.test(name) || RESERVED.has(name) ||
        KEYWORDS.has(name) || Object.hasOwn(this.functions, name)
      ) {
        this.report(
          "parameters",
          i,
          "name",
          `letters, digits and _, not the name of a function, given "${name}"`,
        );
      }
      const unit = this.unit("parameters", i, text);
      const index = this.value(
        name,
        problem === undefined
          ? parameter
          : { ...parameter, distribution: { kind: "fixed" } },
        unit ?? ONE,
      );
      if (unit !== undefined && first.get(name) === i) {
        known.set(name, { index, unit });
      }
    });
    this.order(known);
    return known;
  }

  /** Compiles calculated parameters and puts them in order. */
  order(known: Map<string, { index: number; unit: Unit }>): void {
    const { parameters } = this.inventory;
    const formulas = new Map<
      number,
      { expression: Expression; uses: number[] }
    >();
    parameters.forEach(({ amount, unit: text }, i) => {
      if (typeof amount !== "string") return;
      try {
        const { expression, unit, uses } = compileFormula(
          amount,
          (name) => known.get(name),
          this.functions,
        );
        if (!sameDimension(unit, parseUnit(text))) {
          this.report(
            "parameters",
            i,
            "unit",
            `the formula gives ${dimensionText(unit)}, the unit is "${text}"`,
          );
        }
        formulas.set(i, { expression, uses });
      } catch (error) {
        this.report("parameters", i, "amount", (error as Error).message);
      }
    });
    const state = new Map<number, "open" | "done">();
    const visit = (i: number, path: number[]): void => {
      const formula = formulas.get(i);
      if (formula === undefined || state.get(i) === "done") return;
      if (state.get(i) === "open") {
        const loop = [...path.slice(path.indexOf(i)), i];
        this.report(
          "parameters",
          i,
          "amount",
          `the formula depends on itself: ${
            loop.map((k) => parameters[k].name).join(" -> ")
          }`,
        );
        return;
      }
      state.set(i, "open");
      for (const k of formula.uses) visit(k, [...path, i]);
      state.set(i, "done");
      const random = formula.uses.some((k) => this.moving.has(k));
      if (random) this.moving.add(i);
      const { expression } = formula;
      const evaluate = closureOf(expression);
      this.calculated.push({ index: i, expression, evaluate, random });
    };
    for (const i of formulas.keys()) visit(i, []);
  }

  /** Sets calculated values at the amounts of the others. */
  settle(): Float64Array {
    const values = Float64Array.from(this.central);
    for (const { index, evaluate } of this.calculated) {
      values[index] = evaluate(values);
      // What follows from a broken number would only be said again.
      if (!Number.isFinite(values[index]) && this.problems.length === 0) {
        this.report(
          "parameters",
          index,
          "amount",
          `a formula with a finite value, given ${
            this.inventory.parameters[index].amount
          } = ${values[index]}`,
        );
      }
    }
    return values;
  }

  /**
   * The amount of an exchange or factor in `target`; a formula may also give it per `per`.
   */
  amount(
    table: "exchanges" | "factors",
    i: number,
    name: string,
    quantity: Quantity,
    target: string,
    parameters: Map<string, { index: number; unit: Unit }>,
    per?: { unit: Unit; expression: Expression; random: boolean },
  ): { expression: Expression; random: boolean } | undefined {
    const unit = this.unit(table, i, quantity.unit);
    if (unit === undefined) return undefined;
    try {
      conversion(quantity.unit, target);
    } catch (error) {
      this.report(table, i, "unit", `${name}: ${(error as Error).message}`);
      return undefined;
    }
    const factor = parseUnit(target).factor;
    if (typeof quantity.amount === "string") {
      try {
        const formula = compileFormula(
          quantity.amount,
          (parameter) => parameters.get(parameter),
          this.functions,
        );
        const random = formula.uses.some((k) => this.moving.has(k));
        const { expression } = formula;
        if (sameDimension(formula.unit, unit)) {
          return {
            expression: combine("/", expression, numberOf(factor)),
            random,
          };
        }
        if (
          per !== undefined &&
          sameDimension(formula.unit, timesUnit(unit, per.unit, -1))
        ) {
          const scale = per.unit.factor / factor;
          return {
            expression: combine(
              "*",
              combine("*", expression, per.expression),
              numberOf(scale),
            ),
            random: random || per.random,
          };
        }
        this.report(
          table,
          i,
          "unit",
          `${name}: the formula gives ${
            dimensionText(formula.unit)
          }, the unit is "${quantity.unit}"`,
        );
      } catch (error) {
        this.report(table, i, "amount", `${name}: ${(error as Error).message}`);
      }
      return undefined;
    }
    const problem = distributionProblem(quantity);
    if (problem !== undefined) {
      this.report(table, i, problem.column, `${name}: ${problem.message}`);
      return undefined;
    }
    if (quantity.distribution.kind === "fixed") {
      const value = quantity.amount * unit.factor / factor;
      return { expression: numberOf(value), random: false };
    }
    const index = this.value(name, quantity, unit);
    return {
      expression: combine("/", valueOf(index), numberOf(factor)),
      random: true,
    };
  }

  /** Entries of A and B. */
  exchanges(
    parameters: Map<string, { index: number; unit: Unit }>,
  ): Pick<Model, "technosphere" | "biosphere"> {
    const { exchanges, products, flows, processes } = this.inventory;
    const productAt = this.byName("products");
    const flowAt = this.byName("flows");
    const processAt = this.byName("processes");
    products.forEach(({ name, unit }, i) => {
      this.unit("products", i, unit);
      if (flowAt.has(name)) {
        this.report("products", i, "name", `"${name}" is a flow as well`);
      }
    });
    flows.forEach(({ unit }, i) => this.unit("flows", i, unit));
    processes.forEach(({ product }, i) => {
      if (!productAt.has(product)) {
        this.report("processes", i, "product", `no product "${product}"`);
      }
    });
    const seen = new Set<string>();
    const references = new Map<
      number,
      { unit: Unit; expression: Expression; random: boolean }
    >();
    const technosphere: Entry[] = [];
    const biosphere: Entry[] = [];
    const place = (i: number): void => {
      const exchange = exchanges[i];
      const { process, direction, item } = exchange;
      const sign = direction === "output" ? 1 : -1;
      const name = `${process}: ${direction} ${item}`;
      const column = processAt.get(process);
      if (column === undefined) {
        this.report("exchanges", i, "process", `no process "${process}"`);
        return;
      }
      if (seen.has(name)) {
        this.report("exchanges", i, "item", `"${name}" stands twice`);
        return;
      }
      seen.add(name);
      const row = productAt.get(item) ?? flowAt.get(item);
      if (row === undefined) {
        this.report("exchanges", i, "item", `no product or flow "${item}"`);
        return;
      }
      const isProduct = productAt.has(item);
      const target = isProduct ? products[row].unit : flows[row].unit;
      const amount = this.amount(
        "exchanges",
        i,
        name,
        exchange,
        target,
        parameters,
        references.get(column),
      );
      if (amount === undefined) return;
      const { expression, random } = amount;
      const entry = { row, column, random, origin: i };
      if (isProduct) {
        technosphere.push({ ...entry, ...signed(expression, sign) });
        if (direction === "output" && processes[column].product === item) {
          references.set(column, {
            unit: parseUnit(target),
            expression,
            random,
          });
        }
      } else {
        const along = (flows[row].direction === "emission") === (sign > 0);
        biosphere.push({
          ...entry,
          ...signed(expression, along ? 1 : -1),
        });
      }
    };
    // Reference outputs first, as formulas may be per unit of them.
    const isReference = ({ process, direction, item }: typeof exchanges[0]) =>
      direction === "output" &&
      processes[processAt.get(process) ?? -1]?.product === item;
    const last: number[] = [];
    exchanges.forEach((exchange, i) => {
      if (isReference(exchange)) place(i);
      else last.push(i);
    });
    last.forEach(place);
    processes.forEach(({ name, product }, i) => {
      if (
        productAt.has(product) && processAt.get(name) === i &&
        !exchanges.some((e) =>
          e.process === name && e.item === product && e.direction === "output"
        )
      ) {
        this.report(
          "processes",
          i,
          "product",
          `process "${name}" has no output "${product}"`,
        );
      }
    });
    return { technosphere, biosphere };
  }

  /** Entries of C. */
  factors(
    parameters: Map<string, { index: number; unit: Unit }>,
  ): Entry[] {
    const { factors, flows, impacts } = this.inventory;
    const flowAt = new Map(flows.map(({ name }, i) => [name, i]));
    const impactAt = this.byName("impacts");
    impacts.forEach(({ unit }, i) => this.unit("impacts", i, unit));
    const seen = new Set<string>();
    return factors.flatMap((factor, i) => {
      const name = `${factor.impact}: ${factor.flow}`;
      const row = impactAt.get(factor.impact);
      const column = flowAt.get(factor.flow);
      if (row === undefined) {
        this.report("factors", i, "impact", `no impact "${factor.impact}"`);
      }
      if (column === undefined) {
        this.report("factors", i, "flow", `no flow "${factor.flow}"`);
      }
      if (seen.has(name)) {
        this.report("factors", i, "flow", `"${name}" stands twice`);
        return [];
      }
      seen.add(name);
      if (row === undefined || column === undefined) return [];
      const target = ratioUnit(impacts[row].unit, flows[column].unit);
      const amount = this.amount(
        "factors",
        i,
        name,
        factor,
        target,
        parameters,
      );
      return amount === undefined ? [] : [{
        row,
        column,
        random: amount.random,
        origin: i,
        ...signed(amount.expression, 1),
      }];
    });
  }
}

/** The amount of an entry, with its sign. */
function signed(
  amount: Expression,
  sign: number,
): Pick<Entry, "expression" | "evaluate"> {
  const expression = sign > 0 ? amount : combine("*", numberOf(-1), amount);
  return { expression, evaluate: closureOf(expression) };
}

/** Text of the unit a / b, both of which may hold a `/`. */
function ratioUnit(a: string, b: string): string {
  const [top, ...under] = b.split("/");
  const numerator = a.split("/");
  const up = [numerator[0], ...under].map((t) => t.trim() || "1").join(" ");
  const down = [...numerator.slice(1), top].map((t) => t.trim() || "1");
  return `${up}/${down.join("/")}`;
}

/** Fills the calculated values of a list whose other values are set. */
export function calculate(model: Model, values: Float64Array): Float64Array {
  for (const { index, evaluate } of model.calculated) {
    values[index] = evaluate(values);
  }
  return values;
}

/** Values at the amounts of the inventory, with some parameters set in their own units. */
export function valuesWith(
  model: Model,
  set: Record<string, number> = {},
): Float64Array {
  const values = model.central.slice();
  const fixed = fixedValues(model, set);
  for (const [index, value] of fixed) values[index] = value;
  for (const { index, evaluate } of model.calculated) {
    if (!fixed.has(index)) values[index] = evaluate(values);
  }
  return values;
}

/** Place of a parameter that is set by name. */
export function parameterIndex({ names }: Model, name: string): number {
  const index = names.indexOf(name);
  if (index < 0) {
    throw new RangeError(
      `Cannot set the parameter "${name}" as there is none; the inventory has ${
        names.slice(0, 12).join(", ")
      }${names.length > 12 ? " ..." : ""}`,
    );
  }
  return index;
}

/** Places and base-unit values of parameters that are set by name. */
export function fixedValues(
  model: Model,
  set: Record<string, number>,
): Map<number, number> {
  return new Map(
    Object.entries(set).map(([name, value]) => {
      const index = parameterIndex(model, name);
      if (!Number.isFinite(value)) {
        throw new RangeError(
          `Cannot set the parameter "${name}" as its value must be finite: ${value}`,
        );
      }
      return [index, value * model.scales[index]];
    }),
  );
}

/**
 * Random values from the uniform numbers of their own and of their group.
 *
 *   z = loading Z + sqrt(1 - loading^2) e,   u = Phi(z)
 */
export function drawValues(
  { sampler, own, group, loading }: RandomValue,
  uniforms: (dimension: number) => Float64Array,
  into: Float64Array,
): void {
  const n = into.length;
  if (group < 0 || Math.abs(loading) === 1) {
    const u = uniforms(group < 0 ? own : group);
    if (group >= 0 && loading === -1) {
      for (let r = 0; r < n; r++) into[r] = 1 - u[r];
      quantiles(sampler, into, into);
    } else quantiles(sampler, u, into);
    return;
  }
  const [common, alone] = [uniforms(group), uniforms(own)];
  const rest = Math.sqrt(1 - loading * loading);
  for (let r = 0; r < n; r++) {
    const z = loading * normalQuantile(common[r]) +
      rest * normalQuantile(alone[r]);
    if (sampler.kind === "lognormal") {
      into[r] = sampler.median * Math.exp(sampler.sigma * z);
    } else if (sampler.kind === "normal") {
      into[r] = sampler.mean + sampler.sd * z;
    } else into[r] = quantile(sampler, normalCdf(z));
  }
}

function build(
  inventory: Inventory,
  functions: FormulaFunctions,
  places: Places,
): { model: Model; problems: Problem[] } {
  const builder = new Builder(inventory, functions, places);
  const parameters = builder.parameters();
  const entries = builder.exchanges(parameters);
  const characterisation = builder.factors(parameters);
  const central = builder.settle();
  for (
    const [table, list] of Object.entries({ ...entries, characterisation })
  ) {
    const from = table === "characterisation" ? "factors" : "exchanges";
    for (const { evaluate, origin } of list) {
      const value = evaluate(central);
      if (builder.problems.length === 0 && !Number.isFinite(value)) {
        builder.report(
          from,
          origin,
          "amount",
          `a finite amount, given ${inventory[from][origin].amount} = ${value}`,
        );
      }
    }
  }
  const { problems, names, units, random, dimensions, calculated } = builder;
  return {
    problems,
    model: {
      inventory,
      names,
      units,
      scales: Float64Array.from(builder.scales),
      central,
      random,
      dimensions,
      calculated,
      ...entries,
      characterisation,
    },
  };
}

/** Everything that is wrong with an inventory; empty if it can be used. */
export function checkInventory(
  inventory: Inventory,
  functions: FormulaFunctions = {},
  places: Places = new WeakMap(),
): Problem[] {
  return build(inventory, functions, places).problems;
}

const MOST_SHOWN = 20;

/** Throws with every problem on a line of its own. */
export function refuse(name: string, problems: Problem[]): void {
  if (problems.length === 0) return;
  const lines = problems.slice(0, MOST_SHOWN).map((
    { place, column, message },
  ) => `  ${place}, column ${column}: ${message}`);
  if (problems.length > MOST_SHOWN) {
    lines.push(`  and ${problems.length - MOST_SHOWN} more`);
  }
  throw new RangeError(
    `Cannot use the inventory "${name}" as it has ${problems.length} problem${
      problems.length === 1 ? "" : "s"
    }:\n${lines.join("\n")}`,
  );
}

/**
 * The inventory as a model.
 *
 * @param functions that formulas may call besides the built-in ones
 * @throws RangeError naming every row that cannot be used
 */
export function compileInventory(
  inventory: Inventory,
  functions: FormulaFunctions = {},
  places: Places = new WeakMap(),
): Model {
  const { model, problems } = build(inventory, functions, places);
  refuse(inventory.name, problems);
  return model;
}
