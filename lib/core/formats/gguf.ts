/**
 * The GGUF format, version 3: metadata and tensors of a language model in one file, as llama.cpp
 * reads it, with the two oldest block quantizers of ggml.
 *
 * Source: ggml-org/ggml docs/gguf.md ("File Structure") and src/ggml-quants.c (`quantize_row_q8_0_ref`,
 * `quantize_row_q4_0_ref`). All numbers are little-endian.
 *
 *   4 bytes    "GGUF"
 *   uint32     version            uint64  number of tensors       uint64  number of metadata
 *   metadata   key, uint32 type, value; a text is a uint64 length and UTF-8
 *   tensors    name, uint32 dimensions, uint64 sizes (fastest first), uint32 type, uint64 offset
 *   padding    to a multiple of general.alignment (32 unless given); offsets count from here
 *   the rest   the values, each tensor padded to the alignment
 *
 *   F32, F16   numbers
 *   Q8_0       per 32 numbers: scale d (F16), 32 int8 codes q;           x = d q
 *   Q4_0       per 32 numbers: scale d (F16), 16 bytes of two codes q,   x = d (q - 8)
 *              number i in the low, number i + 16 in the high half of byte i
 *
 * A file from elsewhere is not trusted: every count is checked against the bytes that are left before
 * anything of its size is allocated, and tensors must lie one after the other as ggml demands.
 *
 * Scope: versions 2 and 3, little-endian. Other tensor types are refused by name.
 */
import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import process from "node:process";
import { fromF16, toF16 } from "./safetensors.ts";

const VERSION = 3;
const DEFAULT_ALIGNMENT = 32;
/** GGML_MAX_DIMS. */
const MAX_DIMENSIONS = 4;
/** GGML_MAX_NAME without its closing zero. */
const MAX_NAME_BYTES = 63;
/** Arrays of arrays nest at most this deep; known files do not nest at all. */
const MAX_NESTING = 4;
/** The largest finite half-precision number. */
const F16_MAX = 65504;
/** Numbers per block of Q8_0 and Q4_0 (QK8_0, QK4_0). */
export const BLOCK_SIZE = 32;

/** Number of each tensor type, numbers per block and bytes per block. */
const TENSOR_TYPES = {
  F32: { id: 0, size: 1, bytes: 4 },
  F16: { id: 1, size: 1, bytes: 2 },
  Q4_0: { id: 2, size: BLOCK_SIZE, bytes: 18 },
  Q8_0: { id: 8, size: BLOCK_SIZE, bytes: 34 },
} as const;

/** How the numbers of a tensor are stored. */
export type GgufTensorType = keyof typeof TENSOR_TYPES;

const TYPE_NAMES = Object.keys(TENSOR_TYPES) as GgufTensorType[];

/** Types of ggml that are not read, for the message. */
const OTHER_TYPES: Record<number, string> = {
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  30: "BF16",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

/** Types of metadata in the order of their numbers. */
const VALUE_TYPES = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
] as const;

export type GgufValueType = typeof VALUE_TYPES[number];

/** Arrays that hold lists of numbers, by type. */
const NUMBER_ARRAYS = {
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
  uint64: BigUint64Array,
  int64: BigInt64Array,
  float64: Float64Array,
} as const;

type NumberType = keyof typeof NUMBER_ARRAYS;
type NumberArray = InstanceType<typeof NUMBER_ARRAYS[NumberType]>;

/** A list in the metadata: numbers in the array of their type, or booleans, texts, lists. */
export type GgufArray =
  | { type: "array"; of: NumberType; value: NumberArray }
  | { type: "array"; of: "bool"; value: boolean[] }
  | { type: "array"; of: "string"; value: string[] }
  | { type: "array"; of: "array"; value: GgufArray[] };

/** One value of the metadata. */
export type GgufValue =
  | { type: Exclude<NumberType, "uint64" | "int64">; value: number }
  | { type: "uint64" | "int64"; value: bigint }
  | { type: "bool"; value: boolean }
  | { type: "string"; value: string }
  | GgufArray;

/** One tensor of a file. */
export interface GgufTensor {
  name: string;
  type: GgufTensorType;
  /** Slowest dimension first, as elsewhere in this library; the file has the reverse. */
  shape: number[];
  /** The stored blocks; `decodeTensor` gives the numbers. */
  bytes: Uint8Array;
}

