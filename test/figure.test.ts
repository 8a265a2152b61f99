import { test } from "uvu";
import * as assert from "uvu/assert";
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";
import {
  barFigure,
  type FigureSpec,
  gridFigure,
  heatmapFigure,
  lineFigure,
  paperFigure,
  scatterFigure,
  toSvg,
} from "../lib/core/figure.ts";
import { textEms } from "../lib/core/svg.ts";
import { exampleRows } from "./fixtures/site-paper.ts";

const rows = exampleRows();
const rank = { title: "rank r", scale: "log" } as const;
const loss = { title: "validation loss", unit: "nats per token" };

const line = lineFigure(rows, {
  id: "loss",
  title: "Validation loss against the rank",
  caption: "Three seeds.",
  x: "rank",
  y: "loss",
  series: "method",
  xAxis: rank,
  yAxis: loss,
});
const band = lineFigure(rows, {
  id: "band",
  title: "Loss",
  x: "rank",
  y: "loss",
  series: "method",
  spread: "band",
  xAxis: rank,
});
const gradient = scatterFigure(rows, {
  id: "gradient",
  title: "Gradient norm",
  x: "rank",
  y: "gradient",
  series: "method",
  xAxis: rank,
  yAxis: { title: "‖dL/dB‖", scale: "log" },
  fits: { LoRA: { slope: -0.5, intercept: Math.log(4) } },
});
const bars = barFigure(rows.filter((row) => row.rank === 8), {
  id: "bars",
  title: "Loss at rank 8",
  x: "method",
  y: "loss",
});
const heat = heatmapFigure(rows, {
  id: "heat",
  title: "Loss",
  x: "rank",
  y: "method",
  value: "loss",
});
const paper = paperFigure([
  { claim: "gain over LoRA", paper: 6.5, measured: 2 },
  {
    claim: "gain over DoRA",
    paper: 2.9,
    measured: { mean: 1, halfWidth: 0.5, n: 3 },
  },
], {
  id: "paper",
  title: "Paper against measured",
  claim: "claim",
  paper: "paper",
  measured: "measured",
  xAxis: { title: "gain", unit: "points" },
});
const grid = gridFigure([line, gradient], { id: "grid", title: "Both" });

type Trace = Record<string, unknown>;

/** The document of an SVG; fails if it is not well-formed XML. */
function parse(svg: string): Document {
  return new JSDOM(svg, { contentType: "image/svg+xml" }).window.document;
}

function texts(svg: string): string[] {
  return [...parse(svg).querySelectorAll("text")].map((t) => t.textContent);
}

test("specification of a line figure as stored", () => {
  // Stored by: node --import tsx test/fixtures/line-figure.ts
  const stored = readFileSync(
    new URL("./fixtures/line-figure.json", import.meta.url),
    "utf8",
  );
  assert.equal(JSON.parse(JSON.stringify(line)), JSON.parse(stored));
});

test("a figure is plain JSON and its rows are not changed", () => {
  const before = JSON.stringify(rows);
  for (const figure of [line, band, gradient, bars, heat, paper, grid]) {
    assert.equal(JSON.parse(JSON.stringify(figure)), figure, figure.id);
  }
  assert.is(JSON.stringify(rows), before);
});

test("lines: one trace per series in the order of x, with its error bars", () => {
  const shuffled = lineFigure([...rows].reverse(), {
    id: "loss",
    title: "",
    x: "rank",
    y: "loss",
    series: "method",
    order: ["LoRA", "RoRA (= rsLoRA)", "DoRA"],
    xAxis: rank,
  });
  const traces = shuffled.data as Trace[];
  assert.equal(traces.map((trace) => trace.name), [
    "LoRA",
    "RoRA (= rsLoRA)",
    "DoRA",
  ]);
  const [first] = traces;
  assert.equal(first.text, ["2", "4", "8", "16", "32", "64"]);
  const { array } = first.error_y as { array: number[] };
  // Each interval: t(0.95, 2) s / sqrt(3) with the values 0, 0.01, -0.015.
  assert.ok(array.every((half) => Math.abs(half - 0.03126) < 1e-4));
});

test("lines: a series keeps its colour when others are absent", () => {
  const only = lineFigure(rows.filter((row) => row.method === "DoRA"), {
    id: "x",
    title: "",
    x: "rank",
    y: "loss",
    series: "method",
    order: ["LoRA", "RoRA (= rsLoRA)", "DoRA"],
  });
  const color = (trace: Trace) => (trace.marker as Trace).color;
  assert.is(
    color(only.data[0]),
    color(line.data.find((t) => t.name === "DoRA") as Trace),
  );
});

test("lines: the paper's points are hollow, without a line", () => {
  const figure = lineFigure([
    { x: 1, y: 2, source: "measured" },
    { x: 2, y: 3, source: "paper" },
  ], { id: "x", title: "", x: "x", y: "y", source: "source" });
  const [measured, stated] = figure.data as Trace[];
  assert.is((measured.marker as Trace).symbol, "circle");
  assert.is((stated.marker as Trace).symbol, "circle-open");
  assert.is(stated.mode, "markers");
});

test("a missing value is a gap, not a zero", () => {
  const figure = lineFigure(
    [{ x: 1, y: 2 }, { x: 2, y: NaN }, { x: 3, y: null }],
    { id: "x", title: "", x: "x", y: "y" },
  );
  assert.equal(figure.data[0].y, [2, null, null]);
});

test("an unknown column is an error", () => {
  assert.throws(
    () => lineFigure(rows, { id: "l", title: "", x: "rank", y: "los" }),
    /Cannot draw "l" as the rows have no column "los": they have method, rank/,
  );
});

