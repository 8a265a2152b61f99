/**
 * GDSII stream files: reader and writer.
 *
 * Source: Calma, "GDSII Stream Format Manual", release 6.0, 1987. A file is a chain of records:
 *
 *   bytes 0-1  length of the record with these four bytes, big endian, even
 *   byte 2     kind of record        byte 3  kind of data (0 none, 1 bits, 2 int16, 3 int32, 5 real64, 6 text)
 *   then the data
 *
 * Coordinates are whole database units; UNITS tells how long one is. Reals are excess-64: a sign, an
 * exponent of 16 and a fraction of 56 bits, so that every double of usual size has an exact image.
 *
 * The same library always gives the same bytes: times are data, fixed by default. What this writer
 * wrote is read and written again without a change of a byte.
 *
 * Scope: BOUNDARY, PATH, SREF, AREF, TEXT, BOX, NODE with properties. Libraries of fonts, references
 * and formats (REFLIBS, FONTS, ATTRTABLE, GENERATIONS, FORMAT) are read over and not written.
 */

/** What every element may carry. */
interface ElementCommon {
  /** Bits of ELFLAGS. */
  flags?: number;
  /** Number of a group of elements. */
  plex?: number;
  /** Numbered texts: attribute 1 to 127 and value. */
  properties?: [attribute: number, value: string][];
}

/** How a reference or text lies: mirrored at the x axis, then enlarged, then turned. */
export interface GdsTransform {
  /** Bits of STRANS: 0x8000 mirrored, 4 absolute size, 2 absolute angle. */
  strans?: number;
  magnification?: number;
  /** Degrees, counter-clockwise. */
  angle?: number;
}

export interface GdsBoundary extends ElementCommon {
  type: "boundary";
  layer: number;
  datatype: number;
  /** x, y, x, y ... in database units; the last point repeats the first. */
  xy: Int32Array;
}

export interface GdsPath extends ElementCommon {
  type: "path";
  layer: number;
  datatype: number;
  /** 0 flush ends, 1 round, 2 longer by half the width, 4 as given. */
  pathtype?: number;
  width?: number;
  beginExtension?: number;
  endExtension?: number;
  xy: Int32Array;
}

export interface GdsBox extends ElementCommon {
  type: "box";
  layer: number;
  boxtype: number;
  xy: Int32Array;
}

export interface GdsNode extends ElementCommon {
  type: "node";
  layer: number;
  nodetype: number;
  xy: Int32Array;
}

export interface GdsReference extends ElementCommon, GdsTransform {
  type: "sref";
  structure: string;
  xy: Int32Array;
}

export interface GdsArray extends ElementCommon, GdsTransform {
  type: "aref";
  structure: string;
  columns: number;
  rows: number;
  /** Origin, origin + columns steps, origin + rows steps. */
  xy: Int32Array;
}

export interface GdsText extends ElementCommon, GdsTransform {
  type: "text";
  layer: number;
  texttype: number;
  presentation?: number;
  pathtype?: number;
  width?: number;
  text: string;
  xy: Int32Array;
}

export type GdsElement =
  | GdsBoundary
  | GdsPath
  | GdsBox
  | GdsNode
  | GdsReference
  | GdsArray
  | GdsText;

/** Year, month, day, hour, minute, second of the last change and of the last access. */
export type GdsTimes = number[];

export interface GdsStructure {
  name: string;
  elements: GdsElement[];
  times?: GdsTimes;
}

export interface GdsLibrary {
  name: string;
  /** Version of the format; 600 unless given. */
  version?: number;
  times?: GdsTimes;
  /** A database unit in user units: 0.001 if users speak of micrometres and the unit is 1 nm. */
  userUnit: number;
  /** A database unit in metres. */
  unitM: number;
  structures: GdsStructure[];
}

/** Same time in every file, so that the bytes depend on the layout only. */
const FIXED_TIMES: GdsTimes = [1970, 1, 1, 0, 0, 0, 1970, 1, 1, 0, 0, 0];

