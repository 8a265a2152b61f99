/**
 * The safetensors format: named tensors in one file that can be read without
 * running code, whole or tensor by tensor.
 *
 * Source: the "Format" section of huggingface/safetensors README.md.
 *
 *   8 bytes    N, little-endian unsigned: the size of the header
 *   N bytes    a JSON object, padded with spaces:
 *              {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
 *               "__metadata__": {"key": "text"}}
 *   the rest   the values, little-endian, row-major; data_offsets count from here
 *
 * A file from elsewhere is not trusted. Every number of the header is checked
 * before anything of its size is allocated, and the ranges must tile the data
 * exactly, so that no byte belongs to two tensors or to none.
 *
 * F16 and BF16 values are handed out as the Float32Array of the same numbers,
 * which is exact, and rounded to nearest, ties to even, when written.
 *
 * Scope: the dtypes below; the 8-, 6- and 4-bit floats and the complex numbers
 * that the format also names are refused by name.
 */
import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import process from "node:process";

/** The largest header that the reference implementation accepts. */
const MAX_HEADER_BYTES = 100_000_000;
/** More dimensions than any tensor has; bounds what a hostile header can ask. */
const MAX_DIMENSIONS = 64;
/** More tensors than any file has; a header of millions would cost gigabytes. */
const MAX_NAMES = 100_000;
/** Header entries nest this deep: file, tensor, shape. */
const MAX_DEPTH = 3;

/** Bytes per element, in the reference implementation's order of dtypes. */
const ELEMENT_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;
const DTYPES = Object.keys(ELEMENT_BYTES) as SafetensorsDtype[];

export type SafetensorsDtype = keyof typeof ELEMENT_BYTES;

/** Values as JavaScript holds them; F16 and BF16 are widened to Float32Array. */
export type SafetensorsData =
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

/** One tensor of a file. */
export interface StoredTensor {
  dtype: SafetensorsDtype;
  shape: number[];
  /** Row-major; BOOL as 0 and 1 in a Uint8Array. */
  data: SafetensorsData;
}

/** Where one tensor lies. */
export interface SafetensorsEntry {
  dtype: SafetensorsDtype;
  shape: number[];
  /** First byte, counted from the start of the data. */
  begin: number;
  /** One past the last byte. */
  end: number;
}

/** The checked header of a file. */
export interface SafetensorsHeader {
  /** By tensor name, in the order of the header. */
  entries: Record<string, SafetensorsEntry>;
  metadata: Record<string, string>;
  /** First byte of the data in the file. */
  dataStart: number;
}

/** A file that is open for reading, tensor by tensor. */
export interface SafetensorsFile extends SafetensorsHeader {
  /** Reads one tensor from disk. */
  read(name: string): StoredTensor;
  close(): void;
}

// Half-precision numbers ------------------------------------------------------

/**
 * The IEEE 754 binary16 numbers as 32-bit floats, exactly.
 *
 * All 65,536 patterns are few enough that the 32-bit pattern of each is computed
 * once and looked up. NaN keeps its payload.
 */
export function fromF16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const table = f16Table();
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]];
  return new Float32Array(out.buffer);
}

let widened: Uint32Array | null = null;

/** The binary32 pattern of every binary16 pattern. */
function f16Table(): Uint32Array {
  if (widened !== null) return widened;
  widened = new Uint32Array(65536);
  const value = new Float32Array(1);
  const pattern = new Uint32Array(value.buffer);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = (bits & 0x8000) << 16;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) {
      value[0] = fraction * 2 ** -24; // zero and the subnormals
      widened[bits] = sign | pattern[0];
    } else if (exponent === 31) {
      widened[bits] = sign | 0x7f800000 | (fraction << 13); // infinity and NaN
    } else {
      widened[bits] = sign | ((exponent + 112) << 23) | (fraction << 13);
    }
  }
  return widened;
}

/**
 * The nearest IEEE 754 binary16 numbers, ties to even.
 *
 * Above 65,504 + half a unit the result is infinity; NaN stays NaN.
 */
