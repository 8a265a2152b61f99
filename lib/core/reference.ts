/**
 * The operations of nn.ts, composed from stock tfjs operations.
 *
 * They are what runs where our kernels are not (native, cpu and stock wasm backends), and the oracle
 * that the kernels are tested against; so they are written to be read, not to be fast. nn.ts holds
 * the documentation and the argument checks: call that.
 *
 * Notation: B batch, T query tokens, S key tokens, H heads, D head width, N rows, V vocabulary,
 * C channels.
 */
import { type Tensor, tf } from "./tensor.ts";
import type {
  AttentionOptions,
  Conv2dOptions,
  CrossEntropyOptions,
  FakeQuantOptions,
  MatmulOptions,
} from "./nn.ts";

/** A finite stand-in for minus infinity: its exponential is zero, and it makes no NaN. */
const HIDDEN_SCORE = -1e30;

/** What f makes of the tensors, as a constant: the value passes, no gradient does. */
function constant(f: (...xs: Tensor[]) => Tensor, ...xs: Tensor[]): Tensor {
  return tf.customGrad((...args) => ({
    value: f(...args.slice(0, xs.length) as Tensor[]),
    gradFunc: () => xs.map((x) => tf.zerosLike(x)),
  }))(...xs);
}

export function matmul(
  a: Tensor,
  b: Tensor,
  { transposeA = false, transposeB = false }: MatmulOptions = {},
): Tensor {
  if (b.rank === 2 && a.rank > 2 && !transposeA) {
    const rows = a.reshape([-1, a.shape[a.rank - 1]]);
    const out = tf.matMul(rows, b, false, transposeB);
    return out.reshape([...a.shape.slice(0, -1), out.shape[1]!]);
  }
  // tf.matMul broadcasts batches, but its gradient does not sum over them: broadcast first.
  const batch = tf.broadcast_util.assertAndGetBroadcastShape(
    a.shape.slice(0, -2),
    b.shape.slice(0, -2),
  );
  const whole = (x: Tensor) =>
    tf.util.arraysEqual(x.shape.slice(0, -2), batch)
      ? x
      : x.mul(tf.ones([...batch, 1, 1]));
  return tf.matMul(whole(a), whole(b), transposeA, transposeB);
}

export function add(a: Tensor, b: Tensor): Tensor {
  return a.add(b);
}

/** y = x W^T + b. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const y = matmul(x, weight, { transposeB: true });
  return bias === undefined ? y : y.add(bias);
}

export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  const meanSquare = x.square().mean(-1, true);
  return x.mul(meanSquare.add(eps).rsqrt()).mul(weight);
}

export function layerNorm(
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  eps: number,
): Tensor {
  const centred = x.sub(x.mean(-1, true));
  const variance = centred.square().mean(-1, true);
  return centred.mul(variance.add(eps).rsqrt()).mul(gamma).add(beta);
}

export function gelu(x: Tensor, approximate: "none" | "tanh"): Tensor {
  const inner = approximate === "none"
    ? x.mul(Math.SQRT1_2).erf()
    : x.add(x.mul(x).mul(x).mul(0.044715)).mul(Math.sqrt(2 / Math.PI)).tanh();
  return x.mul(0.5).mul(inner.add(1));
}

export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return gate.mul(gate.sigmoid()).mul(up);
}

/** Cosine and sine of position times frequency, each [T, D / 2]. */
export function ropeTables(
  length: number,
  frequencies: ArrayLike<number>,
  offset: number,
): { cos: Float32Array; sin: Float32Array } {
  const half = frequencies.length;
  const cos = new Float32Array(length * half); // [T, D / 2]
  const sin = new Float32Array(length * half); // [T, D / 2]
  for (let t = 0; t < length; t++) {
    for (let i = 0; i < half; i++) {
      const angle = (t + offset) * frequencies[i];
      cos[t * half + i] = Math.cos(angle);
      sin[t * half + i] = Math.sin(angle);
    }
  }
  return { cos, sin };
}

