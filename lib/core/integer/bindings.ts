/**
 * Integer matrix products for inference: C = A B^T of codes, exact in 32 bits, on a WebAssembly module
 * and memory of its own.
 *
 * An affine quantizer stores x as x = scale (q - zeroPoint). A linear layer is then
 *
 *     y_ij = sA_i sB_j sum_k (qa_ik - za_i)(qb_jk - zb_j) + bias_j
 *
 * and everything under the sum is an integer. Weights are packed once; activations are quantised
 * at every call, and the time of that, of the zero points and of the way back to floats belongs to the product.
 *
 * | format          | weights | activations | bits stored | how                                          |
 * | --------------- | ------- | ----------- | ----------- | -------------------------------------------- |
 * | `int8`          | 8 bit   | 8 bit       | 8           | i16 dot products of pairs of k               |
 * | `pairs`         | 4 bit   | 4 bit       | 8           | two weights in a lane of such a dot product  |
 * | `nibble-pairs`  | 4 bit   | 4 bit       | 4           | the same, unpacked on the way                |
 * | both of these   | 4 bit   | 8 bit       | 8 or 4      | as int8, after the weights are unpacked      |
 * | `agile`         | 4 bit   | 4 bit       | 8           | two weights in a lane of a 16-bit product    |
 * | `nibble-groups` | 4 bit   | 8 bit       | 4           | a scale and a zero point a group             |
 * | `bytes`         | 7 bit   | 8 bit       | 8           | the i8 dot product of relaxed SIMD           |
 *
 * `agile` is the multiplier of X. Shen et al., "Agile-Quant", AAAI 2024, arXiv 2312.05693, appendix, Algorithm
 * 1, with a spill into 32 bits after 256 products, so that K has no limit of its own. `pairs` is ours: it takes
 * the idea to the dot product, which does four times the work of a 16-bit product.
 *
 * Notation: M rows (tokens), N outputs, K depth (inputs), q a code. Pointers are byte offsets.
 *
 * Rows of one matrix may have different bits: they are quantised in groups, each with the list of its rows, and
 * `linear` writes each group's results where its rows belong.
 *
 * Scope: row-major activations and weights, two matrices at a time, single thread.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import { RELAXED, SIMD128 } from "./generated.ts";

export type Format =
  | "int8"
  | "pairs"
  | "nibble-pairs"
  | "agile"
  | "nibble-groups"
  | "bytes";

/** What a format takes: the stored codes are the caller's, shifted into these ranges. */
interface Traits {
  /** Stored weight codes. */
  weight: readonly [number, number];
  /** Stored activation codes. */
  activation: readonly [number, number];
  /** Columns of a panel. */
  columns: number;
  /** Bytes of a panel for one k of its padded depth. */
  bytes: number;
  pack:
    | "packInt8"
    | "packPairs"
    | "packNibblePairs"
    | "packAgile"
    | "packNibbles"
    | "packBytes";
}

const TRAITS: Record<Format, Traits> = {
  int8: {
    weight: [-128, 127],
    activation: [-128, 255],
    columns: 8,
    bytes: 8,
    pack: "packInt8",
  },
  pairs: {
    weight: [-8, 7],
    activation: [-8, 7],
    columns: 8,
    bytes: 8,
    pack: "packPairs",
  },
  "nibble-pairs": {
    weight: [-8, 7],
    activation: [-8, 7],
    columns: 8,
    bytes: 4,
    pack: "packNibblePairs",
  },
  agile: {
    weight: [0, 15],
    activation: [0, 15],
    columns: 16,
    bytes: 16,
    pack: "packAgile",
  },
  "nibble-groups": {
    weight: [0, 15],
    activation: [-128, 255],
    columns: 8,
    bytes: 4,
    pack: "packNibbles",
  },
  bytes: {
    weight: [0, 127],
    activation: [-128, 127],
    columns: 8,
    bytes: 8,
    pack: "packBytes",
  },
};

