/**
 * Our language model as an ONNX graph that ONNX Runtime and others run.
 *
 * Source: the standard operators of ONNX (onnx/onnx docs/Operators.md), version 18, and `MatMulNBits` of
 * microsoft/onnxruntime docs/ContribOperators.md. The computation is that of llama.ts, piece by piece;
 * names of inputs and outputs are those of Hugging Face Optimum.
 *
 *   input_ids                     int64 [batch, sequence]
 *   past_key_values.0.key, value  [batch, Hkv, past, Dh], with `cache` only
 *   logits                        [batch, sequence, V]
 *   present.0.key, value          [batch, Hkv, past + sequence, Dh], with `cache` only
 *
 * What becomes of a linear layer y = x W^T is the argument `weights`:
 *
 *   float32        MatMul with W^T
 *   qdq-int8       MatMul with DequantizeLinear(uint8 codes); the input passes through QuantizeLinear and
 *                  DequantizeLinear where `activations` has a range for it
 *   matmulinteger  DynamicQuantizeLinear of x, MatMulInteger of uint8 codes, both scales after
 *   matmulnbits    MatMulNBits: 4-bit codes and a scale per group along the input
 *
 * Codes are around a zero point for each row, or group of it: the middle of all codes unless others are given.
 *
 * Embedding, norms and (unless asked) the head stay in float32, as in the papers on quantisation.
 *
 * Scope: all sequences of a batch start at the same position and are full (no padding mask). Angles of
 * the rotary positions are a table of maxPositions rows; a longer sequence fails in the table's Gather.
 */
import {
  forward,
  type LlamaConfig,
  type LlamaParams,
  parameterShapes,
  resolveConfig,
  type ResolvedConfig,
  ropeFrequencies,
} from "../llama.ts";
import { flatten, type Tensor, tf } from "../tensor.ts";
import {
  type OnnxAttribute,
  type OnnxData,
  type OnnxDtype,
  type OnnxGraph,
  type OnnxModel,
  type OnnxValueInfo,
  packInt4,
} from "./onnx.ts";

const OPSET = 18;
/** Format version that goes with operator set 18 (onnx/onnx docs/Versioning.md). */
const IR_VERSION = 8;
const MICROSOFT = "com.microsoft";

/** A matrix [out, in] in whole numbers: w = scale (code - zeroPoint), the two for each row and group of columns. */
export interface QuantizedMatrix {
  bits: 4 | 8;
  /** Row-major, each in -2^(bits - 1) .. 2^(bits - 1) - 1; or of bytes without sign, as GPTQ's, in 0 .. 2^bits - 1. */
  codes: Int8Array | Uint8Array;
  /** [out, ceil(in / groupSize)] */
  scales: Float32Array;
  /** Codes, as many as scales; default 0, and for codes without sign the middle, 2^(bits - 1). */
  zeroPoints?: ArrayLike<number>;
  /** Columns that share a scale; `in` for one scale per row. */
  groupSize: number;
}

/** The range of a layer's input: x = scale (code - zeroPoint), codes 0 to 255. */
export interface ActivationRange {
  scale: number;
  zeroPoint: number;
}

/** How linear layers are computed. */
export type OnnxWeights =
  | "float32"
  | "qdq-int8"
  | "matmulinteger"
  | "matmulnbits";

const WEIGHTS: OnnxWeights[] = [
  "float32",
  "qdq-int8",
  "matmulinteger",
  "matmulnbits",
];

/** What `exportOnnx` may be told. */
export interface ExportOnnxOptions {
  /** Default "float32". */
  weights?: OnnxWeights;
  /** Whether keys and values of earlier positions come in and go out; default false. */
  cache?: boolean;
  /** Whether the head is quantized like the other layers; default "float32". */
  head?: "float32" | "quantized";
  /** Codes of a layer's matrix [out, in]; default `roundToNearest`, 8 bits per row or 4 per group. */
  quantize?: (
    weight: Float32Array,
    shape: [out: number, columns: number],
    module: string,
  ) => QuantizedMatrix;
  /** Columns that share a scale in 4 bits: a power of two from 16; default 32, as in Q4_0. */
  groupSize?: number;
  /** Ranges of inputs by module for qdq-int8, from `calibrate`; without one, inputs stay float. */
  activations?: Record<string, ActivationRange>;
  /**
   * The least precise arithmetic that MatMulNBits may use: 0 the runtime's choice, 1 float32, 4 activations
   * of 8 bits; default 0.
   */
  accuracyLevel?: 0 | 1 | 4;
}

