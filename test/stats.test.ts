import { test } from "uvu";
import * as assert from "uvu/assert";
import { key, normal } from "../lib/core/rng.ts";
import {
  bootstrapInterval,
  mean,
  pairedDifference,
  sd,
  slope,
  tInterval,
  tQuantile,
} from "../lib/core/stats.ts";

/** The references are printed to 16 digits; bisection ends within a few units in the last place. */
const RELATIVE = 1e-12;

function near(actual: number, expected: number, relative = RELATIVE): void {
  const gap = Math.abs(actual - expected);
  assert.ok(
    gap <= relative * Math.max(1, Math.abs(expected)),
    `${actual} is not ${expected}`,
  );
}

test("t quantiles are scipy's", () => {
  // python3 -c "from scipy import stats
  // for p in (.9, .95, .99): print([float(stats.t.ppf((1 + p) / 2, d)) for d in
  //   (1, 2, 3, 4, 5, 9, 10, 29, 100)])"      (scipy 1.17.1)
  const degrees = [1, 2, 3, 4, 5, 9, 10, 29, 100];
  const golden: Record<string, number[]> = {
    "0.9": [
      6.313751514675037,
      2.9199855803537242,
      2.3533634348018233,
      2.1318467863266495,
      2.0150483733330233,
      1.833112932656237,
      1.8124611228116756,
      1.6991270265334972,
      1.6602343260853392,
    ],
    "0.95": [
      12.706204736174694,
      4.302652729749462,
      3.1824463052837078,
      2.7764451051977934,
      2.5705818356363146,
      2.262157162798205,
      2.228138851986274,
      2.045229642132703,
      1.9839715185235518,
    ],
    "0.99": [
      63.656741162871526,
      9.924843200918287,
      5.840909309733355,
      4.604094871349992,
      4.032142983555228,
      3.249835541592126,
      3.16927267261695,
      2.756385903670605,
      2.6258905214380173,
    ],
  };
  for (const [level, values] of Object.entries(golden)) {
    degrees.forEach((df, i) => near(tQuantile(Number(level), df), values[i]));
  }
});

test("t quantile: closed forms for one and two degrees of freedom", () => {
  for (const level of [0.5, 0.8, 0.95, 0.999]) {
    near(tQuantile(level, 1), Math.tan(Math.PI / 2 * level));
    // P(|T| < t) = t / sqrt(2 + t^2)
    near(tQuantile(level, 2), level * Math.sqrt(2 / (1 - level * level)));
  }
});

test("t quantile: bad arguments name the value", () => {
  assert.throws(() => tQuantile(0.95, 0), /df 0/);
  assert.throws(() => tQuantile(0.95, 1.5), /df 1.5/);
  assert.throws(() => tQuantile(1, 3), /level 1/);
});

test("mean, sd and interval of 1, 2, 3, 4 by hand", () => {
  const values = [1, 2, 3, 4];
  assert.is(mean(values), 2.5);
  near(sd(values), Math.sqrt(5 / 3));
  const { value, low, high, n } = tInterval(values);
  // half width: 3.18244630 * sqrt(5/3) / 2
  near(high - value, 3.1824463052837078 * Math.sqrt(5 / 3) / 2);
  near(value - low, high - value);
  assert.is(n, 4);
});

test("one value has an interval without width, none an error", () => {
  assert.equal(tInterval([7]), { value: 7, low: 7, high: 7, n: 1 });
  assert.throws(() => tInterval([]), /no values/);
});

test("paired difference is scipy's ttest_rel", () => {
  // python3 -c "from scipy import stats
  // print(stats.ttest_rel([3.1,2.9,3.4,3.3],[2.8,2.7,3.3,2.9]).confidence_interval())"
  const a = [3.1, 2.9, 3.4, 3.3];
  const b = [2.8, 2.7, 3.3, 2.9];
  const { value, low, high } = pairedDifference(a, b);
  near(value, 0.25);
  near(low, 0.04457397432394794);
  near(high, 0.45542602567605206);
  assert.throws(() => pairedDifference([1, 2], [1]), /2 and 1 values/);
});

test("pairing finds an effect that the means alone would hide", () => {
  const noise = normal(key(1), 5);
  const a = Array.from(noise, (x, i) => 10 * x + 1 + 0.01 * i);
  const b = Array.from(noise, (x) => 10 * x);
  assert.ok(pairedDifference(a, b).low > 0.9);
  assert.ok(tInterval(a).low < mean(b));
});

test("slope and its interval are scipy's linregress", () => {
  // python3 -c "from scipy import stats
  // r = stats.linregress([1,2,3,4,5,7],[2.1,3.9,6.2,7.8,10.1,13.7])
  // print(r.slope, r.intercept, stats.t.ppf(.975, 4) * r.stderr)"
  const fit = slope([1, 2, 3, 4, 5, 7], [2.1, 3.9, 6.2, 7.8, 10.1, 13.7]);
  near(fit.value, 1.95);
  near(fit.intercept, 0.15);
  near(fit.high - fit.value, 0.10559359771550433);
  near(fit.value - fit.low, 0.10559359771550433);
});

test("slope of exact powers is the exponent, without width", () => {
  const ranks = [2, 4, 8, 16, 32];
  const fit = slope(
    ranks.map(Math.log),
    ranks.map((r) => Math.log(3 / Math.sqrt(r))),
  );
  near(fit.value, -0.5);
  near(fit.high, -0.5);
  near(Math.exp(fit.intercept), 3);
});

test("slope: too few or equal x are errors", () => {
  assert.throws(() => slope([1, 2], [1, 2]), /2 x, 2 y/);
  assert.throws(() => slope([3, 3, 3], [1, 2, 3]), /x 3/);
});

test("t intervals cover the true mean in 95 of 100 samples", () => {
  const samples = 4000;
  const n = 4;
  const values = normal(key(5), samples * n);
  let covered = 0;
  for (let i = 0; i < samples; i++) {
    const { low, high } = tInterval(values.subarray(i * n, (i + 1) * n));
    if (low <= 0 && 0 <= high) covered++;
  }
  // Standard error of the share: sqrt(0.95 * 0.05 / 4000) = 0.0034; four of them.
  assert.ok(Math.abs(covered / samples - 0.95) < 0.014, `${covered}`);
});

test("bootstrap: same key, same interval; near the t interval for many values", () => {
  const values = normal(key(2), 200, 3, 1);
  const a = bootstrapInterval(values, key(3));
  assert.equal(a, bootstrapInterval(values, key(3)));
  assert.is.not(a.low, bootstrapInterval(values, key(4)).low);
  const t = tInterval(values);
  near(a.low, t.low, 0.02);
  near(a.high, t.high, 0.02);
});

test.run();