/** The functions that the AssemblyScript module exports; pointers are byte offsets, booleans 0 or 1. */
export interface IntegerKernels {
  rangeRows(
    x: number,
    rows: number,
    depth: number,
    order: number,
    low: number,
    high: number,
  ): void;
  quantizeRows(
    x: number,
    rows: number,
    depth: number,
    order: number,
    scales: number,
    scaleStride: number,
    zeros: number,
    zeroStride: number,
    low: number,
    high: number,
    less: number,
    strips: number,
    sums: number,
  ): void;
  stripCodes(
    codes: number,
    signed: number,
    rows: number,
    depth: number,
    less: number,
    strips: number,
    sums: number,
  ): void;
  groupSums(
    strips: number,
    rows: number,
    depth: number,
    group: number,
    sums: number,
  ): void;
  narrowStrips(
    strips: number,
    rows: number,
    depth: number,
    bytes: number,
  ): void;
  correctZeroPoints(
    c: number,
    m: number,
    n: number,
    depth: number,
    rowSums: number,
    zeroA: number,
    strideA: number,
    columnSums: number,
    zeroB: number,
    strideB: number,
  ): void;
  dequantize(
    c: number,
    m: number,
    n: number,
    scaleA: number,
    strideA: number,
    scaleB: number,
    strideB: number,
    bias: number,
    order: number,
    y: number,
  ): void;
  requantizeRows(
    c: number,
    m: number,
    n: number,
    factors: number,
    stride: number,
    zero: number,
    low: number,
    high: number,
    less: number,
    strips: number,
    sums: number,
  ): void;
  columnSums(
    codes: number,
    signed: number,
    n: number,
    depth: number,
    sums: number,
  ): void;
  packInt8(codes: number, n: number, depth: number, to: number): void;
  packPairs(codes: number, n: number, depth: number, to: number): void;
  packNibblePairs(codes: number, n: number, depth: number, to: number): void;
  packAgile(codes: number, n: number, depth: number, to: number): void;
  packNibbles(codes: number, n: number, depth: number, to: number): void;
  packBytes(codes: number, n: number, depth: number, to: number): void;
  floatsToCache(
    x: number,
    rows: number,
    depth: number,
    codes: number,
    scales: number,
  ): void;
  cacheToFloats(
    codes: number,
    scales: number,
    tokens: number,
    heads: number,
    depth: number,
    g: number,
    to: number,
  ): void;
  scoreCodes: CacheProduct;
  mixCodes: CacheProduct;
  gemmInt8: Gemm;
  gemmAgile: Gemm;
  gemmBytes: Gemm;
  gemmPairs: GemmOffset;
  gemmNibblePairs: GemmOffset;
  gemmWide(
    m: number,
    n: number,
    width: number,
    a: number,
    b: number,
    nibbles: number,
    c: number,
    tile: number,
  ): void;
  gemmGroups(
    m: number,
    n: number,
    width: number,
    group: number,
    a: number,
    sums: number,
    scaleA: number,
    strideA: number,
    b: number,
    scales: number,
    zeros: number,
    bias: number,
    y: number,
    tile: number,
  ): void;
}

type Gemm = (
  m: number,
  n: number,
  width: number,
  a: number,
  b: number,
  c: number,
  tile: number,
) => void;

type CacheProduct = (
  x: number,
  codes: number,
  scales: number,
  tokens: number,
  heads: number,
  depth: number,
  g: number,
  to: number,
) => void;

/** As `Gemm`, with the sums of the rows of A. */
type GemmOffset = (
  m: number,
  n: number,
  width: number,
  a: number,
  rowSums: number,
  b: number,
  c: number,
  tile: number,
) => void;

export type IntegerBuild = "simd128" | "relaxed";

/** The module with its memory: blocks are taken in a stack, and given back by returning to a mark. */
export interface IntegerEngine {
  kernels: IntegerKernels;
  build: IntegerBuild;
  memory: WebAssembly.Memory;
  /** Pointer to `bytes` bytes, aligned to 64; the content is undefined. */
  allocate(bytes: number): number;
  /** Where the next block will begin. */
  mark(): number;
  /** Frees every block taken since `mark`. */
  release(mark: number): void;
}

/** Weights as a kernel reads them. */
export interface PackedWeights {
  format: Format;
  /** N. */
  outputs: number;
  /** K. */
  depth: number;
  pointer: number;
  /** Bytes of the packed codes, with their padding. */
  codeBytes: number;
  /** Bytes of everything that inference reads: codes, scales, zero points, sums and bias. */
  sizeBytes: number;
  /** int32 [N]: sums of the stored codes. */
  sums: number;
  /** float32 [N], or one number; of a grouped format [N / 8][groups][8]. */
  scales: number;
  scaleStride: 0 | 1;
  /** int32, shaped as the scales, of the stored codes. */
  zeros: number;
  zeroStride: 0 | 1;
  /** Whether any zero point of the stored codes is not 0. */
  offset: boolean;
  /** k of a group; 0 without groups. */
  group: number;
  /** float32 [N], or 0 for none. */
  bias: number;
  /** Greatest |q - zeroPoint| of the weights. */
  reach: number;
}

