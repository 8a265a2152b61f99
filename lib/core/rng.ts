/**
 * Random numbers from keys that are passed and split, never from ambient state.
 *
 * Threefry-2x32 with 20 rounds: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw,
 * "Parallel random numbers: as easy as 1, 2, 3", SC '11, doi:10.1145/2063384.2063405.
 * Keys, bits, uniform, normal, integers and permutations give the numbers of jax.random (JAX 0.5 and
 * later, `jax_threefry_partitionable`): design in the JAX document "JEP 263: JAX PRNG design".
 *
 * The generator is a block cipher of a counter: number i of a key is the encryption of i. So the
 * same key gives the same numbers in any order of evaluation, and the first n of a longer array are
 * the array of length n. A key is used once: to draw again, `split` or `fold` it first.
 *
 * Scope: 32-bit words and float32. `categorical` and the folding of strings are our own definitions.
 */

/** A key: two unsigned 32-bit words. Plain JSON; treat it as opaque. */
export type Key = readonly [number, number];

/** Parity constant of the key schedule (Salmon et al., section 4.2; Skein 1.3). */
const PARITY = 0x1bd11bda;

/** Counter word that only the folding of strings uses, so that it never meets a number's counter. */
const STRING_DOMAIN = 0xffffffff;

/** 2^-23: the step of a float32 in [1, 2), hence of every uniform number. */
const UNIFORM_STEP = 2 ** -23;

/** The float32 next to -1 on the way to 0: the open end of the interval that `normal` inverts. */
const ABOVE_MINUS_ONE = -1 + 2 ** -24;

const MAX_LENGTH = 2 ** 32;

/** Encrypts the counter (c0, c1) under the key (k0, k1) into `out[at]` and `out[at + 1]`. */
function threefry(
  k0: number,
  k1: number,
  c0: number,
  c1: number,
  out: Uint32Array,
  at: number,
): void {
  const k2 = k0 ^ k1 ^ PARITY;
  // Written out: a loop over the rotation table costs a factor of three.
  let x = (c0 + k0) | 0;
  let y = (c1 + k1) | 0;
  x = (x + y) | 0;
  y = ((y << 13) | (y >>> 19)) ^ x;
  x = (x + y) | 0;
  y = ((y << 15) | (y >>> 17)) ^ x;
  x = (x + y) | 0;
  y = ((y << 26) | (y >>> 6)) ^ x;
  x = (x + y) | 0;
  y = ((y << 6) | (y >>> 26)) ^ x;
  x = (x + k1) | 0;
  y = (y + k2 + 1) | 0;
  x = (x + y) | 0;
  y = ((y << 17) | (y >>> 15)) ^ x;
  x = (x + y) | 0;
  y = ((y << 29) | (y >>> 3)) ^ x;
  x = (x + y) | 0;
  y = ((y << 16) | (y >>> 16)) ^ x;
  x = (x + y) | 0;
  y = ((y << 24) | (y >>> 8)) ^ x;
  x = (x + k2) | 0;
  y = (y + k0 + 2) | 0;
  x = (x + y) | 0;
  y = ((y << 13) | (y >>> 19)) ^ x;
  x = (x + y) | 0;
  y = ((y << 15) | (y >>> 17)) ^ x;
  x = (x + y) | 0;
  y = ((y << 26) | (y >>> 6)) ^ x;
  x = (x + y) | 0;
  y = ((y << 6) | (y >>> 26)) ^ x;
  x = (x + k0) | 0;
  y = (y + k1 + 3) | 0;
  x = (x + y) | 0;
  y = ((y << 17) | (y >>> 15)) ^ x;
  x = (x + y) | 0;
  y = ((y << 29) | (y >>> 3)) ^ x;
  x = (x + y) | 0;
  y = ((y << 16) | (y >>> 16)) ^ x;
  x = (x + y) | 0;
  y = ((y << 24) | (y >>> 8)) ^ x;
  x = (x + k1) | 0;
  y = (y + k2 + 4) | 0;
  x = (x + y) | 0;
  y = ((y << 13) | (y >>> 19)) ^ x;
  x = (x + y) | 0;
  y = ((y << 15) | (y >>> 17)) ^ x;
  x = (x + y) | 0;
  y = ((y << 26) | (y >>> 6)) ^ x;
  x = (x + y) | 0;
  y = ((y << 6) | (y >>> 26)) ^ x;
  out[at] = x + k2;
  out[at + 1] = y + k0 + 5;
}

