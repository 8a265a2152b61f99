/**
 * Differentiable operations of neural networks, fused.
 *
 * Each operation checks its arguments, then runs one kernel of ours on the wasm backend, or the stock
 * tfjs composition of the same name in reference.ts elsewhere. Gradients are computed only for the
 * inputs that need them: a frozen weight costs nothing in the backward pass.
 *
 * Notation: B batch, T query tokens, S key tokens, H query heads, G key and value heads, D width (of
 * a head in `attention` and `rope`), N rows, V vocabulary, C channels, K output channels.
 */
import { type Scalar, type Tensor, tf } from "./tensor.ts";
import { kernels } from "./kernels/bindings.ts";
import * as fused from "./fused.ts";
import * as reference from "./reference.ts";

export interface MatmulOptions {
  transposeA?: boolean;
  transposeB?: boolean;
}

/** Replaces a linear layer's product: LoRA, DoRA and the like. */
export interface Adapter {
  apply(
    x: Tensor,
    weight: Tensor,
    base: (x: Tensor, weight: Tensor) => Tensor,
  ): Tensor;
}

/** Rounds the weight, the input, or both, of a linear layer's product. */
export interface Quantizer {
  weight?(weight: Tensor): Tensor;
  activation?(x: Tensor): Tensor;
}

export interface LinearOptions {
  /** [out] */
  bias?: Tensor;
  adapter?: Adapter;
  quantizer?: Quantizer;
}

export interface NormOptions {
  /** Added to the variance or the mean square; default 1e-5. */
  eps?: number;
}

export interface GeluOptions {
  /** "none" is the error function, "tanh" the approximation of GPT-2. */
  approximate?: "none" | "tanh";
}

export interface RopeOptions {
  /** Base of the geometric progression of wavelengths; default 10000. */
  theta?: number;
  /** Position of the first token; default 0. */
  offset?: number;
  /** The D / 2 angular frequencies themselves, for scaled variants; default from theta. */
  frequencies?: ArrayLike<number>;
}

export interface AttentionOptions {
  /** Query t sees the keys s <= t + S - T; default true. */
  causal?: boolean;
  /**
   * [B, H, T, S] or broadcastable to it: bool (true: may see) or float (added to the scores, -Infinity hides).
   */
  mask?: Tensor;
  /** Factor of the scores; default 1 / sqrt(D). */
  scale?: number;
}

export interface CrossEntropyOptions {
  reduction?: "mean" | "none";
  /** Rows with this label count for nothing; default -1. */
  ignoreIndex?: number;
}

export interface KlDivergenceOptions {
  temperature?: number;
}

export interface FakeQuantOptions {
  /** Step between two levels: a number, or a tensor that broadcasts against x (per channel). */
  scale: number | Tensor;
  /** The code that stands for 0; default 0. */
  zeroPoint?: number | Tensor;
  qmin: number;
  qmax: number;
}

export interface Conv2dOptions {
  strides?: number;
  /** "same", "valid", or zeros on each side. */
  pad?: "same" | "valid" | number;
}

/** The operations of reference.ts, each inside a `tf.tidy`. */
const composed = Object.fromEntries(
  Object.entries(reference).map(([name, f]) => [
    name,
    (...args: unknown[]) =>
      tf.tidy(() => (f as (...args: unknown[]) => tf.TensorContainer)(...args)),
  ]),
) as unknown as typeof reference;

/** Our kernels where they run, else the compositions. */
function implementation(): typeof fused {
  return kernels() === null ? composed : fused;
}

const show = (x: Tensor) => `[${x.shape.join(", ")}]`;

function checkFloat(what: string, x: Tensor): void {
  if (x.dtype !== "float32") {
    throw new TypeError(
      `Cannot compute ${what} as it requires float32: ${x.dtype}`,
    );
  }
}

/**
 * Product of two matrices, or of two batches of them.
 *
 * A transposed operand is read as it lies in memory, and a matrix without a batch is shared by all of
 * the other's; so neither is ever copied.
 *
 * @param a [..., M, K], or [..., K, M] with `transposeA`
 * @param b [..., K, N], or [..., N, K] with `transposeB`
 * @returns [..., M, N]
 * @throws {RangeError} if the inner sizes differ
 * @example
 * ```ts
 * const a = tf.tensor2d([[1, 2], [3, 4]]);
 * assert.equal([...nn.matmul(a, a).dataSync()], [7, 10, 15, 22]);
 * ```
 */
