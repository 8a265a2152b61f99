/**
 * Tables: rows of plain objects, statistics that know what a missing value is, and four ways to
 * print them. The only file that names danfo.
 *
 * Why statistics of our own: danfo 1.2's `describe`, `groupby` and counts are wrong as soon as a
 * column holds NaN. Here a missing value is NaN, null or undefined; it is left out, and counted.
 *
 * | symbol | identifier | meaning |
 * | ------ | ---------- | ------- |
 * | n      | `n`        | values present |
 * | m      | `mean`     | arithmetic mean, Neumaier summation |
 * | s      | `sd`       | sample standard deviation, divisor n - 1 |
 * | h      | `halfWidth`| half the width of the confidence interval of the mean, Student's t |
 *
 * Scope: small tables that people read (results, verdicts); not a data-frame library. For more,
 * `toDataFrame` hands the rows to danfo.
 */
import { createRequire } from "node:module";
import type { DataFrame } from "danfojs-node";
import type { ResultTable } from "./runs.ts";
import { tQuantile } from "./stats.ts";

/** A mean with the half-width of its interval: printed as `0.512 ± 0.013`. */
export interface Interval {
  mean: number;
  /** NaN where a single value gives no interval. */
  halfWidth: number;
  n: number;
}

/** What a cell may hold. NaN and null are missing values and print as an en dash. */
export type Cell = string | number | boolean | null | Interval;

/** One row: column name -> cell. */
export type Row = Record<string, Cell>;

export interface Column {
  /** Key in the rows. */
  name: string;
  /** Heading; default: the name. */
  label?: string;
  /** Unit, shown in the heading in brackets. */
  unit?: string;
  /** Significant digits of numbers, 1..17; default 4. Intervals follow their half-width. */
  digits?: number;
  /** Default: right for columns of numbers, left otherwise. */
  align?: "left" | "right";
}

/** A table with its heading and remarks; plain JSON. */
export interface Table {
  /** Short, unique within a paper: "gain-over-lora". */
  id: string;
  title: string;
  /** One or two sentences below the title. */
  caption?: string;
  columns: Column[];
  rows: Row[];
  /** Remarks below the table. */
  notes?: string[];
}

export interface TableOptions {
  id?: string;
  title?: string;
  caption?: string;
  /** Names or descriptions, in order; default: every key of the rows, in order of appearance. */
  columns?: (string | Column)[];
  notes?: string[];
}

const MISSING = "–";

function isInterval(cell: unknown): cell is Interval {
  return typeof cell === "object" && cell !== null && "halfWidth" in cell;
}

/** The number that a cell stands for, NaN if it is missing or no number. */
function numeric(cell: Cell | undefined): number {
  if (typeof cell === "number") return cell;
  return isInterval(cell) ? cell.mean : NaN;
}

function knownColumns(rows: Row[]): string[] {
  const names = new Set<string>();
  for (const row of rows) for (const name of Object.keys(row)) names.add(name);
  return [...names];
}

function requireColumn(rows: Row[], name: string): void {
  const known = knownColumns(rows);
  if (rows.length > 0 && !known.includes(name)) {
    throw new RangeError(
      `Cannot find the column "${name}": the rows have ${known.join(", ")}`,
    );
  }
}

/**
 * A table of these rows.
 *
 * @param rows Plain objects; a key that a row lacks is a missing value.
 * @throws RangeError if a column is named that no row has.
 *
 * @example
 * ```ts
 * const t = table([{ rank: 8, loss: 2.25 }, { rank: 16, loss: NaN }]);
 * toCsv(t); // "rank,loss\n8,2.25\n16,\n"
 * ```
 */
export function table(
  rows: Row[],
  { id = "table", title = "", caption, columns, notes }: TableOptions = {},
): Table {
  const chosen = (columns ?? knownColumns(rows)).map((column) =>
    typeof column === "string" ? { name: column } : column
  );
  for (const { name } of chosen) requireColumn(rows, name);
  return {
    id,
    title,
    ...(caption === undefined ? {} : { caption }),
    columns: chosen,
    rows,
    ...(notes === undefined ? {} : { notes }),
  };
}

/** A table whose rows are lists, as experiments return them, as a table of objects. */
export function fromResult(result: ResultTable): Table {
  const { id, title, caption, columns, rows } = result;
  const objects = rows.map((cells) =>
    Object.fromEntries(columns.map((name, i) => [name, cells[i] ?? null]))
  );
  return table(objects, { id, title, caption, columns });
}

