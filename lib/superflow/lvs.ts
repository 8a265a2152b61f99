/**
 * Layout versus schematic: the netlist that a layout really is, from the bytes of its GDSII file and
 * the library alone, and its comparison with the netlist that was placed.
 *
 * Shapes that touch on a layer are one conductor, and so are the layers above and below a via
 * (union-find). A conductor connects the pins whose points lie on its vertical layer; where these are
 * follows from the library and the place of each cell, and what a cell computes, inverted inputs
 * included, from the name of its structure. Names come from the texts on the cells.
 *
 * | problem | meaning |
 * | --- | --- |
 * | open | an input that no output reaches, or a connection whose ends are not joined |
 * | short | two outputs on one conductor, or an output that drives several inputs |
 * | swapped pins | a cell's inputs get each other's connections |
 * | wrong connection | an input gets another's connection |
 * | wrong cell | another kind of cell, or with other inverted inputs, than the netlist's |
 * | missing cell, extra cell | not in the layout, not in the netlist |
 * | labels | texts exchanged, missing or doubled; connection named differently than its driver |
 * | shape | something that the extraction does not understand |
 */
import Flatbush from "flatbush";
import { type CellLibrary, libraryCellOf } from "../core/aqfp.ts";
import {
  inputPinName,
  labelsOf,
  layoutNames,
  type LayoutShapes,
  NET_TEXT,
  outputPinName,
  PIN_TEXT,
  pinPoints,
  readLayout,
  type Rect,
  structureName,
} from "./layout.ts";
import { type Cell, checkNetlist, edges, type Netlist } from "./netlist.ts";
import type { PlacedNetlist } from "./placement.ts";

export type LvsKind =
  | "open"
  | "short"
  | "swapped pins"
  | "wrong connection"
  | "wrong cell"
  | "missing cell"
  | "extra cell"
  | "labels"
  | "shape";

/** One difference between the layout and the netlist, or what makes the layout no netlist. */
export interface LvsProblem {
  kind: LvsKind;
  /** Which cells and pins, what was expected and what was found, where. */
  message: string;
  /** Names of the cells concerned. */
  cells: string[];
}

/** A pin of a cell of the layout. */
interface Pin {
  cell: number;
  pin: number;
  /** um */
  x: number;
  y: number;
  /** The conductor it lies on; -1 if there is no metal. */
  conductor: number;
}

/** What a layout contains, before anything is compared. */
export interface Extraction {
  name: string;
  /** In the order of the file. */
  cells: {
    /** As on the layout, and as in the netlist. */
    text: string;
    name: string;
    structure: string;
    cell: Omit<Cell, "inputs" | "name"> | undefined;
    inverted: boolean[];
    inputs: Pin[];
    outputs: Pin[];
  }[];
  /** Texts of connections by conductor. */
  netTexts: Map<number, string[]>;
  /** What makes the layout no netlist. */
  problems: LvsProblem[];
  /** The netlist with rows and places, if every input has one driver and every cell is known. */
  netlist: PlacedNetlist | undefined;
}

/** um; far below a database unit. */
const EPSILON = 1e-6;

/** Disjoint sets with path halving. */
class Sets {
  readonly parent: Int32Array;

  constructor(n: number) {
    this.parent = Int32Array.from({ length: n }, (_, i) => i);
  }

  find(i: number): number {
    const { parent } = this;
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  }

  join(i: number, j: number): void {
    const [a, b] = [this.find(i), this.find(j)];
    // The smaller number leads, so that numbers do not depend on the order of joining.
    if (a < b) this.parent[b] = a;
    else this.parent[a] = b;
  }
}

function indexOf(rects: Rect[]): Flatbush {
  const index = new Flatbush(Math.max(1, rects.length));
  for (const { x0, y0, x1, y1 } of rects) index.add(x0, y0, x1, y1);
  if (rects.length === 0) index.add(Infinity, Infinity, Infinity, Infinity);
  index.finish();
  return index;
}