/** Activations as a kernel reads them. */
export interface PackedActivations {
  format: Format;
  /** M. */
  rows: number;
  /** K. */
  depth: number;
  /** int16 [M / 4][K / 2][4][2]. */
  strips: number;
  /** int32 [M]: sums of the stored codes. */
  sums: number;
  /** float32 [M], or one number. */
  scales: number;
  scaleStride: 0 | 1;
  /** int32, shaped as the scales, of the stored codes. */
  zeros: number;
  zeroStride: 0 | 1;
  offset: boolean;
  reach: number;
  /** Codes of more bits than the format's own: `pairs` and `nibble-pairs` with more than 4. */
  wide: boolean;
  /** int32 [M]: the rows of the matrix that these are; 0 for all of them in order. */
  order: number;
}

export interface WeightOptions {
  format: Format;
  /** Step of each output's codes, or one for all; with groups [N, groups]. Default 1. */
  scale?: number | ArrayLike<number>;
  /** Zero point of each output's codes, or one for all; with groups [N, groups]. Default 0. */
  zeroPoint?: number | ArrayLike<number>;
  /** k of a group, a multiple of 4 that divides K; only `nibble-groups`, default K. */
  groupSize?: number;
  bias?: ArrayLike<number>;
}

export interface ActivationOptions {
  format: Format;
  /** 2 to 8, of `agile` to 4; default 4 for the 4-bit formats. */
  bits?: number;
  /** Codes from -2^(bits - 1) (default), or from 0. */
  signed?: boolean;
  /** Zero point 0 (default), or one that uses the whole range. */
  symmetric?: boolean;
  /** One scale a row (default), or one for all. */
  granularity?: "token" | "tensor";
  /** A calibrated scale for all; default: from the values themselves. */
  scale?: number;
  /** The zero point that belongs to `scale`. */
  zeroPoint?: number;
  /** Pointer to the int32 numbers of the rows to read; 0 (default) for the first ones in order. */
  order?: number;
}

/** V8 11.3 (Node 20) computes wrong results with relaxed SIMD, which it hides behind a flag. */
const FIRST_GOOD_V8 = 12;

const PAGE_BYTES = 65536;
const TILE_BYTES = 512;

/** Depth of K padded as the kernels read it. */
function padded(depth: number): number {
  return (depth + 3) & ~3;
}

/** Nearest integer, ties to even, as IEEE 754 and PyTorch round. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

function instantiate(
  base64: string,
  memory: WebAssembly.Memory,
): IntegerKernels {
  const module = new WebAssembly.Module(Buffer.from(base64, "base64"));
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  return exports as unknown as IntegerKernels;
}

/** True if the dot product of bytes is exact at the ends of its ranges. */
function multiplies(kernels: IntegerKernels, at: number, view: DataView) {
  const [M, N, K] = [3, 11, 12];
  const a = (i: number, k: number) => (i * 77 + k * 131 + 128) % 256 - 128;
  const b = (j: number, k: number) => k === j ? 127 : (j * 29 + k * 53) % 128;
  const [codesA, codesB] = [at, at + 64];
  const [strips, sums, bytes] = [at + 256, at + 512, at + 576];
  const [panels, c, tile] = [at + 704, at + 960, at + 1152];
  for (let i = 0; i < M; i++) {
    for (let k = 0; k < K; k++) view.setInt8(codesA + i * K + k, a(i, k));
  }
  for (let j = 0; j < N; j++) {
    for (let k = 0; k < K; k++) view.setInt8(codesB + j * K + k, b(j, k));
  }
  kernels.stripCodes(codesA, 1, M, K, 0, strips, sums);
  kernels.narrowStrips(strips, M, K, bytes);
  kernels.packBytes(codesB, N, K, panels);
  kernels.gemmBytes(M, N, K, bytes, panels, c, tile);
  for (let i = 0; i < M; i++) {
    for (let j = 0; j < N; j++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += a(i, k) * b(j, k);
      if (view.getInt32(c + 4 * (i * N + j), true) !== sum) return false;
    }
  }
  return true;
}

/** The fastest build that runs here and proves right on the memory's first page. */
function chooseBuild(
  memory: WebAssembly.Memory,
  wanted: IntegerBuild | undefined,
): { kernels: IntegerKernels; build: IntegerBuild } {
  const v8 = process.versions.v8;
  const relaxed = v8 === undefined || parseInt(v8) >= FIRST_GOOD_V8;
  for (
    const [build, base64] of [
      ["relaxed", RELAXED],
      ["simd128", SIMD128],
    ] as const
  ) {
    if (build === "relaxed" && !relaxed) continue;
    if (wanted !== undefined && build !== wanted) continue;
    if (!WebAssembly.validate(Buffer.from(base64, "base64"))) continue;
    const kernels = instantiate(base64, memory);
    if (multiplies(kernels, 0, new DataView(memory.buffer))) {
      return { kernels, build };
    }
  }
  throw new Error(
    `Cannot multiply integers as no build of the kernels computes right here: wanted ${
      wanted ?? "any"
    }, V8 ${v8}; use the float path`,
  );
}

