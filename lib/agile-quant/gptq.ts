/**
 * Agile-Quant: activation-guided quantisation for faster inference of language models on the edge.
 *
 * X. Shen, P. Dong, L. Lu, Z. Kong, Z. Li, M. Lin, C. Wu, Y. Wang, AAAI 2024, arXiv 2312.05693.
 *
 * Weights get 4 bits by GPTQ; activations 8 or 4, chosen by what a site costs. GPTQ (E. Frantar, S. Ashkboos,
 * T. Hoefler, D. Alistarh, arXiv 2210.17323) rounds the weights of a row one after the other and lets those not
 * yet rounded make up for each error, as far as the layer's inputs X allow: it lowers |W X - What X|^2,
 * not |W - What|^2.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | W, What | weight, dequantized | [out, in] |
 * | H = 2 X X^T | hessian | [in, in], over calibration inputs |
 * | lambda | dampening | share of the mean of H's diagonal |
 *
 * Scope: GPTQ of one matrix, on the host in double precision.
 */

import { roundHalfEven } from "../core/quantizer.ts";

/** Settings of the released run: 4 bits, groups of 128, 0.01, sensitive columns first. */
export interface GptqOptions {
  /** 2 to 8; the paper's is 4. */
  bits?: number;
  /** Neighbouring inputs that share a scale and a zero point; it divides the inputs. Default all. */
  groupSize?: number;
  /** Added to the diagonal, as a share of its mean. */
  dampening?: number;
  /** Columns as they stand, or those of the greatest H_ii first ("act-order"). */
  order?: "given" | "activation";
  /** Of the tensor, for errors. */
  name?: string;
}

/** A weight in codes: What_ij = scale (code - zeroPoint), scale and zero point of row i and group of j. */
export interface GptqResult {
  /** [out, in], 0 to 2^bits - 1. */
  codes: Uint8Array;
  /** [out, groups] */
  scale: Float32Array;
  /** [out, groups], whole numbers. */
  zeroPoint: Int32Array;
  /** [out, in] */
  dequantized: Float32Array;
  /** sum over rows of (w - what) H (w - what)^T / 2, which is |W X - What X|^2. */
  error: number;
}

/**
 * H = 2 X X^T of inputs that are rows: the second derivative of |w X - what X|^2 (GPTQ, section 3.1).
 *
 * @param x [tokens, inputs], every token of the calibration set
 * @returns [inputs, inputs]
 * @throws {RangeError} if there is no token, or a number is NaN or infinite
 */
export function hessian(x: Float32Array, inputs: number): Float64Array {
  if (x.length === 0 || x.length % inputs !== 0) {
    throw new RangeError(
      `Cannot compute a Hessian as there must be one or more rows of ${inputs} inputs: ${x.length} numbers`,
    );
  }
  checkFinite("calibration inputs", x);
  const h = new Float64Array(inputs * inputs);
  for (let t = 0; t < x.length; t += inputs) {
    for (let i = 0; i < inputs; i++) {
      const twice = 2 * x[t + i];
      if (twice === 0) continue;
      for (let j = i; j < inputs; j++) h[i * inputs + j] += twice * x[t + j];
    }
  }
  for (let i = 0; i < inputs; i++) {
    for (let j = 0; j < i; j++) h[i * inputs + j] = h[j * inputs + i];
  }
  return h;
}

function checkFinite(what: string, values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) {
      throw new RangeError(
        `Cannot quantise ${what} as every number must be finite: ${
          values[i]
        } at ${i}`,
      );
    }
  }
}

/** Lower triangular L with L L^T = a, or null if a is not positive definite. */
function cholesky(a: Float64Array, n: number): Float64Array | null {
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j];
      for (let k = 0; k < j; k++) sum -= l[i * n + k] * l[j * n + k];
      if (i === j) {
        if (!(sum > 0)) return null;
        l[i * n + i] = Math.sqrt(sum);
      } else l[i * n + j] = sum / l[j * n + j];
    }
  }
  return l;
}

/** The inverse of l l^T, l lower triangular. */
function inverseOf(l: Float64Array, n: number): Float64Array {
  const m = new Float64Array(n * n); // l^-1
  for (let j = 0; j < n; j++) {
    m[j * n + j] = 1 / l[j * n + j];
    for (let i = j + 1; i < n; i++) {
      let sum = 0;
      for (let k = j; k < i; k++) sum -= l[i * n + k] * m[k * n + j];
      m[i * n + j] = sum / l[i * n + i];
    }
  }
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let k = i; k < n; k++) sum += m[k * n + i] * m[k * n + j];
      inverse[i * n + j] = inverse[j * n + i] = sum;
    }
  }
  return inverse;
}

/**
 * Upper triangular U with U^T U = H^-1, whose rows hold all that GPTQ needs of the inverses of H's trailing
 * parts (GPTQ, section 3.3, step 3).
 */
function inverseFactor(
  h: Float64Array,
  n: number,
  name: string,
): Float64Array {
  const l = cholesky(h, n);
  const u = l === null ? null : cholesky(inverseOf(l, n), n);
  if (u === null) {
    throw new RangeError(
      `Cannot quantise ${name} as its dampened Hessian must be positive definite: raise the dampening`,
    );
  }
  const upper = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) upper[j * n + i] = u[i * n + j];
  }
  return upper;
}

/**
 * Asymmetric step of numbers: scale = (max - min) / (2^bits - 1), zeroPoint = round(-min / scale), 0 in range
 * (released code, quantizer of GPTQ).
 */