export function matmul(
  a: Tensor,
  b: Tensor,
  options: MatmulOptions = {},
): Tensor {
  const { transposeA = false, transposeB = false } = options;
  checkFloat("matmul", a);
  checkFloat("matmul", b);
  const inner = a.shape[a.rank - (transposeA ? 2 : 1)];
  const other = b.shape[b.rank - (transposeB ? 1 : 2)];
  if (a.rank < 2 || b.rank < 2 || inner !== other) {
    throw new RangeError(
      `Cannot multiply as the inner sizes must agree: ${show(a)}${
        transposeA ? " transposed" : ""
      } by ${show(b)}${transposeB ? " transposed" : ""}`,
    );
  }
  return implementation().matmul(a, b, options);
}

/**
 * Sum of two tensors.
 *
 * As `a.add(b)`, but for equal shapes nothing is kept for the gradient, where tfjs copies both: use
 * it for the residual stream.
 */
export function add(a: Tensor, b: Tensor): Tensor {
  checkFloat("add", a);
  checkFloat("add", b);
  return tf.util.arraysEqual(a.shape, b.shape)
    ? implementation().add(a, b)
    : a.add(b);
}

/**
 * y = x W^T + b.
 *
 * The one linear layer of every model here: an adapter replaces the product, and a quantizer rounds
 * its operands (inside the adapter, around each base product), so a method is an argument and never a
 * second model.
 *
 * @param x [..., in]
 * @param weight [out, in], as in PyTorch
 * @returns [..., out]
 * @throws {RangeError} if the sizes of x, weight and bias do not fit
 * @example
 * ```ts
 * const x = tf.tensor2d([[1, 2]]);
 * const weight = tf.tensor2d([[1, 1], [0, 3], [-1, 0]]);
 * assert.equal([...nn.linear(x, weight).dataSync()], [3, 6, -1]);
 * ```
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  { bias, adapter, quantizer }: LinearOptions = {},
): Tensor {
  checkFloat("linear", x);
  checkFloat("linear", weight);
  if (weight.rank !== 2 || x.shape[x.rank - 1] !== weight.shape[1]) {
    throw new RangeError(
      `Cannot apply linear as x must end in the weight's second size: x ${
        show(x)
      }, weight ${show(weight)}`,
    );
  }
  if (
    bias !== undefined && (bias.rank !== 1 || bias.shape[0] !== weight.shape[0])
  ) {
    throw new RangeError(
      `Cannot apply linear as the bias must have the weight's first size: bias ${
        show(bias)
      }, weight ${show(weight)}`,
    );
  }
  if (adapter === undefined && quantizer === undefined) {
    return product(x, weight, bias);
  }
  const base = (input: Tensor, matrix: Tensor) =>
    product(
      quantizer?.activation?.(input) ?? input,
      quantizer?.weight?.(matrix) ?? matrix,
    );
  const y = adapter === undefined
    ? base(x, weight)
    : adapter.apply(x, weight, base);
  return bias === undefined ? y : y.add(bias);
}

function product(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  return implementation().linear(x, weight, bias);
}

function checkLast(what: string, x: Tensor, weight: Tensor): void {
  checkFloat(what, x);
  checkFloat(what, weight);
  if (weight.rank !== 1 || weight.shape[0] !== x.shape[x.rank - 1]) {
    throw new RangeError(
      `Cannot compute ${what} as its weights must have the last size of x: x ${
        show(x)
      }, weights ${show(weight)}`,
    );
  }
}

/**
 * y = x / sqrt(mean(x^2) + eps) * weight over the last axis (B. Zhang and R. Sennrich, "Root Mean
 * Square Layer Normalization", arXiv:1910.07467, Eq. 4; eps inside the root as in LLaMA).
 *
 * @param x [..., D]
 * @param weight [D]
 * @returns [..., D]
 */
export function rmsNorm(
  x: Tensor,
  weight: Tensor,
  { eps = 1e-5 }: NormOptions = {},
): Tensor {
  checkLast("rmsNorm", x, weight);
  return implementation().rmsNorm(x, weight, eps);
}

