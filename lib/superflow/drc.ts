/**
 * Design rule check of a layout, from the bytes of its GDSII file and the library.
 *
 * The checks know nothing of the router: they see rectangles, as a foundry's would.
 *
 * | rule | what is checked |
 * | --- | --- |
 * | width | every shape of a wiring layer, and every place where two of them join |
 * | spacing | shapes that do not touch, and notches: Euclidean distance |
 * | enclosure | vias have their size, and both layers surround them |
 * | overlap | outlines of cells; wires over cells other than at their pins |
 * | grid | cells, wires and vias lie on the grid |
 * | pin access | structures have the library's pins; a wire meets every input |
 * | row boundary | cells stand in rows; tracks run between rows; no wire crosses a row |
 * | shape | what is no union of rectangles, or a cell that the library does not have |
 *
 * `repair` widens and routes anew the channels with violations, one by one, and checks again.
 *
 * Scope: the two wiring layers, vias and cell outlines of `CellLibrary`. Inside of cells, density and
 * antenna rules are absent: no process kit is public.
 */
import Flatbush from "flatbush";
import { type CellLibrary, libraryCellOf } from "../core/aqfp.ts";
import {
  inputPinName,
  type Instance,
  lastAtMost,
  layoutBytes,
  type LayoutShapes,
  outputPinName,
  pinPoints,
  readLayout,
  type Rect,
} from "./layout.ts";
import {
  rerouteChannel,
  type RoutedDesign,
  type RoutingOptions,
} from "./routing.ts";

export type DesignRule =
  | "width"
  | "spacing"
  | "enclosure"
  | "overlap"
  | "grid"
  | "pin access"
  | "row boundary"
  | "shape";

/** One broken rule. */
export interface Violation {
  rule: DesignRule;
  /** What is wrong with which shapes, what was required and what was found. */
  message: string;
  /** Where, in um. */
  xUm: number;
  yUm: number;
  /** The shapes, with their corners. */
  shapes: string[];
  /** The channel above that row, if the place is in one. */
  channel: number | undefined;
}

export interface DrcOptions {
  /** The check ends after so many violations; our choice. */
  maxViolations?: number;
}

/** um; far below a database unit. */
const EPSILON = 1e-6;

type WireLayer = "horizontal" | "vertical";
const WIRE_LAYERS: readonly WireLayer[] = ["horizontal", "vertical"];

/** Rows as the layout shows them: cells whose heights overlap are one row. */
interface Row {
  y0: number;
  y1: number;
  cells: Instance[];
}

/** Up to a thousandth of a um. */
function text(um: number): string {
  return String(Math.round(um * 1000) / 1000);
}

function indexOf(rects: Rect[]): Flatbush {
  const index = new Flatbush(Math.max(1, rects.length));
  for (const { x0, y0, x1, y1 } of rects) index.add(x0, y0, x1, y1);
  if (rects.length === 0) index.add(Infinity, Infinity, Infinity, Infinity);
  index.finish();
  return index;
}

/** True if rectangles together cover all of an area. */
function covered(area: Rect, by: Rect[]): boolean {
  const { x0, y0, x1, y1 } = area;
  if (x1 - x0 < EPSILON || y1 - y0 < EPSILON) return true;
  const [first, ...rest] = by;
  if (first === undefined) return false;
  const inner = {
    x0: Math.max(x0, first.x0),
    y0: Math.max(y0, first.y0),
    x1: Math.min(x1, first.x1),
    y1: Math.min(y1, first.y1),
  };
  if (inner.x1 - inner.x0 < EPSILON || inner.y1 - inner.y0 < EPSILON) {
    return covered(area, rest);
  }
  const part = (a: number, b: number, c: number, d: number) =>
    covered({ ...area, x0: a, y0: b, x1: c, y1: d }, rest);
  return part(x0, y0, x1, inner.y0) && part(x0, inner.y1, x1, y1) &&
    part(x0, inner.y0, inner.x0, inner.y1) &&
    part(inner.x1, inner.y0, x1, inner.y1);
}

