/**
 * Binomial numbers by the hundred million: exact tables, and a small generator that is seeded by keys.
 *
 * A stream of L cycles of a buffer that fires with probability p holds Binomial(L, p) ones. For every
 * p that occurs, the distribution is laid out once as an alias table (A. J. Walker, ACM TOMS 3 (1977)
 * 253, doi:10.1145/355744.355749) of 2^m >= L + 1 columns; a draw is then one 32-bit word, one load and
 * one comparison, whatever L is. Probabilities are rounded to multiples of 2^-32, so 0 and 1 are exact.
 *
 * Words come from sfc32 (C. Doty-Humphrey, PractRand, "small fast counting", 128 bits of state, a
 * counter among them, so no state can repeat within 2^32 words), seeded with three words that Threefry
 * made of a key (lib/core/rng.ts). Different seeds give different states; twelve words are thrown away.
 */
import { bits, fold, type Key } from "../core/rng.ts";

/** Longest stream that tables are made for: they grow with it. */
export const MAX_STREAM_LENGTH = 4096;

/** Words that a fresh generator throws away. Source: PractRand, sfc32's own seeding. */
const WARM_UP = 12;

/** @throws RangeError unless whole, at least 1 and not too long for tables. */
export function checkStreamLength(streamLength: number): void {
  if (
    !Number.isInteger(streamLength) || streamLength < 1 ||
    streamLength > MAX_STREAM_LENGTH
  ) {
    throw new RangeError(
      `Cannot clock a stream as its length must be a whole number from 1 to ${MAX_STREAM_LENGTH}: streamLength ${streamLength}`,
    );
  }
}

/**
 * Chances of 0 ... n ones among n draws.
 *
 * P(c) = n! / (c! (n - c)!) p^c (1 - p)^(n - c), from the most likely c outwards: no overflow.
 *
 * @returns [n + 1]; sums to 1 up to rounding
 */
export function binomialProbabilities(
  n: number,
  p: number,
  out: Float64Array = new Float64Array(n + 1),
): Float64Array {
  if (!(p >= 0 && p <= 1)) {
    throw new RangeError(
      `Cannot compute a binomial distribution as p must be from 0 to 1: p ${p}`,
    );
  }
  out.fill(0, 0, n + 1);
  if (p === 0 || p === 1) {
    out[p * n] = 1;
    return out;
  }
  const odds = p / (1 - p);
  const mode = Math.min(n, Math.floor((n + 1) * p));
  out[mode] = 1;
  let total = 1;
  for (let c = mode; c < n && out[c] > 0; c++) {
    out[c + 1] = out[c] * (n - c) / (c + 1) * odds;
    total += out[c + 1];
  }
  for (let c = mode; c > 0 && out[c] > 0; c--) {
    out[c - 1] = out[c] * c / (n - c + 1) / odds;
    total += out[c - 1];
  }
  for (let c = 0; c <= n; c++) out[c] /= total;
  return out;
}

/** m: logarithm of the number of columns of a table for streams of this length. */
export function tableBits(streamLength: number): number {
  return Math.max(1, Math.ceil(Math.log2(streamLength + 1)));
}

/** Makes alias tables for one stream length. */
export interface TableMaker {
  /** m */
  columnBits: number;
  /** Lays the table of Binomial(streamLength, p) at `table[at ... at + 2^m]`. */
  write(table: Int32Array, at: number, p: number): void;
}

/**
 * A maker of alias tables.
 *
 * Column i holds 2^(32 - m) units of probability: the first `threshold` of them for outcome i, the rest
 * for outcome `alias`. An entry is threshold 2^m + alias with its sign bit flipped, for signed
 * comparison; `drawFromTable` reads it.
 */