/** Throws unless `k` is two unsigned 32-bit words. */
function checkKey(k: Key): void {
  const isWord = (word: unknown) =>
    Number.isInteger(word) && (word as number) >= 0 &&
    (word as number) < 2 ** 32;
  if (!Array.isArray(k) || k.length !== 2 || !k.every(isWord)) {
    throw new TypeError(
      `Cannot use a random key as it must be two unsigned 32-bit words: ${
        JSON.stringify(k)
      }; make one with key(seed)`,
    );
  }
}

/** Throws unless `n` numbers can be drawn. */
function checkLength(n: number): void {
  if (!Number.isInteger(n) || n < 0 || n > MAX_LENGTH) {
    throw new RangeError(
      `Cannot draw random numbers as their count must be an integer in [0, 2^32]: ${n}`,
    );
  }
}

/** Encrypts one counter under a key. */
function encrypt(k: Key, c0: number, c1: number): Key {
  const out = new Uint32Array(2);
  threefry(k[0], k[1], c0, c1, out, 0);
  return [out[0], out[1]];
}

/**
 * The key of a seed; equals `jax.random.PRNGKey(seed)`.
 *
 * @param seed integer in [0, 2^53)
 * @throws RangeError if the seed is not such an integer
 *
 * @example
 * key(1701); // [0, 1701]
 */
export function key(seed: number): Key {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(
      `Cannot make a random key as the seed must be an integer in [0, 2^53): ${seed}`,
    );
  }
  return [Math.floor(seed / 2 ** 32), seed >>> 0];
}

/**
 * `n` new keys whose streams are independent of each other and of `k`'s; equals `jax.random.split`.
 * The first keys do not depend on `n`.
 *
 * @example
 * split(key(0)); // [[1797259609, 2579123966], [928981903, 3453687069]]
 */
export function split(k: Key, n = 2): Key[] {
  checkKey(k);
  checkLength(n);
  return Array.from({ length: n }, (_, i) => encrypt(k, 0, i));
}

/**
 * A new key from a key and a name or number: the way to give every arm, layer or step its own.
 *
 * An integer gives `jax.random.fold_in`; note that, as there, `fold(k, i)` equals `split(k)[i]`, so
 * one key is either split or folded with numbers, not both. A string is absorbed as its UTF-8
 * bytes, eight at a time, after a block that holds the length: k' = E_k'(block), a cascade of the
 * cipher. Strings and numbers never give the same counter.
 *
 * @param data any string, or an integer in [0, 2^53)
 * @throws RangeError if a number is not such an integer
 *
 * @example
 * const layer = fold(key(0), "layers.0.weight");
 */
export function fold(k: Key, data: string | number): Key {
  checkKey(k);
  if (typeof data === "number") {
    if (!Number.isSafeInteger(data) || data < 0) {
      throw new RangeError(
        `Cannot fold a number into a random key as it must be an integer in [0, 2^53): ${data}`,
      );
    }
    return encrypt(k, Math.floor(data / 2 ** 32), data >>> 0);
  }
  const bytes = new TextEncoder().encode(data);
  const byteAt = (i: number) => i < bytes.length ? bytes[i] : 0;
  const wordAt = (i: number) =>
    byteAt(i) | (byteAt(i + 1) << 8) | (byteAt(i + 2) << 16) |
    (byteAt(i + 3) << 24);
  let folded = encrypt(k, STRING_DOMAIN, bytes.length);
  for (let i = 0; i < bytes.length; i += 8) {
    folded = encrypt(folded, wordAt(i), wordAt(i + 4));
  }
  return folded;
}

/**
 * `n` words of 32 random bits; equals `jax.random.bits(k, (n,))`.
 *
 * Word i is the exclusive or of both halves of the encrypted counter i.
 */
export function bits(k: Key, n: number): Uint32Array {
  checkKey(k);
  checkLength(n);
  const [k0, k1] = k;
  const out = new Uint32Array(n);
  const pair = new Uint32Array(2);
  for (let i = 0; i < n; i++) {
    threefry(k0, k1, 0, i, pair, 0);
    out[i] = pair[0] ^ pair[1];
  }
  return out;
}