class Checker {
  readonly violations: Violation[] = [];
  readonly rows: Row[];
  readonly indices: Record<WireLayer, Flatbush>;
  readonly shapes: LayoutShapes;
  readonly library: CellLibrary;
  readonly most: number;

  constructor(shapes: LayoutShapes, library: CellLibrary, most: number) {
    this.shapes = shapes;
    this.library = library;
    this.most = most;
    this.rows = rowsOf(shapes.instances);
    this.indices = {
      horizontal: indexOf(shapes.horizontal),
      vertical: indexOf(shapes.vertical),
    };
  }

  nameOf(instance: number): string {
    const { names, structure } = this.shapes.instances[instance];
    return names[0]?.original ?? `unnamed ${structure}`;
  }

  describe(rect: Rect, what: string): string {
    const owner = rect.instance < 0 ? "" : ` of ${this.nameOf(rect.instance)}`;
    return `${what}${owner} (${text(rect.x0)}, ${text(rect.y0)}) to (${
      text(rect.x1)
    }, ${text(rect.y1)}) um`;
  }

  /** The channel that a height lies in. */
  channelAt(y: number): number | undefined {
    const row = lastAtMost(this.rows, y, ({ y1 }) => y1 - EPSILON);
    const next = this.rows[row + 1];
    return row >= 0 && next !== undefined && y <= next.y0 + EPSILON
      ? row
      : undefined;
  }

  add(
    rule: DesignRule,
    why: string,
    xUm: number,
    yUm: number,
    shapes: string[],
  ): void {
    if (this.violations.length >= this.most) return;
    this.violations.push({
      rule,
      message: `${rule}: ${why} at (${text(xUm)}, ${text(yUm)}) um: ${
        shapes.join("; ")
      }`,
      xUm,
      yUm,
      shapes,
      channel: this.channelAt(yUm),
    });
  }

  between(a: Rect, b: Rect): [number, number] {
    return [
      (Math.max(a.x0, b.x0) + Math.min(a.x1, b.x1)) / 2,
      (Math.max(a.y0, b.y0) + Math.min(a.y1, b.y1)) / 2,
    ];
  }

  /** Width of shapes and of the places where they join; spacing of those that do not. */
  wires(layer: WireLayer): void {
    const { wireWidthUm, wireSpacingUm } = this.library.rules;
    const rects = this.shapes[layer];
    const index = this.indices[layer];
    const what = `${layer} wire`;
    const checkWidth = (a: Rect) => {
      const width = a.part?.widthUm ?? Math.min(a.x1 - a.x0, a.y1 - a.y0);
      if (width >= wireWidthUm - EPSILON) return;
      // What lies within a shape that is wide enough does not matter.
      const inner = index.search(a.x0, a.y0, a.x1, a.y1, (k) => {
        const b = rects[k];
        return b.x0 <= a.x0 && b.y0 <= a.y0 && b.x1 >= a.x1 && b.y1 >= a.y1 &&
          b.part === undefined &&
          Math.min(b.x1 - b.x0, b.y1 - b.y0) >= wireWidthUm - EPSILON;
      });
      if (inner.length > 0) return;
      this.add(
        "width",
        `a wire must be ${text(wireWidthUm)} um wide or more, not ${
          text(width)
        } um`,
        (a.x0 + a.x1) / 2,
        (a.y0 + a.y1) / 2,
        [this.describe(a, what)],
      );
    };
    for (const { layer: of, rect } of this.shapes.columns) {
      if (of === layer) checkWidth(rect);
    }
    rects.forEach((a, i) => {
      checkWidth(a);
      const s = wireSpacingUm;
      index.search(a.x0 - s, a.y0 - s, a.x1 + s, a.y1 + s, (j) => {
        if (j > i) this.pair(what, index, rects, a, rects[j]);
        return false;
      });
    });
  }

