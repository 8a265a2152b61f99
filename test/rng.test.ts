/** Random numbers: golden vectors of Random123 and JAX, statistics at fixed seeds, errors. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  bits,
  categorical,
  fold,
  type Key,
  key,
  normal,
  permutation,
  randomInts,
  split,
  uniform,
} from "../lib/core/rng.ts";

/** Critical values at the 0.1 % level, so that a sound generator fails a seed in a thousand. */
const CHI_SQUARE_9 = 27.88; // 9 degrees of freedom
const CHI_SQUARE_23 = 49.73; // 23
const CHI_SQUARE_99 = 148.23; // 99
const CHI_SQUARE_255 = 330.52; // 255
const KOLMOGOROV = 1.949; // sqrt(n) D, asymptotic
const NORMAL_Z = 3.29; // two-sided

/** Largest error of the single-precision erfinv against the exact quantile, absolute, |z| < 5.5. */
const NORMAL_TOLERANCE = 2e-6;

function chiSquare(counts: ArrayLike<number>, expected: number): number {
  return Array.from(counts).reduce(
    (sum, count) => sum + (count - expected) ** 2 / expected,
    0,
  );
}

/** Kolmogorov-Smirnov: sqrt(n) times the greatest distance from the distribution function. */
function kolmogorov(sample: Float32Array, cdf: (x: number) => number): number {
  const sorted = sample.slice().sort();
  const n = sorted.length;
  let distance = 0;
  sorted.forEach((x, i) => {
    const f = cdf(x);
    distance = Math.max(distance, f - i / n, (i + 1) / n - f);
  });
  return Math.sqrt(n) * distance;
}

function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const n = a.length;
  let [sa, sb, saa, sbb, sab] = [0, 0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    sa += a[i];
    sb += b[i];
    saa += a[i] * a[i];
    sbb += b[i] * b[i];
    sab += a[i] * b[i];
  }
  return (sab - sa * sb / n) /
    Math.sqrt((saa - sa * sa / n) * (sbb - sb * sb / n));
}

/** Normal distribution function by the series of erf; exact to 1e-12 for |z| < 6. */
function normalCdf(z: number): number {
  let term = z;
  let sum = z;
  for (let k = 1; Math.abs(term) > 1e-14; k++) {
    term *= z * z / (2 * k + 1);
    sum += term;
  }
  return 0.5 + sum * Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
}

const closeTo = (actual: ArrayLike<number>, expected: number[], eps: number) =>
  expected.forEach((e, i) =>
    assert.ok(Math.abs(actual[i] - e) <= eps, `${i}: ${actual[i]} against ${e}`)
  );

test("golden: the cipher gives the known answers of Random123", () => {
  // D. E. Shaw Research, Random123, tests/kat_vectors, lines "threefry2x32 20": counter, key, result.
  // fold(k, hi * 2^32 + lo) encrypts the counter (hi, lo).
  assert.equal(fold([0, 0], 0), [0x6b200159, 0x99ba4efe]);
  // The other two counters exceed 2^53 as a number; the inverse cipher below recovers them from the result.
  const k: Key = [0x13198a2e, 0x03707344];
  assert.equal(decrypt(k, [0xc4923a9c, 0x483df7a0]), [0x243f6a88, 0x85a308d3]);
  const ones = 0xffffffff;
  assert.equal(decrypt([ones, ones], [0x1cb996fc, 0xbb002be7]), [ones, ones]);
  for (let i = 0; i < 100; i++) {
    assert.equal(decrypt(k, fold(k, i * 65537)), [0, i * 65537]);
  }
});

/** Threefry-2x32-20 run backwards, as loops over the rotation table. */
function decrypt(k: Key, block: Key): Key {
  const rotations = [[13, 15, 26, 6], [17, 29, 16, 24]];
  const parts = [k[0], k[1], (k[0] ^ k[1] ^ 0x1bd11bda) >>> 0];
  let [x, y] = block;
  for (let group = 4; group >= 0; group--) {
    x = (x - parts[(group + 1) % 3]) >>> 0;
    y = (y - parts[(group + 2) % 3] - group - 1) >>> 0;
    for (const r of rotations[group % 2].slice().reverse()) {
      y = (y ^ x) >>> 0;
      y = ((y >>> r) | (y << (32 - r))) >>> 0;
      x = (x - y) >>> 0;
    }
  }
  return [(x - parts[0]) >>> 0, (y - parts[1]) >>> 0];
}