// Statistics

/** Sum with Neumaier's compensation, so that the order of rows hardly matters. */
function sum(values: ArrayLike<number>): number {
  let total = 0;
  let compensation = 0;
  for (let i = 0; i < values.length; i++) {
    const x = values[i];
    const next = total + x;
    compensation += Math.abs(total) >= Math.abs(x)
      ? (total - next) + x
      : (x - next) + total;
    total = next;
  }
  // An infinite total makes the compensation NaN.
  return Number.isFinite(total) ? total + compensation : total;
}

/** The values that are present: neither NaN nor null nor undefined. */
function present(values: Iterable<number | null | undefined>): number[] {
  const out: number[] = [];
  for (const value of values) {
    if (value !== null && value !== undefined && !Number.isNaN(value)) {
      out.push(value);
    }
  }
  return out;
}

/**
 * Quantile of sorted values by linear interpolation between closest ranks (type 7 of Hyndman and
 * Fan 1996, the default of R and NumPy).
 */
function quantileSorted(sorted: number[], p: number): number {
  if (sorted.length === 0) return NaN;
  const position = p * (sorted.length - 1);
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  const fraction = position - low;
  return fraction === 0
    ? sorted[low]
    : sorted[low] + fraction * (sorted[high] - sorted[low]);
}

export interface Description {
  /** Values present. */
  n: number;
  /** Values missing. */
  missing: number;
  mean: number;
  /** Sample standard deviation; NaN if n < 2. */
  sd: number;
  min: number;
  q25: number;
  median: number;
  q75: number;
  max: number;
}

/**
 * Count, mean, standard deviation and quartiles of the values that are present.
 *
 * @example
 * ```ts
 * describe([1, 2, NaN, 3]).mean; // 2
 * ```
 */
export function describe(
  values: ArrayLike<number | null | undefined>,
): Description {
  const all = Array.from(values);
  const sorted = present(all).sort((a, b) => a - b);
  const n = sorted.length;
  const mean = n === 0 ? NaN : sum(sorted) / n;
  const squares = sorted.map((x) => (x - mean) ** 2);
  return {
    n,
    missing: all.length - n,
    mean,
    sd: n < 2 ? NaN : Math.sqrt(sum(squares) / (n - 1)),
    min: n === 0 ? NaN : sorted[0],
    q25: quantileSorted(sorted, 0.25),
    median: quantileSorted(sorted, 0.5),
    q75: quantileSorted(sorted, 0.75),
    max: n === 0 ? NaN : sorted[n - 1],
  };
}

/** The numbers of one column; cells that hold text or nothing are NaN. */
export function columnValues(rows: Row[], name: string): number[] {
  requireColumn(rows, name);
  return rows.map((row) => numeric(row[name]));
}

/** How a group's values become one cell. */
export type Statistic =
  | "n"
  | "missing"
  | "mean"
  | "sd"
  | "min"
  | "q25"
  | "median"
  | "q75"
  | "max"
  | "sum"
  | "interval";

/**
 * One row per distinct combination of the key columns, in order of first appearance.
 *
 * @param keys Names of the columns that define a group. A missing key is a group of its own.
 * @param cells New column -> [source column, statistic].
 *
 * @example
 * ```ts
 * const rows = [{ m: "LoRA", y: 1 }, { m: "LoRA", y: NaN }, { m: "RoRA", y: 4 }];
 * groupBy(rows, ["m"], { y: ["y", "mean"], n: ["y", "n"] });
 * // [{ m: "LoRA", y: 1, n: 1 }, { m: "RoRA", y: 4, n: 1 }]
 * ```
 */
export function groupBy(
  rows: Row[],
  keys: string[],
  cells: Record<string, [column: string, statistic: Statistic]>,
): Row[] {
  for (const key of keys) requireColumn(rows, key);
  for (const [column] of Object.values(cells)) requireColumn(rows, column);
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const id = JSON.stringify(keys.map((key) => row[key] ?? null));
    const group = groups.get(id);
    if (group === undefined) groups.set(id, [row]);
    else group.push(row);
  }
  return [...groups.values()].map((group) => {
    const out: Row = {};
    for (const key of keys) out[key] = group[0][key] ?? null;
    for (const [name, [column, statistic]] of Object.entries(cells)) {
      const values = group.map((row) => numeric(row[column]));
      if (statistic === "interval") out[name] = meanInterval(values);
      else if (statistic === "sum") out[name] = sum(present(values));
      else out[name] = describe(values)[statistic];
    }
    return out;
  });
}