function cannotExport(what: string): RangeError {
  return new RangeError(`Cannot export to ONNX as ${what}`);
}

// Whole numbers -------------------------------------------------------------------

/** To the nearest integer, ties to even. */
function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}

/**
 * A matrix rounded to whole numbers, symmetric.
 *
 *   scale = max |w| / (2^(bits - 1) - 1) over a row's group of columns,   code = round(w / scale)
 *
 * with ties to even; a group of zeros has scale 1.
 *
 * @param weight Row-major.
 * @param shape [out, in]
 * @throws {RangeError} If a number is not finite.
 */
export function roundToNearest(
  weight: Float32Array,
  [rows, columns]: [number, number],
  { bits, groupSize = columns }: { bits: 4 | 8; groupSize?: number },
): QuantizedMatrix {
  const groups = Math.ceil(columns / groupSize);
  const largest = 2 ** (bits - 1) - 1;
  const codes = new Int8Array(weight.length);
  const scales = new Float32Array(rows * groups);
  for (let g = 0; g < scales.length; g++) {
    const row = Math.floor(g / groups);
    const start = row * columns + g % groups * groupSize;
    const end = Math.min(start + groupSize, (row + 1) * columns);
    let max = 0;
    for (let i = start; i < end; i++) {
      if (!Number.isFinite(weight[i])) {
        throw new RangeError(
          `Cannot quantize as every weight must be finite: ${
            weight[i]
          } at row ${row}, column ${i - row * columns}`,
        );
      }
      max = Math.max(max, Math.abs(weight[i]));
    }
    const scale = Math.fround(max / largest) || 1;
    scales[g] = scale;
    for (let i = start; i < end; i++) {
      codes[i] = roundHalfEven(weight[i] / scale);
    }
  }
  return { bits, codes, scales, groupSize };
}

/** Half of the codes: the zero point of a symmetric matrix whose codes have no sign. */
const middleOf = (bits: number) => 2 ** (bits - 1);

/** The zero point of a group, among codes as they are given. */
function zeroPointAt(
  { codes, bits, zeroPoints }: QuantizedMatrix,
  group: number,
): number {
  const symmetric = codes instanceof Uint8Array ? middleOf(bits) : 0;
  return zeroPoints?.[group] ?? symmetric;
}

/** The matrix that codes, scales and zero points stand for. */
export function dequantize(
  matrix: QuantizedMatrix,
  [rows, columns]: [number, number],
): Float32Array {
  const { codes, scales, groupSize } = matrix;
  const groups = Math.ceil(columns / groupSize);
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const row = Math.floor(i / columns);
    const column = i - row * columns;
    const group = row * groups + Math.floor(column / groupSize);
    return scales[group] * (codes[i] - zeroPointAt(matrix, group));
  });
}

/**
 * The range of every linear layer's input over some texts.
 *
 *   scale = (max - min) / 255,   zeroPoint = round(-min / scale),   with 0 inside [min, max]
 *
 * (the rule of ONNX's DynamicQuantizeLinear, over all texts at once).
 *
 * @param batches int32 [B, T] each; at least one.
 * @returns By module name, "lm_head" too.
 */
export function calibrate(
  params: LlamaParams,
  config: LlamaConfig,
  batches: Tensor[],
): Record<string, ActivationRange> {
  if (batches.length === 0) {
    throw new RangeError("Cannot calibrate as there must be a text: 0 batches");
  }
  const ranges: Record<string, [min: number, max: number]> = {};
  for (const ids of batches) {
    tf.tidy(() =>
      forward(params, config, ids, {
        onActivation: (name, value) => {
          if (!name.endsWith(".input")) return;
          const range = ranges[name.slice(0, -".input".length)] ??= [0, 0];
          for (const x of value.dataSync()) {
            if (x < range[0]) range[0] = x;
            if (x > range[1]) range[1] = x;
          }
        },
      })
    );
  }
  return Object.fromEntries(
    Object.entries(ranges).map(([module, [min, max]]) => {
      const scale = Math.fround((max - min) / 255) || 1;
      return [module, { scale, zeroPoint: roundHalfEven(-min / scale) }];
    }),
  );
}