const RECORDS = {
  HEADER: 0x0002,
  BGNLIB: 0x0102,
  LIBNAME: 0x0206,
  UNITS: 0x0305,
  ENDLIB: 0x0400,
  BGNSTR: 0x0502,
  STRNAME: 0x0606,
  ENDSTR: 0x0700,
  BOUNDARY: 0x0800,
  PATH: 0x0900,
  SREF: 0x0a00,
  AREF: 0x0b00,
  TEXT: 0x0c00,
  LAYER: 0x0d02,
  DATATYPE: 0x0e02,
  WIDTH: 0x0f03,
  XY: 0x1003,
  ENDEL: 0x1100,
  SNAME: 0x1206,
  COLROW: 0x1302,
  NODE: 0x1500,
  TEXTTYPE: 0x1602,
  PRESENTATION: 0x1701,
  STRING: 0x1906,
  STRANS: 0x1a01,
  MAG: 0x1b05,
  ANGLE: 0x1c05,
  REFLIBS: 0x1f06,
  FONTS: 0x2006,
  PATHTYPE: 0x2102,
  GENERATIONS: 0x2202,
  ATTRTABLE: 0x2306,
  ELFLAGS: 0x2601,
  NODETYPE: 0x2a02,
  PROPATTR: 0x2b02,
  PROPVALUE: 0x2c06,
  BOX: 0x2d00,
  BOXTYPE: 0x2e02,
  PLEX: 0x2f03,
  BGNEXTN: 0x3003,
  ENDEXTN: 0x3103,
  FORMAT: 0x3602,
} as const;

type RecordName = keyof typeof RECORDS;

const NAMES = new Map<number, RecordName>(
  Object.entries(RECORDS).map(([name, tag]) => [tag, name as RecordName]),
);

/** Read over: nothing a layout's shapes depend on. */
const IGNORED: ReadonlySet<string> = new Set([
  "REFLIBS",
  "FONTS",
  "ATTRTABLE",
  "GENERATIONS",
  "FORMAT",
]);

const ELEMENTS: ReadonlySet<string> = new Set([
  "BOUNDARY",
  "PATH",
  "SREF",
  "AREF",
  "TEXT",
  "NODE",
  "BOX",
]);

/** A record's length is 16 bits, of which 4 bytes are its head. */
const MAX_DATA_BYTES = 65534 - 4;

/** Bytes of one value by kind of data. */
const VALUE_BYTES: Record<number, number> = {
  0: 1,
  1: 2,
  2: 2,
  3: 4,
  5: 8,
  6: 1,
};

// Reals -------------------------------------------------------------------------------------------

/**
 * The excess-64 real of a number: sign bit, 7 bits e, 56 bits f.
 *
 * x = (-1)^sign * f / 2^56 * 16^(e - 64), with 1/16 <= f / 2^56 < 1
 *
 * @returns The upper and lower 32 bits.
 * @throws RangeError if the number is not finite or its exponent does not fit.
 *
 * @example
 * ```ts
 * encodeReal(1); // [0x41100000, 0]
 * ```
 */
export function encodeReal(x: number): [number, number] {
  if (x === 0) return [0, 0];
  let size = Math.abs(x);
  let exponent = 64;
  if (Number.isFinite(size)) {
    while (size >= 1) {
      size /= 16;
      exponent++;
    }
    while (size < 1 / 16) {
      size *= 16;
      exponent--;
    }
  }
  if (!(exponent >= 0 && exponent < 128) || !Number.isFinite(size)) {
    throw new RangeError(
      `Cannot write a GDSII real as its size must be between 16^-65 and 16^63: ${x}`,
    );
  }
  const upper = Math.floor(size * 2 ** 24);
  const lower = (size * 2 ** 24 - upper) * 2 ** 32;
  return [((x < 0 ? 0x80 : 0) + exponent) * 2 ** 24 + upper, lower];
}

