/**
 * The operations of nn.ts on our kernels: the same functions as in reference.ts, with gradients.
 *
 * Each computes its result with one or a few kernel calls and writes one node on the tape of tfjs.
 * Tensors that the gradient needs are kept as aliases, without a copy (tfjs' own `save` copies on
 * the wasm backend). The gradients are thunks, and tfjs calls only those of inputs that lead to a
 * trained variable, so a frozen weight costs nothing. Gradients of gradients are not available.
 *
 * nn.ts holds the documentation and the argument checks: call that.
 */
import {
  address,
  heap,
  kernels as installedKernels,
  output,
  scratch,
  sgemm,
  sgemmBatch,
} from "./kernels/bindings.ts";
import * as reference from "./reference.ts";
import { type Tensor, tf } from "./tensor.ts";
import type {
  AttentionOptions,
  Conv2dOptions,
  CrossEntropyOptions,
  FakeQuantOptions,
  MatmulOptions,
} from "./nn.ts";

type Gradients = (
  dy: Tensor,
  saved: Tensor[],
) => Record<string, () => Tensor>;

/** What we use of tfjs' engine to write on its tape. */
interface Engine {
  isTapeOn(): boolean;
  addTapeNode(
    name: string,
    inputs: Record<string, Tensor>,
    outputs: Tensor[],
    gradients: Gradients,
    saved: Tensor[],
    attributes: Record<string, never>,
  ): void;
  makeTensorFromTensorInfo(
    info: Pick<Tensor, "dataId" | "shape" | "dtype">,
  ): Tensor;
  keep(tensor: Tensor): Tensor;
}

const engine = () => tf.engine() as unknown as Engine;

/** Functions of the module; only called where nn.ts found them. */
const kernels = () => installedKernels()!;

const flag = (value: boolean) => value ? 1 : 0;

/** A second tensor on the same data, which lives until both are disposed. */
function alias(x: Tensor): Tensor {
  (tf.backend() as unknown as { incRef(id: object): void }).incRef(x.dataId);
  const { dataId, shape, dtype } = x;
  return engine().makeTensorFromTensorInfo({ dataId, shape, dtype });
}

/**
 * Writes y = f(inputs) on the tape, if one is recorded. The gradient function gets the aliases of
 * `saved` and then `own`, working tensors of this operation; both are disposed with the tape.
 */
function record(
  name: string,
  inputs: Record<string, Tensor>,
  y: Tensor,
  saved: Tensor[],
  own: Tensor[],
  gradients: Gradients,
): Tensor {
  const tape = engine();
  if (tape.isTapeOn()) {
    const kept = [...saved.map(alias), ...own];
    for (const x of kept) tape.keep(x);
    tape.addTapeNode(`adiabat.${name}`, inputs, [y], gradients, kept, {});
  } else for (const x of own) x.dispose();
  return y;
}

const last = (x: Tensor) => x.shape[x.rank - 1]!;

const rowsOf = (x: Tensor) => last(x) === 0 ? 0 : x.size / last(x);

/** One matrix product of a batch, on stored (not transposed) sizes. */
interface Operand {
  pointer: number;
  /** Rows and columns as stored. */
  rows: number;
  columns: number;
  transpose: boolean;
  /** Elements between two matrices of the batch; 0 if they share one. */
  stride: number;
}

const flipped = (x: Operand): Operand => ({ ...x, transpose: !x.transpose });