// The graph -----------------------------------------------------------------------

/** A graph that grows by one operator at a time. */
class GraphBuilder {
  graph: OnnxGraph = {
    name: "llama",
    nodes: [],
    initializers: [],
    inputs: [],
    outputs: [],
  };
  /** Names that were given, with how often; a second one gets a number. */
  #given = new Map<string, number>();

  #unique(name: string): string {
    const before = this.#given.get(name) ?? 0;
    this.#given.set(name, before + 1);
    return before === 0 ? name : `${name}_${before}`;
  }

  /** Name of a constant; the same name is stored once. */
  constant(
    name: string,
    dtype: OnnxDtype,
    shape: number[],
    data: OnnxData,
  ): string {
    if (!this.#given.has(name)) {
      this.#given.set(name, 1);
      this.graph.initializers.push({ name, dtype, shape, data });
    }
    return name;
  }

  /** A short list of whole numbers, for shapes and axes. */
  ints(...values: number[]): string {
    return this.constant(
      `ints.${values.join(".")}`,
      "int64",
      [values.length],
      BigInt64Array.from(values, BigInt),
    );
  }

  float(value: number): string {
    return this.constant(
      `float.${value}`,
      "float32",
      [],
      Float32Array.of(value),
    );
  }

  /** Applies an operator; returns the names of its outputs. */
  many(
    count: number,
    opType: string,
    inputs: string[],
    name: string,
    attributes?: Record<string, OnnxAttribute>,
    domain?: string,
  ): string[] {
    const base = this.#unique(name);
    const outputs = Array.from(
      { length: count },
      (_, i) => count === 1 ? base : this.#unique(`${base}.${i}`),
    );
    this.graph.nodes.push({
      opType,
      inputs,
      outputs,
      name: `${base}/${opType}`,
      ...(domain && { domain }),
      ...(attributes && { attributes }),
    });
    return outputs;
  }

  /** Applies an operator with one output; returns its name. */
  op(
    opType: string,
    inputs: string[],
    name: string,
    attributes?: Record<string, OnnxAttribute>,
    domain?: string,
  ): string {
    return this.many(1, opType, inputs, name, attributes, domain)[0];
  }
}

const int = (value: number): OnnxAttribute => ({ type: "int", value });
const ints = (...value: number[]): OnnxAttribute => ({ type: "ints", value });

/** The numbers of a tensor, not shared with the engine. */
function valuesOf(tensor: Tensor): Float32Array {
  return (tensor.dataSync() as Float32Array).slice();
}

/** A matrix [rows, columns] the other way round. */
function transpose<T extends Float32Array | Uint8Array>(
  values: T,
  [rows, columns]: [number, number],
): T {
  const out = values.slice() as T;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      out[j * rows + i] = values[i * columns + j];
    }
  }
  return out;
}

/** What every part of the graph is made with. */
interface Context {
  build: GraphBuilder;
  config: ResolvedConfig;
  /** Parameters by name. */
  named: Record<string, Tensor>;
  options: ExportOnnxOptions & { weights: OnnxWeights; groupSize: number };
}

/** A matrix as it is stored: bytes from 0, whose zero points are those given or, if none were, the middle. */
interface StoredMatrix {
  codes: Uint8Array;
  scales: Float32Array;
  zeroPoints: Uint8Array;
  /** Whether every zero point is the middle. */
  symmetric: boolean;
  groupSize: number;
}

