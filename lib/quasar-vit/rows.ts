/**
 * Row-wise mixed precision: rows of 4 and of 8 bits in one weight, 6-bit activations.
 *
 * Li et al., "Quasar-ViT", ICS 2024, arXiv 2407.18175. That precision differs between rows (output channels) of a layer is the
 * paper's; the quantizer's formula was not read. Symmetric codes with one scale per row are recalled from the same group's
 * FILM-QNN and Auto-ViT-Acc:
 *
 *     s_m = max_n |W_mn| / (2^(b - 1) - 1),  Q(W_m) = s_m clip(round(W_m / s_m)),  b = 8 for the first n8 = round(r M) rows, else 4
 *
 * The first rows are the precise ones (assumed), so that a larger ratio keeps the rows of a smaller one: precision nests as widths
 * do. Gradients pass straight through everywhere: scales come from the largest weight, so nothing is clipped, and a test of the
 * range would cut off that weight's own gradient when its code is off by the last bit of a float.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | W | weight | [M, N] |
 * | r | ratio8 | share of 8-bit rows |
 *
 * Scope: composed of the parts of `core/quantizer.ts`.
 */
import {
  absMax,
  asymmetric,
  estimated,
  everywhere,
  fakeQuantize,
  grid,
  minMax,
  type Quantization,
  quantizeCodes,
} from "../core/quantizer.ts";
import type { Quantizer } from "../core/nn.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import type { MixedRows } from "./engine.ts";
import { ACTIVATION_BITS } from "./packing.ts";
import { rows8 } from "./workload.ts";

/** One scale per row, codes without the lowest one, so that they are symmetric. */
function rowParts(bits: 4 | 8): Quantization {
  return {
    grid: grid({ bits, narrow: true }),
    granularity: { channel: 0 },
    calibration: estimated(absMax),
    through: everywhere,
  };
}

/**
 * Activations: one scale and a whole offset per tensor, so that signed numbers and those from 0 use all 64 codes.
 *
 * The engine's words take codes of either sign; the offset is a sum per row of the weight, added to the bias.
 */
const ACTIVATIONS: Quantization = {
  grid: grid({ bits: ACTIVATION_BITS }),
  calibration: estimated(minMax, asymmetric),
  through: everywhere,
};

function checkRatio(ratio8: number): void {
  if (ratio8 >= 0 && ratio8 <= 1) return;
  throw new RangeError(
    `Cannot mix precisions as ratio8 must be in [0, 1]: ${ratio8}`,
  );
}

function checkMatrix(weight: Tensor): void {
  if (weight.rank === 2) return;
  throw new RangeError(
    `Cannot mix precisions by row as the weight must be [rows, columns]: [${
      weight.shape.join(", ")
    }]`,
  );
}

/** The rows of 8 and of 4 bits, either of which may be none. */
function parts(weight: Tensor, ratio8: number): [Tensor, 4 | 8][] {
  checkMatrix(weight);
  checkRatio(ratio8);
  const [M, N] = weight.shape;
  const n8 = rows8(M, ratio8);
  if (n8 === 0) return [[weight, 4]];
  if (n8 === M) return [[weight, 8]];
  return [
    [weight.slice([0, 0], [n8, N]), 8],
    [weight.slice([n8, 0], [M - n8, N]), 4],
  ];
}

/**
 * The weight on the grids of its rows, with straight-through gradients.
 *
 * @param weight [M, N]
 * @param ratio8 share of rows with 8 bits, [0, 1]
 * @returns [M, N]
 * @example
 * ```ts
 * const weight = tf.tensor2d([[7, 1.2], [7, 1.2]]);
 * const y = quasarVit.quantizeRows(weight, 0.5).dataSync();
 * assert.ok(Math.abs(y[1] - 1.2) < 0.03);
 * assert.is(y[3], 1);
 * ```
 */
export function quantizeRows(weight: Tensor, ratio8: number): Tensor {
  const mixed = parts(weight, ratio8).map(([rows, bits]) =>
    fakeQuantize(rows, rowParts(bits))
  );
  return mixed.length === 1 ? mixed[0] : tf.concat(mixed, 0);
}

/** Rounding of a layer's operands, for `nn.linear` and every backbone that takes a quantizer. */
export function rowQuantizer(ratio8: number): Quantizer {
  checkRatio(ratio8);
  return {
    weight: (weight) => quantizeRows(weight, ratio8),
    activation: (x) => fakeQuantize(x, ACTIVATIONS),
  };
}

/** Codes of a weight for the engine, with the step of each row. */
export function rowCodes(
  weight: Tensor,
  ratio8: number,
  name = "a weight",
): MixedRows & { scale: Float32Array } {
  const [M, N] = weight.shape;
  tf.engine().startScope();
  try {
    const codes = new Int8Array(M * N);
    const scale = new Float32Array(M);
    const bits = new Uint8Array(M);
    let row = 0;
    for (const [rows, b] of parts(weight, ratio8)) {
      const own = quantizeCodes(rows, rowParts(b), name);
      codes.set(own.codes, row * N);
      scale.set(own.scale, row);
      bits.fill(b, row, row + rows.shape[0]);
      row += rows.shape[0];
    }
    return { codes, bits, outputs: M, inputs: N, scale };
  } finally {
    tf.engine().endScope();
  }
}

/** Codes of activations for the engine, with their step and offset: x = scale (code - zeroPoint). */
export function activationCodes(
  x: Tensor,
  name = "activations",
): { codes: Int8Array | Uint8Array; scale: number; zeroPoint: number } {
  const { codes, scale, zeroPoint } = quantizeCodes(x, ACTIVATIONS, name);
  return { codes, scale: scale[0], zeroPoint: zeroPoint[0] };
}