/** out = op(a) op(b) for each of `batch` matrices; a `sum` adds them all into one. */
function multiply(
  a: Operand,
  b: Operand,
  out: number,
  batch: number,
  sum = false,
): void {
  const m = a.transpose ? a.columns : a.rows;
  const k = a.transpose ? a.rows : a.columns;
  const n = b.transpose ? b.rows : b.columns;
  if (sum) {
    if (a.transpose && !b.transpose && a.stride > 0 && b.stride > 0) {
      // The sum over the batch is one product over all rows.
      multiply(
        { ...a, rows: a.rows * batch },
        { ...b, rows: b.rows * batch },
        out,
        1,
      );
      return;
    }
    for (let i = 0; i < batch; i++) {
      sgemm(
        a.transpose,
        b.transpose,
        m,
        n,
        k,
        1,
        a.pointer + 4 * i * a.stride,
        a.columns,
        b.pointer + 4 * i * b.stride,
        b.columns,
        i === 0 ? 0 : 1,
        out,
        n,
      );
    }
    return;
  }
  if (!a.transpose && (b.stride === 0) && a.stride > 0) {
    // The batch is just more rows.
    sgemm(
      false,
      b.transpose,
      m * batch,
      n,
      k,
      1,
      a.pointer,
      a.columns,
      b.pointer,
      b.columns,
      0,
      out,
      n,
    );
    return;
  }
  sgemmBatch(
    a.transpose,
    b.transpose,
    m,
    n,
    k,
    1,
    a.pointer,
    a.columns,
    a.stride,
    b.pointer,
    b.columns,
    b.stride,
    0,
    out,
    n,
    m * n,
    batch,
  );
}

export function matmul(
  a: Tensor,
  b: Tensor,
  { transposeA = false, transposeB = false }: MatmulOptions = {},
): Tensor {
  const batchA = a.shape.slice(0, -2);
  const batchB = b.shape.slice(0, -2);
  const sharedA = batchA.length === 0 && batchB.length > 0;
  const sharedB = batchB.length === 0 && batchA.length > 0;
  if (!sharedA && !sharedB && !tf.util.arraysEqual(batchA, batchB)) {
    return tf.tidy(() => reference.matmul(a, b, { transposeA, transposeB }));
  }
  const shape = sharedA ? batchB : batchA;
  const batch = shape.reduce((n, size) => n * size, 1);
  const operand = (x: Tensor, transpose: boolean, shared: boolean): Operand => {
    const [rows, columns] = x.shape.slice(-2);
    const stride = shared ? 0 : rows * columns;
    return { pointer: address(x), rows, columns, transpose, stride };
  };
  const left = operand(a, transposeA, sharedA);
  const right = operand(b, transposeB, sharedB);
  const m = transposeA ? left.columns : left.rows;
  const n = transposeB ? right.rows : right.columns;
  const y = output([...shape, m, n]);
  multiply(
    operand(a, transposeA, sharedA),
    operand(b, transposeB, sharedB),
    address(y),
    batch,
  );
  return record("matmul", { a, b }, y, [a, b], [], (dy, [a, b]) => ({
    a: () => {
      const da = output(a.shape);
      const d = operand(dy, false, false);
      const right = operand(b, transposeB, sharedB);
      if (transposeA) {
        multiply(right, flipped(d), address(da), batch, sharedA);
      } else multiply(d, flipped(right), address(da), batch, sharedA);
      return da;
    },
    b: () => {
      const db = output(b.shape);
      const d = operand(dy, false, false);
      const left = operand(a, transposeA, sharedA);
      if (transposeB) {
        multiply(flipped(d), left, address(db), batch, sharedB);
      } else multiply(flipped(left), d, address(db), batch, sharedB);
      return db;
    },
  }));
}

export function add(a: Tensor, b: Tensor): Tensor {
  const y = output(a.shape);
  kernels().addForward(address(a), address(b), address(y), y.size);
  return record("add", { a, b }, y, [], [], (dy) => {
    const pass = () => alias(dy);
    return { a: pass, b: pass };
  });
}

export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const [O, I] = weight.shape;
  const N = rowsOf(x);
  const y = output([...x.shape.slice(0, -1), O]);
  const to = address(y);
  if (bias !== undefined) kernels().repeatRow(address(bias), to, N, O);
  sgemm(
    false,
    true,
    N,
    O,
    I,
    1,
    address(x),
    I,
    address(weight),
    I,
    bias === undefined ? 0 : 1,
    to,
    O,
  );
  const inputs: Record<string, Tensor> = bias === undefined
    ? { x, weight }
    : { x, weight, bias };
  return record("linear", inputs, y, [x, weight], [], (dy, [x, weight]) => ({
    x: () => {
      const dx = output(x.shape);
      const to = address(dx);
      sgemm(
        false,
        false,
        N,
        I,
        O,
        1,
        address(dy),
        O,
        address(weight),
        I,
        0,
        to,
        I,
      );
      return dx;
    },
    weight: () => {
      const dw = output([O, I]);
      sgemm(
        true,
        false,
        O,
        I,
        N,
        1,
        address(dy),
        O,
        address(x),
        I,
        0,
        address(dw),
        I,
      );
      return dw;
    },
    bias: () => {
      const db = output([O]);
      kernels().sumRows(address(dy), address(db), N, O);
      return db;
    },
  }));
}

