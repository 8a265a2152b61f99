/** GDSII files: reals and records by hand, every element there and back, hostile and broken files. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  compose,
  decodeReal,
  encodeReal,
  flatten,
  type GdsElement,
  type GdsLibrary,
  placementOf,
  readGds,
  topStructures,
  writeGds,
} from "../lib/core/formats/gds.ts";
import { fold, key, randomInts, uniform } from "../lib/core/rng.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** One structure with one element of each kind and every optional field. */
const everything: GdsLibrary = {
  name: "ALL",
  version: 600,
  times: [2024, 1, 2, 3, 4, 5, 2025, 6, 7, 8, 9, 10],
  userUnit: 0.001,
  unitM: 1e-9,
  structures: [
    {
      name: "leaf",
      times: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
      elements: [
        {
          type: "boundary",
          layer: 1,
          datatype: 2,
          xy: Int32Array.of(0, 0, 10, 0, 10, 20, 0, 20, 0, 0),
          properties: [[1, "odd"], [2, "even"]],
        },
        {
          type: "path",
          flags: 1,
          plex: 7,
          layer: 3,
          datatype: 0,
          pathtype: 4,
          width: 4,
          beginExtension: 5,
          endExtension: -6,
          xy: Int32Array.of(0, 0, 0, 100),
        },
        {
          type: "box",
          layer: 4,
          boxtype: 1,
          xy: Int32Array.of(-5, -5, 5, -5, 5, 5, -5, 5, -5, -5),
        },
        { type: "node", layer: 5, nodetype: 0, xy: Int32Array.of(1, 2) },
      ],
    },
    {
      name: "top",
      times: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
      elements: [
        {
          type: "sref",
          structure: "leaf",
          strans: 0x8000,
          magnification: 1,
          angle: 90,
          xy: Int32Array.of(1000, -2000),
        },
        {
          type: "aref",
          structure: "leaf",
          columns: 3,
          rows: 2,
          xy: Int32Array.of(0, 0, 300, 0, 0, 80),
        },
        {
          type: "text",
          layer: 63,
          texttype: 1,
          presentation: 5,
          pathtype: 0,
          width: 1,
          strans: 0,
          magnification: 2.5,
          angle: 270,
          text: "label",
          xy: Int32Array.of(2147483647, -2147483648),
        },
      ],
    },
  ],
};

const withElement = (element: GdsElement): GdsLibrary => ({
  name: "L",
  userUnit: 0.001,
  unitM: 1e-9,
  structures: [{ name: "S", elements: [element] }],
});

// Reals -------------------------------------------------------------------------------------------

test("reals: the images every GDSII file has", () => {
  // 1 = 1/16 * 16^1; 0.001 and 1e-9 stand at byte 50 of nearly all files ever written.
  assert.equal(encodeReal(1), [0x41100000, 0]);
  assert.equal(encodeReal(-2.5), [0xc1280000, 0]);
  assert.equal(encodeReal(0), [0, 0]);
  assert.equal(encodeReal(0.001), [0x3e418937, 0x4bc6a7f0]);
  assert.equal(encodeReal(1e-9), [0x3944b82f, 0xa09b5a54]);
  assert.equal(decodeReal(0x41100000, 0), 1);
  assert.equal(decodeReal(0xc2640000, 0), -100);
});

test("reals: there and back without a change", () => {
  uniform(key(1), 2000, -1, 1).forEach((x, i) => {
    const value = x * 16 ** ((i % 100) - 50);
    assert.is(decodeReal(...encodeReal(value)), value);
  });
  for (const value of [Math.PI, 1 / 3, 2 ** 53 - 1, 4.9e-76, 7e75]) {
    assert.is(decodeReal(...encodeReal(value)), value);
  }
  for (const value of [Infinity, NaN, 1e80, 1e-90]) {
    assert.throws(() => encodeReal(value), RangeError);
  }
});

// Files -------------------------------------------------------------------------------------------

test("hand case: the bytes of a library with one path", () => {
  const bytes = writeGds(withElement({
    type: "path",
    layer: 10,
    datatype: 0,
    width: 4000,
    xy: Int32Array.of(0, -1, 256, 0),
  }));
  const times = "07b20001000100000000000007b2000100010000" + "00000000";
  assert.is(
    hex(bytes),
    [
      "000600020258",
      `001c0102${times}`,
      "000602064c00",
      "001403053e4189374bc6a7f03944b82fa09b5a54",
      `001c0502${times}`,
      "000606065300",
      "00040900",
      "00060d02000a",
      "00060e020000",
      "00080f0300000fa0",
      "0014100300000000ffffffff0000010000000000",
      "00041100",
      "00040700",
      "00040400",
    ].join(""),
  );
});