/**
 * `n` numbers uniform in [lo, hi); equals `jax.random.uniform` in float32.
 *
 * u = lo + (hi - lo) * floor(word / 2^9) / 2^23, so there are 2^23 different values; a range that is
 * narrow against its ends can round up to hi.
 *
 * @throws RangeError unless lo < hi, both finite
 *
 * @example
 * uniform(key(0), 2); // [0.9476670026779175, 0.9785798788070679]
 */
export function uniform(k: Key, n: number, lo = 0, hi = 1): Float32Array {
  checkKey(k);
  checkLength(n);
  if (!(Number.isFinite(lo) && Number.isFinite(hi) && lo < hi)) {
    throw new RangeError(
      `Cannot draw uniform numbers as lo must be below hi, both finite: lo ${lo}, hi ${hi}`,
    );
  }
  const [k0, k1] = k;
  const low = Math.fround(lo);
  const width = Math.fround(Math.fround(hi) - low);
  const out = new Float32Array(n);
  const pair = new Uint32Array(2);
  for (let i = 0; i < n; i++) {
    threefry(k0, k1, 0, i, pair, 0);
    out[i] = low +
      Math.fround(((pair[0] ^ pair[1]) >>> 9) * UNIFORM_STEP * width);
  }
  return out;
}

/**
 * Inverse error function for |x| < 1 to about 4e-7 relative: the two single-precision polynomials of
 * M. Giles, "Approximating the erfinv function", GPU Computing Gems Jade Edition (2012), table 5.
 */
function inverseErf(x: number): number {
  let w = -Math.log(1 - x * x);
  if (w < 5) {
    w -= 2.5;
    let p = 2.81022636e-08;
    p = 3.43273939e-07 + p * w;
    p = -3.5233877e-06 + p * w;
    p = -4.39150654e-06 + p * w;
    p = 0.00021858087 + p * w;
    p = -0.00125372503 + p * w;
    p = -0.00417768164 + p * w;
    p = 0.246640727 + p * w;
    return (1.50140941 + p * w) * x;
  }
  w = Math.sqrt(w) - 3;
  let p = -0.000200214257;
  p = 0.000100950558 + p * w;
  p = 0.00134934322 + p * w;
  p = -0.00367342844 + p * w;
  p = 0.00573950773 + p * w;
  p = -0.0076224613 + p * w;
  p = 0.00943887047 + p * w;
  p = 1.00167406 + p * w;
  return (2.83297682 + p * w) * x;
}

/**
 * `n` normal numbers; equals `jax.random.normal(k, (n,)) * std + mean` to about 1e-6.
 *
 * z = sqrt(2) * erfinv(u), u uniform in (-1, 1) on a grid of 2^23, so |z| is at most 5.42.
 *
 * @throws RangeError unless mean and std are finite and std >= 0
 *
 * @example
 * normal(key(0), 1); // [1.6226422]
 */
export function normal(k: Key, n: number, mean = 0, std = 1): Float32Array {
  checkKey(k);
  checkLength(n);
  if (!(Number.isFinite(mean) && Number.isFinite(std) && std >= 0)) {
    throw new RangeError(
      `Cannot draw normal numbers as mean and std must be finite and std >= 0: mean ${mean}, std ${std}`,
    );
  }
  const [k0, k1] = k;
  const out = new Float32Array(n);
  const pair = new Uint32Array(2);
  for (let i = 0; i < n; i++) {
    threefry(k0, k1, 0, i, pair, 0);
    const u = Math.fround(
      ((pair[0] ^ pair[1]) >>> 9) * (2 * UNIFORM_STEP) + ABOVE_MINUS_ONE,
    );
    out[i] = mean + std * Math.SQRT2 * inverseErf(u);
  }
  return out;
}

/**
 * `n` integers in [lo, hi); equals `jax.random.randint`.
 *
 * Two words a number, reduced modulo the span, so the bias is below 2^-32 for spans up to 2^16 and
 * below span / 2^32 above.
 *
 * @param lo lowest value, an integer >= -2^31
 * @param hi first value above, an integer <= 2^31
 * @throws RangeError unless lo < hi in that range
 *
 * @example
 * randomInts(key(0), 4, 0, 20); // [9, 0, 12, 13]
 */