export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  const D = last(x);
  const N = rowsOf(x);
  const y = output(x.shape);
  const inv = output([N]);
  kernels().rmsNormForward(
    address(x),
    address(weight),
    address(y),
    address(inv),
    N,
    D,
    eps,
  );
  return record(
    "rmsNorm",
    { x, weight },
    y,
    [x, weight],
    [inv],
    (dy, [x, weight, inv]) => ({
      x: () => {
        const dx = output(x.shape);
        kernels().rmsNormBackwardX(
          address(x),
          address(weight),
          address(inv),
          address(dy),
          address(dx),
          N,
          D,
        );
        return dx;
      },
      weight: () => {
        const dw = output([D]);
        kernels().normBackwardWeight(
          address(x),
          0,
          address(inv),
          address(dy),
          address(dw),
          N,
          D,
        );
        return dw;
      },
    }),
  );
}

export function layerNorm(
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  eps: number,
): Tensor {
  const D = last(x);
  const N = rowsOf(x);
  const y = output(x.shape);
  const mean = output([N]);
  const inv = output([N]);
  kernels().layerNormForward(
    address(x),
    address(gamma),
    address(beta),
    address(y),
    address(mean),
    address(inv),
    N,
    D,
    eps,
  );
  return record(
    "layerNorm",
    { x, gamma, beta },
    y,
    [x, gamma],
    [mean, inv],
    (dy, [x, gamma, mean, inv]) => ({
      x: () => {
        const dx = output(x.shape);
        kernels().layerNormBackwardX(
          address(x),
          address(gamma),
          address(mean),
          address(inv),
          address(dy),
          address(dx),
          N,
          D,
        );
        return dx;
      },
      gamma: () => {
        const dgamma = output([D]);
        kernels().normBackwardWeight(
          address(x),
          address(mean),
          address(inv),
          address(dy),
          address(dgamma),
          N,
          D,
        );
        return dgamma;
      },
      beta: () => {
        const dbeta = output([D]);
        kernels().sumRows(address(dy), address(dbeta), N, D);
        return dbeta;
      },
    }),
  );
}

export function gelu(x: Tensor, approximate: "none" | "tanh"): Tensor {
  const y = output(x.shape);
  // The derivative shares its exponential with the value, so both are made now.
  const slopes = output(x.shape);
  kernels().geluForward(
    address(x),
    address(y),
    address(slopes),
    x.size,
    flag(approximate === "tanh"),
  );
  return record("gelu", { x }, y, [], [slopes], (dy, [slopes]) => ({
    x: () => {
      const dx = output(slopes.shape);
      const to = address(dx);
      kernels().multiply(address(slopes), address(dy), to, dx.size);
      return dx;
    },
  }));
}

export function swiglu(gate: Tensor, up: Tensor): Tensor {
  const y = output(gate.shape);
  const sigmoids = output(gate.shape);
  kernels().swigluForward(
    address(gate),
    address(up),
    address(y),
    address(sigmoids),
    gate.size,
  );
  return record(
    "swiglu",
    { gate, up },
    y,
    [gate, up],
    [sigmoids],
    (dy, [gate, up, sigmoids]) => ({
      gate: () => {
        const dgate = output(gate.shape);
        kernels().swigluBackwardGate(
          address(gate),
          address(up),
          address(sigmoids),
          address(dy),
          address(dgate),
          gate.size,
        );
        return dgate;
      },
      up: () => {
        const dup = output(gate.shape);
        kernels().swigluBackwardUp(
          address(gate),
          address(sigmoids),
          address(dy),
          address(dup),
          gate.size,
        );
        return dup;
      },
    }),
  );
}

/** Tables of the last few lengths and offsets; a training run uses one. */
const ropeCache = new Map<string, { cos: Float32Array; sin: Float32Array }>();
const ROPE_CACHE_SIZE = 8;