  private pair(
    what: string,
    index: Flatbush,
    rects: Rect[],
    a: Rect,
    b: Rect,
  ): void {
    const { wireWidthUm, wireSpacingUm } = this.library.rules;
    const dx = Math.max(a.x0, b.x0) - Math.min(a.x1, b.x1);
    const dy = Math.max(a.y0, b.y0) - Math.min(a.y1, b.y1);
    const [x, y] = this.between(a, b);
    const others = (area: Rect) =>
      index.search(area.x0, area.y0, area.x1, area.y1).map((i) => rects[i])
        .filter((rect) => rect !== a && rect !== b);
    const gap: Rect = {
      x0: Math.min(Math.max(a.x0, b.x0), Math.min(a.x1, b.x1)),
      y0: Math.min(Math.max(a.y0, b.y0), Math.min(a.y1, b.y1)),
      x1: Math.max(Math.max(a.x0, b.x0), Math.min(a.x1, b.x1)),
      y1: Math.max(Math.max(a.y0, b.y0), Math.min(a.y1, b.y1)),
      instance: -1,
    };
    if (dx <= EPSILON && dy <= EPSILON) {
      // They touch: what joins them must be as wide as a wire, by itself or under a third shape.
      const neck = Math.hypot(Math.max(0, -dx), Math.max(0, -dy));
      if (neck >= wireWidthUm - EPSILON) return;
      const holds = (c: Rect) =>
        c.x0 <= gap.x0 && c.y0 <= gap.y0 && c.x1 >= gap.x1 && c.y1 >= gap.y1 &&
        Math.min(c.x1 - c.x0, c.y1 - c.y0) >= wireWidthUm - EPSILON;
      if (others(gap).some(holds)) return;
      this.add(
        "width",
        `wires must join over ${text(wireWidthUm)} um or more, not ${
          text(neck)
        } um`,
        x,
        y,
        [this.describe(a, what), this.describe(b, what)],
      );
      return;
    }
    const distance = Math.hypot(Math.max(0, dx), Math.max(0, dy));
    if (distance >= wireSpacingUm - EPSILON) return;
    // Corner to corner the gap has no width: a third shape must hold all of it.
    if (dx > -EPSILON && dy > -EPSILON) {
      const holds = (c: Rect) =>
        c.x0 <= gap.x0 && c.y0 <= gap.y0 && c.x1 >= gap.x1 && c.y1 >= gap.y1;
      if (others(gap).some(holds)) return;
    } else if (covered(gap, others(gap))) return;
    this.add(
      "spacing",
      `wires must be ${text(wireSpacingUm)} um or more apart, not ${
        text(distance)
      } um`,
      x,
      y,
      [this.describe(a, what), this.describe(b, what)],
    );
  }

  vias(): void {
    const { viaSizeUm, viaEnclosureUm, wireSpacingUm } = this.library.rules;
    const vias = this.shapes.via;
    const index = indexOf(vias);
    vias.forEach((via, i) => {
      const [x, y] = [(via.x0 + via.x1) / 2, (via.y0 + via.y1) / 2];
      const sides = [via.x1 - via.x0, via.y1 - via.y0];
      if (sides.some((side) => Math.abs(side - viaSizeUm) > EPSILON)) {
        this.add(
          "enclosure",
          `a via must be ${text(viaSizeUm)} um wide and high, not ${
            sides.map(text).join(" by ")
          } um`,
          x,
          y,
          [this.describe(via, "via")],
        );
      }
      const e = viaEnclosureUm;
      const area = {
        ...via,
        x0: via.x0 - e,
        y0: via.y0 - e,
        x1: via.x1 + e,
        y1: via.y1 + e,
      };
      for (const layer of WIRE_LAYERS) {
        const around = this.indices[layer]
          .search(area.x0, area.y0, area.x1, area.y1)
          .map((k) => this.shapes[layer][k]);
        if (covered(area, around)) continue;
        this.add(
          "enclosure",
          `the ${layer} layer must surround a via by ${text(e)} um`,
          x,
          y,
          [
            this.describe(via, "via"),
            ...around.map((rect) => this.describe(rect, `${layer} wire`)),
          ],
        );
      }
      const s = wireSpacingUm;
      index.search(via.x0 - s, via.y0 - s, via.x1 + s, via.y1 + s, (j) => {
        const other = vias[j];
        const same = j > i && other.x0 === via.x0 && other.x1 === via.x1 &&
          other.y0 === via.y0 && other.y1 === via.y1;
        const distance = Math.hypot(
          Math.max(0, via.x0 - other.x1, other.x0 - via.x1),
          Math.max(0, via.y0 - other.y1, other.y0 - via.y1),
        );
        if (j > i && !same && distance < s - EPSILON) {
          this.add(
            "spacing",
            `vias must be ${text(s)} um or more apart, not ${
              text(distance)
            } um`,
            x,
            y,
            [this.describe(via, "via"), this.describe(other, "via")],
          );
        }
        return false;
      });
    });
  }

