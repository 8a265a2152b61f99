/**
 * ONNX models: reader and writer, and a check that a graph holds together.
 *
 * Source: onnx/onnx onnx/onnx.proto (messages and numbers of their fields) and docs/IR.md (rules of a
 * graph); Protocol Buffers, "Encoding" (the bytes). A message is a chain of fields:
 *
 *   varint     field number * 8 + kind
 *   kind 0     varint          kind 1  8 bytes          kind 5  4 bytes
 *   kind 2     varint length and so many bytes: a text, a message or a packed list of numbers
 *
 * Models, graphs, nodes and tensors are plain objects. What is written lies in the order of the field
 * numbers, as the official library writes it, tensors as little-endian raw data. Both ways of storing a
 * tensor and both of storing a list, packed or not, are read; fields that are not known are passed over,
 * as protobuf demands.
 *
 * A file from elsewhere is not trusted: every length is checked against the bytes that are left, graphs
 * nest to a limited depth, and a tensor must have as many numbers as its shape says.
 *
 * Scope: dense tensors inside the file, of the types below. Refused by name: external data, sparse
 * tensors, texts, complex numbers and 8-bit floats, functions, training information, values that are no
 * tensors. Doc strings of parts and quantization annotations are passed over.
 */
import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import process from "node:process";
import { fromBF16, fromF16, toBF16, toF16 } from "./safetensors.ts";

/** Graphs inside attributes of graphs; loops and branches nest two or three deep. */
const MAX_NESTING = 16;
/** More dimensions than any tensor has. */
const MAX_DIMENSIONS = 64;
/** A protobuf message has at most 2^31 - 1 bytes; more needs external data. */
const MAX_BYTES = 2 ** 31 - 1;

/** Number of each type in TensorProto.DataType, and bits per number. */
const DTYPES = {
  float32: { id: 1, bits: 32 },
  uint8: { id: 2, bits: 8 },
  int8: { id: 3, bits: 8 },
  uint16: { id: 4, bits: 16 },
  int16: { id: 5, bits: 16 },
  int32: { id: 6, bits: 32 },
  int64: { id: 7, bits: 64 },
  bool: { id: 9, bits: 8 },
  float16: { id: 10, bits: 16 },
  float64: { id: 11, bits: 64 },
  uint32: { id: 12, bits: 32 },
  uint64: { id: 13, bits: 64 },
  bfloat16: { id: 16, bits: 16 },
  uint4: { id: 21, bits: 4 },
  int4: { id: 22, bits: 4 },
} as const;

export type OnnxDtype = keyof typeof DTYPES;

/** Types that are not read, for the message. */
const OTHER_DTYPES: Record<number, string> = {
  0: "undefined",
  8: "string",
  14: "complex64",
  15: "complex128",
  17: "float8e4m3fn",
  18: "float8e4m3fnuz",
  19: "float8e5m2",
  20: "float8e5m2fnuz",
  23: "float4e2m1",
  24: "float8e8m0",
  25: "uint2",
  26: "int2",
};

/**
 * Numbers as JavaScript holds them: float16 and bfloat16 widened to Float32Array, bool as 0 and 1, int4
 * and uint4 as stored, two in a byte, the first in the low half (see `packInt4`).
 */
export type OnnxData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** The array that each type is handed out in. */
const ARRAYS = {
  float32: Float32Array,
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
  float16: Float32Array,
  float64: Float64Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bfloat16: Float32Array,
  uint4: Uint8Array,
  int4: Uint8Array,
} as const;

/** A constant. */
export interface OnnxTensor {
  name: string;
  dtype: OnnxDtype;
  shape: number[];
  /** Row-major. */
  data: OnnxData;
}

/** What an operator is told besides its inputs. Integers past 2^53 are bigints. */
export type OnnxAttribute =
  | { type: "float"; value: number }
  | { type: "int"; value: number | bigint }
  | { type: "string"; value: string }
  | { type: "tensor"; value: OnnxTensor }
  | { type: "graph"; value: OnnxGraph }
  | { type: "floats"; value: number[] }
  | { type: "ints"; value: (number | bigint)[] }
  | { type: "strings"; value: string[] };

/** One application of an operator. An input "" is left out. */
export interface OnnxNode {
  opType: string;
  inputs: string[];
  outputs: string[];
  name?: string;
  /** Default "", the standard operators. */
  domain?: string;
  attributes?: Record<string, OnnxAttribute>;
}

