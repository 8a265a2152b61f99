/** Layouts: shapes by hand, clean and equal for random chips, every broken rule and wire named. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type CellLibrary, DEFAULT_LIBRARY } from "../lib/core/aqfp.ts";
import {
  type GdsElement,
  type GdsLibrary,
  type GdsPath,
  type GdsReference,
  type GdsText,
  readGds,
  writeGds,
} from "../lib/core/formats/gds.ts";
import { bits, fold, key, randomInts } from "../lib/core/rng.ts";
import {
  checkDesignRules,
  type DesignRule,
  repair,
  type Violation,
} from "../lib/superflow/drc.ts";
import {
  layoutBytes,
  layoutNames,
  rectanglesOf,
  structureCell,
  structureName,
} from "../lib/superflow/layout.ts";
import { compareLayout, extractNetlist } from "../lib/superflow/lvs.ts";
import { evaluate, type Netlist, ports } from "../lib/superflow/netlist.ts";
import type { PlacedNetlist } from "../lib/superflow/placement.ts";
import { route, type RoutedDesign } from "../lib/superflow/routing.ts";
import { chipFigure, chipSvg, layerProperties } from "../lib/superflow/view.ts";
import { randomChip } from "./fixtures/superflow-chips.ts";

const library = DEFAULT_LIBRARY;
const { horizontal, vertical, via, pin, outline } = library.rules.gdsLayers;

/** y = maj(p, not q, r) below a buffer; r passes a stub, as buffers are lower than their row. */
const asymmetric: PlacedNetlist = {
  name: "asym",
  cells: [
    { name: "p", kind: "input", inputs: [] },
    { name: "q", kind: "input", inputs: [] },
    { name: "r", kind: "input", inputs: [] },
    { name: "s", kind: "input", inputs: [] },
    {
      name: "m",
      kind: "maj",
      inputs: [
        { cell: 0, pin: 0, inverted: false },
        { cell: 1, pin: 0, inverted: true },
        { cell: 2, pin: 0, inverted: false },
      ],
    },
    {
      name: "b",
      kind: "buffer",
      inputs: [{ cell: 3, pin: 0, inverted: false }],
    },
    {
      name: "y",
      kind: "output",
      inputs: [{ cell: 4, pin: 0, inverted: false }],
    },
    {
      name: "z",
      kind: "output",
      inputs: [{ cell: 5, pin: 0, inverted: false }],
    },
  ],
  levels: Int32Array.of(0, 0, 0, 0, 1, 1, 2, 2),
  x: Int32Array.of(0, 4, 8, 12, 4, 13, 5, 9),
};

const designOf = (placed: PlacedNetlist) => route(placed, { library });
const asymmetricDesign = designOf(asymmetric);
const clean = layoutBytes(asymmetricDesign);

const topOf = (gds: GdsLibrary) => gds.structures[gds.structures.length - 1];

/** The layout after a change of its data. */
function changed(
  edit: (gds: GdsLibrary, top: GdsElement[]) => void,
  bytes = clean,
): Uint8Array {
  const gds = readGds(bytes);
  edit(gds, topOf(gds).elements);
  return writeGds(gds);
}

const isText = (e: GdsElement, text: string): e is GdsText =>
  e.type === "text" && e.text === text;
const reference = (top: GdsElement[], structure: string, nth = 0) =>
  top.filter((e): e is GdsReference =>
    e.type === "sref" && e.structure === structure
  )[nth];
const paths = (top: GdsElement[], layer: number) =>
  top.filter((e): e is GdsPath => e.type === "path" && e.layer === layer);

function box(
  layer: number,
  x0: number,
  y0: number,
  x1: number,
  y1: number,
): GdsElement {
  const xy = Int32Array.from(
    [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0],
    (um) => um * 1000,
  );
  return { type: "boundary", layer, datatype: 0, xy };
}

// Layout ------------------------------------------------------------------------------------------

test("hand case: structures, pins, references and wires where they belong", () => {
  const gds = readGds(clean);
  assert.equal(gds.structures.map(({ name }) => name), [
    "bfr",
    "in",
    "maj_bib",
    "out",
    "via",
    "asym",
  ]);
  const [bfr] = gds.structures;
  // 40 by 30 um, input and output in the middle of its lower and upper edge.
  assert.equal(bfr.elements[0], box(outline, 0, 0, 40, 30));
  assert.equal(bfr.elements[1], box(vertical, 18, -2, 22, 2));
  assert.equal(bfr.elements[2], box(pin, 18, -2, 22, 2));
  assert.ok(isText(bfr.elements[3], "a"));
  assert.equal(bfr.elements[4], box(vertical, 18, 28, 22, 32));
  assert.ok(isText(bfr.elements[6], "q"));
  const top = topOf(gds).elements;
  assert.equal(reference(top, "in", 1).xy, Int32Array.of(40_000, 0));
  const { rowY } = asymmetricDesign;
  const y1 = rowY[1] * 10_000;
  assert.equal(reference(top, "maj_bib").xy, Int32Array.of(40_000, y1));
  // q's pin at x 60 um stands 10 um left of m's middle input; r at 100 um is its right neighbour's.
  const ends = paths(top, vertical).map(({ xy }) =>
    [...xy].map((v) => v / 1000)
  );
  assert.ok(ends.some(([x, y]) => x === 60 && y === 30));
  assert.ok(ends.some(([x, , , y]) => x === 70 && y === y1 / 1000));
  // Texts: 8 cells, 6 connections.
  assert.is(top.filter((e) => e.type === "text" && e.texttype === 0).length, 8);
  assert.is(top.filter((e) => e.type === "text" && e.texttype === 1).length, 6);
  assert.is(gds.unitM, 1e-9);
});

