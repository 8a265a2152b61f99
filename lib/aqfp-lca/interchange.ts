/**
 * Exchange with other tools: the inventory as openLCA JSON-LD, and back.
 *
 * Format: olca-schema, version 2, the public specification of GreenDelta,
 * https://greendelta.github.io/olca-schema: a zip of one JSON file per unit group, flow property, flow,
 * parameter, process and impact category.
 *
 * The format carries names, units, amounts, formulas, fixed, lognormal, normal, triangular and uniform
 * numbers, pedigree scores and texts. It has no fields for the source and standing of a number, for
 * correlated groups, for phases, for properties of products, or for formulas that reckon with units. Those
 * stand as JSON behind `[adiabat]` in the description of their object: this reader restores them, other tools
 * keep or drop them. Where another tool has changed an amount, its formula or its distribution, the
 * change wins.
 *
 * Formulas of openLCA reckon with plain numbers, so they are written with the scales of the units, and only
 * if they then give the amount; others are written as their amount, and named in `notes`.
 */
import { strFromU8, strToU8, unzipSync, zipSync } from "fflate";
import { fold, key } from "../core/rng.ts";
import { pedigreeSigma } from "./distributions.ts";
import { compileFormula } from "./formula.ts";
import { type Inventory, type Quantity, readInventory } from "./inventory.ts";
import type { FormulaFunctions } from "./inventory.ts";
import type { Model } from "./model.ts";
import { dimensionText, ONE, parseUnit } from "./units.ts";

/** Files of a JSON-LD package by path. */
export type JsonLd = Record<string, string>;

type Json = Record<string, unknown>;

const MARK = "[adiabat] ";