/** What a file holds, in its order. */
export interface GgufFile {
  metadata: Map<string, GgufValue>;
  tensors: GgufTensor[];
}

function invalid(what: string): SyntaxError {
  return new SyntaxError(`Cannot read GGUF as ${what}`);
}

/** A text for a message, not too long. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

// Block quantizers --------------------------------------------------------------

const { fround } = Math;

/** Half precision of one number, ties to even. */
const f16Bits = (x: number) => toF16(Float32Array.of(x))[0];

/** Refuses what no block can hold. */
function checkBlocks(values: Float32Array, type: string): void {
  if (values.length % BLOCK_SIZE !== 0) {
    throw new RangeError(
      `Cannot quantize to ${type} as the numbers must fill blocks of ${BLOCK_SIZE}: ` +
        `${values.length} numbers`,
    );
  }
}

/** The number of a block that is largest in magnitude, the first among equals. */
function extreme(values: Float32Array, start: number, type: string): number {
  let max = 0;
  for (let i = start; i < start + BLOCK_SIZE; i++) {
    if (!Number.isFinite(values[i])) {
      throw new RangeError(
        `Cannot quantize to ${type} as every number must be finite: ${
          values[i]
        } at ${i}`,
      );
    }
    if (Math.abs(values[i]) > Math.abs(max)) max = values[i];
  }
  return max;
}

/** The scale of a block as it is stored, and what numbers are multiplied with. */
function blockScale(d: number, type: string, start: number) {
  const bits = f16Bits(d);
  if (Math.abs(d) >= F16_MAX + 16) {
    throw new RangeError(
      `Cannot quantize to ${type} as the scale of a block must be at most ${F16_MAX}: ` +
        `${d} of the block at ${start}`,
    );
  }
  // Below 2^-128 the reciprocal overflows and the stored scale is 0 in any case.
  const inverse = d === 0 ? 0 : fround(1 / d);
  return { bits, inverse: Number.isFinite(inverse) ? inverse : 0 };
}

/**
 * Blocks of 32 numbers as a scale and 8-bit codes (`quantize_row_q8_0_ref`).
 *
 *   d = max |x| / 127,   q = round(x / d), ties away from zero
 *
 * All in single precision, the division as a product with 1 / d, so that the bytes are those of ggml.
 *
 * @param values A multiple of 32 finite numbers.
 * @returns 34 bytes per block.
 * @throws {RangeError} If there are other than whole blocks or a number is not finite.
 */
export function quantizeQ80(values: Float32Array): Uint8Array {
  checkBlocks(values, "Q8_0");
  const blocks = values.length / BLOCK_SIZE;
  const { bytes: size } = TENSOR_TYPES.Q8_0;
  const out = new Uint8Array(blocks * size);
  for (let b = 0; b < blocks; b++) {
    const start = b * BLOCK_SIZE;
    const d = fround(Math.abs(extreme(values, start, "Q8_0")) / 127);
    const { bits, inverse } = blockScale(d, "Q8_0", start);
    let at = b * size;
    out[at++] = bits & 255;
    out[at++] = bits >> 8;
    for (let i = start; i < start + BLOCK_SIZE; i++) {
      const scaled = fround(values[i] * inverse);
      const magnitude = Math.floor(Math.abs(scaled) + 0.5);
      out[at++] = scaled < 0 ? -magnitude : magnitude;
    }
  }
  return out;
}

/**
 * Blocks of 32 numbers as a scale and 4-bit codes (`quantize_row_q4_0_ref`).
 *
 *   d = m / -8 with m the number of largest magnitude, sign included,
 *   q = min(15, floor(x / d + 8.5))
 *
 * m itself becomes code 0, exactly; a number -m would need code 16 and is clipped to 15.
 *
 * @param values A multiple of 32 finite numbers.
 * @returns 18 bytes per block.
 * @throws {RangeError} If there are other than whole blocks or a number is not finite.
 */
