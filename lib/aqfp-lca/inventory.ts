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
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { parse } from "csv-parse/sync";
import type { Standing } from "../core/aqfp.ts";
import { checkInventory, type Places, type Problem, refuse } from "./model.ts";

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

// Tables ------------------------------------------------------------------------------------------

export const TABLES = [
  "parameters",
  "products",
  "flows",
  "impacts",
  "processes",
  "exchanges",
  "factors",
] as const;

type Table = typeof TABLES[number];
type Cell = string | number;
type Row = Record<string, Cell>;

const STANDINGS: Standing[] = ["read", "recalled", "derived", "assumed"];

/** Columns of each kind of distribution; those in brackets may stay empty. */
const SPREAD: Record<Distribution["kind"], string[]> = {
  fixed: [],
  lognormal: ["gsd"],
  pedigree: ["[basic_variance]"],
  normal: ["sd"],
  triangular: ["low", "[mode]", "high"],
  uniform: ["low", "high"],
};

const SPREAD_COLUMNS = ["gsd", "sd", "low", "mode", "high", "basic_variance"];

const QUANTITY = [
  "amount",
  "unit",
  "distribution",
  ...SPREAD_COLUMNS,
  "pedigree",
  "group",
  "loading",
  "source",
  "standing",
  "comment",
];

const COLUMNS: Record<Table, string[]> = {
  parameters: ["name", ...QUANTITY],
  products: ["name", "unit", "mass", "energy", "price", "comment"],
  flows: ["name", "unit", "direction", "compartment", "comment"],
  impacts: ["name", "unit", "comment"],
  processes: ["name", "product", "phase", "location", "comment"],
  exchanges: ["process", "direction", "item", ...QUANTITY],
  factors: ["impact", "flow", ...QUANTITY],
};

/** Columns that a table must have. */
const REQUIRED: Record<Table, string[]> = {
  parameters: ["name", "amount", "unit", "source", "standing"],
  products: ["name", "unit"],
  flows: ["name", "unit", "direction"],
  impacts: ["name", "unit"],
  processes: ["name", "product", "phase"],
  exchanges: [
    "process",
    "direction",
    "item",
    "amount",
    "unit",
    "source",
    "standing",
  ],
  factors: ["impact", "flow", "amount", "unit", "source", "standing"],
};

/** Cells of one row, read one by one; what is wrong is noted. */
class RowReader {
  readonly row: Row;
  readonly place: string;
  readonly problems: Problem[];

  constructor(row: Row, place: string, problems: Problem[]) {
    this.row = row;
    this.place = place;
    this.problems = problems;
  }

  note(column: string, message: string): void {
    this.problems.push({ place: this.place, column, message });
  }

  text(column: string): string {
    return String(this.row[column] ?? "").trim();
  }

  required(column: string): string {
    const text = this.text(column);
    if (text === "") this.note(column, "a value, given none");
    return text;
  }

  /** Texts that stand only where given. */
  optional<Name extends string>(...columns: Name[]): { [N in Name]?: string } {
    const found: { [N in Name]?: string } = {};
    for (const column of columns) {
      const text = this.text(column);
      if (text !== "") found[column] = text;
    }
    return found;
  }

  choice<Value extends string>(column: string, values: Value[]): Value {
    const text = this.required(column);
    if (text !== "" && !values.includes(text as Value)) {
      this.note(column, `one of ${values.join(", ")}, given "${text}"`);
    }
    return text as Value;
  }

  number(column: string): number {
    const text = this.text(column);
    const value = text === "" ? NaN : Number(text);
    if (!Number.isFinite(value)) {
      this.note(column, `a finite number, given "${text}"`);
    }
    return value;
  }

  distribution(): Distribution {
    const kind = this.text("distribution") || "fixed";
    if (!Object.hasOwn(SPREAD, kind)) {
      this.note(
        "distribution",
        `one of ${Object.keys(SPREAD).join(", ")}, given "${kind}"`,
      );
      return { kind: "fixed" };
    }
    const wanted = SPREAD[kind as Distribution["kind"]];
    const result: Record<string, number | string> = { kind };
    for (const column of SPREAD_COLUMNS) {
      const given = this.text(column) !== "";
      if (
        wanted.includes(column) || (wanted.includes(`[${column}]`) && given)
      ) {
        result[column === "basic_variance" ? "basicVariance" : column] = this
          .number(column);
      } else if (given && !wanted.includes(`[${column}]`)) {
        this.note(column, `nothing, as the distribution is ${kind}`);
      }
    }
    return result as unknown as Distribution;
  }

