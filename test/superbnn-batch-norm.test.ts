import { test } from "uvu";
import * as assert from "uvu/assert";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import {
  type BatchNorm,
  batchNorm,
  checkMatching,
  matchBatchNorm,
  nextBelow,
} from "../lib/superbnn/batch-norm.ts";

/** Integers from -n to n for which threshold and flip differ from sign(BN(V)), sign(0) = +1. */
function disagreements(
  norm: BatchNorm,
  { flip, threshold }: { flip: boolean; threshold: number },
  n: number,
): number[] {
  const wrong: number[] = [];
  for (let V = -n; V <= n; V++) {
    const wanted = batchNorm(V, norm) >= 0;
    const fires = (flip ? -V : V) > threshold;
    if (wanted !== fires) wrong.push(V);
  }
  return wrong;
}

test("hand cases: both signs of gamma, an integer threshold, gamma 0", () => {
  // 2 (V - 3) / 2 - 1 = V - 4: fires from 4 on.
  const up = matchBatchNorm({
    gamma: 2,
    beta: -1,
    mean: 3,
    variance: 4,
    eps: 0,
  });
  assert.equal(up, { flip: false, threshold: nextBelow(4) });
  // -2 (V - 3) / 2 - 1 = 2 - V: fires up to 2, so the turned sum fires from -2 on.
  const down = matchBatchNorm({
    gamma: -2,
    beta: -1,
    mean: 3,
    variance: 4,
    eps: 0,
  });
  assert.equal(down, { flip: true, threshold: nextBelow(-2) });
  const flat = { gamma: 0, mean: 3, variance: 4, eps: 1e-3 };
  assert.is(matchBatchNorm({ ...flat, beta: -1e-9 }).threshold, Infinity);
  assert.is(matchBatchNorm({ ...flat, beta: 0 }).threshold, -Infinity);
  assert.is(matchBatchNorm({ ...flat, beta: 2 }).threshold, -Infinity);
});

test("the threshold is the paper's V_th where that is right", () => {
  const norm = { gamma: 0.7, beta: 0.3, mean: 5.2, variance: 90, eps: 1e-3 };
  const { threshold } = matchBatchNorm(norm);
  assert.is(threshold, 5.2 - 0.3 * Math.sqrt(90.001) / 0.7);
  // BN with -gamma fires where V <= mu + beta sigma / gamma.
  assert.is(
    matchBatchNorm({ ...norm, gamma: -0.7 }).threshold,
    -(5.2 - 0.3 * Math.sqrt(90.001) / -0.7),
  );
});

test("exhaustive: every integer sum of a neuron, random and adversarial statistics", () => {
  const k = key(11);
  let negative = 0;
  let constant = 0;
  for (let n = 0; n < 3000; n++) {
    const [a, b, c, d] = normal(fold(k, n), 4);
    const [kind, m, s, w] = randomInts(fold(fold(k, "kind"), n), 4, 0, 9);
    // Thresholds on integers, far out, next to integers by one unit in the last place, huge and tiny gammas.
    const mean = kind < 3 ? m - 4 : kind < 6 ? 20 * a : (m - 4) / 3;
    const variance = kind % 3 === 0 ? s * s : 300 * b * b;
    const gamma = (kind % 2 === 0 ? w - 4 : c) * 10 ** (kind === 8 ? -12 : 0);
    const beta = kind === 1 ? 0 : kind === 4 ? (w - 4) / 3 : d;
    const norm = { gamma, beta, mean, variance, eps: 1e-3 };
    const matched = matchBatchNorm(norm, { fanIn: 784 });
    assert.equal(disagreements(norm, matched, 784), [], JSON.stringify(norm));
    if (matched.flip) negative++;
    if (!Number.isFinite(matched.threshold)) constant++;
  }
  assert.ok(negative > 500 && constant > 50, `${negative} ${constant}`);
});

