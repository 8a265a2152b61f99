/**
 * Figures: functions that take rows and return plain plotly specifications. With svg.ts, the only
 * file that names plotly; nothing here loads it.
 *
 * A specification is data: a notebook shows it, the site makes it interactive, a test compares it,
 * `toSvg` draws it without a browser. One look for all: white ground, few lines, the colours of
 * Okabe and Ito ("Color Universal Design", 2008), which stay apart for colour-blind readers, and a
 * marker shape of its own for every series, so that colour is never the only difference. What was
 * measured here is filled, what a paper says is hollow.
 *
 * Scope: lines with error bars or bands, bars, scatter plots with fitted lines, heatmaps, paper
 * against measured, and grids of these. Two-dimensional, a few thousand points.
 */
import type { FigureSpec } from "./runs.ts";
import { FONT_FAMILY, textEms } from "./svg.ts";
import type { Cell, Row } from "./table.ts";

export type { FigureSpec };
export { toSvg } from "./svg.ts";

/** Okabe and Ito's colours without the yellow, which is too pale on white. */
export const PALETTE = [
  "#0072B2",
  "#D55E00",
  "#009E73",
  "#CC79A7",
  "#E69F00",
  "#56B4E9",
  "#444444",
] as const;

const SYMBOLS = [
  "circle",
  "square",
  "diamond",
  "triangle-up",
  "triangle-down",
  "cross",
  "x",
] as const;

const DASHES = ["solid", "solid", "solid", "solid", "dash", "dash", "dot"];

/** Pixels; the page scales figures down, so the text must be large enough at half the width. */
const WIDTH = 720;
const HEIGHT = 440;
const FONT_SIZE = 14;
const TITLE_SIZE = 17;
const MARGIN = { left: 76, right: 24, bottom: 64 };

const TEXT = "#222222";
const GRID = "#e6e6e6";
const LINE = "#666666";

export interface AxisOptions {
  /** What the axis shows: "validation loss". */
  title?: string;
  /** Shown in brackets after the title: "nats per token". */
  unit?: string;
  scale?: "linear" | "log";
  /** Ends in data units. */
  range?: [number, number];
  /** Where to write numbers; default: plotly's choice, on a log axis of few values those. */
  ticks?: number[];
}

/** What every figure takes. */
export interface FigureOptions {
  id: string;
  title: string;
  /** One or two sentences: what is seen, from how many runs, what the bars mean. */
  caption?: string;
  /** px, default 720. */
  width?: number;
  /** px, default 440. */
  height?: number;
}

/** Columns of the rows that make a figure with an x and a y axis. */
export interface SeriesOptions extends FigureOptions {
  /** Column of the horizontal axis. */
  x: string;
  /** Column of the vertical axis; cells that are intervals bring their error bars. */
  y: string;
  /** Column whose values are the series; default: one series. */
  series?: string;
  /** Order of the series, so that a method has the same colour in every figure. */
  order?: string[];
  xAxis?: AxisOptions;
  yAxis?: AxisOptions;
}

type Trace = Record<string, unknown>;

function numberOf(cell: Cell | undefined): number | null {
  if (typeof cell === "number") return Number.isFinite(cell) ? cell : null;
  if (typeof cell === "object" && cell !== null) return numberOf(cell.mean);
  return null;
}

function halfWidthOf(cell: Cell | undefined): number {
  const half = typeof cell === "object" && cell !== null ? cell.halfWidth : 0;
  return Number.isFinite(half) ? half : 0;
}

/** Plotly reads a little HTML in its texts: the reader's text must not be taken for it. */
function plain(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}

function requireColumns(rows: Row[], id: string, names: string[]): void {
  for (const name of names) {
    if (rows.length > 0 && !rows.some((row) => name in row)) {
      throw new RangeError(
        `Cannot draw "${id}" as the rows have no column "${name}": they have ${
          Object.keys(rows[0]).join(", ")
        }`,
      );
    }
  }
}

/** Rows by series, in `order` first and then in order of appearance; the index keeps the style. */
function bySeries(
  rows: Row[],
  series: string | undefined,
  order: string[] = [],
): { name: string; index: number; rows: Row[] }[] {
  const groups = new Map<string, Row[]>(order.map((name) => [name, []]));
  for (const row of rows) {
    const name = series === undefined ? "" : String(row[series] ?? "–");
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [row]);
    else group.push(row);
  }
  return [...groups].map(([name, group], index) => ({
    name,
    index,
    rows: group,
  })).filter((group) => group.rows.length > 0);
}