/**
 * The integer kernels on a new memory.
 *
 * @param build the build to take; default the relaxed one where a known product proves it right
 * @throws {Error} if that build does not run, or computes wrongly, here
 */
export function openIntegerEngine(
  { build: wanted }: { build?: IntegerBuild } = {},
): IntegerEngine {
  const memory = new WebAssembly.Memory({ initial: 16 });
  const { kernels, build } = chooseBuild(memory, wanted);
  let top = 64; // pointer 0 means none
  return {
    kernels,
    build,
    memory,
    allocate(bytes) {
      const pointer = top;
      const end = pointer + Math.ceil(bytes / 64) * 64;
      const missing = end - memory.buffer.byteLength;
      if (missing > 0) {
        try {
          // Half as much again, so that many small blocks do not mean many growths.
          memory.grow(Math.ceil(Math.max(missing, end / 2) / PAGE_BYTES));
        } catch {
          throw new RangeError(
            `Cannot allocate as the memory of the integer kernels must stay below 4 GB: ${bytes} bytes beside ${pointer}`,
          );
        }
      }
      top = end;
      return pointer;
    },
    mark: () => top,
    release(mark) {
      top = mark;
    },
  };
}

function put<T extends Float32Array | Int32Array | Int8Array | Uint8Array>(
  engine: IntegerEngine,
  values: T,
): number {
  const pointer = engine.allocate(values.byteLength);
  new Uint8Array(engine.memory.buffer, pointer, values.byteLength).set(
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
  );
  return pointer;
}

/** A copy of float32 numbers in the engine's memory. */
export function putFloats(
  engine: IntegerEngine,
  values: Float32Array,
): number {
  return put(engine, values);
}

/** A view of float32 numbers in the engine's memory; the next allocation may detach it. */
export function floatsAt(
  engine: IntegerEngine,
  pointer: number,
  count: number,
): Float32Array<ArrayBuffer> {
  return new Float32Array(engine.memory.buffer as ArrayBuffer, pointer, count);
}

/** A view of int32 numbers in the engine's memory; the next allocation may detach it. */
export function intsAt(
  engine: IntegerEngine,
  pointer: number,
  count: number,
): Int32Array<ArrayBuffer> {
  return new Int32Array(engine.memory.buffer as ArrayBuffer, pointer, count);
}

function checkSize(what: string, size: number): void {
  if (!Number.isInteger(size) || size < 0 || size >= 2 ** 31) {
    throw new RangeError(
      `Cannot multiply integers as ${what} must be a whole number below 2^31: ${size}`,
    );
  }
}

/** Smallest and greatest of integer codes; [0, 0] of none. */
function rangeOf(codes: ArrayLike<number>): [number, number] {
  let low = 0;
  let high = 0;
  for (let i = 0; i < codes.length; i++) {
    if (codes[i] < low) low = codes[i];
    if (codes[i] > high) high = codes[i];
  }
  return [low, high];
}

/**
 * What to take off codes of [low, high] to store them in `range`.
 *
 * 0 if they fit, else half the span (signed to unsigned or back): the zero point moves along.
 */
function shiftInto(
  what: string,
  format: Format,
  [low, high]: readonly [number, number],
  range: readonly [number, number],
): number {
  if (low >= range[0] && high <= range[1]) return 0;
  const less = (low < 0 ? -1 : 1) * (range[1] - range[0] + 1) / 2;
  if (low - less >= range[0] && high - less <= range[1]) return less;
  throw new RangeError(
    `Cannot pack ${what} as ${format} takes codes from ${range[0]} to ${
      range[1]
    } or those moved by ${less}: codes from ${low} to ${high}`,
  );
}

/** A list of `count` numbers from one or many. */
function spread(
  what: string,
  values: number | ArrayLike<number>,
  count: number,
): { values: Float64Array; stride: 0 | 1 } {
  if (typeof values === "number") {
    return { values: Float64Array.of(values), stride: 0 };
  }
  if (values.length !== count) {
    throw new RangeError(
      `Cannot pack weights as ${what} must be one number or ${count}: ${values.length}`,
    );
  }
  return { values: Float64Array.from(values), stride: 1 };
}