test("same design, same bytes; read and written again, too", () => {
  assert.equal(layoutBytes(designOf(structuredClone(asymmetric))), clean);
  assert.equal(writeGds(readGds(clean)), clean);
});

test("structure names tell kind and inversions, both ways", () => {
  const names = [
    ...["in", "out", "const0", "const1", "bfr", "inv", "spl2", "spl3L"],
    ...["spl4L", "and_bi", "or_ii", "maj_bib", "maj_iii"],
  ];
  for (const name of names) {
    const { inverted, ...cell } = structureCell(name)!;
    const inputs = inverted.map((inverted) => ({ cell: 0, pin: 0, inverted }));
    assert.is(structureName({ ...cell, name: "x", inputs }), name);
  }
  for (const name of ["via", "maj_bb", "and_bib", "spl1", "spl3", "toString"]) {
    assert.is(structureCell(name), undefined, name);
  }
  assert.throws(
    () =>
      structureName({
        name: "z",
        kind: "output",
        inputs: [{ cell: 0, pin: 0, inverted: true }],
      }),
    (e: unknown) =>
      e instanceof RangeError &&
      /output z .* an inverter must drive it/.test(e.message),
  );
});

test("names without brackets, all different, safe ones unchanged", () => {
  assert.equal(
    layoutNames(["a[3]", "a_3_", "a(3)", "ok", "", "\\x y", "é", "ok2"]),
    ["a_3__2", "a_3_", "a_3__3", "ok", "_", "_x_y", "__2", "ok2"],
  );
  const long = "n".repeat(300);
  const [first, second] = layoutNames([long, `${long}!`]);
  assert.ok(first.length <= 120 && second.length <= 120 && first !== second);
});

test("polygons with right angles are cut into rectangles, others refused", () => {
  // An L of 2 by 2 without its upper right quarter.
  assert.equal(
    rectanglesOf([0, 0, 2, 0, 2, 1, 1, 1, 1, 2, 0, 2, 0, 0]),
    [[0, 0, 2, 1], [0, 1, 1, 2]],
  );
  // A U: two arms above one bar.
  assert.equal(
    rectanglesOf([0, 0, 3, 0, 3, 2, 2, 2, 2, 1, 1, 1, 1, 2, 0, 2, 0, 0]),
    [[0, 0, 3, 1], [0, 1, 1, 2], [2, 1, 3, 2]],
  );
  assert.is(rectanglesOf([0, 0, 2, 0, 1, 2, 0, 0]), undefined);
  assert.is(rectanglesOf([0, 0, 2, 0, 2, 2, 0, 2]), undefined);
});

// Clean and equal ---------------------------------------------------------------------------------

/** The design's netlist as the layout must give it back. */
const expectedOf = ({ placed: { cells, levels, x } }: RoutedDesign) => ({
  cells,
  levels,
  x,
});

test("random chips: no broken rule, and the netlist comes back from the bytes", () => {
  const bracketed = (kind: string, i: number) =>
    i % 3 === 0
      ? `bus.${kind}[${i}]`
      : i % 3 === 1
      ? `\\${kind} ${i}`
      : `${kind}_${i}`;
  for (let seed = 0; seed < 8; seed++) {
    const placed = randomChip(fold(key(2), seed), library, {
      rows: 2 + seed,
      jitter: 1 + 2 * (seed % 4),
      nameOf: seed % 2 === 0 ? undefined : bracketed,
    });
    for (const router of ["negotiated", "left-edge"] as const) {
      const design = route(placed, { library, router });
      const bytes = layoutBytes(design);
      assert.equal(checkDesignRules(bytes, library), [], `seed ${seed}`);
      const { equal, problems, netlist } = compareLayout(
        bytes,
        placed,
        library,
      );
      assert.equal(problems, [], `seed ${seed}`);
      assert.ok(equal);
      const { cells, levels, x } = netlist!;
      assert.equal({ cells, levels, x }, expectedOf(design));
      const n = ports(placed, "input").length;
      const words = Uint32Array.from(bits(fold(key(3), seed), n));
      assert.equal(evaluate(netlist!, words), evaluate(placed, words));
    }
  }
});

