/**
 * Accumulation in stochastic computing: from the bits of K tiles over L cycles to one activation.
 *
 * Every tile of a neuron is clocked L times with the same input. As the device is random, its L bits
 * are a stochastic number with mean P(V_k). A parallel counter adds the K bits of a cycle, an
 * accumulator the L cycles, and a comparator decides: no analogue-to-digital converter anywhere.
 *
 * | symbol | identifier | |
 * | --- | --- | --- |
 * | K, L | tiles, streamLength | bits per cycle, cycles |
 * | p_k = P(V_k) | probabilities[k] | chance of a 1 |
 * | c | count | ones of all tiles and cycles, 0 ... K L |
 * | m = 2 c / L - K | decodedValue() | estimate of sum_k E[a_k], -K ... K |
 *
 * Trade: with a narrow gray zone each tile decides by majority, and a majority of majorities is not the
 * majority; with a wide one m is in proportion to the sum, but every bit nearly a fair coin, so that L
 * must be large. Between them lies an optimum, which moves to wider gray zones as L grows.
 *
 * Scope: equations derived from this description, which is all that was available of the paper (Li et
 * al., arXiv 2309.12212). That the threshold is split evenly is assumed. The approximate counter is
 * the usual one of stochastic computing (Kim, Lee and Choi, ISOCC 2015; recalled): the first layer of
 * adders is replaced by and and or gates in turn.
 */
import { expectedOutput, firingProbability, type Ties } from "./device.ts";
import { tileSize, type Tiling } from "./crossbar.ts";
import { binomialProbabilities, checkStreamLength } from "./binomial.ts";

/** `exact` adds all bits; `approximate` takes 2 (a and b) or, in turn, 2 (a or b) for a + b. */
export type Counter = "exact" | "approximate";

/** How the threshold of a neuron is shared among its tiles: `even` V_th / K (assumed), or by their size. */
export type ThresholdSplit = "even" | "proportional";

/**
 * Thresholds of the tiles of a neuron; they add up to its own.
 *
 * even:         V_th / K                (assumed)
 * proportional: V_th n_k / n
 *
 * @returns of the full tiles, and of the last
 */
export function splitThreshold(
  threshold: number,
  tiling: Tiling,
  split: ThresholdSplit = "even",
): { full: number; last: number } {
  if (Number.isNaN(threshold)) {
    throw new RangeError("Cannot split a threshold as it is NaN");
  }
  if (split === "even") {
    const share = threshold / tiling.tiles;
    return { full: share, last: share };
  }
  if (split !== "proportional") {
    throw new RangeError(
      `Cannot split a threshold as the split must be "even" or "proportional": ${split}`,
    );
  }
  const perInput = threshold / tiling.fanIn;
  return {
    full: perInput * tileSize(tiling, 0),
    last: perInput * tiling.lastSize,
  };
}

/** p_k of every tile of a neuron. */
export function tileProbabilities(
  sums: ArrayLike<number>,
  threshold: number,
  tiling: Tiling,
  { grayZone, split = "even", ties = "coin" }: {
    grayZone: number;
    split?: ThresholdSplit;
    ties?: Ties;
  },
): Float64Array {
  const { full, last } = splitThreshold(threshold, tiling, split);
  return Float64Array.from(
    sums,
    (sum, k) =>
      firingProbability(
        sum,
        k === tiling.tiles - 1 ? last : full,
        grayZone,
        ties,
      ),
  );
}

/**
 * Decoded value of a count.
 *
 * m = 2 c / L - K
 */
export function decodedValue(
  count: number,
  tiles: number,
  streamLength: number,
): number {
  return 2 * count / streamLength - tiles;
}

/**
 * Mean of the decoded value.
 *
 * E[m] = sum_k (2 p_k - 1), which is sum_k erf(sqrt(pi) (V_k - V_th / K) / dV_in)
 */
export function decodedMean(probabilities: ArrayLike<number>): number {
  let sum = 0;
  for (let k = 0; k < probabilities.length; k++) {
    sum += 2 * probabilities[k] - 1;
  }
  return sum;
}

/**
 * Variance of the decoded value: the cycles are independent, and so are the tiles.
 *
 * Var[m] = (4 / L) sum_k p_k (1 - p_k)
 */
export function decodedVariance(
  probabilities: ArrayLike<number>,
  streamLength: number,
): number {
  checkStreamLength(streamLength);
  let sum = 0;
  for (let k = 0; k < probabilities.length; k++) {
    sum += probabilities[k] * (1 - probabilities[k]);
  }
  return 4 / streamLength * sum;
}

/**
 * Whether the next layer gets +1.
 *
 * c > K L / 2, and at c = K L / 2 what `ties` says; `coin` calls `toss`.
 */
export function comparatorFires(
  count: number,
  tiles: number,
  streamLength: number,
  ties: Ties,
  toss: () => boolean,
): boolean {
  const excess = 2 * count - tiles * streamLength;
  if (excess !== 0) return excess > 0;
  return ties === "coin" ? toss() : ties === "high";
}

/** The exact parallel counter: ones among the bits of a cycle. */
export function exactCount(bits: ArrayLike<number>): number {
  let sum = 0;
  for (let k = 0; k < bits.length; k++) sum += bits[k];
  return sum;
}