export function tableMaker(streamLength: number): TableMaker {
  checkStreamLength(streamLength);
  const columnBits = tableBits(streamLength);
  const columns = 2 ** columnBits;
  const unit = 2 ** (32 - columnBits);
  const chances = new Float64Array(streamLength + 1);
  const left = new Float64Array(columns);
  const small = new Int32Array(columns);
  const large = new Int32Array(columns);
  const SIGN = -0x80000000;
  return {
    columnBits,
    write(table, at, p) {
      if (p === 0 || p === 1) {
        const only = (p * streamLength) ^ SIGN;
        table.fill(only, at, at + columns);
        return;
      }
      binomialProbabilities(streamLength, p, chances);
      left.fill(0);
      let sum = 0;
      let greatest = 0;
      for (let c = 0; c <= streamLength; c++) {
        left[c] = Math.round(chances[c] * 2 ** 32);
        sum += left[c];
        if (left[c] > left[greatest]) greatest = c;
      }
      left[greatest] += 2 ** 32 - sum;
      let smalls = 0;
      let larges = 0;
      for (let c = 0; c < columns; c++) {
        if (left[c] < unit) small[smalls++] = c;
        else large[larges++] = c;
      }
      // Integers throughout: what is small is filled up by exactly what a large one gives.
      while (smalls > 0) {
        const column = small[--smalls];
        const giver = large[larges - 1];
        table[at + column] = (left[column] * columns + giver) ^ SIGN;
        left[giver] -= unit - left[column];
        if (left[giver] < unit) {
          larges--;
          small[smalls++] = giver;
        }
      }
      while (larges > 0) {
        const column = large[--larges];
        table[at + column] = column ^ SIGN;
      }
    },
  };
}

/**
 * The outcome that a random word selects in a table.
 *
 * The upper m bits choose the column, the others are compared with its threshold. The simulator has
 * these three lines within its loop.
 */
export function drawFromTable(
  table: Int32Array,
  at: number,
  columnBits: number,
  word: number,
): number {
  const mask = 2 ** columnBits - 1;
  const column = word >>> (32 - columnBits);
  const entry = table[at + column];
  return (((word << columnBits) | mask) ^ 0x80000000) < entry
    ? column
    : entry & mask;
}

/** Generators side by side, one per row of inputs. */
export interface Generators {
  /** [rows, 4]: a, b, c and the counter of sfc32. */
  state: Int32Array;
}

/** The next word of generator `row`, as a signed 32-bit integer. */
export function nextWord({ state }: Generators, row: number): number {
  const at = 4 * row;
  const b = state[at + 1];
  const c = state[at + 2];
  const word = (state[at] + b + state[at + 3]) | 0;
  state[at + 3] = (state[at + 3] + 1) | 0;
  state[at] = b ^ (b >>> 9);
  state[at + 1] = (c + (c << 3)) | 0;
  state[at + 2] = (((c << 21) | (c >>> 11)) + word) | 0;
  return word;
}

/**
 * Generators for the rows of several images: seeds are (two words of the image, position in it).
 *
 * Image i gets the same numbers whichever images stand beside it.
 *
 * @param firstImage, images Which of the key's images
 * @param positions Rows of an image
 */
export function seedGenerators(
  key: Key,
  firstImage: number,
  images: number,
  positions: number,
): Generators {
  const high = bits(fold(key, "high"), firstImage + images);
  const low = bits(fold(key, "low"), firstImage + images);
  const state = new Int32Array(4 * images * positions);
  const generators = { state };
  for (let image = 0; image < images; image++) {
    for (let position = 0; position < positions; position++) {
      const row = image * positions + position;
      state[4 * row] = high[firstImage + image];
      state[4 * row + 1] = low[firstImage + image];
      state[4 * row + 2] = position;
      state[4 * row + 3] = 1;
      for (let n = 0; n < WARM_UP; n++) nextWord(generators, row);
    }
  }
  return generators;
}

/** Streams that are inverted in one piece: 2^-512 is still far from the smallest double. */
const PIECE = 512;

/**
 * A binomial number without a table, by inversion: for probabilities that do not recur.
 *
 * Walks up from 0 by P(c + 1) = P(c) (n - c) / (c + 1) p / (1 - p), on the side where p <= 1/2.
 *
 * @param word Gives random 32-bit words
 */
export function drawBinomial(
  n: number,
  p: number,
  word: () => number,
): number {
  if (p <= 0 || n === 0) return 0;
  if (p >= 1) return n;
  if (p > 0.5) return n - drawBinomial(n, 1 - p, word);
  if (n > PIECE) {
    return drawBinomial(PIECE, p, word) + drawBinomial(n - PIECE, p, word);
  }
  const odds = p / (1 - p);
  let rest = ((word() >>> 0) + 0.5) * 2 ** -32;
  let chance = 1;
  for (let power = n, base = 1 - p; power > 0; power >>>= 1) {
    if (power & 1) chance *= base;
    base *= base;
  }
  for (let c = 0; c < n; c++) {
    if (rest < chance) return c;
    rest -= chance;
    chance *= (n - c) / (c + 1) * odds;
  }
  return n;
}