/** The type of a value that flows: a size, the name of a size, or null if nothing is known. */
export interface OnnxValueInfo {
  name: string;
  dtype: OnnxDtype;
  /** Absent if not even the number of dimensions is known. */
  shape?: (number | string | null)[];
}

/** A computation: nodes in an order in which they can be computed. */
export interface OnnxGraph {
  name: string;
  nodes: OnnxNode[];
  initializers: OnnxTensor[];
  inputs: OnnxValueInfo[];
  outputs: OnnxValueInfo[];
  /** Types of values between; optional. */
  values?: OnnxValueInfo[];
}

/** A file. */
export interface OnnxModel {
  /** Version of the format itself; 8 goes with operator sets up to 18, 10 with 21. */
  irVersion: number;
  /** Version of the operators by domain, "" for the standard ones. */
  opsets: Record<string, number>;
  graph: OnnxGraph;
  producerName?: string;
  producerVersion?: string;
  docString?: string;
  metadata?: Record<string, string>;
}

/** Number of AttributeProto.AttributeType, and field that holds the value. */
const ATTRIBUTES = {
  float: { id: 1, field: 2 },
  int: { id: 2, field: 3 },
  string: { id: 3, field: 4 },
  tensor: { id: 4, field: 5 },
  graph: { id: 5, field: 6 },
  floats: { id: 6, field: 7 },
  ints: { id: 7, field: 8 },
  strings: { id: 8, field: 9 },
} as const;

function invalid(what: string): SyntaxError {
  return new SyntaxError(`Cannot read ONNX as ${what}`);
}

/** A text for a message, not too long. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}

const product = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

// Four-bit numbers --------------------------------------------------------------

/**
 * Numbers of four bits, two in a byte, the first in the low half (onnx.proto, TensorProto.raw_data).
 *
 * @param values 0 to 15 (uint4) or -8 to 7 (int4).
 * @throws {RangeError} If a number is out of range.
 */
export function packInt4(
  values: ArrayLike<number>,
  dtype: "int4" | "uint4",
): Uint8Array<ArrayBuffer> {
  const least = dtype === "int4" ? -8 : 0;
  const out = new Uint8Array(Math.ceil(values.length / 2));
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (!Number.isInteger(value) || value < least || value > least + 15) {
      throw new RangeError(
        `Cannot pack ${dtype} as numbers must be integers from ${least} to ${
          least + 15
        }: ${value} at ${i}`,
      );
    }
    out[i >> 1] |= (value & 15) << (i % 2 * 4);
  }
  return out;
}

/** The numbers of `packInt4`. */
export function unpackInt4(
  bytes: Uint8Array,
  count: number,
  dtype: "int4" | "uint4",
): Int8Array {
  return Int8Array.from({ length: count }, (_, i) => {
    const code = (bytes[i >> 1] >> (i % 2 * 4)) & 15;
    return dtype === "int4" && code > 7 ? code - 16 : code;
  });
}

// Protocol buffers: reading -------------------------------------------------------

/** Kinds of a field on the wire. */
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** One field of a message: its number and kind, and where its content lies. */
interface Field {
  number: number;
  kind: number;
  /** The value of a varint. */
  varint: bigint;
  /** The content of every other kind. */
  bytes: Uint8Array;
  /** What it is a part of, for messages. */
  of: string;
}

const NOTHING = new Uint8Array(0);

/** A varint and the place after it. */
function readVarint(
  bytes: Uint8Array,
  at: number,
  of: string,
): { value: bigint; next: number } {
  // Seven bits at a time; numbers below 2^28, nearly all, need no bigint on the way.
  let low = 0;
  for (let i = 0; i < 4; i++) {
    if (at + i >= bytes.length) throw invalid(`${of} ends inside a number`);
    const byte = bytes[at + i];
    low |= (byte & 127) << (7 * i);
    if (byte < 128) return { value: BigInt(low), next: at + i + 1 };
  }
  let value = BigInt(low);
  for (let i = 4; i < 10; i++) {
    if (at + i >= bytes.length) throw invalid(`${of} ends inside a number`);
    const byte = bytes[at + i];
    value |= BigInt(byte & 127) << BigInt(7 * i);
    if (byte < 128) {
      return { value: BigInt.asUintN(64, value), next: at + i + 1 };
    }
  }
  throw invalid(`a number in ${of} must have at most 10 bytes`);
}