/** The codes of a matrix, checked. */
function codesOf(
  context: Context,
  module: string,
  weight: Float32Array,
  shape: [number, number],
): StoredMatrix {
  const { weights, groupSize, quantize } = context.options;
  const bits = weights === "matmulnbits" ? 4 : 8;
  const wanted = bits === 4 ? groupSize : shape[1];
  let matrix: QuantizedMatrix;
  try {
    matrix = quantize?.(weight, shape, module) ??
      roundToNearest(weight, shape, { bits, groupSize: wanted });
  } catch (error) {
    throw new RangeError(`${(error as Error).message} of ${module}`);
  }
  const groups = Math.ceil(shape[1] / wanted);
  const { codes, scales } = matrix;
  const middle = middleOf(bits);
  const shift = codes instanceof Uint8Array ? 0 : middle;
  const isOutside = (q: number) =>
    !(Number.isInteger(q) && q + shift >= 0 && q + shift < 2 * middle);
  const outside = codes.findIndex(isOutside);
  if (
    matrix.bits !== bits || matrix.groupSize !== wanted ||
    codes.length !== weight.length ||
    scales.length !== shape[0] * groups || outside >= 0
  ) {
    throw cannotExport(
      `the codes of ${module} for ${weights} must be ${weight.length} of ${bits} bits with ` +
        `${
          shape[0]
        } x ${groups} scales: ${codes.length} of ${matrix.bits} bits with ` +
        `${scales.length} scales, groups of ${matrix.groupSize}` +
        (outside < 0 ? "" : `, code ${codes[outside]} at ${outside}`),
    );
  }
  const given = matrix.zeroPoints?.length ?? scales.length;
  const zeros = Array.from(scales, (_, group) => zeroPointAt(matrix, group));
  const bad = zeros.findIndex(isOutside);
  if (given !== scales.length || bad >= 0) {
    throw cannotExport(
      `the zero points of ${module} must be codes of ${bits} bits, one a scale: ${given} for ${scales.length} scales` +
        (bad < 0 ? "" : `, ${zeros[bad]} at ${bad}`),
    );
  }
  return {
    codes: Uint8Array.from(codes, (q) => q + shift),
    scales,
    zeroPoints: Uint8Array.from(zeros, (z) => z + shift),
    symmetric: zeros.every((z) => z + shift === middle),
    groupSize: wanted,
  };
}

// 8-bit weights are of type uint8, as int8 ones are not computed exactly everywhere: on x86 processors without VNNI the
// runtime's product of uint8 inputs and int8 weights saturates in 16 bits.

/** x times the dequantized matrix, the input rounded to its range if there is one. */
function qdqMatmul(
  { build, options }: Context,
  x: string,
  module: string,
  { codes, scales, zeroPoints }: StoredMatrix,
  shape: [number, number],
): string {
  const [N, K] = shape;
  const range = options.activations?.[module];
  let input = x;
  if (range !== undefined) {
    const scale = build.constant(
      `${module}.input.scale`,
      "float32",
      [],
      Float32Array.of(range.scale),
    );
    const zero = build.constant(
      `${module}.input.zero_point`,
      "uint8",
      [],
      Uint8Array.of(range.zeroPoint),
    );
    const q = build.op(
      "QuantizeLinear",
      [x, scale, zero],
      `${module}.input.codes`,
    );
    input = build.op(
      "DequantizeLinear",
      [q, scale, zero],
      `${module}.input.rounded`,
    );
  }
  const weight = build.op(
    "DequantizeLinear",
    [
      build.constant(
        `${module}.weight.codes`,
        "uint8",
        [K, N],
        transpose(codes, shape),
      ),
      build.constant(`${module}.weight.scales`, "float32", [N], scales),
      build.constant(
        `${module}.weight.zero_points`,
        "uint8",
        [N],
        zeroPoints,
      ),
    ],
    `${module}.weight`,
    { axis: int(1) },
  );
  return build.op("MatMul", [input, weight], `${module}.product`);
}

