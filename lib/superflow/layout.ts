/**
 * Layouts: a routed design as GDSII, and the shapes of a layout read back from the bytes.
 *
 * Structures, one for each kind of cell in use, named as in the public netlists of AQFP circuits: bfr,
 * inv, spl2, spl3L, spl4L, and_bi, or_bb, maj_bib ... with one letter per input, b plain and i
 * inverted, because an inversion is part of the receiving gate; in and out for ports, const0 and
 * const1. Each has its outline, a square of the vertical wiring layer and of the pin layer at every pin,
 * and the pins' names as texts. `via` joins the layers. The top structure holds references to these, a
 * path for each straight wire, and texts: names of cells and ports, and of the connections.
 *
 * | texttype of the label layer | text |
 * | --- | --- |
 * | 0 | name of a cell or port, at its centre |
 * | 1 | name of a connection: its driver's, with the pin where there are several |
 * | 2 | name of a pin, in the cells |
 *
 * Names keep to letters, digits, _ and $ (brackets in names break other tools' netlist comparison); where
 * that changed a name, property 1 of its text is the original.
 *
 * A database unit is 1 nm. The same design gives the same bytes.
 *
 * Scope: right angles. The clock's lines and the inside of cells are not drawn: the cells are
 * outlines of our own library, to be replaced by a foundry's through structures of the same names.
 */
import {
  type CellLibrary,
  type LibraryCell,
  libraryCellOf,
  libraryKey,
} from "../core/aqfp.ts";
import {
  flatten,
  type GdsElement,
  type GdsLibrary,
  type GdsPlacement,
  type GdsStructure,
  readGds,
  topStructures,
  writeGds,
} from "../core/formats/gds.ts";
import type { Cell, CellKind } from "./netlist.ts";
import type { RoutedDesign } from "./routing.ts";

/** Database units per micrometre, and one in metres. */
export const DBU_PER_UM = 1000;
const DBU_M = 1e-9;

const VIA = "via";
export const CELL_TEXT = 0;
export const NET_TEXT = 1;
export const PIN_TEXT = 2;
/** Attribute of the property that keeps a name that GDSII cannot. */
const NAME_PROPERTY = 1;
const MAX_NAME_LENGTH = 120;

// Names -------------------------------------------------------------------------------------------

/** What a structure's name says of the cell. */
export interface StructureCell {
  kind: CellKind;
  arity?: number;
  value?: 0 | 1;
  inverted: boolean[];
}

/** Structures whose names are not built from parts. */
const PLAIN_STRUCTURES: Record<string, StructureCell> = {
  in: { kind: "input", inverted: [] },
  out: { kind: "output", inverted: [false] },
  const0: { kind: "constant", value: 0, inverted: [] },
  const1: { kind: "constant", value: 1, inverted: [] },
  bfr: { kind: "buffer", inverted: [false] },
  inv: { kind: "inverter", inverted: [false] },
};

/**
 * Name of the structure for a cell.
 *
 * @throws RangeError if an input is inverted that cannot be.
 */
export function structureName(cell: Cell): string {
  const { kind, inputs, arity = 0, name } = cell;
  if (kind === "and" || kind === "or" || kind === "maj") {
    return `${kind}_${inputs.map((i) => i.inverted ? "i" : "b").join("")}`;
  }
  if (inputs.some(({ inverted }) => inverted)) {
    throw new RangeError(
      `Cannot lay out ${kind} ${name} as only gates can invert an input: an inverter must drive it`,
    );
  }
  if (kind === "splitter") return `spl${arity}${arity > 2 ? "L" : ""}`;
  if (kind === "constant") return `const${cell.value}`;
  return Object.keys(PLAIN_STRUCTURES).find((key) =>
    PLAIN_STRUCTURES[key].kind === kind
  )!;
}

/**
 * The inverse of `structureName`; undefined for structures that are no cells.
 *
 * @example
 * ```ts
 * structureCell("maj_bib"); // { kind: "maj", inverted: [false, true, false] }
 * ```
 */