/** The fields of a message, one after the other. */
function* fields(bytes: Uint8Array, of: string): Generator<Field> {
  let at = 0;
  while (at < bytes.length) {
    const tag = readVarint(bytes, at, of);
    at = tag.next;
    const number = Number(tag.value >> 3n);
    const kind = Number(tag.value & 7n);
    if (number < 1 || number >= 2 ** 29) {
      throw invalid(
        `the number of a field of ${of} must be 1 to 2^29 - 1: ${number}`,
      );
    }
    if (kind === VARINT) {
      const { value, next } = readVarint(bytes, at, of);
      yield { number, kind, varint: value, bytes: NOTHING, of };
      at = next;
      continue;
    }
    let size: bigint;
    if (kind === FIXED32) size = 4n;
    else if (kind === FIXED64) size = 8n;
    else if (kind === BYTES) {
      const { value, next } = readVarint(bytes, at, of);
      size = value;
      at = next;
    } else {
      throw invalid(
        `the kind of field ${number} of ${of} must be 0, 1, 2 or 5: ${kind}`,
      );
    }
    const left = bytes.length - at;
    if (size > BigInt(left)) {
      throw invalid(
        `${of} ends before its field ${number}: ${size} bytes needed, ${left} left`,
      );
    }
    const end = at + Number(size);
    yield { number, kind, varint: 0n, bytes: bytes.subarray(at, end), of };
    at = end;
  }
}

function wrongKind({ number, kind, of }: Field, wanted: string): SyntaxError {
  return invalid(`field ${number} of ${of} must be ${wanted}: kind ${kind}`);
}

/** The content of a message or of bytes. */
function contentOf(field: Field): Uint8Array {
  if (field.kind !== BYTES) throw wrongKind(field, "bytes");
  return field.bytes;
}

function textOf(field: Field): string {
  try {
    return UTF8.decode(contentOf(field));
  } catch (error) {
    if (error instanceof SyntaxError) throw error;
    throw invalid(`field ${field.number} of ${field.of} must be UTF-8`);
  }
}

/** A signed 64-bit number. */
function int64Of(field: Field): bigint {
  if (field.kind !== VARINT) throw wrongKind(field, "a number");
  return BigInt.asIntN(64, field.varint);
}

/** A whole number that a double holds. */
function intOf(field: Field): number {
  const value = int64Of(field);
  if (value !== BigInt(Number(value)) || !Number.isSafeInteger(Number(value))) {
    throw invalid(
      `field ${field.number} of ${field.of} must be a safe integer: ${value}`,
    );
  }
  return Number(value);
}