export function toF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const patterns = bitsOf(values);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const bits = patterns[i];
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = bits & 0x7fffffff;
    const exponent = (magnitude >>> 23) - 112; // as binary16 biases it
    if (magnitude > 0x7f800000) {
      // The payload's upper bits survive; one bit more keeps it from being 0.
      const payload = (magnitude >>> 13) & 0x3ff;
      out[i] = sign | 0x7c00 | (payload === 0 ? 0x200 : payload);
    } else if (exponent >= 31) {
      out[i] = sign | 0x7c00;
    } else if (exponent > 0) {
      // Rounding up may carry into the exponent, which is what is wanted.
      out[i] = sign | roundShift(magnitude - (112 << 23), 13);
    } else if (exponent >= -10) {
      const significand = (magnitude & 0x7fffff) | 0x800000;
      out[i] = sign | roundShift(significand, 14 - exponent);
    } else {
      out[i] = sign; // at most half of the smallest subnormal
    }
  }
  return out;
}

/** The bfloat16 numbers (the upper half of a 32-bit float), exactly. */
export function fromBF16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i] << 16;
  return new Float32Array(out.buffer);
}

/** The nearest bfloat16 numbers, ties to even; NaN stays NaN. */
export function toBF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const patterns = bitsOf(values);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const bits = patterns[i];
    const isNaN = (bits & 0x7fffffff) > 0x7f800000;
    const upper = bits >>> 16;
    if (isNaN) out[i] = (upper & 0x7f) === 0 ? upper | 0x40 : upper;
    else {out[i] = (bits & 0x80000000) >>> 16 |
        roundShift(bits & 0x7fffffff, 16);}
  }
  return out;
}

/** bits / 2^shift, rounded to nearest, ties to even. */
function roundShift(bits: number, shift: number): number {
  const half = 2 ** (shift - 1);
  const odd = (bits >>> shift) & 1;
  return (bits + half - 1 + odd) >>> shift;
}

/** The same memory as 32-bit patterns. */
function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

// Header ----------------------------------------------------------------------

/** A clear error about a file that is not valid safetensors. */
function invalid(what: string): SyntaxError {
  return new SyntaxError(`Cannot read safetensors as ${what}`);
}

/** A value of the header, short enough for an error message. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}

/** The size of the header from the first 8 bytes, checked against the file. */
function headerBytes(first: Uint8Array, fileBytes: number): number {
  if (fileBytes < 8) {
    throw invalid(`a file has at least 8 bytes: ${fileBytes} bytes`);
  }
  const size = Buffer.from(first.buffer, first.byteOffset, 8)
    .readBigUInt64LE(0);
  if (size > BigInt(MAX_HEADER_BYTES)) {
    throw invalid(
      `the header must have at most ${MAX_HEADER_BYTES} bytes: ${size}`,
    );
  }
  if (Number(size) > fileBytes - 8) {
    throw invalid(
      `the file ends before its header, which needs ${size} bytes after ` +
        `the first 8: ${fileBytes - 8} left`,
    );
  }
  return Number(size);
}

/** The value of JSON text, or a clear error. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(`the header must be JSON: ${show((error as Error).message)}`);
  }
}

/**
 * Refuses what JSON.parse would accept and should not: names given twice (it
 * would silently keep the last one), and nesting or lists so large that building
 * the objects costs far more memory than the text.
 */