export function structureCell(name: string): StructureCell | undefined {
  if (Object.hasOwn(PLAIN_STRUCTURES, name)) return PLAIN_STRUCTURES[name];
  const splitter = /^spl(2|[3-9]L|[1-9]\d+L)$/.exec(name);
  if (splitter !== null) {
    return {
      kind: "splitter",
      arity: parseInt(splitter[1]),
      inverted: [false],
    };
  }
  const gate = /^(?:(and|or)_([bi]{2})|(maj)_([bi]{3}))$/.exec(name);
  if (gate === null) return undefined;
  return {
    kind: (gate[1] ?? gate[3]) as CellKind,
    inverted: [...(gate[2] ?? gate[4])].map((letter) => letter === "i"),
  };
}

/** Names of the input pins, as in the public netlists. */
export function inputPinName(input: number): string {
  return String.fromCharCode("a".charCodeAt(0) + input);
}

/** Names of the output pins: q, or q0, q1 ... of several. */
export function outputPinName(pin: number, outputs: number): string {
  return outputs === 1 ? "q" : `q${pin}`;
}

/**
 * Names that every reader of layouts accepts, one for each of the given ones and all different:
 * letters, digits, _ and $. Names that are so already stay.
 *
 * @example
 * ```ts
 * layoutNames(["sum[0]", "sum_0_", "cout"]); // ["sum_0__2", "sum_0_", "cout"]
 * ```
 */
export function layoutNames(names: string[]): string[] {
  const safe = /^[A-Za-z0-9_$]+$/;
  const keeps = (name: string) =>
    safe.test(name) && name.length <= MAX_NAME_LENGTH;
  const used = new Set(names.filter(keeps));
  const next = new Map<string, number>();
  return names.map((name) => {
    if (keeps(name)) return name;
    const stem = name.replace(/[^A-Za-z0-9_$]/g, "_")
      .slice(0, MAX_NAME_LENGTH - 10) || "_";
    let n = next.get(stem) ?? 1;
    let free = stem;
    while (used.has(free)) free = `${stem}_${++n}`;
    next.set(stem, n);
    used.add(free);
    return free;
  });
}

/** A name in printable ASCII without backslashes, to be undone by `decodeName`. */
function encodeName(name: string): string {
  return name.replace(
    /[^\x20-\x5b\x5d-\x7e]/g,
    (c) => `\\${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function decodeName(text: string): string {
  return text.replace(
    /\\([0-9a-f]{4})/g,
    (_, code) => String.fromCharCode(parseInt(code, 16)),
  );
}

// Writing -----------------------------------------------------------------------------------------

function rectangle(
  layer: number,
  x0: number,
  y0: number,
  x1: number,
  y1: number,
): GdsElement {
  const xy = Int32Array.of(x0, y0, x1, y0, x1, y1, x0, y1, x0, y0);
  return { type: "boundary", layer, datatype: 0, xy };
}

function square(layer: number, x: number, y: number, side: number): GdsElement {
  const half = Math.round(side / 2);
  return rectangle(layer, x - half, y - half, x + half, y + half);
}

function label(
  layer: number,
  texttype: number,
  x: number,
  y: number,
  text: string,
  original = text,
): GdsElement {
  return {
    type: "text",
    layer,
    texttype,
    // Centred on the point, both ways.
    presentation: 5,
    text,
    xy: Int32Array.of(x, y),
    ...(original === text ? {} : {
      properties: [[NAME_PROPERTY, encodeName(original)]],
    }),
  };
}

const dbu = (um: number) => Math.round(um * DBU_PER_UM);

function cellStructure(
  name: string,
  cell: LibraryCell,
  { rules }: CellLibrary,
): GdsStructure {
  const { outline, vertical, pin, label: labelLayer } = rules.gdsLayers;
  const [width, height] = [dbu(cell.widthUm), dbu(cell.heightUm)];
  const side = dbu(rules.wireWidthUm);
  const pins: [string, number, number][] = [
    ...cell.inputsUm.map((um, i): [string, number, number] => [
      inputPinName(i),
      dbu(um),
      0,
    ]),
    ...cell.outputsUm.map((um, i): [string, number, number] => [
      outputPinName(i, cell.outputsUm.length),
      dbu(um),
      height,
    ]),
  ];
  return {
    name,
    elements: [
      rectangle(outline, 0, 0, width, height),
      ...pins.flatMap(([pinName, x, y]) => [
        square(vertical, x, y, side),
        square(pin, x, y, side),
        label(labelLayer, PIN_TEXT, x, y, pinName),
      ]),
    ],
  };
}

function viaStructure({ rules }: CellLibrary): GdsStructure {
  const { horizontal, vertical, via } = rules.gdsLayers;
  const pad = Math.max(
    rules.wireWidthUm,
    rules.viaSizeUm + 2 * rules.viaEnclosureUm,
  );
  return {
    name: VIA,
    elements: [
      square(via, 0, 0, dbu(rules.viaSizeUm)),
      square(horizontal, 0, 0, dbu(pad)),
      square(vertical, 0, 0, dbu(pad)),
    ],
  };
}

/** Name of the top structure: that of the design, apart from those of the cells. */
function topName(name: string): string {
  const [safe] = layoutNames([name]);
  return safe === VIA || structureCell(safe) !== undefined
    ? `${safe}_top`
    : safe;
}

/** Names of cells as the layout writes them, and of the connection at each output pin. */
export function labelsOf(
  cells: Cell[],
  library: CellLibrary,
): { cells: string[]; net: (cell: number, pin: number) => string } {
  const names = layoutNames(cells.map(({ name }) => name));
  return {
    cells: names,
    net: (cell, pin) => {
      const { outputsUm } = libraryCellOf(library, cells[cell]);
      return outputsUm.length === 1 ? names[cell] : `${names[cell]}_q${pin}`;
    },
  };
}

/** Most database units of a coordinate: GDSII has 32 bits. */
const MAX_DBU = 2 ** 31 - 1;

/** @throws RangeError if the chip is too large for GDSII's coordinates. */
function requireCoordinates(
  { placed: { name, cells, x }, library, rowY, rowHeight }: RoutedDesign,
): void {
  const { gridUm } = library;
  const last = rowY.length - 1;
  let farUm = last < 0 ? 0 : (rowY[last] + rowHeight[last]) * gridUm;
  cells.forEach((cell, i) => {
    const { widthUm } = libraryCellOf(library, cell);
    farUm = Math.max(farUm, x[i] * gridUm + widthUm);
  });
  // Half of it, as wires may lead around the outermost cells.
  if (!(farUm * DBU_PER_UM <= MAX_DBU / 2)) {
    throw new RangeError(
      `Cannot lay out ${name} as width and height must be at most ${
        MAX_DBU / 2 / DBU_PER_UM / 1e6
      } m, which GDSII's coordinates of 1 nm can hold: ${farUm / 1e6} m`,
    );
  }
}