  quantity(): Quantity {
    const amount = this.required("amount");
    const value = Number(amount);
    const isNumber = amount !== "" && !Number.isNaN(value);
    if (/^[-+]?(nan|inf(inity)?)$/i.test(amount)) {
      this.note("amount", `a finite number or a formula, given "${amount}"`);
    } else if (/^[-+]?\d+,\d+(e[-+]?\d+)?$/i.test(amount)) {
      this.note("amount", `a point before the decimals, given "${amount}"`);
    }
    const pedigree = this.text("pedigree");
    return {
      amount: isNumber ? value : amount,
      unit: this.text("unit"),
      distribution: this.distribution(),
      ...(pedigree === "" ? {} : {
        pedigree: pedigree.replace(/[()[\]]/g, "").split(/[;,\s]+/)
          .map(Number) as Pedigree,
      }),
      ...this.optional("group"),
      ...(this.text("loading") === ""
        ? {}
        : { loading: this.number("loading") }),
      source: this.required("source"),
      standing: this.choice("standing", STANDINGS),
      ...this.optional("comment"),
    };
  }
}

const READERS: { [T in Table]: (r: RowReader) => Inventory[T][number] } = {
  parameters: (r) => ({ name: r.required("name"), ...r.quantity() }),
  products: (r) => {
    const product: Product = {
      name: r.required("name"),
      unit: r.text("unit"),
      ...r.optional("comment"),
    };
    for (const column of ["mass", "energy", "price"] as const) {
      if (r.text(column) !== "") product[column] = r.number(column);
    }
    return product;
  },
  flows: (r) => ({
    name: r.required("name"),
    unit: r.text("unit"),
    direction: r.choice("direction", ["emission", "resource"]),
    ...r.optional("compartment", "comment"),
  }),
  impacts: (r) => ({
    name: r.required("name"),
    unit: r.text("unit"),
    ...r.optional("comment"),
  }),
  processes: (r) => ({
    name: r.required("name"),
    product: r.required("product"),
    phase: r.required("phase"),
    ...r.optional("location", "comment"),
  }),
  exchanges: (r) => ({
    process: r.required("process"),
    direction: r.choice("direction", ["input", "output"]),
    item: r.required("item"),
    ...r.quantity(),
  }),
  factors: (r) => ({
    impact: r.required("impact"),
    flow: r.required("flow"),
    ...r.quantity(),
  }),
};

// Files -------------------------------------------------------------------------------------------

interface PlacedRow {
  row: Row;
  place: string;
}

/** Rows of a CSV file, by column; each with its place in the file. */
function csvRows(
  file: string,
  table: Table,
  text: string,
  problems: Problem[],
): PlacedRow[] {
  // Before parsing, as quotes inside a row of semicolons stop the parser.
  const [header] = text.split(/\r?\n/, 1);
  const separator = header.includes(",")
    ? undefined
    : /[;\t]/.exec(header)?.[0];
  if (separator !== undefined) {
    problems.push({
      place: `${file}, row 1`,
      column: "-",
      message: `columns are separated by commas, given ${
        separator === ";" ? "semicolons" : "tabs"
      }; save it again as CSV with commas`,
    });
    return [];
  }
  let records: { record: string[]; info: { lines: number } }[];
  try {
    records = parse(text, {
      bom: true,
      info: true,
      relax_column_count: true,
    }) as unknown as typeof records;
  } catch (error) {
    const { message } = error as Error;
    problems.push({ place: file, column: "-", message });
    return [];
  }
  const [head, ...body] = records;
  if (head === undefined) return [];
  const columns = head.record.map((column) => column.trim());
  const note = (place: string, column: string, message: string) =>
    problems.push({ place, column, message });
  columns.forEach((column, i) => {
    if (!COLUMNS[table].includes(column)) {
      note(
        `${file}, row 1`,
        column,
        `one of ${COLUMNS[table].join(", ")}, given "${column}"`,
      );
    } else if (columns.indexOf(column) < i) {
      note(`${file}, row 1`, column, "the column stands twice");
    }
  });
  for (const column of REQUIRED[table]) {
    if (!columns.includes(column)) {
      note(`${file}, row 1`, column, "the column is missing");
    }
  }
  return body.flatMap(({ record, info }) => {
    if (record.every((cell) => cell.trim() === "")) return [];
    const place = `${file}, row ${info.lines}`;
    if (record.length !== columns.length) {
      note(
        place,
        "-",
        `${columns.length} cells as in the first row, given ${record.length}`,
      );
      return [];
    }
    const row = Object.fromEntries(columns.map((c, i) => [c, record[i]]));
    return [{ row, place }];
  });
}

