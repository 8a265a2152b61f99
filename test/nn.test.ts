/** Operations of neural networks: PyTorch's numbers, the composed oracle, finite differences. */
import { readFileSync } from "node:fs";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { address, kernels, output } from "../lib/core/kernels/bindings.ts";
import * as nn from "../lib/core/nn.ts";
import * as reference from "../lib/core/reference.ts";
import { fold, key, normal, permutation, uniform } from "../lib/core/rng.ts";
import { ready, type Scalar, type Tensor, tf } from "../lib/core/tensor.ts";

/** Float32 against float32 in another order of summation, relative to the largest number. */
const ORACLE_TOLERANCE = 1e-5;

/** PyTorch's numbers are printed with seven digits. */
const GOLDEN_TOLERANCE = 5e-6;

/**
 * Differences of float32 values: rounding 6e-8 over a step of 0.02 is 1e-5 of the summed terms, which
 * are up to a hundred times the derivative.
 */
const DIFFERENCE_TOLERANCE = 2e-3;

const ROOT = key(20240607);

const gaussian = (name: string, shape: number[], scale = 1): Tensor =>
  tf.tensor(
    normal(fold(ROOT, name), tf.util.sizeFromShape(shape), 0, scale),
    shape,
  );

const integers = (name: string, shape: number[], below: number): Tensor =>
  tf.tensor(
    Int32Array.from(
      uniform(fold(ROOT, name), tf.util.sizeFromShape(shape), 0, below),
      Math.floor,
    ),
    shape,
    "int32",
  );

interface Case {
  name: string;
  /** Shapes of the inputs that have gradients. */
  shapes: number[][];
  fast: (...xs: Tensor[]) => Tensor;
  slow: (...xs: Tensor[]) => Tensor;
  /** The gradient is not the derivative (straight-through): no finite differences. */
  straightThrough?: boolean;
}

const frequencies = (D: number) => nn.ropeFrequencies(D);