/** The layout of a routed design, as data; `layoutBytes` gives the file. */
export function layoutGds(design: RoutedDesign): GdsLibrary {
  const { placed, library, rowY, wires } = design;
  const { rules, gridUm } = library;
  const { cells, levels, x } = placed;
  const layers = rules.gdsLayers;
  const labels = labelsOf(cells, library);
  const grid = dbu(gridUm);
  requireCoordinates(design);
  const structures = new Map<string, GdsStructure>();
  const references: GdsElement[] = [];
  const texts: GdsElement[] = [];
  cells.forEach((cell, i) => {
    const name = structureName(cell);
    const { widthUm, heightUm } = libraryCellOf(library, cell);
    if (!structures.has(name)) {
      structures.set(
        name,
        cellStructure(name, libraryCellOf(library, cell), library),
      );
    }
    const [left, low] = [x[i] * grid, rowY[levels[i]] * grid];
    references.push({
      type: "sref",
      structure: name,
      xy: Int32Array.of(left, low),
    });
    texts.push(label(
      layers.label,
      CELL_TEXT,
      left + Math.round(dbu(widthUm) / 2),
      low + Math.round(dbu(heightUm) / 2),
      labels.cells[i],
      cell.name,
    ));
  });
  const paths: GdsElement[] = [];
  const vias: GdsElement[] = [];
  for (const { edge, segments, vias: points } of wires) {
    for (const { layer, x0, y0, x1, y1 } of segments) {
      paths.push({
        type: "path",
        layer: layers[layer],
        datatype: 0,
        pathtype: 2,
        width: dbu(rules.wireWidthUm),
        xy: Int32Array.of(x0 * grid, y0 * grid, x1 * grid, y1 * grid),
      });
    }
    for (const point of points) {
      vias.push({
        type: "sref",
        structure: VIA,
        xy: Int32Array.of(point.x * grid, point.y * grid),
      });
    }
    const last = segments[segments.length - 1];
    texts.push(label(
      layers.label,
      NET_TEXT,
      last.x1 * grid,
      (last.y1 - 1) * grid + grid / 2,
      labels.net(edge.driver, edge.pin),
    ));
  }
  if (vias.length > 0) structures.set(VIA, viaStructure(library));
  return {
    name: "ADIABAT",
    userUnit: 1 / DBU_PER_UM,
    unitM: DBU_M,
    structures: [
      ...[...structures.keys()].sort().map((name) => structures.get(name)!),
      {
        name: topName(placed.name),
        elements: [...references, ...paths, ...vias, ...texts],
      },
    ],
  };
}