/** Lines of at most `width` px at `size` px a letter. */
function wrapText(text: string, width: number, size: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && textEms(longer) * size > width) {
      lines.push(line);
      line = word;
    } else {
      line = longer;
    }
  }
  return [...lines, line];
}

function axisTitle({ title = "", unit }: AxisOptions): string {
  return plain(unit === undefined ? title : `${title} (${unit})`);
}

/** An exponent in raised digits: markup would need inline styles, which a strict page forbids. */
function raised(exponent: number): string {
  const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const text = [...String(Math.abs(exponent))].map((d) => digits[Number(d)])
    .join("");
  return exponent < 0 ? `⁻${text}` : text;
}

/** A number on an axis: 0.0003 as 3·10⁻⁴, 16 as 16. */
function tickText(x: number): string {
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [mantissa, exponent] = x.toExponential(1).split("e");
    const power = `10${raised(Number(exponent))}`;
    const factor = mantissa.replace(".0", "");
    return factor === "1" ? power : `${factor}·${power}`;
  }
  return String(Number(x.toPrecision(6)));
}

/** Numbers at 1, 2 and 5 times powers of ten where a log axis spans little, else at the powers. */
function logTicks(values: number[]): number[] {
  const low = Math.log10(Math.min(...values));
  const high = Math.log10(Math.max(...values));
  const span = high - low;
  const factors = span > 2.5
    ? [1]
    : span < 0.7
    ? [1, 1.5, 2, 3, 4, 5, 6, 8]
    : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = Math.floor(low) - 1; power <= Math.ceil(high); power++) {
    for (const factor of factors) ticks.push(factor * 10 ** power);
  }
  return ticks;
}

/**
 * An axis for these values. On a log axis the numbers stand at the values themselves if there are few
 * and `at` says so, such as ranks 2, 4, 8.
 */
function axis(
  options: AxisOptions,
  values: number[],
  at: "values" | "round numbers" = "round numbers",
): Trace {
  const { scale = "linear", range } = options;
  const log = scale === "log";
  const distinct = [...new Set(values.filter((x) => !log || x > 0))]
    .sort((a, b) => a - b);
  let ticks = options.ticks;
  if (ticks === undefined && log && distinct.length > 0) {
    ticks = at === "values" && distinct.length <= 9
      ? distinct
      : logTicks(distinct);
  }
  return {
    title: {
      text: axisTitle(options),
      standoff: 12,
      font: { size: FONT_SIZE },
    },
    type: scale,
    automargin: true,
    gridcolor: GRID,
    linecolor: LINE,
    tickcolor: LINE,
    showline: true,
    ticks: "outside",
    ticklen: 5,
    zeroline: false,
    ...(ticks === undefined ? {} : {
      tickmode: "array",
      tickvals: ticks,
      ticktext: ticks.map(tickText),
    }),
    ...(range === undefined ? {} : {
      range: log ? range.map(Math.log10) : range,
      autorange: false,
    }),
  };
}

/** Rows of a horizontal legend, as plotly fills them: entry after entry. */
function legendRows(legend: string[], room: number): number {
  let rows = 1;
  let x = 0;
  for (const text of legend) {
    const entry = 45 + textEms(text) * FONT_SIZE;
    if (x > 0 && x + entry > room) {
      rows++;
      x = 0;
    }
    x += entry;
  }
  return rows;
}

/** Layout with title and legend above the plot, and room for both. */
function layout(
  { title, width = WIDTH, height = HEIGHT }: FigureOptions,
  xaxis: Trace,
  yaxis: Trace,
  legend: string[],
): Record<string, unknown> {
  const room = width - MARGIN.left - MARGIN.right;
  const titleLines = title === ""
    ? []
    : wrapText(title, width - 32, TITLE_SIZE);
  const legendLines = legend.length > 1 ? legendRows(legend, room) : 0;
  const top = 18 + titleLines.length * TITLE_SIZE * 1.3 + legendLines * 29;
  return {
    width,
    height,
    title: {
      text: titleLines.map(plain).join("<br>"),
      x: 0,
      xref: "container",
      xanchor: "left",
      y: 1,
      yref: "container",
      yanchor: "top",
      // Plotly sets a single line below this place, but the first of several on it.
      pad: { l: 16, t: titleLines.length > 1 ? 14 + 0.75 * TITLE_SIZE : 14 },
      font: { size: TITLE_SIZE, color: TEXT },
    },
    font: { family: FONT_FAMILY, size: FONT_SIZE, color: TEXT },
    paper_bgcolor: "#ffffff",
    plot_bgcolor: "#ffffff",
    colorway: [...PALETTE],
    margin: {
      l: MARGIN.left,
      r: MARGIN.right,
      t: Math.round(top + 10),
      b: MARGIN.bottom,
    },
    showlegend: legend.length > 1,
    legend: {
      orientation: "h",
      x: 0,
      xanchor: "left",
      y: 1,
      yanchor: "bottom",
      font: { size: FONT_SIZE },
    },
    hovermode: "closest",
    xaxis,
    yaxis,
  };
}