/** Odd sizes: nothing is a multiple of the vector or the tile. */
function cases(): Case[] {
  const labels = tf.tensor1d([3, -1, 0, 6, 3], "int32");
  const ids = integers("ids", [3, 5], 7);
  const target = tf.softmax(gaussian("target", [5, 7]));
  const visible = tf.tensor(
    [1, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1],
    [3, 5],
    "bool",
  );
  const bias = gaussian("mask", [2, 1, 3, 5]);
  const channel = tf.tensor([0.1, 0.3, 0.2], [3, 1]);
  const zero = tf.scalar(0);
  const range = { qmin: -4, qmax: 3 };
  const attention = (options: nn.AttentionOptions) => ({
    fast: (q: Tensor, k: Tensor, v: Tensor) => nn.attention(q, k, v, options),
    slow: (q: Tensor, k: Tensor, v: Tensor) =>
      reference.attention(q, k, v, {
        causal: true,
        scale: 1 / Math.sqrt(q.shape[3]!),
        ...options,
      }),
  });
  const matmul = (
    a: number[],
    b: number[],
    transposeA = false,
    transposeB = false,
  ): Case => ({
    name: `matmul ${a}${transposeA ? "'" : ""} by ${b}${transposeB ? "'" : ""}`,
    shapes: [a, b],
    fast: (x, y) => nn.matmul(x, y, { transposeA, transposeB }),
    slow: (x, y) => reference.matmul(x, y, { transposeA, transposeB }),
  });
  const conv = (
    x: number[],
    filter: number[],
    strides: number,
    pad: "same" | "valid" | number,
  ): Case => ({
    name: `conv2d ${x} ${filter} strides ${strides} pad ${pad}`,
    shapes: [x, filter],
    fast: (x, f) => nn.conv2d(x, f, { strides, pad }),
    slow: (x, f) => reference.conv2d(x, f, { strides, pad }),
  });
  return [
    matmul([5, 7], [7, 3]),
    matmul([7, 5], [7, 3], true),
    matmul([5, 7], [3, 7], false, true),
    matmul([7, 5], [3, 7], true, true),
    matmul([2, 3, 5, 7], [2, 3, 7, 2]),
    matmul([3, 7, 5], [3, 2, 7], true, true),
    matmul([3, 5, 7], [7, 2]),
    matmul([3, 7, 5], [7, 2], true),
    matmul([3, 5, 7], [2, 7], false, true),
    matmul([5, 7], [3, 7, 2]),
    matmul([5, 7], [3, 2, 7], false, true),
    matmul([1, 1], [1, 1]),
    {
      name: "add",
      shapes: [[3, 7], [3, 7]],
      fast: nn.add,
      slow: reference.add,
    },
    {
      name: "add, a tensor to itself, and broadcast",
      shapes: [[3, 7], [7]],
      fast: (a, b) => nn.add(nn.add(a, a), b),
      slow: (a, b) => a.mul(2).add(b),
    },
    {
      name: "linear with bias",
      shapes: [[2, 3, 7], [5, 7], [5]],
      fast: (x, weight, bias) => nn.linear(x, weight, { bias }),
      slow: reference.linear,
    },
    {
      name: "linear of a vector",
      shapes: [[7], [5, 7]],
      fast: (x, weight) => nn.linear(x, weight),
      slow: (x, weight) =>
        reference.linear(x.reshape([1, 7]), weight).flatten(),
    },
    {
      name: "rmsNorm",
      shapes: [[2, 3, 11], [11]],
      fast: (x, weight) => nn.rmsNorm(x, weight),
      slow: (x, weight) => reference.rmsNorm(x, weight, 1e-5),
    },
    {
      name: "layerNorm",
      shapes: [[2, 3, 11], [11], [11]],
      fast: (x, gamma, beta) => nn.layerNorm(x, gamma, beta),
      slow: (x, gamma, beta) => reference.layerNorm(x, gamma, beta, 1e-5),
    },
    {
      name: "gelu",
      shapes: [[3, 37]],
      fast: (x) => nn.gelu(x.mul(3)),
      slow: (x) => reference.gelu(x.mul(3), "none"),
    },
    {
      name: "gelu tanh",
      shapes: [[3, 37]],
      fast: (x) => nn.gelu(x.mul(3), { approximate: "tanh" }),
      slow: (x) => reference.gelu(x.mul(3), "tanh"),
    },
    {
      name: "swiglu",
      shapes: [[3, 37], [3, 37]],
      fast: (gate, up) => nn.swiglu(gate, up),
      slow: reference.swiglu,
    },
    {
      name: "rope",
      shapes: [[2, 5, 3, 14]],
      fast: (x) => nn.rope(x, { offset: 4 }),
      slow: (x) => reference.rope(x, frequencies(14), 4),
    },
    {
      name: "attention causal",
      shapes: [[2, 5, 3, 7], [2, 5, 3, 7], [2, 5, 3, 7]],
      ...attention({}),
    },
    {
      name: "attention, grouped queries at the end of more keys",
      shapes: [[2, 3, 6, 5], [2, 7, 2, 5], [2, 7, 2, 5]],
      ...attention({ scale: 0.9 }),
    },
    {
      name: "attention over several blocks of queries",
      shapes: [[1, 131, 2, 3], [1, 134, 1, 3], [1, 134, 1, 3]],
      ...attention({}),
    },
    {
      name: "attention, bool mask with a row that sees nothing",
      shapes: [[2, 3, 4, 6], [2, 5, 2, 6], [2, 5, 2, 6]],
      ...attention({
        causal: false,
        mask: visible.mul(tf.tensor([1, 1, 0], [3, 1], "int32")).cast("bool"),
      }),
    },
    {
      name: "attention, bool mask and causal",
      shapes: [[2, 3, 4, 6], [2, 5, 2, 6], [2, 5, 2, 6]],
      ...attention({ mask: visible }),
    },
    {
      name: "attention, additive mask per batch",
      shapes: [[2, 3, 4, 6], [2, 5, 2, 6], [2, 5, 2, 6]],
      ...attention({ causal: false, mask: bias }),
    },
    {
      name: "attention, negative scale",
      shapes: [[1, 3, 1, 6], [1, 5, 1, 6], [1, 5, 1, 6]],
      ...attention({ scale: -0.5 }),
    },
    {
      name: "crossEntropy mean",
      shapes: [[5, 7]],
      fast: (x) => nn.crossEntropy(x, labels),
      slow: (x) =>
        reference.crossEntropy(x, labels, {
          reduction: "mean",
          ignoreIndex: -1,
        }),
    },
    {
      name: "crossEntropy of each row",
      shapes: [[5, 7]],
      fast: (x) => nn.crossEntropy(x, labels, { reduction: "none" }),
      slow: (x) =>
        reference.crossEntropy(x, labels, {
          reduction: "none",
          ignoreIndex: -1,
        }),
    },
    {
      name: "crossEntropy, class 3 ignored",
      shapes: [[5, 7]],
      fast: (x) => nn.crossEntropy(x, tf.abs(labels), { ignoreIndex: 3 }),
      slow: (x) =>
        reference.crossEntropy(x, tf.abs(labels), {
          reduction: "mean",
          ignoreIndex: 3,
        }),
    },
    {
      name: "klDivergence",
      shapes: [[5, 7]],
      fast: (x) => nn.klDivergence(x, target, { temperature: 1.7 }),
      slow: (x) => reference.klDivergence(x, target, 1.7),
    },
    {
      name: "embedding",
      shapes: [[7, 5]],
      fast: (table) => nn.embedding(ids, table),
      slow: (table) => reference.embedding(ids, table),
    },
    {
      name: "fakeQuant of one scale, scale trained",
      shapes: [[4, 3, 7]],
      fast: (x) => nn.fakeQuant(x, { scale: 0.3, zeroPoint: 1, ...range }),
      slow: (x) => reference.fakeQuant(x, tf.scalar(0.3), tf.scalar(1), range),
      straightThrough: true,
    },
    {
      name: "fakeQuant per channel, scale trained",
      shapes: [[4, 3, 7], [3, 1]],
      fast: (x, s) =>
        nn.fakeQuant(x, { scale: s.mul(0).add(channel), ...range }),
      slow: (x, s) =>
        reference.fakeQuant(x, s.mul(0).add(channel), zero, range),
      straightThrough: true,
    },
    {
      name: "fakeQuant, a scale per first axis and a shared zero point",
      shapes: [[3, 7], [3, 1]],
      fast: (x, s) =>
        nn.fakeQuant(x, { scale: s.abs().add(0.1), zeroPoint: -2, ...range }),
      slow: (x, s) =>
        reference.fakeQuant(x, s.abs().add(0.1), tf.scalar(-2), range),
      straightThrough: true,
    },
    {
      name: "fakeQuant with scales that no view covers falls back",
      shapes: [[3, 2, 3], [3, 1, 3]],
      fast: (x, s) => nn.fakeQuant(x, { scale: s.abs().add(0.1), ...range }),
      slow: (x, s) => reference.fakeQuant(x, s.abs().add(0.1), zero, range),
      straightThrough: true,
    },
    conv([2, 7, 6, 3], [3, 2, 3, 5], 2, "same"),
    conv([2, 7, 6, 3], [3, 3, 3, 5], 1, "valid"),
    conv([1, 5, 7, 2], [2, 3, 2, 3], 3, 2),
    conv([2, 3, 4, 5], [1, 1, 5, 3], 1, "valid"),
    conv([2, 9, 9, 1], [4, 4, 1, 3], 4, "valid"),
  ];
}