export function randomInts(
  k: Key,
  n: number,
  lo: number,
  hi: number,
): Int32Array {
  checkKey(k);
  checkLength(n);
  const inRange = (v: number) =>
    Number.isInteger(v) && v >= -(2 ** 31) && v <= 2 ** 31;
  if (!(inRange(lo) && inRange(hi) && lo < hi)) {
    throw new RangeError(
      `Cannot draw integers as lo must be below hi, both integers in [-2^31, 2^31]: lo ${lo}, hi ${hi}`,
    );
  }
  const [highKey, lowKey] = split(k);
  const high = bits(highKey, n);
  const low = bits(lowKey, n);
  const span = hi - lo;
  // 2^32 mod span, which JAX computes in 32 bits: 0 where the square of 2^16 mod span overflows.
  const half = 2 ** 16 % span;
  const multiplier = ((half * half) % 2 ** 32) % span;
  const out = new Int32Array(n);
  for (let i = 0; i < n; i++) {
    out[i] = lo + ((high[i] % span) * multiplier + (low[i] % span)) % span;
  }
  return out;
}

const isLittleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * A random permutation of 0 ... n - 1; equals `jax.random.permutation(k, n)`.
 *
 * Sorts by random words, in as many rounds as make a tie that decides the order improbable.
 *
 * @param n integer in [0, 2^32)
 */
export function permutation(k: Key, n: number): Uint32Array {
  checkKey(k);
  checkLength(n);
  let order = Uint32Array.from({ length: n }, (_, i) => i);
  if (n < 2) return order;
  const rounds = Math.ceil(3 * Math.log(n) / Math.log(2 ** 32 - 1));
  // One 64-bit integer holds the random word above the position, so that plain sorting is stable.
  const sorted = new BigUint64Array(n);
  const words = new Uint32Array(sorted.buffer);
  const [wordAt, positionAt] = isLittleEndian ? [1, 0] : [0, 1];
  for (let round = 0; round < rounds; round++) {
    const [next, sortKey] = split(k);
    k = next;
    const random = bits(sortKey, n);
    for (let i = 0; i < n; i++) {
      words[2 * i + wordAt] = random[i];
      words[2 * i + positionAt] = i;
    }
    sorted.sort();
    const shuffled = new Uint32Array(n);
    for (let i = 0; i < n; i++) shuffled[i] = order[words[2 * i + positionAt]];
    order = shuffled;
  }
  return order;
}

/**
 * One index, drawn with probability softmax(logits / temperature).
 *
 * By inversion in double precision with a 53-bit uniform number, so that rare classes keep their
 * frequency; unlike `jax.random.categorical`, which adds float32 Gumbel noise to every logit.
 *
 * @param logits unnormalised log probabilities; -Infinity excludes a class
 * @param temperature >= 0, default 1; 0 takes the first of the greatest logits
 * @throws RangeError if a logit is NaN or +Infinity, none is finite, or the temperature is negative
 *
 * @example
 * categorical(key(0), [50, 0]); // 0
 */
export function categorical(
  k: Key,
  logits: ArrayLike<number>,
  { temperature = 1 }: { temperature?: number } = {},
): number {
  checkKey(k);
  if (!(temperature >= 0 && temperature < Infinity)) {
    throw new RangeError(
      `Cannot draw a category as the temperature must be finite and >= 0: ${temperature}`,
    );
  }
  let best = -1;
  let max = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i];
    if (Number.isNaN(logit) || logit === Infinity) {
      throw new RangeError(
        `Cannot draw a category as logits must not be NaN or +Infinity: logit ${i} is ${logit}`,
      );
    }
    if (logit > max) [max, best] = [logit, i];
  }
  if (best < 0) {
    throw new RangeError(
      `Cannot draw a category as at least one logit must be finite: ${logits.length} logits`,
    );
  }
  if (temperature === 0) return best;

  const weights = new Float64Array(logits.length);
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    weights[i] = Math.exp((logits[i] - max) / temperature);
    total += weights[i];
  }
  const [high, low] = encrypt(k, 0, 0);
  const u = (high * 2 ** 21 + (low >>> 11)) * 2 ** -53;
  let rest = u * total;
  for (let i = 0; i < weights.length; i++) {
    rest -= weights[i];
    if (rest < 0) return i;
  }
  return best; // only rounding of the sum leads here
}