/**
 * The approximate parallel counter on the bits of a cycle.
 *
 * Pair j of bits counts 2 (a and b) for even j and 2 (a or b) for odd j; a bit left over counts itself.
 */
export function approximateCount(bits: ArrayLike<number>): number {
  let sum = 0;
  for (let k = 0; k + 1 < bits.length; k += 2) {
    sum += 2 * (k % 4 === 0 ? bits[k] & bits[k + 1] : bits[k] | bits[k + 1]);
  }
  return bits.length % 2 === 1 ? sum + bits[bits.length - 1] : sum;
}

/**
 * Mean and variance of the count of a cycle, and how far the mean is off.
 *
 * A pair with chances p, q: E[2 a b] = 2 p q is short by p (1 - q) + q (1 - p), and 2 (p + q - p q) is
 * over by as much, so pairs of like chances cancel in turn. Its variance is 4 r (1 - r), r the chance
 * of the gate's 1: for two fair coins 3/4, where an exact addition has 1/2.
 */
export function countMoments(
  probabilities: ArrayLike<number>,
  counter: Counter,
): { mean: number; variance: number; bias: number } {
  const n = probabilities.length;
  let exact = 0;
  let mean = 0;
  let variance = 0;
  for (let k = 0; k < n; k++) {
    const p = probabilities[k];
    exact += p;
    const alone = counter === "exact" || (k === n - 1 && n % 2 === 1);
    if (alone) {
      mean += p;
      variance += p * (1 - p);
    } else if (k % 2 === 1) {
      const r = pairProbability(probabilities[k - 1], p, (k - 1) / 2);
      mean += 2 * r;
      variance += 4 * r * (1 - r);
    }
  }
  return { mean, variance, bias: mean - exact };
}

/** Chance that the gate of pair j of the approximate counter gives 1: and for even j, or for odd j. */
export function pairProbability(p: number, q: number, j: number): number {
  return j % 2 === 0 ? p * q : p + q - p * q;
}

/** E[m] of a neuron straight from its sums, with its threshold split evenly. */
export function expectedDecoded(
  sums: ArrayLike<number>,
  threshold: number,
  grayZone: number,
): number {
  let total = 0;
  for (let k = 0; k < sums.length; k++) {
    total += expectedOutput(sums[k], threshold / sums.length, grayZone);
  }
  return total;
}

/** Chances that are left out at the ends of a distribution; far below any that is reported. */
const NEGLIGIBLE = 1e-18;

/** A distribution on whole numbers from `first`, without ends of negligible chance. */
export interface CountDistribution {
  first: number;
  chances: Float64Array;
}

function trimmed(first: number, chances: Float64Array): CountDistribution {
  let from = 0;
  let to = chances.length;
  while (chances[from] < NEGLIGIBLE && from < to - 1) from++;
  while (chances[to - 1] < NEGLIGIBLE && to - 1 > from) to--;
  return { first: first + from, chances: chances.subarray(from, to) };
}

/**
 * The distribution of a neuron's count c, without sampling.
 *
 * c = sum over tiles of Binomial(L, p_k); tiles of one chance p join to Binomial(n L, p), and gates of the
 * approximate counter count double.
 */
export function countDistribution(
  probabilities: ArrayLike<number>,
  streamLength: number,
  counter: Counter = "exact",
): CountDistribution {
  checkStreamLength(streamLength);
  const n = probabilities.length;
  const single = new Map<number, number>();
  const double = new Map<number, number>();
  const join = (map: Map<number, number>, p: number) =>
    map.set(p, (map.get(p) ?? 0) + 1);
  for (let k = 0; k < n; k++) {
    if (counter === "exact" || (k === n - 1 && n % 2 === 1)) {
      join(single, probabilities[k]);
    } else if (k % 2 === 1) {
      const pair = (k - 1) / 2;
      join(
        double,
        pairProbability(probabilities[k - 1], probabilities[k], pair),
      );
    }
  }
  let sum: CountDistribution = { first: 0, chances: Float64Array.of(1) };
  for (const [map, step] of [[single, 1], [double, 2]] as const) {
    for (const [p, tiles] of map) {
      const part = trimmed(0, binomialProbabilities(tiles * streamLength, p));
      const length = sum.chances.length + step * (part.chances.length - 1);
      const chances = new Float64Array(length);
      for (let j = 0; j < part.chances.length; j++) {
        const weight = part.chances[j];
        const to = step * j;
        for (let i = 0; i < sum.chances.length; i++) {
          chances[to + i] += weight * sum.chances[i];
        }
      }
      sum = trimmed(sum.first + step * part.first, chances);
    }
  }
  return sum;
}

/** Chance that the comparator fires for such a count; a tie counts half, all or nothing as `ties` says. */
export function firingChance(
  { first, chances }: CountDistribution,
  tiles: number,
  streamLength: number,
  ties: Ties = "coin",
): number {
  const middle = tiles * streamLength / 2;
  const tie = ties === "coin" ? 0.5 : ties === "high" ? 1 : 0;
  let sum = 0;
  for (let i = 0; i < chances.length; i++) {
    const count = first + i;
    if (count > middle) sum += chances[i];
    else if (count === middle) sum += tie * chances[i];
  }
  return Math.min(sum, 1);
}