function scanJson(text: string): void {
  const open: { names: Set<string> | null; items: number }[] = [];
  const colon = /\s*:/y;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    const top = open[open.length - 1];
    if (character === "{" || character === "[") {
      if (open.length === MAX_DEPTH) {
        throw invalid(
          `the header must not nest deeper than ${MAX_DEPTH}: byte ${i}`,
        );
      }
      open.push({ names: character === "{" ? new Set() : null, items: 1 });
    } else if (character === "}" || character === "]") {
      open.pop();
    } else if (character === "," && top !== undefined && top.names === null) {
      if (++top.items > MAX_DIMENSIONS) {
        throw invalid(
          `a list in the header must have at most ${MAX_DIMENSIONS} items: ` +
            `byte ${i}`,
        );
      }
    } else if (character === '"') {
      const start = i;
      do {
        i++;
        if (text[i] === "\\") i += 2;
      } while (i < text.length && text[i] !== '"');
      colon.lastIndex = i + 1;
      if (top?.names && colon.test(text)) {
        const name = parseJson(text.slice(start, i + 1)) as string;
        if (top.names.has(name)) {
          throw invalid(`names must be unique in the header: ${show(name)}`);
        }
        top.names.add(name);
        if (top.names.size > MAX_NAMES) {
          throw invalid(`the header must have at most ${MAX_NAMES} names`);
        }
      }
    }
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Number of elements, or an error if it is no safe integer. */
function elementCount(name: string, shape: number[]): number {
  let count = 1;
  for (const size of shape) count *= size;
  if (!Number.isSafeInteger(count)) {
    throw invalid(
      `the size of tensor ${show(name)} must be a safe integer: ` +
        `shape ${show(shape)}`,
    );
  }
  return count;
}

/** One tensor's entry of the header, checked in itself. */
function parseEntry(name: string, value: unknown): SafetensorsEntry {
  const tensor = `tensor ${show(name)}`;
  if (!isObject(value)) {
    throw invalid(`${tensor} must be an object: ${show(value)}`);
  }
  const { dtype, shape, data_offsets: offsets, ...rest } = value;
  if (Object.keys(rest).length > 0) {
    throw invalid(
      `${tensor} must have only dtype, shape and data_offsets: ` +
        show(Object.keys(rest)),
    );
  }
  if (typeof dtype !== "string" || !Object.hasOwn(ELEMENT_BYTES, dtype)) {
    throw invalid(
      `the dtype of ${tensor} must be one of ` +
        `${DTYPES.join(", ")}: ${show(dtype)}`,
    );
  }
  if (
    !Array.isArray(shape) || shape.length > MAX_DIMENSIONS ||
    !shape.every(isCount)
  ) {
    throw invalid(
      `the shape of ${tensor} must be a list of at most ${MAX_DIMENSIONS} ` +
        `non-negative safe integers: ${show(shape)}`,
    );
  }
  if (
    !Array.isArray(offsets) || offsets.length !== 2 ||
    !offsets.every(isCount) ||
    offsets[0] > offsets[1]
  ) {
    throw invalid(
      `the data_offsets of ${tensor} must be two non-negative safe integers ` +
        `in order: ${show(offsets)}`,
    );
  }
  const [begin, end] = offsets as [number, number];
  const elementBytes = ELEMENT_BYTES[dtype as SafetensorsDtype];
  const needed = elementCount(name, shape) * elementBytes;
  if (end - begin !== needed) {
    throw invalid(
      `${tensor} of dtype ${dtype} and shape ${show(shape)} needs ${needed} ` +
        `bytes: data_offsets ${show(offsets)} hold ${end - begin}`,
    );
  }
  return { dtype: dtype as SafetensorsDtype, shape, begin, end };
}

/** Checks that the tensors cover the data without a hole or an overlap. */
function checkTiling(
  entries: Record<string, SafetensorsEntry>,
  dataBytes: number,
): void {
  const inOrder = Object.entries(entries)
    .sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  for (const [name, { begin, end }] of inOrder) {
    if (begin !== covered) {
      throw invalid(
        `tensor ${show(name)} must begin where the one before it ends, at ` +
          `byte ${covered} of the data: ${begin}`,
      );
    }
    if (end > dataBytes) {
      throw invalid(
        `tensor ${show(name)} ends at byte ${end} of the data, after the end ` +
          `of the file: ${dataBytes} bytes of data`,
      );
    }
    covered = end;
  }
  if (covered !== dataBytes) {
    throw invalid(
      `the tensors must cover all data: ${covered} of ${dataBytes} bytes`,
    );
  }
}

/** The header from its bytes (after the first 8), all checked. */
function parseHeader(bytes: Uint8Array, fileBytes: number): SafetensorsHeader {
  const dataStart = 8 + bytes.length;
  if (bytes[0] !== 0x7b) {
    throw invalid(
      `the header must begin with "{": ` +
        (bytes.length === 0 ? "it is empty" : `byte ${bytes[0]}`),
    );
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw invalid("the header must be UTF-8: it has an invalid byte");
  }
  scanJson(text);
  const json = parseJson(text);
  if (!isObject(json)) {
    throw invalid(`the header must be an object: ${show(json)}`);
  }
  // Without a prototype, a tensor called "__proto__" is a name like any other.
  const entries: Record<string, SafetensorsEntry> = Object.create(null);
  const metadata: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(json)) {
    if (name !== "__metadata__") {
      entries[name] = parseEntry(name, value);
      continue;
    }
    if (!isObject(value)) {
      throw invalid(`__metadata__ must be an object: ${show(value)}`);
    }
    for (const [key, entry] of Object.entries(value)) {
      if (typeof entry !== "string") {
        throw invalid(
          `__metadata__ must map to strings: ${show(key)} to ${show(entry)}`,
        );
      }
      metadata[key] = entry;
    }
  }
  checkTiling(entries, fileBytes - dataStart);
  return { entries, metadata, dataStart };
}

// Reading ---------------------------------------------------------------------

/**
 * The tensor whose little-endian bytes are given.
 *
 * 32-bit floats that lie aligned are a view of `bytes`, so a file is not held
 * twice; everything else is copied.
 */