/** Whole numbers times whole numbers, then both scales. */
function integerMatmul(
  { build }: Context,
  x: string,
  module: string,
  { codes, scales, zeroPoints, symmetric }: StoredMatrix,
  shape: [number, number],
): string {
  const [N, K] = shape;
  const [q, scale, zero] = build.many(
    3,
    "DynamicQuantizeLinear",
    [x],
    `${module}.input`,
  );
  const weight = build.constant(
    `${module}.weight.codes`,
    "uint8",
    [K, N],
    transpose(codes, shape),
  );
  const weightZero = symmetric
    ? build.constant("weight.zero_point", "uint8", [], Uint8Array.of(128))
    : build.constant(`${module}.weight.zero_points`, "uint8", [N], zeroPoints);
  const sums = build.op(
    "MatMulInteger",
    [q, weight, zero, weightZero],
    `${module}.sums`,
  );
  const float = build.op("Cast", [sums], `${module}.sums_float`, {
    to: int(1),
  });
  const rowScales = build.constant(
    `${module}.weight.scales`,
    "float32",
    [N],
    scales,
  );
  const both = build.op("Mul", [scale, rowScales], `${module}.scales`);
  return build.op("Mul", [float, both], `${module}.product`);
}

/** Rows of bytes [rows, columns], each filled up to `width` with 8. */
function padRows(
  values: Uint8Array,
  [rows, columns]: [number, number],
  width: number,
): Uint8Array {
  const padded = new Uint8Array(rows * width).fill(8);
  for (let row = 0; row < rows; row++) {
    padded.set(
      values.subarray(row * columns, (row + 1) * columns),
      row * width,
    );
  }
  return padded;
}

/**
 * MatMulNBits: codes 0 to 15, two in a byte, rows of whole groups; around 8, or around the groups' zero points, whose
 * rows are whole bytes.
 */
function nBitsMatmul(
  { build, options }: Context,
  x: string,
  module: string,
  { codes, scales, zeroPoints, symmetric, groupSize }: StoredMatrix,
  [N, K]: [number, number],
): string {
  const groups = Math.ceil(K / groupSize);
  const bytes = Math.ceil(groups / 2);
  const zeros = () =>
    build.constant(
      `${module}.weight.zero_points`,
      "uint8",
      [N * bytes],
      packInt4(padRows(zeroPoints, [N, groups], 2 * bytes), "uint4"),
    );
  return build.op(
    "MatMulNBits",
    [
      x,
      build.constant(
        `${module}.weight.codes`,
        "uint8",
        [N, groups, groupSize / 2],
        packInt4(padRows(codes, [N, K], groups * groupSize), "uint4"),
      ),
      build.constant(
        `${module}.weight.scales`,
        "float32",
        [N * groups],
        scales,
      ),
      ...(symmetric ? [] : [zeros()]),
    ],
    `${module}.product`,
    {
      K: int(K),
      N: int(N),
      bits: int(4),
      block_size: int(groupSize),
      accuracy_level: int(options.accuracyLevel ?? 0),
    },
    MICROSOFT,
  );
}

/** A linear layer; returns the name of its output. */
function linear(context: Context, x: string, module: string): string {
  const { build, named, options, config } = context;
  const isHead = module === "lm_head";
  const tied = isHead && config.tieWordEmbeddings;
  const parameter = tied ? "model.embed_tokens" : module;
  const weight = named[`${parameter}.weight`];
  const shape = weight.shape as [number, number];
  const values = valuesOf(weight);
  let y: string;
  if (
    options.weights === "float32" || (isHead && options.head !== "quantized")
  ) {
    // The table of a tied head is stored once, turned by the runtime when it loads.
    const matrix = tied
      ? build.op(
        "Transpose",
        [build.constant(`${parameter}.weight`, "float32", shape, values)],
        "lm_head.weight",
        { perm: ints(1, 0) },
      )
      : build.constant(
        `${module}.weight`,
        "float32",
        [shape[1], shape[0]],
        transpose(values, shape),
      );
    y = build.op("MatMul", [x, matrix], `${module}.product`);
  } else {
    const matrix = codesOf(context, module, values, shape);
    const multiply = {
      "qdq-int8": qdqMatmul,
      matmulinteger: integerMatmul,
      matmulnbits: nBitsMatmul,
    }[options.weights];
    y = multiply(context, x, module, matrix, shape);
  }
  const bias = named[`${module}.bias`];
  if (bias === undefined) return y;
  const data = valuesOf(bias);
  return build.op(
    "Add",
    [y, build.constant(`${module}.bias`, "float32", bias.shape, data)],
    `${module}.output`,
  );
}

