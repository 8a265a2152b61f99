import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Images } from "../lib/core/images.ts";
import { bits, fold, key, normal, randomInts } from "../lib/core/rng.ts";
import { memory, ready, type Tensor, tf } from "../lib/core/tensor.ts";
import {
  laplaceQuantile,
  rectifiedClamp,
  tauAt,
} from "../lib/superbnn/clamp.ts";
import { erf } from "../lib/superbnn/device.ts";
import {
  type DenseLayer,
  encodeImages,
  idealForward,
} from "../lib/superbnn/network.ts";
import {
  checkDeployment,
  evaluate,
  type LayerSpec,
  meanEncoding,
  mlp,
  signSte,
  singleTileSlope,
  streamLayer,
  thermometerEncoding,
  toNetwork,
  train,
  type TrainOptions,
  vggSmall,
} from "../lib/superbnn/train.ts";

await ready();

const close = (a: number, b: number, tolerance: number, what = "") =>
  assert.ok(Math.abs(a - b) <= tolerance, `${what}: ${a} and ${b}`);

/** Gradients of sum(weights * f(x)) to the inputs. */
function gradients(
  f: (...x: Tensor[]) => Tensor,
  inputs: Tensor[],
  weights: Tensor,
): number[][] {
  return tf.tidy(() =>
    tf.grads((...x: Tensor[]) => tf.sum(tf.mul(f(...x), weights)) as tf.Scalar)(
      inputs,
    ).map((g) => [...g.dataSync()])
  );
}

// Weights -----------------------------------------------------------------------------------------

test("sign: 0 is +1, and the gradient passes within the limit, its ends included", () => {
  const x = tf.tensor1d([-2, -1, -0.5, 0, 1, 1.01]);
  assert.equal([...signSte(x).dataSync()], [-1, -1, -1, 1, 1, 1]);
  const w = tf.tensor1d([1, 2, 3, 4, 5, 6]);
  assert.equal(gradients((t) => signSte(t), [x], w), [[0, 2, 3, 4, 5, 0]]);
  assert.equal(gradients((t) => signSte(t, Infinity), [x], w), [[
    1,
    2,
    3,
    4,
    5,
    6,
  ]]);
});

const LATENT = [
  [0.3, -1.2, 0.05, 0.9, -0.4, 2.5],
  [-0.1, 0.2, 0.15, -0.35, 0.6, -0.9],
];

test("weight rectified clamp: golden numbers of numpy", () => {
  // python3: w0 = w - w.mean(1, keepdims=True)
  //   w1 = w0 * 2 * sqrt(2) / sqrt(w0.var(1, ddof=1, keepdims=True) + 1e-5)
  //   q = -abs(w1).mean() * log(2 - 2 * 0.9); clip(w1, -q, q).ravel().round(6)
  const golden = [
    -0.130583,
    -3.297669,
    -0.690225,
    1.212558,
    -1.697582,
    3.297669,
    -0.182229,
    1.457835,
    1.184491,
    -1.54895,
    3.297669,
    -3.297669,
  ];
  const out = rectifiedClamp(tf.tensor2d(LATENT), 0.9).dataSync();
  golden.forEach((v, i) => close(out[i], v, 2e-5, `${i}`));
  close(laplaceQuantile(1, 0.9), Math.log(5), 1e-12);
  close(tauAt(0), 0.85, 1e-12);
  close(tauAt(1), 0.99, 1e-12);
  assert.ok(tauAt(0.5) < 0.92, "slow first");
  assert.throws(() => rectifiedClamp(tf.tensor2d(LATENT), 1), /tau 1/);
  assert.throws(() => rectifiedClamp(tf.tensor1d([1, 2]), 0.9), /fan-in/);
});

test("weight rectified clamp: gradient by finite differences, none outside", () => {
  const weights = [0.3, -1, 0.7, 2, -0.2, 0.4, 1.1, -0.6, 0.9, -1.5, 0.1, 0.8];
  const w = tf.tensor2d(weights, [2, 6]);
  // Nothing clamped at 0.9999: central differences of the standardised weights.
  const value = (x: number[][]) =>
    tf.tidy(() =>
      tf.sum(tf.mul(rectifiedClamp(tf.tensor2d(x), 0.9999), w)).dataSync()[0]
    );
  const [got] = gradients(
    (t) => rectifiedClamp(t, 0.9999),
    [tf.tensor2d(LATENT)],
    w,
  );
  const h = 1e-2;
  for (let i = 0; i < 12; i++) {
    const moved = (d: number) =>
      LATENT.map((row, r) => row.map((v, c) => r * 6 + c === i ? v + d : v));
    const slope = (value(moved(h)) - value(moved(-h))) / (2 * h);
    close(got[i], slope, 0.02, `weight ${i}`);
  }
  // Only the output of the largest weight counts, and it is clamped at 0.6.
  const only = tf.tensor2d(weights.map((_, i) => i === 5 ? 1 : 0), [2, 6]);
  const [blocked] = gradients(
    (t) => rectifiedClamp(t, 0.6),
    [tf.tensor2d(LATENT)],
    only,
  );
  assert.equal(blocked.map((g) => g + 0), Array(12).fill(0));
});