test("golden: keys, bits, uniform, normal and integers equal JAX", () => {
  // Printed by JAX >= 0.5 (threefry_partitionable) and quoted in public tests:
  // jax.random.split(jax.random.key(0), 3); jax.random.bits(jax.random.key(10), (4,));
  // ekzhang/jax-js test/random.test.ts.
  assert.equal(split(key(0), 3), [
    [1797259609, 2579123966],
    [928981903, 3453687069],
    [4146024105, 2718843009],
  ]);
  assert.equal([...bits(key(0), 3)], [4070199207, 4202968722, 1427181096]);
  assert.equal(
    [...bits(key(10), 4)],
    [169096361, 1572511259, 2689743692, 2228103506],
  );
  // jax.random.uniform(key(0), (4,)); jax.random.randint(key(0), (8,), 0, 20)
  assert.equal(
    [...uniform(key(0), 4)],
    [0.9476670027, 0.9785798788, 0.3322914839, 0.4686684608].map(Math.fround),
  );
  assert.equal(
    [...randomInts(key(0), 8, 0, 20)],
    [9, 0, 12, 13, 11, 7, 12, 3],
  );
  // jax.random.normal(jax.random.key(0), (16,))
  closeTo(normal(key(0), 16), [
    ...[1.6226422, 2.0252647, -0.43359444, -0.07861735],
    ...[0.1760909, -0.97208923, -0.49529874, 0.4943786],
    ...[0.6643493, -0.9501635, 2.1795304, -1.9551506],
    ...[0.35857072, 0.15779513, 1.2770847, 1.5104648],
  ], NORMAL_TOLERANCE);
});

test("golden: a second implementation agrees (python3 test/golden/rng.py)", () => {
  const k = key(1701);
  assert.equal(
    [...permutation(k, 12)],
    [9, 1, 8, 6, 11, 5, 4, 0, 10, 2, 7, 3],
  );
  assert.is(
    permutation(k, 5000).reduce((sum, p, i) => sum + i * p, 0),
    30995932262,
  );
  assert.equal(
    [...randomInts(k, 6, -1000, 100000)],
    [80524, 66358, 47625, 96230, 50080, 98193],
  );
  assert.equal([...randomInts(k, 6, -(2 ** 31), 2 ** 31)], [
    ...[1344773876, -692612290, 1666829977],
    ...[1975938582, 1123755432, -174652455],
  ]);
  assert.equal(fold(key(0), ""), [3520496301, 2513315811]);
  assert.equal(fold(k, "layers.0.weight"), [80631378, 2919517338]);
  assert.equal(fold(k, "zoë 雪 🎈"), [1686669549, 762891855]);
  assert.equal(fold(k, 12), [2220449985, 461791064]);
  assert.equal(fold(k, 3 * 2 ** 32 + 5), [2334169136, 241867980]);
  assert.equal([...uniform([7, 9], 5, -2.5, 3)], [
    ...[-1.2066659927368164, 0.5494122505187988, -1.38431715965271],
    ...[1.2283625602722168, 2.681079387664795],
  ]);
  closeTo(normal([7, 9], 5), [
    ...[-0.7219855581374411, 0.1368836553135784, -0.8314793502079735],
    ...[0.461790259489214, 1.5719117083984449],
  ], NORMAL_TOLERANCE);
});

test("the same key gives the same numbers, a prefix does not depend on the length", () => {
  const k = JSON.parse(JSON.stringify(key(3)));
  assert.equal(bits(k, 1000).slice(0, 10), bits(key(3), 10));
  assert.equal(uniform(k, 1000).slice(0, 10), uniform(key(3), 10));
  assert.equal(normal(k, 1000).slice(0, 10), normal(key(3), 10));
  assert.equal(randomInts(k, 1000, 0, 7).slice(0, 10), randomInts(k, 10, 0, 7));
  assert.equal(split(k, 100).slice(0, 2), split(k));
  assert.equal(key(2 ** 32 + 5), [1, 5]);
  assert.not.equal(bits(key(3), 4), bits(key(4), 4));
});