/** As a number where a double holds it. */
function narrow(value: bigint): number | bigint {
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** The numbers of a repeated varint field: one, or a packed list. */
function int64sOf(field: Field): bigint[] {
  if (field.kind === VARINT) return [field.varint];
  const bytes = contentOf(field);
  const values: bigint[] = [];
  for (let at = 0; at < bytes.length;) {
    const { value, next } = readVarint(bytes, at, field.of);
    values.push(value);
    at = next;
  }
  return values;
}

/** The bytes of a repeated field of fixed size: one number, or a packed list. */
function fixedOf(field: Field, size: 4 | 8): Uint8Array {
  const kind = size === 4 ? FIXED32 : FIXED64;
  if (field.kind !== kind && field.kind !== BYTES) {
    throw wrongKind(field, `numbers of ${size} bytes`);
  }
  if (field.bytes.length % size !== 0) {
    throw invalid(
      `field ${field.number} of ${field.of} must be whole numbers of ${size} bytes: ` +
        `${field.bytes.length} bytes`,
    );
  }
  return field.bytes;
}

function floatsOf(field: Field): number[] {
  const bytes = fixedOf(field, 4);
  return Array.from(new Float32Array(new Uint8Array(bytes).buffer));
}

/** Sets what may be given once; two messages would have to be merged. */
function once<T>(before: T | undefined, value: T, what: string): T {
  if (before !== undefined) throw invalid(`${what} must be given once`);
  return value;
}

// Messages: reading -----------------------------------------------------------------

function dtypeOf(id: number, of: string): OnnxDtype {
  for (const [name, dtype] of Object.entries(DTYPES)) {
    if (dtype.id === id) return name as OnnxDtype;
  }
  throw invalid(
    `the type of ${of} must be one of ${Object.keys(DTYPES).join(", ")}: ` +
      (OTHER_DTYPES[id] ?? `number ${id}`),
  );
}

/** Bytes that so many numbers of a type take. */
function storedBytes(dtype: OnnxDtype, count: number): number {
  return Math.ceil(count * DTYPES[dtype].bits / 8);
}

/** The array of a type from little-endian bytes; aligned floats are a view. */
function fromRaw(dtype: OnnxDtype, bytes: Uint8Array): OnnxData {
  const size = Math.max(1, DTYPES[dtype].bits / 8);
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  const { byteOffset } = aligned;
  const buffer = aligned.buffer as ArrayBuffer;
  const count = bytes.length / size;
  if (dtype === "float16" || dtype === "bfloat16") {
    const halves = new Uint16Array(buffer, byteOffset, count);
    return dtype === "float16" ? fromF16(halves) : fromBF16(halves);
  }
  return new ARRAYS[dtype](buffer, byteOffset, count);
}

/** The array of a type from the numbers of int32_data, int64_data or uint64_data. */
function fromVarints(
  dtype: OnnxDtype,
  values: bigint[],
  count: number,
  what: string,
): OnnxData {
  const { bits } = DTYPES[dtype];
  // Four-bit numbers lie there two in a byte, half floats as their bits.
  const wanted = bits === 4 ? Math.ceil(count / 2) : count;
  if (values.length !== wanted) {
    throw invalid(`${what} must have ${wanted} numbers: ${values.length}`);
  }
  if (dtype === "float16" || dtype === "bfloat16") {
    const halves = Uint16Array.from(values, (v) => Number(v & 0xffffn));
    return dtype === "float16" ? fromF16(halves) : fromBF16(halves);
  }
  if (dtype === "int64") return BigInt64Array.from(values);
  if (dtype === "uint64") return BigUint64Array.from(values);
  return ARRAYS[dtype as "int32"].from(
    values,
    (v) => Number(BigInt.asIntN(64, v)),
  );
}

function readTensor(bytes: Uint8Array, where: string): OnnxTensor {
  let name = "";
  let type: number | undefined;
  let raw: Uint8Array | undefined;
  const shape: number[] = [];
  const floats: Uint8Array[] = [];
  const varints: bigint[] = [];
  let what = where;
  for (const field of fields(bytes, where)) {
    switch (field.number) {
      case 1:
        for (const size of int64sOf(field)) shape.push(Number(size));
        break;
      case 2:
        type = intOf(field);
        break;
      case 3:
        throw invalid(`${what} must not be stored in segments`);
      case 4:
        floats.push(fixedOf(field, 4));
        break;
      case 5:
      case 7:
      case 11:
        for (const value of int64sOf(field)) varints.push(value);
        break;
      case 6:
        throw invalid(`${what} must not hold texts`);
      case 8:
        name = textOf(field);
        what = `tensor ${show(name)}`;
        break;
      case 9:
        raw = once(raw, contentOf(field), `the raw data of ${what}`);
        break;
      case 10:
        floats.push(fixedOf(field, 8));
        break;
      case 13:
      case 14:
        if (field.number === 14 && intOf(field) === 0) break;
        throw invalid(
          `${what} must lie inside the file: its data is external; save the model as one file`,
        );
    }
  }
  what = `tensor ${show(name)}`;
  const dtype = dtypeOf(type ?? 0, what);
  const count = product(shape);
  if (
    shape.length > MAX_DIMENSIONS || !Number.isSafeInteger(count) ||
    shape.some((size) => !Number.isSafeInteger(size))
  ) {
    throw invalid(
      `${what} must have at most ${MAX_DIMENSIONS} sizes whose product is a safe integer: ` +
        show(shape.slice(0, MAX_DIMENSIONS)),
    );
  }
  if (raw === undefined && varints.length > 0) {
    return {
      name,
      dtype,
      shape,
      data: fromVarints(dtype, varints, count, what),
    };
  }
  if (raw === undefined && dtype !== "float32" && dtype !== "float64") {
    raw = NOTHING;
  }
  const stored = raw ?? new Uint8Array(Buffer.concat(floats));
  const needed = storedBytes(dtype, count);
  if (stored.length !== needed) {
    throw invalid(
      `${what} of type ${dtype} and shape ${
        show(shape)
      } needs ${needed} bytes: ${stored.length}`,
    );
  }
  return { name, dtype, shape, data: fromRaw(dtype, stored) };
}

function readShape(bytes: Uint8Array, of: string): (number | string | null)[] {
  const shape: (number | string | null)[] = [];
  for (const field of fields(bytes, of)) {
    if (field.number !== 1) continue;
    let size: number | string | null = null;
    for (const part of fields(contentOf(field), of)) {
      if (part.number === 1) size = intOf(part);
      if (part.number === 2) size = textOf(part);
    }
    shape.push(size);
    if (shape.length > MAX_DIMENSIONS) {
      throw invalid(`${of} must have at most ${MAX_DIMENSIONS} dimensions`);
    }
  }
  return shape;
}

function readValueInfo(bytes: Uint8Array): OnnxValueInfo {
  let name = "";
  let type: Uint8Array | undefined;
  for (const field of fields(bytes, "a value")) {
    if (field.number === 1) name = textOf(field);
    if (field.number === 2) {
      type = once(type, contentOf(field), "the type of a value");
    }
  }
  const what = `value ${show(name)}`;
  let info: OnnxValueInfo | undefined;
  for (const field of fields(type ?? NOTHING, what)) {
    if ([4, 5, 7, 8, 9].includes(field.number)) {
      throw invalid(`${what} must be a dense tensor: kind ${field.number}`);
    }
    if (field.number !== 1) continue;
    let dtype = 0;
    let shape: OnnxValueInfo["shape"];
    for (const part of fields(contentOf(field), what)) {
      if (part.number === 1) dtype = intOf(part);
      if (part.number === 2) shape = readShape(contentOf(part), what);
    }
    info = { name, dtype: dtypeOf(dtype, what), ...(shape && { shape }) };
  }
  if (info === undefined) throw invalid(`${what} must have a type`);
  return info;
}

function readAttribute(
  bytes: Uint8Array,
  node: string,
  depth: number,
): [string, OnnxAttribute] {
  let name = "";
  let id = 0;
  const held = new Map<number, Field[]>();
  for (const field of fields(bytes, `an attribute of ${node}`)) {
    if (field.number === 1) name = textOf(field);
    else if (field.number === 20) id = intOf(field);
    else {
      const before = held.get(field.number);
      if (before === undefined) held.set(field.number, [field]);
      else before.push(field);
    }
  }
  const what = `attribute ${show(name)} of ${node}`;
  const type = (Object.keys(ATTRIBUTES) as OnnxAttribute["type"][])
    .find((t) => ATTRIBUTES[t].id === id);
  if (type === undefined) {
    throw invalid(
      `the type of ${what} must be one of ${
        Object.keys(ATTRIBUTES).join(", ")
      }: number ${id}`,
    );
  }
  const found = held.get(ATTRIBUTES[type].field) ?? [];
  const single = found[found.length - 1];
  // A number or text that is absent is 0 or empty; a tensor or graph must be there.
  if (type === "tensor" || type === "graph") {
    if (found.length !== 1) {
      throw invalid(`${what} must have one ${type}: ${found.length}`);
    }
  }
  switch (type) {
    case "float":
      return [name, { type, value: single ? floatsOf(single)[0] ?? 0 : 0 }];
    case "int":
      return [name, { type, value: single ? narrow(int64Of(single)) : 0 }];
    case "string":
      return [name, { type, value: single ? textOf(single) : "" }];
    case "tensor":
      return [name, { type, value: readTensor(contentOf(single), what) }];
    case "graph":
      return [name, { type, value: readGraph(contentOf(single), depth + 1) }];
    case "floats":
      return [name, { type, value: found.flatMap(floatsOf) }];
    case "ints":
      return [name, {
        type,
        value: found.flatMap((field) =>
          int64sOf(field).map((v) => narrow(BigInt.asIntN(64, v)))
        ),
      }];
    case "strings":
      return [name, { type, value: found.map(textOf) }];
  }
}

function readNode(bytes: Uint8Array, depth: number): OnnxNode {
  const node: OnnxNode = { opType: "", inputs: [], outputs: [] };
  const attributes: Uint8Array[] = [];
  for (const field of fields(bytes, "a node")) {
    switch (field.number) {
      case 1:
        node.inputs.push(textOf(field));
        break;
      case 2:
        node.outputs.push(textOf(field));
        break;
      case 3:
        node.name = textOf(field);
        break;
      case 4:
        node.opType = textOf(field);
        break;
      case 5:
        attributes.push(contentOf(field));
        break;
      case 7:
        node.domain = textOf(field);
        break;
    }
  }
  const what = `node ${show(node.name ?? node.opType)}`;
  if (attributes.length > 0) {
    const read = attributes.map((part) => readAttribute(part, what, depth));
    node.attributes = Object.fromEntries(read);
    if (Object.keys(node.attributes).length !== read.length) {
      throw invalid(`the attributes of ${what} must have different names`);
    }
  }
  return node;
}

function readGraph(bytes: Uint8Array, depth: number): OnnxGraph {
  if (depth > MAX_NESTING) {
    throw invalid(`graphs must not nest deeper than ${MAX_NESTING}`);
  }
  const graph: OnnxGraph = {
    name: "",
    nodes: [],
    initializers: [],
    inputs: [],
    outputs: [],
  };
  for (const field of fields(bytes, "the graph")) {
    switch (field.number) {
      case 1:
        graph.nodes.push(readNode(contentOf(field), depth));
        break;
      case 2:
        graph.name = textOf(field);
        break;
      case 5:
        graph.initializers.push(readTensor(contentOf(field), "a tensor"));
        break;
      case 11:
        graph.inputs.push(readValueInfo(contentOf(field)));
        break;
      case 12:
        graph.outputs.push(readValueInfo(contentOf(field)));
        break;
      case 13:
        (graph.values ??= []).push(readValueInfo(contentOf(field)));
        break;
      case 15:
        throw invalid("the graph must have dense tensors only: one is sparse");
    }
  }
  return graph;
}

/** Key and value of an entry, by the numbers 1 and 2. */
function readPair(bytes: Uint8Array, of: string): [string, Field | undefined] {
  let key = "";
  let value: Field | undefined;
  for (const field of fields(bytes, of)) {
    if (field.number === 1) key = textOf(field);
    if (field.number === 2) value = field;
  }
  return [key, value];
}

/**
 * The model of an ONNX file that is in memory.
 *
 * Aligned tensors are views of `bytes`: do not change the bytes afterwards.
 *
 * @param bytes The whole file.
 * @throws {SyntaxError} If the bytes break a rule of the format or hold what is not read; the message
 *   says which part.
 */
export function readOnnx(bytes: Uint8Array): OnnxModel {
  // Not a Buffer, whose slice() is no copy.
  const own = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let irVersion: number | undefined;
  let graph: Uint8Array | undefined;
  const opsets: [string, number][] = [];
  const metadata: [string, string][] = [];
  const texts: Pick<
    OnnxModel,
    "producerName" | "producerVersion" | "docString"
  > = {};
  for (const field of fields(own, "the model")) {
    switch (field.number) {
      case 1:
        irVersion = intOf(field);
        break;
      case 2:
        texts.producerName = textOf(field);
        break;
      case 3:
        texts.producerVersion = textOf(field);
        break;
      case 6:
        texts.docString = textOf(field);
        break;
      case 7:
        graph = once(graph, contentOf(field), "the graph");
        break;
      case 8: {
        const [domain, version] = readPair(contentOf(field), "an operator set");
        opsets.push([domain, version === undefined ? 0 : intOf(version)]);
        break;
      }
      case 14: {
        const [key, value] = readPair(contentOf(field), "the metadata");
        metadata.push([key, value === undefined ? "" : textOf(value)]);
        break;
      }
      case 20:
        throw invalid("the model must have no training information");
      case 25:
        throw invalid("the model must have no functions of its own");
    }
  }
  if (irVersion === undefined || graph === undefined) {
    throw invalid(
      `it must have ${irVersion === undefined ? "a version" : "a graph"}: ` +
        `${bytes.length} bytes`,
    );
  }
  return {
    irVersion,
    opsets: Object.fromEntries(opsets),
    graph: readGraph(graph, 1),
    ...texts,
    ...(metadata.length > 0 && { metadata: Object.fromEntries(metadata) }),
  };
}

// Writing -----------------------------------------------------------------------------

/** Bytes of a message in pieces, so that large tensors are copied once. */
interface Message {
  parts: Uint8Array[];
  size: number;
}

function varintBytes(value: number | bigint): Uint8Array {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** One message of some fields; those that are undefined are left out. */
function message(...all: (Message | undefined)[]): Message {
  const out: Message = { parts: [], size: 0 };
  for (const field of all) {
    if (field === undefined) continue;
    for (const part of field.parts) out.parts.push(part);
    out.size += field.size;
  }
  return out;
}

function join(parts: Uint8Array[]): Message {
  return { parts, size: parts.reduce((sum, part) => sum + part.length, 0) };
}

const tag = (number: number, kind: number) => varintBytes(number * 8 + kind);

function nested(number: number, { parts, size }: Message): Message {
  return join([tag(number, BYTES), varintBytes(size), ...parts]);
}

function bytesField(number: number, bytes: Uint8Array): Message {
  return join([tag(number, BYTES), varintBytes(bytes.length), bytes]);
}

function textField(number: number, text: string | undefined) {
  return text === undefined ? undefined : bytesField(number, Buffer.from(text));
}

function intField(number: number, value: number | bigint): Message {
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw new RangeError(
      `Cannot write ONNX as a whole number must be a safe integer or a bigint: ${value}`,
    );
  }
  if (BigInt.asIntN(64, BigInt(value)) !== BigInt(value)) {
    throw new RangeError(
      `Cannot write ONNX as a whole number must have at most 64 bits: ${value}`,
    );
  }
  return join([tag(number, VARINT), varintBytes(value)]);
}

function floatField(number: number, value: number): Message {
  const bytes = new Uint8Array(Float32Array.of(value).buffer);
  return join([tag(number, FIXED32), bytes]);
}

function tensorMessage({ name, dtype, shape, data }: OnnxTensor): Message {
  const what = `tensor ${show(name)}`;
  if (!(data instanceof ARRAYS[dtype])) {
    throw new TypeError(
      `Cannot write ONNX as ${what} of type ${dtype} is written from a ` +
        `${ARRAYS[dtype].name}: ${(data as OnnxData).constructor.name}`,
    );
  }
  const count = product(shape);
  const wanted = DTYPES[dtype].bits === 4 ? Math.ceil(count / 2) : count;
  if (
    !shape.every((n) => Number.isSafeInteger(n) && n >= 0) ||
    data.length !== wanted
  ) {
    throw new RangeError(
      `Cannot write ONNX as ${what} of type ${dtype} and shape ${
        show(shape)
      } must have ` +
        `${wanted} items: ${data.length}`,
    );
  }
  const stored = dtype === "float16"
    ? toF16(data as Float32Array)
    : dtype === "bfloat16"
    ? toBF16(data as Float32Array)
    : data;
  return message(
    ...shape.map((size) => intField(1, size)),
    intField(2, DTYPES[dtype].id),
    textField(8, name),
    bytesField(
      9,
      new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength),
    ),
  );
}