// Streams -----------------------------------------------------------------------------------------

/** P of Binomial(L, p) at c. */
function mass(L: number, p: number, c: number): number {
  let choose = 1;
  for (let i = 1; i <= c; i++) choose *= (L - i + 1) / i;
  return choose * p ** c * (1 - p) ** (L - c);
}

/** E[a] of a comparison with fair ties, by convolution of all tiles' counts. */
function exactExpectation(p: number[], L: number): number {
  let counts = [1];
  for (const q of p) {
    const next = Array(counts.length + L).fill(0);
    counts.forEach((w, i) => {
      for (let c = 0; c <= L; c++) next[i + c] += w * mass(L, q, c);
    });
    counts = next;
  }
  const half = p.length * L / 2;
  return counts.reduce((sum, w, c) => sum + w * Math.sign(c - half), 0);
}

const firing = (V: number, threshold: number, grayZone: number) =>
  0.5 + 0.5 * erf(Math.sqrt(Math.PI) * (V - threshold) / grayZone);

test("counts have the binomial distribution, for tiles of both sizes", () => {
  const rows = 20_000;
  for (const [L, V, last] of [[1, 2, 4], [5, -2, 4], [8, 1, 3], [32, 0, 4]]) {
    // Two tiles of 8 and one smaller: sums 8 (always +1 at a narrow gray zone), -8 and V.
    const sums = new Float32Array(3 * rows);
    sums.fill(8, 0, rows).fill(-8, rows, 2 * rows).fill(V, 2 * rows);
    const settings = {
      crossbarSize: 8,
      grayZone: 4,
      streamLength: L,
      fanIn: 16 + last,
    };
    const threshold = 1.5;
    const m = tf.tidy(() =>
      streamLayer(
        tf.tensor3d(sums, [3, rows, 1]),
        tf.tensor1d([threshold]),
        settings,
        { kind: "decoded" },
        key(L),
      ).dataSync()
    );
    const p = [8, -8, V].map((v) => firing(v, threshold / 3, 4));
    close(p[0] - p[1], 1, 1e-5, "the outer tiles are certain");
    const seen = Array(L + 1).fill(0);
    m.forEach((v) => seen[Math.round((v + 3) * L / 2) - L]++);
    let chi2 = 0;
    let cells = 0;
    for (let c = 0; c <= L; c++) {
      const wanted = rows * mass(L, p[2], c);
      if (wanted < 5) continue;
      chi2 += (seen[c] - wanted) ** 2 / wanted;
      cells++;
    }
    // Mean cells - 1, sd sqrt(2 (cells - 1)): five of them.
    assert.ok(
      chi2 < cells + 5 * Math.sqrt(2 * cells),
      `L ${L}: ${chi2} over ${cells}`,
    );
    const other = p[2] + 0.02;
    let control = 0;
    for (let c = 0; c <= L; c++) {
      const wanted = rows * mass(L, other, c);
      if (wanted >= 5) control += (seen[c] - wanted) ** 2 / wanted;
    }
    assert.ok(control > cells + 5 * Math.sqrt(2 * cells), `control ${control}`);
  }
});