/**
 * y = (x - mean(x)) / sqrt(var(x) + eps) * gamma + beta over the last axis (J. L. Ba, J. R. Kiros and
 * G. E. Hinton, "Layer Normalization", arXiv:1607.06450, Eq. 4); the variance is the biased one.
 *
 * @param x [..., D]
 * @param gamma [D]
 * @param beta [D]
 * @returns [..., D]
 */
export function layerNorm(
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  { eps = 1e-5 }: NormOptions = {},
): Tensor {
  checkLast("layerNorm", x, gamma);
  checkLast("layerNorm", x, beta);
  return implementation().layerNorm(x, gamma, beta, eps);
}

/**
 * x Phi(x), Phi the standard normal distribution function (D. Hendrycks and K. Gimpel, "Gaussian
 * Error Linear Units", arXiv:1606.08415, section 2), or with `approximate: "tanh"` their
 * 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
 */
export function gelu(
  x: Tensor,
  { approximate = "none" }: GeluOptions = {},
): Tensor {
  checkFloat("gelu", x);
  return implementation().gelu(x, approximate);
}

/**
 * gate sigmoid(gate) up: the gated activation of LLaMA (N. Shazeer, "GLU Variants Improve
 * Transformer", arXiv:2002.05202, Eq. 6, without its matrices).
 *
 * @param gate any shape
 * @param up the same shape
 */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  checkFloat("swiglu", gate);
  checkFloat("swiglu", up);
  if (!tf.util.arraysEqual(gate.shape, up.shape)) {
    throw new RangeError(
      `Cannot compute swiglu as gate and up must have one shape: gate ${
        show(gate)
      }, up ${show(up)}`,
    );
  }
  return implementation().swiglu(gate, up);
}

/** theta^(-2 i / D) for i < D / 2. */
export function ropeFrequencies(dim: number, theta = 10000): Float64Array {
  return Float64Array.from(
    { length: dim / 2 },
    (_, i) => theta ** (-2 * i / dim),
  );
}

/**
 * Rotary position embedding (J. Su et al., "RoFormer", arXiv:2104.09864, Eq. 34).
 *
 * Number i < D / 2 of a head turns with number i + D / 2 ("rotate half", as in Hugging Face's models),
 * not with its neighbour as in the paper: the two are one permutation of the channels apart.
 *
 * (x_i, x_{i + D/2}) -> (x_i cos a - x_{i + D/2} sin a, x_{i + D/2} cos a + x_i sin a),
 * a = (t + offset) theta^(-2 i / D)
 *
 * @param x [B, T, H, D], D even
 * @returns [B, T, H, D]
 */
export function rope(
  x: Tensor,
  { theta = 10000, offset = 0, frequencies }: RopeOptions = {},
): Tensor {
  checkFloat("rope", x);
  if (x.rank !== 4 || x.shape[3]! % 2 !== 0) {
    throw new RangeError(
      `Cannot rotate as x must be [B, T, H, D] with D even: ${show(x)}`,
    );
  }
  return implementation().rope(
    x,
    frequencies ?? ropeFrequencies(x.shape[3]!, theta),
    offset,
  );
}