test("another library: wider wires and vias, other sizes and pins", () => {
  const other: CellLibrary = structuredClone(library);
  other.gridUm = 5;
  Object.assign(other.rules, {
    wireWidthUm: 2,
    wireSpacingUm: 1.5,
    viaSizeUm: 1.4,
    viaEnclosureUm: 0.8,
  });
  other.cells.buffer = { ...other.cells.buffer, widthUm: 55, outputsUm: [45] };
  const placed = randomChip(key(9), other, { rows: 4 });
  const bytes = layoutBytes(route(placed, { library: other }));
  assert.equal(checkDesignRules(bytes, other), []);
  assert.ok(compareLayout(bytes, placed, other).equal);
  // The rules of one library are not those of the other.
  assert.ok(checkDesignRules(bytes, library).length > 0);
});

// Broken rules ------------------------------------------------------------------------------------

/** The first violation of the rule, whose message must say `what`. */
function broken(bytes: Uint8Array, rule: DesignRule, what: RegExp): Violation {
  const violations = checkDesignRules(bytes, library);
  const found = violations.find((v) => v.rule === rule && what.test(v.message));
  assert.ok(
    found,
    `${rule} ${what}: ${violations.map(({ message }) => message).join("\n")}`,
  );
  return found;
}

test("the layout that the following tests break is clean", () => {
  assert.equal(checkDesignRules(clean, library), []);
  assert.ok(compareLayout(clean, asymmetric, library).equal);
});

test("width: a thin wire, and wires that join over less than a width", () => {
  const thin = changed((_, top) => paths(top, horizontal)[0].width = 3000);
  broken(thin, "width", /4 um wide or more, not 3 um/);
  const offset = changed((_, top) => {
    top.push(
      box(horizontal, 300, 50, 340, 54),
      box(horizontal, 339, 54, 380, 58),
    );
  });
  broken(offset, "width", /join over 4 um or more, not 1 um/);
  // The same under a third shape that is wide enough is one conductor of full width.
  const held = changed((_, top) => {
    top.push(
      box(horizontal, 300, 50, 340, 54),
      box(horizontal, 339, 54, 380, 58),
      box(horizontal, 330, 50, 350, 58),
    );
  });
  assert.is(
    checkDesignRules(held, library).some(({ rule }) => rule === "width"),
    false,
  );
});

/** A polygon of a wiring layer, given in um. */
const polygon = (layer: number, ...xy: number[]): GdsElement => ({
  type: "boundary",
  layer,
  datatype: 0,
  xy: Int32Array.from(xy, (um) => um * 1000),
});

test("polygons: clean if all their limbs are wide and on the grid, found if one is not", () => {
  // A bend of two limbs, as another tool would merge two of our wires.
  const bend = (thick: number, at = 0) =>
    changed((_, top) => {
      const [x, y] = [298 + at, 128];
      top.push(polygon(
        vertical,
        ...[x, y, x + 44, y, x + 44, y + thick, x + 4, y + thick],
        ...[x + 4, y + 44, x, y + 44, x, y],
      ));
    });
  assert.equal(checkDesignRules(bend(4), library), []);
  broken(bend(2), "width", /4 um wide or more, not 2 um/);
  broken(bend(4, 3), "grid", /the middle of a vertical wire/);
  // Turned by a reference the limbs keep their widths.
  const turned = (thick: number) =>
    changed((gds, top) => {
      gds.structures.unshift({
        name: "bend",
        elements: [polygon(
          horizontal,
          ...[-2, -2, 42, -2, 42, -2 + thick, 2, -2 + thick, 2, 42, -2, 42],
          ...[-2, -2],
        )],
      });
      top.push({
        type: "sref",
        structure: "bend",
        angle: 90,
        xy: Int32Array.of(400_000, 200_000),
      });
    });
  assert.equal(checkDesignRules(turned(4), library), []);
  broken(turned(3), "width", /4 um wide or more, not 3 um/);
});

test("spacing: wires too near, corner to corner, notches", () => {
  const near = changed((_, top) => {
    top.push(box(vertical, 300, 40, 304, 60), box(vertical, 307, 40, 311, 60));
  });
  const found = broken(near, "spacing", /4 um or more apart, not 3 um/);
  assert.equal([found.xUm, found.yUm], [305.5, 50]);
  assert.match(found.shapes[0], /vertical wire \(300, 40\) to \(304, 60\) um/);
  const corners = changed((_, top) => {
    top.push(box(vertical, 300, 40, 304, 60), box(vertical, 306, 62, 310, 80));
  });
  broken(corners, "spacing", /not 2\.828 um/);
  const notch = changed((_, top) => {
    top.push(
      box(vertical, 300, 40, 304, 60),
      box(vertical, 306, 40, 310, 60),
      box(vertical, 300, 60, 310, 64),
    );
  });
  broken(notch, "spacing", /not 2 um/);
});