test("gradient of the decoded sum: finite differences of its expectation", () => {
  const [K, R, out] = [3, 4, 5];
  const V = Float32Array.from(
    randomInts(key(1), K * R * out, 0, 9),
    (v) => 2 * v - 8,
  );
  // The last tile has 5 inputs: odd sums.
  for (let i = 2 * R * out; i < V.length; i++) {
    V[i] = Math.max(-5, Math.min(5, V[i] + 1));
  }
  const thresholds = normal(key(2), out, 0, 4);
  const w = normal(key(3), R * out);
  const grayZone = 6;
  const settings = { crossbarSize: 8, grayZone, streamLength: 4, fanIn: 21 };
  const [dV, dThreshold] = gradients(
    (v, t) => streamLayer(v, t, settings, { kind: "decoded" }, key(9)),
    [tf.tensor3d(V, [K, R, out]), tf.tensor1d(thresholds)],
    tf.tensor2d(w, [R, out]),
  );
  const expectation = (sums: ArrayLike<number>, th: ArrayLike<number>) => {
    let total = 0;
    for (let i = 0; i < sums.length; i++) {
      const p = firing(sums[i], th[i % out] / K, grayZone);
      total += w[i % (R * out)] * (2 * p - 1);
    }
    return total;
  };
  const h = 1e-4;
  const slope = (
    x: Float32Array,
    i: number,
    f: (x: Float64Array) => number,
  ) => {
    const at = (d: number) =>
      f(Float64Array.from(x, (v, j) => j === i ? v + d : v));
    return (at(h) - at(-h)) / (2 * h);
  };
  dV.forEach((g, i) =>
    close(g, slope(V, i, (x) => expectation(x, thresholds)), 1e-5, `V ${i}`)
  );
  dThreshold.forEach((g, j) =>
    close(
      g,
      slope(thresholds, j, (x) => expectation(V, x)),
      1e-5,
      `threshold ${j}`,
    )
  );
});

test("gradient of the comparison, one tile: finite differences of its exact expectation", () => {
  for (const L of [1, 2, 3, 8, 32]) {
    for (const p of [0.02, 0.3, 0.5, 0.77]) {
      const h = 1e-5;
      const slope =
        (exactExpectation([p + h], L) - exactExpectation([p - h], L)) / (2 * h);
      close(
        singleTileSlope(L, p),
        slope,
        1e-6 * Math.max(1, slope),
        `L ${L}, p ${p}`,
      );
    }
  }
  const settings = { crossbarSize: 8, grayZone: 5, streamLength: 4, fanIn: 8 };
  const V = Float32Array.from([-8, -4, -2, 0, 2, 4, 6, 8]);
  const [dV] = gradients(
    (v, t) =>
      streamLayer(v, t, settings, { kind: "compared", window: null }, key(1)),
    [tf.tensor3d(V, [1, 8, 1]), tf.tensor1d([0.7])],
    tf.ones([8, 1]),
  );
  const mean = (v: number) => exactExpectation([firing(v, 0.7, 5)], 4);
  V.forEach((v, i) =>
    close(dV[i], (mean(v + 1e-4) - mean(v - 1e-4)) / 2e-4, 1e-5, `V ${v}`)
  );
});

test("gradient of the comparison, several tiles: near the exact expectation's", () => {
  const [K, L, grayZone] = [6, 4, 8];
  const settings = { crossbarSize: 16, grayZone, streamLength: L, fanIn: 96 };
  let worst = 0;
  let steepest = 0;
  for (let n = 0; n < 20; n++) {
    const V = Float32Array.from(
      normal(fold(key(4), n), K, 0, 4),
      (v) => 2 * Math.round(v / 2),
    );
    const [dV] = gradients(
      (v, t) =>
        streamLayer(v, t, settings, { kind: "compared", window: null }, key(n)),
      [tf.tensor3d(V, [K, 1, 1]), tf.tensor1d([3])],
      tf.ones([1, 1]),
    );
    const mean = (k: number, d: number) =>
      exactExpectation(
        [...V].map((v, i) => firing(i === k ? v + d : v, 0.5, grayZone)),
        L,
      );
    for (let k = 0; k < K; k++) {
      const exact = (mean(k, 1e-4) - mean(k, -1e-4)) / 2e-4;
      worst = Math.max(worst, Math.abs(dV[k] - exact));
      steepest = Math.max(steepest, exact);
    }
  }
  // The central limit theorem over 24 bits, the spread held constant, against slopes of more than 0.1.
  assert.ok(worst < 0.02 && steepest > 0.1, `${worst} ${steepest}`);
});

test("comparison: signs only, as often as expected, ties by a coin", () => {
  const rows = 20_000;
  const sums = new Float32Array(2 * rows).fill(8, 0, rows).fill(-8, rows);
  const a = tf.tidy(() =>
    streamLayer(
      tf.tensor3d(sums, [2, rows, 1]),
      tf.tensor1d([0]),
      { crossbarSize: 8, grayZone: 0.5, streamLength: 4, fanIn: 16 },
      { kind: "compared", window: null },
      key(3),
    ).dataSync() as Float32Array
  );
  assert.ok(a.every((v) => v === 1 || v === -1));
  // One tile all ones, one all zeros: always a tie. Four standard errors of a coin.
  close(a.reduce((s, v) => s + v, 0) / rows, 0, 4 / Math.sqrt(rows));
});

