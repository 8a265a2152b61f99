/**
 * Pictures of a chip: rows of cells coloured by clock phase, wires by layer, vias, pins.
 *
 * `chipSvg` is a drawing to scale whose parts tell their names when pointed at; a region of it is the
 * same drawing nearer. `chipFigure` is a plotly specification to zoom and pan in, where the legend
 * switches layers on and off. Both show the routed design, one unit of length being a micrometre.
 *
 * Scope: what the layout contains. The two lines of the clock are no part of it: where they are shown,
 * they are those of the timing model (clock.ts), with the sense in which they run.
 */
import { type CellLibrary, CLOCK_PHASES, libraryCellOf } from "../core/aqfp.ts";
import { type FigureSpec, PALETTE } from "../core/figure.ts";
import { FONT_FAMILY } from "../core/svg.ts";
import { isReversed } from "./clock.ts";
import {
  CELL_TEXT,
  inputPinName,
  NET_TEXT,
  outputPinName,
  PIN_TEXT,
  structureName,
} from "./layout.ts";
import { type RoutedDesign, type Wire, wireSteps } from "./routing.ts";

/** A part of the chip, in um. */
export interface Region {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

export interface ViewOptions {
  /** px; the height follows from the chip's shape. Default 1200, less for a chip of few cells. */
  width?: number;
  /** Default: the whole chip. */
  region?: Region;
  title?: string;
  /** Draws the clock's lines of the timing model over the rows; default false. */
  clock?: boolean;
}

export interface ChipFigureOptions {
  id?: string;
  title?: string;
  caption?: string;
  /** px */
  width?: number;
  height?: number;
  /** The part shown at first, in um; default the whole chip. */
  region?: Region;
}

/** Fills of the phases; tints of colours that stay apart for colour-blind readers. */
const PHASE_COLORS = [PALETTE[0], PALETTE[4], PALETTE[2], PALETTE[3]];
const LAYER_COLORS = { horizontal: "#1b3a5c", vertical: PALETTE[1] } as const;
const VIA_COLOR = "#000000";
/** The two clock lines of the timing model. */
const CLOCK_COLORS = ["#7b2d8b", "#8c6d1f"] as const;
const ROW_COLOR = "#eef0f2";
const TEXT_COLOR = "#222222";
const CELL_OPACITY = 0.55;

/** Phase of a row from 0: row 1 is the first to be clocked, so inputs stand in the last phase. */
function phaseOf(row: number): number {
  return (row + CLOCK_PHASES - 1) % CLOCK_PHASES;
}

/** A cell with its place in um. */
interface PlacedCell extends Region {
  index: number;
  phase: number;
  structure: string;
  name: string;
  pins: { x: number; y: number; name: string }[];
}

function placedCells(
  { placed, library, rowY }: RoutedDesign,
): PlacedCell[] {
  return placed.cells.map((cell, index) => {
    const { widthUm, heightUm, inputsUm, outputsUm } = libraryCellOf(
      library,
      cell,
    );
    const x0 = placed.x[index] * library.gridUm;
    const y0 = rowY[placed.levels[index]] * library.gridUm;
    return {
      index,
      phase: phaseOf(placed.levels[index]),
      structure: structureName(cell),
      name: cell.name,
      x0,
      y0,
      x1: x0 + widthUm,
      y1: y0 + heightUm,
      pins: [
        ...inputsUm.map((x, i) => ({
          x: x0 + x,
          y: y0,
          name: inputPinName(i),
        })),
        ...outputsUm.map((x, i) => ({
          x: x0 + x,
          y: y0 + heightUm,
          name: outputPinName(i, outputsUm.length),
        })),
      ],
    };
  });
}

/** Rectangles of a wire's segments, with their ends. */
function wireRects(
  wire: Wire,
  { library }: RoutedDesign,
  layer: "horizontal" | "vertical",
): Region[] {
  const half = library.rules.wireWidthUm / 2;
  const um = (n: number) => n * library.gridUm;
  return wire.segments.filter((s) => s.layer === layer).map((s) => ({
    x0: um(s.x0) - half,
    y0: um(s.y0) - half,
    x1: um(s.x1) + half,
    y1: um(s.y1) + half,
  }));
}

function viaRects(wire: Wire, { library }: RoutedDesign): Region[] {
  const half = library.rules.viaSizeUm / 2;
  return wire.vias.map(({ x, y }) => ({
    x0: x * library.gridUm - half,
    y0: y * library.gridUm - half,
    x1: x * library.gridUm + half,
    y1: y * library.gridUm + half,
  }));
}

/** The box around all cells and wires; a chip without cells is an error. */
function chipBox(design: RoutedDesign, cells: PlacedCell[]): Region {
  if (cells.length === 0) {
    throw new RangeError(
      `Cannot draw ${design.placed.name} as it must have cells: none`,
    );
  }
  const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  const add = (r: Region) => {
    box.x0 = Math.min(box.x0, r.x0);
    box.y0 = Math.min(box.y0, r.y0);
    box.x1 = Math.max(box.x1, r.x1);
    box.y1 = Math.max(box.y1, r.y1);
  };
  cells.forEach(add);
  for (const wire of design.wires) {
    wireRects(wire, design, "horizontal").forEach(add);
  }
  return box;
}

/**
 * The two lines that snake through the odd and the even rows, as the timing model has them: corners
 * from the first row on. They run at the middle of the lowest cells and turn beside the chip.
 */
function clockLines(
  { rowY, library }: RoutedDesign,
  box: Region,
): [number, number][][] {
  const { gridUm, cells } = library;
  const lowest = Math.min(...Object.values(cells).map((c) => c.heightUm));
  return [1, 0].map((first, line) => {
    const out = (2 + line) * gridUm;
    const points: [number, number][] = [];
    for (let row = first; row < rowY.length; row += 2) {
      const y = rowY[row] * gridUm + lowest / 2;
      const ends = [box.x0 - out, box.x1 + out];
      if (isReversed(row)) ends.reverse();
      points.push([ends[0], y], [ends[1], y]);
    }
    return points;
  });
}

function wireText(wire: Wire, { placed, library }: RoutedDesign): string {
  const { driver, pin, sink, input } = wire.edge;
  const { outputsUm } = libraryCellOf(library, placed.cells[driver]);
  return `${placed.cells[driver].name}.${
    outputPinName(pin, outputsUm.length)
  } to ${placed.cells[sink].name}.${inputPinName(input)}, ${
    wireSteps(wire) * library.gridUm
  } um, ${wire.vias.length} vias`;
}

function cellText({ name, structure, phase, x0, y0 }: PlacedCell, row: number) {
  return `${name}: ${structure}, row ${row}, phase ${
    phase + 1
  }, at (${x0}, ${y0}) um`;
}

// Drawing -----------------------------------------------------------------------------------------

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function meets(a: Region, b: Region): boolean {
  return a.x0 <= b.x1 && b.x0 <= a.x1 && a.y0 <= b.y1 && b.y0 <= a.y1;
}

/** A length of 1, 2 or 5 times a power of ten near `um`. */
function roundLength(um: number): number {
  const power = 10 ** Math.floor(Math.log10(um));
  const factor = um / power;
  return power * (factor < 2 ? 1 : factor < 5 ? 2 : 5);
}

/** Letters smaller than this cannot be read. */
const MIN_TEXT_PX = 6;
/** Of a letter's height. */
const LETTER_WIDTH = 0.62;
/** A chip of few cells is not blown up beyond this. */
const MAX_PX_PER_UM = 3;
/** Height of the names of cells, at most. */
const CELL_TEXT_UM = 8;
/** Height of the names of pins. */
const PIN_TEXT_UM = 4;
const LEGEND_PX = 46;
const ROW_LABEL_PX = 92;

/**
 * The chip, or a region of it, as an SVG document.
 *
 * @param options.region Part to draw, in um: the same drawing, nearer.
 * @throws RangeError if there are no cells or the region is empty.
 */
export function chipSvg(
  design: RoutedDesign,
  { width: given, region, title, clock = false }: ViewOptions = {},
): string {
  const { placed, library, rowY, rowHeight, wires } = design;
  const cells = placedCells(design);
  const box = chipBox(design, cells);
  const margin = (clock ? 4 : 1) * library.gridUm;
  const drawnUm = box.x1 - box.x0 + 2 * margin;
  const width = given ??
    Math.min(1200, Math.max(620, ROW_LABEL_PX + MAX_PX_PER_UM * drawnUm));
  // A chip of few cells keeps its size and stands in the middle.
  const aside = given !== undefined ? 0 : Math.max(
    0,
    (width - ROW_LABEL_PX) / MAX_PX_PER_UM - drawnUm,
  ) / 2;
  const pxPerUm = (width - ROW_LABEL_PX) / (drawnUm + 2 * aside);
  // Names of ports that do not fit into their cells stand beside the chip, at every port alike.
  const portPx = region === undefined ? portLabelPx(cells, pxPerUm) : 0;
  const beside = portPx === 0
    ? 0
    : longestPort(cells) * LETTER_WIDTH * portPx / pxPerUm;
  const view = region ?? {
    x0: box.x0 - margin - aside,
    y0: box.y0 - margin - beside,
    x1: box.x1 + margin + aside,
    y1: box.y1 + margin + beside,
  };
  if (!(view.x1 > view.x0 && view.y1 > view.y0 && width > ROW_LABEL_PX)) {
    throw new RangeError(
      `Cannot draw ${placed.name} as region and width must be positive: x ${view.x0} to ${view.x1} um, y ${view.y0} to ${view.y1} um, width ${width} px`,
    );
  }
  const scale = (width - ROW_LABEL_PX) / (view.x1 - view.x0);
  const height = Math.ceil((view.y1 - view.y0) * scale) + LEGEND_PX;
  const px = (um: number) => String(Math.round(um * scale * 100) / 100);
  const left = (x: number) => px(x - view.x0);
  const top = (y: number) => px(view.y1 - y);
  const rect = (r: Region, attributes: string, inner = "") => {
    const shape = `<rect x="${left(r.x0)}" y="${top(r.y1)}" width="${
      px(r.x1 - r.x0)
    }" height="${px(r.y1 - r.y0)}"${attributes}`;
    return inner === "" ? `${shape}/>` : `${shape}>${inner}</rect>`;
  };
  const parts: string[] = [];
  const rows = Array.from(rowY, (y, row) => ({
    row,
    x0: box.x0 - margin,
    x1: box.x1 + margin,
    y0: y * library.gridUm,
    y1: (y + rowHeight[row]) * library.gridUm,
  }));
  parts.push(`<g fill="${ROW_COLOR}">`);
  for (const row of rows) if (meets(row, view)) parts.push(rect(row, ""));
  parts.push("</g>");
  const stroke = Math.max(0.3, Math.min(1, scale * 2));
  for (const [phase, color] of PHASE_COLORS.entries()) {
    parts.push(
      `<g fill="${color}" fill-opacity="${CELL_OPACITY}" stroke="${color}" stroke-width="${stroke}">`,
    );
    for (const cell of cells) {
      if (cell.phase !== phase || !meets(cell, view)) continue;
      const told = cellText(cell, placed.levels[cell.index]);
      parts.push(rect(cell, "", `<title>${escapeXml(told)}</title>`));
    }
    parts.push("</g>");
  }
  for (const layer of ["horizontal", "vertical"] as const) {
    parts.push(`<g fill="${LAYER_COLORS[layer]}" fill-opacity="0.85">`);
    for (const wire of wires) {
      const seen = wireRects(wire, design, layer).filter((r) => meets(r, view));
      if (seen.length === 0) continue;
      parts.push(
        `<g><title>${escapeXml(wireText(wire, design))}</title>`,
        ...seen.map((r) => rect(r, "")),
        "</g>",
      );
    }
    parts.push("</g>");
  }
  parts.push(`<g fill="${VIA_COLOR}">`);
  for (const wire of wires) {
    for (const via of viaRects(wire, design)) {
      if (meets(via, view)) parts.push(rect(via, ""));
    }
  }
  parts.push("</g>");
  if (clock) {
    clockLines(design, box).forEach((points, line) =>
      parts.push(
        `<polyline points="${
          points.map(([x, y]) => `${left(x)},${top(y)}`).join(" ")
        }" fill="none" stroke="${CLOCK_COLORS[line]}" stroke-width="${
          Math.max(1, 2 * scale).toFixed(2)
        }" stroke-dasharray="6 3"><title>clock line ${
          line + 1
        } of the timing model</title></polyline>`,
      )
    );
  }
  parts.push(...cellLabels(cells, view, scale, left, top));
  if (portPx > 0) parts.push(...portLabels(cells, portPx, left, top));
  const frame = rowLabels(rows, view, top);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="${
      escapeXml(FONT_FAMILY)
    }">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    legend(design, view, scale, title ?? placed.name, clock, box),
    `<svg x="${ROW_LABEL_PX}" y="${LEGEND_PX}" width="${
      width - ROW_LABEL_PX
    }" height="${height - LEGEND_PX}">`,
    ...parts,
    "</svg>",
    ...frame,
    "</svg>",
  ].join("\n") + "\n";
}

