/** Operations of neural networks: invariants, errors, what is not computed, and memory. */
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { heap, kernels } from "../lib/core/kernels/bindings.ts";
import * as nn from "../lib/core/nn.ts";
import { sgd } from "../lib/core/optim.ts";
import { fold, key, normal, uniform } from "../lib/core/rng.ts";
import {
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";

/** Float32 rounding of sums of some tens of terms of size 1. */
const TOLERANCE = 1e-5;

const ROOT = key(7);

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

const numbers = (x: Tensor) => [...x.dataSync()];

function near(actual: number, expected: number, what: string): void {
  assert.ok(
    Math.abs(actual - expected) <= TOLERANCE * Math.max(1, Math.abs(expected)),
    `${what}: ${actual}, expected ${expected}`,
  );
}

/** Runs inside a tidy. */
const tidy = (f: () => void) => () => {
  tf.engine().startScope();
  try {
    f();
  } finally {
    tf.engine().endScope();
  }
};

test.before(async () => {
  process.env.ADIABAT_BACKEND = "wasm";
  await ready();
  assert.ok(kernels() !== null);
});

test(
  "attention: later tokens do not influence earlier ones, unless not causal",
  tidy(() => {
    const [B, T, H, D] = [2, 70, 3, 5];
    const early = 66;
    const [q, k, v] = ["q", "k", "v"].map((n) => gaussian(n, [B, T, H, D]));
    const changed = [q, k, v].map((x, i) =>
      tf.concat([
        x.slice([0, 0, 0, 0], [B, early, H, D]),
        gaussian(`late ${i}`, [B, T - early, H, D], 100),
      ], 1)
    );
    const first = (y: Tensor) =>
      numbers(y.slice([0, 0, 0, 0], [B, early, H, D]));
    const [cq, ck, cv] = changed;
    assert.equal(
      first(nn.attention(q, k, v)),
      first(nn.attention(cq, ck, cv)),
    );
    assert.not.equal(
      first(nn.attention(q, k, v, { causal: false })),
      first(nn.attention(cq, ck, cv, { causal: false })),
    );
  }),
);

test(
  "attention: one query at the end equals the last of all queries",
  tidy(() => {
    const [q, k, v] = ["q1", "k1", "v1"].map((n) => gaussian(n, [1, 9, 2, 4]));
    const all = nn.attention(q, k, v).slice([0, 8, 0, 0], [1, 1, 2, 4]);
    const one = nn.attention(q.slice([0, 8, 0, 0], [1, 1, 2, 4]), k, v);
    numbers(one).forEach((y, i) => near(y, numbers(all)[i], `number ${i}`));
  }),
);

test(
  "attention: the weights of a row sum to 1; scores may be huge",
  tidy(() => {
    const q = gaussian("hq", [1, 6, 2, 4], 300);
    const ones = tf.ones([1, 6, 2, 4]);
    for (const y of numbers(nn.attention(q, q, ones))) near(y, 1, "sum");
  }),
);

test(
  "attention: a query that sees nothing gives zeros, and zero gradients",
  tidy(() => {
    const [q, k, v] = ["bq", "bk", "bv"].map((n) => gaussian(n, [1, 2, 1, 3]));
    const bool = tf.tensor2d([[0, 0], [1, 0]], [2, 2], "bool");
    const added = tf.tensor2d([[-Infinity, -Infinity], [0, -Infinity]]);
    for (const mask of [bool, added]) {
      const f = (q: Tensor) => nn.attention(q, k, v, { causal: false, mask });
      assert.equal(numbers(f(q)).slice(0, 3), [0, 0, 0]);
      numbers(f(q)).slice(3).forEach((y, i) => near(y, numbers(v)[i], "value"));
      const g = tf.grad((q: Tensor) => f(q).sum() as Scalar)(q);
      for (const d of numbers(g)) near(d, 0, "gradient");
    }
  }),
);

test(
  "rope: position 0 stays; scores depend on the distance only",
  tidy(() => {
    const D = 8;
    const x = gaussian("rx", [1, 1, 1, D]);
    const y = gaussian("ry", [1, 1, 1, D]);
    assert.equal(numbers(nn.rope(x)), numbers(x));
    const score = (s: number, t: number) =>
      nn.rope(x, { offset: s }).mul(nn.rope(y, { offset: t })).sum()
        .dataSync()[0];
    near(score(3, 7), score(103, 107), "distance 4");
    assert.ok(Math.abs(score(3, 7) - score(3, 8)) > 1e-3, "another distance");
  }),
);

test(
  "crossEntropy: ignored rows have no loss and no gradient",
  tidy(() => {
    const logits = gaussian("ce", [4, 6]);
    const labels = tf.tensor1d([1, -1, 5, -1], "int32");
    const rows = numbers(
      nn.crossEntropy(logits, labels, { reduction: "none" }),
    );
    assert.equal([rows[1], rows[3]], [0, 0]);
    near(
      nn.crossEntropy(logits, labels).dataSync()[0],
      (rows[0] + rows[2]) / 2,
      "mean",
    );
    const g = tf.grad((x: Tensor) => nn.crossEntropy(x, labels))(logits);
    const d = numbers(g);
    assert.equal(d.slice(6, 12), [0, 0, 0, 0, 0, 0]);
    near(d.slice(0, 6).reduce((a, b) => a + b), 0, "sum of a row's gradient");
    const none = tf.tensor1d([-1, -1, -1, -1], "int32");
    assert.is(nn.crossEntropy(logits, none).dataSync()[0], 0);
  }),
);

test(
  "crossEntropy: huge logits stay finite, NaN stays NaN, -Infinity is a class that cannot be",
  tidy(() => {
    const label = tf.tensor1d([0], "int32");
    const loss = (row: number[]) =>
      nn.crossEntropy(tf.tensor2d([row]), label).dataSync()[0];
    assert.is(loss([1e30, -1e30, 0, 5, 1]), 0);
    near(loss([1e4, 1e4 + 1, 0, 0, 0]), Math.log(1 + Math.E), "large");
    assert.ok(Number.isNaN(loss([NaN, 0, 0, 0, 0])));
    assert.ok(Number.isNaN(loss([0, 0, 0, 0, NaN])));
    near(loss([1, 1, -Infinity, -Infinity, 1]), Math.log(3), "masked classes");
  }),
);

test(
  "klDivergence: 0 for the same distribution, cross entropy for a one-hot target",
  tidy(() => {
    const logits = gaussian("kl", [5, 7], 3);
    const temperature = 2.5;
    const same = tf.softmax(logits.div(temperature));
    near(
      nn.klDivergence(logits, same, { temperature }).dataSync()[0],
      0,
      "same",
    );
    const labels = tf.tensor1d([6, 0, 3, 3, 1], "int32");
    const hard = tf.oneHot(labels, 7).cast("float32");
    near(
      nn.klDivergence(logits, hard).dataSync()[0],
      nn.crossEntropy(logits, labels).dataSync()[0],
      "one-hot",
    );
  }),
);

test(
  "embedding: the gradient of repeated ids is their sum, the same bits every time",
  tidy(() => {
    const ids = integers("ids", [40], 3);
    const dy = gaussian("edy", [40, 5]);
    const f = (table: Tensor) => nn.embedding(ids, table).mul(dy).sum();
    const table = gaussian("table", [4, 5]);
    const g = numbers(tf.grad(f)(table));
    assert.equal(g, numbers(tf.grad(f)(table)));
    const expected = new Float64Array(20);
    numbers(ids).forEach((id, i) => {
      for (let j = 0; j < 5; j++) {
        expected[5 * id + j] += dy.dataSync()[5 * i + j];
      }
    });
    g.forEach((d, i) => near(d, expected[i], `number ${i}`));
    assert.equal(g.slice(15), [0, 0, 0, 0, 0], "an id that is not there");
  }),
);

test(
  "fakeQuant: at most qmax - qmin + 1 values, a grid point stays",
  tidy(() => {
    const x = gaussian("fq", [1000]);
    const options = { scale: 0.25, zeroPoint: 1, qmin: -4, qmax: 3 };
    const y = nn.fakeQuant(x, options);
    assert.ok(new Set(numbers(y)).size <= 8);
    assert.equal(numbers(nn.fakeQuant(y, options)), numbers(y));
  }),
);

test(
  "fakeQuant: the gradient passes inside the range and nowhere else",
  tidy(() => {
    const x = tf.tensor1d([-5, -1.01, 0.1, 0.74, 0.9, 7]);
    const g = tf.grad((x: Tensor) =>
      nn.fakeQuant(x, { scale: 0.5, qmin: -2, qmax: 1 }).sum()
    )(x);
    assert.equal(numbers(g), [0, 1, 1, 1, 0, 0]);
  }),
);

test(
  "linear: adapter and quantizer are called, the quantizer inside the adapter",
  tidy(() => {
    const x = gaussian("lx", [2, 3]);
    const weight = gaussian("lw", [4, 3]);
    const bias = gaussian("lb", [4]);
    const quantizer: nn.Quantizer = { weight: (w) => w.mul(2) };
    const adapter: nn.Adapter = {
      apply: (x, w, base) => base(x, w).add(base(x, w)),
    };
    const y = numbers(nn.linear(x, weight, { bias, adapter, quantizer }));
    const expected = numbers(nn.linear(x, weight.mul(4), { bias }));
    y.forEach((value, i) => near(value, expected[i], `number ${i}`));
  }),
);

/** Shapes of the tensors that the backend allocates while f runs. */
function allocations(f: () => void): string[] {
  const backend = tf.backend() as unknown as {
    makeOutput(shape: number[], ...rest: unknown[]): unknown;
  };
  const shapes: string[] = [];
  const original = backend.makeOutput;
  backend.makeOutput = function (shape, ...rest) {
    shapes.push(shape.join("x"));
    return original.call(this, shape, ...rest);
  };
  try {
    f();
  } finally {
    backend.makeOutput = original;
  }
  return shapes;
}

test(
  "a frozen weight gets no gradient and no work",
  tidy(() => {
    const x = tf.variable(gaussian("fx", [3, 5]));
    const trained = tf.variable(gaussian("ft", [7, 5]));
    const frozen = tf.variable(gaussian("ff", [11, 7]), false);
    const loss = () => nn.linear(nn.linear(x, trained), frozen).sum() as Scalar;
    const shapes = allocations(() => {
      const { grads } = valueAndGrads(loss, { trained });
      assert.equal(Object.keys(grads), ["trained"]);
    });
    assert.ok(shapes.includes("7x5"), "gradient of the trained weight");
    assert.not.ok(shapes.includes("11x7"), "gradient of the frozen weight");
    // x, before the trained weight, is not asked for: no gradient of its shape.
    assert.not.ok(shapes.includes("3x5"), "gradient of the input");
    const thawed = allocations(() => {
      tf.dispose(valueAndGrads(loss, { x, trained }).grads);
    });
    assert.ok(thawed.includes("3x5"), "gradient of the input, once asked for");
    tf.dispose([x, trained, frozen]);
  }),
);

test(
  "saved tensors are aliases: a training step copies no input",
  tidy(() => {
    const x = gaussian("ax", [17, 23]);
    const weight = tf.variable(gaussian("aw", [23]));
    const labels = integers("al", [17], 23);
    const shapes = allocations(() => {
      valueAndGrads(
        () => nn.crossEntropy(nn.rmsNorm(x, weight), labels),
        { weight },
      );
    });
    // The logits and their gradient; a copy of x or of the logits would be a third.
    assert.is(shapes.filter((s) => s === "17x23").length, 2, `${shapes}`);
    weight.dispose();
  }),
);

/** A small model that uses every operation, on the same numbers every step. */
function model() {
  const [B, T, D, H, V] = [2, 5, 12, 3, 11];
  const v = (name: string, ...shape: number[]) =>
    tf.variable(gaussian(`model ${name}`, shape, 0.3));
  const params = {
    table: v("table", V, D),
    norm: v("norm", D),
    q: v("q", D, D),
    kv: v("kv", 4, D),
    out: v("out", D, D),
    gamma: v("gamma", D),
    beta: v("beta", D),
    up: v("up", 2 * D, D),
    gate: v("gate", 2 * D, D),
    down: v("down", D, 2 * D),
    bias: v("bias", D),
    step: tf.variable(tf.tensor([[0.1]])),
    filter: v("filter", 2, 3, 1, 1),
  };
  const ids = integers("model ids", [B, T], V);
  const labels = integers("model labels", [B * T], V);
  const target = tf.keep(tf.softmax(gaussian("model target", [B * T, V])));
  const loss = () => {
    const x = nn.embedding(ids, params.table); // [B, T, D]
    const h = nn.rmsNorm(x, params.norm);
    const heads = (y: Tensor) => y.reshape([B, T, -1, D / H]);
    const kv = nn.rope(heads(nn.linear(h, params.kv)));
    const q = nn.rope(heads(nn.linear(h, params.q)));
    const a = nn.attention(q, kv, kv).reshape([B, T, D]);
    const y = nn.add(x, nn.linear(a, params.out, { bias: params.bias }));
    const n = nn.layerNorm(y, params.gamma, params.beta);
    const weight = (w: Tensor) =>
      nn.fakeQuant(w, { scale: params.step, qmin: -7, qmax: 7 });
    const gate = nn.gelu(nn.linear(n, params.gate));
    const up = nn.linear(n, params.up, { quantizer: { weight } });
    const z = nn.add(y, nn.linear(nn.swiglu(gate, up), params.down));
    const image = nn.conv2d(z.reshape([B, T, D, 1]), params.filter, {
      pad: "same",
    });
    const logits = nn.matmul(
      image.reshape([B * T, D]),
      params.table,
      { transposeB: true },
    );
    return nn.crossEntropy(logits, labels).add(
      nn.klDivergence(logits, target, { temperature: 2 }),
    ) as Scalar;
  };
  return { params, loss };
}

test("memory is flat over 1,000 steps, and the loss falls", () => {
  const { params, loss } = model();
  const optimizer = sgd({ learningRate: 0.02 });
  const losses: number[] = [];
  let settled = { tensors: 0, bytes: 0, buffers: 0, heap: 0 };
  const now = () => ({
    tensors: tf.memory().numTensors,
    bytes: tf.memory().numBytes,
    buffers: tf.memory().numDataBuffers,
    heap: heap().byteLength,
  });
  for (let i = 0; i < 1000; i++) {
    const { value, grads } = valueAndGrads(loss, params);
    optimizer.step(params, grads);
    losses.push(value.dataSync()[0]);
    tf.dispose([value, grads]);
    if (i === 10) settled = now();
  }
  assert.equal(now(), settled);
  assert.ok(losses[999] < losses[0] - 0.5, `${losses[0]} -> ${losses[999]}`);
  assert.ok(losses.every(Number.isFinite));
});

test("without a tape nothing is left behind, inside or outside a tidy", () => {
  const before = tf.memory().numTensors;
  const x = gaussian("nx", [1, 4, 2, 6]);
  const mask = tf.ones([4, 4], "bool");
  const made = [
    nn.attention(x, x, x, { mask }),
    nn.rope(x),
    nn.gelu(x),
    nn.swiglu(x, x),
    nn.fakeQuant(x, { scale: 0.1, qmin: -8, qmax: 7 }),
    nn.crossEntropy(
      tf.tidy(() => x.reshape([8, 6])),
      integers("nl", [8], 6),
    ),
  ];
  // x, mask, the reshaped logits and the labels are the test's own.
  assert.is(tf.memory().numTensors, before + made.length + 4);
});

test("an error leaves no tensor behind", () => {
  const logits = gaussian("el", [2, 3]);
  const labels = tf.tensor1d([0, 3], "int32");
  const before = tf.memory().numTensors;
  assert.throws(() => nn.crossEntropy(logits, labels), /label 3 in row 1/);
  assert.throws(() => nn.embedding(labels, logits), /below 2: id 3 at 1/);
  assert.throws(
    () =>
      nn.embedding(tf.tidy(() => labels.sub(tf.scalar(1, "int32"))), logits),
    /id -1 at 0/,
  );
  assert.is(tf.memory().numTensors, before + 1, "only the test's own ids");
});

test(
  "wrong arguments: the message names what was given",
  tidy(() => {
    const x = tf.zeros([2, 3]);
    const ids = tf.zeros([2], "int32");
    const head = tf.zeros([1, 2, 4, 3]);
    const wrong: [() => unknown, RegExp][] = [
      [() => nn.matmul(x, x), /inner sizes must agree: \[2, 3\] by \[2, 3\]/],
      [() => nn.matmul(x, ids), /requires float32: int32/],
      [() => nn.linear(x, tf.zeros([4, 2])), /x \[2, 3\], weight \[4, 2\]/],
      [
        () => nn.linear(x, tf.zeros([4, 3]), { bias: tf.zeros([3]) }),
        /bias \[3\], weight \[4, 3\]/,
      ],
      [() => nn.rmsNorm(x, tf.zeros([2])), /x \[2, 3\], weights \[2\]/],
      [
        () => nn.layerNorm(x, tf.zeros([3]), tf.zeros([4])),
        /x \[2, 3\], weights \[4\]/,
      ],
      [() => nn.swiglu(x, tf.zeros([3, 2])), /gate \[2, 3\], up \[3, 2\]/],
      [() => nn.rope(head), /D even: \[1, 2, 4, 3\]/],
      [
        () =>
          nn.attention(head, tf.zeros([1, 2, 3, 3]), tf.zeros([1, 2, 3, 3])),
        /H a multiple of G: q \[1, 2, 4, 3\], k \[1, 2, 3, 3\]/,
      ],
      [
        () =>
          nn.attention(head, tf.zeros([1, 1, 4, 3]), tf.zeros([1, 1, 4, 3])),
        /1 keys, 2 queries/,
      ],
      [
        () => nn.attention(head, head, head, { mask: tf.zeros([3, 2]) }),
        /broadcast to \[1, 4, 2, 2\]: float32 \[3, 2\]/,
      ],
      [() => nn.crossEntropy(x, tf.zeros([2])), /labels float32 \[2\]/],
      [() => nn.klDivergence(x, tf.zeros([2, 2])), /target \[2, 2\]/],
      [
        () => nn.klDivergence(x, x, { temperature: 0 }),
        /temperature must be positive: 0/,
      ],
      [() => nn.embedding(tf.zeros([2]), x), /ids float32 \[2\]/],
      [
        () => nn.fakeQuant(x, { scale: 1, qmin: 3, qmax: 3 }),
        /qmin 3, qmax 3/,
      ],
      [
        () => nn.fakeQuant(x, { scale: 0, qmin: 0, qmax: 3 }),
        /scale must be positive: 0/,
      ],
      [
        () => nn.conv2d(tf.zeros([1, 2, 2, 1]), tf.zeros([3, 3, 1, 1])),
        /filter \[3, 3, 1, 1\], pad valid/,
      ],
      [
        () =>
          nn.conv2d(tf.zeros([1, 2, 2, 1]), tf.zeros([1, 1, 1, 1]), {
            strides: 0,
          }),
        /positive integer: 0/,
      ],
    ];
    wrong.forEach(([f, message], i) => assert.throws(f, message, `case ${i}`));
  }),
);

test.run();