/** Activations that a format takes, of 4 bits or beyond. */
function activationRange(format: Format, wide: boolean) {
  return TRAITS[wide ? "int8" : format].activation;
}

/** Whether codes are beyond a format's own that has a way for them. */
function isWide(format: Format, bits: number): boolean {
  return (format === "pairs" || format === "nibble-pairs") && bits > 4;
}

function checkWeightNumbers(
  scales: Float64Array,
  zeros: Float64Array,
  range: readonly [number, number],
): void {
  scales.forEach((scale, i) => {
    if (!(scale > 0 && scale < Infinity)) {
      throw new RangeError(
        `Cannot pack weights as every scale must be positive and finite: scale ${scale} at ${i}`,
      );
    }
  });
  zeros.forEach((zero, i) => {
    if (!Number.isInteger(zero) || zero < range[0] || zero > range[1]) {
      throw new RangeError(
        `Cannot pack weights as every zero point must be a code from ${
          range[0]
        } to ${range[1]}: zero point ${zero} at ${i}`,
      );
    }
  });
}

/** Panels of `columns` outputs from numbers [N, groups]: [N / 8][groups][8], `fill` beyond N. */
function inPanels(
  { values, stride }: ReturnType<typeof spread>,
  outputs: number,
  groups: number,
  fill: number,
): Float64Array {
  const panels = Math.ceil(outputs / 8);
  const out = new Float64Array(panels * groups * 8).fill(fill);
  for (let j = 0; j < outputs; j++) {
    for (let g = 0; g < groups; g++) {
      out[((j >> 3) * groups + g) * 8 + (j & 7)] =
        values[stride * (j * groups + g)];
    }
  }
  return out;
}

/**
 * Weights packed for one kernel; done once a model.
 *
 * Codes outside the format's stored range but of its span (unsigned for signed, signed for unsigned) are moved
 * by half the span together with their zero point: the product does not change.
 *
 * @param codes [N, K]
 * @throws {RangeError} if codes, scales, zero points, group or bias do not fit, with the value
 */
export function packWeights(
  engine: IntegerEngine,
  codes: Int8Array | Uint8Array,
  outputs: number,
  depth: number,
  { format, scale = 1, zeroPoint = 0, groupSize, bias }: WeightOptions,
): PackedWeights {
  checkSize("the number of outputs", outputs);
  checkSize("the depth", depth);
  if (codes.length !== outputs * depth) {
    throw new RangeError(
      `Cannot pack weights as there must be ${outputs} x ${depth} codes: ${codes.length}`,
    );
  }
  const { weight, columns, bytes, pack } = TRAITS[format];
  const grouped = format === "nibble-groups";
  if (groupSize !== undefined && !grouped) {
    throw new RangeError(
      `Cannot pack weights as ${format} has no groups: group size ${groupSize}; take nibble-groups`,
    );
  }
  const group = groupSize ?? Math.max(4, padded(depth));
  if (
    !(Number.isInteger(group) && group > 0 && group % 4 === 0) ||
    (groupSize !== undefined && depth % group !== 0)
  ) {
    throw new RangeError(
      `Cannot pack weights as the group size must be a multiple of 4 that divides the depth: group size ${group}, depth ${depth}`,
    );
  }
  if (bias !== undefined && bias.length !== outputs) {
    throw new RangeError(
      `Cannot pack weights as the bias must have ${outputs} numbers: ${bias.length}`,
    );
  }
  const groups = grouped ? padded(depth) / group : 1;
  const count = outputs * groups;
  const scales = spread("the scale", scale, count);
  const zeros = spread("the zero point", zeroPoint, count);
  const range = rangeOf(codes);
  const less = shiftInto("weights", format, range, weight);
  const span = weight[1] - weight[0] + 1;
  checkWeightNumbers(scales.values, zeros.values, [-span / 2, span - 1]);
  let reach = 0;
  for (const zero of zeros.values) {
    reach = Math.max(reach, range[1] - zero, zero - range[0]);
  }

  const panels = Math.ceil(outputs / columns);
  const codeBytes = panels * padded(depth) * bytes;
  const pointer = engine.allocate(codeBytes);
  const sums = engine.allocate(4 * outputs);
  const biases = bias === undefined ? 0 : put(engine, Float32Array.from(bias));
  const storedZeros = zeros.values.map((zero) => zero - less);
  const scaleValues = grouped
    ? inPanels(scales, outputs, groups, 1)
    : scales.values;
  const zeroValues = grouped
    ? inPanels({ ...zeros, values: storedZeros }, outputs, groups, 0)
    : storedZeros;
  const scalePointer = put(engine, Float32Array.from(scaleValues));
  const zeroPointer = put(engine, Int32Array.from(zeroValues));

  const mark = engine.mark();
  const moved = new Int8Array(codes.length);
  for (let i = 0; i < codes.length; i++) moved[i] = codes[i] - less;
  const stored = put(engine, moved);
  engine.kernels[pack](stored, outputs, depth, pointer);
  engine.kernels.columnSums(stored, 1, outputs, depth, sums);
  engine.release(mark);
  const numbers = scaleValues.length + zeroValues.length +
    (bias === undefined ? 0 : outputs) + (grouped ? 0 : outputs);
  return {
    format,
    outputs,
    depth,
    pointer,
    codeBytes,
    sizeBytes: codeBytes + 4 * numbers,
    sums,
    scales: scalePointer,
    scaleStride: scales.stride,
    zeros: zeroPointer,
    zeroStride: zeros.stride,
    offset: storedZeros.some((zero) => zero !== 0),
    group: grouped ? group : 0,
    bias: biases,
    reach,
  };
}