export function quantizeQ40(values: Float32Array): Uint8Array {
  checkBlocks(values, "Q4_0");
  const blocks = values.length / BLOCK_SIZE;
  const half = BLOCK_SIZE / 2;
  const { bytes: size } = TENSOR_TYPES.Q4_0;
  const out = new Uint8Array(blocks * size);
  for (let b = 0; b < blocks; b++) {
    const start = b * BLOCK_SIZE;
    const d = fround(extreme(values, start, "Q4_0") / -8);
    const { bits, inverse } = blockScale(d, "Q4_0", start);
    const code = (x: number) =>
      Math.min(15, Math.trunc(fround(fround(x * inverse) + 8.5)));
    const at = b * size;
    out[at] = bits & 255;
    out[at + 1] = bits >> 8;
    for (let i = 0; i < half; i++) {
      out[at + 2 + i] = code(values[start + i]) |
        code(values[start + half + i]) << 4;
    }
  }
  return out;
}

/** x = d q of every block of Q8_0. */
export function dequantizeQ80(bytes: Uint8Array): Float32Array {
  const { bytes: size } = TENSOR_TYPES.Q8_0;
  const blocks = bytes.length / size;
  const scales = blockScales(bytes, size);
  const out = new Float32Array(blocks * BLOCK_SIZE);
  for (let b = 0; b < blocks; b++) {
    for (let i = 0; i < BLOCK_SIZE; i++) {
      const code = bytes[b * size + 2 + i] << 24 >> 24;
      out[b * BLOCK_SIZE + i] = scales[b] * code;
    }
  }
  return out;
}

/** x = d (q - 8) of every block of Q4_0. */
export function dequantizeQ40(bytes: Uint8Array): Float32Array {
  const { bytes: size } = TENSOR_TYPES.Q4_0;
  const half = BLOCK_SIZE / 2;
  const blocks = bytes.length / size;
  const scales = blockScales(bytes, size);
  const out = new Float32Array(blocks * BLOCK_SIZE);
  for (let b = 0; b < blocks; b++) {
    for (let i = 0; i < half; i++) {
      const pair = bytes[b * size + 2 + i];
      out[b * BLOCK_SIZE + i] = scales[b] * ((pair & 15) - 8);
      out[b * BLOCK_SIZE + half + i] = scales[b] * ((pair >> 4) - 8);
    }
  }
  return out;
}

/** The half-precision number at the start of every block. */
function blockScales(bytes: Uint8Array, size: number): Float32Array {
  const bits = new Uint16Array(bytes.length / size);
  for (let b = 0; b < bits.length; b++) {
    bits[b] = bytes[b * size] | bytes[b * size + 1] << 8;
  }
  return fromF16(bits);
}

/**
 * A tensor from its numbers, rounded or quantized to a type.
 *
 * Blocks run along the last dimension, which Q8_0 and Q4_0 therefore need to be a multiple of 32.
 *
 * @param values Row-major.
 * @throws {RangeError} If the numbers do not fill the shape, a row does not fill blocks, or a number
 *   cannot be stored; the message names the tensor and the number.
 *
 * @example
 * ```ts
 * const row = Float32Array.from({ length: 32 }, (_, i) => i - 16);
 * const tensor = encodeTensor("w", "Q4_0", [1, 32], row);
 * tensor.bytes.length; // 18
 * decodeTensor(tensor)[0]; // -16
 * ```
 */
export function encodeTensor(
  name: string,
  type: GgufTensorType,
  shape: number[],
  values: Float32Array,
): GgufTensor {
  const { size } = TENSOR_TYPES[type];
  const wrong = (what: string) =>
    new RangeError(`Cannot store tensor ${show(name)} as ${type} as ${what}`);
  if (shape.reduce((a, b) => a * b, 1) !== values.length) {
    throw wrong(
      `its numbers must fill its shape: shape ${
        show(shape)
      }, ${values.length} numbers`,
    );
  }
  const width = shape[shape.length - 1] ?? 1;
  if (width % size !== 0) {
    throw wrong(
      `its last dimension must be a multiple of ${size}: shape ${show(shape)}`,
    );
  }
  const bad = values.findIndex((x) =>
    !Number.isFinite(x) || (type === "F16" && Math.abs(x) > F16_MAX)
  );
  if (bad >= 0) {
    throw wrong(
      `every number must be finite` +
        (type === "F16" ? ` and at most ${F16_MAX}` : "") +
        `: ${values[bad]} at ${bad}`,
    );
  }
  const raw = (data: Float32Array | Uint16Array) =>
    new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const blocks = (quantize: (values: Float32Array) => Uint8Array) => {
    try {
      return quantize(values);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new RangeError(`${error.message}, in tensor ${show(name)}`);
    }
  };
  const bytes = type === "F32"
    ? raw(values)
    : type === "F16"
    ? raw(toF16(values))
    : blocks(type === "Q8_0" ? quantizeQ80 : quantizeQ40);
  return { name, type, shape: [...shape], bytes };
}