export function rope(
  x: Tensor,
  frequencies: ArrayLike<number>,
  offset: number,
): Tensor {
  const [, T, , D] = x.shape;
  const tables = ropeTables(T, frequencies, offset);
  const cos = tf.tensor(tables.cos, [1, T, 1, D / 2]);
  const sin = tf.tensor(tables.sin, [1, T, 1, D / 2]);
  const [left, right] = tf.split(x, 2, -1);
  return tf.concat([
    left.mul(cos).sub(right.mul(sin)),
    right.mul(cos).add(left.mul(sin)),
  ], -1);
}

/** 1 where query t may see key s, else 0: s <= t + S - T. [T, S] */
function causalMask(T: number, S: number): Tensor {
  const query = tf.range(0, T, 1, "int32").add(tf.scalar(S - T, "int32"));
  return tf.lessEqual(
    tf.range(0, S, 1, "int32").reshape([1, S]),
    query.reshape([T, 1]),
  ).cast("float32");
}

export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { causal, mask, scale }: AttentionOptions & { scale: number },
): Tensor {
  const [B, T, H, D] = q.shape;
  const [, S, G] = k.shape;
  const group = H / G;
  // The query heads of a group lie side by side, so the group is one taller matrix per key head.
  const queries = q.transpose([0, 2, 1, 3]).reshape([B, G, group * T, D]);
  const keys = k.transpose([0, 2, 1, 3]); // [B, G, S, D]
  const values = v.transpose([0, 2, 1, 3]); // [B, G, S, D]
  let scores: Tensor = tf.matMul(queries, keys, false, true).mul(scale)
    .reshape([B, H, T, S]);
  let visible = causal ? causalMask(T, S) : tf.ones([T, S]);
  if (mask !== undefined) {
    if (mask.dtype === "bool") visible = visible.mul(mask.cast("float32"));
    else {
      visible = visible.mul(mask.greater(HIDDEN_SCORE).cast("float32"));
      scores = scores.add(tf.maximum(mask, HIDDEN_SCORE));
    }
  }
  scores = scores.mul(visible).add(visible.sub(1).mul(-HIDDEN_SCORE));
  const weights = tf.softmax(scores).mul(visible); // [B, H, T, S]
  return tf.matMul(weights.reshape([B, G, group * T, S]), values)
    .reshape([B, H, T, D]).transpose([0, 2, 1, 3]);
}

export function crossEntropy(
  logits: Tensor,
  labels: Tensor,
  { reduction, ignoreIndex }: Required<CrossEntropyOptions>,
): Tensor {
  const V = logits.shape[1]!;
  const counted = labels.notEqual(tf.scalar(ignoreIndex, "int32"));
  const safe = tf.where(counted, labels, tf.zerosLike(labels));
  const picked = tf.oneHot(safe as tf.Tensor1D, V).cast("float32").mul(logits)
    .sum(1);
  const weight = counted.cast("float32"); // [N]
  const losses = logits.logSumExp(1).sub(picked).mul(weight); // [N]
  if (reduction === "none") return losses;
  return losses.sum().div(tf.maximum(weight.sum(), 1));
}

export function klDivergence(
  logits: Tensor,
  target: Tensor,
  temperature: number,
): Tensor {
  const logQ = tf.logSoftmax(logits.div(temperature) as tf.Tensor2D);
  // 0 log 0 = 0: the floor keeps the logarithm finite where the target is zero.
  const logP = constant((p) => tf.maximum(p, 1e-30).log(), target);
  const p = constant((p) => p.clone(), target);
  return p.mul(logP.sub(logQ)).sum()
    .div(logits.shape[0]);
}

/** True if the chosen backend can run the kernel. */
function has(kernelName: string): boolean {
  return tf.getKernel(kernelName, tf.getBackend()) != null;
}

export function embedding(ids: Tensor, table: Tensor): Tensor {
  const [V, D] = table.shape;
  const flat = ids.flatten() as tf.Tensor1D;
  const rows = tf.customGrad((x, save) => {
    (save as unknown as (kept: Tensor[]) => void)([flat]);
    return {
      value: tf.gather(x as Tensor, flat),
      gradFunc: (dy: Tensor, saved: Tensor[]) =>
        has("UnsortedSegmentSum")
          ? tf.unsortedSegmentSum(dy, saved[0] as tf.Tensor1D, V)
          : tf.matMul(
            tf.oneHot(saved[0], V).cast("float32") as tf.Tensor2D,
            dy as tf.Tensor2D,
            true,
          ),
    };
  })(table);
  return rows.reshape([...ids.shape, D]);
}