/** Stack blocks of activations: strips with their padding, and sums for whole strips. */
function stripBlocks(engine: IntegerEngine, rows: number, depth: number) {
  const strips = engine.allocate(Math.ceil(rows / 4) * padded(depth) * 8);
  return { strips, sums: engine.allocate(4 * rows) };
}

/**
 * Given codes as activations; for tests and for values that are integers already.
 *
 * @param codes [M, K]
 * @param zeroPoint one number, or one a row
 */
export function packActivations(
  engine: IntegerEngine,
  codes: Int8Array | Uint8Array,
  rows: number,
  depth: number,
  { format, scale = 1, zeroPoint = 0, order = 0 }: {
    format: Format;
    scale?: number | ArrayLike<number>;
    zeroPoint?: number | ArrayLike<number>;
    order?: number;
  },
): PackedActivations {
  checkSize("the number of rows", rows);
  checkSize("the depth", depth);
  if (codes.length !== rows * depth) {
    throw new RangeError(
      `Cannot pack activations as there must be ${rows} x ${depth} codes: ${codes.length}`,
    );
  }
  const range = rangeOf(codes);
  const four = range[1] - range[0] < 16 && range[0] >= -8;
  const wide = isWide(format, four ? 4 : 8);
  const less = shiftInto(
    "activations",
    format,
    range,
    activationRange(format, wide),
  );
  const scales = spread("the scale", scale, rows);
  const zeros = spread("the zero point", zeroPoint, rows);
  let reach = 0;
  for (const zero of zeros.values) {
    reach = Math.max(reach, range[1] - zero, zero - range[0]);
  }
  const storedZeros = zeros.values.map((zero) => zero - less);
  const { strips, sums } = stripBlocks(engine, rows, depth);
  const out: PackedActivations = {
    format,
    rows,
    depth,
    strips,
    sums,
    scales: put(engine, Float32Array.from(scales.values)),
    scaleStride: scales.stride,
    zeros: put(engine, Int32Array.from(storedZeros)),
    zeroStride: zeros.stride,
    offset: storedZeros.some((zero) => zero !== 0),
    reach,
    wide,
    order,
  };
  const mark = engine.mark();
  const source = put(engine, codes);
  const signed = codes instanceof Int8Array ? 1 : 0;
  engine.kernels.stripCodes(source, signed, rows, depth, less, strips, sums);
  engine.release(mark);
  return out;
}

/**
 * Step and zero point of the range [low, high], which contains 0, in float32 as the fake quantizers compute it.
 *
 * Symmetric: scale = max(-low, high) / qmax, 0. Asymmetric: scale = (high - low) / (qmax - qmin),
 * zeroPoint = qmin - round(low / scale). A range of nothing has the scale 1.
 */
function stepOf(
  low: number,
  high: number,
  qmin: number,
  qmax: number,
  symmetric: boolean,
): [scale: number, zeroPoint: number] {
  const span = symmetric ? Math.max(-low, high) : Math.fround(high - low);
  const scale = Math.fround(span / (symmetric ? qmax : qmax - qmin));
  if (scale === 0) return [1, 0];
  if (symmetric) return [scale, 0];
  const zero = qmin - roundHalfEven(Math.fround(low / scale));
  return [scale, Math.min(qmax, Math.max(qmin, zero))];
}

/**
 * Activations quantised in the engine's memory: the part of a product that runs at every call.
 *
 * q = clamp(round(x / scale) + zeroPoint, qmin, qmax), half to even. Without a calibrated scale the range is
 * that of each row, or of all rows (dynamic quantisation), and contains 0. With one, NaN gets the code of 0.
 *
 * @param x pointer to float32 [M, K]
 * @throws {RangeError} if the codes do not fit the format, a calibrated scale is not positive, or without one
 * a number is NaN or infinite
 */