function valueInfoMessage({ name, dtype, shape }: OnnxValueInfo): Message {
  const dims = shape?.map((size) =>
    nested(
      1,
      message(
        typeof size === "number"
          ? intField(1, size)
          : textField(2, size ?? undefined),
      ),
    )
  );
  const tensor = message(
    intField(1, DTYPES[dtype].id),
    dims && nested(2, message(...dims)),
  );
  return message(textField(1, name), nested(2, message(nested(1, tensor))));
}

/** The value of an attribute in its field. */
function attributeValue(attribute: OnnxAttribute): Message {
  const { field } = ATTRIBUTES[attribute.type];
  switch (attribute.type) {
    case "float":
      return floatField(field, attribute.value);
    case "int":
      return intField(field, attribute.value);
    case "string":
      return message(textField(field, attribute.value));
    case "tensor":
      return nested(field, tensorMessage(attribute.value));
    case "graph":
      return nested(field, graphMessage(attribute.value));
    case "floats":
      return message(...attribute.value.map((x) => floatField(field, x)));
    case "ints":
      return message(...attribute.value.map((x) => intField(field, x)));
    case "strings":
      return message(...attribute.value.map((x) => textField(field, x)));
  }
}

function nodeMessage(node: OnnxNode): Message {
  const attributes = Object.entries(node.attributes ?? {}).map((
    [name, attribute],
  ) =>
    nested(
      5,
      message(
        textField(1, name),
        attributeValue(attribute),
        intField(20, ATTRIBUTES[attribute.type].id),
      ),
    )
  );
  return message(
    ...node.inputs.map((name) => textField(1, name)),
    ...node.outputs.map((name) => textField(2, name)),
    textField(3, node.name),
    textField(4, node.opType),
    ...attributes,
    textField(7, node.domain),
  );
}