/** x / sqrt(mean(x^2) + eps) * weight over the last axis. */
function rmsNorm(
  { build, named, config }: Context,
  x: string,
  module: string,
): string {
  const weight = named[`${module}.weight`];
  const squares = build.op("Mul", [x, x], `${module}.squares`);
  const mean = build.op(
    "ReduceMean",
    [squares, build.ints(-1)],
    `${module}.mean`,
    {
      keepdims: int(1),
    },
  );
  const shifted = build.op(
    "Add",
    [mean, build.float(config.rmsNormEps)],
    `${module}.shifted`,
  );
  const root = build.op("Sqrt", [shifted], `${module}.root`);
  const normed = build.op("Div", [x, root], `${module}.normed`);
  const gain = build.constant(
    `${module}.weight`,
    "float32",
    weight.shape,
    valuesOf(weight),
  );
  return build.op("Mul", [normed, gain], `${module}.output`);
}

/** What all layers share: angles of the positions and which keys each query sees. */
interface Positions {
  cos: string; // [T, 1, Dh / 2]
  sin: string;
  bias: string; // [T, S], 0 or -Infinity
}

function positions({ build, config, options }: Context): Positions {
  const { headDim, maxPositions } = config;
  const size = (of: string, axis: number, name: string) =>
    build.op(
      "Squeeze",
      [build.op("Shape", [of], `${name}.list`, {
        start: int(axis),
        end: int(axis + 1),
      })],
      name,
    );
  const zero = build.constant("int64.zero", "int64", [], BigInt64Array.of(0n));
  const one = build.constant("int64.one", "int64", [], BigInt64Array.of(1n));
  const T = size("input_ids", 1, "sequence");
  const past = options.cache ? size("past_key_values.0.key", 2, "past") : zero;
  const total = build.op("Add", [past, T], "total");
  const queries = build.op("Range", [past, total, one], "queries"); // [T]
  const keys = build.op("Range", [zero, total, one], "keys"); // [S]

  const frequencies = ropeFrequencies(config);
  const table = (f: (angle: number) => number) =>
    Float32Array.from(
      { length: maxPositions * headDim / 2 },
      (_, i) => {
        const position = Math.floor(i / frequencies.length);
        return f(position * frequencies[i % frequencies.length]);
      },
    );
  const gather = (name: string, f: (angle: number) => number) =>
    build.op(
      "Unsqueeze",
      [
        build.op("Gather", [
          build.constant(
            `rope.${name}.table`,
            "float32",
            [maxPositions, headDim / 2],
            table(f),
          ),
          queries,
        ], `rope.${name}.rows`),
        build.ints(1),
      ],
      `rope.${name}`,
    );
  const column = build.op(
    "Unsqueeze",
    [queries, build.ints(1)],
    "queries.column",
  );
  const visible = build.op("LessOrEqual", [keys, column], "visible"); // [T, S]
  const bias = build.op(
    "Where",
    [visible, build.float(0), build.float(-Infinity)],
    "attention.bias",
  );
  return { cos: gather("cos", Math.cos), sin: gather("sin", Math.sin), bias };
}

/** (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), the halves of every head. */
function rope(
  { build }: Context,
  x: string,
  { cos, sin }: Positions,
  name: string,
): string {
  const [x1, x2] = build.many(2, "Split", [x], `${name}.halves`, {
    axis: int(-1),
    num_outputs: int(2),
  });
  const times = (a: string, b: string) =>
    build.op("Mul", [a, b], `${name}.term`);
  const first = build.op(
    "Sub",
    [times(x1, cos), times(x2, sin)],
    `${name}.first`,
  );
  const second = build.op(
    "Add",
    [times(x2, cos), times(x1, sin)],
    `${name}.second`,
  );
  return build.op("Concat", [first, second], `${name}.rotated`, {
    axis: int(-1),
  });
}

