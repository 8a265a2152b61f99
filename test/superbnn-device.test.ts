/** Device: error function and curve against scipy, identities of the gray zone, samples, fits. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { fold, key } from "../lib/core/rng.ts";
import {
  atTemperature,
  attenuatedCurrentUa,
  checkDevice,
  DEFAULT_DEVICE,
  type Device,
  erf,
  erfc,
  expectationGradient,
  expectedOutput,
  firingProbability,
  fitAttenuation,
  fitGrayZone,
  grayZoneValue,
  noiseSigmaUa,
  outputProbability,
  sampleOutputs,
  sampleWithNoise,
  thresholdCurrentUa,
  thresholdValue,
} from "../lib/superbnn/device.ts";

const DEVICE: Device = { ...DEFAULT_DEVICE, grayZoneUa: 3, thresholdUa: 0 };

function near(actual: number, expected: number, relative: number, what = "") {
  assert.ok(
    Math.abs(actual - expected) <= relative * Math.abs(expected),
    `${what} ${actual} against ${expected}`,
  );
}

test("error function is scipy's", () => {
  // scipy 1.17.1: from scipy.special import erf, erfc
  // erf([1e-9, .5, 1.9999, 2.0001, 3, -2]).tolist(); erfc([.5, 3, 5, 10, 26]).tolist()
  const values = [
    [1e-9, 1.1283791670955127e-09],
    [0.5, 0.5204998778130465],
    [1.9999, 0.9953201979070294],
    [2.0001, 0.9953243313041966],
    [3, 0.9999779095030014],
    [-2, -0.9953222650189527],
  ];
  for (const [x, y] of values) near(erf(x), y, 1e-15, `erf ${x}`);
  const tails = [
    [0.5, 0.4795001221869535],
    [3, 2.2090496998585445e-05],
    [5, 1.5374597944280347e-12],
    [10, 2.0884875837625446e-45],
    [26, 5.663192408856145e-296],
  ];
  for (const [x, y] of tails) near(erfc(x), y, 2e-13, `erfc ${x}`);
  assert.is(erf(0), 0);
  assert.equal([erf(Infinity), erf(-Infinity), erfc(-Infinity)], [1, -1, 2]);
  for (let x = -6; x <= 6; x += 0.01) near(erf(-x), -erf(x), 0);
});

test("curve: half at the threshold, slope 1 / dI there, normal of sigma dI / sqrt(2 pi)", () => {
  const device = { ...DEVICE, thresholdUa: 0.7 };
  assert.is(outputProbability(0.7, device), 0.5);
  const h = 1e-4;
  const slope =
    (outputProbability(0.7 + h, device) - outputProbability(0.7 - h, device)) /
    (2 * h);
  near(slope, 1 / 3, 1e-8, "slope");
  // scipy 1.17.1: norm.cdf(np.array([-6, -1, .3, 2.5]) / (3 / np.sqrt(2 * np.pi))).tolist()
  const golden = [
    2.67582330979903e-07,
    0.20170609141114937,
    0.5989625986773961,
    0.9816396965028462,
  ];
  [-6, -1, 0.3, 2.5].forEach((current, i) =>
    near(outputProbability(current, DEVICE), golden[i], 1e-12, "P")
  );
  // scipy 1.17.1: 2 * norm.ppf(q) / np.sqrt(2 * np.pi) for q = .9 and .75: widths in units of dI
  for (
    const [q, width] of [[0.9, 1.022530208020778], [0.75, 0.5381649581012351]]
  ) {
    near(outputProbability(3 * width / 2, DEVICE), q, 1e-12, "width");
    near(outputProbability(-3 * width / 2, DEVICE), 1 - q, 1e-12, "width");
  }
  near(noiseSigmaUa(DEVICE), 3 * 0.3989422804014327, 1e-15, "sigma");
});

test("expectation: 2 P - 1; its gradient by differences; integral 2; tangent 2 / dV", () => {
  for (const grayZone of [0.05, 1, 7.5]) {
    const threshold = 1.25;
    near(expectationGradient(threshold, threshold, grayZone), 2 / grayZone, 0);
    const h = grayZone * 1e-4;
    let integral = 0;
    const steps = 4000;
    const reach = 6 * grayZone;
    for (let i = 0; i < steps; i++) {
      const sum = threshold - reach + 2 * reach * (i + 0.5) / steps;
      integral += expectationGradient(sum, threshold, grayZone) * 2 * reach /
        steps;
      const difference = (expectedOutput(sum + h, threshold, grayZone) -
        expectedOutput(sum - h, threshold, grayZone)) / (2 * h);
      const gradient = expectationGradient(sum, threshold, grayZone);
      assert.ok(Math.abs(difference - gradient) < 1e-6 / grayZone);
      const twice = 2 * firingProbability(sum, threshold, grayZone);
      const mean = expectedOutput(sum, threshold, grayZone);
      assert.ok(Math.abs(mean - (twice - 1)) < 1e-15);
    }
    near(integral, 2, 1e-12, "integral");
  }
});

test("without noise a sign, at the threshold by rule", () => {
  assert.equal(
    [-1, 2, 3].map((v) => firingProbability(v, 2, 0)),
    [0, 0.5, 1],
  );
  assert.is(firingProbability(2, 2, 0, "high"), 1);
  assert.is(firingProbability(2, 2, 0, "low"), 0);
  assert.is(firingProbability(2, 2, 1, "high"), 0.5, "noise needs no rule");
  for (const grayZone of [0, 1, 1e-300]) {
    assert.is(firingProbability(-5, -Infinity, grayZone), 1);
    assert.is(firingProbability(5, Infinity, grayZone), 0);
    assert.is(firingProbability(5, 1, grayZone) > 0.99, true);
  }
});

test("current and value: I = I1 V, dV = dI / I1, hand case", () => {
  // 70 uA / 35 = 2 uA per unit of the sum; 4 uA of gray zone are 2 units.
  near(attenuatedCurrentUa(35, DEFAULT_DEVICE), 2, 1e-15);
  near(grayZoneValue(35, DEFAULT_DEVICE), 2, 1e-15);
  const device = {
    ...DEFAULT_DEVICE,
    attenuation: { ...DEFAULT_DEVICE.attenuation, aUa: 90, b: 0.8 },
  };
  for (const size of [1, 8, 72]) {
    const shifted = {
      ...device,
      thresholdUa: thresholdCurrentUa(3.5, size, device),
    };
    near(thresholdValue(size, shifted), 3.5, 1e-14);
    for (const sum of [-8, 1, 4, 7]) {
      near(
        outputProbability(attenuatedCurrentUa(size, device) * sum, shifted),
        firingProbability(sum, 3.5, grayZoneValue(size, device)),
        1e-10,
      );
    }
  }
  near(
    grayZoneValue(144, device) / grayZoneValue(72, device),
    2 ** 0.8,
    1e-13,
    "a larger crossbar is noisier",
  );
  near(atTemperature(DEFAULT_DEVICE, 16.8).grayZoneUa, 8, 1e-15);
});

test("both ways to sample give P(I)", () => {
  const trials = 20_000;
  const device = { ...DEVICE, thresholdUa: -0.4 };
  for (const [i, current] of [-2.5, -0.4, 0.1, 1.5].entries()) {
    const currents = new Float64Array(trials).fill(current);
    const p = outputProbability(current, device);
    for (const sample of [sampleOutputs, sampleWithNoise]) {
      const outputs = sample(currents, device, fold(key(2), i));
      assert.ok(outputs.every((a) => a === 1 || a === -1));
      const ones = outputs.filter((a) => a === 1).length;
      const z = (ones - trials * p) / Math.sqrt(trials * p * (1 - p));
      assert.ok(Math.abs(z) < 4.5, `${sample.name} at ${current} uA: z ${z}`);
    }
  }
});

test("fit of the gray zone: scipy's maximum of the likelihood, and honest errors", () => {
  // scipy 1.17.1: minimize of -sum(k log Phi + (n - k) log(1 - Phi)), Phi(a + b I), n = 1000;
  // sqrt(2 pi) / b, -a / b and their errors by the delta method from the inverse of the Fisher information
  const ones = [21, 230, 410, 640, 970];
  const fit = fitGrayZone(
    [-3, -1, 0, 1, 3].map((currentUa, i) => ({
      currentUa,
      ones: ones[i],
      trials: 1000,
    })),
  );
  near(fit.grayZoneUa.value, 3.9985445745781547, 1e-6);
  near(fit.thresholdUa.value, 0.29706805038350836, 1e-5);
  near(fit.grayZoneUa.standardError, 0.10135532176164978, 1e-5);
  near(fit.thresholdUa.standardError, 0.035382666345925, 1e-5);
  // Over repeated experiments estimates spread as their standard errors say.
  const device = { ...DEVICE, thresholdUa: 5.2 };
  const currents = [3, 4, 5, 6, 7];
  const scores = Array.from({ length: 150 }, (_, run) => {
    const { grayZoneUa, thresholdUa } = fitGrayZone(
      currents.map((currentUa, i) => ({
        currentUa,
        ones: sampleOutputs(
          new Float64Array(200).fill(currentUa),
          device,
          fold(fold(key(4), run), i),
        ).filter((a) => a > 0).length,
        trials: 200,
      })),
    );
    return [
      (grayZoneUa.value - 3) / grayZoneUa.standardError,
      (thresholdUa.value - 5.2) / thresholdUa.standardError,
    ];
  });
  for (const which of [0, 1]) {
    const square = scores.reduce((sum, z) => sum + z[which] ** 2, 0) / 150;
    assert.ok(square > 0.65 && square < 1.45, `mean square of z ${square}`);
  }
});

test("fit of the gray zone refuses what has no answer", () => {
  const point = (currentUa: number, ones: number, trials = 10) => ({
    currentUa,
    ones,
    trials,
  });
  const none = /Cannot fit a gray zone as outputs must rise/;
  assert.throws(() => fitGrayZone([]), none);
  assert.throws(() => fitGrayZone([point(0, 5)]), none);
  assert.throws(() => fitGrayZone([point(0, 0), point(1, 10)]), none);
  assert.throws(() => fitGrayZone([point(0, 8), point(1, 2)]), none);
  assert.throws(() => fitGrayZone([point(0, 0), point(1, 0)]), none);
  assert.throws(() => fitGrayZone([point(0, 11)]), /ones 11, trials 10/);
  assert.throws(() => fitGrayZone([point(NaN, 1)]), /currentUa NaN/);
});

test("fit of the attenuation is scipy's line through the logarithms", () => {
  // scipy 1.17.1: r = linregress(np.log([4, 8, 16, 36, 72, 144]), np.log([18.1, 8.6, 4.5, 1.9, 1.02, .47]))
  // np.exp(r.intercept), -r.slope, r.stderr, r.intercept_stderr * np.exp(r.intercept)
  const currents = [18.1, 8.6, 4.5, 1.9, 1.02, 0.47];
  const fit = fitAttenuation(
    [4, 8, 16, 36, 72, 144].map((crossbarSize, i) => ({
      crossbarSize,
      currentUa: currents[i],
    })),
  );
  near(fit.aUa.value, 72.14587664409615, 1e-12);
  near(fit.b.value, 1.0076269084308904, 1e-12);
  near(fit.b.standardError, 0.012199607522044796, 1e-10);
  near(fit.aUa.standardError, 3.001210005347533, 1e-10);
  assert.ok(fit.rmsLogError > 0.01 && fit.rmsLogError < 0.1);
  const same = [1, 2, 3].map((currentUa) => ({ crossbarSize: 8, currentUa }));
  assert.throws(
    () => fitAttenuation(same),
    /2 sizes are needed: sizes 8, 8, 8/,
  );
  assert.throws(() => fitAttenuation([]), /sizes none/);
  assert.throws(
    () => fitAttenuation([{ crossbarSize: 8, currentUa: -1 }]),
    /currentUa -1/,
  );
});

test("impossible devices are refused by name", () => {
  const refused = (change: Partial<Device>, message: RegExp) =>
    assert.throws(() => checkDevice({ ...DEVICE, ...change }), message);
  refused({ grayZoneUa: 0 }, /grayZoneUa 0/);
  refused({ grayZoneUa: -2 }, /grayZoneUa -2/);
  refused({ grayZoneUa: NaN }, /grayZoneUa NaN/);
  refused({ thresholdUa: Infinity }, /thresholdUa Infinity/);
  const { attenuation } = DEVICE;
  refused({ attenuation: { ...attenuation, aUa: 0 } }, /aUa 0/);
  refused({ attenuation: { ...attenuation, b: -0.1 } }, /b must be .*-0.1/);
  assert.throws(
    () => outputProbability(1, { ...DEVICE, grayZoneUa: -1 }),
    /-1/,
  );
  assert.throws(() => expectedOutput(1, 0, 0), /grayZone 0/);
  assert.throws(() => expectationGradient(1, 0, -1), /grayZone -1/);
  assert.throws(() => atTemperature(DEVICE, -4.2), /tempK -4.2/);
  assert.throws(() => atTemperature(DEVICE, 0), /tempK 0/);
  assert.throws(() => grayZoneValue(0, DEVICE), /crossbarSize 0/);
});

test.run();