/** The numbers of a tensor, row-major. */
export function decodeTensor({ type, bytes }: GgufTensor): Float32Array {
  if (type === "Q8_0") return dequantizeQ80(bytes);
  if (type === "Q4_0") return dequantizeQ40(bytes);
  const { buffer } = new Uint8Array(bytes);
  return type === "F32"
    ? new Float32Array(buffer)
    : fromF16(new Uint16Array(buffer));
}

// Reading -----------------------------------------------------------------------

/** A place in the bytes that moves on, and never past the end. */
class Cursor {
  bytes: Uint8Array;
  view: DataView;
  at = 0;

  constructor(bytes: Uint8Array) {
    // Not a Buffer, whose slice() is no copy.
    this.bytes = new Uint8Array(
      bytes.buffer,
      bytes.byteOffset,
      bytes.byteLength,
    );
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The place of the next `count` bytes, which are then behind. */
  take(count: number, what: string): number {
    const left = this.bytes.length - this.at;
    if (count > left) {
      throw invalid(
        `the file ends before ${what}: ${count} bytes needed at byte ${this.at}, ${left} left`,
      );
    }
    this.at += count;
    return this.at - count;
  }

  uint32(what: string): number {
    return this.view.getUint32(this.take(4, what), true);
  }

  /** A uint64 that says how much follows, each item of at least `itemBytes`. */
  count(what: string, itemBytes: number): number {
    const count = this.view.getBigUint64(this.take(8, what), true);
    const left = this.bytes.length - this.at;
    if (count * BigInt(itemBytes) > BigInt(left)) {
      throw invalid(
        `the file ends before ${what}: ${count} of at least ${itemBytes} bytes each at byte ` +
          `${this.at}, ${left} left`,
      );
    }
    return Number(count);
  }

  text(what: string): string {
    const length = this.count(what, 1);
    const start = this.take(length, what);
    try {
      return UTF8.decode(this.bytes.subarray(start, start + length));
    } catch {
      throw invalid(`${what} must be UTF-8: byte ${start}`);
    }
  }
}

// ignoreBOM: a byte order mark in a token is text like any other.
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function valueType(cursor: Cursor, what: string): GgufValueType {
  const id = cursor.uint32(`the type of ${what}`);
  return VALUE_TYPES[id] ?? (() => {
    throw invalid(
      `the type of ${what} must be 0 to ${VALUE_TYPES.length - 1}: ${id}`,
    );
  })();
}

/** The least bytes that a value of each type takes. */
function leastBytes(type: GgufValueType): number {
  if (type === "bool") return 1;
  if (type === "string") return 8;
  return type === "array" ? 12 : NUMBER_ARRAYS[type].BYTES_PER_ELEMENT;
}

/** `count` numbers of a type. */
function readNumbers(
  cursor: Cursor,
  type: NumberType,
  count: number,
  what: string,
): NumberArray {
  const size = NUMBER_ARRAYS[type].BYTES_PER_ELEMENT;
  const start = cursor.take(count * size, what);
  return new NUMBER_ARRAYS[type](
    cursor.bytes.slice(start, start + count * size).buffer,
  );
}

function readBool(cursor: Cursor, what: string): boolean {
  const byte = cursor.bytes[cursor.take(1, what)];
  if (byte > 1) throw invalid(`${what} must be 0 or 1: ${byte}`);
  return byte === 1;
}

function readArray(cursor: Cursor, what: string, depth: number): GgufArray {
  if (depth > MAX_NESTING) {
    throw invalid(`${what} must not nest deeper than ${MAX_NESTING} lists`);
  }
  const of = valueType(cursor, `the items of ${what}`);
  const length = cursor.count(what, leastBytes(of));
  const items = <T>(read: () => T): T[] => {
    const list: T[] = [];
    for (let i = 0; i < length; i++) list.push(read());
    return list;
  };
  const type = "array";
  switch (of) {
    case "bool":
      return { type, of, value: items(() => readBool(cursor, what)) };
    case "string":
      return { type, of, value: items(() => cursor.text(what)) };
    case "array":
      return {
        type,
        of,
        value: items(() => readArray(cursor, what, depth + 1)),
      };
    default:
      return { type, of, value: readNumbers(cursor, of, length, what) };
  }
}

function readValue(cursor: Cursor, what: string): GgufValue {
  const type = valueType(cursor, what);
  switch (type) {
    case "bool":
      return { type, value: readBool(cursor, what) };
    case "string":
      return { type, value: cursor.text(what) };
    case "array":
      return readArray(cursor, what, 1);
    case "uint64":
    case "int64":
      return { type, value: readNumbers(cursor, type, 1, what)[0] as bigint };
    default:
      return { type, value: readNumbers(cursor, type, 1, what)[0] as number };
  }
}

/** What the list of tensors says of one of them. */
interface TensorEntry extends Omit<GgufTensor, "bytes"> {
  size: number;
  offset: bigint;
}

function readEntry(cursor: Cursor): TensorEntry {
  const name = cursor.text("the name of a tensor");
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) {
    throw invalid(
      `the name of a tensor must have at most ${MAX_NAME_BYTES} bytes: ${
        show(name)
      }`,
    );
  }
  const what = `tensor ${show(name)}`;
  const dimensions = cursor.uint32(`the dimensions of ${what}`);
  if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
    throw invalid(
      `${what} must have 1 to ${MAX_DIMENSIONS} dimensions: ${dimensions}`,
    );
  }
  const sizes = readNumbers(
    cursor,
    "uint64",
    dimensions,
    `the shape of ${what}`,
  );
  const shape = Array.from(sizes, Number).reverse();
  const count = shape.reduce((a, b) => a * b, 1);
  if (shape.some((n) => n < 1) || !Number.isSafeInteger(count)) {
    throw invalid(
      `the sizes of ${what} must be positive and their product a safe integer: ${
        show(shape)
      }`,
    );
  }
  const id = cursor.uint32(`the type of ${what}`);
  const type = TYPE_NAMES.find((t) => TENSOR_TYPES[t].id === id);
  if (type === undefined) {
    throw invalid(
      `the type of ${what} must be ${TYPE_NAMES.join(", ")}: ` +
        (OTHER_TYPES[id] ?? `number ${id}`),
    );
  }
  const block = TENSOR_TYPES[type];
  if (shape[dimensions - 1] % block.size !== 0) {
    throw invalid(
      `the rows of ${what} must be whole blocks of ${block.size} for ${type}: shape ${
        show(shape)
      }`,
    );
  }
  const size = count / block.size * block.bytes;
  const offset = cursor.view.getBigUint64(
    cursor.take(8, `the offset of ${what}`),
    true,
  );
  return { name, type, shape, size, offset };
}

