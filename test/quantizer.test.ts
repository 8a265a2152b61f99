/**
 * Quantizers: values and stated gradients by hand and by PyTorch, estimators against slow searches.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  memory,
  ready,
  type Scalar,
  type Tensor,
  tf,
} from "../lib/core/tensor.ts";
import * as nn from "../lib/core/nn.ts";
import { fold, key, normal } from "../lib/core/rng.ts";
import {
  absMax,
  asymmetric,
  calibrate,
  codeInside,
  codeStatistics,
  doReFaActivation,
  doReFaWeight,
  edgeQatActivation,
  estimated,
  fakeQuantize,
  type FakeQuantizer,
  fixedRange,
  type Granularity,
  grid,
  layout,
  learned,
  leastSquares,
  llmQat,
  log2,
  lsq,
  lsqInitialStep,
  lsqPlus,
  minMax,
  nipq,
  pact,
  percentile,
  powerOfTwo,
  type Quantization,
  quantizeCodes,
  roundHalfEven,
  roundToNearest,
  shuffledNoise,
  stochastic,
  symmetric,
  symmetricHalf,
  uniformNoise,
} from "../lib/core/quantizer.ts";

import {
  floatsAt,
  linear as integerLinear,
  openIntegerEngine,
  packWeights,
  putFloats,
  quantizeActivations,
} from "../lib/core/integer/bindings.ts";

process.env.ADIABAT_BLAS = "off";

/** float32 rounding of a handful of operations on numbers of the size 1. */
const CLOSE = 2e-6;

const X = [0.3, -1.27, 0.05, 2.4, -0.62, 0.875];
const X2 = [-2.2, 0.5, 1.1, -0.13, 0, 3.1];
const DY = [1, -0.5, 2, 0.25, -1.5, 0.75, 0.5, 1.25, -2, 1, 3, -0.25];

const numbers = (t: Tensor) => [...t.dataSync()];

function near(got: ArrayLike<number>, expected: number[], what: string) {
  assert.is(got.length, expected.length, what);
  expected.forEach((v, i) =>
    assert.ok(
      Math.abs(got[i] - v) <= CLOSE * Math.max(1, Math.abs(v)),
      `${what}: ${got[i]} for ${v} at ${i}`,
    )
  );
}

/** y and the gradients of sum(dy y) with respect to x and the parameters. */
function run(
  f: (x: Tensor, ...params: Tensor[]) => Tensor,
  params: number[] = [],
) {
  const x = tf.tensor2d([X, X2]);
  const dy = tf.tensor2d(DY, [2, 6]);
  const variables = params.map((p) => tf.scalar(p));
  const y = f(x, ...variables);
  const grads = tf.grads((...args) => {
    const [x, ...rest] = args as Tensor[];
    return f(x, ...rest).mul(dy).sum();
  })([x, ...variables]);
  return {
    y: numbers(y),
    dx: numbers(grads[0]),
    params: grads.slice(1).map((g) => g.dataSync()[0]),
  };
}

interface Golden {
  y: number[];
  dx: number[];
  [parameter: string]: number | number[];
}

const golden = JSON.parse(
  readFileSync(new URL("./golden/quantizer.json", import.meta.url), "utf8"),
) as Record<string, Golden>;

test("setup", async () => {
  await ready();
  assert.ok(Object.keys(golden).length >= 9);
});