test("every element and option: same data, then same bytes", () => {
  const bytes = writeGds(everything);
  const read = readGds(bytes);
  assert.equal(read, everything);
  assert.is(hex(writeGds(read)), hex(bytes));
  // Tapes end with zeros.
  const padded = new Uint8Array(bytes.length + 512);
  padded.set(bytes);
  assert.equal(readGds(padded), everything);
});

test("a view into a larger buffer is read from its beginning", () => {
  const bytes = writeGds(everything);
  const larger = new Uint8Array(bytes.length + 7);
  larger.set(bytes, 7);
  assert.equal(readGds(larger.subarray(7)), everything);
});

test("what the format cannot hold is refused", () => {
  const box = everything.structures[0].elements[0] as GdsElement & {
    type: "boundary";
  };
  const cases: [GdsLibrary, RegExp][] = [
    [withElement({ ...box, layer: 70000 }), /LAYER .* 70000/],
    [
      withElement({ ...box, xy: Int32Array.of(0, 0, 1, 1) }),
      /4 or more points: 2/,
    ],
    [
      withElement({ ...box, xy: new Int32Array(2 * 9000) }),
      /at most 65530 bytes: 72000/,
    ],
    [
      withElement({ ...box, properties: [[1, "☃"]] }),
      /characters 1 to 255 only/,
    ],
    [
      withElement({ type: "sref", structure: "none", xy: Int32Array.of(0, 0) }),
      /must be in the library: none/,
    ],
    [
      {
        ...everything,
        structures: [everything.structures[0], everything.structures[0]],
      },
      /unique: leaf/,
    ],
  ];
  for (const [library, what] of cases) {
    assert.throws(
      () => writeGds(library),
      (e: unknown) => e instanceof RangeError && what.test(e.message),
      String(what),
    );
  }
});

// Broken files ------------------------------------------------------------------------------------

const refusedAt = (byte: number, what: RegExp) => (e: unknown) =>
  e instanceof SyntaxError && what.test(e.message) &&
  e.message.endsWith(`(byte ${byte})`);

test("errors name the byte of the record", () => {
  const bytes = writeGds(withElement(everything.structures[0].elements[0]));
  const broken = (at: number, ...values: number[]) => {
    const copy = bytes.slice();
    copy.set(values, at);
    return copy;
  };
  // HEADER 0, BGNLIB 6, LIBNAME 34, UNITS 40, BGNSTR 60, STRNAME 88, BOUNDARY 94, LAYER 98, DATATYPE 104.
  const cases: [Uint8Array, number, RegExp][] = [
    [new Uint8Array(0), 0, /must end with ENDLIB: it ends after 0 bytes/],
    [broken(3, 0x07), 0, /unknown: 0x0007/],
    [broken(6, 0, 3), 6, /even and at least 4: BGNLIB 3/],
    [broken(6, 0xff, 0xfe), 6, /within the file: BGNLIB of 65534 bytes/],
    [broken(40, 0, 12), 40, /UNITS must have 2 values, not 1/],
    [broken(98, 0, 4), 98, /LAYER must have 1 values, not 0/],
    [broken(106, 0x0d), 104, /a boundary must have LAYER once/],
  ];
  for (const [file, byte, what] of cases) {
    assert.throws(() => readGds(file), refusedAt(byte, what), String(what));
  }
  // Without its DATATYPE the element is incomplete; its own first byte is named too.
  const cut = Uint8Array.from([...bytes.slice(0, 104), ...bytes.slice(110)]);
  assert.throws(
    () => readGds(cut),
    (e: unknown) =>
      e instanceof SyntaxError &&
      /the boundary of byte 94 must have DATATYPE/.test(e.message),
  );
});

test("no beginning of a file is a file", () => {
  const bytes = writeGds(everything);
  for (let n = 0; n < bytes.length; n++) {
    assert.throws(() => readGds(bytes.subarray(0, n)), SyntaxError);
  }
});