/** general.alignment, checked. */
function alignmentOf(metadata: Map<string, GgufValue>): number {
  const entry = metadata.get("general.alignment");
  if (entry === undefined) return DEFAULT_ALIGNMENT;
  const { type, value } = entry;
  if (type !== "uint32" || value < 8 || value % 8 !== 0) {
    throw new RangeError(
      `general.alignment must be a uint32 and a positive multiple of 8: ${type} ${
        String(value).slice(0, 80)
      }`,
    );
  }
  return value;
}

/** The header with its version, checked. */
function readCounts(cursor: Cursor): { tensors: number; metadata: number } {
  const magic = cursor.take(4, "its first four bytes");
  if (
    Buffer.from(cursor.bytes.subarray(magic, 4)).toString("latin1") !== "GGUF"
  ) {
    throw invalid(
      `it must begin with "GGUF": bytes ${
        cursor.bytes.subarray(0, 4).join(" ")
      }`,
    );
  }
  const version = cursor.uint32("the version");
  if (version !== 2 && version !== VERSION) {
    const swapped = version === VERSION << 24 || version === 2 << 24;
    throw invalid(
      swapped
        ? "it must be little-endian: its version is big-endian"
        : `its version must be 2 or ${VERSION}: ${version}`,
    );
  }
  // A tensor takes at least its lengths: name 8, dimensions 4, one size 8, type 4, offset 8.
  const tensors = cursor.count("the tensors", 32);
  const metadata = cursor.count("the metadata", 13);
  return { tensors, metadata };
}