/** Conductors: of each vertical shape and of each horizontal one. */
function conductors({ vertical, horizontal, via }: LayoutShapes) {
  const shift = vertical.length;
  const sets = new Sets(shift + horizontal.length);
  const indices = [indexOf(vertical), indexOf(horizontal)];
  [vertical, horizontal].forEach((rects, layer) =>
    rects.forEach(({ x0, y0, x1, y1 }, i) => {
      indices[layer].search(x0, y0, x1, y1, (j) => {
        if (j > i) sets.join(layer * shift + i, layer * shift + j);
        return false;
      });
    })
  );
  for (const { x0, y0, x1, y1 } of via) {
    const [first, ...others] = indices.flatMap((index, layer) =>
      index.search(x0, y0, x1, y1).map((i) => layer * shift + i)
    );
    for (const other of others) sets.join(first, other);
  }
  return {
    /** The conductor at a point of the vertical layer, -1 if there is none. */
    at: (x: number, y: number) => {
      const e = EPSILON;
      const [found] = indices[0].search(x - e, y - e, x + e, y + e);
      return found === undefined ? -1 : sets.find(found);
    },
  };
}

function place(x: number, y: number): string {
  return `(${Math.round(x * 1000) / 1000}, ${Math.round(y * 1000) / 1000}) um`;
}

/**
 * The netlist of a layout from the bytes of its file.
 *
 * @throws SyntaxError if the bytes are no GDSII file.
 * @throws RangeError if the file has no or several top structures.
 */
export function extractNetlist(
  bytes: Uint8Array,
  library: CellLibrary,
): Extraction {
  const shapes = readLayout(bytes, library);
  const problems: LvsProblem[] = [];
  const add = (kind: LvsKind, message: string, ...cells: string[]) =>
    problems.push({ kind, message: `${kind}: ${message}`, cells });
  for (const { what, xUm, yUm } of shapes.angled) {
    add(
      "shape",
      `shapes must be made of rectangles: ${what} at ${place(xUm, yUm)}`,
    );
  }
  const { at } = conductors(shapes);
  const cells = shapes.instances.map((instance, i): Extraction["cells"][0] => {
    const { structure, cell, names, outline } = instance;
    const where = place(outline.x0, outline.y0);
    if (names.length !== 1) {
      add(
        "labels",
        `a cell must have one name: ${structure} at ${where} has ${
          names.map(({ text }) => text).join(", ") || "none"
        }`,
        ...names.map(({ original }) => original),
      );
    }
    const text = names[0]?.text ?? `unnamed_${i}`;
    const name = names[0]?.original ?? text;
    if (cell === undefined) {
      add(
        "shape",
        `structure ${structure} of ${name} must be a cell of library ${library.name}`,
        name,
      );
    }
    const points = pinPoints(instance, library) ?? { inputs: [], outputs: [] };
    const pins = (list: [number, number][]) =>
      list.map(([x, y], pin): Pin => ({
        cell: i,
        pin,
        x,
        y,
        conductor: at(x, y),
      }));
    const { inverted = [], ...kind } = cell ?? {};
    return {
      text,
      name,
      structure,
      cell: cell === undefined
        ? undefined
        : kind as Omit<Cell, "inputs" | "name">,
      inverted,
      inputs: pins(points.inputs),
      outputs: pins(points.outputs),
    };
  });
  checkPinTexts(shapes, library, add);
  const seen = new Map<string, number>();
  cells.forEach(({ text, name }, i) => {
    const other = seen.get(text);
    if (other !== undefined) {
      add("labels", `names must be unique: two cells are called ${name}`, name);
    }
    seen.set(text, i);
  });
  const netTexts = new Map<number, string[]>();
  for (const { text, texttype, xUm, yUm } of shapes.texts) {
    if (texttype !== NET_TEXT) continue;
    const conductor = at(xUm, yUm);
    if (conductor < 0) {
      add(
        "labels",
        `the name of a connection must lie on its vertical wire: ${text} at ${
          place(xUm, yUm)
        }`,
      );
    }
    netTexts.set(conductor, [...netTexts.get(conductor) ?? [], text]);
  }
  const drivers = new Map<number, Pin[]>();
  const loads = new Map<number, Pin[]>();
  for (const { inputs, outputs } of cells) {
    for (const [pins, by] of [[outputs, drivers], [inputs, loads]] as const) {
      for (const pin of pins) {
        if (pin.conductor < 0) continue;
        const list = by.get(pin.conductor);
        if (list === undefined) by.set(pin.conductor, [pin]);
        else list.push(pin);
      }
    }
  }
  const outputName = ({ cell, pin }: Pin) =>
    `${cells[cell].name}.${outputPinName(pin, cells[cell].outputs.length)}`;
  const inputName = ({ cell, pin }: Pin) =>
    `${cells[cell].name}.${inputPinName(pin)}`;
  const named = (
    pins: Pin[],
  ) => [...new Set(pins.map(({ cell }) => cells[cell].name))];
  for (const [conductor, pins] of drivers) {
    const fed = loads.get(conductor) ?? [];
    if (pins.length > 1) {
      add(
        "short",
        `outputs must not be joined: ${
          pins.map((pin) => `${outputName(pin)} at ${place(pin.x, pin.y)}`)
            .join(", ")
        }`,
        ...named(pins),
      );
    } else if (fed.length > 1) {
      add(
        "short",
        `an output must drive one input: ${outputName(pins[0])} drives ${
          fed.map(inputName).join(", ")
        }`,
        ...named([...pins, ...fed]),
      );
    }
  }
  for (const { inputs } of cells) {
    for (const pin of inputs) {
      if (!drivers.has(pin.conductor)) {
        add(
          "open",
          `no output reaches ${inputName(pin)} at ${place(pin.x, pin.y)}`,
          cells[pin.cell].name,
        );
      }
    }
  }
  const complete = problems.length === 0;
  const extraction: Extraction = {
    name: shapes.top,
    cells,
    netTexts,
    problems,
    netlist: undefined,
  };
  if (complete) {
    extraction.netlist = netlistOf(extraction, shapes, drivers, library);
  }
  return extraction;
}