  cells(): void {
    const { instances } = this.shapes;
    const outlines = instances.map(({ outline }) => outline);
    const index = indexOf(outlines);
    outlines.forEach((a, i) => {
      const e = EPSILON;
      index.search(a.x0 + e, a.y0 + e, a.x1 - e, a.y1 - e, (j) => {
        if (j > i) {
          this.add(
            "overlap",
            `cells ${this.nameOf(i)} and ${this.nameOf(j)} must not overlap`,
            ...this.between(a, outlines[j]),
            [
              this.describe(a, "outline"),
              this.describe(outlines[j], "outline"),
            ],
          );
        }
        return false;
      });
    });
    for (const layer of WIRE_LAYERS) this.wiresOverCells(layer, index);
  }

  /** Wires may enter a cell only within the square of one of its pins. */
  private wiresOverCells(layer: WireLayer, index: Flatbush): void {
    const half = this.library.rules.wireWidthUm / 2 + EPSILON;
    for (const rect of this.shapes[layer]) {
      const e = EPSILON;
      index.search(rect.x0 + e, rect.y0 + e, rect.x1 - e, rect.y1 - e, (i) => {
        if (rect.instance === i) return false;
        const instance = this.shapes.instances[i];
        const { outline } = instance;
        const inner = {
          x0: Math.max(rect.x0, outline.x0),
          y0: Math.max(rect.y0, outline.y0),
          x1: Math.min(rect.x1, outline.x1),
          y1: Math.min(rect.y1, outline.y1),
        };
        const points = pinPoints(instance, this.library);
        const atPin = [...points?.inputs ?? [], ...points?.outputs ?? []].some((
          [x, y],
        ) =>
          inner.x0 >= x - half && inner.x1 <= x + half &&
          inner.y0 >= y - half && inner.y1 <= y + half
        );
        if (!(layer === "vertical" && atPin)) {
          this.add(
            "overlap",
            `a ${layer} wire must not lie over cell ${
              this.nameOf(i)
            } other than at its pins`,
            (inner.x0 + inner.x1) / 2,
            (inner.y0 + inner.y1) / 2,
            [
              this.describe(rect, `${layer} wire`),
              this.describe(outline, "outline"),
            ],
          );
        }
        return false;
      });
    }
  }

  grid(): void {
    const { gridUm } = this.library;
    const off = (x: number) =>
      Math.abs(x - Math.round(x / gridUm) * gridUm) > EPSILON;
    const need = `must lie on the grid of ${text(gridUm)} um`;
    this.shapes.instances.forEach(({ placement, outline }, i) => {
      if (off(placement.dx) || off(placement.dy)) {
        this.add(
          "grid",
          `cell ${this.nameOf(i)} ${need}`,
          placement.dx,
          placement.dy,
          [this.describe(outline, "outline")],
        );
      }
    });
    for (const layer of WIRE_LAYERS) {
      for (const rect of this.shapes[layer]) {
        // A wire's middle line: half a width from each of its sides and ends.
        const half = Math.min(rect.x1 - rect.x0, rect.y1 - rect.y0) / 2;
        const ends = [rect.x0 + half, rect.x1 - half, rect.y0 + half];
        // Of a polygon's parts only the sides are known, half a width from some middle line.
        const width = this.library.rules.wireWidthUm / 2;
        const sides = [rect.x0, rect.y0, rect.x1, rect.y1];
        const beside = rect.part === undefined
          ? [...ends, rect.y1 - half].some(off)
          : sides.some((x) => off(x - width) && off(x + width));
        if (beside) {
          const what = `${layer} wire`;
          this.add(
            "grid",
            `the middle of a ${what} ${need}`,
            (rect.x0 + rect.x1) / 2,
            (rect.y0 + rect.y1) / 2,
            [this.describe(rect, what)],
          );
        }
      }
    }
    for (const via of this.shapes.via) {
      const [x, y] = [(via.x0 + via.x1) / 2, (via.y0 + via.y1) / 2];
      if (off(x) || off(y)) {
        this.add("grid", `the middle of a via ${need}`, x, y, [
          this.describe(via, "via"),
        ]);
      }
    }
  }