test("fuzz: changed bytes are read or refused with a place, never worse", () => {
  const bytes = writeGds(everything);
  let [read, refused] = [0, 0];
  for (let round = 0; round < 4000; round++) {
    const draw = fold(key(7), round);
    const copy = bytes.slice();
    const n = 1 + round % 4;
    const places = randomInts(fold(draw, "at"), n, 0, copy.length);
    const values = randomInts(fold(draw, "value"), n, 0, 256);
    places.forEach((place, i) => copy[place] = values[i]);
    let library: GdsLibrary;
    try {
      library = readGds(copy);
    } catch (error) {
      assert.instance(error, SyntaxError);
      assert.match((error as Error).message, /\(byte \d+\)$/);
      refused++;
      continue;
    }
    read++;
    // What was read can be walked or is refused by name.
    for (const top of topStructures(library)) {
      try {
        flatten(library, top, () => {}, { limit: 1e5 });
      } catch (error) {
        assert.instance(error, RangeError);
      }
    }
  }
  assert.ok(read > 500 && refused > 500, `${read} read, ${refused} refused`);
});

// Hierarchy ---------------------------------------------------------------------------------------

test("placements: mirrored, turned, moved, one after the other", () => {
  const reference = (strans: number, angle: number) =>
    placementOf({
      type: "sref",
      structure: "s",
      strans,
      angle,
      xy: Int32Array.of(100, 200),
    });
  const at = ({ a, b, c, d, dx, dy }: ReturnType<typeof placementOf>) => [
    a * 1 + b * 3 + dx,
    c * 1 + d * 3 + dy,
  ];
  assert.equal(at(reference(0, 0)), [101, 203]);
  assert.equal(at(reference(0, 90)), [97, 201]);
  assert.equal(at(reference(0, -90)), [103, 199]);
  // Mirrored at the x axis first, then turned: (1, 3) -> (1, -3) -> (3, 1).
  assert.equal(at(reference(0x8000, 90)), [103, 201]);
  const twice = compose(reference(0, 90), reference(0x8000, 180));
  // (1, 3) -> (1, -3) -> (-1, 3) -> (99, 203) -> (-203, 99) -> (-103, 299).
  assert.equal(at(twice), [-103, 299]);
  assert.throws(
    () => reference(0, 45),
    (e: unknown) => e instanceof RangeError && /angle 45/.test(e.message),
  );
});

test("arrays are laid out in columns and rows", () => {
  const points: number[][] = [];
  const library: GdsLibrary = {
    ...everything,
    structures: [everything.structures[0], {
      name: "top",
      elements: [everything.structures[1].elements[1]],
    }],
  };
  flatten(library, "top", (element, { dx, dy }) => {
    if (element.type === "node") points.push([dx, dy]);
  });
  assert.equal(points, [[0, 0], [100, 0], [200, 0], [0, 40], [100, 40], [
    200,
    40,
  ]]);
});

test("hostile hierarchies are refused before they cost memory or time", () => {
  const reference = (structure: string): GdsElement => ({
    type: "aref",
    structure,
    columns: 32767,
    rows: 32767,
    xy: Int32Array.of(0, 0, 1, 0, 0, 1),
  });
  const library = (structures: GdsLibrary["structures"]) => ({
    ...everything,
    structures,
  });
  const refused = (what: RegExp) => (e: unknown) =>
    e instanceof RangeError && what.test(e.message);
  const bomb = library([
    { name: "a", elements: [] },
    { name: "b", elements: [reference("a"), reference("a")] },
    { name: "c", elements: [reference("b"), reference("b")] },
  ]);
  assert.throws(
    () => flatten(readGds(writeGds(bomb)), "c", () => {}),
    refused(/at most 20000000 elements/),
  );
  const loop = library([
    { name: "a", elements: [reference("b")] },
    { name: "b", elements: [reference("a")] },
  ]);
  assert.throws(
    () => flatten(loop, "a", () => {}),
    refused(/no structure may contain itself: a/),
  );
  const chain = library(Array.from({ length: 3000 }, (_, i) => ({
    name: `s${i}`,
    elements: i === 0 ? [] : [{
      type: "sref" as const,
      structure: `s${i - 1}`,
      xy: Int32Array.of(0, 0),
    }],
  })));
  assert.throws(
    () => flatten(chain, "s2999", () => {}),
    refused(/at most 500 deep/),
  );
});

test.run();