/**
 * The number of an excess-64 real, of which `encodeReal` is the inverse.
 *
 * @example
 * ```ts
 * decodeReal(0xc2640000, 0); // -100
 * ```
 */
export function decodeReal(upper: number, lower: number): number {
  const fraction = ((upper & 0xffffff) * 2 ** 32 + lower) / 2 ** 56;
  const size = fraction * 16 ** (((upper >>> 24) & 0x7f) - 64);
  return upper >= 0x80000000 ? -size : size;
}

// Writer ------------------------------------------------------------------------------------------

/** Bytes that grow. */
class Output {
  bytes = new Uint8Array(1 << 16);
  view = new DataView(this.bytes.buffer);
  length = 0;

  room(n: number): number {
    const at = this.length;
    this.length += n;
    if (this.length > this.bytes.length) {
      const larger = new Uint8Array(2 * this.length);
      larger.set(this.bytes);
      this.bytes = larger;
      this.view = new DataView(larger.buffer);
    }
    return at;
  }

  head(name: RecordName, dataBytes: number): number {
    if (dataBytes > MAX_DATA_BYTES) {
      throw new RangeError(
        `Cannot write a GDSII record ${name} as its data must have at most ${MAX_DATA_BYTES} bytes: ${dataBytes} bytes`,
      );
    }
    const at = this.room(4 + dataBytes);
    this.view.setUint16(at, 4 + dataBytes);
    this.view.setUint16(at + 2, RECORDS[name]);
    return at + 4;
  }

  empty(name: RecordName): void {
    this.head(name, 0);
  }

  int16(name: RecordName, ...values: number[]): void {
    let at = this.head(name, 2 * values.length);
    for (const value of values) {
      requireWhole(name, value, -0x8000, 0xffff);
      this.view.setUint16(at, value & 0xffff);
      at += 2;
    }
  }

  int32(name: RecordName, values: ArrayLike<number>): void {
    let at = this.head(name, 4 * values.length);
    for (let i = 0; i < values.length; i++, at += 4) {
      requireWhole(name, values[i], -0x80000000, 0x7fffffff);
      this.view.setInt32(at, values[i]);
    }
  }

  real(name: RecordName, ...values: number[]): void {
    let at = this.head(name, 8 * values.length);
    for (const value of values) {
      const [upper, lower] = encodeReal(value);
      this.view.setUint32(at, upper);
      this.view.setUint32(at + 4, lower);
      at += 8;
    }
  }

  text(name: RecordName, value: string): void {
    const at = this.head(name, value.length + value.length % 2);
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code === 0 || code > 255) {
        throw new RangeError(
          `Cannot write a GDSII text as it must have characters 1 to 255 only: ${
            JSON.stringify(value.slice(0, 80))
          }`,
        );
      }
      this.bytes[at + i] = code;
    }
  }
}

function requireWhole(
  name: string,
  value: number,
  low: number,
  high: number,
): void {
  if (!(Number.isInteger(value) && value >= low && value <= high)) {
    throw new RangeError(
      `Cannot write a GDSII record ${name} as its values must be whole numbers from ${low} to ${high}: ${value}`,
    );
  }
}

/** Numbers of points each element must have: least, and most or none. */
const POINTS: Record<GdsElement["type"], [number, number]> = {
  boundary: [4, Infinity],
  path: [1, Infinity],
  box: [5, 5],
  node: [1, Infinity],
  sref: [1, 1],
  aref: [3, 3],
  text: [1, 1],
};

function writeTransform(out: Output, element: GdsTransform): void {
  const { strans, magnification, angle } = element;
  if (
    strans === undefined && magnification === undefined && angle === undefined
  ) {
    return;
  }
  out.int16("STRANS", strans ?? 0);
  if (magnification !== undefined) out.real("MAG", magnification);
  if (angle !== undefined) out.real("ANGLE", angle);
}