/** Pointer to cos and, after it, sin, each [T, D / 2], in scratch. */
function ropeTables(
  T: number,
  frequencies: ArrayLike<number>,
  offset: number,
): number {
  const key = `${T} ${offset} ${Array.prototype.join.call(frequencies)}`;
  let tables = ropeCache.get(key);
  if (tables === undefined) {
    tables = reference.ropeTables(T, frequencies, offset);
    if (ropeCache.size >= ROPE_CACHE_SIZE) {
      ropeCache.delete(ropeCache.keys().next().value!);
    }
    ropeCache.set(key, tables);
  }
  const size = T * frequencies.length;
  const pointer = scratch(8 * size);
  heap().set(tables.cos, pointer / 4);
  heap().set(tables.sin, pointer / 4 + size);
  return pointer;
}

export function rope(
  x: Tensor,
  frequencies: ArrayLike<number>,
  offset: number,
): Tensor {
  const [B, T, H, D] = x.shape as number[];
  const rotate = (from: Tensor, sign: number) => {
    const to = output([B, T, H, D]);
    const cos = ropeTables(T, frequencies, offset);
    const sin = cos + 2 * T * D;
    const pointer = address(to);
    kernels().ropeForward(
      address(from),
      cos,
      sin,
      pointer,
      B,
      T,
      H,
      D,
      sign,
    );
    return to;
  };
  const y = rotate(x, 1);
  return record(
    "rope",
    { x },
    y,
    [],
    [],
    (dy) => ({ x: () => rotate(dy, -1) }),
  );
}

/**
 * Query rows that share one product; a causal block skips the keys after its last row. Forward and
 * backward together, 32 and 64 differ by less than 7 % at T = 64 and 256 (measured).
 */
const ATTENTION_BLOCK = 32;

/** A mask as numbers added to the scores, and its strides over batch, head and query. */
function additiveMask(mask: Tensor, [B, H, T, S]: number[]) {
  const full = [B, H, T, S];
  const shape = [...Array(4 - mask.rank).fill(1), ...mask.shape] as number[];
  let added = mask;
  if (mask.dtype === "bool" || shape[3] !== S) {
    added = tf.tidy(() => {
      const wide = mask.reshape(shape).cast("float32")
        .broadcastTo([...shape.slice(0, 3), S]);
      return mask.dtype === "bool" ? wide.sub(1).mul(1e30) : wide;
    });
  }
  const strides = [0, 0, 0];
  let stride = S;
  for (let i = 2; i >= 0; i--) {
    if (shape[i] === full[i] && shape[i] > 1) strides[i] = stride;
    stride *= shape[i];
  }
  return { added, strides, dispose: added !== mask };
}