function isPort({ structure }: PlacedCell): boolean {
  return structure === "in" || structure === "out";
}

function longestPort(cells: PlacedCell[]): number {
  return Math.max(0, ...cells.filter(isPort).map(({ name }) => name.length));
}

/** Size of upright names of ports, 0 where all names fit into their cells. */
function portLabelPx(cells: PlacedCell[], scale: number): number {
  const ports = cells.filter(isPort);
  const fits = CELL_TEXT_UM * scale >= MIN_TEXT_PX &&
    ports.every(({ x0, x1, name }) =>
      (x1 - x0) * scale >= MIN_TEXT_PX * LETTER_WIDTH * name.length
    );
  if (fits) return 0;
  const narrowest = Math.min(...ports.map(({ x0, x1 }) => x1 - x0));
  return Math.max(4, Math.min(10, 0.9 * narrowest * scale));
}

/** Names of inputs below the chip and of outputs above it, reading upwards. */
function portLabels(
  cells: PlacedCell[],
  sizePx: number,
  left: (x: number) => string,
  top: (y: number) => string,
): string[] {
  return [
    `<g fill="${TEXT_COLOR}" font-size="${sizePx.toFixed(2)}">`,
    ...cells.filter(isPort).map(({ structure, name, x0, x1, y0, y1 }) => {
      const x = Number(left((x0 + x1) / 2)) + 0.35 * sizePx;
      const y = structure === "in" ? Number(top(y0)) + 2 : Number(top(y1)) - 2;
      const anchor = structure === "in" ? "end" : "start";
      return `<text text-anchor="${anchor}" transform="translate(${
        x.toFixed(2)
      } ${y.toFixed(2)}) rotate(-90)">${escapeXml(name)}</text>`;
    }),
    "</g>",
  ];
}