// The numbers are PyTorch's: /usr/bin/python3 test/golden/quantizer.py (torch 1.13.0).
const METHODS: [
  string,
  (x: Tensor, ...params: Tensor[]) => Tensor,
  Record<string, number>,
][] = [
  ["edge", (x, a, z) => edgeQatActivation(a, z, { bits: 4 })(x), {
    alpha: 0.21,
    zp: 0.6,
  }],
  ["lsq", (x, a) => lsq(a, { bits: 4 })(x), { alpha: 0.17 }],
  ["lsqplus", (x, s, b) => lsqPlus(s, b, { bits: 4 })(x), {
    s: 0.19,
    beta: -0.7,
  }],
  ["pact", (x, a) => pact(a, { bits: 4 })(x), { alpha: 1.1 }],
  ["dorefa", (x) => doReFaWeight({ bits: 4 })(x), {}],
  ["llmqat", (x) => llmQat({ bits: 4 })(x), {}],
  ["torchfake", (x) =>
    fakeQuantize(x, {
      grid: grid({ bits: 4, signed: false }),
      calibration: learned({
        scale: tf.scalar(0.21),
        zeroPoint: tf.scalar(3),
      }),
      through: codeInside,
    }), {}],
  ["torchchannel", (x) =>
    fakeQuantize(x, {
      grid: grid({ bits: 4 }),
      granularity: { channel: 0 },
      calibration: learned({
        scale: tf.tensor2d([[0.1], [0.3]]),
        zeroPoint: tf.tensor2d([[2], [-3]]),
      }),
      through: codeInside,
    }), {}],
  ["nipq_eval", (x, a) => nipq(a, { bits: 4 })(x), { a: 0.8 }],
];

for (const [name, f, params] of METHODS) {
  test(`${name}: values and gradients are PyTorch's`, () => {
    const got = run(f, Object.values(params));
    near(got.y, golden[name].y, `${name} y`);
    near(got.dx, golden[name].dx, `${name} dx`);
    Object.keys(params).forEach((parameter, i) =>
      near(
        [got.params[i]],
        [golden[name][`d_${parameter}`] as number],
        `${name} d_${parameter}`,
      )
    );
  });
}

test("LSQ by hand: the gradient of the step is -2 below, 1 above, round(v) - v inside, times g", () => {
  // 2 bits, step 0.5: v = x / 0.5 = -4, -0.6, 0.2, 1.8; codes -2, -1, 0, 1
  const x = tf.tensor1d([-2, -0.3, 0.1, 0.9]);
  const step = tf.scalar(0.5);
  assert.equal(numbers(lsq(step, { bits: 2 })(x)), [-1, -0.5, 0, 0.5]);
  const each = X.slice(0, 4).map((_, i) => {
    const pick = tf.oneHot(tf.scalar(i, "int32"), 4).cast("float32");
    const [dx, ds] = tf.grads((x, s) => lsq(s, { bits: 2 })(x).mul(pick).sum())(
      [x, step],
    );
    return [numbers(dx)[i], ds.dataSync()[0]];
  });
  const g = 1 / Math.sqrt(4 * 1);
  near(each.map(([dx]) => dx), [0, 1, 1, 0], "dx");
  near(each.map(([, ds]) => ds / g), [-2, -1 + 0.6, 0 - 0.2, 1], "dstep");
});

test("at a bound LSQ passes nothing, clamp does", () => {
  const x = tf.tensor1d([-1, 0.5]); // v = -2 and 1, the ends of 2 bits
  const slope = (f: FakeQuantizer) =>
    numbers(tf.grad((x) => f(x as Tensor).sum() as Scalar)(x));
  assert.equal(slope(lsq(tf.scalar(0.5), { bits: 2 })), [0, 0]);
  const clamp = (x: Tensor) =>
    fakeQuantize(x, {
      grid: grid({ bits: 2 }),
      calibration: learned({ scale: tf.scalar(0.5) }),
    });
  assert.equal(slope(clamp), [1, 1]);
});

test("PACT by hand: alpha learns from what it cuts, ties included", () => {
  const x = tf.tensor1d([-1, 0.4, 1, 3]);
  const alpha = tf.scalar(1);
  const [dx, da] = tf.grads((x, a) =>
    pact(a, { bits: 2 })(x).mul(tf.tensor1d([1, 10, 100, 1000])).sum()
  )([x, alpha]);
  near(numbers(pact(alpha, { bits: 2 })(x)), [0, 1 / 3, 1, 1], "y");
  assert.equal(numbers(dx), [0, 10, 0, 0]);
  assert.equal(da.dataSync()[0], 1100);
});