export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { causal, mask, scale }: AttentionOptions & {
    causal: boolean;
    scale: number;
  },
): Tensor {
  const [B, T, H, D] = q.shape as number[];
  const [, S, G] = k.shape as number[];
  const group = H / G;
  const [ldq, ldk] = [H * D, G * D];
  const tape = engine().isTapeOn();
  const y = output([B, T, H, D]);
  // For the gradient all probabilities are kept; else each block replaces the one before.
  const kept = tape ? output([B, H, T, S]) : null;
  const hidden = mask === undefined ? null : additiveMask(mask, [B, H, T, S]);
  const work = kept === null
    ? scratch(4 * Math.min(T, ATTENTION_BLOCK) * S)
    : address(kept);
  const [pq, pk, pv, py] = [q, k, v, y].map(address);
  const run = kernels();
  /** Keys that the rows before `end` see. */
  const seen = (end: number) => causal ? S - T + end : S;
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const head = 4 * (b * T * ldq + h * D);
      const keyHead = 4 * (b * S * ldk + Math.floor(h / group) * D);
      for (let t = 0; t < T; t += ATTENTION_BLOCK) {
        const rows = Math.min(ATTENTION_BLOCK, T - t);
        const keys = seen(t + rows);
        const row = head + 4 * t * ldq;
        const p = kept === null ? work : work + 4 * ((b * H + h) * T + t) * S;
        sgemm(
          false,
          true,
          rows,
          keys,
          D,
          1,
          pq + row,
          ldq,
          pk + keyHead,
          ldk,
          0,
          p,
          S,
        );
        run.softmaxRows(
          p,
          S,
          hidden === null ? 0 : address(hidden.added) +
            4 * (b * hidden.strides[0] + h * hidden.strides[1] +
                t * hidden.strides[2]),
          hidden === null ? 0 : hidden.strides[2],
          rows,
          keys,
          scale,
          flag(causal),
          seen(t + 1),
        );
        sgemm(
          false,
          false,
          rows,
          D,
          keys,
          1,
          p,
          S,
          pv + keyHead,
          ldk,
          0,
          py + row,
          ldq,
        );
      }
    }
  }
  if (hidden?.dispose) hidden.added.dispose();
  if (kept === null) return y;
  return record(
    "attention",
    { q, k, v },
    y,
    [q, k, v],
    [kept],
    (dy, [q, k, v, probabilities]) => {
      const [dq, dk, dv] = [q, k, v].map((x) => output(x.shape));
      const slopes = scratch(4 * Math.min(T, ATTENTION_BLOCK) * S);
      const [pq, pk, pv, pp, pdy, pdq, pdk, pdv] = [
        q,
        k,
        v,
        probabilities,
        dy,
        dq,
        dk,
        dv,
      ].map(address);
      const blocks = Math.ceil(T / ATTENTION_BLOCK);
      for (let b = 0; b < B; b++) {
        for (let h = 0; h < H; h++) {
          const head = 4 * (b * T * ldq + h * D);
          const keyHead = 4 * (b * S * ldk + Math.floor(h / group) * D);
          // From the last block, which sees every key and so begins the sums of dk and dv.
          for (let block = blocks - 1; block >= 0; block--) {
            const t = block * ATTENTION_BLOCK;
            const rows = Math.min(ATTENTION_BLOCK, T - t);
            const keys = seen(t + rows);
            const row = head + 4 * t * ldq;
            const p = pp + 4 * ((b * H + h) * T + t) * S;
            const beta = block === blocks - 1 && h % group === 0 ? 0 : 1;
            sgemm(
              true,
              false,
              keys,
              D,
              rows,
              1,
              p,
              S,
              pdy + row,
              ldq,
              beta,
              pdv + keyHead,
              ldk,
            );
            sgemm(
              false,
              true,
              rows,
              keys,
              D,
              1,
              pdy + row,
              ldq,
              pv + keyHead,
              ldk,
              0,
              slopes,
              S,
            );
            run.softmaxBackward(
              p,
              S,
              slopes,
              S,
              rows,
              keys,
              scale,
              flag(causal),
              seen(t + 1),
            );
            sgemm(
              false,
              false,
              rows,
              D,
              keys,
              1,
              slopes,
              S,
              pk + keyHead,
              ldk,
              0,
              pdq + row,
              ldq,
            );
            sgemm(
              true,
              false,
              keys,
              D,
              rows,
              1,
              slopes,
              S,
              pq + row,
              ldq,
              beta,
              pdk + keyHead,
              ldk,
            );
          }
        }
      }
      return { q: () => dq, k: () => dk, v: () => dv };
    },
  );
}

/** A scalar tensor that holds `value`. */
function scalar(value: number): Tensor {
  const y = output([]);
  heap()[address(y) / 4] = value;
  return y;
}