/**
 * softmax(scale Q K^T + mask) V for every head (A. Vaswani et al., "Attention Is All You Need",
 * arXiv:1706.03762, Eq. 1).
 *
 * Key head g serves the H / G query heads from g H / G on (J. Ainslie et al., arXiv:2305.13245). With
 * `causal`, query t sees the keys s <= t + S - T: the queries are the last T of S positions, as in
 * generation with a cache. A query that sees no key gives zeros.
 *
 * @param q [B, T, H, D]
 * @param k [B, S, G, D], G a divisor of H
 * @param v [B, S, G, D]
 * @returns [B, T, H, D]
 * @throws {RangeError} if the shapes do not fit
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { causal = true, mask, scale = 1 / Math.sqrt(q.shape[3]!) }:
    AttentionOptions = {},
): Tensor {
  for (const x of [q, k, v]) checkFloat("attention", x);
  const [B, T, H, D] = q.shape;
  const [Bk, S, G, Dk] = k.shape;
  if (
    q.rank !== 4 || k.rank !== 4 || B !== Bk || D !== Dk || H % G !== 0 ||
    !tf.util.arraysEqual(k.shape, v.shape)
  ) {
    throw new RangeError(
      "Cannot attend as q must be [B, T, H, D], k and v [B, S, G, D] with H a multiple of G: " +
        `q ${show(q)}, k ${show(k)}, v ${show(v)}`,
    );
  }
  if (causal && S < T) {
    throw new RangeError(
      `Cannot attend causally as there must be no fewer keys than queries: ${S} keys, ${T} queries`,
    );
  }
  if (mask !== undefined) {
    const full = [B, H, T, S];
    const sizes = mask.shape;
    if (
      sizes.length > 4 || (mask.dtype !== "bool" && mask.dtype !== "float32") ||
      sizes.some((size, i) =>
        size !== 1 && size !== full.slice(-sizes.length)[i]
      )
    ) {
      throw new RangeError(
        `Cannot attend as the mask must be bool or float32 and broadcast to [${
          full.join(", ")
        }]: ${mask.dtype} ${show(mask)}`,
      );
    }
  }
  return implementation().attention(q, k, v, { causal, mask, scale });
}

/**
 * log(sum_v exp(logits_v)) - logits_label: the mean over the rows that count, or each row's.
 *
 * @param logits [N, V]
 * @param labels int32 [N], in [0, V) or `ignoreIndex`
 * @returns a scalar; [N] with `reduction: "none"`, 0 where ignored. The mean of no rows is 0.
 * @throws {RangeError} if a label is out of range (with our kernels)
 * @example
 * ```ts
 * const logits = tf.tensor2d([[0, 0, 0, 0]]);
 * const loss = nn.crossEntropy(logits, tf.tensor1d([2], "int32"));
 * assert.ok(Math.abs(loss.dataSync()[0] - Math.log(4)) < 1e-6);
 * ```
 */
export function crossEntropy(
  logits: Tensor,
  labels: Tensor,
  options: CrossEntropyOptions & { reduction: "none" },
): Tensor;
export function crossEntropy(
  logits: Tensor,
  labels: Tensor,
  options?: CrossEntropyOptions & { reduction?: "mean" },
): Scalar;
export function crossEntropy(
  logits: Tensor,
  labels: Tensor,
  { reduction = "mean", ignoreIndex = -1 }: CrossEntropyOptions = {},
): Tensor {
  checkFloat("crossEntropy", logits);
  if (
    logits.rank !== 2 || labels.rank !== 1 || labels.dtype !== "int32" ||
    labels.shape[0] !== logits.shape[0]
  ) {
    throw new RangeError(
      "Cannot compute the cross entropy as logits must be float32 [N, V] and labels int32 [N]: " +
        `logits ${show(logits)}, labels ${labels.dtype} ${show(labels)}`,
    );
  }
  return implementation().crossEntropy(logits, labels, {
    reduction,
    ignoreIndex,
  });
}

/**
 * KL(target || softmax(logits / temperature)), the mean over rows.
 *
 * The distillation loss of G. Hinton, O. Vinyals and J. Dean, arXiv:1503.02531, section 2, up to the
 * teacher's entropy; multiply by temperature^2 to keep its gradient comparable with a hard loss, as
 * they advise. The target is a constant.
 *
 * @param logits [N, V]
 * @param target [N, V], rows of probabilities; 0 log 0 = 0
 */
export function klDivergence(
  logits: Tensor,
  target: Tensor,
  { temperature = 1 }: KlDivergenceOptions = {},
): Scalar {
  checkFloat("klDivergence", logits);
  if (logits.rank !== 2 || !tf.util.arraysEqual(logits.shape, target.shape)) {
    throw new RangeError(
      `Cannot compute the divergence as logits and target must both be [N, V]: logits ${
        show(logits)
      }, target ${show(target)}`,
    );
  }
  checkFloat("klDivergence", target);
  if (!(temperature > 0)) {
    throw new RangeError(
      `Cannot compute the divergence as the temperature must be positive: ${temperature}`,
    );
  }
  return implementation().klDivergence(logits, target, temperature) as Scalar;
}

