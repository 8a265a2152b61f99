/** TRIP and the activation quantizers: hand cases, search against closed form, the shift identity, bad input. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  quantizeSite,
  SCHEMES,
  stepsOf,
  widen,
} from "../lib/agile-quant/activation.ts";
import {
  fitTrip,
  foldFactors,
  tripCodes,
  tripErrors,
  tripProduct,
  tripScale,
} from "../lib/agile-quant/trip.ts";
import { fold, key, normal, randomInts } from "../lib/core/rng.ts";
import { ready, tf } from "../lib/core/tensor.ts";

await ready();

/** Half to even, by cases. */
function round(x: number): number {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** Channels whose sizes differ by powers of two up to 2^5. */
function activations(seed: number, tokens: number, channels: number) {
  const x = normal(fold(key(seed), "x"), tokens * channels);
  const size = randomInts(fold(key(seed), "size"), channels, 0, 6);
  return x.map((v, at) => v * 2 ** size[at % channels]);
}

test("by hand: s, zp and alpha of two channels in 4 bits", () => {
  // Range -7 to 8: 2^K s = 15 / 15 = 1, zp = 7. 0.25 and -0.5 are on the grid of 2^-2 alone (of 2^-1 the first is not).
  const x = Float32Array.of(-7, 0.25, 8, -0.5);
  const trip = fitTrip(x, 2, { bits: 4, maxFactor: 2 });
  assert.is(trip.scale, 0.25);
  assert.is(trip.zeroPoint, 7);
  assert.equal([...trip.alpha], [2, 0]);
  assert.equal([...tripCodes(x, trip)], [0, 8, 15, 5]);
});

test("factors equal an exhaustive search, number by number", () => {
  for (let round_ = 0; round_ < 40; round_++) {
    const [tokens, channels] = [7, 5];
    const [bits, maxFactor] = [[8, 6], [4, 3], [2, 8], [6, 0]][round_ % 4];
    const x = activations(round_, tokens, channels);
    const trip = fitTrip(x, channels, { bits, maxFactor });
    for (let c = 0; c < channels; c++) {
      let best = Infinity;
      let at = -1;
      for (let k = 0; k <= maxFactor; k++) {
        const step = Math.fround(trip.scale * 2 ** k);
        let error = 0;
        for (let t = 0; t < tokens; t++) {
          const v = x[t * channels + c];
          const code = Math.min(
            2 ** bits - 1,
            Math.max(0, round(Math.fround(v / step)) + trip.zeroPoint),
          );
          error += (v - step * (code - trip.zeroPoint)) ** 2;
        }
        if (error < best) [best, at] = [error, k];
      }
      assert.is(trip.alpha[c], at, `round ${round_}, channel ${c}`);
    }
  }
});

test("never worse than one step for the layer; K = 0 is that step", () => {
  for (let seed = 0; seed < 20; seed++) {
    const [channels, bits] = [6, [8, 4][seed % 2]];
    const x = activations(100 + seed, 30, channels);
    const error = (maxFactor: number) => {
      const trip = fitTrip(x, channels, { bits, maxFactor });
      const all = tripErrors(x, channels, { ...trip, maxFactor });
      return trip.alpha.reduce(
        (sum, k, c) => sum + all[c * (maxFactor + 1) + k],
        0,
      );
    };
    const plain = error(0);
    const tensor = tf.tensor2d(x, [30, channels]);
    const steps = stepsOf(
      widen(undefined, tensor, "x"),
      bits,
      "layer-asymmetric",
    );
    const direct = quantizeSite(tensor, steps).sub(tensor).square().sum()
      .dataSync()[0];
    assert.ok(Math.abs(plain - direct) < 1e-4 * direct, `${plain} ${direct}`);
    // Powers of two times s of K = 8: its last factor is the plain step, so no choice can lose.
    assert.ok(error(8) <= plain * (1 + 1e-6), `${error(8)} ${plain}`);
    assert.ok(error(8) < 0.7 * plain, "channels of many sizes gain much");
  }
});

test("shift identity: groups, shifted weights and the plain sum agree exactly; a wrong factor is seen", () => {
  for (let seed = 0; seed < 60; seed++) {
    const k = key(300 + seed);
    const [T, C, N] = [3, [4, 9, 33][seed % 3], 5];
    const bits = [8, 4, 2][seed % 3];
    const codes = Uint8Array.from(
      randomInts(fold(k, "q"), T * C, 0, 2 ** bits),
    );
    const weight = Int8Array.from(randomInts(fold(k, "w"), N * C, -128, 128));
    const alpha = Uint8Array.from(randomInts(fold(k, "a"), C, 0, 21));
    const zeroPoint = randomInts(fold(k, "z"), 1, 0, 2 ** bits)[0];
    const product = tripProduct(codes, weight, { bits, zeroPoint, alpha });
    const shifted = foldFactors(weight, alpha);
    const sums = (by: (n: number, c: number) => bigint) =>
      Array.from({ length: T * N }, (_, at) => {
        const [t, n] = [Math.floor(at / N), at % N];
        let sum = 0n;
        for (let c = 0; c < C; c++) {
          sum += BigInt(codes[t * C + c] - zeroPoint) * by(n, c);
        }
        return Number(sum);
      });
    const plain = sums((n, c) => BigInt(weight[n * C + c]) << BigInt(alpha[c]));
    assert.equal([...product], plain);
    assert.equal(sums((n, c) => BigInt(shifted[n * C + c])), plain);
    // Broken on purpose: one channel's factor is one too large.
    const wrong = alpha.slice();
    const c = weight.findIndex((w, at) =>
      at < C && w !== 0 && codes[at] !== zeroPoint
    );
    if (c < 0) continue;
    wrong[c]++;
    const broken = tripProduct(codes, weight, {
      bits,
      zeroPoint,
      alpha: wrong,
    });
    assert.is.not(broken[0], plain[0], `channel ${c}`);
  }
});

test("the integer product times s and the weight's scale is the fake-quantised product", () => {
  const [T, C, N] = [6, 16, 4];
  const x = activations(9, T, C);
  const trip = fitTrip(x, C);
  const weight = Int8Array.from(randomInts(key(10), N * C, -8, 8));
  const exact = tripProduct(tripCodes(x, trip), weight, trip);
  const tensor = tf.tensor2d(x, [T, C]);
  const steps = {
    bits: 8,
    scheme: "trip" as const,
    scale: Float32Array.from(trip.alpha, (k) => 2 ** k * trip.scale),
    zeroPoint: Float32Array.of(trip.zeroPoint),
    alpha: trip.alpha,
  };
  const fake = tf.matMul(
    quantizeSite(tensor, steps),
    tf.tensor2d(Array.from(weight), [N, C]),
    false,
    true,
  ).dataSync();
  exact.forEach((sum, at) => {
    // Float32 sums of 16 terms of up to 2^5 128 8.
    assert.ok(Math.abs(sum * trip.scale - fake[at]) < 0.02, `${at}`);
  });
});

test("released steps by hand: /127.5 and /7.5 around 0; per channel; per token", () => {
  const range = {
    low: Float32Array.of(-255, -1),
    high: Float32Array.of(51, 15),
  };
  assert.equal([...stepsOf(range, 8, "layer").scale], [2]);
  assert.equal([...stepsOf(range, 4, "layer").scale], [34]);
  assert.equal([...stepsOf(range, 4, "channel").scale], [34, 2]);
  const asymmetric = stepsOf(range, 8, "layer-asymmetric");
  assert.ok(Math.abs(asymmetric.scale[0] - 306 / 255) < 1e-6);
  assert.is(asymmetric.zeroPoint[0], 212); // 255 / 1.2 = 212.5, half to even
  // -255 / 2 = -127.5 rounds to even: -128, whose value is -256.
  const y = quantizeSite(
    tf.tensor2d([[-255, 15]]),
    stepsOf(range, 8, "layer"),
  );
  assert.equal([...y.dataSync()], [-256, 16]);
  const token = quantizeSite(
    tf.tensor2d([[127, -1], [1270, 14]]),
    stepsOf(range, 8, "token"),
  );
  assert.equal([...token.dataSync()], [127, -1, 1270, 10]);
});

test("a site that is always 0 stays 0 under every scheme", () => {
  const x = tf.zeros([4, 3]);
  const range = widen(undefined, x, "x");
  for (const scheme of SCHEMES) {
    const y = quantizeSite(x, stepsOf(range, 8, scheme)).dataSync();
    assert.ok(y.every((v) => v === 0), scheme);
  }
  assert.is(tripScale(0, 0, 8, 3), 1);
});

test("what cannot be calibrated or multiplied is refused with its value", () => {
  const bad = tf.tensor2d([[1, NaN], [2, 3]]);
  assert.throws(
    () => widen(undefined, bad, "model.layers.1.mlp"),
    /model\.layers\.1\.mlp .*channel 1 .*NaN/,
  );
  assert.throws(
    () => widen(undefined, tf.tensor2d([[Infinity]]), "site"),
    /site .*Infinity/,
  );
  assert.throws(() => fitTrip(new Float32Array(0), 2), /0 numbers/);
  assert.throws(() => fitTrip(Float32Array.of(1, 2, 3), 2), /3 numbers/);
  assert.throws(() => fitTrip(Float32Array.of(1, -Infinity), 2), /-Infinity/);
  assert.throws(() => tripScale(-1, 1, 8, 21), /21/);
  assert.throws(() => tripScale(1, 2, 8, 3), /1 to 2/);
  const range = { low: Float32Array.of(-1), high: Float32Array.of(1) };
  for (const bits of [1, 9, 4.5, NaN]) {
    assert.throws(() => stepsOf(range, bits, "layer"), RangeError);
    assert.throws(() => fitTrip(Float32Array.of(1), 1, { bits }), RangeError);
  }
  const steps = stepsOf(
    { low: new Float32Array(3), high: new Float32Array(3).fill(1) },
    8,
    "channel",
  );
  assert.throws(() => quantizeSite(tf.zeros([2, 4]), steps), /3 channels.*2,4/);
  const alpha = new Uint8Array(2 ** 17);
  assert.throws(
    () =>
      tripProduct(new Uint8Array(2 ** 17), new Int8Array(2 ** 17), {
        bits: 8,
        zeroPoint: 0,
        alpha,
      }),
    /131072 channels/,
  );
  assert.throws(
    () =>
      tripProduct(new Uint8Array(3), new Int8Array(2), {
        bits: 8,
        zeroPoint: 0,
        alpha: new Uint8Array(2),
      }),
    /3 and 2 codes/,
  );
});

test.run();
