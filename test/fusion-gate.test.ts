import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  avgCe,
  feedbackLoss,
  gateLoss,
  gateScores,
  gateWeights,
  initGate,
  minCe,
  only,
  randomWeights,
  selectWeights,
  standardise,
  thresholdFor,
  uniformWeights,
} from "../lib/fusion/mod.ts";
import { key } from "../lib/core/rng.ts";
import {
  ready,
  type Scalar,
  type Tensor,
  tf,
  valueAndGrads,
} from "../lib/core/tensor.ts";

await ready();

const near = (a: number, b: number, tolerance: number, what: string) =>
  assert.ok(
    Math.abs(a - b) <= tolerance * (1 + Math.abs(b)),
    `${what}: ${a} is not ${b}`,
  );
/** Single sums in float32. */
const FLOAT32 = 1e-5;
/** Central differences in float32: rounding of the loss over the step. */
const DIFFERENCES = 2e-2;

/** Analytic gradients of a variable against central differences. */
function checkGradient(f: () => Scalar, x: ReturnType<typeof tf.variable>) {
  const { grads } = valueAndGrads(f, { x: x as Tensor });
  const ours = grads.x.dataSync();
  const start = Array.from(x.dataSync());
  const h = 1e-2;
  start.forEach((_, i) => {
    const at = (shift: number) => {
      x.assign(
        tf.tensor(start.map((v, j) => j === i ? v + shift : v), x.shape),
      );
      return f().dataSync()[0];
    };
    near(ours[i], (at(h) - at(-h)) / (2 * h), DIFFERENCES, `gradient ${i}`);
  });
  x.assign(tf.tensor(start, x.shape));
}

test("weights: what passes the threshold, renormalised; the best alone if nothing does", () => {
  const w = selectWeights([0.5, 0.3, 0.15, 0.05], 0.15); // strict: 0.15 does not pass
  near(w[0], 0.625, 1e-6, "first");
  near(w[1], 0.375, 1e-6, "second");
  assert.equal(w.slice(2), [0, 0]);
  const one = selectWeights([0.3, 0.4, 0.3], 0.9);
  assert.equal(one.map(Math.round), [0, 1, 0]);
  near(selectWeights([1], 0.15)[0], 1, 1e-6, "one source");
});

test("the threshold does not turn its meaning with the number of sources", () => {
  assert.is(thresholdFor(3), 0.15);
  assert.is(thresholdFor(5), 0.15);
  near(thresholdFor(10), 0.075, 1e-9, "K = 10");
  for (const K of [2, 6, 9, 40]) {
    const w = selectWeights(new Array(K).fill(1 / K), thresholdFor(K));
    assert.is(w.filter((x) => x > 0).length, K, `equal scores of ${K}`);
  }
});

test("feedback loss: 0 if balanced, K if one takes all, by hand between", () => {
  const of = (rows: number[][]) =>
    feedbackLoss(tf.tensor2d(rows)).dataSync()[0];
  near(of([[0.5, 0.5], [0.5, 0.5]]), 0, FLOAT32, "balanced");
  near(of([[1, 0, 0, 0], [1, 0, 0, 0]]), 4, FLOAT32, "one of four");
  // I = [1.5, 0.5], mean 1, unbiased variance 0.5
  near(of([[1, 0], [0.5, 0.5]]), 0.5, FLOAT32, "by hand");
  assert.is(of([[1], [1]]), 0);
});

test("gradients of the network's losses are those of finite differences", () => {
  const x = tf.variable(
    tf.tensor2d([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]),
  );
  checkGradient(() => feedbackLoss(x), x);
  const options = { share: 0.5, feedback: 0.3 };
  const total = tf.tensor2d([[1, 2, 3], [2, 1, 0.5]]);
  checkGradient(
    () => gateLoss(x, total, { objective: "total", ...options }),
    x,
  );
  const gold = tf.tensor3d([[[0.2, 0.5, 0.1]], [[0.7, 0.1, 0.3]]]);
  checkGradient(() => gateLoss(x, gold, { objective: "gold", ...options }), x);
});

test("a dropped source gets a gradient straight through, and none when masked", () => {
  const scores = tf.variable(tf.tensor2d([[0.55, 0.4, 0.05]]));
  const cost = tf.tensor2d([[1, 2, -5]]);
  const of = (dropped: "masked" | "straight-through") =>
    valueAndGrads(
      () =>
        tf.sum(
          tf.mul(gateWeights(scores as Tensor, 0.15, dropped), cost),
        ) as Scalar,
      { scores: scores as Tensor },
    );
  const masked = of("masked");
  const through = of("straight-through");
  near(
    masked.value.dataSync()[0],
    through.value.dataSync()[0],
    FLOAT32,
    "both have one value",
  );
  assert.is(masked.grads.scores.dataSync()[2], 0);
  near(through.grads.scores.dataSync()[2], -5, FLOAT32, "straight through");
});