function writeElement(out: Output, element: GdsElement): void {
  const points = element.xy.length / 2;
  const [least, most] = POINTS[element.type];
  if (!(Number.isInteger(points) && points >= least && points <= most)) {
    throw new RangeError(
      `Cannot write a GDSII ${element.type} as it must have ${
        least === most ? least : `${least} or more`
      } points: ${points}`,
    );
  }
  out.empty(element.type.toUpperCase() as RecordName);
  if (element.flags !== undefined) out.int16("ELFLAGS", element.flags);
  if (element.plex !== undefined) out.int32("PLEX", [element.plex]);
  switch (element.type) {
    case "boundary":
      out.int16("LAYER", element.layer);
      out.int16("DATATYPE", element.datatype);
      break;
    case "path":
      out.int16("LAYER", element.layer);
      out.int16("DATATYPE", element.datatype);
      if (element.pathtype !== undefined) {
        out.int16("PATHTYPE", element.pathtype);
      }
      if (element.width !== undefined) out.int32("WIDTH", [element.width]);
      if (element.beginExtension !== undefined) {
        out.int32("BGNEXTN", [element.beginExtension]);
      }
      if (element.endExtension !== undefined) {
        out.int32("ENDEXTN", [element.endExtension]);
      }
      break;
    case "box":
      out.int16("LAYER", element.layer);
      out.int16("BOXTYPE", element.boxtype);
      break;
    case "node":
      out.int16("LAYER", element.layer);
      out.int16("NODETYPE", element.nodetype);
      break;
    case "sref":
      out.text("SNAME", element.structure);
      writeTransform(out, element);
      break;
    case "aref":
      out.text("SNAME", element.structure);
      writeTransform(out, element);
      out.int16("COLROW", element.columns, element.rows);
      break;
    case "text":
      out.int16("LAYER", element.layer);
      out.int16("TEXTTYPE", element.texttype);
      if (element.presentation !== undefined) {
        out.int16("PRESENTATION", element.presentation);
      }
      if (element.pathtype !== undefined) {
        out.int16("PATHTYPE", element.pathtype);
      }
      if (element.width !== undefined) out.int32("WIDTH", [element.width]);
      writeTransform(out, element);
      break;
  }
  out.int32("XY", element.xy);
  if (element.type === "text") out.text("STRING", element.text);
  for (const [attribute, value] of element.properties ?? []) {
    out.int16("PROPATTR", attribute);
    out.text("PROPVALUE", value);
  }
  out.empty("ENDEL");
}

/**
 * The bytes of a GDSII file.
 *
 * @throws RangeError if a value does not fit the format, such as a coordinate beyond 32 bits, or if
 * two structures have the same name or a reference none.
 *
 * @example
 * ```ts
 * const elements = [{ type: "sref", structure: "a", xy: Int32Array.of(5, 6) }];
 * const structures = [{ name: "a", elements: [] }, { name: "b", elements }];
 * const bytes = writeGds({ name: "L", userUnit: 0.001, unitM: 1e-9, structures });
 * readGds(bytes).structures[1].elements[0].xy; // [5, 6]
 * ```
 */
export function writeGds(library: GdsLibrary): Uint8Array {
  const names = new Set<string>();
  for (const { name } of library.structures) {
    if (names.has(name)) {
      throw new RangeError(
        `Cannot write GDSII library ${library.name} as names of structures must be unique: ${name}`,
      );
    }
    names.add(name);
  }
  const out = new Output();
  out.int16("HEADER", library.version ?? 600);
  out.int16("BGNLIB", ...(library.times ?? FIXED_TIMES));
  out.text("LIBNAME", library.name);
  out.real("UNITS", library.userUnit, library.unitM);
  for (const { name, elements, times } of library.structures) {
    out.int16("BGNSTR", ...(times ?? FIXED_TIMES));
    out.text("STRNAME", name);
    for (const element of elements) {
      if ("structure" in element && !names.has(element.structure)) {
        throw new RangeError(
          `Cannot write GDSII structure ${name} as what it refers to must be in the library: ${element.structure}`,
        );
      }
      writeElement(out, element);
    }
    out.empty("ENDSTR");
  }
  out.empty("ENDLIB");
  return out.bytes.slice(0, out.length);
}