export function quantizeActivations(
  engine: IntegerEngine,
  x: number,
  rows: number,
  depth: number,
  options: ActivationOptions,
): PackedActivations {
  const { format, symmetric = true, granularity = "token", scale } = options;
  const { activation } = TRAITS[format];
  const own = activation[1] - activation[0] > 15 ? 8 : 4;
  const { bits = own, signed = true, order = 0 } = options;
  const most = isWide(format, 8) ? 8 : own;
  checkSize("the number of rows", rows);
  checkSize("the depth", depth);
  if (!(Number.isInteger(bits) && bits >= 2 && bits <= most)) {
    throw new RangeError(
      `Cannot quantise activations as ${format} takes 2 to ${most} bits: ${bits}`,
    );
  }
  if (scale !== undefined && !(scale > 0 && scale < Infinity)) {
    throw new RangeError(
      `Cannot quantise activations as the scale must be positive and finite: ${scale}`,
    );
  }
  const qmin = signed ? -(2 ** (bits - 1)) : 0;
  const qmax = qmin + 2 ** bits - 1;
  const wide = isWide(format, bits);
  const range = activationRange(format, wide);
  const less = shiftInto("activations", format, [qmin, qmax], range);
  const { strips, sums } = stripBlocks(engine, rows, depth);
  const count = scale === undefined && granularity === "token" ? rows : 1;
  const stride = count === 1 ? 0 : 1;
  const scales = engine.allocate(4 * count);
  const zeros = engine.allocate(4 * count);
  const stored = engine.allocate(4 * count);
  const { kernels } = engine;
  const dynamic = scale === undefined;
  const mark = engine.mark();
  const ranges = engine.allocate(dynamic ? 8 * rows : 0);
  const steps = floatsAt(engine, scales, count);
  const points = intsAt(engine, zeros, count);
  const storedPoints = intsAt(engine, stored, count);
  let offset = false;
  let reach = 0;
  const set = (i: number, [step, zero]: [number, number]) => {
    steps[i] = step;
    points[i] = zero;
    storedPoints[i] = zero - less;
    offset ||= zero !== less;
    reach = Math.max(reach, qmax - zero, zero - qmin);
  };
  if (dynamic) {
    kernels.rangeRows(x, rows, depth, order, ranges, ranges + 4 * rows);
    const ends = floatsAt(engine, ranges, 2 * rows);
    const bad = ends.findIndex((end) => !Number.isFinite(end));
    if (bad >= 0) {
      const i = bad % rows;
      const row = order === 0 ? i : intsAt(engine, order, rows)[i];
      throw new RangeError(
        `Cannot quantise activations as every number must be finite: ${
          ends[bad]
        } in row ${row}`,
      );
    }
    for (let i = 0; i < count; i++) {
      const [low, high] = count === rows
        ? [ends[i], ends[rows + i]]
        : rangeOf(ends);
      set(i, stepOf(low, high, qmin, qmax, symmetric));
    }
  } else set(0, [scale, options.zeroPoint ?? 0]);
  engine.release(mark);
  kernels.quantizeRows(
    x,
    rows,
    depth,
    order,
    scales,
    stride,
    zeros,
    stride,
    qmin,
    qmax,
    less,
    strips,
    sums,
  );
  return {
    format,
    rows,
    depth,
    strips,
    sums,
    scales,
    scaleStride: stride,
    zeros: stored,
    zeroStride: stride,
    offset,
    reach,
    wide,
    order,
  };
}

function checkPair(a: PackedActivations, b: PackedWeights): void {
  if (a.depth !== b.depth || a.format !== b.format) {
    throw new RangeError(
      `Cannot multiply as both operands must have one format and depth: ${a.format} with ${a.depth}, ${b.format} with ${b.depth}`,
    );
  }
  const most = Math.floor((2 ** 31 - 1) / Math.max(1, a.reach * b.reach));
  if (a.depth > most) {
    throw new RangeError(
      `Cannot multiply as sums of ${a.reach} times ${b.reach} must stay below 2^31, that is up to depth ${most}: depth ${a.depth}; cut the depth into parts and add those`,
    );
  }
}

/**
 * C_ij = sum_k (qa_ik - za_i)(qb_jk - zb_j), exact.
 *
 * With a sum over codes as stored, the zero points come in afterwards:
 * sum (qa - za)(qb - zb) = sum qa qb - zb sum qa - za sum qb + K za zb.
 *
 * @param c pointer to int32 [M, N], written
 * @throws {RangeError} if the operands do not fit each other, or the depth could overflow 32 bits
 */