/**
 * The metadata and tensors of a GGUF file that is in memory.
 *
 * Tensors are views of `bytes`: do not change the bytes afterwards.
 *
 * @param bytes The whole file.
 * @throws {SyntaxError} If the file breaks a rule of the format or has a tensor type that is not
 *   read; the message says which and where.
 */
export function readGguf(bytes: Uint8Array): GgufFile {
  const cursor = new Cursor(bytes);
  const counts = readCounts(cursor);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < counts.metadata; i++) {
    const key = cursor.text("a key of the metadata");
    if (metadata.has(key)) {
      throw invalid(`keys of the metadata must be unique: ${show(key)}`);
    }
    metadata.set(key, readValue(cursor, `metadata ${show(key)}`));
  }
  const entries = Array.from(
    { length: counts.tensors },
    () => readEntry(cursor),
  );
  const names = new Set<string>();
  for (const { name } of entries) {
    if (names.has(name)) {
      throw invalid(`names of tensors must be unique: ${show(name)}`);
    }
    names.add(name);
  }
  let alignment: number;
  try {
    alignment = alignmentOf(metadata);
  } catch (error) {
    throw invalid((error as Error).message);
  }
  if (entries.length === 0) return { metadata, tensors: [] };
  const dataStart = roundUp(cursor.at, alignment);
  let expected = 0;
  const tensors = entries.map(({ name, type, shape, size, offset }) => {
    const what = `tensor ${show(name)}`;
    if (offset !== BigInt(expected)) {
      throw invalid(
        `${what} must begin where the one before it ends, at byte ${expected} of the data: ${offset}`,
      );
    }
    const start = dataStart + expected;
    if (start + size > bytes.length) {
      throw invalid(
        `the file ends before ${what}: ${size} bytes needed at byte ${start}, ${
          Math.max(0, bytes.length - start)
        } left`,
      );
    }
    expected += roundUp(size, alignment);
    const own = cursor.bytes.subarray(start, start + size);
    return { name, type, shape, bytes: own };
  });
  return { metadata, tensors };
}

// Writing -----------------------------------------------------------------------

function cannotWrite(what: string): RangeError {
  return new RangeError(`Cannot write GGUF as ${what}`);
}

function uint32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64(value: number | bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function textParts(text: string): Uint8Array[] {
  const bytes = Buffer.from(text);
  return [uint64(bytes.length), bytes];
}

/** The bytes of one number, after checking that its type holds it. */
function numberBytes(
  type: NumberType,
  value: number | bigint,
  what: string,
): Uint8Array {
  const wide = type === "uint64" || type === "int64";
  if ((typeof value === "bigint") !== wide) {
    throw cannotWrite(
      `${what} of type ${type} must be a ${wide ? "bigint" : "number"}: ${
        String(value)
      }`,
    );
  }
  const array = new NUMBER_ARRAYS[type](1);
  array[0] = value;
  // float32 rounds; all others must hold the value.
  if (type !== "float32" && !Object.is(array[0], value)) {
    throw cannotWrite(`${what} must fit ${type}: ${String(value)}`);
  }
  return new Uint8Array(array.buffer);
}

function valueParts(entry: GgufValue, what: string): Uint8Array[] {
  switch (entry.type) {
    case "bool":
      return [Uint8Array.of(entry.value ? 1 : 0)];
    case "string":
      return textParts(entry.value);
    case "array":
      return arrayParts(entry, what);
    default:
      return [numberBytes(entry.type, entry.value, what)];
  }
}

function arrayParts(entry: GgufArray, what: string): Uint8Array[] {
  const { of, value } = entry;
  const head = [uint32(VALUE_TYPES.indexOf(of)), uint64(value.length)];
  switch (of) {
    case "bool":
      return [...head, Uint8Array.from(value, Number)];
    case "string":
      return [...head, ...value.flatMap(textParts)];
    case "array":
      return [...head, ...value.flatMap((item) => arrayParts(item, what))];
    default:
      if (!(value instanceof NUMBER_ARRAYS[of])) {
        throw cannotWrite(
          `a list of ${of} must be a ${NUMBER_ARRAYS[of].name}: ${what}`,
        );
      }
      return [
        ...head,
        new Uint8Array(value.buffer, value.byteOffset, value.byteLength),
      ];
  }
}

/** Refuses a tensor that the format cannot hold or that is inconsistent. */
function checkTensor({ name, type, shape, bytes }: GgufTensor): void {
  const what = `tensor ${show(name)}`;
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) {
    throw cannotWrite(
      `${what} must have a name of at most ${MAX_NAME_BYTES} bytes`,
    );
  }
  if (
    shape.length < 1 || shape.length > MAX_DIMENSIONS ||
    !shape.every((n) => Number.isSafeInteger(n) && n > 0)
  ) {
    throw cannotWrite(
      `${what} must have 1 to ${MAX_DIMENSIONS} positive sizes: ${show(shape)}`,
    );
  }
  const block = TENSOR_TYPES[type];
  const needed = shape.reduce((a, b) => a * b, 1) / block.size * block.bytes;
  if (shape[shape.length - 1] % block.size !== 0 || bytes.length !== needed) {
    throw cannotWrite(
      `${what} of type ${type} and shape ${
        show(shape)
      } must have ${needed} bytes in whole ` +
        `blocks of ${block.size} numbers: ${bytes.length} bytes`,
    );
  }
}