/** What a cell is and is called, where there is room to read it. */
function cellLabels(
  cells: PlacedCell[],
  view: Region,
  scale: number,
  left: (x: number) => string,
  top: (y: number) => string,
): string[] {
  const parts: string[] = [`<g fill="${TEXT_COLOR}" text-anchor="middle">`];
  for (const cell of cells) {
    if (!meets(cell, view)) continue;
    const widthPx = (cell.x1 - cell.x0) * scale;
    const lines = isPort(cell) ? [cell.name] : [cell.structure, cell.name];
    const longest = Math.max(...lines.map((line) => line.length));
    const size = Math.min(
      widthPx / (LETTER_WIDTH * longest),
      CELL_TEXT_UM * scale,
    );
    // Names that do not fit give way to the kind of cell alone.
    const short = size >= MIN_TEXT_PX ? lines : lines.slice(0, 1);
    const fit = Math.min(
      widthPx / (LETTER_WIDTH * short[0].length),
      CELL_TEXT_UM * scale,
    );
    const letters = size >= MIN_TEXT_PX ? size : fit;
    if (letters < MIN_TEXT_PX) continue;
    const middle = (cell.y0 + cell.y1) / 2;
    short.forEach((line, i) => {
      const down = (i - (short.length - 1) / 2) * 1.15 * letters +
        0.35 * letters;
      parts.push(
        `<text x="${left((cell.x0 + cell.x1) / 2)}" y="${
          (Number(top(middle)) + down).toFixed(2)
        }" font-size="${letters.toFixed(2)}">${escapeXml(line)}</text>`,
      );
    });
  }
  const pinSize = PIN_TEXT_UM * scale;
  if (pinSize >= MIN_TEXT_PX) {
    for (const cell of cells) {
      if (!meets(cell, view)) continue;
      for (const { x, y, name } of cell.pins) {
        const up = y > cell.y0 ? -PIN_TEXT_UM * 1.3 : PIN_TEXT_UM * 0.6;
        parts.push(
          `<text x="${left(x)}" y="${top(y + up)}" font-size="${
            pinSize.toFixed(2)
          }">${name}</text>`,
        );
      }
    }
  }
  return [...parts, "</g>"];
}