  pins(): void {
    const checked = new Set<string>();
    const pinIndex = indexOf(this.shapes.pin);
    this.shapes.instances.forEach((instance, i) => {
      const points = pinPoints(instance, this.library);
      if (points === undefined) return;
      const { structure, outline } = instance;
      const at = (index: Flatbush, rects: Rect[], [x, y]: [number, number]) =>
        index.search(x, y, x, y).map((k) => rects[k]);
      const named = [
        ...points.inputs.map((p, k) => [inputPinName(k), p] as const),
        ...points.outputs.map((p, k) =>
          [outputPinName(k, points.outputs.length), p] as const
        ),
      ];
      for (const [pin, point] of named) {
        const own = ({ instance }: Rect) => instance === i;
        if (
          !checked.has(structure) &&
          !(at(pinIndex, this.shapes.pin, point).some(own) &&
            at(this.indices.vertical, this.shapes.vertical, point).some(own))
        ) {
          this.add(
            "pin access",
            `structure ${structure} must have a shape of the pin layer and of the vertical layer at its pin ${pin}`,
            ...point,
            [this.describe(outline, "outline")],
          );
        }
      }
      checked.add(structure);
      points.inputs.forEach((point, k) => {
        const wired = at(this.indices.vertical, this.shapes.vertical, point)
          .some((rect) => rect.instance < 0);
        if (!wired) {
          this.add(
            "pin access",
            `a vertical wire must meet input ${inputPinName(k)} of ${
              this.nameOf(i)
            }`,
            ...point,
            [this.describe(outline, "outline")],
          );
        }
      });
    });
  }

  rowBoundaries(): void {
    this.rows.forEach(({ y0, cells }) => {
      for (const { outline } of cells) {
        if (Math.abs(outline.y0 - y0) > EPSILON) {
          this.add(
            "row boundary",
            `cell ${this.nameOf(outline.instance)} must stand on its row at y ${
              text(y0)
            } um`,
            outline.x0,
            outline.y0,
            [this.describe(outline, "outline")],
          );
        }
      }
    });
    const half = this.library.rules.wireWidthUm / 2 + EPSILON;
    const rowsAt = ({ y0, y1 }: Rect): Row[] => {
      const found: Row[] = [];
      let row = lastAtMost(this.rows, y1 - EPSILON, (r) => r.y0);
      for (; row >= 0 && this.rows[row].y1 > y0 + EPSILON; row--) {
        found.push(this.rows[row]);
      }
      return found;
    };
    const add = (layer: WireLayer, rect: Rect, why: string) =>
      this.add(
        "row boundary",
        why,
        (rect.x0 + rect.x1) / 2,
        (rect.y0 + rect.y1) / 2,
        [this.describe(rect, `${layer} wire`)],
      );
    for (const rect of this.shapes.horizontal) {
      const [row] = rect.instance < 0 ? rowsAt(rect) : [];
      if (row !== undefined) {
        add(
          "horizontal",
          rect,
          `a horizontal wire must run between rows, not in that from y ${
            text(row.y0)
          } to ${text(row.y1)} um`,
        );
      }
    }
    for (const rect of this.shapes.vertical) {
      const crossed = rect.instance < 0 &&
        rowsAt(rect).some((row) =>
          rect.y0 < row.y0 - half && rect.y1 > row.y1 + half
        );
      if (crossed) {
        add("vertical", rect, "a vertical wire must not cross a row");
      }
    }
  }