test("uniform: moments, histogram and Kolmogorov-Smirnov", () => {
  const n = 200_000;
  const u = uniform(key(11), n);
  const counts = new Float64Array(100);
  let [sum, squares] = [0, 0];
  for (const x of u) {
    assert.ok(x >= 0 && x < 1);
    counts[Math.floor(x * 100)]++;
    sum += x;
    squares += (x - 0.5) ** 2;
  }
  assert.ok(Math.abs(sum / n - 0.5) < NORMAL_Z * Math.sqrt(1 / 12 / n));
  // variance of (x - 1/2)^2 is 1/80 - 1/144 = 1/180
  assert.ok(Math.abs(squares / n - 1 / 12) < NORMAL_Z * Math.sqrt(1 / 180 / n));
  assert.ok(chiSquare(counts, n / 100) < CHI_SQUARE_99);
  assert.ok(kolmogorov(u, (x) => x) < KOLMOGOROV);
  // Serial: successive pairs on a grid of 10 x 10.
  const pairs = new Float64Array(100);
  for (let i = 0; i < n; i += 2) {
    pairs[Math.floor(u[i] * 10) * 10 + Math.floor(u[i + 1] * 10)]++;
  }
  assert.ok(chiSquare(pairs, n / 200) < CHI_SQUARE_99);
});

test("negative control: the statistics find a biased and a repeating sample", () => {
  const n = 200_000;
  const biased = uniform(key(11), n).map((x) => x ** 1.02);
  assert.ok(kolmogorov(biased, (x) => x) > KOLMOGOROV);
  const repeated = Float32Array.from(
    { length: n },
    (_, i) => (i * 0.6180339887) % 1,
  );
  const pairs = new Float64Array(100);
  for (let i = 0; i < n; i += 2) {
    const [a, b] = [repeated[i], repeated[i + 1]];
    pairs[Math.floor(a * 10) * 10 + Math.floor(b * 10)]++;
  }
  assert.ok(chiSquare(pairs, n / 200) > CHI_SQUARE_99);
});

test("normal: moments, Kolmogorov-Smirnov, tails, mean and std", () => {
  const n = 200_000;
  const z = normal(key(5), n);
  const moment = (power: number) =>
    z.reduce((sum, x) => sum + x ** power, 0) / n;
  // Var of z^p is E z^2p - (E z^p)^2: 1, 2, 15, 96.
  const off = (m: number, expected: number, variance: number) =>
    Math.abs(m - expected) / Math.sqrt(variance / n);
  assert.ok(off(moment(1), 0, 1) < NORMAL_Z);
  assert.ok(off(moment(2), 1, 2) < NORMAL_Z);
  assert.ok(off(moment(3), 0, 15) < NORMAL_Z);
  assert.ok(off(moment(4), 3, 96) < NORMAL_Z);
  assert.ok(kolmogorov(z, normalCdf) < KOLMOGOROV);
  const beyond = z.filter((x) => Math.abs(x) > 3).length;
  const p = 2 * normalCdf(-3);
  assert.ok(Math.abs(beyond - n * p) < NORMAL_Z * Math.sqrt(n * p));

  const scaled = normal(key(5), 4, 10, 0.5);
  closeTo(scaled, [...z.slice(0, 4)].map((x) => 10 + 0.5 * x), 1e-6);
});

test("integers: every value equally often, ends included", () => {
  const n = 100_000;
  const counts = new Float64Array(10);
  for (const v of randomInts(key(8), n, -3, 7)) counts[v + 3]++;
  assert.ok(chiSquare(counts, n / 10) < CHI_SQUARE_9);
  const bytes = new Float64Array(256);
  for (const v of randomInts(key(9), n, 0, 256)) bytes[v]++;
  assert.ok(chiSquare(bytes, n / 256) < CHI_SQUARE_255);
  assert.equal([...randomInts(key(9), 3, 4, 5)], [4, 4, 4]);
});

