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
  if (weight.rank !== 1 || weight.shape[0] !== x.shape[x.rank - 1]) {
    throw new RangeError(
      `Cannot compute ${what} as its weights must have the last size of x: x ${
        show(x)
      }, weights ${show(weight)}`,
    );
  }
}

export function rmsNorm(
  x: Tensor,
  weight: Tensor,
  { eps = 1e-5 }: NormOptions = {},
): Tensor {
  checkLast("rmsNorm", x, weight);
  return implementation().rmsNorm(x, weight, eps);
}

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

export function gelu(
  x: Tensor,
  { approximate = "none" }: GeluOptions = {},
): Tensor {
  checkFloat("gelu", x);
  return implementation().gelu(x, approximate);
}

export function swiglu(gate: Tensor, up: Tensor): Tensor {
  checkFloat("swiglu", gate);
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

export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { causal = true, mask, scale = 1 / Math.sqrt(q.shape[3]!) }:
    AttentionOptions = {},
): Tensor {
  checkFloat("attention", q);
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
  return implementation().attention(q, k, v, { causal, mask, scale });
}

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
  return implementation().klDivergence(logits, target, temperature) as Scalar;
}

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

export function conv2d(
  x: Tensor,
  filter: Tensor,
  { strides = 1, pad = "valid" }: Conv2dOptions = {},
): Tensor {
  checkFloat("conv2d", x);
  if (x.rank !== 4 || filter.rank !== 4 || x.shape[3] !== filter.shape[2]) {
    throw new RangeError(
      "Cannot convolve as x must be [B, height, width, C] and the filter [h, w, C, K]: " +
        `x ${show(x)}, filter ${show(filter)}`,
    );
  }
  return implementation().conv2d(x, filter, { strides, pad });
}