/** The texts at a structure's pins must be the library's. */
function checkPinTexts(
  { instances, texts }: LayoutShapes,
  library: CellLibrary,
  add: (kind: LvsKind, message: string, ...cells: string[]) => void,
): void {
  const checked = new Set<string>();
  for (const { text, texttype, xUm, yUm, instance } of texts) {
    if (texttype !== PIN_TEXT || instance < 0) continue;
    const points = pinPoints(instances[instance], library);
    const { structure } = instances[instance];
    const pins = [
      ...points?.inputs.map((p, i) => [inputPinName(i), p] as const) ?? [],
      ...points?.outputs.map((p, i) =>
        [outputPinName(i, points.outputs.length), p] as const
      ) ?? [],
    ];
    const pin = pins.find(([, [x, y]]) =>
      Math.abs(x - xUm) < EPSILON && Math.abs(y - yUm) < EPSILON
    );
    if (pin?.[0] !== text && !checked.has(`${structure} ${text}`)) {
      checked.add(`${structure} ${text}`);
      add(
        "labels",
        `a pin of structure ${structure} must be called ${
          pin?.[0] ?? "nothing"
        } as in library ${library.name}: ${text} at ${place(xUm, yUm)}`,
      );
    }
  }
}

/** The netlist of an extraction without problems. */
function netlistOf(
  { name, cells }: Extraction,
  { instances }: LayoutShapes,
  drivers: Map<number, Pin[]>,
  library: CellLibrary,
): PlacedNetlist {
  const heights = [...new Set(instances.map(({ outline }) => outline.y0))]
    .sort((a, b) => a - b);
  const rows = new Map(heights.map((y, row) => [y, row]));
  const netlist: PlacedNetlist = {
    name,
    cells: cells.map(({ name, cell, inverted, inputs }) => ({
      name,
      ...cell!,
      inputs: inputs.map(({ conductor }, i) => {
        const [{ cell, pin }] = drivers.get(conductor)!;
        return { cell, pin, inverted: inverted[i] };
      }),
    })),
    levels: Int32Array.from(instances, ({ outline }) => rows.get(outline.y0)!),
    x: Int32Array.from(
      instances,
      ({ outline }) => Math.round(outline.x0 / library.gridUm),
    ),
  };
  checkNetlist(netlist);
  return netlist;
}