// Training ----------------------------------------------------------------------------------------

/** Four classes of 8 x 8 images: a bright quarter under noise. */
function quarters(count: number, seed: number): Images {
  const labels = Uint8Array.from(randomInts(key(seed), count, 0, 4));
  const noise = bits(fold(key(seed), "noise"), count * 64);
  const images = Uint8Array.from(noise, (word, i) => {
    const place = i % 64;
    const quarter = (place >> 5) * 2 + ((place >> 2) & 1);
    const bright = quarter === labels[Math.floor(i / 64)] ? 90 : 0;
    return (word >>> 25) + bright;
  });
  return { count, height: 8, width: 8, channels: 1, images, labels };
}

const DATA = quarters(640, 1);
const HELD_OUT = quarters(300, 2);

const learn = (options: Partial<TrainOptions>, specs = mlp([32, 32])) =>
  train(DATA, specs, meanEncoding(DATA), {
    key: key(5),
    epochs: 4,
    batch: 32,
    crossbarSize: 16,
    grayZone: 4,
    streamLength: 4,
    ...options,
  });

const ARMS: Record<string, Partial<TrainOptions>> = {
  relu: { activation: "relu", learningRate: 0.003 },
  deterministic: {},
  stochastic: { activation: "stochastic", batchNorm: "decoded" },
  matched: { activation: "stochastic" },
  expectation: { activation: "stochastic", comparator: "expectation" },
  clamped: { activation: "stochastic", weights: "recu" },
};

for (const [name, options] of Object.entries(ARMS)) {
  test(`${name}: learns, and not without steps`, () => {
    const tensors = memory().tensors;
    const model = learn(options);
    const { accuracy } = evaluate(model, HELD_OUT, { key: key(1) });
    assert.ok(accuracy > 0.85, `${accuracy}`);
    assert.ok(model.losses[3] < 0.6 * model.losses[0], `${model.losses}`);
    const still = evaluate(
      learn({ ...options, epochs: 1, learningRate: 1e-7 }),
      HELD_OUT,
      {
        key: key(1),
      },
    );
    assert.ok(still.accuracy < 0.7, `control ${still.accuracy}`);
    assert.is(memory().tensors, tensors, "no tensor is left");
  });
}

test("the deployed network does what the deterministic model does", () => {
  for (
    const specs of [mlp([32, 32]), vggSmall({ channels: [4, 6], dense: [16] })]
  ) {
    const model = learn({ epochs: 1 }, specs);
    // Some negative and one vanishing gamma, as training rarely leaves them.
    for (const { gamma } of model.layers.slice(0, -1)) {
      gamma[1] *= -1;
      gamma[2] = 0;
    }
    const network = toNetwork(model);
    const { labels } = idealForward(
      network,
      encodeImages(network.input, HELD_OUT.images),
    );
    const own = evaluate(model, HELD_OUT, { key: key(1) }).labels;
    // float32 statistics: a score or a sum on the edge may fall on the other side.
    const different = labels.filter((l, i) => l !== own[i]).length;
    assert.ok(different <= 1, `${different} of ${labels.length}`);
    assert.ok(new Set(labels).size > 1);
  }
});

test("every threshold is its batch normalisation; a broken one is found by name", () => {
  for (
    const [options, specs] of [
      [{ epochs: 1 }, vggSmall({ channels: [4, 6], dense: [16] })],
      [{ ...ARMS.matched, epochs: 1 }, mlp([32, 32])],
    ] as [Partial<TrainOptions>, LayerSpec[]][]
  ) {
    const model = learn(options, specs);
    for (const { gamma } of model.layers.slice(0, -1)) gamma[1] *= -1;
    const network = toNetwork(model);
    const report = checkDeployment(model, network);
    assert.equal(report.failures, []);
    assert.is(report.agreeing, report.compared);
    const sums = model.layers.slice(0, -1).map(({ weight, beta }) =>
      weight.length + beta.length
    );
    assert.is(report.compared, sums.reduce((a, b) => a + b), "all sums");
    // A threshold moved by two units of the sum, and one weight of another neuron turned.
    const broken = structuredClone(network);
    const last = broken.layers.findLastIndex(({ kind }) => kind === "dense");
    const layer = broken.layers[last] as DenseLayer;
    layer.thresholds[3] += 2;
    layer.weights[5 * layer.inputs + 1] *= -1;
    const { agreeing, compared, failures } = checkDeployment(model, broken);
    assert.is(compared, report.compared);
    assert.is(agreeing, compared - 1 - (layer.inputs + 1));
    assert.is(failures.length, 2);
    const found = failures.sort().join("\n");
    assert.match(
      found,
      new RegExp(`layer ${last} \\(dense\\), neuron 3: .* does not fire`),
    );
    assert.match(found, /neuron 5: weights are neither/);
  }
  assert.throws(
    () =>
      checkDeployment(
        learn({ epochs: 1 }, mlp([8])),
        toNetwork(learn({ epochs: 1 })),
      ),
    /must have the layers of the model: 3 with weights, the model 2/,
  );
});