function decode(
  { dtype, shape }: SafetensorsEntry,
  bytes: Uint8Array,
): StoredTensor {
  const size = ELEMENT_BYTES[dtype];
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset } = aligned;
  const length = bytes.length / size;
  const at = [buffer, byteOffset, length] as const;
  const data = (() => {
    switch (dtype) {
      case "F32":
        return new Float32Array(...at);
      case "F16":
        return fromF16(new Uint16Array(...at));
      case "BF16":
        return fromBF16(new Uint16Array(...at));
      case "F64":
        return new Float64Array(...at);
      case "I64":
        return new BigInt64Array(...at);
      case "U64":
        return new BigUint64Array(...at);
      case "I32":
        return new Int32Array(...at);
      case "U32":
        return new Uint32Array(...at);
      case "I16":
        return new Int16Array(...at);
      case "U16":
        return new Uint16Array(...at);
      case "I8":
        return new Int8Array(...at);
      case "U8":
      case "BOOL":
        return new Uint8Array(...at);
    }
  })();
  return { dtype, shape: [...shape], data };
}

/**
 * The checked header of a safetensors file that is in memory.
 *
 * @param bytes The whole file.
 * @throws {SyntaxError} If the file breaks a rule of the format.
 */
export function readSafetensorsHeader(bytes: Uint8Array): SafetensorsHeader {
  const size = headerBytes(bytes, bytes.length);
  return parseHeader(bytes.subarray(8, 8 + size), bytes.length);
}

/**
 * All tensors of a safetensors file that is in memory, by name.
 *
 * Aligned tensors are views of `bytes`: do not change the bytes afterwards.
 *
 * @param bytes The whole file.
 * @throws {SyntaxError} If the file breaks a rule of the format.
 *
 * @example
 * ```ts
 * const file = writeSafetensors({
 *   bias: { dtype: "F32", shape: [2], data: new Float32Array([0.5, -1]) },
 * });
 * readSafetensors(file).bias.data; // [0.5, -1]
 * ```
 */
export function readSafetensors(
  bytes: Uint8Array,
): Record<string, StoredTensor> {
  const { entries, dataStart } = readSafetensorsHeader(bytes);
  const tensors: Record<string, StoredTensor> = Object.create(null);
  for (const [name, entry] of Object.entries(entries)) {
    tensors[name] = decode(
      entry,
      bytes.subarray(dataStart + entry.begin, dataStart + entry.end),
    );
  }
  return tensors;
}

/** Reads exactly the wanted bytes at a place of an open file. */
function readAt(
  file: number,
  position: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const count = fs.readSync(
      file,
      bytes,
      done,
      Math.min(length - done, 1 << 30),
      position + done,
    );
    if (count === 0) {
      throw invalid(
        `the file became shorter while it was read: ${
          length - done
        } bytes missing`,
      );
    }
    done += count;
  }
  return bytes;
}

/**
 * A safetensors file opened for reading tensor by tensor.
 *
 * Only the header is read at first, then the bytes of the tensors asked for.
 *
 * @param path The file.
 * @throws {SyntaxError} If the file breaks a rule of the format.
 */
export function openSafetensors(path: string): SafetensorsFile {
  const file = fs.openSync(path, "r");
  try {
    const fileBytes = fs.fstatSync(file).size;
    const first = readAt(file, 0, Math.min(8, fileBytes));
    const size = headerBytes(first, fileBytes);
    const header = parseHeader(readAt(file, 8, size), fileBytes);
    return {
      ...header,
      read(name) {
        const entry = header.entries[name];
        if (entry === undefined) {
          throw new RangeError(
            `Cannot read tensor as the file does not have it: ${show(name)}`,
          );
        }
        const { begin, end } = entry;
        return decode(
          entry,
          readAt(file, header.dataStart + begin, end - begin),
        );
      },
      close: () => fs.closeSync(file),
    };
  } catch (error) {
    fs.closeSync(file);
    if (error instanceof SyntaxError) {
      throw new SyntaxError(`${error.message} (${path})`);
    }
    throw error;
  }
}

// Writing ---------------------------------------------------------------------