/** Numbers of the rows at the left, as many as can be read. */
function rowLabels(
  rows: (Region & { row: number })[],
  view: Region,
  top: (y: number) => string,
): string[] {
  const parts = [`<g fill="${TEXT_COLOR}" font-size="11" text-anchor="end">`];
  let last = Infinity;
  for (const { row, y0, y1 } of rows) {
    const middle = (y0 + y1) / 2;
    const y = Number(top(middle)) + LEGEND_PX + 4;
    if (middle < view.y0 || middle > view.y1 || last - y < 13) continue;
    last = y;
    const phase = phaseOf(row);
    parts.push(
      `<text x="${ROW_LABEL_PX - 18}" y="${y.toFixed(1)}">row ${row}, ph ${
        phase + 1
      }</text>`,
      `<rect x="${ROW_LABEL_PX - 14}" y="${
        (y - 9).toFixed(1)
      }" width="8" height="10" fill="${PHASE_COLORS[phase]}"/>`,
    );
  }
  return [...parts, "</g>"];
}

function legend(
  { library, placed, channels }: RoutedDesign,
  view: Region,
  scale: number,
  title: string,
  clock: boolean,
  box: Region,
): string {
  const parts: string[] = [];
  const sizeUm = (um: number) => Math.round(um).toLocaleString("en");
  const items: [string, string][] = [
    ...PHASE_COLORS.map((color, i): [string, string] => [
      color,
      `phase ${i + 1}`,
    ]),
    [LAYER_COLORS.horizontal, "horizontal wire"],
    [LAYER_COLORS.vertical, "vertical wire"],
    [VIA_COLOR, "via"],
    ...(clock
      ? CLOCK_COLORS.map((color, i): [string, string] => [
        color,
        `clock line ${i + 1} (model)`,
      ])
      : []),
  ];
  const tracks = channels.reduce((sum, c) => sum + c.tracks, 0);
  parts.push(
    `<text x="10" y="16" font-size="13" font-weight="bold" fill="${TEXT_COLOR}">${
      escapeXml(title)
    }: ${placed.cells.length} cells, ${
      channels.length + 1
    } rows, ${tracks} tracks; ${sizeUm(box.x1 - box.x0)} x ${
      sizeUm(box.y1 - box.y0)
    } um; library ${escapeXml(library.name)}</text>`,
  );
  let x = 10;
  for (const [color, text] of items) {
    parts.push(
      `<rect x="${x}" y="26" width="12" height="12" fill="${color}"/>`,
      `<text x="${
        x + 17
      }" y="36" font-size="11.5" fill="${TEXT_COLOR}">${text}</text>`,
    );
    x += 34 + 6.2 * text.length;
  }
  const um = roundLength((view.x1 - view.x0) / 8);
  const length = um * scale;
  parts.push(
    `<path d="M${x + 10} 28v8m0 -4h${
      length.toFixed(1)
    }m0 -4v8" stroke="${TEXT_COLOR}" fill="none"/>`,
    `<text x="${
      (x + 16 + length).toFixed(1)
    }" y="36" font-size="11.5" fill="${TEXT_COLOR}">${um} um</text>`,
  );
  return parts.join("\n");
}