/**
 * Mean of the values present and the half-width of its confidence interval.
 *
 *     h = t(confidence, n - 1) * s / sqrt(n)
 *
 * @param confidence In (0, 1), default 0.95 (our choice).
 */
export function meanInterval(
  values: ArrayLike<number | null | undefined>,
  { confidence = 0.95 }: { confidence?: number } = {},
): Interval {
  const { n, mean, sd } = describe(values);
  const halfWidth = n < 2
    ? NaN
    : tQuantile(confidence, n - 1) * sd / Math.sqrt(n);
  return { mean, halfWidth, n };
}

// Printing

/** Decimal places that show `digits` significant digits of x. */
function decimals(x: number, digits: number): number {
  if (x === 0) return 0;
  const exponent = Math.floor(Math.log10(Math.abs(x)));
  return Math.max(0, Math.min(20, digits - 1 - exponent));
}

/**
 * A number for people: `digits` significant digits, no trailing zeros, a real minus sign, a power of
 * ten only outside 1e-4 .. 1e7; whole numbers in that range in full.
 *
 * @example
 * ```ts
 * formatNumber(0.123456); // "0.1235"
 * formatNumber(-12); // "−12"
 * ```
 */
export function formatNumber(
  x: number,
  { digits = 4 }: { digits?: number } = {},
): string {
  if (Number.isNaN(x)) return MISSING;
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  let text: string;
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) {
    const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
    text = `${trimZeros(mantissa)}e${exponent.replace("+", "")}`;
  } else if (Number.isInteger(x)) {
    text = String(size);
  } else {
    text = trimZeros(size.toFixed(decimals(size, digits)));
  }
  return x < 0 && /[1-9]/.test(text) ? `−${text}` : text;
}

function trimZeros(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/**
 * A mean with its half-width: the half-width to two significant digits, the mean to the same place.
 *
 * @example
 * ```ts
 * formatInterval({ mean: 0.51234, halfWidth: 0.0131, n: 3 }); // "0.512 ± 0.013"
 * ```
 */
export function formatInterval({ mean, halfWidth }: Interval): string {
  if (!Number.isFinite(mean) || !(halfWidth > 0) || halfWidth === Infinity) {
    return formatNumber(mean);
  }
  const size = Math.max(Math.abs(mean), halfWidth);
  if (size < 1e-4 || size >= 1e7) {
    return `${formatNumber(mean)} ± ${formatNumber(halfWidth, { digits: 2 })}`;
  }
  // No more than six decimals: beyond that nobody reads them.
  const places = Math.min(6, decimals(halfWidth, 2));
  const sign = mean < 0 && Number(mean.toFixed(places)) !== 0 ? "−" : "";
  return `${sign}${Math.abs(mean).toFixed(places)} ± ${
    halfWidth.toFixed(places)
  }`;
}

/** The text of a cell. */
export function formatCell(
  cell: Cell | undefined,
  { digits = 4 }: { digits?: number } = {},
): string {
  if (cell === null || cell === undefined) return MISSING;
  if (typeof cell === "number") return formatNumber(cell, { digits });
  if (typeof cell === "boolean") return cell ? "yes" : "no";
  if (isInterval(cell)) return formatInterval(cell);
  return cell;
}

function heading({ name, label, unit }: Column): string {
  return unit === undefined ? label ?? name : `${label ?? name} (${unit})`;
}

function alignment(rows: Row[], { name, align }: Column): "left" | "right" {
  if (align !== undefined) return align;
  const cells = rows.map((row) => row[name]).filter((cell) =>
    cell !== null && cell !== undefined
  );
  const numbers = cells.every((cell) =>
    typeof cell === "number" || isInterval(cell)
  );
  return cells.length > 0 && numbers ? "right" : "left";
}

/** Columns that a character takes in a terminal: 0 for marks, 2 for wide ones, else 1. */
function characterWidth(character: string): number {
  if (/\p{M}|\p{Cf}/u.test(character)) return 0;
  const wide =
    /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Extended_Pictographic}\uff01-\uff60\u3000-\u303f]/u;
  return wide.test(character) && character > "\u00ff" ? 2 : 1;
}