/**
 * Rows of a table. The gradient adds the rows of repeated ids in their order, so it is the same, bit
 * by bit, every time.
 *
 * @param ids int32, any shape, in [0, V)
 * @param table [V, D]
 * @returns [...ids, D]
 * @throws {RangeError} if an id is out of range (with our kernels)
 */
export function embedding(ids: Tensor, table: Tensor): Tensor {
  checkFloat("embedding", table);
  if (ids.dtype !== "int32" || table.rank !== 2) {
    throw new TypeError(
      "Cannot look up as ids must be int32 and the table float32 [V, D]: " +
        `ids ${ids.dtype} ${show(ids)}, table ${show(table)}`,
    );
  }
  return implementation().embedding(ids, table);
}

/**
 * scale (clamp(round(x / scale) + zeroPoint, qmin, qmax) - zeroPoint): x on the grid of a quantizer.
 *
 * Rounding (half to even) has no useful derivative, so the gradient is a stated rule: to x it passes
 * where the code lies in [qmin, qmax] and is 0 elsewhere (straight-through, Y. Bengio et al.,
 * arXiv:1308.3432, as in PyTorch's fake_quantize); to a scale tensor it is
 * round(x / scale) - x / scale inside and qmin or qmax minus zeroPoint outside (S. K. Esser et al.,
 * "Learned Step Size Quantization", arXiv:1902.08153, Eq. 3; their factor of the gradient is the
 * caller's). The zero point has no gradient.
 *
 * @param x any shape
 * @returns the shape of x
 * @example
 * ```ts
 * const x = tf.tensor1d([0.26, -3, 0.9]);
 * const y = nn.fakeQuant(x, { scale: 0.5, qmin: -2, qmax: 1 });
 * assert.equal([...y.dataSync()], [0.5, -1, 0.5]);
 * ```
 */
export function fakeQuant(
  x: Tensor,
  { scale, zeroPoint = 0, qmin, qmax }: FakeQuantOptions,
): Tensor {
  checkFloat("fakeQuant", x);
  if (!(qmin < qmax)) {
    throw new RangeError(
      `Cannot quantize as qmin must be below qmax: qmin ${qmin}, qmax ${qmax}`,
    );
  }
  if (typeof scale === "number" && !(scale > 0)) {
    throw new RangeError(
      `Cannot quantize as the scale must be positive: ${scale}`,
    );
  }
  const made: Tensor[] = [];
  const asTensor = (value: number | Tensor) => {
    if (typeof value !== "number") return value;
    const constant = tf.scalar(value);
    made.push(constant);
    return constant;
  };
  const range = { qmin, qmax };
  const y = implementation().fakeQuant(
    x,
    asTensor(scale),
    asTensor(zeroPoint),
    range,
  );
  for (const constant of made) constant.dispose();
  return y;
}

/**
 * Convolution (cross-correlation, as everywhere) of images with a filter.
 *
 * Each image is unfolded into its patches, and the convolution is one matrix product.
 *
 * @param x [B, height, width, C]
 * @param filter [h, w, C, K]
 * @returns [B, outHeight, outWidth, K]
 */
export function conv2d(
  x: Tensor,
  filter: Tensor,
  { strides = 1, pad = "valid" }: Conv2dOptions = {},
): Tensor {
  checkFloat("conv2d", x);
  checkFloat("conv2d", filter);
  if (x.rank !== 4 || filter.rank !== 4 || x.shape[3] !== filter.shape[2]) {
    throw new RangeError(
      "Cannot convolve as x must be [B, height, width, C] and the filter [h, w, C, K]: " +
        `x ${show(x)}, filter ${show(filter)}`,
    );
  }
  if (!Number.isInteger(strides) || strides < 1) {
    throw new RangeError(
      `Cannot convolve as strides must be a positive integer: ${strides}`,
    );
  }
  const options = { strides, pad };
  const sizes = reference.convSizes(x.shape, filter.shape, options);
  if (!(sizes.outHeight >= 1 && sizes.outWidth >= 1)) {
    throw new RangeError(
      `Cannot convolve as the filter must fit into the padded image: x ${
        show(x)
      }, filter ${show(filter)}, pad ${pad}`,
    );
  }
  return implementation().conv2d(x, filter, options);
}