const largest = (x: ArrayLike<number>) => {
  let size = 0;
  for (let i = 0; i < x.length; i++) size = Math.max(size, Math.abs(x[i]));
  return size;
};

function close(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
): void {
  assert.is(actual.length, expected.length, `${what}: length`);
  const bound = tolerance * Math.max(1, largest(expected));
  for (let i = 0; i < actual.length; i++) {
    // Written so that NaN fails.
    if (!(Math.abs(actual[i] - expected[i]) <= bound)) {
      assert.unreachable(
        `${what}: number ${i} is ${actual[i]}, expected ${expected[i]}`,
      );
    }
  }
}

/** Gradients of the sum of y c. */
function gradients(
  f: (...xs: Tensor[]) => Tensor,
  xs: Tensor[],
  c: Tensor,
): Tensor[] {
  return tf.grads((...args) => f(...args).mul(c).sum() as Scalar)(xs);
}

test.before(async () => {
  process.env.ADIABAT_BACKEND = "wasm";
  await ready();
  assert.ok(kernels() !== null, "the kernels must run where the tests do");
});

test("PyTorch's values and gradients", () => {
  const golden: Record<string, { value: number[]; grads: number[][] }> = JSON
    .parse(readFileSync(new URL("golden/nn.json", import.meta.url), "utf8"));
  const seq = (shape: number[], factor = 1) => {
    const n = tf.util.sizeFromShape(shape);
    return tf.tensor(
      Float32Array.from(
        { length: n },
        (_, i) => Math.sin(i * 1.7 + n) * 1.5 * factor,
      ),
      shape,
    );
  };
  const kl = tf.softmax(seq([3, 4]).reverse(0));
  const range = { qmin: -4, qmax: 3 };
  const all: Record<string, [Tensor[], (...xs: Tensor[]) => Tensor]> = {
    linear: [
      [seq([2, 5]), seq([3, 5]), seq([3])],
      (x, w, bias) => nn.linear(x, w, { bias }),
    ],
    rmsNorm: [[seq([2, 5]), seq([5])], (x, w) => nn.rmsNorm(x, w)],
    layerNorm: [
      [seq([2, 5]), seq([5]), seq([5])],
      (x, w, b) => nn.layerNorm(x, w, b),
    ],
    gelu: [[seq([6])], (x) => nn.gelu(x)],
    geluTanh: [[seq([6])], (x) => nn.gelu(x, { approximate: "tanh" })],
    swiglu: [[seq([6]), seq([6], 0.7)], (gate, up) => nn.swiglu(gate, up)],
    rope: [[seq([1, 3, 1, 4])], (x) => nn.rope(x, { offset: 2 })],
    attention: [
      [seq([1, 2, 2, 3]), seq([1, 3, 1, 3]), seq([1, 3, 1, 3])],
      (q, k, v) => nn.attention(q, k, v),
    ],
    crossEntropy: [
      [seq([3, 4])],
      (x) => nn.crossEntropy(x, tf.tensor1d([2, -1, 0], "int32")),
    ],
    klDivergence: [
      [seq([3, 4])],
      (x) => nn.klDivergence(x, kl, { temperature: 2 }),
    ],
    embedding: [
      [seq([4, 3])],
      (table) => nn.embedding(tf.tensor1d([1, 3, 1, 0], "int32"), table),
    ],
    fakeQuantTensor: [
      [seq([2, 5])],
      (x) => nn.fakeQuant(x, { scale: 0.3, zeroPoint: 1, ...range }),
    ],
    fakeQuantChannel: [[seq([2, 5])], (x) =>
      nn.fakeQuant(x, {
        scale: tf.tensor2d([0.25, 0.4], [2, 1]),
        zeroPoint: tf.tensor2d([0, -1], [2, 1]),
        ...range,
      })],
    fakeQuantScale: [
      [seq([2, 5]), tf.tensor1d([0.3])],
      (x, scale) => nn.fakeQuant(x, { scale, zeroPoint: 1, ...range }),
    ],
    conv2d: [
      [seq([1, 5, 4, 2]), seq([3, 2, 2, 3])],
      (x, filter) => nn.conv2d(x, filter, { strides: 2, pad: "same" }),
    ],
  };
  assert.equal(Object.keys(all).sort(), Object.keys(golden).sort());
  for (const [name, [xs, f]] of Object.entries(all)) {
    tf.tidy(() => {
      const { value, grads } = golden[name];
      const y = f(...xs);
      close(y.dataSync(), value, GOLDEN_TOLERANCE, `${name}: value`);
      const c = tf.tensor(
        Float32Array.from({ length: y.size }, (_, i) => Math.cos(i)),
        y.shape,
      );
      gradients(f, xs, c).forEach((g, i) =>
        close(
          g.dataSync(),
          grads[i],
          GOLDEN_TOLERANCE,
          `${name}: gradient ${i}`,
        )
      );
    });
  }
});