// Reader ------------------------------------------------------------------------------------------

/** A walk through the records of a file; data are decoded on demand and never copied before. */
class Input {
  at = 0;
  next = 0;
  name: RecordName = "HEADER";
  view: DataView;

  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  refuse(why: string): never {
    throw new SyntaxError(`Cannot read GDSII as ${why} (byte ${this.at})`);
  }

  /** Goes to the next record that matters. */
  step(): RecordName {
    do {
      this.at = this.next;
      if (this.at + 4 > this.bytes.length) {
        this.refuse(
          `the file must end with ENDLIB: it ends after ${this.bytes.length} bytes`,
        );
      }
      const length = this.view.getUint16(this.at);
      const tag = this.view.getUint16(this.at + 2);
      const name = NAMES.get(tag);
      if (name === undefined) {
        this.refuse(`this kind of record is unknown: 0x${hex(tag)}`);
      }
      if (length < 4 || length % 2 !== 0) {
        this.refuse(
          `the length of a record must be even and at least 4: ${name} ${length}`,
        );
      }
      if (this.at + length > this.bytes.length) {
        this.refuse(
          `a record must lie within the file: ${name} of ${length} bytes, ${
            this.bytes.length - this.at
          } left`,
        );
      }
      if ((length - 4) % VALUE_BYTES[tag & 0xff] !== 0) {
        this.refuse(
          `the data of ${name} must be whole values: ${length - 4} bytes`,
        );
      }
      this.next = this.at + length;
      this.name = name;
    } while (IGNORED.has(this.name));
    return this.name;
  }

  expect(name: RecordName): void {
    if (this.step() !== name) {
      this.refuse(`${name} must stand here, not ${this.name}`);
    }
  }

  private count(bytes: number, least: number, most: number): number {
    const n = (this.next - this.at - 4) / bytes;
    if (n < least || n > most) {
      this.refuse(
        `${this.name} must have ${
          least === most ? least : `${least} or more`
        } values, not ${n}`,
      );
    }
    return n;
  }

  int16s(n: number): number[] {
    this.count(2, n, n);
    return Array.from(
      { length: n },
      (_, i) => this.view.getInt16(this.at + 4 + 2 * i),
    );
  }

  int16(): number {
    return this.int16s(1)[0];
  }

  bits(): number {
    this.count(2, 1, 1);
    return this.view.getUint16(this.at + 4);
  }

  int32s(least: number, most = least): Int32Array {
    const values = new Int32Array(this.count(4, least, most));
    for (let i = 0; i < values.length; i++) {
      values[i] = this.view.getInt32(this.at + 4 + 4 * i);
    }
    return values;
  }

  reals(n: number): number[] {
    this.count(8, n, n);
    return Array.from({ length: n }, (_, i) =>
      decodeReal(
        this.view.getUint32(this.at + 4 + 8 * i),
        this.view.getUint32(this.at + 8 + 8 * i),
      ));
  }

  text(): string {
    let end = this.next;
    if (end > this.at + 4 && this.bytes[end - 1] === 0) end--;
    let text = "";
    for (let i = this.at + 4; i < end; i++) {
      if (this.bytes[i] === 0) {
        this.refuse(`${this.name} must not have a zero within`);
      }
      text += String.fromCharCode(this.bytes[i]);
    }
    return text;
  }
}

function hex(tag: number): string {
  return tag.toString(16).padStart(4, "0");
}

/** Records that each element must and may have, beside those of all. */
const FIELDS: Record<
  GdsElement["type"],
  { must: RecordName[]; may: RecordName[] }