test("enclosure: a via without its pad, of another size, beside its wires", () => {
  const bare = changed((gds) => {
    const { elements } = gds.structures.find(({ name }) => name === "via")!;
    elements.pop();
  });
  // The wires' own ends still surround it; without a wire it hangs free.
  assert.equal(checkDesignRules(bare, library), []);
  const free = changed((_, top) => {
    top.push({
      type: "sref",
      structure: "via",
      xy: Int32Array.of(400_000, 50_000),
    });
  }, bare);
  broken(free, "enclosure", /the vertical layer must surround a via by 1 um/);
  const large = changed((_, top) => top.push(box(via, 400, 50, 403, 53)));
  broken(large, "enclosure", /2 um wide and high, not 3 by 3 um/);
  const beside = changed((_, top) => {
    top.push(box(via, 401.5, 50, 403.5, 52), box(horizontal, 380, 49, 404, 53));
  });
  broken(beside, "enclosure", /the horizontal layer must surround/);
});

test("overlap: cells over cells, wires over cells", () => {
  const cells = changed((_, top) => reference(top, "in", 1).xy[0] -= 10_000);
  broken(cells, "overlap", /cells p and q must not overlap/);
  const wire = changed((_, top) => top.push(box(vertical, 48, 10, 52, 20)));
  broken(
    wire,
    "overlap",
    /a vertical wire must not lie over cell q other than at its pins/,
  );
  const pad = changed((_, top) => top.push(box(horizontal, 18, 28, 22, 32)));
  broken(pad, "overlap", /a horizontal wire must not lie over cell p/);
});