function graphMessage(graph: OnnxGraph): Message {
  return message(
    ...graph.nodes.map((node) => nested(1, nodeMessage(node))),
    textField(2, graph.name),
    ...graph.initializers.map((tensor) => nested(5, tensorMessage(tensor))),
    ...graph.inputs.map((value) => nested(11, valueInfoMessage(value))),
    ...graph.outputs.map((value) => nested(12, valueInfoMessage(value))),
    ...(graph.values ?? []).map((value) => nested(13, valueInfoMessage(value))),
  );
}

/**
 * The bytes of an ONNX file; the same model always gives the same bytes.
 *
 * @throws {RangeError} If the graph does not hold together (see `checkGraph`), a tensor does not fill its
 *   shape, or the file would have 2 GiB or more.
 *
 * @example
 * ```ts
 * const bytes = writeOnnx({
 *   irVersion: 8,
 *   opsets: { "": 18 },
 *   graph: {
 *     name: "g",
 *     nodes: [{ opType: "Relu", inputs: ["x"], outputs: ["y"] }],
 *     initializers: [],
 *     inputs: [{ name: "x", dtype: "float32", shape: ["rows", 2] }],
 *     outputs: [{ name: "y", dtype: "float32", shape: ["rows", 2] }],
 *   },
 * });
 * readOnnx(bytes).graph.nodes[0].opType; // "Relu"
 * ```
 */