export function multiply(
  engine: IntegerEngine,
  a: PackedActivations,
  b: PackedWeights,
  c: number,
): void {
  checkPair(a, b);
  const { kernels } = engine;
  const { rows: M, depth: K } = a;
  const { outputs: N, format } = b;
  if (format === "nibble-groups") {
    throw new TypeError(
      "Cannot give integer sums of nibble-groups as every group has its own scale: use linear",
    );
  }
  const mark = engine.mark();
  const width = padded(K);
  const panel = a.wide || format === "nibble-pairs" ? 8 * width : 0;
  const tile = engine.allocate(TILE_BYTES + panel);
  switch (format) {
    case "int8":
      kernels.gemmInt8(M, N, width, a.strips, b.pointer, c, tile);
      break;
    case "pairs":
    case "nibble-pairs": {
      if (a.wide) {
        const nibbles = format === "pairs" ? 0 : 1;
        kernels.gemmWide(M, N, width, a.strips, b.pointer, nibbles, c, tile);
        break;
      }
      const gemm = format === "pairs"
        ? kernels.gemmPairs
        : kernels.gemmNibblePairs;
      gemm(M, N, width, a.strips, a.sums, b.pointer, c, tile);
      break;
    }
    case "agile":
      kernels.gemmAgile(M, N, width, a.strips, b.pointer, c, tile);
      break;
    case "bytes": {
      const bytes = engine.allocate(Math.ceil(M / 4) * width * 4);
      kernels.narrowStrips(a.strips, M, K, bytes);
      kernels.gemmBytes(M, N, width, bytes, b.pointer, c, tile);
      break;
    }
  }
  if (a.offset || b.offset) {
    kernels.correctZeroPoints(
      c,
      M,
      N,
      K,
      a.sums,
      a.zeros,
      a.zeroStride,
      b.sums,
      b.zeros,
      b.zeroStride,
    );
  }
  engine.release(mark);
}

/**
 * y = A B^T + bias in float32, from quantised operands.
 *
 * y_ij = C_ij (sA_i sB_j) + bias_j; with groups y_ij = sA_i sum_g sB_gj C_gij + bias_j, the groups added in
 * order.
 *
 * @param y pointer to float32 [M, N], written; of activations that are some rows of a matrix, to all of it
 * @example
 * ```ts
 * const engine = openIntegerEngine();
 * const weights = packWeights(engine, Int8Array.of(1, 2, 3, -4), 2, 2, { format: "int8", scale: 0.5 });
 * const x = putFloats(engine, Float32Array.of(127, -2));
 * const y = engine.allocate(8);
 * linear(engine, quantizeActivations(engine, x, 1, 2, { format: "int8" }), weights, y);
 * assert.equal([...floatsAt(engine, y, 2)], [61.5, 194.5]);
 * ```
 */
export function linear(
  engine: IntegerEngine,
  a: PackedActivations,
  b: PackedWeights,
  y: number,
): void {
  const { kernels } = engine;
  const { rows: M, depth: K } = a;
  const { outputs: N } = b;
  if (b.format !== "nibble-groups") {
    const mark = engine.mark();
    const c = a.order === 0 ? y : engine.allocate(4 * M * N); // sums may lie where the floats will
    multiply(engine, a, b, c);
    kernels.dequantize(
      c,
      M,
      N,
      a.scales,
      a.scaleStride,
      b.scales,
      b.scaleStride,
      b.bias,
      a.order,
      y,
    );
    engine.release(mark);
    return;
  }
  checkPair(a, b);
  if (a.order !== 0) {
    throw new RangeError(
      "Cannot multiply nibble-groups as they take all rows in order: take nibble-pairs for rows in groups",
    );
  }
  if (a.offset) {
    throw new RangeError(
      "Cannot multiply nibble-groups as the zero point of the activations must be 0: quantise them symmetrically",
    );
  }
  const mark = engine.mark();
  const groups = padded(K) / b.group;
  const sums = engine.allocate(16 * Math.ceil(M / 4) * groups);
  const tile = engine.allocate(TILE_BYTES);
  kernels.groupSums(a.strips, M, K, b.group, sums);
  kernels.gemmGroups(
    M,
    N,
    padded(K),
    b.group,
    a.strips,
    sums,
    a.scales,
    a.scaleStride,
    b.pointer,
    b.scales,
    b.zeros,
    b.bias,
    y,
    tile,
  );
  engine.release(mark);
}