/** A UUID that follows from a text. */
function uuid(text: string): string {
  const hex = ["high", "low"].flatMap((half) => [
    ...fold(fold(key(0), half), text),
  ]).map((word) => word.toString(16).padStart(8, "0")).join("");
  // Version 8 (free use) and the variant of RFC 9562.
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${
    hex.slice(17, 20)
  }-${hex.slice(20)}`;
}

const reference = (type: string, name: string): Json => ({
  "@type": type,
  "@id": uuid(`${type} ${name}`),
  name,
});

const object = reference;

function described(comment: string | undefined, block: Json): string {
  const extra = JSON.stringify(block);
  return `${comment ?? ""}${comment ? "\n" : ""}${MARK}${extra}`;
}

/** Comment and block of a description; a block that cannot be parsed is text. */
function undescribed(description: unknown): { comment?: string; block: Json } {
  const text = typeof description === "string" ? description : "";
  const at = text.lastIndexOf(MARK);
  if (at >= 0) {
    try {
      const block = JSON.parse(text.slice(at + MARK.length));
      if (typeof block === "object" && block !== null) {
        const comment = text.slice(0, at).replace(/\n$/, "");
        return { ...(comment ? { comment } : {}), block };
      }
    } catch {
      // Not ours, so it is part of the comment.
    }
  }
  return { ...(text ? { comment: text } : {}), block: {} };
}

/** Distribution in the words of olca-schema. */
function uncertainty(
  { amount, distribution: d, pedigree }: Quantity,
): Json | undefined {
  const of = (type: string, numbers: Json) => ({
    "@type": "Uncertainty",
    distributionType: `${type}_DISTRIBUTION`,
    ...numbers,
  });
  switch (d.kind) {
    case "fixed":
      return undefined;
    case "lognormal":
      return of("LOG_NORMAL", { geomMean: amount, geomSd: d.gsd });
    case "pedigree":
      return of("LOG_NORMAL", {
        geomMean: amount,
        geomSd: Math.exp(pedigreeSigma(pedigree!, d.basicVariance)),
      });
    case "normal":
      return of("NORMAL", { mean: amount, sd: d.sd });
    case "triangular":
      return of("TRIANGLE", {
        minimum: d.low,
        mode: d.mode ?? amount,
        maximum: d.high,
      });
    case "uniform":
      return of("UNIFORM", { minimum: d.low, maximum: d.high });
  }
}

/** Distribution from the words of olca-schema. */
function distribution(value: unknown): Json {
  if (typeof value !== "object" || value === null) return { kind: "fixed" };
  const u = value as Json;
  switch (u.distributionType) {
    case "LOG_NORMAL_DISTRIBUTION":
      return { kind: "lognormal", gsd: u.geomSd };
    case "NORMAL_DISTRIBUTION":
      return { kind: "normal", sd: u.sd };
    case "TRIANGLE_DISTRIBUTION":
      return {
        kind: "triangular",
        low: u.minimum,
        mode: u.mode,
        high: u.maximum,
      };
    case "UNIFORM_DISTRIBUTION":
      return { kind: "uniform", low: u.minimum, high: u.maximum };
    default:
      return { kind: "fixed" };
  }
}

/** Functions that both dialects have, with the same meaning. */
const SHARED = new Set(["sqrt", "exp", "min", "max", "abs"]);

/** A formula over plain numbers in the declared units that gives `amount` in `unit`; nothing if none does. */
function plainFormula(
  model: Model,
  formula: string,
  unit: string,
  amount: number,
): string | undefined {
  const known = new Map(
    model.inventory.parameters.map(({ name }, i) => [name, i]),
  );
  const calls = [...formula.matchAll(/([A-Za-z_]\w*)\s*\(/g)];
  if (calls.some(([, name]) => !SHARED.has(name))) return undefined;
  const scaled = formula.replace(/\b[A-Za-z_]\w*\b/g, (name) => {
    const index = known.get(name);
    const scale = index === undefined ? 1 : model.scales[index];
    return scale === 1 ? name : `(${name} * ${scale})`;
  });
  const { factor } = parseUnit(unit);
  const text = factor === 1 ? scaled : `(${scaled}) / ${factor}`;
  try {
    const { evaluate } = compileFormula(
      text,
      (name) =>
        known.has(name) ? { index: known.get(name)!, unit: ONE } : undefined,
    );
    const value = evaluate(model.central.map((v, i) => v / model.scales[i]));
    return Math.abs(value - amount) <= 1e-9 * Math.abs(amount)
      ? text
      : undefined;
  } catch {
    return undefined; // its units matter, so it cannot be a formula of plain numbers
  }
}

/** Fields of a number that the format lacks. */
function ownFields(quantity: Quantity, was: unknown[]): Json {
  const { amount, unit, distribution: d, pedigree, group, loading } = quantity;
  const { source, standing } = quantity;
  return {
    amount,
    unit,
    distribution: d,
    pedigree,
    group,
    loading,
    source,
    standing,
    was: JSON.stringify(was),
  };
}

/** A number from the fields of the format and the block; what another tool changed wins. */
function quantityOf(
  value: unknown,
  formula: unknown,
  spread: unknown,
  unit: string,
  description: unknown,
  scores?: unknown,
): Json {
  const { comment, block } = undescribed(description);
  const { was, amount, unit: ownUnit, source, standing, ...rest } = block;
  const given = {
    source: source ?? "openLCA JSON-LD",
    standing: standing ?? "assumed",
    ...(comment === undefined ? {} : { comment }),
  };
  const now = JSON.stringify([value, formula ?? null, spread ?? null, unit]);
  if (was === now) return { ...given, ...rest, amount, unit: ownUnit };
  const hasFormula = typeof formula === "string" && formula.trim() !== "";
  const pedigree = /^\((\d;){4}\d\)$/.test(String(scores))
    ? { pedigree: String(scores).slice(1, -1).split(";").map(Number) }
    : {};
  return {
    ...given,
    ...pedigree,
    amount: hasFormula ? formula : value,
    unit,
    distribution: hasFormula ? { kind: "fixed" } : distribution(spread),
  };
}

const clean = (json: Json): Json =>
  Object.fromEntries(
    Object.entries(json).filter(([, value]) => value !== undefined),
  );

/**
 * The inventory as files of an openLCA JSON-LD package.
 *
 * @returns the files by path, and in words what another tool will see in a simpler form
 */
export function toOpenLca(model: Model): { files: JsonLd; notes: string[] } {
  const { inventory, central, scales } = model;
  const files: JsonLd = { "openlca.json": '{"schemaVersion":2}' };
  const notes: string[] = [];
  const write = (folder: string, json: Json) => {
    files[`${folder}/${json["@id"]}.json`] = JSON.stringify(
      clean(json),
      null,
      1,
    );
  };
  // Units: one group and one flow property per dimension.
  const groups = new Map<string, string[]>();
  const unitRef = (text: string): Json => {
    const dimension = dimensionText(parseUnit(text));
    const texts = groups.get(dimension) ?? [];
    if (!texts.includes(text)) texts.push(text);
    groups.set(dimension, texts);
    return { ...reference("Unit", text || "1"), name: text || "1" };
  };
  const property = (text: string) =>
    reference("FlowProperty", dimensionText(parseUnit(text)));
  const number = (
    name: string,
    quantity: Quantity,
    amount: number,
    keepsSpread = true,
  ): { formula?: string; spread?: Json; description: string } => {
    const formula = typeof quantity.amount === "string"
      ? plainFormula(model, quantity.amount, quantity.unit, amount)
      : undefined;
    if (typeof quantity.amount === "string" && formula === undefined) {
      notes.push(
        `${name}: the formula "${quantity.amount}" is written as its amount ${amount} ${quantity.unit}`,
      );
    }
    if (quantity.group !== undefined) {
      notes.push(`${name}: the correlation of group ${quantity.group} is lost`);
    }
    const spread = keepsSpread ? uncertainty(quantity) : undefined;
    const was = [amount, formula ?? null, spread ?? null, quantity.unit || "1"];
    return {
      formula,
      spread,
      description: described(quantity.comment, ownFields(quantity, was)),
    };
  };
  inventory.parameters.forEach((parameter, i) => {
    const amount = central[i] / scales[i];
    const value = typeof parameter.amount === "number"
      ? parameter.amount
      : amount;
    const { formula, spread, description } = number(
      parameter.name,
      parameter,
      value,
    );
    write("parameters", {
      ...object("Parameter", parameter.name),
      parameterScope: "GLOBAL_SCOPE",
      isInputParameter: formula === undefined,
      value,
      formula,
      uncertainty: spread,
      description,
    });
  });
  const writeFlow = (
    name: string,
    unit: string,
    flowType: string,
    comment: string | undefined,
    block: Json,
  ) => {
    unitRef(unit);
    write("flows", {
      ...object("Flow", name),
      flowType,
      flowProperties: [{
        "@type": "FlowPropertyFactor",
        isRefFlowProperty: true,
        conversionFactor: 1,
        flowProperty: property(unit),
      }],
      description: described(comment, { ...block, unit }),
    });
  };
  for (const { name, unit, comment, ...properties } of inventory.products) {
    writeFlow(name, unit, "PRODUCT_FLOW", comment, properties);
  }
  for (const { name, unit, comment, ...more } of inventory.flows) {
    writeFlow(name, unit, "ELEMENTARY_FLOW", comment, more);
  }
  const entries = new Map(
    [...model.technosphere, ...model.biosphere].map((e) => [e.origin, e]),
  );
  const itemUnit = new Map(
    [...inventory.products, ...inventory.flows].map((p) => [p.name, p.unit]),
  );
  for (const process of inventory.processes) {
    const own = inventory.exchanges.flatMap((exchange, origin) =>
      exchange.process === process.name ? [{ exchange, origin }] : []
    );
    const { name, comment, phase, location, product } = process;
    write("processes", {
      ...object("Process", name),
      processType: "UNIT_PROCESS",
      description: described(comment, { phase, location }),
      exchanges: own.map(({ exchange, origin }, i) => {
        const { item, direction, unit, pedigree } = exchange;
        const entry = entries.get(origin)!;
        const inItemUnit = Math.abs(entry.evaluate(central));
        const sign = Math.sign(entry.evaluate(central)) *
          naturalSign(inventory, exchange);
        const ratio = parseUnit(itemUnit.get(item)!).factor /
          parseUnit(unit).factor;
        const amount = typeof exchange.amount === "number"
          ? exchange.amount
          : sign * inItemUnit * ratio;
        const { formula, spread, description } = number(
          `${name}: ${direction} ${item}`,
          exchange,
          amount,
        );
        return clean({
          "@type": "Exchange",
          internalId: i + 1,
          flow: reference("Flow", item),
          unit: unitRef(unit),
          flowProperty: property(unit),
          isInput: direction === "input",
          isQuantitativeReference: direction === "output" && item === product,
          amount,
          amountFormula: formula,
          uncertainty: spread,
          dqEntry: pedigree === undefined
            ? undefined
            : `(${pedigree.join(";")})`,
          description,
        });
      }),
    });
  }
  const order = (list: { name: string }[]) => list.map(({ name }) => name);
  inventory.impacts.forEach((impact) => {
    const own = inventory.factors.flatMap((factor, origin) =>
      factor.impact === impact.name ? [{ factor, origin }] : []
    );
    write("lcia_categories", {
      ...object("ImpactCategory", impact.name),
      refUnit: impact.unit,
      description: impact.comment,
      impactFactors: own.map(({ factor, origin }) => {
        const flowUnit = itemUnit.get(factor.flow)!;
        const entry = model.characterisation.find((e) => e.origin === origin)!;
        const target = entry.evaluate(central);
        // A value converted to the units of the format has no spread there that would fit it.
        const isSame = typeof factor.amount === "number" &&
          Math.abs(target - factor.amount) <= 1e-12 * Math.abs(target);
        const { spread, description } = number(
          `${impact.name}: ${factor.flow}`,
          factor,
          target,
          isSame,
        );
        return clean({
          "@type": "ImpactFactor",
          flow: reference("Flow", factor.flow),
          unit: unitRef(flowUnit),
          flowProperty: property(flowUnit),
          value: target,
          uncertainty: spread,
          description,
        });
      }),
    });
  });
  write("lcia_methods", {
    ...object("ImpactMethod", inventory.name),
    impactCategories: inventory.impacts.map(({ name }) =>
      reference("ImpactCategory", name)
    ),
    // The order of tables, which files in a folder do not have.
    description: described(inventory.comment, {
      parameters: order(inventory.parameters),
      products: order(inventory.products),
      flows: order(inventory.flows),
      processes: order(inventory.processes),
      impacts: order(inventory.impacts),
    }),
  });
  for (const [dimension, texts] of groups) {
    const { factor } = parseUnit(texts[0]);
    write("unit_groups", {
      ...object("UnitGroup", dimension),
      defaultFlowProperty: reference("FlowProperty", dimension),
      units: texts.map((text, i) => ({
        ...object("Unit", text || "1"),
        isRefUnit: i === 0,
        conversionFactor: parseUnit(text).factor / factor,
      })),
    });
    write("flow_properties", {
      ...object("FlowProperty", dimension),
      flowPropertyType: "PHYSICAL_QUANTITY",
      unitGroup: reference("UnitGroup", dimension),
    });
  }
  return { files, notes };
}

/** Sign with which an exchange of positive amount stands in its matrix. */
function naturalSign(
  { products, flows }: Inventory,
  { item, direction }: { item: string; direction: string },
): number {
  const out = direction === "output";
  if (products.some(({ name }) => name === item)) return out ? 1 : -1;
  const flow = flows.find(({ name }) => name === item)!;
  return (flow.direction === "emission") === out ? 1 : -1;
}

/** A unit of another tool as one that is known here, or as a word. */
function unitText(name: unknown): string {
  const text = String(name ?? "1");
  try {
    parseUnit(text);
    return text;
  } catch {
    return text.replace(/[^A-Za-z0-9]+/g, "_").replace(/^(?![A-Za-z])/, "u");
  }
}

/**
 * The inventory of an openLCA JSON-LD package.
 *
 * What has no source there gets the source "openLCA JSON-LD" and the standing "assumed". Amounts may be
 * in any unit; waste flows and product systems are not read.
 *
 * @throws SyntaxError naming a file that is not JSON, RangeError naming what cannot be used
 */
export function fromOpenLca(
  files: JsonLd,
  functions: FormulaFunctions = {},
): Inventory {
  const read = (folder: string): Json[] =>
    Object.entries(files).filter(([path]) =>
      path.startsWith(`${folder}/`) && path.endsWith(".json")
    ).map(([path, text]) => {
      let json: unknown;
      try {
        json = JSON.parse(text);
      } catch (error) {
        throw new SyntaxError(
          `Cannot read ${path} as it must be JSON: ${(error as Error).message}`,
        );
      }
      if (typeof json !== "object" || json === null || Array.isArray(json)) {
        throw new SyntaxError(`Cannot read ${path} as it must be an object`);
      }
      return json as Json;
    });
  const part = (json: unknown): Json =>
    typeof json === "object" && json !== null ? json as Json : {};
  const listOf = (json: unknown): Json[] =>
    Array.isArray(json) ? json.map(part) : [];
  const name = (json: unknown) => String(part(json).name ?? "");

  const [method] = read("lcia_methods");
  const { comment, block: orders } = undescribed(method?.description);
  const sorted = (table: string, list: Json[]): Json[] => {
    const order = Array.isArray(orders[table])
      ? orders[table] as unknown[]
      : [];
    const at = (json: Json) => {
      const i = order.indexOf(name(json));
      return i < 0 ? order.length : i;
    };
    return list.map((json, i) => ({ json, i }))
      .sort((a, b) => at(a.json) - at(b.json) || a.i - b.i)
      .map(({ json }) => json);
  };
  const processes = sorted("processes", read("processes"));
  const exchangesOf = (process: Json) => listOf(process.exchanges);
  const flows = read("flows");
  const waste = flows.find(({ flowType }) => flowType === "WASTE_FLOW");
  if (waste !== undefined) {
    throw new RangeError(
      `Cannot read the waste flow "${
        name(waste)
      }" as waste must be modelled as the use of a treatment service`,
    );
  }
  const groups = new Map(read("unit_groups").map((g) => [g["@id"], g]));
  const propertyUnit = new Map(
    read("flow_properties").map((p) => {
      const units = listOf(part(groups.get(part(p.unitGroup)["@id"])).units);
      const ref = units.find(({ isRefUnit }) => isRefUnit === true);
      return [p["@id"], ref?.name];
    }),
  );
  const flowUnit = (flow: Json): string => {
    const { block } = undescribed(flow.description);
    if (typeof block.unit === "string") return block.unit;
    const factors = listOf(flow.flowProperties);
    const main = factors.find((f) => f.isRefFlowProperty === true) ??
      factors[0];
    return unitText(propertyUnit.get(part(main?.flowProperty)["@id"]));
  };
  const uses = new Map<string, boolean>();
  for (const { flow, isInput } of processes.flatMap(exchangesOf)) {
    uses.set(name(flow), (uses.get(name(flow)) ?? true) && isInput === true);
  }
  const units = new Map(flows.map((flow) => [name(flow), flowUnit(flow)]));
  const own = (json: Json) => {
    const { comment, block } = undescribed(json.description);
    const { unit: _, ...rest } = block;
    return {
      name: name(json),
      ...rest,
      ...(comment === undefined ? {} : { comment }),
    };
  };
  const inventory = {
    name: method === undefined ? "openLCA" : name(method),
    ...(comment === undefined ? {} : { comment }),
    parameters: sorted("parameters", read("parameters")).map((p) => ({
      name: name(p),
      ...quantityOf(
        p.value,
        p.formula,
        p.uncertainty,
        String(undescribed(p.description).block.unit || "1"),
        p.description,
      ),
    })),
    products: sorted(
      "products",
      flows.filter(({ flowType }) => flowType === "PRODUCT_FLOW"),
    ).map((flow) => ({ unit: flowUnit(flow), ...own(flow) })),
    flows: sorted(
      "flows",
      flows.filter(({ flowType }) => flowType === "ELEMENTARY_FLOW"),
    ).map((flow) => ({
      unit: flowUnit(flow),
      direction: uses.get(name(flow)) ? "resource" : "emission",
      ...own(flow),
    })),
    impacts: sorted("impacts", read("lcia_categories")).map((i) => ({
      name: name(i),
      unit: unitText(i.refUnit),
      ...(i.description === undefined ? {} : { comment: i.description }),
    })),
    processes: processes.map((process) => ({
      product: name(
        exchangesOf(process).find((e) => e.isQuantitativeReference === true)
          ?.flow,
      ),
      phase: "process",
      ...own(process),
    })),
    exchanges: processes.flatMap((process) =>
      exchangesOf(process).map((e) => ({
        process: name(process),
        direction: e.isInput === true ? "input" : "output",
        item: name(e.flow),
        ...quantityOf(
          e.amount,
          e.amountFormula,
          e.uncertainty,
          unitText(name(e.unit) || units.get(name(e.flow))),
          e.description,
          e.dqEntry,
        ),
      }))
    ),
    factors: sorted("impacts", read("lcia_categories")).flatMap((impact) =>
      listOf(impact.impactFactors).map((f) => {
        const top = unitText(impact.refUnit);
        const flow = units.get(name(f.flow)) ?? "1";
        const per = unitText(name(f.unit) || flow);
        const { block } = undescribed(f.description);
        const unit = `${top}/${per}`;
        return {
          impact: name(impact),
          flow: name(f.flow),
          ...quantityOf(
            f.value,
            f.formula,
            f.uncertainty,
            factorUnit(block, f, unit),
            f.description,
          ),
        };
      })
    ),
  };
  return readInventory({ "openlca.json": JSON.stringify(inventory) }, {
    functions,
  });
}

/** Unit of a factor: that of the block while the value is still the one written, else that of the format. */
function factorUnit(block: Json, factor: Json, unit: string): string {
  if (typeof block.was !== "string") return unit;
  try {
    const [value] = JSON.parse(block.was);
    return value === factor.value ? String(block.unit || "1") : unit;
  } catch {
    return unit;
  }
}

/** The files as a zip, as openLCA imports it; the same files give the same bytes. */
export function zipJsonLd(files: JsonLd): Uint8Array {
  const bytes = Object.fromEntries(
    Object.entries(files).map(([path, text]) => [path, strToU8(text)]),
  );
  return zipSync(bytes, { mtime: "1980-01-01T12:00:00" });
}

/**
 * The files of a zip.
 *
 * @throws SyntaxError if the bytes are not a zip
 */
export function unzipJsonLd(bytes: Uint8Array): JsonLd {
  try {
    return Object.fromEntries(
      Object.entries(unzipSync(bytes)).filter(([path]) =>
        path.endsWith(".json")
      ).map(([path, text]) => [path, strFromU8(text)]),
    );
  } catch (error) {
    throw new SyntaxError(
      `Cannot read the package as it must be a zip: ${
        (error as Error).message
      }`,
    );
  }
}