/** Bytes of the GDSII file of a routed design; the same for the same design. */
export function layoutBytes(design: RoutedDesign): Uint8Array {
  return writeGds(layoutGds(design));
}

// Reading -----------------------------------------------------------------------------------------

/** A rectangle in um and whose it is: the number of an instance, or -1 for wiring. */
export interface Rect {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
  instance: number;
  /** One of several that make a polygon: only the width given is one of the polygon's. */
  part?: { widthUm: number };
}

/** A cell of the layout: a reference to a structure that has an outline or a cell's name. */
export interface Instance {
  structure: string;
  /** What the name says; undefined if it says nothing or the library has no such cell. */
  cell: StructureCell | undefined;
  placement: GdsPlacement;
  /** um */
  outline: Rect;
  /** From the text on it: its only one, with the original name if that was changed. */
  names: { text: string; original: string }[];
}

export interface LayoutText {
  text: string;
  original: string;
  texttype: number;
  xUm: number;
  yUm: number;
  instance: number;
}

/** Everything that the checks know of a layout; made from the file's bytes. */
export interface LayoutShapes {
  top: string;
  instances: Instance[];
  horizontal: Rect[];
  vertical: Rect[];
  via: Rect[];
  pin: Rect[];
  /** Polygons cut the other way, from side to side: their heights, too, are widths of wires. */
  columns: { layer: "horizontal" | "vertical"; rect: Rect }[];
  texts: LayoutText[];
  /** Shapes on the layers above that are no union of rectangles. */
  angled: { what: string; xUm: number; yUm: number }[];
}

/**
 * Rectangles of a closed polygon with right angles; undefined if it has others.
 *
 * @param xy Corners x, y, x, y ...; the last repeats the first.
 * @returns x0, y0, x1, y1 of each, from below; cut along horizontal lines.
 *
 * @example
 * ```ts
 * rectanglesOf([0, 0, 2, 0, 2, 1, 1, 1, 1, 2, 0, 2, 0, 0]); // [[0, 0, 2, 1], [0, 1, 1, 2]]
 * ```
 */
export function rectanglesOf(
  xy: ArrayLike<number>,
): [number, number, number, number][] | undefined {
  const n = xy.length / 2 - 1;
  const sides: { x: number; low: number; high: number }[] = [];
  const ys = new Set<number>();
  for (let i = 0; i < n; i++) {
    const [xa, ya, xb, yb] = [0, 1, 2, 3].map((k) => xy[2 * i + k]);
    if (xa !== xb && ya !== yb) return undefined;
    ys.add(ya).add(yb);
    if (xa === xb && ya !== yb) {
      sides.push({ x: xa, low: Math.min(ya, yb), high: Math.max(ya, yb) });
    }
  }
  if (xy[0] !== xy[2 * n] || xy[1] !== xy[2 * n + 1]) return undefined;
  const levels = [...ys].sort((a, b) => a - b);
  sides.sort((a, b) => a.x - b.x);
  const rectangles: [number, number, number, number][] = [];
  for (let i = 1; i < levels.length; i++) {
    const [low, high] = [levels[i - 1], levels[i]];
    const crossing = sides.filter((s) => s.low <= low && s.high >= high);
    for (let k = 1; k < crossing.length; k += 2) {
      rectangles.push([crossing[k - 1].x, low, crossing[k].x, high]);
    }
  }
  return rectangles;
}