test("grid: a cell, a wire and a via beside it", () => {
  const cell = changed((_, top) => reference(top, "out", 1).xy[0] += 1000);
  broken(cell, "grid", /cell z must lie on the grid of 10 um at \(91, /);
  const wire = changed((_, top) => top.push(box(horizontal, 300, 50, 340, 54)));
  broken(wire, "grid", /the middle of a horizontal wire/);
  const point = changed((_, top) => {
    reference(top, "via").xy[0] += 1;
  });
  broken(point, "grid", /the middle of a via/);
});

test("pin access: an input without a wire, a structure without its pin", () => {
  const { rowY } = asymmetricDesign;
  const unwired = changed((_, top) => {
    const i = top.findIndex((e) =>
      e.type === "path" && e.layer === vertical && e.xy[2] === 70_000 &&
      e.xy[3] === rowY[1] * 10_000
    );
    top.splice(i, 1);
  });
  const found = broken(unwired, "pin access", /must meet input b of m/);
  assert.is(found.channel, 0);
  const pinless = changed((gds) => {
    const { elements } = gds.structures.find(({ name }) => name === "maj_bib")!;
    elements.splice(elements.findIndex((e) => isText(e, "b")) - 1, 1);
  });
  broken(
    pinless,
    "pin access",
    /structure maj_bib must have a shape of the pin layer .* at its pin b/,
  );
});

test("row boundary: a cell out of its row, a track in a row, a wire through a row", () => {
  const cell = changed((_, top) => reference(top, "bfr").xy[1] += 10_000);
  broken(
    cell,
    "row boundary",
    /cell b must stand on its row|cell m must stand on its row/,
  );
  const track = changed((_, top) => top.push(box(horizontal, 298, 8, 342, 12)));
  broken(
    track,
    "row boundary",
    /must run between rows, not in that from y 0 to 30 um/,
  );
  const y = asymmetricDesign.rowY[1] * 10;
  const through = changed((_, top) =>
    top.push(box(vertical, 298, y - 12, 302, y + 92))
  );
  broken(through, "row boundary", /must not cross a row/);
});

test("shape: slanted wires, unknown cells, cells of another size", () => {
  const slanted = changed((_, top) => {
    top.push({
      type: "path",
      layer: vertical,
      datatype: 0,
      width: 4000,
      xy: Int32Array.of(0, 0, 5000, 7000),
    });
  });
  broken(slanted, "shape", /must be made of rectangles .* path on layer 20/);
  const unknown = changed((gds, top) => {
    gds.structures.find(({ name }) => name === "bfr")!.name = "nor_bb";
    reference(top, "bfr").structure = "nor_bb";
  });
  broken(unknown, "shape", /structure nor_bb of b must be a cell of library/);
  const size = changed((gds) => {
    const { elements } = gds.structures.find(({ name }) => name === "bfr")!;
    elements[0] = box(outline, 0, 0, 40, 40);
  });
  broken(
    size,
    "shape",
    /bfr must be 40 by 30 um as in library adiabat-10um, not 40 by 40 um/,
  );
});

test("oracle: rectangles too near are found exactly as by trying all pairs", () => {
  const empty = changed((_, top) => top.length = 0);
  let [none, some] = [0, 0];
  for (let seed = 0; seed < 60; seed++) {
    const draw = (name: string, n: number, low: number, high: number) =>
      randomInts(fold(fold(key(11), seed), name), n, low, high);
    const n = 6;
    const x = draw("x", n, 0, 40);
    const y = draw("y", n, 0, 40);
    const width = draw("width", n, 4, 12);
    const height = draw("height", n, 4, 12);
    const rects = Array.from(
      x,
      (x, i) => [x, y[i], x + width[i], y[i] + height[i]],
    );
    const gap = (a: number[], b: number[]) =>
      Math.hypot(
        Math.max(0, a[0] - b[2], b[0] - a[2]),
        Math.max(0, a[1] - b[3], b[1] - a[3]),
      );
    // Shapes that touch are one; between different ones the distance counts.
    const group = rects.map((_, i) => i);
    for (let round = 0; round < n; round++) {
      rects.forEach((a, i) =>
        rects.forEach((b, j) => {
          if (gap(a, b) === 0) {
            group[i] = group[j] = Math.min(group[i], group[j]);
          }
        })
      );
    }
    const near = (i: number, j: number) =>
      group[i] !== group[j] && gap(rects[i], rects[j]) < 4;
    const expected = new Set<string>();
    rects.forEach((a, i) =>
      rects.forEach((b, j) => {
        if (i < j && near(i, j)) {
          expected.add([a, b].map(String).sort().join(" "));
        }
      })
    );
    const bytes = changed(
      (gds) =>
        gds.structures = [{
          name: "t",
          elements: rects.map(([x0, y0, x1, y1]) =>
            box(horizontal, x0, y0, x1, y1)
          ),
        }],
      empty,
    );
    const found = new Set(
      checkDesignRules(bytes, library).filter(({ rule }) => rule === "spacing")
        .map(({ shapes }) =>
          shapes.map((shape) => shape.match(/-?\d+(\.\d+)?/g)!.join(",")).sort()
            .join(" ")
        ),
    );
    for (const pair of expected) {
      assert.ok(found.has(pair), `seed ${seed} ${pair}`);
    }
    // What is found beyond these are notches, between parts of one shape.
    for (const pair of found) {
      if (expected.has(pair)) continue;
      const [i, j] = pair.split(" ").map((text) =>
        rects.findIndex((rect) => String(rect) === text)
      );
      assert.is(group[i], group[j], `seed ${seed} ${pair}`);
    }
    if (expected.size > 0) some++;
    else none++;
  }
  assert.ok(some > 10 && none > 5, `${some} ${none}`);
});

test("repair: a moved wire is found, its channel alone routed anew and wider", () => {
  const placed = randomChip(key(21), library, { rows: 4, inputs: 8 });
  const design = designOf(placed);
  const damaged: RoutedDesign = structuredClone(design);
  const wire = damaged.wires.find((w) => w.channel === 2 && w.vias.length > 1)!;
  for (const segment of wire.segments) {
    segment.x0 += 1;
    segment.x1 += 1;
  }
  assert.ok(checkDesignRules(layoutBytes(damaged), library).length > 0);
  const { violations, rerouted, bytes, design: repaired } = repair(damaged);
  assert.equal(violations, []);
  assert.ok(
    rerouted.includes(2) &&
      rerouted.every((channel) => channel >= 1 && channel <= 3),
  );
  assert.ok(compareLayout(bytes, placed, library).equal);
  const far = (d: RoutedDesign) =>
    d.wires.filter(({ channel }) => channel === 0).map(({ segments }) =>
      segments
    );
  assert.equal(far(repaired), far(design));
  // A clean design is left alone.
  assert.equal(repair(design).rerouted, []);
});

// Layout versus schematic -------------------------------------------------------------------------

/** The problems of a layout; one must be of that kind and say `what`. */
function differs(bytes: Uint8Array, kind: string, what: RegExp): string[] {
  const { equal, problems } = compareLayout(bytes, asymmetric, library);
  assert.is(equal, false);
  const messages = problems.map(({ message }) => message);
  assert.ok(
    problems.some((p) => p.kind === kind && what.test(p.message)),
    `${kind} ${what}: ${messages.join("\n")}`,
  );
  return messages;
}

test("removed via: the open input is named", () => {
  // b's input lies 10 um right of s.
  const bytes = changed((_, top) => {
    const i = top.findIndex((e) =>
      e.type === "sref" && e.structure === "via" && e.xy[0] === 150_000
    );
    assert.ok(i >= 0);
    top.splice(i, 1);
  });
  differs(bytes, "open", /no output reaches b\.a/);
  differs(bytes, "open", /s\.q at \(140, 30\) um must reach b\.a/);
  assert.is(extractNetlist(bytes, library).netlist, undefined);
});

test("metal of another datatype is no metal: the wire is open", () => {
  const bytes = changed((_, top) => {
    const wires = paths(top, vertical).filter(({ xy }) => xy[0] === 150_000);
    assert.ok(wires.length > 0);
    for (const wire of wires) wire.datatype = 7;
  });
  differs(bytes, "open", /no output reaches b\.a/);
  assert.ok(
    checkDesignRules(bytes, library).some(({ rule, message }) =>
      rule === "pin access" && message.includes("input a of b")
    ),
  );
  // Across the input pins of m, but on another layer.
  const y = asymmetricDesign.rowY[1] * 10;
  const bar = changed((_, top) =>
    top.push({
      ...box(vertical, 48, y - 2, 72, y + 2),
      datatype: 7,
    } as GdsElement)
  );
  assert.equal(compareLayout(bar, asymmetric, library).problems, []);
});

test("shorting bar: both outputs are named", () => {
  const y = asymmetricDesign.rowY[1] * 10;
  // Across the input pins of m.
  const bytes = changed((_, top) =>
    top.push(box(vertical, 48, y - 2, 72, y + 2))
  );
  differs(bytes, "short", /outputs must not be joined: p\.q at .*q\.q at /);
  // Without b, m drives both ports through a bar that joins them.
  const top = asymmetricDesign.rowY[2] * 10;
  const drives = changed((_, elements) => {
    elements.splice(elements.indexOf(reference(elements, "bfr")), 1);
    elements.push(box(vertical, 68, top - 2, 112, top + 2));
  });
  differs(
    drives,
    "short",
    /an output must drive one input: m\.q drives y\.a, z\.a/,
  );
});

test("exchanged labels: named as such, not as many wrong wires", () => {
  const exchange = (a: string, b: string, texttype: number) =>
    changed((_, top) => {
      const texts = [a, b].map((name) =>
        top.find((e): e is GdsText =>
          isText(e, name) && e.texttype === texttype
        )!
      );
      [texts[0].text, texts[1].text] = [b, a];
    });
  assert.equal(differs(exchange("p", "q", 0), "labels", /./), [
    "labels: the names of p and q are exchanged",
  ]);
  assert.equal(differs(exchange("y", "z", 0), "labels", /./), [
    "labels: the names of y and z are exchanged",
  ]);
  differs(exchange("m", "b", 0), "labels", /names of b and m are exchanged/);
  // Names of connections.
  differs(exchange("p", "q", 1), "labels", /from p\.q must be called p, not q/);
});

test("swapped pins of an asymmetric gate", () => {
  const swapped = structuredClone(asymmetric);
  const { inputs } = swapped.cells[4];
  [inputs[0].cell, inputs[1].cell] = [inputs[1].cell, inputs[0].cell];
  const bytes = layoutBytes(designOf(swapped));
  assert.equal(checkDesignRules(bytes, library), []);
  differs(
    bytes,
    "swapped pins",
    /of m: m\.a must be driven by p\.q, not q\.q; m\.b must be/,
  );
});

test("moved wire: the input gets another's connection", () => {
  const other = structuredClone(asymmetric);
  other.cells[4].inputs[2].cell = 3;
  other.cells[5].inputs[0].cell = 2;
  const bytes = layoutBytes(designOf(other));
  differs(bytes, "wrong connection", /m\.c must be driven by r\.q, not s\.q/);
  differs(bytes, "wrong connection", /b\.a must be driven by s\.q, not r\.q/);
  // Moved off its pin: open.
  const moved = changed((_, top) => {
    for (const path of paths(top, vertical)) {
      if (path.xy[0] === 50_000) {
        path.xy = path.xy.map((v, i) => i % 2 ? v : v + 10_000);
      }
    }
  });
  assert.is(compareLayout(moved, asymmetric, library).equal, false);
});

test("wrong, missing, extra and unnamed cells", () => {
  const wrong = changed((gds, top) => {
    gds.structures.find(({ name }) => name === "maj_bib")!.name = "maj_ibb";
    reference(top, "maj_bib").structure = "maj_ibb";
  });
  differs(wrong, "wrong cell", /m must be maj_bib, not maj_ibb/);
  const missing = changed((_, top) => {
    top.splice(top.indexOf(reference(top, "bfr")), 1);
  });
  differs(missing, "missing cell", /buffer b must be there/);
  const extra = changed((_, top) => {
    const { rowY } = asymmetricDesign;
    top.push({
      type: "sref",
      structure: "bfr",
      xy: Int32Array.of(300_000, rowY[1] * 10_000),
    });
  });
  differs(
    extra,
    "labels",
    /a cell must have one name: bfr at \(300, .* has none/,
  );
  const renamed = changed((_, top) => {
    const text = top.find((e): e is GdsText => isText(e, "b"))!;
    text.text = "c";
  });
  differs(renamed, "extra cell", /bfr c is not in the netlist/);
  const pinText = changed((gds) => {
    const { elements } = gds.structures.find(({ name }) => name === "maj_bib")!;
    const [a, b] = ["a", "b"].map((t) =>
      elements.find((e): e is GdsText => isText(e, t))!
    );
    [a.text, b.text] = [b.text, a.text];
  });
  differs(
    pinText,
    "labels",
    /a pin of structure maj_bib must be called a as in library/,
  );
});

test("a turned cell keeps its pins: mirrored left to right, a and c change places", () => {
  const bytes = changed((_, top) => {
    const maj = reference(top, "maj_bib");
    maj.strans = 0x8000;
    maj.angle = 180;
    maj.xy[0] += 60_000;
  });
  differs(bytes, "swapped pins", /m\.a must be driven by p\.q, not r\.q/);
});

/** Conductors by flood filling pixels of 1 um; shares only the GDSII reader with the extraction. */
function pixelConductors(bytes: Uint8Array) {
  const gds = readGds(bytes);
  const byName = new Map(gds.structures.map((s) => [s.name, s.elements]));
  const painted = new Map<number, Map<string, number>>(
    [horizontal, vertical, via].map((layer) => [layer, new Map()]),
  );
  const paint = (layer: number, [x0, y0, x1, y1]: number[]) => {
    for (let x = x0; x < x1; x++) {
      for (let y = y0; y < y1; y++) painted.get(layer)?.set(`${x},${y}`, 0);
    }
  };
  const walk = (elements: GdsElement[], dx: number, dy: number) => {
    for (const element of elements) {
      const um = [...element.xy].map((v, i) => v / 1000 + (i % 2 ? dy : dx));
      const [xs, ys] = [0, 1].map((odd) => um.filter((_, i) => i % 2 === odd));
      const half = element.type === "path" ? element.width! / 2000 : 0;
      if (element.type === "sref") {
        walk(byName.get(element.structure)!, um[0], um[1]);
      } else if (element.type === "path" || element.type === "boundary") {
        paint(element.layer, [
          Math.min(...xs) - half,
          Math.min(...ys) - half,
          Math.max(...xs) + half,
          Math.max(...ys) + half,
        ]);
      }
    }
  };
  walk(topOf(gds).elements, 0, 0);
  let n = 0;
  const [h, v, cuts] = [horizontal, vertical, via].map((l) => painted.get(l)!);
  for (const layer of [v, h]) {
    for (const start of layer.keys()) {
      if (layer.get(start) !== 0) continue;
      n++;
      const open: [Map<string, number>, string][] = [[layer, start]];
      while (open.length > 0) {
        const [on, pixel] = open.pop()!;
        if (on.get(pixel) !== 0) continue;
        on.set(pixel, n);
        const [x, y] = pixel.split(",").map(Number);
        for (let dx = -1; dx <= 1; dx++) {
          for (let dy = -1; dy <= 1; dy++) {
            open.push([on, `${x + dx},${y + dy}`]);
          }
        }
        if (cuts.has(pixel)) open.push([v, pixel], [h, pixel]);
      }
    }
  }
  return (x: number, y: number) => v.get(`${x},${y}`) ?? -1;
}

test("oracle: conductors of damaged layouts as by filling pixels", () => {
  const placed = randomChip(key(51), library, { rows: 2, inputs: 4 });
  const whole = layoutBytes(designOf(placed));
  let merged = 0;
  for (let seed = 0; seed < 12; seed++) {
    const draw = (name: string, n: number, below: number) =>
      randomInts(fold(fold(key(52), seed), name), n, 0, below);
    const bytes = changed((_, top) => {
      for (const i of draw("removed", 3, top.length)) {
        if (
          top[i].type === "path" || (top[i] as GdsReference).structure === "via"
        ) {
          top.splice(i, 1);
        }
      }
      const [x, y, length] = [
        draw("x", 3, 300),
        draw("y", 3, 250),
        draw("length", 3, 60),
      ];
      for (let i = 0; i < 3; i++) {
        const layer = i % 2 === 0 ? vertical : horizontal;
        top.push(box(layer, x[i], y[i], x[i] + 4 + length[i], y[i] + 4));
      }
      top.push(box(via, x[0] + 1, y[0] + 1, x[0] + 3, y[0] + 3));
    }, whole);
    const at = pixelConductors(bytes);
    const { cells } = extractNetlist(bytes, library);
    const pins = cells.flatMap((
      { inputs, outputs },
    ) => [...inputs, ...outputs]);
    // The same partition of the pins: first pins of each conductor.
    const firsts = (conductor: (p: typeof pins[0]) => number) => {
      const first = new Map<number, number>();
      return pins.map((p, i) => {
        const c = conductor(p);
        if (!first.has(c)) first.set(c, i);
        return first.get(c)!;
      });
    };
    const found = firsts((p) => p.conductor);
    assert.equal(found, firsts((p) => at(p.x, p.y)), `seed ${seed}`);
    merged += pins.length - new Set(found).size;
  }
  assert.ok(merged > 0);
});

test("fuzz: no changed file is taken for the design unless it still is", () => {
  const words = Uint32Array.of(0xff00, 0xf0f0, 0xcccc, 0xaaaa);
  const outputs = (netlist: Netlist) =>
    ports(netlist, "output").map((i) => evaluate(netlist, words)[i] & 0xffff);
  const wanted = outputs(asymmetric);
  let [refused, different, equal] = [0, 0, 0];
  for (let round = 0; round < 600; round++) {
    const draw = fold(key(31), round);
    const copy = clean.slice();
    const [place] = randomInts(fold(draw, "at"), 1, 0, copy.length);
    copy[place] ^= 1 << randomInts(fold(draw, "bit"), 1, 0, 8)[0];
    try {
      checkDesignRules(copy, library);
      const result = compareLayout(copy, asymmetric, library);
      if (!result.equal) different++;
      else {
        equal++;
        assert.equal(outputs(result.netlist!), wanted);
      }
    } catch (error) {
      assert.ok(
        error instanceof SyntaxError || error instanceof RangeError,
        String(error),
      );
      refused++;
    }
  }
  assert.ok(refused > 50 && different > 50, `${refused} ${different} ${equal}`);
});

// Pictures ----------------------------------------------------------------------------------------

test("drawing: every cell, wire and via once; a region shows its part", () => {
  const svg = chipSvg(asymmetricDesign);
  const titles = [...svg.matchAll(/<title>(.*?)<\/title>/g)].map(([, t]) => t);
  assert.ok(titles.includes(
    "m: maj_bib, row 1, phase 1, at (40, " +
      `${asymmetricDesign.rowY[1] * 10}) um`,
  ));
  assert.is(
    titles.filter((t) => / to m\./.test(t) && / um, /.test(t)).length > 2,
    true,
  );
  assert.is(titles.filter((t) => /row \d+, phase/.test(t)).length, 8);
  const near = chipSvg(asymmetricDesign, {
    region: { x0: 0, y0: 0, x1: 39, y1: 20 },
  });
  assert.match(near, /p: in, row 0/);
  assert.not.match(near, /maj_bib/);
  // The clock's lines are the model's: row 1 left to right, rows 0 and 2 right to left and back.
  assert.not.match(svg, /polyline/);
  const lines = [
    ...chipSvg(asymmetricDesign, { clock: true })
      .matchAll(/<polyline points="(.*?)"/g),
  ].map(([, points]) => points.split(" ").map((p) => parseFloat(p)));
  assert.is(lines.length, 2);
  assert.is(lines[0].length, 2);
  assert.ok(lines[0][0] < lines[0][1]);
  assert.is(lines[1].length, 4);
  assert.ok(lines[1][0] > lines[1][1] && lines[1][2] < lines[1][3]);
  const named = structuredClone(asymmetric);
  named.cells[0].name = 'a<b>&"c"';
  assert.match(chipSvg(designOf(named)), /a&lt;b&gt;&amp;&quot;c&quot;: in/);
  assert.throws(
    () => chipSvg(asymmetricDesign, { region: { x0: 0, y0: 0, x1: 0, y1: 9 } }),
    RangeError,
  );
});

test("layer properties name every layer and texttype of a layout", () => {
  const lyp = layerProperties(library);
  const named = new Set(
    [...lyp.matchAll(/<source>(.*)@1<\/source>/g)].map(([, layer]) => layer),
  );
  const used = readGds(clean).structures.flatMap(({ elements }) =>
    elements.flatMap((e) =>
      e.type === "text"
        ? [`${e.layer}/${e.texttype}`]
        : "datatype" in e
        ? [`${e.layer}/${e.datatype}`]
        : []
    )
  );
  assert.equal([...named].sort(), [...new Set(used)].sort());
});

test("figure: one trace per phase and layer, to scale, equal axes", () => {
  const { data, layout } = chipFigure(asymmetricDesign);
  const shown = data.filter(({ showlegend }) => showlegend !== false);
  assert.equal(shown.map(({ name }) => name), [
    "phase 1",
    "phase 2",
    "phase 4",
    "horizontal wires",
    "vertical wires",
    "vias",
    "clock line 1 (model)",
    "clock line 2 (model)",
  ]);
  const inputs = shown[2];
  // Four rectangles of five corners and a gap each.
  assert.is((inputs.x as number[]).length, 24);
  assert.equal((inputs.x as number[]).slice(0, 6), [0, 40, 40, 0, 0, null]);
  assert.is((layout.yaxis as { scaleanchor: string }).scaleanchor, "x");
});

test.run();