// KLayout -----------------------------------------------------------------------------------------

/**
 * Layer properties for KLayout (a .lyp file): names and the colours of the drawings. Names of pins and
 * connections are there but hidden, as they cover the rest.
 */
export function layerProperties({ rules }: CellLibrary): string {
  const layers = rules.gdsLayers;
  const wires = LAYER_COLORS;
  // I0 is solid, I1 hollow, I5 hatched.
  const list: [string, string, string, string, boolean][] = [
    ["via", `${layers.via}/0`, "#d9a400", "I0", true], // can be seen on black and on white
    ["vertical wires", `${layers.vertical}/0`, wires.vertical, "I5", true],
    [
      "horizontal wires",
      `${layers.horizontal}/0`,
      wires.horizontal,
      "I5",
      true,
    ],
    ["pins", `${layers.pin}/0`, PALETTE[3], "I1", true],
    ["cells", `${layers.outline}/0`, PALETTE[2], "I1", true],
    ["names of cells", `${layers.label}/${CELL_TEXT}`, "#808080", "I1", true],
    [
      "names of connections",
      `${layers.label}/${NET_TEXT}`,
      PALETTE[0],
      "I1",
      false,
    ],
    ["names of pins", `${layers.label}/${PIN_TEXT}`, PALETTE[6], "I1", false],
  ];
  return [
    '<?xml version="1.0" encoding="utf-8"?>',
    "<layer-properties>",
    ...list.map(([name, source, color, pattern, visible]) =>
      [
        " <properties>",
        `  <frame-color>${color.toLowerCase()}</frame-color>`,
        `  <fill-color>${color.toLowerCase()}</fill-color>`,
        "  <frame-brightness>0</frame-brightness>",
        "  <fill-brightness>0</fill-brightness>",
        `  <dither-pattern>${pattern}</dither-pattern>`,
        "  <valid>true</valid>",
        `  <visible>${visible}</visible>`,
        "  <transparent>false</transparent>",
        "  <marked>false</marked>",
        "  <animation>0</animation>",
        `  <name>${name}</name>`,
        `  <source>${source}@1</source>`,
        " </properties>",
      ].join("\n")
    ),
    "</layer-properties>",
  ].join("\n") + "\n";
}