function asymmetricStep(
  values: Float64Array,
  qmax: number,
): [scale: number, zeroPoint: number] {
  let low = 0;
  let high = 0;
  for (const v of values) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (low === high) return [1, 0];
  const scale = Math.fround((high - low) / qmax);
  return [scale, Math.min(qmax, roundHalfEven(-low / scale))];
}

/**
 * GPTQ: a weight matrix in codes that keeps W X, by steps of Optimal Brain Quantization in one fixed order.
 *
 * For column q in that order, for all rows at once, with the rounding error e = (w_q - what_q) / U_qq:
 *
 *     w_j <- w_j - e U_qj   for all j behind q             (Eq. 2 of arXiv 2210.17323 by U^T U = H^-1)
 *
 * The scales of a group are set when its first column is reached, from the weights as they are by then; with
 * `order: "activation"` and groups, from the original weights, as columns of a group are not neighbours in time.
 * An input that is always 0 has H_ii = 0: its weights do not matter, and are set to 0.
 *
 * @param weight [out, in]
 * @param hessian [in, in], see `hessian`
 * @throws {RangeError} if sizes, bits or group do not fit, a number is NaN or infinite, or H is not positive
 * definite after dampening
 * @example
 * ```ts
 * const identity = Float64Array.of(1, 0, 0, 1);
 * const { codes } = gptq(Float32Array.of(0, 1.5, -1, 0.5), identity, { bits: 2 });
 * assert.equal([...codes], [0, 3, 0, 3]);
 * ```
 */
export function gptq(
  weight: Float32Array,
  hessian: Float64Array,
  {
    bits = 4,
    groupSize,
    dampening = 0.01,
    order = "activation",
    name = "a weight",
  }: GptqOptions = {},
): GptqResult {
  const n = Math.round(Math.sqrt(hessian.length));
  if (n === 0 || n * n !== hessian.length || weight.length % n !== 0) {
    throw new RangeError(
      `Cannot quantise ${name} as the Hessian must be [in, in] of a weight [out, in]: ${hessian.length} and ${weight.length} numbers`,
    );
  }
  if (!(Number.isInteger(bits) && bits >= 2 && bits <= 8)) {
    throw new RangeError(
      `Cannot quantise ${name} as bits must be 2 to 8: bits ${bits}`,
    );
  }
  const group = groupSize ?? n;
  if (!(Number.isInteger(group) && group > 0 && n % group === 0)) {
    throw new RangeError(
      `Cannot quantise ${name} as the group size must divide the inputs: group size ${group}, inputs ${n}`,
    );
  }
  if (!(dampening >= 0 && dampening < Infinity)) {
    throw new RangeError(
      `Cannot quantise ${name} as the dampening must not be negative: ${dampening}`,
    );
  }
  checkFinite(name, weight);
  checkFinite(`${name} with its Hessian`, hessian);

  const rows = weight.length / n;
  const groups = n / group;
  const qmax = 2 ** bits - 1;
  const w = Float64Array.from(weight);
  const h = hessian.slice();
  let trace = 0;
  for (let i = 0; i < n; i++) {
    if (h[i * n + i] === 0) {
      h[i * n + i] = 1;
      for (let r = 0; r < rows; r++) w[r * n + i] = 0;
    }
    trace += h[i * n + i];
  }
  for (let i = 0; i < n; i++) h[i * n + i] += dampening * trace / n;

  const columns = Array.from({ length: n }, (_, i) => i);
  if (order === "activation") {
    columns.sort((a, b) => h[b * n + b] - h[a * n + a] || a - b);
  }
  const permuted = new Float64Array(n * n);
  columns.forEach((a, i) =>
    columns.forEach((b, j) => permuted[i * n + j] = h[a * n + b])
  );
  const u = inverseFactor(permuted, n, name);

  const codes = new Uint8Array(w.length);
  const dequantized = new Float32Array(w.length);
  const scale = new Float32Array(rows * groups);
  const zeroPoint = new Int32Array(rows * groups);
  const setGroup = (r: number, g: number) => {
    const at = r * n + g * group;
    const own = r * groups + g;
    [scale[own], zeroPoint[own]] = asymmetricStep(
      w.subarray(at, at + group),
      qmax,
    );
  };
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < groups; g++) setGroup(r, g);
  }
  for (let i = 0; i < n; i++) {
    const column = columns[i];
    const g = Math.floor(column / group);
    const fresh = order === "given" && column % group === 0;
    for (let r = 0; r < rows; r++) {
      if (fresh) setGroup(r, g);
      const at = r * n + column;
      const own = r * groups + g;
      const code = Math.min(
        qmax,
        Math.max(0, roundHalfEven(w[at] / scale[own]) + zeroPoint[own]),
      );
      codes[at] = code;
      dequantized[at] = scale[own] * (code - zeroPoint[own]);
      const e = (w[at] - dequantized[at]) / u[i * n + i];
      // w_j <- w_j - e U_qj
      for (let j = i + 1; j < n; j++) w[r * n + columns[j]] -= e * u[i * n + j];
    }
  }
  return {
    codes,
    scale,
    zeroPoint,
    dequantized,
    error: outputError(weight, dequantized, hessian),
  };
}

/** sum over rows of d H d^T / 2, d = w - what: |W X - What X|^2 over the inputs of H. */
export function outputError(
  weight: Float32Array,
  dequantized: Float32Array,
  hessian: Float64Array,
): number {
  const n = Math.round(Math.sqrt(hessian.length));
  let total = 0;
  for (let r = 0; r < weight.length; r += n) {
    for (let i = 0; i < n; i++) {
      const di = weight[r + i] - dequantized[r + i];
      for (let j = 0; j < n; j++) {
        total += di * hessian[i * n + j] *
          (weight[r + j] - dequantized[r + j]);
      }
    }
  }
  return total / 2;
}