  kinds(): void {
    for (const { what, xUm, yUm } of this.shapes.angled) {
      this.add(
        "shape",
        "shapes must be made of rectangles",
        xUm,
        yUm,
        [what],
      );
    }
    this.shapes.instances.forEach(({ cell, structure, outline }, i) => {
      if (cell === undefined) {
        this.add(
          "shape",
          `structure ${structure} of ${
            this.nameOf(i)
          } must be a cell of library ${this.library.name}`,
          outline.x0,
          outline.y0,
          [this.describe(outline, "outline")],
        );
        return;
      }
      const { widthUm, heightUm } = libraryCellOf(this.library, cell);
      const [width, height] = [
        outline.x1 - outline.x0,
        outline.y1 - outline.y0,
      ];
      if (
        Math.abs(width - widthUm) > EPSILON ||
        Math.abs(height - heightUm) > EPSILON
      ) {
        this.add(
          "shape",
          `structure ${structure} must be ${text(widthUm)} by ${
            text(heightUm)
          } um as in library ${this.library.name}, not ${text(width)} by ${
            text(height)
          } um`,
          outline.x0,
          outline.y0,
          [this.describe(outline, "outline")],
        );
      }
    });
  }
}

/** Rows from below, each with the height that most of its cells stand on. */
function rowsOf(instances: Instance[]): Row[] {
  const sorted = [...instances].sort((a, b) => a.outline.y0 - b.outline.y0);
  const rows: Row[] = [];
  for (const cell of sorted) {
    const { y0, y1 } = cell.outline;
    const row = rows[rows.length - 1];
    if (row !== undefined && y0 < row.y1 - EPSILON) {
      row.y1 = Math.max(row.y1, y1);
      row.cells.push(cell);
    } else rows.push({ y0, y1, cells: [cell] });
  }
  for (const row of rows) {
    const votes = new Map<number, number>();
    for (const { outline } of row.cells) {
      votes.set(outline.y0, (votes.get(outline.y0) ?? 0) + 1);
    }
    row.y0 = [...votes].reduce((a, b) => b[1] > a[1] ? b : a)[0];
  }
  return rows;
}

/**
 * Broken design rules of a layout; none if it is clean.
 *
 * @param bytes The GDSII file.
 * @throws SyntaxError if the bytes are no GDSII file.
 * @throws RangeError if the file has no or several top structures.
 */
export function checkDesignRules(
  bytes: Uint8Array,
  library: CellLibrary,
  { maxViolations = 1000 }: DrcOptions = {},
): Violation[] {
  const shapes = readLayout(bytes, library);
  const checker = new Checker(shapes, library, maxViolations);
  checker.kinds();
  checker.cells();
  for (const layer of WIRE_LAYERS) checker.wires(layer);
  checker.vias();
  checker.grid();
  checker.pins();
  checker.rowBoundaries();
  return checker.violations;
}

export interface RepairResult {
  design: RoutedDesign;
  bytes: Uint8Array;
  /** What is left; none if the repair succeeded. */
  violations: Violation[];
  /** Channels routed anew, in order. */
  rerouted: number[];
}

/**
 * Checks the layout of a design and, while a channel has violations, widens and routes anew that
 * channel only.
 *
 * @param options.maxRepairs Checks after the first; our choice.
 */
export function repair(
  design: RoutedDesign,
  options: Omit<RoutingOptions, "library"> & { maxRepairs?: number } = {},
): RepairResult {
  const { maxRepairs = 5 } = options;
  const rerouted: number[] = [];
  let bytes = layoutBytes(design);
  let violations = checkDesignRules(bytes, design.library);
  for (let round = 1; round <= maxRepairs && violations.length > 0; round++) {
    const channels = new Set(
      violations.flatMap(({ channel }) => channel ?? []),
    );
    if (channels.size === 0) break;
    for (const channel of channels) {
      design = rerouteChannel(design, channel, round - 1, options);
      rerouted.push(channel);
    }
    bytes = layoutBytes(design);
    violations = checkDesignRules(bytes, design.library);
  }
  return { design, bytes, violations, rerouted };
}