// Figure ------------------------------------------------------------------------------------------

type Trace = Record<string, unknown>;

/** Many rectangles as one filled line with gaps. */
function filled(rects: Region[], trace: Trace): Trace {
  const x: (number | null)[] = [];
  const y: (number | null)[] = [];
  for (const r of rects) {
    x.push(r.x0, r.x1, r.x1, r.x0, r.x0, null);
    y.push(r.y0, r.y0, r.y1, r.y1, r.y0, null);
  }
  return {
    type: "scatter",
    mode: "lines",
    fill: "toself",
    hoverinfo: "skip",
    x,
    y,
    ...trace,
  };
}

/** Invisible points that tell what is under the pointer. */
function told(
  points: { x: number; y: number; text: string }[],
  trace: Trace,
): Trace {
  return {
    type: "scatter",
    mode: "markers",
    x: points.map(({ x }) => x),
    y: points.map(({ y }) => y),
    text: points.map(({ text }) => escapeXml(text)),
    hovertemplate: "%{text}<extra></extra>",
    marker: { size: 9, opacity: 0 },
    showlegend: false,
    ...trace,
  };
}

/** Middle of a wire's longest segment, in um. */
function middleOf({ segments }: Wire, gridUm: number) {
  const longest = segments.reduce((a, b) =>
    b.x1 - b.x0 + b.y1 - b.y0 > a.x1 - a.x0 + a.y1 - a.y0 ? b : a
  );
  return {
    x: (longest.x0 + longest.x1) / 2 * gridUm,
    y: (longest.y0 + longest.y1) / 2 * gridUm,
  };
}

const FIGURE_WIDTH = 960;
const MAX_FIGURE_HEIGHT = 900;
const FIGURE_FRAME_PX = 170;

/**
 * The chip as a plotly specification: everything to scale, one legend entry per phase and layer.
 */