export function fakeQuant(
  x: Tensor,
  scale: Tensor,
  zeroPoint: Tensor,
  { qmin, qmax }: Pick<FakeQuantOptions, "qmin" | "qmax">,
): Tensor {
  const codes = (x: Tensor, scale: Tensor) =>
    x.div(scale).round().add(zeroPoint);
  const steps = constant(
    (x, s) => codes(x, s).clipByValue(qmin, qmax).sub(zeroPoint),
    x,
    scale,
  );
  const inside = constant(
    (x, s) => {
      const code = codes(x, s);
      return code.greaterEqual(qmin).logicalAnd(code.lessEqual(qmax))
        .cast("float32");
    },
    x,
    scale,
  );
  const slope = constant(
    (x, s) => steps.sub(x.div(s).mul(inside)),
    x,
    scale,
  );
  const still = (t: Tensor) => constant((t) => t.clone(), t);
  // The value is steps * scale; the two differences are zero and carry the gradients.
  return steps.mul(still(scale))
    .add(x.sub(still(x)).mul(inside))
    .add(scale.sub(still(scale)).mul(slope));
}

/** Sizes of a convolution: zeros before and after each axis, and the output. */
export function convSizes(
  [, height, width]: number[],
  [filterHeight, filterWidth]: number[],
  { strides, pad }: Required<Conv2dOptions>,
) {
  const axis = (size: number, filter: number) => {
    if (pad === "valid") {
      return { before: 0, out: Math.floor((size - filter) / strides) + 1 };
    }
    if (pad === "same") {
      const out = Math.ceil(size / strides);
      const total = Math.max(0, (out - 1) * strides + filter - size);
      return { before: total >> 1, out };
    }
    return {
      before: pad,
      out: Math.floor((size + 2 * pad - filter) / strides) + 1,
    };
  };
  const rows = axis(height, filterHeight);
  const columns = axis(width, filterWidth);
  return {
    padTop: rows.before,
    padLeft: columns.before,
    outHeight: rows.out,
    outWidth: columns.out,
  };
}

/** im2col: one matrix product over the patches, gathered by slices. */
export function conv2d(
  x: Tensor,
  filter: Tensor,
  options: Required<Conv2dOptions>,
): Tensor {
  const [B, height, width, C] = x.shape;
  const [fh, fw, , K] = filter.shape as number[];
  const { strides } = options;
  const { padTop, padLeft, outHeight, outWidth } = convSizes(
    x.shape,
    filter.shape,
    options,
  );
  // Padded so far that every slice below holds whole strides.
  const fullHeight = Math.max(height + padTop, fh - 1 + outHeight * strides);
  const fullWidth = Math.max(width + padLeft, fw - 1 + outWidth * strides);
  const padded = tf.pad(x, [
    [0, 0],
    [padTop, fullHeight - height - padTop],
    [padLeft, fullWidth - width - padLeft],
    [0, 0],
  ]);
  const patches: Tensor[] = [];
  for (let i = 0; i < fh; i++) {
    const rows = padded.slice([0, i, 0, 0], [
      B,
      outHeight * strides,
      fullWidth,
      C,
    ]).reshape([B * outHeight, strides, fullWidth, C])
      .slice([0, 0, 0, 0], [B * outHeight, 1, fullWidth, C]);
    for (let j = 0; j < fw; j++) {
      patches.push(
        rows.slice([0, 0, j, 0], [B * outHeight, 1, outWidth * strides, C])
          .reshape([B * outHeight * outWidth, strides, C])
          .slice([0, 0, 0], [B * outHeight * outWidth, 1, C])
          .reshape([B * outHeight * outWidth, C]),
      );
    }
  }
  const columns = tf.concat(patches, 1); // [B outHeight outWidth, fh fw C]
  return tf.matMul(columns, filter.reshape([fh * fw * C, K]))
    .reshape([B, outHeight, outWidth, K]);
}