test("rounding: real thresholds one unit beside an integer are put right", () => {
  // For these V_th as computed equals an integer or lies just beyond it, while BN decides otherwise.
  let moved = 0;
  for (let i = 1; i < 4000; i++) {
    const norm = {
      gamma: i / 7,
      beta: -i / 7 * (i % 11) / Math.sqrt(i / 3 + 1e-3),
      mean: (i % 13) - 6,
      variance: i / 3,
      eps: 1e-3,
    };
    const naive = norm.mean -
      norm.beta * Math.sqrt(norm.variance + norm.eps) / norm.gamma;
    const matched = matchBatchNorm(norm, { fanIn: 64 });
    assert.equal(disagreements(norm, matched, 64), []);
    if (disagreements(norm, { flip: false, threshold: naive }, 64).length > 0) {
      moved++;
    }
  }
  assert.ok(moved > 100, `the plain formula fails where it should: ${moved}`);
});

test("negative control: gamma's sign or the divisor forgotten", () => {
  const norm = { gamma: -0.5, beta: 1, mean: 2, variance: 25, eps: 0 };
  const right = matchBatchNorm(norm, { fanIn: 40 });
  assert.equal(disagreements(norm, right, 40), []);
  assert.ok(disagreements(norm, { ...right, flip: false }, 40).length > 0);
  // Divided by the standard deviation where it must be multiplied: bnn-fpga's mistake.
  const wrong = norm.mean - norm.beta / Math.sqrt(norm.variance) / norm.gamma;
  assert.ok(
    disagreements(norm, { flip: true, threshold: -wrong }, 40).length > 0,
  );
});

test("verifier: counts all sums of a layer, and names the neuron that is wrong", () => {
  const norms = [0.5, -0.5, 0, -1].map((gamma, j) => ({
    gamma,
    beta: 1 - j,
    mean: 2,
    variance: 25,
    eps: 1e-3,
  }));
  const neurons = norms.map((norm) => matchBatchNorm(norm, { fanIn: 41 }));
  const right = checkMatching(norms, neurons, { fanIn: 41 });
  assert.equal(right, { compared: 4 * 42, agreeing: 4 * 42, failures: [] });
  // BN(V) = (2 - V) / 10.0002 fires at sums of at most 1; turned the wrong way it agrees nowhere but at none.
  const wrong = neurons.map((n, j) => j === 1 ? { ...n, flip: false } : n);
  const { agreeing, failures } = checkMatching(norms, wrong, {
    fanIn: 41,
    name: "layer 7",
  });
  let agree = 0;
  for (let V = -41; V <= 41; V += 2) {
    if (V > wrong[1].threshold === V <= 2) agree++;
  }
  assert.is(agreeing, 3 * 42 + agree);
  assert.ok(agree < 42);
  assert.is(failures.length, 1);
  assert.match(
    failures[0],
    /layer 7, neuron 1: .* the sum -41 is 4\.2.*, yet it does not fire/,
  );
  // A threshold beyond the next sum of the same parity.
  const moved = neurons.map((n, j) =>
    j === 3 ? { ...n, threshold: n.threshold + 2 } : n
  );
  assert.is(checkMatching(norms, moved, { fanIn: 41 }).agreeing, 4 * 42 - 1);
  assert.throws(
    () => checkMatching(norms, neurons.slice(1), { fanIn: 41 }),
    /3 neurons, 4 normalisations/,
  );
  assert.throws(
    () => checkMatching(norms, neurons, { fanIn: 0 }),
    /fanIn .*: 0/,
  );
});

test("bad input is refused with what is wrong", () => {
  const norm = { gamma: 1, beta: 0, mean: 0, variance: 1, eps: 1e-3 };
  assert.throws(
    () => matchBatchNorm({ ...norm, gamma: NaN }),
    /gamma must be finite: NaN/,
  );
  assert.throws(
    () => matchBatchNorm({ ...norm, variance: -1 }),
    /variance -1/,
  );
  assert.throws(
    () => matchBatchNorm({ ...norm, variance: 0, eps: 0 }),
    /not both 0/,
  );
});

test.run();