function spec(
  { id, title, caption = "" }: FigureOptions,
  data: Trace[],
  figureLayout: Record<string, unknown>,
): FigureSpec {
  return { id, title, caption, data, layout: figureLayout };
}

function marker(index: number, kind: "measured" | "paper"): Trace {
  const color = PALETTE[index % PALETTE.length];
  const symbol = SYMBOLS[index % SYMBOLS.length];
  // Triangles of the same size look smaller.
  const size = symbol.startsWith("triangle") ? 11 : 9;
  return kind === "measured" ? { color, symbol, size } : {
    color,
    symbol: `${symbol}-open`,
    size: size + 2,
    line: { width: 2, color },
  };
}

function errorBars(rows: Row[], y: string, color: string): Trace | undefined {
  const array = rows.map((row) => halfWidthOf(row[y]));
  if (array.every((half) => half === 0)) return undefined;
  return {
    type: "data",
    array,
    color,
    thickness: 1.5,
    width: 4,
    visible: true,
  };
}

/** "rgba(0, 114, 178, 0.18)" from "#0072B2". */
function translucent(color: string, alpha: number): string {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

/**
 * Shifts the points of a series sideways by a hundredth of the axis per series, so that error bars at
 * the same x stand side by side. What hovers over a point still tells its own x.
 */
function dodge(
  xs: (number | null)[],
  place: number,
  all: number[],
  log: boolean,
): (number | null)[] {
  const [low, high] = [Math.min(...all), Math.max(...all)];
  if (log) {
    const factor = (high / low) ** (0.01 * place);
    return xs.map((x) => x === null ? null : x * factor);
  }
  return xs.map((x) => x === null ? null : x + (high - low) * 0.01 * place);
}

export interface LineOptions extends SeriesOptions {
  /** How intervals are drawn: bars at the points (default) or a band along the line. */
  spread?: "bars" | "band";
  /** Column that is "paper" for rows that a paper states: drawn hollow, without a line. */
  source?: string;
  /** Series drawn as points or as a line alone, by name; default: both. */
  marks?: Record<string, "points" | "line">;
}

/**
 * One line per series through its points, with error bars or a band where cells are intervals.
 *
 * @param rows One row per point; points are drawn in the order of x.
 */
export function lineFigure(rows: Row[], options: LineOptions): FigureSpec {
  const { x, y, series, order, spread = "bars", source, marks = {} } = options;
  requireColumns(rows, options.id, [x, y]);
  const data: Trace[] = [];
  const names: string[] = [];
  const xValues = rows.map((row) => numberOf(row[x])).filter((v) => v !== null);
  const yValues = rows.map((row) => numberOf(row[y])).filter((v) => v !== null);
  const log = options.xAxis?.scale === "log";
  const groups = bySeries(rows, series, order);
  const dodged = spread === "bars" &&
    groups.filter((group) => errorBars(group.rows, y, "") !== undefined)
        .length > 1;
  for (const [i, { name, index, rows: group }] of groups.entries()) {
    const color = PALETTE[index % PALETTE.length];
    for (const kind of ["measured", "paper"] as const) {
      const points = group.filter((row) =>
        (source !== undefined && row[source] === "paper") === (kind === "paper")
      );
      if (points.length === 0) continue;
      points.sort((a, b) => (numberOf(a[x]) ?? 0) - (numberOf(b[x]) ?? 0));
      const label = kind === "paper" ? `${name} (paper)` : name;
      names.push(label);
      const xs = points.map((row) => numberOf(row[x]));
      const ys = points.map((row) => numberOf(row[y]));
      const bars = errorBars(points, y, color);
      if (spread === "band" && bars !== undefined) {
        const edge = (sign: number) =>
          points.map((row, i) => {
            const centre = ys[i];
            return centre === null ? null : centre + sign * halfWidthOf(row[y]);
          });
        data.push({
          type: "scatter",
          mode: "lines",
          x: [...xs, ...xs.toReversed()],
          y: [...edge(1), ...edge(-1).toReversed()],
          fill: "toself",
          fillcolor: translucent(color, 0.18),
          line: { width: 0, color },
          hoverinfo: "skip",
          showlegend: false,
          legendgroup: label,
        });
      }
      data.push({
        type: "scatter",
        mode: kind === "paper" || marks[name] === "points"
          ? "markers"
          : marks[name] === "line"
          ? "lines"
          : "lines+markers",
        name: plain(label),
        legendgroup: label,
        x: dodged ? dodge(xs, i - (groups.length - 1) / 2, xValues, log) : xs,
        y: ys,
        ...(dodged
          ? { text: xs.map(String), hovertemplate: "%{text}, %{y:.4~g}" }
          : {}),
        marker: marker(index, kind),
        ...(kind === "paper"
          ? {}
          : { line: { color, width: 2, dash: DASHES[index % DASHES.length] } }),
        ...(spread === "bars" && bars !== undefined ? { error_y: bars } : {}),
      });
    }
  }
  return spec(
    options,
    data,
    layout(
      options,
      axis({ title: x, ...options.xAxis }, xValues, "values"),
      axis({ title: y, ...options.yAxis }, yValues),
      names,
    ),
  );
}

export interface ScatterOptions extends SeriesOptions {
  /** Draws y = exp(intercept) x^slope (or a straight line on linear axes) through each series. */
  fits?: Record<string, { slope: number; intercept: number }>;
}

/**
 * Points per series; with `fits`, the least-squares line of each: on two log axes that of the
 * natural logarithms, so its slope is the exponent of the power law.
 */
export function scatterFigure(
  rows: Row[],
  options: ScatterOptions,
): FigureSpec {
  const { x, y, series, order, fits = {} } = options;
  requireColumns(rows, options.id, [x, y]);
  const logLog = options.xAxis?.scale === "log" &&
    options.yAxis?.scale === "log";
  const data: Trace[] = [];
  const names: string[] = [];
  for (const { name, index, rows: group } of bySeries(rows, series, order)) {
    const color = PALETTE[index % PALETTE.length];
    const xs = group.map((row) => numberOf(row[x]));
    const bars = errorBars(group, y, color);
    names.push(name);
    data.push({
      type: "scatter",
      mode: "markers",
      name: plain(name),
      legendgroup: name,
      x: xs,
      y: group.map((row) => numberOf(row[y])),
      marker: marker(index, "measured"),
      ...(bars === undefined ? {} : { error_y: bars }),
    });
    const fit = fits[name];
    if (fit === undefined) continue;
    const known = xs.filter((v) => v !== null);
    const ends = [Math.min(...known), Math.max(...known)];
    data.push({
      type: "scatter",
      mode: "lines",
      legendgroup: name,
      showlegend: false,
      hoverinfo: "skip",
      x: ends,
      y: ends.map((v) =>
        logLog
          ? Math.exp(fit.intercept) * v ** fit.slope
          : fit.intercept + fit.slope * v
      ),
      line: { color, width: 2, dash: "dash" },
    });
  }
  const xValues = rows.map((row) => numberOf(row[x])).filter((v) => v !== null);
  const yValues = rows.map((row) => numberOf(row[y])).filter((v) => v !== null);
  return spec(
    options,
    data,
    layout(
      options,
      axis({ title: x, ...options.xAxis }, xValues, "values"),
      axis({ title: y, ...options.yAxis }, yValues),
      names,
    ),
  );
}

/** Bars per category, side by side where there are several series, with error bars. */
export function barFigure(rows: Row[], options: SeriesOptions): FigureSpec {
  const { x, y, series, order } = options;
  requireColumns(rows, options.id, [x, y]);
  const data: Trace[] = [];
  const names: string[] = [];
  for (const { name, index, rows: group } of bySeries(rows, series, order)) {
    const color = PALETTE[index % PALETTE.length];
    const bars = errorBars(group, y, TEXT);
    names.push(name);
    data.push({
      type: "bar",
      name: plain(name),
      legendgroup: name,
      x: group.map((row) => plain(String(row[x] ?? "–"))),
      y: group.map((row) => numberOf(row[y])),
      marker: { color },
      ...(bars === undefined ? {} : { error_y: bars }),
    });
  }
  const figureLayout = layout(
    options,
    { ...axis({ title: x, ...options.xAxis }, []), type: "category" },
    axis({ title: y, ...options.yAxis }, []),
    names,
  );
  return spec(options, data, { ...figureLayout, bargap: 0.3 });
}

export interface HeatmapOptions extends FigureOptions {
  /** Column of the horizontal categories. */
  x: string;
  /** Column of the vertical categories. */
  y: string;
  /** Column of the numbers. */
  value: string;
  xAxis?: AxisOptions;
  yAxis?: AxisOptions;
  /** What the colour shows. */
  valueAxis?: AxisOptions;
  /** Significant digits of the numbers in the cells, default 3. */
  digits?: number;
}

/** A cell per pair of categories, coloured and labelled with its value; absent pairs stay white. */
export function heatmapFigure(
  rows: Row[],
  options: HeatmapOptions,
): FigureSpec {
  const { x, y, value, digits = 3 } = options;
  requireColumns(rows, options.id, [x, y, value]);
  const categories = (name: string) => [
    ...new Set(rows.map((row) => String(row[name] ?? "–"))),
  ];
  const [xs, ys] = [categories(x), categories(y)];
  const z = ys.map((yName) =>
    xs.map((xName) => {
      const row = rows.find((r) =>
        String(r[x] ?? "–") === xName && String(r[y] ?? "–") === yName
      );
      return numberOf(row?.[value]);
    })
  );
  const category = (options: AxisOptions) => ({
    ...axis(options, []),
    type: "category",
    ticks: "",
    showgrid: false,
  });
  const figureLayout = layout(
    options,
    category({ title: x, ...options.xAxis }),
    { ...category({ title: y, ...options.yAxis }), autorange: "reversed" },
    [],
  );
  return spec(options, [{
    type: "heatmap",
    x: xs.map(plain),
    y: ys.map(plain),
    z,
    text: z.map((line) =>
      line.map((v) => v === null ? "" : String(Number(v.toPrecision(digits))))
    ),
    texttemplate: "%{text}",
    hoverongaps: false,
    // Viridis without its darkest end: equal steps to the eye, readable in grey and colour-blind.
    colorscale: [
      [0, "#414487"],
      [0.33, "#2a788e"],
      [0.66, "#7ad151"],
      [1, "#fde725"],
    ],
    xgap: 2,
    ygap: 2,
    colorbar: {
      title: {
        text: axisTitle({ title: value, ...options.valueAxis }),
        side: "top",
        font: { size: FONT_SIZE },
      },
      outlinewidth: 0,
      thickness: 14,
    },
  }], figureLayout);
}

export interface PaperOptions extends FigureOptions {
  /** Column of the names of the claims. */
  claim: string;
  /** Column of the paper's values. */
  paper: string;
  /** Column of the measured values or intervals. */
  measured: string;
  /** Columns of the ends of the measured intervals, for those that are not symmetric. */
  low?: string;
  high?: string;
  xAxis?: AxisOptions;
}

/** Error bars to the ends of intervals that need not lie around their value; none if all are empty. */
function endBars(
  rows: Row[],
  { measured, low, high }: PaperOptions,
): Trace | undefined {
  const reach = (row: Row, end: string | undefined, side: 1 | -1) => {
    const value = numberOf(row[measured]) ?? 0;
    const at = end === undefined ? null : numberOf(row[end]);
    return at === null ? halfWidthOf(row[measured]) : side * (at - value);
  };
  const up = rows.map((row) => reach(row, high, 1));
  const down = rows.map((row) => reach(row, low, -1));
  if ([...up, ...down].every((length) => length === 0)) return undefined;
  const symmetric = up.every((length, i) =>
    Math.abs(length - down[i]) <= 1e-9 * Math.abs(length)
  );
  return {
    type: "data",
    ...(symmetric ? {} : { symmetric: false }),
    array: up,
    ...(symmetric ? {} : { arrayminus: down }),
  };
}

/** Per claim the paper's value (hollow) and the measured one (filled, with its interval). */
export function paperFigure(rows: Row[], options: PaperOptions): FigureSpec {
  const { claim, paper, measured, low, high } = options;
  requireColumns(rows, options.id, [claim, paper, measured]);
  const { width = WIDTH } = options;
  const names = rows.map((row) =>
    wrapText(String(row[claim] ?? "–"), width * 0.36, FONT_SIZE)
      .map(plain).join("<br>")
  );
  const bars = endBars(rows, options);
  const values = rows.flatMap((row) =>
    [paper, measured, low, high].map((name) =>
      name === undefined ? null : numberOf(row[name])
    )
  ).filter((value) => value !== null);
  const [blue, orange] = PALETTE;
  const figure = spec(options, [
    {
      type: "scatter",
      mode: "markers",
      name: "paper",
      legendgroup: "paper",
      x: rows.map((row) => numberOf(row[paper])),
      y: names,
      marker: {
        symbol: "diamond-open",
        color: orange,
        size: 13,
        line: { width: 2, color: orange },
      },
    },
    {
      type: "scatter",
      mode: "markers",
      name: "measured here",
      legendgroup: "measured here",
      x: rows.map((row) => numberOf(row[measured])),
      y: names,
      marker: { symbol: "circle", color: blue, size: 11 },
      ...(bars === undefined ? {} : {
        error_x: {
          ...bars,
          color: blue,
          thickness: 2,
          width: 6,
          visible: true,
        },
      }),
    },
  ], {});
  figure.layout = layout(
    { height: 130 + 62 * rows.length, ...options },
    {
      ...axis({ title: measured, ...options.xAxis }, values),
      zeroline: true,
      zerolinecolor: LINE,
      zerolinewidth: 1,
    },
    {
      ...axis({}, []),
      type: "category",
      autorange: "reversed",
      categoryorder: "array",
      categoryarray: names,
      ticks: "",
      showline: false,
    },
    ["paper", "measured here"],
  );
  return figure;
}

export interface GridOptions extends FigureOptions {
  /** Panels side by side, default 2. */
  columns?: number;
  /** px of one row of panels, default 320. */
  rowHeight?: number;
}

/**
 * Several figures as panels of one, each under its own title, with one legend: series of the same
 * name are toggled together.
 */
export function gridFigure(
  figures: FigureSpec[],
  { columns = 2, rowHeight = 320, ...options }: GridOptions,
): FigureSpec {
  const rowCount = Math.ceil(figures.length / columns);
  const legend: string[] = [];
  const data: Trace[] = [];
  const axes: Record<string, unknown> = {};
  const annotations: unknown[] = [];
  const { width = columns > 1 ? 960 : WIDTH } = options;
  const height = options.height ?? 90 + rowHeight * rowCount;
  // Gaps hold the axis titles between panels.
  const [gapX, gapY] = [86 / width, 104 / height];
  const cellWidth = (1 - gapX * (columns - 1)) / columns;
  const cellHeight = (1 - gapY * (rowCount - 1)) / rowCount;
  figures.forEach((figure, i) => {
    const suffix = i === 0 ? "" : String(i + 1);
    const left = (i % columns) * (cellWidth + gapX);
    const top = 1 - Math.floor(i / columns) * (cellHeight + gapY);
    const { xaxis, yaxis } = figure.layout as Record<string, Trace>;
    axes[`xaxis${suffix}`] = {
      ...xaxis,
      domain: [left, left + cellWidth],
      anchor: `y${suffix}`,
    };
    axes[`yaxis${suffix}`] = {
      ...yaxis,
      domain: [top - cellHeight, top],
      anchor: `x${suffix}`,
    };
    annotations.push({
      text: plain(figure.title),
      x: left,
      y: top,
      xref: "paper",
      yref: "paper",
      xanchor: "left",
      yanchor: "bottom",
      showarrow: false,
      font: { size: FONT_SIZE, weight: 700 },
    });
    for (const trace of figure.data) {
      const name = String(trace.name ?? "");
      const group = String(trace.legendgroup ?? name);
      const first = trace.showlegend !== false && !legend.includes(group);
      if (first) legend.push(group);
      data.push({
        ...trace,
        legendgroup: group,
        showlegend: first && name !== "",
        xaxis: `x${suffix}`,
        yaxis: `y${suffix}`,
      });
    }
  });
  const base = layout({ ...options, width, height }, {}, {}, legend);
  const { margin, legend: place, ...rest } = base as {
    margin: { t: number };
    legend: Trace;
  };
  return spec(options, data, {
    ...rest,
    // The panels' titles stand between the legend and the plots.
    margin: { ...margin, t: margin.t + 26 },
    legend: { ...place, y: 1 + 26 / (height - margin.t - MARGIN.bottom - 26) },
    ...axes,
    annotations,
  });
}