/** Rectangles of a path with right angles; undefined if it has others or round ends. */
function rectanglesOfPath(
  { xy, width = 0, pathtype = 0, beginExtension = 0, endExtension = 0 }:
    & GdsElement
    & { type: "path" },
): [number, number, number, number][] | undefined {
  const half = Math.abs(width) / 2;
  const ends = pathtype === 0
    ? [0, 0]
    : pathtype === 2
    ? [half, half]
    : pathtype === 4
    ? [beginExtension, endExtension]
    : undefined;
  if (ends === undefined || half === 0) return undefined;
  const rectangles: [number, number, number, number][] = [];
  const last = xy.length / 2 - 1;
  for (let i = 0; i < last; i++) {
    const [xa, ya, xb, yb] = [0, 1, 2, 3].map((k) => xy[2 * i + k]);
    if (xa !== xb && ya !== yb) return undefined;
    const before = i === 0 ? ends[0] : half;
    const after = i === last - 1 ? ends[1] : half;
    const along = Math.sign(xb - xa) || Math.sign(yb - ya) || 1;
    const [low, high] = along > 0 ? [before, after] : [after, before];
    rectangles.push(
      xa === xb
        ? [
          xa - half,
          Math.min(ya, yb) - low,
          xa + half,
          Math.max(ya, yb) + high,
        ]
        : [
          Math.min(xa, xb) - low,
          ya - half,
          Math.max(xa, xb) + high,
          ya + half,
        ],
    );
  }
  return rectangles;
}

/** A point of a structure where its reference puts it. */
export function placePoint(
  { a, b, c, d, dx, dy }: GdsPlacement,
  x: number,
  y: number,
): [number, number] {
  return [a * x + b * y + dx, c * x + d * y + dy];
}

/**
 * Shapes, cells and texts of a layout, from the bytes of a GDSII file and the layers of the library.
 *
 * @throws SyntaxError if the bytes are no GDSII file.
 * @throws RangeError if the file has no or several top structures, or too many shapes.
 */
export function readLayout(
  bytes: Uint8Array,
  library: CellLibrary,
): LayoutShapes {
  const gds = readGds(bytes);
  const layers = library.rules.gdsLayers;
  // A cell that is not in use is no layout.
  const tops = topStructures(gds).filter((name) =>
    structureCell(name) === undefined && name !== VIA
  );
  if (tops.length !== 1) {
    throw new RangeError(
      `Cannot read layout ${gds.name} as it must have one top structure: ${
        tops.slice(0, 5).join(", ") || "none"
      }`,
    );
  }
  const outlined = new Set(
    gds.structures.filter(({ elements }) =>
      elements.some((e) =>
        e.type === "boundary" && e.layer === layers.outline && e.datatype === 0
      )
    ).map(({ name }) => name),
  );
  const scale = gds.unitM * 1e6;
  // By division where a micrometre is a whole number of units: it rounds once.
  const perUm = Math.round(1 / scale);
  const um = Math.abs(perUm * scale - 1) < 1e-9
    ? (units: number) => units / perUm
    : (units: number) => units * scale;
  const shapes: LayoutShapes = {
    top: tops[0],
    instances: [],
    horizontal: [],
    vertical: [],
    via: [],
    pin: [],
    columns: [],
    texts: [],
    angled: [],
  };
  const byLayer = new Map<number, Rect[]>([
    [layers.horizontal, shapes.horizontal],
    [layers.vertical, shapes.vertical],
    [layers.via, shapes.via],
    [layers.pin, shapes.pin],
  ]);
  flatten(gds, tops[0], (element, placement, instance) => {
    const [x, y] = placePoint(placement, element.xy[0], element.xy[1]);
    if (element.type === "node") return;
    if (element.type === "text") {
      if (element.layer !== layers.label) return;
      const property = element.properties?.find(([attribute]) =>
        attribute === NAME_PROPERTY
      );
      shapes.texts.push({
        text: element.text,
        original: property === undefined
          ? element.text
          : decodeName(property[1]),
        texttype: element.texttype,
        xUm: um(x),
        yUm: um(y),
        instance,
      });
      return;
    }
    // A layer is a number and a datatype: another datatype is another layer, and no metal of ours.
    if ((element.type === "box" ? element.boxtype : element.datatype) !== 0) {
      return;
    }
    const outline = element.layer === layers.outline && instance >= 0;
    const list = byLayer.get(element.layer);
    if (list === undefined && !outline) return;
    const rectangles = element.type === "path"
      ? rectanglesOfPath(element)
      : rectanglesOf(element.xy);
    if (rectangles === undefined) {
      shapes.angled.push({
        what: `${element.type} on layer ${element.layer}`,
        xUm: um(x),
        yUm: um(y),
      });
      return;
    }
    const polygon = element.type === "boundary" && rectangles.length > 1;
    const placed = (
      [x0, y0, x1, y1]: [number, number, number, number],
      width: number,
    ): Rect => {
      const [xa, ya] = placePoint(placement, x0, y0);
      const [xb, yb] = placePoint(placement, x1, y1);
      return {
        x0: um(Math.min(xa, xb)),
        y0: um(Math.min(ya, yb)),
        x1: um(Math.max(xa, xb)),
        y1: um(Math.max(ya, yb)),
        instance,
        ...(polygon ? { part: { widthUm: um(width) } } : {}),
      };
    };
    for (const corners of rectangles) {
      const rect = placed(corners, corners[2] - corners[0]);
      if (list !== undefined) list.push(rect);
      else {
        const whole = shapes.instances[instance].outline;
        whole.x0 = Math.min(whole.x0, rect.x0);
        whole.y0 = Math.min(whole.y0, rect.y0);
        whole.x1 = Math.max(whole.x1, rect.x1);
        whole.y1 = Math.max(whole.y1, rect.y1);
      }
    }
    const layer = list === shapes.horizontal
      ? "horizontal"
      : list === shapes.vertical
      ? "vertical"
      : undefined;
    if (!polygon || layer === undefined) return;
    const turned = element.xy.map((_, i, xy) => xy[i ^ 1]);
    for (const [y0, x0, y1, x1] of rectanglesOf(turned) ?? []) {
      const rect = placed([x0, y0, x1, y1], y1 - y0);
      shapes.columns.push({ layer, rect });
    }
  }, {
    enter: (structure, placement) => {
      const named = structureCell(structure);
      if (named === undefined && !outlined.has(structure)) return undefined;
      const known = named !== undefined &&
        Object.hasOwn(library.cells, libraryKey(named));
      const cell = known ? named : undefined;
      const [dx, dy] = [um(placement.dx), um(placement.dy)];
      shapes.instances.push({
        structure,
        cell,
        placement: { ...placement, dx, dy },
        outline: {
          x0: Infinity,
          y0: Infinity,
          x1: -Infinity,
          y1: -Infinity,
          instance: shapes.instances.length,
        },
        names: [],
      });
      return shapes.instances.length - 1;
    },
  });
  for (const { outline, placement } of shapes.instances) {
    if (outline.x0 <= outline.x1) continue;
    // A cell without an outline is a point.
    outline.x0 = outline.x1 = placement.dx;
    outline.y0 = outline.y1 = placement.dy;
  }
  nameInstances(shapes);
  return shapes;
}