test("NIPQ has true derivatives: finite differences of its noisy forward agree", () => {
  const noise = uniformNoise(key(5));
  const at = (value: number) => {
    const x = tf.tensor1d([0.2, 0.9, 0.35, 5, 0.6]);
    return nipq(tf.scalar(value), { bits: 3, noise })(x).sum().dataSync()[0];
  };
  const h = 1e-2;
  const x = tf.tensor1d([0.2, 0.9, 0.35, 5, 0.6]);
  const [, da] = tf.grads((x, a) =>
    nipq(a, { bits: 3, noise })(x as Tensor).sum()
  )([x, tf.scalar(1.5)]);
  const slope = (at(1.5 + h) - at(1.5 - h)) / (2 * h);
  assert.ok(Math.abs(da.dataSync()[0] - slope) < 1e-3, `${slope}`);
});

test("log2 by hand, zeros and the gradient's rule", () => {
  const x = tf.tensor1d([1, 0.5, 0.36, 0.34, 2 ** -15, 2 ** -16, 0]);
  assert.equal(numbers(log2()(x)), [1, 0.5, 0.5, 0.25, 2 ** -15, 0, 0]);
  assert.equal(numbers(log2()(tf.tensor1d([0.3536, 0.3535]))), [0.5, 0.25]);
  const dx = tf.grad((x) => log2()(x as Tensor).sum() as Scalar)(x);
  assert.equal(numbers(dx), [1, 1, 1, 1, 1, 0, 0]);
});

test("log2 keeps what has no logarithm apart from 0", () => {
  const x = tf.tensor1d([NaN, -1, -0.5, 0, 1.0000001]);
  assert.equal(numbers(log2()(x)), [NaN, NaN, NaN, 0, 1]);
});

test("EdgeQAT's activations: 0 stays 0 whatever the learned zero point, which learns as if whole", () => {
  const x = tf.tensor1d([0, 0.26, -0.9]);
  // z = 2, 0, -2: ties to even
  for (const zp of [1.5, 0.5, -1.6]) {
    const y = numbers(edgeQatActivation(tf.scalar(0.25), tf.scalar(zp))(x));
    near(y, [0, 0.25, -1], `zero point ${zp}`);
  }
  // 2 bits, z = 1: v + z = -3, 1, 2, 3 passes from -2 to 1; dL/dzp = alpha (m - 1), times g
  const slope = tf.grad((zp) =>
    edgeQatActivation(tf.scalar(0.5), zp as Tensor, { bits: 2 })(
      tf.tensor1d([-2, 0, 0.5, 1]),
    ).mul(tf.tensor1d([1, 10, 100, 1000])).sum() as Scalar
  )(tf.scalar(0.8));
  near(numbers(slope), [-0.5 * 1101 / Math.sqrt(4)], "dzp");
});

test("LLM-QAT gives numbers that are never negative all codes, if told", () => {
  const x = tf.tensor1d([0, 1, 2, 3].map((v) => v / 3));
  const levels = (signed: boolean) =>
    new Set(
      numbers(llmQat({ bits: 2, signed, granularity: "tensor" })(x))
        .map((v) => Math.round(3 * v)),
    );
  assert.equal(levels(false), new Set([0, 1, 2, 3]));
  assert.equal(levels(true), new Set([0, 3]));
});

test("rounding: ties to even, stochastic right on average, noise of the size of rounding", () => {
  assert.equal(
    [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.4999].map(roundHalfEven),
    [
      0,
      2,
      2,
      0,
      -2,
      -2,
      0,
    ].map((v) => v === 0 ? v : v),
  );
  const parts = (rounding: Quantization["rounding"]): Quantization => ({
    grid: grid(),
    calibration: learned({ scale: tf.scalar(1) }),
    rounding,
  });
  const x = tf.fill([20000], 2.3);
  const random = numbers(fakeQuantize(x, parts(stochastic(key(1)))));
  assert.equal(new Set(random), new Set([2, 3]));
  const mean = random.reduce((a, b) => a + b) / random.length;
  // sd of the mean is sqrt(0.3 0.7 / 20000) = 0.0032
  assert.ok(Math.abs(mean - 2.3) < 0.013, `${mean}`);
  const v = tf.tensor1d(normal(key(2), 1000, 0, 30));
  const errors = numbers(v.round().sub(v)).sort();
  const noise = numbers(fakeQuantize(v, parts(shuffledNoise(key(3)))).sub(v));
  noise.sort().forEach((e, i) => assert.ok(Math.abs(e - errors[i]) < 1e-4));
});