/** An input that another output reaches than the netlist's. */
interface WrongInput {
  /** Names with pins: the input, the output that should reach it, the one that does. */
  to: string;
  wanted: string;
  actual: string;
  /** Names of their cells. */
  sink: string;
  driver: string;
  actualDriver: string;
}

export interface LvsResult {
  /** True if the layout is exactly the netlist. */
  equal: boolean;
  problems: LvsProblem[];
  /** What the layout is, with original names, rows and places; undefined if it is no netlist. */
  netlist: PlacedNetlist | undefined;
}

/** Problems listed at most; the rest follows from these. */
const MAX_PROBLEMS = 200;

/**
 * Compares a layout with the netlist that was placed.
 *
 * @param bytes The GDSII file: all that is known of the layout.
 * @returns Problems that name cells and pins; none if layout and netlist are equal.
 * @throws SyntaxError if the bytes are no GDSII file.
 */
export function compareLayout(
  bytes: Uint8Array,
  netlist: Netlist,
  library: CellLibrary,
): LvsResult {
  const extraction = extractNetlist(bytes, library);
  const names = layoutNames(netlist.cells.map(({ name }) => name));
  let problems = differences(extraction, netlist, names, library);
  const exchanged = problems.length === 0
    ? undefined
    : exchangedLabels(extraction, netlist, names, library, problems);
  if (exchanged !== undefined) problems = [exchanged];
  problems = [...extraction.problems, ...problems].slice(0, MAX_PROBLEMS);
  return {
    equal: problems.length === 0,
    problems,
    netlist: extraction.netlist,
  };
}

/** Differences of cells and connections, cells found by their names. */
function differences(
  { cells, netTexts, problems: known }: Extraction,
  netlist: Netlist,
  names: string[],
  library: CellLibrary,
): LvsProblem[] {
  const problems: LvsProblem[] = [];
  const add = (kind: LvsKind, message: string, ...cells: string[]) =>
    problems.push({ kind, message: `${kind}: ${message}`, cells });
  const byText = new Map(cells.map((cell) => [cell.text, cell]));
  const expected = new Set(names);
  for (const { text, name, structure } of cells) {
    if (!expected.has(text)) {
      add("extra cell", `${structure} ${name} is not in the netlist`, name);
    }
  }
  netlist.cells.forEach((cell, i) => {
    const found = byText.get(names[i]);
    if (found === undefined) {
      add("missing cell", `${cell.kind} ${cell.name} must be there`, cell.name);
    } else if (found.structure !== structureName(cell)) {
      add(
        "wrong cell",
        `${cell.name} must be ${structureName(cell)}, not ${found.structure}`,
        cell.name,
      );
    }
  });
  // Which output stands on each conductor, as the layout has it.
  const drivers = new Map<number, { name: string; output: string }>();
  for (const { name, outputs } of cells) {
    for (const { conductor, pin } of outputs) {
      const output = `${name}.${outputPinName(pin, outputs.length)}`;
      if (conductor >= 0) drivers.set(conductor, { name, output });
    }
  }
  const labels = labelsOf(netlist.cells, library);
  const wrong: WrongInput[] = [];
  const outputs = netlist.cells.map((cell) =>
    libraryCellOf(library, cell).outputsUm.length
  );
  const shorted = new Set(
    known.flatMap(({ kind, cells }) => kind === "short" ? cells : []),
  );
  for (const edge of edges(netlist)) {
    const sink = byText.get(names[edge.sink]);
    const from = byText.get(names[edge.driver]);
    const input = sink?.inputs[edge.input];
    const output = from?.outputs[edge.pin];
    if (input === undefined || output === undefined) continue;
    const source = `${from!.name}.${
      outputPinName(edge.pin, outputs[edge.driver])
    }`;
    if (input.conductor < 0 || input.conductor !== output.conductor) {
      const actual = drivers.get(input.conductor);
      const to = `${sink!.name}.${inputPinName(edge.input)}`;
      if (actual === undefined) {
        add(
          "open",
          `${source} at ${place(output.x, output.y)} must reach ${to} at ${
            place(input.x, input.y)
          }`,
          from!.name,
          sink!.name,
        );
      } else {
        wrong.push({
          to,
          wanted: source,
          actual: actual.output,
          sink: sink!.name,
          driver: from!.name,
          actualDriver: actual.name,
        });
      }
      continue;
    }
    const texts = netTexts.get(input.conductor) ?? [];
    const label = labels.net(edge.driver, edge.pin);
    if (
      !(texts.length === 1 && texts[0] === label) && !shorted.has(from!.name)
    ) {
      add(
        "labels",
        `the connection from ${source} must be called ${label}, not ${
          texts.join(", ") || "nothing"
        }`,
        from!.name,
      );
    }
  }
  addWrong(wrong, add);
  return problems;
}