/** All bytes of a file: what comes before the data, then each tensor and its padding. */
function fileParts({ metadata, tensors }: GgufFile): Uint8Array[] {
  const alignment = alignmentOf(metadata);
  const parts: Uint8Array[] = [
    Buffer.from("GGUF"),
    uint32(VERSION),
    uint64(tensors.length),
    uint64(metadata.size),
  ];
  for (const [key, entry] of metadata) {
    if (!/^[\x21-\x7e]{1,65535}$/.test(key)) {
      throw cannotWrite(`a key must be visible ASCII: ${show(key)}`);
    }
    parts.push(...textParts(key), uint32(VALUE_TYPES.indexOf(entry.type)));
    // Not spread into push: a vocabulary has hundreds of thousands of texts.
    for (const part of valueParts(entry, `metadata ${show(key)}`)) {
      parts.push(part);
    }
  }
  const names = new Set<string>();
  let offset = 0;
  for (const tensor of tensors) {
    checkTensor(tensor);
    if (names.has(tensor.name)) {
      throw cannotWrite(
        `names of tensors must be unique: ${show(tensor.name)}`,
      );
    }
    names.add(tensor.name);
    parts.push(
      ...textParts(tensor.name),
      uint32(tensor.shape.length),
      ...tensor.shape.toReversed().map(uint64),
      uint32(TENSOR_TYPES[tensor.type].id),
      uint64(offset),
    );
    offset += roundUp(tensor.bytes.length, alignment);
  }
  const pad = (size: number) => new Uint8Array(roundUp(size, alignment) - size);
  parts.push(pad(parts.reduce((sum, part) => sum + part.length, 0)));
  return [
    Buffer.concat(parts),
    ...tensors.flatMap(({ bytes }) => [bytes, pad(bytes.length)]),
  ];
}

/**
 * The bytes of a GGUF file; the same content always gives the same bytes.
 *
 * @throws {RangeError} If a value does not fit its type or a tensor its shape.
 *
 * @example
 * ```ts
 * const file = writeGguf({
 *   metadata: new Map([["general.architecture", { type: "string", value: "llama" }]]),
 *   tensors: [encodeTensor("w", "F32", [2], Float32Array.of(0.5, -1))],
 * });
 * decodeTensor(readGguf(file).tensors[0]); // [0.5, -1]
 * ```
 */
export function writeGguf(file: GgufFile): Uint8Array {
  return Buffer.concat(fileParts(file));
}

/** Writes a GGUF file; it appears complete or not at all. */
export function saveGguf(path: string, file: GgufFile): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const to = fs.openSync(temporary, "w");
    try {
      for (const part of fileParts(file)) fs.writeFileSync(to, part);
    } finally {
      fs.closeSync(to);
    }
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
}