/** A row of JSON as flat cells: distribution and pedigree become columns. */
function flatRow(
  item: unknown,
  table: Table,
  place: string,
  problems: Problem[],
): PlacedRow[] {
  const note = (column: string, message: string) =>
    problems.push({ place, column, message });
  if (typeof item !== "object" || item === null || Array.isArray(item)) {
    note("-", `an object, given ${JSON.stringify(item)}`);
    return [];
  }
  const { distribution, pedigree, ...rest } = item as Record<string, unknown>;
  const flat: Record<string, unknown> = { ...rest };
  if (Array.isArray(pedigree)) flat.pedigree = pedigree.join(";");
  else if (pedigree !== undefined) flat.pedigree = pedigree;
  if (typeof distribution === "object" && distribution !== null) {
    const { kind, basicVariance, ...numbers } = distribution as Record<
      string,
      unknown
    >;
    Object.assign(flat, numbers, { distribution: kind ?? "" });
    if (basicVariance !== undefined) flat.basic_variance = basicVariance;
  } else if (distribution !== undefined) flat.distribution = distribution;
  const row: Row = {};
  for (const [column, value] of Object.entries(flat)) {
    if (!COLUMNS[table].includes(column)) {
      note(column, `one of ${COLUMNS[table].join(", ")}, given "${column}"`);
    } else if (typeof value === "string" || typeof value === "number") {
      row[column] = value;
    } else {
      note(column, `a text or a number, given ${JSON.stringify(value)}`);
    }
  }
  return [{ row, place }];
}

/** Rows of all tables of a JSON file. */
function jsonTables(
  file: string,
  text: string,
  problems: Problem[],
): { tables: Map<Table, PlacedRow[]>; name?: string; comment?: string } {
  const tables = new Map<Table, PlacedRow[]>();
  let data: Record<string, unknown>;
  try {
    data = JSON.parse(text);
    if (typeof data !== "object" || data === null || Array.isArray(data)) {
      throw new SyntaxError("an object is required");
    }
  } catch (error) {
    problems.push({
      place: file,
      column: "-",
      message: `JSON, given what cannot be parsed: ${(error as Error).message}`,
    });
    return { tables };
  }
  const { name, comment, ...rest } = data;
  for (const [table, rows] of Object.entries(rest)) {
    if (!TABLES.includes(table as Table) || !Array.isArray(rows)) {
      problems.push({
        place: file,
        column: table,
        message: `tables are lists called ${TABLES.join(", ")}`,
      });
      continue;
    }
    tables.set(
      table as Table,
      rows.flatMap((row, i) =>
        flatRow(row, table as Table, `${file}, ${table}[${i}]`, problems)
      ),
    );
  }
  return {
    tables,
    ...(typeof name === "string" ? { name } : {}),
    ...(typeof comment === "string" ? { comment } : {}),
  };
}

export interface ReadOptions {
  /** Name of the inventory; default that of the folder or file. */
  name?: string;
  comment?: string;
  /** Functions that formulas may call. */
  functions?: FormulaFunctions;
}

/**
 * The inventory that texts hold: either one `*.json`, or the tables as `<table>.csv`.
 *
 * A missing table is an empty one; another CSV file is refused, so that a misspelt table is not lost.
 *
 * @param files contents by file name
 * @throws RangeError naming file, row and column of everything that cannot be used
 */