/** Sum in double precision. */
function total(x: Tensor): number {
  const values = heap().subarray(address(x) / 4, address(x) / 4 + x.size);
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

/** The integers of an int32 tensor, in place. */
function integers(x: Tensor): Int32Array {
  return new Int32Array(heap().buffer, address(x), x.size);
}

export function crossEntropy(
  logits: Tensor,
  labels: Tensor,
  { reduction, ignoreIndex }: Required<CrossEntropyOptions>,
): Tensor {
  const [N, V] = logits.shape;
  const losses = output([N]);
  const normalizers = output([N]);
  const bad = kernels().crossEntropyForward(
    address(logits),
    address(labels),
    address(losses),
    address(normalizers),
    N,
    V,
    ignoreIndex,
  );
  if (bad >= 0) {
    losses.dispose();
    normalizers.dispose();
    throw new RangeError(
      `Cannot compute the cross entropy as labels must be below ${V}, or ${ignoreIndex} to be ignored: label ${
        integers(labels)[bad]
      } in row ${bad}`,
    );
  }
  let y = losses;
  let factor = 1;
  if (reduction === "mean") {
    let count = 0;
    for (const label of integers(labels)) if (label !== ignoreIndex) count++;
    factor = 1 / Math.max(count, 1);
    y = scalar(total(losses) * factor);
    losses.dispose();
  }
  return record(
    "crossEntropy",
    { logits },
    y,
    [logits, labels],
    [normalizers],
    (dy, [logits, labels, normalizers]) => ({
      logits: () => {
        const dlogits = output([N, V]);
        kernels().crossEntropyBackward(
          address(logits),
          address(labels),
          address(normalizers),
          address(dy),
          reduction === "mean" ? 0 : 1,
          factor,
          address(dlogits),
          N,
          V,
          ignoreIndex,
        );
        return dlogits;
      },
    }),
  );
}

export function klDivergence(
  logits: Tensor,
  target: Tensor,
  temperature: number,
): Tensor {
  const [N, V] = logits.shape;
  const scale = 1 / temperature;
  const losses = output([N]);
  const normalizers = output([N]);
  const totals = output([N]);
  kernels().klForward(
    address(logits),
    address(target),
    address(losses),
    address(normalizers),
    address(totals),
    N,
    V,
    scale,
  );
  const y = scalar(total(losses) / N);
  losses.dispose();
  return record(
    "klDivergence",
    { logits },
    y,
    [logits, target],
    [normalizers, totals],
    (dy, [logits, target, normalizers, totals]) => ({
      logits: () => {
        const dlogits = output([N, V]);
        kernels().klBackward(
          address(logits),
          address(target),
          address(normalizers),
          address(totals),
          address(dy),
          scale / N,
          address(dlogits),
          N,
          V,
          scale,
        );
        return dlogits;
      },
    }),
  );
}

export function embedding(ids: Tensor, table: Tensor): Tensor {
  const [V, D] = table.shape;
  const y = output([...ids.shape, D]);
  const bad = kernels().gatherRows(
    address(ids),
    address(table),
    address(y),
    ids.size,
    V,
    D,
  );
  if (bad >= 0) {
    y.dispose();
    throw new RangeError(
      `Cannot look up as every id must be at least 0 and below ${V}: id ${
        integers(ids)[bad]
      } at ${bad}`,
    );
  }
  return record("embedding", { table }, y, [ids], [], (dy, [ids]) => ({
    table: () => {
      const dtable = output([V, D]);
      kernels().scatterAddRows(
        address(ids),
        address(dy),
        address(dtable),
        ids.size,
        V,
        D,
      );
      return dtable;
    },
  }));
}

/**
 * x as [outer, channels, inner] such that a tensor of `shape`, broadcast against x, is constant over
 * outer and inner; null if there is no such view.
 */
function channelView(x: number[], shape: number[]) {
  const padded = [...Array(x.length - shape.length).fill(1), ...shape];
  if (x.length < shape.length) return null;
  const wide = padded.map((size) => size > 1);
  const from = wide.indexOf(true);
  if (from < 0) return { outer: 1, channels: 1, inner: size(x) };
  const to = wide.lastIndexOf(true) + 1;
  for (let i = from; i < to; i++) if (padded[i] !== x[i]) return null;
  return {
    outer: size(x.slice(0, from)),
    channels: size(x.slice(from, to)),
    inner: size(x.slice(to)),
  };
}

const size = (shape: number[]) => shape.reduce((n, s) => n * s, 1);

export function fakeQuant(
  x: Tensor,
  scale: Tensor,
  zeroPoint: Tensor,
  { qmin, qmax }: Pick<FakeQuantOptions, "qmin" | "qmax">,
): Tensor {
  const view = channelView(
    x.shape,
    scale.size === 1 ? zeroPoint.shape : scale.shape,
  );
  const alike = scale.size === 1 || zeroPoint.size === 1 ||
    tf.util.arraysEqual(scale.shape, zeroPoint.shape);
  if (view === null || !alike) {
    return tf.tidy(() =>
      reference.fakeQuant(x, scale, zeroPoint, { qmin, qmax })
    );
  }
  const { outer, channels, inner } = view;
  const scaleStride = flag(scale.size > 1);
  const zeroStride = flag(zeroPoint.size > 1);
  const y = output(x.shape);
  kernels().fakeQuantForward(
    address(x),
    address(scale),
    scaleStride,
    address(zeroPoint),
    zeroStride,
    address(y),
    outer,
    channels,
    inner,
    qmin,
    qmax,
  );
  type Backward =
    | "fakeQuantBackwardX"
    | "fakeQuantBackwardScale";
  return record(
    "fakeQuant",
    { x, scale },
    y,
    [x, scale, zeroPoint],
    [],
    (dy, [x, scale, zeroPoint]) => {
      const backward = (name: Backward, like: Tensor) => () => {
        const out = output(like.shape);
        kernels()[name](
          address(x),
          address(scale),
          scaleStride,
          address(zeroPoint),
          zeroStride,
          address(dy),
          address(out),
          outer,
          channels,
          inner,
          qmin,
          qmax,
        );
        return out;
      };
      return {
        x: backward("fakeQuantBackwardX", x),
        scale: backward("fakeQuantBackwardScale", scale),
      };
    },
  );
}

export function conv2d(
  x: Tensor,
  filter: Tensor,
  options: Required<Conv2dOptions>,
): Tensor {
  const [B, height, width, C] = x.shape as number[];
  const [fh, fw, , K] = filter.shape as number[];
  const { strides } = options;
  const { padTop, padLeft, outHeight, outWidth } = reference.convSizes(
    x.shape,
    filter.shape,
    options,
  );
  const P = outHeight * outWidth; // patches of an image
  const F = fh * fw * C; // numbers of a patch
  const geometry = [
    height,
    width,
    C,
    fh,
    fw,
    strides,
    padTop,
    padLeft,
    outHeight,
    outWidth,
  ] as const;
  const imageBytes = 4 * height * width * C;
  /** The patches of image b, in `work`; an image is its own patches if the filter is 1 x 1. */
  const pointwise = fh === 1 && fw === 1 && strides === 1 &&
    P === height * width;
  const patchesOf = (images: number, b: number, work: number) => {
    if (pointwise) return images + b * imageBytes;
    kernels().imageToPatches(images + b * imageBytes, work, ...geometry);
    return work;
  };
  const scratchBytes = pointwise ? 0 : 4 * P * F;
  const y = output([B, outHeight, outWidth, K]);
  const work = scratch(scratchBytes);
  const [px, pf, py] = [x, filter, y].map(address);
  for (let b = 0; b < B; b++) {
    const patches = patchesOf(px, b, work);
    sgemm(
      false,
      false,
      P,
      K,
      F,
      1,
      patches,
      F,
      pf,
      K,
      0,
      py + 4 * b * P * K,
      K,
    );
  }
  return record(
    "conv2d",
    { x, filter },
    y,
    [x, filter],
    [],
    (dy, [x, filter]) => ({
      x: () => {
        const dx = output(x.shape);
        const work = scratch(scratchBytes);
        const [pf, pdy, pdx] = [filter, dy, dx].map(address);
        for (let b = 0; b < B; b++) {
          const to = pdx + b * imageBytes;
          const patches = pointwise ? to : work;
          sgemm(
            false,
            true,
            P,
            F,
            K,
            1,
            pdy + 4 * b * P * K,
            K,
            pf,
            K,
            0,
            patches,
            F,
          );
          if (!pointwise) kernels().patchesToImage(work, to, ...geometry);
        }
        return dx;
      },
      filter: () => {
        const df = output(filter.shape);
        const work = scratch(scratchBytes);
        const [px, pdy, pdf] = [x, dy, df].map(address);
        for (let b = 0; b < B; b++) {
          const patches = patchesOf(px, b, work);
          sgemm(
            true,
            false,
            F,
            K,
            P,
            1,
            patches,
            F,
            pdy + 4 * b * P * K,
            K,
            b === 0 ? 0 : 1,
            pdf,
            K,
          );
        }
        return df;
      },
    }),
  );
}