test("granularity: each scale is its own numbers', by hand", () => {
  const x = tf.tensor2d([[1, -2, 3, -4], [10, 20, 0, 0]]);
  const scales = (granularity: Granularity) =>
    [
      ...quantizeCodes(x, {
        grid: grid(),
        granularity,
        calibration: estimated(),
      }).scale,
    ].map((s) => Math.round(s * 127));
  assert.equal(scales("tensor"), [20]);
  assert.equal(scales("token"), [4, 20]);
  assert.equal(scales({ channel: 0 }), [4, 20]);
  assert.equal(scales({ channel: 1 }), [10, 20, 3, 4]);
  assert.equal(scales({ channel: -1 }), [10, 20, 3, 4]);
  assert.equal(scales({ group: 2 }), [2, 4, 20, 127]); // nothing but zeros: 1
  assert.equal(layout([3, 4, 6], { group: 3 }), {
    shape: [3, 4, 2, 3],
    axes: [3],
  });
});

test("steps by hand: symmetric, the half rule, asymmetric, power of two", () => {
  const range = { low: tf.scalar(-1.5), high: tf.scalar(2.25) };
  const g = grid({ bits: 4 });
  near(numbers(symmetric(range, g).scale), [2.25 / 7], "symmetric");
  near(numbers(symmetricHalf(range, g).scale), [2.25 / 7.5], "half");
  const { scale, zeroPoint } = asymmetric(range, g);
  near(numbers(scale), [0.25], "asymmetric");
  assert.equal(numbers(zeroPoint!), [-2]); // -8 + 6
  assert.equal(numbers(powerOfTwo()(range, g).scale), [0.5]);
  const exact = { low: tf.scalar(0), high: tf.scalar(7 / 8) };
  assert.equal(numbers(powerOfTwo()(exact, g).scale), [0.125]);
});

test("codes and fake quantisation agree bit by bit, for every estimator and granularity", () => {
  const x = tf.tensor(normal(key(11), 6 * 8, 0.3), [6, 8]);
  for (
    const granularity of ["tensor", "token", { channel: 1 }, {
      group: 4,
    }] as const
  ) {
    for (
      const range of [
        minMax,
        absMax,
        percentile(0.9),
        leastSquares(),
        leastSquares({ symmetric: false }),
      ]
    ) {
      for (const step of [symmetric, asymmetric, symmetricHalf, powerOfTwo()]) {
        for (const signed of [true, false]) {
          const parts: Quantization = {
            grid: grid({ bits: 4, signed }),
            granularity,
            calibration: estimated(range, step),
          };
          const y = numbers(fakeQuantize(x, parts));
          const { codes, scale, zeroPoint } = quantizeCodes(x, parts);
          codes.forEach((code, i) => {
            const [row, column] = [Math.floor(i / 8), i % 8];
            const s = granularity === "tensor"
              ? 0
              : granularity === "token"
              ? row
              : "channel" in granularity
              ? column
              : Math.floor(i / 4);
            const zero = zeroPoint[s % zeroPoint.length];
            assert.is(y[i] + 0, Math.fround(scale[s] * (code - zero)) + 0);
          });
        }
      }
    }
  }
});