/** Inputs with another's driver: those of one cell that exchanged theirs are swapped pins. */
function addWrong(
  wrong: WrongInput[],
  add: (kind: LvsKind, message: string, ...cells: string[]) => void,
): void {
  const bySink = new Map<string, WrongInput[]>();
  for (const input of wrong) {
    bySink.set(input.sink, [...bySink.get(input.sink) ?? [], input]);
  }
  for (const [sink, list] of bySink) {
    const wanted = list.map(({ wanted }) => wanted).sort().join();
    const actual = list.map(({ actual }) => actual).sort().join();
    const what = list.map((input) =>
      `${input.to} must be driven by ${input.wanted}, not ${input.actual}`
    );
    if (list.length > 1 && wanted === actual) {
      const drivers = list.map(({ driver }) => driver);
      add("swapped pins", `of ${sink}: ${what.join("; ")}`, sink, ...drivers);
    } else {
      list.forEach(({ driver, actualDriver }, i) =>
        add("wrong connection", what[i], sink, driver, actualDriver)
      );
    }
  }
}

/** Cells tried in pairs for exchanged names: those that the most problems concern. */
const MAX_SUSPECTS = 12;

/** The pair of cells whose names, if exchanged, explain all differences. */
function exchangedLabels(
  extraction: Extraction,
  netlist: Netlist,
  names: string[],
  library: CellLibrary,
  problems: LvsProblem[],
): LvsProblem | undefined {
  const counts = new Map<string, number>();
  for (const { cells } of problems) {
    for (const name of cells) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const suspects = [...counts].sort((a, b) => b[1] - a[1])
    .slice(0, MAX_SUSPECTS).map(([name]) =>
      extraction.cells.findIndex((cell) => cell.name === name)
    ).filter((i) => i >= 0);
  for (const i of suspects) {
    for (const j of suspects) {
      if (j <= i) continue;
      const [a, b] = [extraction.cells[i], extraction.cells[j]];
      const cells = [...extraction.cells];
      cells[i] = { ...a, text: b.text, name: b.name };
      cells[j] = { ...b, text: a.text, name: a.name };
      const rest = differences(
        { ...extraction, cells },
        netlist,
        names,
        library,
      );
      if (rest.length === 0) {
        const pair = [a.name, b.name].sort();
        return {
          kind: "labels",
          message: `labels: the names of ${pair.join(" and ")} are exchanged`,
          cells: pair,
        };
      }
    }
  }
  return undefined;
}