/** Columns that a text takes in a terminal. */
export function textWidth(text: string): number {
  let width = 0;
  for (const character of text) width += characterWidth(character);
  return width;
}

/** Control characters would break the lines of a table: shown as spaces. */
function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ");
}

/** Lines of at most `width` columns, broken at spaces where there are any. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (let word of oneLine(text).split(" ")) {
    if (line !== "" && textWidth(`${line} ${word}`) > width) {
      lines.push(line);
      line = "";
    }
    while (textWidth(word) > width) {
      let head = "";
      for (const character of word) {
        if (textWidth(head + character) > width) break;
        head += character;
      }
      if (head === "") break; // one character wider than the column
      lines.push(head);
      word = word.slice(head.length);
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines;
}

/**
 * Column widths that fit `width`: the widest columns are narrowed first, none below its longest word
 * as long as the others can give, and none below 8.
 */
function fitWidths(
  natural: number[],
  words: number[],
  width: number,
): number[] {
  const widths = [...natural];
  const separators = 2 * (widths.length - 1);
  let excess = widths.reduce((a, b) => a + b, separators) - width;
  const whole = words.map((word) => Math.max(8, Math.min(word, 24)));
  for (const least of [whole, words.map(() => 8)]) {
    while (excess > 0) {
      const room = widths.map((w, i) => w > least[i] ? w : 0);
      const widest = room.indexOf(Math.max(...room));
      if (room[widest] === 0) break;
      widths[widest]--;
      excess--;
    }
  }
  return widths;
}

/** Columns that the longest word takes. */
function longestWord(texts: string[]): number {
  return Math.max(
    0,
    ...texts.flatMap((text) => text.split(" ").map(textWidth)),
  );
}

/**
 * The table as aligned text, at most `width` columns wide where its cells can be wrapped.
 *
 * @param width Columns of the terminal, default 100.
 */
export function toText(
  { title, caption, columns, rows, notes }: Table,
  { width = 100 }: { width?: number } = {},
): string {
  const cells = rows.map((row) =>
    columns.map((column) => oneLine(formatCell(row[column.name], column)))
  );
  const headings = columns.map((column) => oneLine(heading(column)));
  const natural = headings.map((text, i) =>
    Math.max(textWidth(text), ...cells.map((row) => textWidth(row[i])))
  );
  const words = headings.map((text, i) =>
    longestWord([text, ...cells.map((row) => row[i])])
  );
  const widths = fitWidths(natural, words, width);
  const sides = columns.map((column) => alignment(rows, column));
  const render = (row: string[]) => {
    const wrapped = row.map((text, i) => wrap(text, widths[i]));
    const height = Math.max(...wrapped.map((lines) => lines.length));
    return Array.from(
      { length: height },
      (_, line) =>
        wrapped.map((lines, i) => {
          const text = lines[line] ?? "";
          const padding = " ".repeat(Math.max(0, widths[i] - textWidth(text)));
          return sides[i] === "right" ? padding + text : text + padding;
        }).join("  ").trimEnd(),
    );
  };
  const out: string[] = [];
  if (title !== "") out.push(...wrap(title, width));
  if (caption !== undefined) out.push(...wrap(caption, width));
  if (out.length > 0) out.push("");
  if (columns.length > 0) {
    out.push(
      ...render(headings),
      widths.map((w) => "─".repeat(w)).join("  "),
      ...cells.flatMap(render),
    );
  }
  if (notes !== undefined && notes.length > 0) {
    out.push("", ...notes.flatMap((note) => wrap(note, width)));
  }
  return out.join("\n");
}

/** Text made safe for HTML, in elements and in quoted attributes. */
export function escapeHtml(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character]);
}