test("same key, same model; another key, another", () => {
  const options = { ...ARMS.matched, epochs: 1 };
  const first = learn(options);
  assert.equal(learn(options), first);
  const other = learn({ ...options, key: key(6) });
  assert.not.equal(other.layers[0].latent, first.layers[0].latent);
  const network = toNetwork(first);
  const signs = new Set(
    network.layers.flatMap((l) => l.kind === "pool" ? [] : [...l.weights]),
  );
  assert.equal([...signs].sort(), [-1, 1]);
});

test("training goes on from a model", () => {
  const start = learn({ epochs: 3 });
  const further = learn({
    ...ARMS.matched,
    epochs: 1,
    learningRate: 1e-3,
    initial: start,
  });
  const fresh = learn({ ...ARMS.matched, epochs: 1, learningRate: 1e-3 });
  assert.ok(
    further.losses[0] < fresh.losses[0],
    `${further.losses} ${fresh.losses}`,
  );
  assert.throws(
    () => learn({ initial: start }, mlp([16])),
    /layers must be the same/,
  );
});

test("going on inside the device keeps what gamma did, its sign included", () => {
  const start = learn({ epochs: 3 });
  // The same function, written with other gammas: turned, and stretched with beta.
  const other = structuredClone(start);
  for (const { gamma, beta, latent, mean } of other.layers.slice(0, -1)) {
    const fanIn = latent.length / gamma.length;
    for (let j = 0; j < gamma.length; j++) {
      const turn = j % 2 === 0 ? -1 : 1;
      gamma[j] *= 3 * turn;
      beta[j] *= 3;
      mean[j] *= turn;
      for (let i = 0; i < fanIn; i++) latent[j * fanIn + i] *= turn;
    }
  }
  const options = { ...ARMS.matched, epochs: 1, learningRate: 1e-7 };
  const a = learn({ ...options, initial: start });
  const b = learn({ ...options, initial: other });
  close(a.losses[0], b.losses[0], 1e-3);
});

test("encodings: means, thermometer", () => {
  const { thresholds } = meanEncoding(DATA);
  let sum = 0;
  for (let n = 0; n < DATA.count; n++) sum += DATA.images[n * 64 + 13];
  close(thresholds[13], sum / DATA.count, 1e-9);
  const code = thermometerEncoding({ height: 1, width: 1, channels: 2 }, 3);
  const a = encodeImages(code, Uint8Array.from([0, 63, 64, 128, 192, 255]));
  assert.equal([...a].map((v) => v > 0 ? 1 : 0), [
    ...[0, 0, 0, 0, 0, 0],
    ...[1, 0, 0, 1, 1, 0],
    ...[1, 1, 1, 1, 1, 1],
  ]);
});

test("bad input is refused with what is wrong", () => {
  const refused = (options: Record<string, unknown>, pattern: RegExp) =>
    assert.throws(() => learn(options as Partial<TrainOptions>), pattern);
  refused({ activation: "tanh" }, /activation must be one of .*"tanh"/);
  refused({ grayZone: 0 }, /grayZone must be finite and above 0 .*: 0/);
  refused({ grayZone: -2 }, /-2/);
  refused({ streamLength: 0 }, /streamLength must be an integer from 1: 0/);
  refused({ crossbarSize: 2.5 }, /crossbarSize .* 2\.5/);
  refused({ batch: 1000 }, /one batch of 1000: 640/);
  assert.throws(
    () => toNetwork(learn({ ...ARMS.relu, epochs: 1 })),
    /activation relu/,
  );
  assert.throws(
    () => learn({}, [{ kind: "pool", size: 3 }]),
    /windows of layer 0 must tile the map: size 3, map 8 x 8/,
  );
});

test.run();