test("axes: titles carry units, ranks are the ticks of a log axis", () => {
  const { xaxis, yaxis } = line.layout as Record<string, Trace>;
  assert.is((yaxis.title as Trace).text, "validation loss (nats per token)");
  assert.is(xaxis.type, "log");
  assert.equal(xaxis.tickvals, [2, 4, 8, 16, 32, 64]);
});

test("fit: the line of a power law goes through its points", () => {
  const fit = gradient.data.find((trace) => trace.mode === "lines") as Trace;
  assert.equal(fit.x, [2, 64]);
  const [low, high] = fit.y as number[];
  // 4 r^-0.5 at r = 2 and 64
  assert.ok(Math.abs(low - 4 / Math.SQRT2) < 1e-12);
  assert.ok(Math.abs(high - 0.5) < 1e-12);
});

test("no markup in labels: it would become inline styles on the page", () => {
  const small = lineFigure([{ x: 1, y: 2e-5 }, { x: 2, y: 3e-3 }], {
    id: "small",
    title: "",
    x: "x",
    y: "y",
    yAxis: { scale: "log" },
  });
  const { ticktext } = (small.layout as Record<string, Trace>).yaxis;
  assert.ok((ticktext as string[]).includes("2·10⁻⁵"), String(ticktext));
  for (
    const { layout, id } of [line, gradient, bars, heat, paper, grid, small]
  ) {
    assert.not.match(JSON.stringify(layout), /<(?!br>)/, id);
  }
});

test("heatmap: rows and columns as categories, absent pairs empty", () => {
  const figure = heatmapFigure(
    [{ a: "p", b: 1, v: 5 }, { a: "q", b: 2, v: 7 }],
    { id: "h", title: "", x: "b", y: "a", value: "v" },
  );
  assert.equal(figure.data[0].z, [[5, null], [null, 7]]);
});

test("grid: panels have axes of their own and share one legend", () => {
  const shown = grid.data.filter((trace) => trace.showlegend);
  assert.equal(shown.map((trace) => trace.name), [
    "LoRA",
    "RoRA (= rsLoRA)",
    "DoRA",
  ]);
  assert.equal([...new Set(grid.data.map((trace) => trace.xaxis))], [
    "x",
    "x2",
  ]);
});

test("SVG: well-formed, with title, axis titles, ticks and legend", () => {
  const found = texts(toSvg(line));
  for (
    const label of [
      "Validation loss against the rank",
      "rank r",
      "validation loss (nats per token)",
      "RoRA (= rsLoRA)",
      "64",
    ]
  ) assert.ok(found.includes(label), `no "${label}" in ${found.join(", ")}`);
});

test("SVG: every kind of figure draws its marks", () => {
  const count = (figure: FigureSpec, selector: string) =>
    parse(toSvg(figure)).querySelectorAll(selector).length;
  assert.is(count(line, ".scatterlayer path.point"), rows.length);
  assert.is(count(line, ".errorbar"), rows.length);
  assert.is(count(band, ".scatterlayer .js-fill"), 3);
  assert.is(count(gradient, "path.js-line"), 1);
  assert.is(count(bars, ".barlayer .point"), 3);
  assert.is(count(heat, ".heatmaplayer image"), 1);
  assert.is(count(paper, ".scatterlayer path.point"), 4);
  assert.is(count(grid, ".subplot"), 2);
});

test("SVG: same figure, same bytes; other figures, other ids", () => {
  const first = toSvg(line);
  const other = toSvg(band);
  assert.is(toSvg(line), first);
  const ids = (svg: string) =>
    [...svg.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  assert.ok(ids(first).length > 0);
  assert.equal(ids(first).filter((id) => ids(other).includes(id)), []);
});

test("SVG: texts of the data are text", () => {
  const hostile = `<b>x</b> </text><script>alert(1)</script> & "q"`;
  const svg = toSvg(lineFigure(exampleRows(hostile), {
    id: "hostile",
    title: hostile,
    x: "rank",
    y: "loss",
    series: "method",
    xAxis: { title: hostile },
  }));
  const document = parse(svg);
  assert.is(document.querySelectorAll("script").length, 0);
  const legend = [...document.querySelectorAll(".legendtext")].map((t) =>
    t.textContent
  );
  assert.ok(legend.includes(`LoRA${hostile}`), legend.join("\n"));
  assert.is(document.documentElement.getAttribute("aria-label"), hostile);
});

test("SVG: legend entries do not overlap and stay inside the picture", () => {
  const document = parse(toSvg(line));
  const entries = [...document.querySelectorAll(".legend .groups")].map(
    (group) => {
      const [, place = "0,0"] = /translate\(([^)]*)\)/
        .exec(group.getAttribute("transform") ?? "") ?? [];
      const [x, y] = place.split(",").map(Number);
      const text = group.querySelector(".legendtext") as Element;
      return { x, y, end: x + 40 + textEms(text.textContent) * 14 };
    },
  );
  assert.is(entries.length, 3);
  assert.ok(entries[2].x > entries[1].x || entries[2].y > entries[1].y);
  for (const [i, a] of entries.entries()) {
    for (const b of entries.slice(i + 1)) {
      assert.ok(a.y !== b.y || a.end <= b.x + 5, `entries overlap: ${a}, ${b}`);
    }
    assert.ok(a.end <= 720 - 76);
  }
});

test("SVG: a trace that cannot be drawn is an error", () => {
  assert.throws(
    () =>
      toSvg({
        id: "bad",
        title: "",
        caption: "",
        data: [{ type: "nonsense" }],
        layout: {},
      }),
    /Cannot draw the figure "bad"/,
  );
});

test.run();