test("codes by a slow loop, with scales, zero points and shifts of any shape", () => {
  const [N, K] = [7, 12];
  const values = normal(key(17), N * K, 0, 2).map((v) => Math.round(8 * v) / 8); // with ties
  const x = tf.tensor(values, [N, K]);
  const scales = Array.from({ length: N }, (_, i) => 0.25 * (i + 1));
  const zeros = Array.from({ length: K }, (_, i) => i % 3 - 1);
  const { codes, scale } = quantizeCodes(x, {
    grid: grid({ bits: 3 }),
    granularity: { channel: 0 },
    calibration: learned({
      scale: tf.tensor(scales, [N, 1]),
      zeroPoint: tf.tensor(zeros, [1, K]),
      shift: tf.scalar(1),
    }),
  });
  const expected = Array.from(values, (v, i) => {
    const [row, column] = [Math.floor(i / K), i % K];
    const steps = Math.fround(Math.fround(v / scales[row]) + 1);
    return Math.min(3, Math.max(-4, roundHalfEven(steps) + zeros[column]));
  });
  assert.equal([...codes], expected);
  assert.equal([...scale], scales);
});

/** A walk over every number of a matrix of this size by tf.tidy takes seconds. */
const MANY = 2 ** 21;

test("codes of a large matrix take a fraction of a second", () => {
  const x = tf.tensor(new Float32Array(MANY).fill(0.5), [2048, MANY / 2048]);
  const start = process.cpuUsage();
  const { codes } = quantizeCodes(x, {
    grid: grid(),
    granularity: { channel: 0 },
    calibration: estimated(),
  });
  const { user, system } = process.cpuUsage(start);
  assert.ok(codes.every((code) => code === 127));
  assert.ok((user + system) / 1e6 < 0.8, `${(user + system) / 1e6} s`);
  x.dispose();
});

test("percentile is numpy's, and least squares is no worse than any range on a finer search", () => {
  // numpy.percentile([-3, 1, 2, 4, 10, 0.5], [20, 80]) = [0.5, 4.]
  const x = tf.tensor1d([-3, 1, 2, 4, 10, 0.5]);
  const { low, high } = percentile(0.8)(x, [0], grid());
  assert.equal([...numbers(low), ...numbers(high)], [0, 4]);
  const values = normal(key(12), 400);
  values[7] = 9; // an outlier
  const t = tf.tensor1d(values);
  const error = (high: number) => {
    const parts: Quantization = {
      grid: grid({ bits: 3 }),
      calibration: learned({ scale: tf.scalar(high / 3) }),
    };
    return fakeQuantize(t, parts).sub(t).square().sum().dataSync()[0];
  };
  const found = error(
    numbers(leastSquares()(t, [0], grid({ bits: 3 })).high)[0],
  );
  for (let c = 0.05; c <= 1; c += 0.0037) {
    assert.ok(found <= error(9 * c) * 1.01, `${c}`);
  }
  assert.ok(found < 0.5 * error(9), "clipping the outlier pays");
});

test("weights of LSQ start at 2 mean|x| / sqrt(qmax), per channel too", () => {
  const w = tf.tensor2d([[1, -3], [0.5, 0.5]]);
  near(
    numbers(lsqInitialStep(w, { bits: 4 })),
    [2 * 1.25 / Math.sqrt(7)],
    "tensor",
  );
  near(
    numbers(lsqInitialStep(w, { bits: 4, granularity: { channel: 0 } })),
    [4 / Math.sqrt(7), 1 / Math.sqrt(7)],
    "channel",
  );
});

test("per channel, each learned step gets the gradient of its own numbers", () => {
  const w = tf.tensor2d([X, X2]);
  const steps = tf.tensor2d([[0.17], [0.3]]);
  const options = { bits: 4, granularity: { channel: 0 } } as const;
  const both = tf.grad((s) => lsq(s as Tensor, options)(w).sum() as Scalar)(
    steps,
  );
  const alone = [0, 1].map((i) =>
    tf.grad((s) =>
      lsq(s as Tensor, { bits: 4 })(w.slice([i, 0], [1, 6])).sum() as Scalar
    )(tf.scalar([0.17, 0.3][i])).dataSync()[0]
  );
  near(numbers(both), alone, "steps");
});