function selfAttention(
  context: Context,
  x: string,
  layer: number,
  shared: Positions,
): string {
  const { build, config, options } = context;
  const { numHeads: H, numKvHeads: Hkv, headDim: Dh } = config;
  const module = `model.layers.${layer}.self_attn`;
  const heads = (name: string, count: number) =>
    build.op(
      "Reshape",
      [linear(context, x, `${module}.${name}`), build.ints(0, 0, count, Dh)],
      `${module}.${name}.heads`,
    ); // [B, T, count, Dh]
  const headsFirst = (of: string, name: string) =>
    build.op("Transpose", [of], `${module}.${name}`, {
      perm: ints(0, 2, 1, 3),
    });

  let q = headsFirst(
    rope(context, heads("q_proj", H), shared, `${module}.q`),
    "q",
  );
  let k = headsFirst(
    rope(context, heads("k_proj", Hkv), shared, `${module}.k`),
    "k",
  );
  let v = headsFirst(heads("v_proj", Hkv), "v"); // [B, Hkv, T, Dh]
  if (options.cache) {
    const extend = (part: string, now: string) =>
      build.op(
        "Concat",
        [`past_key_values.${layer}.${part}`, now],
        `present.${layer}.${part}`,
        {
          axis: int(2),
        },
      );
    [k, v] = [extend("key", k), extend("value", v)]; // [B, Hkv, S, Dh]
  }
  if (H !== Hkv) {
    // A key head serves H / Hkv query heads, which get an axis of their own.
    const groups = build.ints(0, Hkv, H / Hkv, -1, Dh);
    q = build.op("Reshape", [q, groups], `${module}.q.grouped`);
    const shared = (of: string, name: string) =>
      build.op("Unsqueeze", [of, build.ints(2)], `${module}.${name}.shared`);
    [k, v] = [shared(k, "k"), shared(v, "v")];
  }
  const turned = build.op("Transpose", [k], `${module}.k.turned`, {
    perm: H === Hkv ? ints(0, 1, 3, 2) : ints(0, 1, 2, 4, 3),
  });
  const products = build.op("MatMul", [q, turned], `${module}.products`);
  const scaled = build.op(
    "Mul",
    [products, build.float(1 / Math.sqrt(Dh))],
    `${module}.scaled`,
  );
  const scores = build.op("Add", [scaled, shared.bias], `${module}.scores`);
  const chances = build.op("Softmax", [scores], `${module}.softmax`, {
    axis: int(-1),
  });
  let mixed = build.op("MatMul", [chances, v], `${module}.mixed`);
  if (H !== Hkv) {
    mixed = build.op(
      "Reshape",
      [mixed, build.ints(0, H, -1, Dh)],
      `${module}.ungrouped`,
    );
  }
  const flat = build.op(
    "Reshape",
    [headsFirst(mixed, "mixed.positions"), build.ints(0, 0, H * Dh)],
    `${module}.flat`,
  ); // [B, T, H Dh]
  return linear(context, flat, `${module}.o_proj`);
}

function feedForward(context: Context, x: string, layer: number): string {
  const { build } = context;
  const module = `model.layers.${layer}.mlp`;
  const gate = linear(context, x, `${module}.gate_proj`);
  const up = linear(context, x, `${module}.up_proj`);
  const sigmoid = build.op("Sigmoid", [gate], `${module}.sigmoid`);
  const silu = build.op("Mul", [gate, sigmoid], `${module}.silu`);
  const hidden = build.op("Mul", [silu, up], `${module}.hidden`);
  return linear(context, hidden, `${module}.down_proj`);
}

/** Inputs and outputs that carry keys and values. */
function cacheValues(
  { numLayers, numKvHeads, headDim }: ResolvedConfig,
  prefix: string,
  length: string,
): OnnxValueInfo[] {
  return Array.from({ length: 2 * numLayers }, (_, i) => ({
    name: `${prefix}.${i >> 1}.${i % 2 === 0 ? "key" : "value"}`,
    dtype: "float32",
    shape: ["batch", numKvHeads, length, headDim],
  }));
}