test("values and gradients of the oracle", () => {
  for (const { name, shapes, fast, slow } of cases()) {
    tf.tidy(() => {
      const xs = shapes.map((shape, i) => gaussian(`${name} ${i}`, shape));
      const y = fast(...xs);
      const expected = slow(...xs);
      assert.equal(y.shape, expected.shape, `${name}: shape`);
      close(y.dataSync(), expected.dataSync(), ORACLE_TOLERANCE, name);
      const c = gaussian(`${name} c`, y.shape);
      const ours = gradients(fast, xs, c);
      const theirs = gradients(slow, xs, c);
      ours.forEach((g, i) => {
        assert.equal(g.shape, xs[i].shape, `${name}: shape of gradient ${i}`);
        const what = `${name}: gradient ${i}`;
        close(g.dataSync(), theirs[i].dataSync(), ORACLE_TOLERANCE, what);
      });
    });
  }
});

test("gradients by finite differences", () => {
  for (const { name, shapes, fast, straightThrough } of cases()) {
    if (straightThrough) continue;
    tf.tidy(() => {
      const xs = shapes.map((shape, i) => gaussian(`${name} ${i}`, shape));
      const c = gaussian(`${name} c`, fast(...xs).shape);
      const weights = c.dataSync();
      const value = (args: Tensor[]) => {
        const y = fast(...args).dataSync();
        let sum = 0; // in double precision
        for (let i = 0; i < y.length; i++) sum += y[i] * weights[i];
        return sum;
      };
      gradients(fast, xs, c).forEach((g, i) => {
        const direction = gaussian(`${name} d ${i}`, xs[i].shape);
        const slope = (h: number) => {
          const moved = (step: number) =>
            xs.map((x, j) => j === i ? x.add(direction.mul(step)) : x);
          return (value(moved(h)) - value(moved(-h))) / (2 * h);
        };
        const h = 0.02;
        // Richardson: the error of h^2 cancels.
        const numeric = (4 * slope(h / 2) - slope(h)) / 3;
        const analytic = g.mul(direction).sum().dataSync()[0];
        const scale = Math.max(
          1,
          Math.sqrt(g.square().sum().dataSync()[0]) *
            Math.sqrt(direction.size) / 10,
        );
        assert.ok(
          Math.abs(numeric - analytic) <= DIFFERENCE_TOLERANCE * scale,
          `${name}: gradient ${i}: ${analytic}, differences ${numeric}`,
        );
      });
    });
  }
});