test("calibration over batches: the widest range, and the mean one", () => {
  const batches = [[1, -0.5], [-3, 2], [0, 0.25]].map((v) => tf.tensor1d(v));
  const options = { grid: grid(), step: asymmetric };
  const widest = calibrate(batches, options).affine;
  near(numbers(widest.scale), [5 / 255], "widest");
  const mean = calibrate(batches, { ...options, merge: "mean" }).affine;
  near(numbers(mean.scale), [((1 + 2 + 0.25) + 3.5) / 3 / 255], "mean");
  assert.throws(() => calibrate([], options), /at least one batch: 0 batches/);
  assert.throws(
    () => calibrate([tf.tensor1d([1, NaN])], options),
    /batch 0 .* NaN at 1/,
  );
});

test("a linear layer takes quantizers, and trains through them", () => {
  const step = tf.variable(tf.scalar(0.02));
  const weight = tf.variable(tf.tensor2d(normal(key(20), 24), [4, 6]));
  const x = tf.tensor2d(normal(key(21), 18), [3, 6]);
  const quantizer = {
    weight: lsq(step, { bits: 4 }),
    activation: roundToNearest({ granularity: "token" }),
  };
  const loss = () =>
    nn.linear(x, weight, { quantizer }).sub(nn.linear(x, weight)).square()
      .mean() as Scalar;
  const first = loss().dataSync()[0];
  const optimizer = tf.train.adam(0.02);
  for (let i = 0; i < 60; i++) {
    optimizer.minimize(() => loss(), false, [step]);
  }
  const trained = loss().dataSync()[0];
  assert.ok(trained < first / 20, `${first} to ${trained}`);
  for (const v of [step, weight]) v.dispose();
});

/** Both add the same products: the one exactly, the other in float32 over 96 terms. */
const SUM_TOLERANCE = 3e-6;

test("the integer layer is the fake-quantised one: W8A8, W4A4, W4A8 in groups", () => {
  const [M, N, K] = [5, 13, 96];
  const x = tf.tensor2d(normal(key(30), M * K, 0.4), [M, K]);
  const w = tf.tensor2d(normal(key(31), N * K, 0, 0.2), [N, K]);
  const cases = [
    ["int8", 8, 8, { channel: 0 }, symmetric],
    ["int8", 8, 8, { channel: 0 }, asymmetric],
    ["pairs", 4, 4, { channel: 0 }, symmetric],
    ["agile", 4, 4, "tensor", asymmetric],
    ["nibble-groups", 4, 8, { group: 32 }, asymmetric],
  ] as const;
  for (const [format, bits, activationBits, granularity, step] of cases) {
    const weight: Quantization = {
      grid: grid({ bits, signed: format !== "nibble-groups" }),
      granularity,
      calibration: estimated(minMax, step),
    };
    const grouped = format === "nibble-groups";
    const activation: Quantization = {
      grid: grid({ bits: activationBits }),
      granularity: "token",
      calibration: estimated(minMax, grouped ? symmetric : step),
    };
    const expected = numbers(nn.linear(x, w, {
      quantizer: {
        weight: (w) => fakeQuantize(w, weight),
        activation: (x) => fakeQuantize(x, activation),
      },
    }));
    const engine = openIntegerEngine();
    const { codes, scale, zeroPoint } = quantizeCodes(w, weight);
    const one = granularity === "tensor";
    const packed = packWeights(engine, codes, N, K, {
      format,
      scale: one ? scale[0] : scale,
      zeroPoint: one ? zeroPoint[0] : zeroPoint,
      ...(grouped ? { groupSize: 32 } : {}),
    });
    const input = putFloats(engine, x.dataSync() as Float32Array);
    const y = engine.allocate(4 * M * N);
    const a = quantizeActivations(engine, input, M, K, {
      format,
      symmetric: grouped || step === symmetric,
    });
    integerLinear(engine, a, packed, y);
    const got = floatsAt(engine, y, M * N);
    const size = Math.max(...expected.map(Math.abs));
    expected.forEach((v, i) =>
      assert.ok(
        Math.abs(got[i] - v) <= SUM_TOLERANCE * size,
        `${format}: ${got[i]} for ${v} at ${i}`,
      )
    );
  }
});