/** Gives each cell the texts that lie on it. */
function nameInstances({ instances, texts }: LayoutShapes): void {
  // Cells by the row they stand on, from left to right: one search finds the cell under a point.
  const rows = new Map<number, Instance[]>();
  for (const instance of instances) {
    const row = rows.get(instance.outline.y0);
    if (row === undefined) rows.set(instance.outline.y0, [instance]);
    else row.push(instance);
  }
  const lows = [...rows.keys()].sort((a, b) => a - b);
  for (const row of rows.values()) {
    row.sort((a, b) => a.outline.x0 - b.outline.x0);
  }
  for (const { text, original, texttype, xUm, yUm, instance } of texts) {
    if (texttype !== CELL_TEXT || instance >= 0) continue;
    for (let r = lastAtMost(lows, yUm, (y) => y); r >= 0; r--) {
      const row = rows.get(lows[r])!;
      const i = lastAtMost(row, xUm, ({ outline }) => outline.x0);
      const { x1, y1 } = row[i]?.outline ?? { x1: -Infinity, y1: -Infinity };
      if (xUm <= x1 && yUm <= y1) {
        row[i].names.push({ text, original });
        break;
      }
    }
  }
}

/** Index of the last item whose value is at most `x` in a sorted list; -1 if none. */
export function lastAtMost<T>(
  list: T[],
  x: number,
  value: (item: T) => number,
): number {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value(list[middle]) <= x) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Where the pins of a cell are, in um, from the library and where the layout puts the cell. */
export function pinPoints(
  { cell, placement }: Instance,
  library: CellLibrary,
): { inputs: [number, number][]; outputs: [number, number][] } | undefined {
  if (cell === undefined) return undefined;
  const { inputsUm, outputsUm, heightUm } = libraryCellOf(library, cell);
  return {
    inputs: inputsUm.map((x) => placePoint(placement, x, 0)),
    outputs: outputsUm.map((x) => placePoint(placement, x, heightUm)),
  };
}