> = {
  boundary: { must: ["LAYER", "DATATYPE", "XY"], may: [] },
  path: {
    must: ["LAYER", "DATATYPE", "XY"],
    may: ["PATHTYPE", "WIDTH", "BGNEXTN", "ENDEXTN"],
  },
  box: { must: ["LAYER", "BOXTYPE", "XY"], may: [] },
  node: { must: ["LAYER", "NODETYPE", "XY"], may: [] },
  sref: { must: ["SNAME", "XY"], may: ["STRANS", "MAG", "ANGLE"] },
  aref: { must: ["SNAME", "COLROW", "XY"], may: ["STRANS", "MAG", "ANGLE"] },
  text: {
    must: ["LAYER", "TEXTTYPE", "XY", "STRING"],
    may: ["PRESENTATION", "PATHTYPE", "WIDTH", "STRANS", "MAG", "ANGLE"],
  },
};

const COMMON_FIELDS: RecordName[] = [
  "ELFLAGS",
  "PLEX",
  "PROPATTR",
  "PROPVALUE",
];

/** Name of the property that a record fills. */
const PROPERTY: Partial<Record<RecordName, string>> = {
  ELFLAGS: "flags",
  PLEX: "plex",
  LAYER: "layer",
  DATATYPE: "datatype",
  BOXTYPE: "boxtype",
  NODETYPE: "nodetype",
  TEXTTYPE: "texttype",
  PATHTYPE: "pathtype",
  WIDTH: "width",
  BGNEXTN: "beginExtension",
  ENDEXTN: "endExtension",
  XY: "xy",
  SNAME: "structure",
  STRING: "text",
  PRESENTATION: "presentation",
  STRANS: "strans",
  MAG: "magnification",
  ANGLE: "angle",
};

function readElement(input: Input): GdsElement {
  const type = input.name.toLowerCase() as GdsElement["type"];
  const start = input.at;
  const { must, may } = FIELDS[type];
  const fields: Record<string, unknown> = { type };
  const seen = new Set<RecordName>();
  const properties: [number, string][] = [];
  let attribute: number | undefined;
  while (input.step() !== "ENDEL") {
    const name = input.name;
    if (
      !must.includes(name) && !may.includes(name) &&
      !COMMON_FIELDS.includes(name)
    ) {
      input.refuse(`a ${type} must not have ${name}`);
    }
    if (seen.has(name) && !name.startsWith("PROP")) {
      input.refuse(`a ${type} must have ${name} once`);
    }
    seen.add(name);
    switch (name) {
      case "XY": {
        const [least, most] = POINTS[type];
        fields.xy = input.int32s(2 * least, 2 * most);
        if ((fields.xy as Int32Array).length % 2 !== 0) {
          input.refuse("XY must have as many y as x");
        }
        break;
      }
      case "COLROW":
        [fields.columns, fields.rows] = input.int16s(2);
        if (!(Number(fields.columns) > 0 && Number(fields.rows) > 0)) {
          input.refuse(
            `COLROW must be positive: ${fields.columns} columns, ${fields.rows} rows`,
          );
        }
        break;
      case "PROPATTR":
        attribute = input.int16();
        break;
      case "PROPVALUE":
        if (attribute === undefined) {
          input.refuse("PROPVALUE must follow a PROPATTR");
        }
        properties.push([attribute, input.text()]);
        attribute = undefined;
        break;
      case "SNAME":
      case "STRING":
        fields[PROPERTY[name]!] = input.text();
        break;
      case "STRANS":
      case "ELFLAGS":
      case "PRESENTATION":
        fields[PROPERTY[name]!] = input.bits();
        break;
      case "MAG":
      case "ANGLE":
        fields[PROPERTY[name]!] = input.reals(1)[0];
        break;
      case "WIDTH":
      case "PLEX":
      case "BGNEXTN":
      case "ENDEXTN":
        fields[PROPERTY[name]!] = input.int32s(1)[0];
        break;
      default:
        fields[PROPERTY[name]!] = input.int16();
    }
  }
  for (const name of must) {
    if (!seen.has(name)) {
      input.refuse(`the ${type} of byte ${start} must have ${name}`);
    }
  }
  if (attribute !== undefined) input.refuse("PROPATTR must have a PROPVALUE");
  if (properties.length > 0) fields.properties = properties;
  return fields as unknown as GdsElement;
}