export function writeOnnx(model: OnnxModel): Uint8Array {
  checkGraph(model.graph);
  const whole = message(
    intField(1, model.irVersion),
    textField(2, model.producerName),
    textField(3, model.producerVersion),
    textField(6, model.docString),
    nested(7, graphMessage(model.graph)),
    ...Object.entries(model.opsets).map(([domain, version]) =>
      nested(8, message(textField(1, domain), intField(2, version)))
    ),
    ...Object.entries(model.metadata ?? {}).map(([key, value]) =>
      nested(14, message(textField(1, key), textField(2, value)))
    ),
  );
  if (whole.size > MAX_BYTES) {
    throw new RangeError(
      `Cannot write ONNX as a file without external data must have at most ${MAX_BYTES} bytes: ` +
        `${whole.size}`,
    );
  }
  return Buffer.concat(whole.parts, whole.size);
}

/** Writes an ONNX file; it appears complete or not at all. */
export function saveOnnx(path: string, model: OnnxModel): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    fs.writeFileSync(temporary, writeOnnx(model));
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
}

// Checking ----------------------------------------------------------------------------

/**
 * Refuses a graph whose values do not hold together (docs/IR.md, "Graphs" and "Nodes"): every name is
 * given once, and given before it is used; every output is given.
 *
 * @param outer Names that an enclosing graph has given before.
 * @throws {RangeError} Naming the value and the node.
 */