test("fuzz: random sizes against the oracle", () => {
  const sizes = uniform(fold(ROOT, "sizes"), 6 * 12, 1, 20);
  for (let round = 0; round < 12; round++) {
    tf.tidy(() => {
      const [N, I, O, T, extra, D] = Array.from(
        sizes.slice(6 * round, 6 * round + 6),
        Math.floor,
      );
      const heads = 1 + round % 3;
      const check = (
        what: string,
        f: (...xs: Tensor[]) => Tensor,
        g: (...xs: Tensor[]) => Tensor,
        ...shapes: number[][]
      ) => {
        const xs = shapes.map((s, i) => gaussian(`${what} ${round} ${i}`, s));
        const c = gaussian(`${what} ${round} c`, f(...xs).shape);
        const label = `${what}, round ${round}, shapes ${shapes.join(" ")}`;
        close(
          f(...xs).dataSync(),
          g(...xs).dataSync(),
          ORACLE_TOLERANCE,
          label,
        );
        const theirs = gradients(g, xs, c);
        gradients(f, xs, c).forEach((d, i) =>
          close(d.dataSync(), theirs[i].dataSync(), 2 * ORACLE_TOLERANCE, label)
        );
      };
      check(
        "linear",
        (x, w, bias) => nn.linear(x, w, { bias }),
        reference.linear,
        [N, I],
        [O, I],
        [O],
      );
      check(
        "attention",
        (q, k, v) => nn.attention(q, k, v, { scale: 0.3 }),
        (q, k, v) => reference.attention(q, k, v, { causal: true, scale: 0.3 }),
        [2, T, 2 * heads, D],
        [2, T + extra - 1, heads, D],
        [2, T + extra - 1, heads, D],
      );
      check(
        "layerNorm",
        (x, g, b) => nn.layerNorm(x, g, b, { eps: 0.1 }),
        (x, g, b) => reference.layerNorm(x, g, b, 0.1),
        [N, I],
        [I],
        [I],
      );
    });
  }
});