/**
 * The library in the bytes of a GDSII file.
 *
 * Nothing is allocated before the bytes it is made of are known to be there, so that a hostile file
 * costs no more memory than a small multiple of its length. Zeros after the end, as tapes have them,
 * are allowed.
 *
 * @throws SyntaxError that names the first byte of the record at fault.
 */
export function readGds(bytes: Uint8Array): GdsLibrary {
  const input = new Input(bytes);
  input.expect("HEADER");
  const version = input.int16();
  input.expect("BGNLIB");
  const times = input.int16s(12);
  input.expect("LIBNAME");
  const name = input.text();
  input.expect("UNITS");
  const [userUnit, unitM] = input.reals(2);
  if (!(userUnit > 0 && unitM > 0)) {
    input.refuse(`UNITS must be positive: ${userUnit} and ${unitM}`);
  }
  const structures: GdsStructure[] = [];
  const names = new Set<string>();
  while (input.step() !== "ENDLIB") {
    if (input.name !== "BGNSTR") {
      input.refuse(`BGNSTR or ENDLIB must stand here, not ${input.name}`);
    }
    const structure: GdsStructure = {
      name: "",
      elements: [],
      times: input.int16s(12),
    };
    input.expect("STRNAME");
    structure.name = input.text();
    if (names.has(structure.name)) {
      input.refuse(
        `names of structures must be unique: ${
          JSON.stringify(structure.name.slice(0, 80))
        }`,
      );
    }
    names.add(structure.name);
    while (input.step() !== "ENDSTR") {
      if (!ELEMENTS.has(input.name)) {
        input.refuse(`an element or ENDSTR must stand here, not ${input.name}`);
      }
      structure.elements.push(readElement(input));
    }
    structures.push(structure);
  }
  for (let i = input.next; i < bytes.length; i++) {
    if (bytes[i] !== 0) {
      input.at = i;
      input.refuse("only zeros may follow ENDLIB");
    }
  }
  return { name, version, times, userUnit, unitM, structures };
}

// Hierarchy ---------------------------------------------------------------------------------------

/** Names of the structures that no other refers to. */
export function topStructures({ structures }: GdsLibrary): string[] {
  const used = new Set(
    structures.flatMap(({ elements }) =>
      elements.flatMap((e) => "structure" in e ? [e.structure] : [])
    ),
  );
  return structures.flatMap(({ name }) => used.has(name) ? [] : [name]);
}

/** x' = a x + b y + dx, y' = c x + d y + dy with right angles only: a, b, c, d are -1, 0 or 1. */
export interface GdsPlacement {
  a: number;
  b: number;
  c: number;
  d: number;
  dx: number;
  dy: number;
}

export const UNMOVED: GdsPlacement = { a: 1, b: 0, c: 0, d: 1, dx: 0, dy: 0 };

/**
 * Where a reference puts its structure.
 *
 * @throws RangeError if it enlarges it or turns it by other than right angles.
 */
export function placementOf(
  reference: GdsReference | GdsArray,
  x = reference.xy[0],
  y = reference.xy[1],
): GdsPlacement {
  const { strans = 0, magnification = 1, angle = 0, structure } = reference;
  const quarter = angle / 90;
  if (magnification !== 1 || !Number.isInteger(quarter)) {
    throw new RangeError(
      `Cannot place structure ${structure} as references must keep the size and turn by right angles only: magnification ${magnification}, angle ${angle}`,
    );
  }
  const turn = ((quarter % 4) + 4) % 4;
  const cos = [1, 0, -1, 0][turn];
  const sin = [0, 1, 0, -1][turn];
  const mirror = (strans & 0x8000) !== 0 ? -1 : 1;
  return { a: cos, b: -sin * mirror, c: sin, d: cos * mirror, dx: x, dy: y };
}