/** The table as an HTML fragment; every text is escaped. */
export function toHtml(
  { title, caption, columns, rows, notes }: Table,
): string {
  const sides = columns.map((column) => alignment(rows, column));
  const open = (tag: string, i: number, scope: string) =>
    `<${tag}${scope === "" ? "" : ` scope="${scope}"`}${
      sides[i] === "right" ? ' align="right"' : ' align="left"'
    }>`;
  const lines = ["<table>"];
  if (title !== "" || caption !== undefined) {
    const strong = title === "" ? "" : `<strong>${escapeHtml(title)}</strong>`;
    const text = caption === undefined ? "" : escapeHtml(caption);
    lines.push(
      `<caption>${[strong, text].filter(Boolean).join(" ")}</caption>`,
    );
  }
  lines.push("<thead>", "<tr>");
  columns.forEach((column, i) => {
    lines.push(`${open("th", i, "col")}${escapeHtml(heading(column))}</th>`);
  });
  lines.push("</tr>", "</thead>", "<tbody>");
  for (const row of rows) {
    lines.push("<tr>");
    columns.forEach((column, i) => {
      const text = escapeHtml(formatCell(row[column.name], column));
      lines.push(`${open("td", i, "")}${text}</td>`);
    });
    lines.push("</tr>");
  }
  lines.push("</tbody>", "</table>");
  for (const note of notes ?? []) {
    lines.push(`<p><small>${escapeHtml(note)}</small></p>`);
  }
  return lines.join("\n");
}

/** The table in GitHub's Markdown; bars and angle brackets are escaped. */
export function toMarkdown(
  { title, caption, columns, rows, notes }: Table,
): string {
  const escape = (text: string) =>
    oneLine(text).replace(
      /[\\|`*_[\]<>]/g,
      (c) => c === "<" ? "&lt;" : c === ">" ? "&gt;" : `\\${c}`,
    );
  const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
  const out: string[] = [];
  if (title !== "") out.push(`**${escape(title)}**`, "");
  if (caption !== undefined) out.push(escape(caption), "");
  out.push(
    line(columns.map((column) => escape(heading(column)))),
    line(
      columns.map((column) =>
        alignment(rows, column) === "right" ? "---:" : "---"
      ),
    ),
    ...rows.map((row) =>
      line(
        columns.map((column) => escape(formatCell(row[column.name], column))),
      )
    ),
  );
  for (const note of notes ?? []) out.push("", escape(note));
  return out.join("\n");
}

/**
 * The table as RFC 4180 text with full-precision numbers; a missing value is an empty field, an
 * interval two columns, `name` and `name_half_width`. Units are part of the headings.
 */
export function toCsv({ columns, rows }: Table): string {
  const quote = (text: string) =>
    /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const number = (x: number) => Number.isNaN(x) ? "" : String(x);
  const wide = new Set(
    columns.filter(({ name }) => rows.some((row) => isInterval(row[name]))),
  );
  const header = columns.flatMap((column) => {
    const { name, unit } = column;
    const text = unit === undefined ? name : `${name} (${unit})`;
    return wide.has(column) ? [text, `${name}_half_width`] : [text];
  });
  const lines = rows.map((row) =>
    columns.flatMap((column) => {
      const cell = row[column.name] ?? null;
      const half = isInterval(cell) ? number(cell.halfWidth) : "";
      const text = cell === null
        ? ""
        : typeof cell === "number" || isInterval(cell)
        ? number(numeric(cell))
        : String(cell);
      return wide.has(column) ? [text, half] : [text];
    })
  );
  return [header, ...lines].map((fields) => fields.map(quote).join(",") + "\n")
    .join("");
}

// danfo

/** danfo, loaded on first use: it takes a second and most programs never need it. */
function danfo(): typeof import("danfojs-node") {
  return createRequire(import.meta.url)("danfojs-node");
}

/**
 * The rows as a danfo data frame, for its selections, joins and plots.
 *
 * An interval becomes its mean, a missing value NaN. danfo's own statistics are wrong where NaN
 * occurs: compute those with `describe` and `groupBy` first.
 */
export function toDataFrame({ columns, rows }: Table): DataFrame {
  const names = columns.map(({ name }) => name);
  const data = rows.map((row) =>
    names.map((name) => {
      const cell = row[name] ?? NaN;
      return isInterval(cell) ? cell.mean : cell;
    })
  );
  const { DataFrame } = danfo();
  return new DataFrame(data, { columns: names });
}

/** The rows of a danfo data frame; undefined becomes null. */
export function fromDataFrame(frame: DataFrame): Row[] {
  const names = frame.columns;
  return (frame.values as (Cell | undefined)[][]).map((values) =>
    Object.fromEntries(names.map((name, i) => [name, values[i] ?? null]))
  );
}