/** The little-endian bytes of a tensor, after checking that it is consistent. */
function encode(
  name: string,
  { dtype, shape, data }: StoredTensor,
): Uint8Array {
  if (!Object.hasOwn(ELEMENT_BYTES, dtype)) {
    throw new TypeError(
      `Cannot write tensor ${show(name)} as its dtype must be one of ` +
        `${DTYPES.join(", ")}: ${show(dtype)}`,
    );
  }
  if (!shape.every(isCount) || elementCount(name, shape) !== data.length) {
    throw new RangeError(
      `Cannot write tensor ${show(name)} as its values must fill its shape: ` +
        `shape ${show(shape)}, ${data.length} values`,
    );
  }
  let stored = data;
  if (dtype === "F16" || dtype === "BF16") {
    if (!(data instanceof Float32Array)) {
      throw new TypeError(
        `Cannot write tensor ${show(name)} as ${dtype} is written from a ` +
          `Float32Array: ${data.constructor.name}`,
      );
    }
    stored = dtype === "F16" ? toF16(data) : toBF16(data);
  }
  if (stored.constructor !== ARRAY_TYPES[dtype]) {
    throw new TypeError(
      `Cannot write tensor ${show(name)} as ${dtype} is written from a ` +
        `${ARRAY_TYPES[dtype].name}: ${data.constructor.name}`,
    );
  }
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

/** The array that holds each dtype's bytes. */
const ARRAY_TYPES = {
  BOOL: Uint8Array,
  U8: Uint8Array,
  I8: Int8Array,
  U16: Uint16Array,
  I16: Int16Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  U32: Uint32Array,
  I32: Int32Array,
  F32: Float32Array,
  U64: BigUint64Array,
  I64: BigInt64Array,
  F64: Float64Array,
} as const;

/**
 * The order of the data: wide elements first, so that each lies aligned; within
 * a dtype by name. The same as the reference implementation's.
 */
function inFileOrder(
  tensors: Record<string, StoredTensor>,
): [string, StoredTensor][] {
  return Object.entries(tensors).sort(([nameA, a], [nameB, b]) =>
    DTYPES.indexOf(b.dtype) - DTYPES.indexOf(a.dtype) ||
    (nameA < nameB ? -1 : 1)
  );
}

/** The first 8 bytes and the header, padded so that the data is 8-byte aligned. */
function encodeHeader(
  tensors: [string, StoredTensor][],
  metadata: Record<string, string>,
): Uint8Array {
  const header: Record<string, unknown> = Object.create(null);
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  let begin = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    if (name === "__metadata__") {
      throw new RangeError(
        "Cannot write a tensor called __metadata__ as the name is reserved",
      );
    }
    const end = begin + data.length * ELEMENT_BYTES[dtype];
    header[name] = { dtype, shape, data_offsets: [begin, end] };
    begin = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Math.ceil(json.length / 8) * 8;
  if (size > MAX_HEADER_BYTES) {
    throw new RangeError(
      `Cannot write safetensors as the header must have at most ` +
        `${MAX_HEADER_BYTES} bytes: ${size}`,
    );
  }
  const bytes = Buffer.alloc(8 + size, " ");
  bytes.writeBigUInt64LE(BigInt(size), 0);
  json.copy(bytes, 8);
  return bytes;
}

/**
 * The bytes of a safetensors file.
 *
 * @param tensors By name. Each array must be of the type of its dtype; for F16
 *   and BF16 a Float32Array, rounded to nearest, ties to even.
 * @param metadata Text by key; `{ format: "pt" }` is what PyTorch users expect.
 */
export function writeSafetensors(
  tensors: Record<string, StoredTensor>,
  metadata: Record<string, string> = {},
): Uint8Array {
  const ordered = inFileOrder(tensors);
  const parts = ordered.map(([name, tensor]) => encode(name, tensor));
  return Buffer.concat([encodeHeader(ordered, metadata), ...parts]);
}

/**
 * Writes a safetensors file; it appears complete or not at all.
 *
 * The tensors go to a temporary file beside it, one by one, which then takes the
 * file's name.
 */
export function saveSafetensors(
  path: string,
  tensors: Record<string, StoredTensor>,
  metadata: Record<string, string> = {},
): void {
  const ordered = inFileOrder(tensors);
  const temporary = `${path}.${process.pid}.tmp`;
  const file = fs.openSync(temporary, "w");
  try {
    try {
      writeAll(file, encodeHeader(ordered, metadata));
      for (const [name, tensor] of ordered) {
        writeAll(file, encode(name, tensor));
      }
      fs.fsyncSync(file);
    } finally {
      fs.closeSync(file);
    }
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
}

/** Writes all bytes, however many calls it takes. */
function writeAll(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    done += fs.writeSync(
      file,
      bytes,
      done,
      Math.min(bytes.length - done, 1 << 30),
    );
  }
}