/** Refuses options and parameters that do not fit together. */
function check(named: Record<string, Tensor>, context: Context): void {
  const { config, options } = context;
  const shapes = parameterShapes(config);
  for (const name of new Set([...Object.keys(named), ...Object.keys(shapes)])) {
    const [given, wanted] = [named[name]?.shape, shapes[name]];
    if (given?.join() === wanted?.join()) continue;
    throw cannotExport(
      `its parameters must be those of its configuration: ${name} ` +
        `[${given ?? "missing"}] instead of [${wanted ?? "none"}]`,
    );
  }
  for (const [name, tensor] of Object.entries(named)) {
    const values = tensor.dataSync();
    const at = values.findIndex((value) => !Number.isFinite(value));
    if (at < 0) continue;
    throw cannotExport(
      `every number of ${name} must be finite: ${values[at]} at ${at}`,
    );
  }
  const { groupSize, activations, weights } = options;
  if (!WEIGHTS.includes(weights)) {
    throw cannotExport(
      `weights must be one of ${WEIGHTS.join(", ")}: ${weights}`,
    );
  }
  if (!Number.isInteger(Math.log2(groupSize)) || groupSize < 16) {
    throw cannotExport(
      `groupSize must be a power of two from 16: ${groupSize}`,
    );
  }
  for (
    const [module, { scale, zeroPoint }] of Object.entries(activations ?? {})
  ) {
    const known = module === "lm_head" ||
      Object.hasOwn(shapes, `${module}.weight`);
    const fits = scale > 0 && Number.isFinite(scale) &&
      Number.isInteger(zeroPoint) && zeroPoint >= 0 && zeroPoint <= 255;
    if (known && fits) continue;
    throw cannotExport(
      `a range must have a module of the model, a positive scale and a zero point in 0 to 255: ` +
        `${module}, scale ${scale}, zero point ${zeroPoint}`,
    );
  }
}

/**
 * A language model as an ONNX graph with any batch and length.
 *
 * @param params Parameters whose shapes are those of the configuration.
 * @param config The shape of the model.
 * @param options How linear layers are computed, and whether there is a cache.
 * @returns What `writeOnnx` and `saveOnnx` take.
 * @throws {RangeError} If parameters, configuration and options do not fit together.
 *
 * @example
 * ```ts
 * const model = exportOnnx(params, config, { weights: "matmulnbits", cache: true });
 * model.graph.inputs[1].name; // "past_key_values.0.key"
 * model.graph.inputs[1].shape; // ["batch", 4, "past", 8]
 * ```
 */
export function exportOnnx(
  params: LlamaParams,
  config: LlamaConfig,
  options: ExportOnnxOptions = {},
): OnnxModel {
  const resolved = resolveConfig(config);
  const named = flatten(params);
  const build = new GraphBuilder();
  const context: Context = {
    build,
    config: resolved,
    named,
    options: { weights: "float32", groupSize: 32, ...options },
  };
  check(named, context);
  const { cache = false, weights = "float32" } = options;
  const { vocabSize, hiddenSize, numLayers } = resolved;
  const ids = ["batch", "sequence"];
  build.graph.inputs = [
    { name: "input_ids", dtype: "int64", shape: ids },
    ...(cache ? cacheValues(resolved, "past_key_values", "past") : []),
  ];
  build.graph.outputs = [
    { name: "logits", dtype: "float32", shape: [...ids, vocabSize] },
    ...(cache ? cacheValues(resolved, "present", "total") : []),
  ];

  const shared = positions(context);
  const table = build.constant(
    "model.embed_tokens.weight",
    "float32",
    [vocabSize, hiddenSize],
    valuesOf(named["model.embed_tokens.weight"]),
  );
  let x = build.op("Gather", [table, "input_ids"], "model.embed_tokens.output");
  for (let layer = 0; layer < numLayers; layer++) {
    const module = `model.layers.${layer}`;
    const n = rmsNorm(context, x, `${module}.input_layernorm`);
    const mixed = selfAttention(context, n, layer, shared);
    const middle = build.op("Add", [x, mixed], `${module}.middle`);
    const m = rmsNorm(context, middle, `${module}.post_attention_layernorm`);
    const fed = feedForward(context, m, layer);
    x = build.op("Add", [middle, fed], `${module}.output`);
  }
  const last = rmsNorm(context, x, "model.norm");
  const logits = linear(context, last, "lm_head");
  build.op("Identity", [logits], "logits");
  return {
    irVersion: IR_VERSION,
    opsets: { "": OPSET, ...(weights === "matmulnbits" && { [MICROSOFT]: 1 }) },
    producerName: "adiabat",
    graph: build.graph,
  };
}