export function chipFigure(
  design: RoutedDesign,
  {
    id = "chip",
    title = `Layout of ${design.placed.name}`,
    caption =
      "Cells coloured by clock phase, wires by layer. Zoom with the mouse; the legend switches layers.",
    width = FIGURE_WIDTH,
    height,
    region,
  }: ChipFigureOptions = {},
): FigureSpec {
  const { placed, library, rowY, rowHeight, wires } = design;
  const cells = placedCells(design);
  const box = chipBox(design, cells);
  const data: Trace[] = [
    filled(
      Array.from(rowY, (y, row) => ({
        x0: box.x0,
        x1: box.x1,
        y0: y * library.gridUm,
        y1: (y + rowHeight[row]) * library.gridUm,
      })),
      {
        name: "rows",
        fillcolor: ROW_COLOR,
        line: { width: 0 },
        showlegend: false,
      },
    ),
  ];
  for (const [phase, color] of PHASE_COLORS.entries()) {
    const group = cells.filter((cell) => cell.phase === phase);
    if (group.length === 0) continue;
    const legendgroup = `phase ${phase + 1}`;
    data.push(
      filled(group, {
        name: legendgroup,
        legendgroup,
        fillcolor: translucent(color, CELL_OPACITY),
        line: { width: 1, color },
      }),
      told(
        group.map((cell) => ({
          x: (cell.x0 + cell.x1) / 2,
          y: (cell.y0 + cell.y1) / 2,
          text: cellText(cell, placed.levels[cell.index]),
        })),
        { legendgroup, name: legendgroup },
      ),
    );
  }
  for (const layer of ["horizontal", "vertical"] as const) {
    const color = LAYER_COLORS[layer];
    data.push(
      filled(wires.flatMap((wire) => wireRects(wire, design, layer)), {
        name: `${layer} wires`,
        fillcolor: translucent(color, 0.85),
        line: { width: 0.5, color },
      }),
    );
  }
  data.push(
    filled(wires.flatMap((wire) => viaRects(wire, design)), {
      name: "vias",
      fillcolor: VIA_COLOR,
      line: { width: 0.5, color: VIA_COLOR },
    }),
    told(
      wires.map((wire) => ({
        ...middleOf(wire, library.gridUm),
        text: wireText(wire, design),
      })),
      { name: "wires" },
    ),
  );
  clockLines(design, box).forEach((points, line) =>
    data.push({
      type: "scatter",
      mode: "lines",
      name: `clock line ${line + 1} (model)`,
      visible: "legendonly",
      hoverinfo: "skip",
      x: points.map(([x]) => x),
      y: points.map(([, y]) => y),
      line: { width: 1.5, color: CLOCK_COLORS[line], dash: "dash" },
    })
  );
  const view = region ?? box;
  const fit = (width - FIGURE_FRAME_PX) * (view.y1 - view.y0) /
      (view.x1 - view.x0) + FIGURE_FRAME_PX;
  const axis = (text: string) => ({
    title: { text, standoff: 10 },
    showgrid: false,
    zeroline: false,
    // The frame fits the chip instead of leaving the rest of the page empty within it.
    constrain: "domain",
    ticks: "outside",
    tickformat: ",d",
    linecolor: "#666666",
    showline: true,
    automargin: true,
  });
  return {
    id,
    title,
    caption,
    data,
    layout: {
      width,
      height: Math.round(
        height ?? Math.max(320, Math.min(MAX_FIGURE_HEIGHT, fit)),
      ),
      title: {
        text: escapeXml(title),
        x: 0,
        xref: "container",
        xanchor: "left",
        y: 1,
        yref: "container",
        yanchor: "top",
        pad: { l: 16, t: 14 },
        font: { size: 17, color: TEXT_COLOR },
      },
      font: { family: FONT_FAMILY, size: 13, color: TEXT_COLOR },
      paper_bgcolor: "#ffffff",
      plot_bgcolor: "#ffffff",
      margin: { l: 70, r: 20, t: 110, b: 60 },
      showlegend: true,
      legend: {
        orientation: "h",
        x: 0,
        xanchor: "left",
        y: 1,
        yanchor: "bottom",
      },
      hovermode: "closest",
      dragmode: "pan",
      xaxis: {
        ...axis("x (um)"),
        range: [view.x0 - 20, view.x1 + 20],
        autorange: false,
      },
      yaxis: {
        ...axis("y (um)"),
        range: [view.y0 - 20, view.y1 + 20],
        autorange: false,
        scaleanchor: "x",
      },
    },
  };
}

/** "rgba(0, 114, 178, 0.18)" from "#0072B2". */
function translucent(color: string, alpha: number): string {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}