export function checkGraph(
  graph: OnnxGraph,
  outer: ReadonlySet<string> = new Set(),
): void {
  const known = new Set(outer);
  const refuse = (what: string) => {
    throw new RangeError(`Cannot use the graph ${show(graph.name)} as ${what}`);
  };
  const give = (name: string, by: string) => {
    if (known.has(name)) {
      refuse(`${by} gives a value that is there already: ${show(name)}`);
    }
    known.add(name);
  };
  for (const { name } of graph.inputs) give(name, "an input");
  const inputs = new Set(graph.inputs.map(({ name }) => name));
  for (const { name } of graph.initializers) {
    // A constant with the name of an input is that input's default.
    if (!inputs.has(name)) give(name, "a constant");
  }
  for (
    const { opType, name = opType, inputs, outputs, attributes } of graph.nodes
  ) {
    const by = `node ${show(name)}`;
    if (opType === "") refuse(`${by} must have an operator`);
    for (const input of inputs) {
      if (input !== "" && !known.has(input)) {
        refuse(
          `${by} takes a value that nothing before it gives: ${show(input)}`,
        );
      }
    }
    for (const attribute of Object.values(attributes ?? {})) {
      if (attribute.type === "graph") checkGraph(attribute.value, known);
    }
    for (const output of outputs) if (output !== "") give(output, by);
  }
  for (const { name } of graph.outputs) {
    if (!known.has(name)) refuse(`nothing gives its output ${show(name)}`);
  }
}
