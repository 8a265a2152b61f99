/**
 * Linear layers of a model in the engine's memory, in float32 or in integers behind one interface.
 *
 * What a layer reads is prepared once for all layers that read it (queries, keys and values; gate and up):
 * in integers that is where activations are quantised.
 *
 * Notation: M rows (tokens), N outputs, K depth (inputs). Pointers are byte offsets.
 */
import {
  type ActivationOptions,
  type Format,
  type IntegerEngine,
  intsAt,
  linear,
  type PackedActivations,
  packWeights,
  putFloats,
  quantizeActivations,
} from "./bindings.ts";
import type { FloatKernels } from "./floats.ts";

/** Rows of float32 as the layers behind one input read them. */
export interface LayerInput {
  /** float32 [M, K] */
  x: number;
  /** M. */
  rows: number;
  /** Codes, of layers in integers: all rows, or groups of rows that have bits of their own. */
  packed?: PackedActivations[];
}

/** A linear layer with its weights in place. */
export interface Layer {
  outputs: number;
  depth: number;
  /** How it is stored and multiplied: "float32" or a format of integers. */
  format: "float32" | Format;
  /** Bytes that it reads: codes, scales, zero points, sums, bias. */
  sizeBytes: number;
  /** y = x W^T + bias, float32 [M, N]. */
  run(input: LayerInput, y: number): void;
}

/** Codes of a matrix [N, K]: w = scale (code - zeroPoint). */
export interface WeightCodes {
  codes: Int8Array | Uint8Array;
  /** One number, [N], or with groups [N, groups]. */
  scale: ArrayLike<number>;
  zeroPoint?: ArrayLike<number>;
  /** k of a group. */
  groupSize?: number;
}

/** Adds a bias, if there is one, to every row. */
function addBias(
  { kernels }: FloatKernels,
  bias: number,
  y: number,
  rows: number,
  outputs: number,
): void {
  if (bias === 0) return;
  for (let i = 0; i < rows; i++) {
    kernels.accumulate(bias, y + 4 * i * outputs, outputs);
  }
}

/** A layer in float32; its weights [N, K] lie at a pointer, or are copied. */
export function floatLayer(
  engine: IntegerEngine,
  floats: FloatKernels,
  weight: Float32Array | number,
  outputs: number,
  depth: number,
  bias?: Float32Array,
): Layer {
  const pointer = typeof weight === "number"
    ? weight
    : putFloats(engine, weight);
  const biases = bias === undefined ? 0 : putFloats(engine, bias);
  const [N, K] = [outputs, depth];
  return {
    outputs,
    depth,
    format: "float32",
    sizeBytes: 4 * (N * K + (bias?.length ?? 0)),
    run({ x, rows }, y) {
      floats.sgemm(true, rows, N, K, x, K, pointer, K, y, N);
      addBias(floats, biases, y, rows, N);
    },
  };
}

/** A layer in integers; its input must have been prepared with the same format. */
export function integerLayer(
  engine: IntegerEngine,
  format: Format,
  { codes, scale, zeroPoint = [0], groupSize }: WeightCodes,
  outputs: number,
  depth: number,
  bias?: Float32Array,
): Layer {
  const one = (values: ArrayLike<number>) =>
    values.length === 1 ? values[0] : values;
  const weights = packWeights(engine, codes, outputs, depth, {
    format,
    scale: one(scale),
    zeroPoint: one(zeroPoint),
    groupSize,
    bias,
  });
  return {
    outputs,
    depth,
    format,
    sizeBytes: weights.sizeBytes,
    run({ packed }, y) {
      for (const group of packed!) linear(engine, group, weights, y);
    },
  };
}

/**
 * Prepares the input of the layers behind one site.
 *
 * @param important 1 for rows that get more bits; without it every row gets them
 */
export type Prepare = (
  x: number,
  rows: number,
  depth: number,
  important?: Uint8Array,
) => LayerInput;

/** For layers in float32. */
export const prepareFloats: Prepare = (x, rows) => ({ x, rows });

/** For layers in integers: quantises every row. */
export function prepareIntegers(
  engine: IntegerEngine,
  options: ActivationOptions,
): Prepare {
  return (x, rows, depth) => ({
    x,
    rows,
    packed: [quantizeActivations(engine, x, rows, depth, options)],
  });
}

/** For layers in integers whose rows have bits by their importance: each group is a matrix of its own. */
export function prepareMixed(
  engine: IntegerEngine,
  low: ActivationOptions,
  high: ActivationOptions,
): Prepare {
  const every = prepareIntegers(engine, high);
  return (x, rows, depth, important) => {
    if (important === undefined) return every(x, rows, depth);
    const groups = [low, high].map((options, which) => ({
      options,
      members: Array.from(important.keys())
        .filter((i) => (important[i] !== 0) === (which === 1)),
    }));
    return {
      x,
      rows,
      packed: groups
        .filter(({ members }) => members.length > 0)
        .map(({ options, members }) => {
          const order = engine.allocate(4 * members.length);
          intsAt(engine, order, members.length).set(members);
          const count = members.length;
          const all = { ...options, order };
          return quantizeActivations(engine, x, count, depth, all);
        }),
    };
  };
}