/** Largest relative error of a vector function against Math over n points of [low, high]. */
function worst(
  name: "vectorExp" | "vectorTanh",
  exact: (x: number) => number,
  low: number,
  high: number,
): number {
  const n = 100_003;
  const x = tf.tensor(
    Float32Array.from(
      { length: n },
      (_, i) => low + (high - low) * i / (n - 1),
    ),
  );
  const y = output([n]);
  kernels()![name](address(x), address(y), n);
  const [from, to] = [x.dataSync(), y.dataSync()];
  tf.dispose([x, y]);
  let error = 0;
  for (let i = 0; i < n; i++) {
    const value = exact(from[i]);
    if (value !== 0) error = Math.max(error, Math.abs(to[i] / value - 1));
  }
  return error;
}

function vector(name: "vectorExp" | "vectorTanh", values: number[]): number[] {
  return tf.tidy(() => {
    const x = tf.tensor1d(values);
    const y = output([values.length]);
    kernels()![name](address(x), address(y), values.length);
    return [...y.dataSync()];
  });
}

test("exp and tanh: three units in the last place, and the edges", () => {
  const ulps3 = 3 * 2 ** -24 * 2;
  assert.ok(worst("vectorExp", Math.exp, -86.9, 88.7) < ulps3);
  assert.ok(worst("vectorExp", Math.exp, -1e-3, 1e-3) < ulps3);
  assert.ok(worst("vectorTanh", Math.tanh, -12, 12) < ulps3);
  assert.ok(worst("vectorTanh", Math.tanh, -1e-3, 1e-3) < ulps3);
  assert.equal(
    vector("vectorExp", [0, 89, 1e9, Infinity, -87.4, -1e9, -Infinity, NaN]),
    [1, Infinity, Infinity, Infinity, 0, 0, 0, NaN],
  );
  assert.equal(
    vector("vectorTanh", [0, 50, -50, Infinity, -Infinity, NaN]),
    [0, 1, -1, 1, -1, NaN],
  );
});

test("gelu far out: 0 on the left, x on the right, NaN stays", () => {
  for (const approximate of ["none", "tanh"] as const) {
    tf.tidy(() => {
      const x = tf.tensor1d([-1e4, -40, 40, 1e4, NaN]);
      const y = [...nn.gelu(x, { approximate }).dataSync()];
      close(y.slice(0, 4), [0, 0, 40, 1e4], 1e-9, approximate);
      assert.ok(Number.isNaN(y[4]));
    });
  }
});

test("permuted channels of a normalisation permute its result", () => {
  tf.tidy(() => {
    const order = tf.tensor1d(
      Int32Array.from(permutation(fold(ROOT, "order"), 13)),
      "int32",
    );
    const [x, g, b] = [
      gaussian("px", [4, 13]),
      gaussian("pg", [13]),
      gaussian("pb", [13]),
    ];
    close(
      nn.layerNorm(x.gather(order, 1), g.gather(order), b.gather(order))
        .dataSync(),
      nn.layerNorm(x, g, b).gather(order, 1).dataSync(),
      ORACLE_TOLERANCE,
      "layerNorm",
    );
  });
});

test.run();