test("permutation: each of the 24 orders of four equally often, always a permutation", () => {
  const n = 24_000;
  const counts = new Map<string, number>();
  for (const k of split(key(21), n)) {
    const name = permutation(k, 4).join("");
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  assert.is(counts.size, 24);
  assert.ok(chiSquare([...counts.values()], n / 24) < CHI_SQUARE_23);
  for (const size of [0, 1, 2, 3, 1000, 70_000]) {
    const sorted = permutation(key(size), size).sort();
    assert.ok(sorted.length === size && sorted.every((v, i) => v === i));
  }
});

test("categorical: frequencies, temperature, excluded classes", () => {
  const n = 40_000;
  const probabilities = [0.1, 0.2, 0.3, 0.4, 0];
  const keys = split(key(33), n);
  for (const temperature of [1, 0.5]) {
    const weights = probabilities.map((p) => p ** (1 / temperature));
    const total = weights.reduce((a, b) => a + b);
    const logits = probabilities.map((p) => Math.log(p) + 500); // shift must not matter
    const counts = new Float64Array(5);
    for (const k of keys) counts[categorical(k, logits, { temperature })]++;
    assert.is(counts[4], 0);
    for (let i = 0; i < 4; i++) {
      const p = weights[i] / total;
      const off = Math.abs(counts[i] - n * p) / Math.sqrt(n * p * (1 - p));
      assert.ok(off < NORMAL_Z, `class ${i}: ${counts[i] / n} against ${p}`);
    }
  }
  assert.is(categorical(key(1), [1, 3, 3], { temperature: 0 }), 1);
  assert.is(categorical(key(1), [-Infinity, -800]), 1);
  const rare = Float32Array.of(0, -11.5); // about 1e-5
  const hits = split(key(2), 400_000).filter((k) => categorical(k, rare) === 1);
  assert.ok(Math.abs(hits.length - 4.05) < NORMAL_Z * Math.sqrt(4.05));
});

test("split and fold give independent streams", () => {
  const n = 50_000;
  const parent = key(77);
  const streams = [
    ...split(parent, 3),
    fold(parent, "a"),
    fold(parent, "b"),
    fold(split(parent)[0], 0),
    parent,
  ].map((k) => uniform(k, n));
  for (let i = 0; i < streams.length; i++) {
    for (let j = 0; j < i; j++) {
      const r = correlation(streams[i], streams[j]);
      assert.ok(Math.abs(r) < 4 / Math.sqrt(n), `streams ${i}, ${j}: ${r}`);
    }
  }
  // 20,000 children of one parent by number, by name and by seed: no two alike (2^-64 each pair).
  const seen = new Set<string>();
  const names = [
    "",
    "a",
    "b",
    "ab",
    "ba",
    "a\0",
    "\0a",
    "aaaaaaaa",
    "aaaaaaaab",
  ];
  for (const name of names) seen.add(fold(parent, name).join());
  for (let i = 0; i < 10_000; i++) {
    seen.add(fold(parent, i).join());
    seen.add(fold(parent, `${i}`).join());
  }
  assert.is(seen.size, 20_000 + names.length);
  // A bit of the seed flips half of the bits of the child.
  let flipped = 0;
  for (let i = 0; i < 1000; i++) {
    const [a, b] = [split(key(2 * i))[0], split(key(2 * i + 1))[0]];
    for (const half of [0, 1]) {
      for (let d = a[half] ^ b[half]; d !== 0; d &= d - 1) flipped++;
    }
  }
  assert.ok(Math.abs(flipped - 32_000) < NORMAL_Z * Math.sqrt(64_000 / 4));
});

test("errors name the value", () => {
  const k = key(0);
  assert.throws(() => key(-1), /integer in \[0, 2\^53\): -1/);
  assert.throws(() => key(0.5), RangeError);
  assert.throws(() => bits([1, -1], 1), /two unsigned 32-bit words: \[1,-1\]/);
  assert.throws(() => bits([1] as unknown as Key, 1), TypeError);
  assert.throws(() => uniform(k, -1), /integer in \[0, 2\^32\]: -1/);
  assert.throws(() => uniform(k, 1, 2, 2), /lo 2, hi 2/);
  assert.throws(() => normal(k, 1, 0, -1), /std -1/);
  assert.throws(() => randomInts(k, 1, 5, 5), /lo 5, hi 5/);
  assert.throws(() => fold(k, 1.5), /1\.5/);
  assert.throws(() => categorical(k, [0, NaN]), /logit 1 is NaN/);
  assert.throws(() => categorical(k, [-Infinity]), /at least one logit/);
  assert.throws(() => categorical(k, [0], { temperature: -1 }), /-1/);
});

test.run();