/** First `inner`, then `outer`. */
export function compose(
  outer: GdsPlacement,
  inner: GdsPlacement,
): GdsPlacement {
  const { a, b, c, d } = outer;
  return {
    a: a * inner.a + b * inner.c,
    b: a * inner.b + b * inner.d,
    c: c * inner.a + d * inner.c,
    d: c * inner.b + d * inner.d,
    dx: a * inner.dx + b * inner.dy + outer.dx,
    dy: c * inner.dx + d * inner.dy + outer.dy,
  };
}

/** Elements a flat view may have: far more than any layout of ours, far less than memory. */
const MAX_FLAT_ELEMENTS = 2e7;

/** Nesting of references: each level costs a stack frame. */
const MAX_DEPTH = 500;

export interface FlattenOptions {
  /** Most elements that the flat view may have. */
  limit?: number;
  /**
   * Called for each reference with the structure's name and place; the number it returns goes to
   * `visit` with all that lies within, undefined keeps that of the structure around.
   */
  enter?: (structure: string, placement: GdsPlacement) => number | undefined;
}

/**
 * Calls `visit` for every element of a structure and of all that it refers to, references aside.
 *
 * @param visit Gets the element, where it lies, and the number that `enter` gave, -1 at the top.
 * @throws RangeError if a structure is missing, contains itself or the elements are too many.
 */
export function flatten(
  { structures }: GdsLibrary,
  top: string,
  visit: (
    element: Exclude<GdsElement, GdsReference | GdsArray>,
    placement: GdsPlacement,
    owner: number,
  ) => void,
  { limit = MAX_FLAT_ELEMENTS, enter }: FlattenOptions = {},
): void {
  const byName = new Map(structures.map((s) => [s.name, s]));
  const counts = new Map<string, number>();
  const open = new Set<string>();
  const refuse = (why: string): never => {
    throw new RangeError(`Cannot flatten GDSII structure ${top} as ${why}`);
  };
  const count = (name: string): number => {
    const known = counts.get(name);
    if (known !== undefined) return known;
    if (open.has(name)) refuse(`no structure may contain itself: ${name}`);
    if (open.size >= MAX_DEPTH) {
      refuse(`references must be nested at most ${MAX_DEPTH} deep: ${name}`);
    }
    const { elements } = byName.get(name) ??
      refuse(`what it refers to must be in the library: ${name}`);
    open.add(name);
    let sum = 0;
    for (const element of elements) {
      // A reference to an empty structure counts too: it takes time.
      sum += element.type === "sref"
        ? Math.max(1, count(element.structure))
        : element.type === "aref"
        ? element.columns * element.rows * Math.max(1, count(element.structure))
        : 1;
    }
    open.delete(name);
    counts.set(name, sum);
    return sum;
  };
  if (count(top) > limit) {
    refuse(`it must have at most ${limit} elements: ${count(top)}`);
  }
  const walk = (name: string, at: GdsPlacement, owner: number) => {
    const into = (structure: string, inner: GdsPlacement) => {
      const placement = compose(at, inner);
      walk(structure, placement, enter?.(structure, placement) ?? owner);
    };
    for (const element of byName.get(name)!.elements) {
      if (element.type === "sref") {
        into(element.structure, placementOf(element));
      } else if (element.type === "aref") {
        const { columns, rows, xy, structure } = element;
        const place = (i: 0 | 1, column: number, row: number) =>
          xy[i] + column * (xy[2 + i] - xy[i]) / columns +
          row * (xy[4 + i] - xy[i]) / rows;
        for (let row = 0; row < rows; row++) {
          for (let column = 0; column < columns; column++) {
            const [x, y] = [place(0, column, row), place(1, column, row)];
            into(structure, placementOf(element, x, y));
          }
        }
      } else visit(element, at, owner);
    }
  };
  walk(top, UNMOVED, -1);
}