/** The numbers are PyTorch's: /usr/bin/python3 test/golden/fusion.py (torch 1.13.0). */
test("network, weights, CV² and gradients against PyTorch", () => {
  const K = 4;
  const widths = [K, 2 * K, K, K];
  const gate = [0, 1, 2].map((layer) => {
    const [from, to] = [widths[layer], widths[layer + 1]];
    const w = Array.from(
      { length: to * from },
      (_, n) => 0.8 * Math.sin(1 + n * (layer + 1)),
    );
    const b = Array.from({ length: to }, (_, n) => 0.1 * Math.cos(n + layer));
    return {
      weight: tf.variable(tf.tensor2d(w, [to, from])) as Tensor,
      bias: tf.variable(tf.tensor1d(b)) as Tensor,
    };
  });
  const features = tf.tensor2d([
    [1.2, -0.4, 0.3, -1.1],
    [-0.7, 1.5, -0.2, -0.6],
    [0.1, 0.2, 1.4, -1.7],
  ]);
  const cost = tf.tensor2d([[1, 2, 3, 4], [4, 3, 2, 1], [2, 2.5, 0.5, 1]]);
  const all = (t: Tensor, golden: number[], what: string) =>
    t.dataSync().forEach((x, i) => near(x, golden[i], FLOAT32, `${what} ${i}`));
  const p = gateScores(gate, features);
  // deno-fmt-ignore
  all(p, [0.19867301, 0.21254912, 0.25869734, 0.33008053, 0.68274225, 0.22350841, 0.06724287, 0.02650648,
    0.7887685, 0.17119537, 0.03171628, 0.00831985], "p");
  const w = gateWeights(p, 0.15, "masked");
  // deno-fmt-ignore
  all(w, [0.19867301, 0.21254912, 0.25869734, 0.33008052, 0.75337021, 0.24662978, 0, 0,
    0.82166477, 0.17833522, 0, 0], "w");
  all(feedbackLoss(w), [0.87605441], "CV²");
  const { value, grads } = valueAndGrads(
    () =>
      gateLoss(gateWeights(gateScores(gate, features), 0.15, "masked"), cost, {
        objective: "total",
        share: 0.1,
        feedback: 0.5,
      }),
    gate,
  );
  all(value, [0.72345131], "loss");
  // deno-fmt-ignore
  all(grads["2.weight"], [0.26178689, 0.01387733, 0.42654615, -0.02236516, -0.28051465, 0.01347424,
    -0.43471917, 0.00825763, 0.01008143, -0.01472376, 0.00439966, 0.00759429, 0.00864633, -0.01262781,
    0.00377336, 0.00651324], "gradient of W3");
  // deno-fmt-ignore
  all(grads["0.bias"], [0.28165996, 0.0018036, -0.10773718, 0.21374386, -0.00089961, -0.21252394,
    0.11848209, -0.00583255], "gradient of b1");
});

test("scores are a distribution and depend on the key only", () => {
  const features = tf.tensor2d([[0.1, 0.2, 0.3], [1, -1, 0]]);
  const p = gateScores(initGate(3, 3, key(1)), features).dataSync();
  near(p[0] + p[1] + p[2], 1, FLOAT32, "sum");
  const rows = [[0.1, 0.2, 0.3]];
  assert.equal(
    randomWeights(rows, 3, 0.15, key(5)),
    randomWeights(rows, 3, 0.15, key(5)),
  );
  assert.not.equal(
    randomWeights(rows, 3, 0.15, key(5)),
    randomWeights(rows, 3, 0.15, key(6)),
  );
});

test("rules by hand", () => {
  assert.equal(minCe([2, 1, 1]), [0, 1, 0]);
  assert.equal(only(2)([1, 1, 1]), [0, 0, 1]);
  assert.equal(uniformWeights([1, 2]), [0.5, 0.5]);
  // r = 1 and 1/2, softmax
  const [a, b] = avgCe([0, Math.LN2]);
  near(a, 1 / (1 + Math.exp(-0.5)), 1e-12, "AvgCE");
  near(a + b, 1, 1e-12, "sum");
  assert.equal(standardise([1, 3]), [-1, 1]);
  assert.equal(standardise([2, 2]), [0, 0]);
});

test("bad input is named", () => {
  assert.throws(() => selectWeights([], 0.1), /at least one source: 0/);
  assert.throws(
    () => selectWeights([0.5, 0.5], 2),
    /tau must be in \[0, 1\]: 2/,
  );
  assert.throws(() => selectWeights([NaN, 1], 0.1), /finite: NaN, 1/);
  assert.throws(() => only(3)([1, 2]), /\[0, 2\): 3/);
  assert.throws(() => initGate(0, 1, key(1)), /at least one source: 0/);
});

test.run();