export function readInventory(
  files: Record<string, string>,
  { name, comment, functions = {} }: ReadOptions = {},
): Inventory {
  const problems: Problem[] = [];
  const places: Places = new WeakMap();
  const tables = new Map<Table, PlacedRow[]>();
  let title = name;
  let remark = comment;
  const used = Object.entries(files).filter(([f]) => /\.(csv|json)$/.test(f));
  const json = used.filter(([file]) => file.endsWith(".json"));
  if (used.length === 0 || (json.length > 0 && used.length > 1)) {
    throw new RangeError(
      `Cannot read an inventory as one JSON file or CSV files are required: ${
        Object.keys(files).join(", ") || "no files"
      }`,
    );
  }
  for (const [file, text] of used) {
    const table = file.replace(/\.csv$/, "") as Table;
    if (file.endsWith(".json")) {
      const read = jsonTables(file, text, problems);
      for (const [key, rows] of read.tables) tables.set(key, rows);
      title ??= read.name;
      remark ??= read.comment;
    } else if (TABLES.includes(table)) {
      tables.set(table, csvRows(file, table, text, problems));
    } else {
      problems.push({
        place: file,
        column: "-",
        message: `tables are called ${TABLES.join(", ")}`,
      });
    }
  }
  const read = <T extends Table>(table: T): Inventory[T] =>
    (tables.get(table) ?? []).map(({ row, place }) => {
      const item = READERS[table](new RowReader(row, place, problems));
      places.set(item, place);
      return item;
    }) as Inventory[T];
  const inventory: Inventory = {
    name: title ?? "inventory",
    ...(remark === undefined ? {} : { comment: remark }),
    parameters: read("parameters"),
    products: read("products"),
    flows: read("flows"),
    impacts: read("impacts"),
    processes: read("processes"),
    exchanges: read("exchanges"),
    factors: read("factors"),
  };
  // Names and units of rows that could not be read would only be said to be wrong again.
  refuse(inventory.name, problems);
  refuse(inventory.name, checkInventory(inventory, functions, places));
  return inventory;
}

/**
 * The inventory of a folder of CSV files or of one JSON file, checked.
 *
 * @throws RangeError naming file, row and column of everything that cannot be used
 */
export function loadInventory(
  path: string,
  options: ReadOptions = {},
): Inventory {
  const isFolder = statSync(path).isDirectory();
  const names = isFolder
    ? readdirSync(path).filter((file) => file.endsWith(".csv")).sort()
    : [basename(path)];
  const files = Object.fromEntries(names.map((file) => [
    file,
    readFileSync(isFolder ? join(path, file) : path, "utf8"),
  ]));
  const name = isFolder ? basename(path) : undefined;
  return readInventory(files, { ...(name ? { name } : {}), ...options });
}

/** A cell as RFC 4180 wants it. */
function quoted(cell: string): string {
  return /[",\r\n]|^\s|\s$/.test(cell)
    ? `"${cell.replaceAll('"', '""')}"`
    : cell;
}

/** One row as flat cells, by column. */
function cellsOf(item: object): Record<string, string> {
  const { distribution, pedigree, ...rest } = item as Partial<Quantity>;
  const { kind, basicVariance, ...numbers } = {
    basicVariance: undefined,
    kind: undefined,
    ...distribution,
  };
  const all = {
    ...rest,
    distribution: kind === "fixed" ? undefined : kind,
    basic_variance: basicVariance,
    ...numbers,
    pedigree: pedigree?.join(";"),
  };
  return Object.fromEntries(
    Object.entries(all).filter(([, value]) => value !== undefined)
      .map(([column, value]) => [column, String(value)]),
  );
}

/** The tables as CSV texts by file name, only columns that are used; `readInventory` reads them back. */
export function inventoryFiles(inventory: Inventory): Record<string, string> {
  return Object.fromEntries(TABLES.map((table) => {
    const rows = inventory[table].map(cellsOf);
    const columns = COLUMNS[table].filter((column) =>
      REQUIRED[table].includes(column) || rows.some((row) => column in row)
    );
    const lines = [
      columns,
      ...rows.map((row) => columns.map((c) => row[c] ?? "")),
    ];
    return [
      `${table}.csv`,
      lines.map((cells) => cells.map(quoted).join(",") + "\n").join(""),
    ];
  }));
}