test("16 and 32 bits pass everything; other bits, shapes and numbers are refused with the value", () => {
  const x = tf.tensor2d([X, X2]);
  for (const bits of [16, 32]) assert.is(roundToNearest({ bits })(x), x);
  for (const bits of [1, 9, 4.5, NaN]) {
    assert.throws(() => grid({ bits }), new RegExp(`bits ${bits}`));
  }
  assert.throws(
    () => roundToNearest({ granularity: { group: 4 } })(x),
    /group size 4, shape \[2, 6\]/,
  );
  assert.throws(
    () => roundToNearest({ granularity: { channel: 2 } })(x),
    /axis 2/,
  );
  const parts: Quantization = { grid: grid(), calibration: estimated() };
  assert.throws(
    () => quantizeCodes(tf.tensor1d([1, -Infinity]), parts, "layers.0.weight"),
    /layers\.0\.weight .* -Infinity at 1/,
  );
  assert.throws(() => fakeQuantize(tf.zeros([0, 3]), parts), /\[0, 3\]/);
  assert.throws(() => fixedRange(1, 2), /contain 0: 1 to 2/);
  assert.throws(() => percentile(0.5), /p 0\.5/);
  const shifted = learned({ scale: tf.scalar(1), shift: tf.scalar(0.5) });
  assert.throws(
    () => quantizeCodes(x, { ...parts, calibration: shifted }),
    /must be whole: 0\.5/,
  );
});

test("steps that are none are refused with the tensor and the value", () => {
  const x = tf.tensor2d([X, X2]);
  for (const step of [0, -0.5, NaN, Infinity]) {
    const parts: Quantization = {
      grid: grid(),
      granularity: { channel: 0 },
      calibration: learned({ scale: tf.tensor2d([[1], [step]]) }),
    };
    assert.throws(
      () => quantizeCodes(x, parts, "layers.0.weight"),
      new RegExp(`layers\\.0\\.weight .* positive and finite: ${step} at 1`),
    );
  }
  assert.throws(
    () =>
      calibrate([tf.tensor1d([3e38, -3e38])], {
        grid: grid(),
        step: asymmetric,
      }),
    /positive and finite: Infinity at 0/,
  );
});

test("zeros stay zeros, and steps of fixed ranges and DoReFa activations are what they say", () => {
  assert.equal(numbers(roundToNearest()(tf.zeros([4]))), [0, 0, 0, 0]);
  const fixed = roundToNearest({ bits: 2, range: fixedRange(-1, 1) });
  assert.equal(numbers(fixed(tf.tensor1d([0.4, 0.6, 7, -9]))), [0, 1, 1, -2]);
  near(
    numbers(doReFaActivation({ bits: 2 })(tf.tensor1d([-1, 0.4, 0.6, 2]))),
    [0, 1 / 3, 2 / 3, 1],
    "DoReFa",
  );
  assert.equal(codeStatistics([1, 1, 2, 2]), { levels: 2, entropyBits: 1 });
});

test("nothing leaks: every method, forward and backward", () => {
  const x = tf.tensor2d([X, X2]);
  const p = tf.scalar(0.3);
  const q = tf.scalar(0.2);
  const methods: ((a: Tensor, b: Tensor) => FakeQuantizer)[] = [
    (a) => lsq(a, { bits: 4 }),
    (a, b) => lsqPlus(a, b, { bits: 4 }),
    (a, b) => edgeQatActivation(a, b),
    (a) => pact(a),
    (a) => nipq(a, { noise: shuffledNoise(fold(key(1), 2)) }),
    () => llmQat(),
    () => doReFaWeight(),
    () => roundToNearest({ range: leastSquares(), step: asymmetric }),
    () => log2(),
  ];
  const before = memory().tensors;
  for (const method of methods) {
    tf.tidy(() => {
      tf.grads((x, a, b) => method(a, b)(x).add(a.add(b)).sum())([x, p, q]);
    });
    assert.is(memory().tensors, before);
  }
  calibrate([x], { grid: grid() }).affine.scale.dispose();
  assert.is(memory().tensors, before);
});

test.run();
