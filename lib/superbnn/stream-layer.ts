/**
 * A layer of stochastic signs in training: counts drawn forward, the gradient of their expectation backward.
 *
 * SupeRBNN: Z. Li et al., MICRO 2023, arXiv 2309.12212. Each of K crossbars has a buffer that is a stochastic
 * sign of its own sum V_k, clocked L times; the counts of all K buffers are added and compared. The counts come
 * from their exact distribution, by a table for each sum that a tile can have.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | V_k | tile sums | [K, R, out], R rows: images, or images times places |
 * | p_k = P(V_k) | firing probability | of V_k - V_th / K |
 * | c = sum_k Binomial(L, p_k) | count | [R, out] |
 * | m = 2 c / L - K | decoded sum | [R, out] |
 * | a | +1 where m > 0, -1 where m < 0, a coin at 0 | [R, out] |
 *
 * Scope: the exact gradient of E[a] needs the distribution of c for all tiles but one; it is exact here for one
 * tile and by the central limit theorem for several (`comparatorSlope`).
 */
import { bits, fold, type Key } from "../core/rng.ts";
import { type Tensor, tf } from "../core/tensor.ts";
import { checkStreamLength } from "./binomial.ts";
import {
  checkCrossbarSize,
  expectationGradient,
  firingProbability,
} from "./device.ts";

/** A crossbar and how it is read. */
export interface StreamSettings {
  crossbarSize: number;
  grayZone: number;
  streamLength: number;
  fanIn: number;
}

/**
 * What a tile's sum means: entry j (n + 1) + (V + n) / 2 for neuron j and a tile of n inputs, whose sum has
 * the parity of n. erf is computed here and nowhere else.
 */
interface TileTable {
  /** n */
  size: number;
  /** p = P(V - V_th / K). */
  probability: Float32Array;
  /** dE[m_k]/dV = 2 dp/dV. */
  slope: Float32Array;
  /** Alias tables of Binomial(L, p): [neurons, n + 1, 2^aliasBits]. */
  alias: Int32Array;
  aliasBits: number;
}

/** Chances of 0 ... L successes, into `mass`. */
function binomialMass(L: number, p: number, mass: Float64Array): void {
  // The smaller chance is expanded, so that (1 - q)^L does not vanish, and read from its own end.
  const q = Math.min(p, 1 - p);
  const odds = q / (1 - q);
  let term = (1 - q) ** L;
  for (let c = 0; c <= L; c++) {
    mass[p === q ? c : L - c] = term;
    term *= odds * (L - c) / (c + 1);
  }
}

/** Working memory of `fillAlias`, a number for every column. */
interface AliasScratch {
  mass: Float64Array;
  share: Float64Array;
  small: Int32Array;
  large: Int32Array;
}

/**
 * Alias table of a distribution (A. J. Walker, doi:10.1145/355744.355749), so that a draw is one look-up
 * without a branch: 2^bits columns of equal chance, each with a cut, below which its own number is drawn, and
 * another number. A cell holds the cut in its upper bits and the other number in its lower ones.
 */
function fillAlias(
  { mass, share, small, large }: AliasScratch,
  bits: number,
  out: Int32Array,
  at: number,
): void {
  const columns = 1 << bits;
  const whole = 2 ** (32 - bits);
  let smalls = 0;
  let larges = 0;
  for (let c = 0; c < columns; c++) {
    share[c] = mass[c] * columns;
    if (share[c] < 1) small[smalls++] = c;
    else large[larges++] = c;
  }
  while (smalls > 0 && larges > 0) {
    const c = small[--smalls];
    const other = large[larges - 1];
    const cut = Math.min(whole - 1, Math.round(share[c] * whole));
    out[at + c] = cut * columns + other;
    share[other] -= 1 - share[c];
    if (share[other] < 1) small[smalls++] = large[--larges];
  }
  // What is left is full but for rounding; a column without a chance of its own has met a large one above.
  while (smalls + larges > 0) {
    const c = larges > 0 ? large[--larges] : small[--smalls];
    out[at + c] = (whole - 1) * columns + c;
  }
}

/** Entries of a table that occur among sums [tiles, R, neurons]. */
function usedEntries(
  sums: Float32Array,
  neurons: number,
  size: number,
): Uint8Array {
  const width = size + 1;
  const used = new Uint8Array(neurons * width);
  for (let i = 0; i < sums.length;) {
    for (let j = 0; j < neurons; j++, i++) {
      used[j * width + ((sums[i] + size) >> 1)] = 1;
    }
  }
  return used;
}

/** Table of tiles of one size for the thresholds V_th / K of a layer's neurons, where their sums need it. */
function tileTable(
  thresholds: Float64Array,
  sums: Float32Array,
  size: number,
  { grayZone, streamLength: L }: StreamSettings,
): TileTable {
  const used = usedEntries(sums, thresholds.length, size);
  const probability = new Float32Array(used.length);
  const slope = new Float32Array(used.length);
  const aliasBits = Math.ceil(Math.log2(L + 1));
  const alias = new Int32Array(used.length << aliasBits);
  const columns = 1 << aliasBits;
  const scratch = {
    mass: new Float64Array(columns), // 0 beyond L
    share: new Float64Array(columns),
    small: new Int32Array(columns),
    large: new Int32Array(columns),
  };
  for (let j = 0, at = 0; j < thresholds.length; j++) {
    for (let V = -size; V <= size; V += 2, at++) {
      if (used[at] === 0) continue;
      const p = firingProbability(V, thresholds[j], grayZone);
      probability[at] = p;
      slope[at] = expectationGradient(V, thresholds[j], grayZone);
      binomialMass(L, p, scratch.mass);
      fillAlias(scratch, aliasBits, alias, at << aliasBits);
    }
  }
  return { size, probability, slope, alias, aliasBits };
}

/** The table of each tile; two at most, as only the last tile may be smaller. */
function tileTables(
  thresholds: ArrayLike<number>,
  sums: Float32Array,
  settings: StreamSettings,
): TileTable[] {
  const { crossbarSize: Cs, fanIn } = settings;
  const K = Math.ceil(fanIn / Cs);
  const inLast = sums.length / K;
  const each = Float64Array.from(thresholds, (t) => t / K);
  const rest = fanIn - (K - 1) * Cs;
  if (rest === Cs) {
    const table = tileTable(each, sums, Cs, settings);
    return Array.from({ length: K }, () => table);
  }
  const last = tileTable(each, sums.subarray(-inLast), rest, settings);
  if (K === 1) return [last];
  const full = tileTable(each, sums.subarray(0, -inLast), Cs, settings);
  return Array.from({ length: K }, (_, k) => k < K - 1 ? full : last);
}

/**
 * A word of 32 random bits for every counter: the finaliser of MurmurHash3 (A. Appleby) of a Weyl sequence,
 * twice keyed. Fast rather than cryptographic: a step of training draws millions.
 */
function drawWord(counter: number, k0: number, k1: number): number {
  let h = (Math.imul(counter, 0x9e3779b9) + k0) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13) ^ k1, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** Draws of one layer in one step. */
interface StreamDraw {
  /** m = 2 c / L - K. */
  decoded: Float32Array;
  /** E[m]; empty if not asked for. */
  expected: Float32Array;
  /** Var[m] = (4 / L) sum_k p_k (1 - p_k); empty if not asked for. */
  variance: Float32Array;
}

/** Neurons at a time, so that their part of the tables stays in the cache. */
const NEURON_BLOCK = 32;

/** Counts of one tile for all rows, added to those of the tiles before. */
function drawTile(
  sums: Float32Array,
  first: number,
  rows: number,
  neurons: number,
  { size, alias, aliasBits }: TileTable,
  [k0, k1]: Uint32Array,
  count: Int32Array,
): void {
  const width = size + 1;
  const columns = (1 << aliasBits) - 1;
  const [a, b] = [k0 | 0, k1 | 0];
  for (let start = 0; start < neurons; start += NEURON_BLOCK) {
    const end = Math.min(neurons, start + NEURON_BLOCK);
    for (let r = 0; r < rows; r++) {
      for (let j = start, at = r * neurons + start; j < end; j++, at++) {
        const i = first + at;
        const entry = j * width + ((sums[i] + size) >> 1);
        const word = drawWord(i, a, b);
        const own = word & columns;
        const cell = alias[(entry << aliasBits) + own];
        // All ones where the rest of the word is below the cut: a branch would be mispredicted half the time.
        const below = ((word >>> aliasBits) - (cell >>> aliasBits)) >> 31;
        count[at] += (own & below) | (cell & columns & ~below);
      }
    }
  }
}

/** sum_k p_k and, if wanted, sum_k p_k (1 - p_k), of one tile added to those before. */
function addMoments(
  sums: Float32Array,
  first: number,
  neurons: number,
  { size, probability }: TileTable,
  mean: Float32Array,
  variance: Float32Array,
): void {
  const width = size + 1;
  const withVariance = variance.length > 0;
  for (let at = 0; at < mean.length;) {
    for (let j = 0; j < neurons; j++, at++) {
      const p = probability[j * width + ((sums[first + at] + size) >> 1)];
      mean[at] += p;
      if (withVariance) variance[at] += p * (1 - p);
    }
  }
}

/** Counts of all tiles, decoded, with what the gradient of `output` needs of their mean and variance. */
function drawStream(
  sums: Float32Array,
  [K, R, out]: [number, number, number],
  tables: TileTable[],
  L: number,
  key: Key,
  output: StreamOutput,
): StreamDraw {
  const compared = output.kind === "compared";
  const count = new Int32Array(R * out);
  const expected = new Float32Array(compared ? R * out : 0);
  const variance = new Float32Array(
    compared && output.window === null && K > 1 ? R * out : 0,
  );
  const words = bits(key, 2);
  tables.forEach((table, k) => {
    const first = k * R * out;
    drawTile(sums, first, R, out, table, words, count);
    if (compared) addMoments(sums, first, out, table, expected, variance);
  });
  const decoded = new Float32Array(R * out);
  for (let at = 0; at < decoded.length; at++) {
    decoded[at] = 2 * count[at] / L - K;
  }
  for (let at = 0; at < expected.length; at++) {
    expected[at] = 2 * expected[at] - K;
  }
  for (let at = 0; at < variance.length; at++) variance[at] *= 4 / L;
  return { decoded, expected, variance };
}

/**
 * Chances P(c >= T + 1) + P(c = T) / 2 for one tile, c ~ Binomial(L, p), T = L / 2, differentiated by p and
 * doubled: dE[a]/dp, exactly.
 *
 * dE[a]/dp = L (b(T' ; L - 1, p) of the count just below and at T, half each where L is even)    (derived)
 */
export function singleTileSlope(L: number, p: number): number {
  // d/dp P(c >= t) = L b(t - 1; L - 1, p); E[a] = P(c > L/2) - P(c < L/2) = P(c >= hi) + P(c >= lo) - 1.
  const hi = Math.floor(L / 2) + 1;
  const lo = Math.ceil(L / 2);
  const mass = (t: number) => {
    let choose = 1;
    for (let i = 1; i <= t; i++) choose *= (L - i) / i;
    return choose * p ** t * (1 - p) ** (L - 1 - t);
  };
  return L * (mass(hi - 1) + mass(lo - 1));
}

/**
 * E[a] of the comparison of several tiles, by the central limit theorem.
 *
 * E[a] = erf(E[m] / (sqrt(2) S)), S^2 = Var[m] + (2 / L)^2 / 12    (approximation; the second term is that of
 * a count's unit step, as a tie is a coin)
 */
export function comparatorSpread(
  variance: number,
  streamLength: number,
): number {
  return Math.sqrt(variance + (2 / streamLength) ** 2 / 12);
}

/** dE[a]/dE[m] = sqrt(2 / pi) exp(-E[m]^2 / (2 S^2)) / S, S held. */
export function comparatorSlope(expected: number, spread: number): number {
  const x = expected / spread;
  return Math.sqrt(2 / Math.PI) * Math.exp(-x * x / 2) / spread;
}

/** What `streamLayer` gives. */
type StreamOutput =
  | { kind: "decoded" }
  /** Compared with 0; `window` instead of the expectation: straight through where |m| is within it. */
  | { kind: "compared"; window: number | null };

/**
 * Tiles, streams and their sum as one operation on tile sums.
 *
 * Forward: counts drawn from Binomial(L, p_k), decoded, or compared with 0 (a coin decides a tie).
 * Backward: the gradient of the expectation to V_k and to the threshold,
 * dE[m]/dV_k = (2 / DV) exp(-pi (V_k - V_th / K)^2 / DV^2), dE[m]/dV_th = -1/K sum_k of it, times
 * dE[a]/dE[m] where the sum is compared.
 *
 * @param sums V [K, R, out]
 * @param threshold V_th [out]
 * @returns [R, out]
 */
export function streamLayer(
  sums: Tensor,
  threshold: Tensor,
  settings: StreamSettings,
  output: StreamOutput,
  key: Key,
): Tensor {
  const [K, R, out] = sums.shape;
  const { streamLength: L } = settings;
  checkCrossbarSize(settings.crossbarSize);
  checkStreamLength(L);
  return tf.customGrad((...inputs) => {
    const V = (inputs[0] as Tensor).dataSync() as Float32Array;
    const tables = tileTables((inputs[1] as Tensor).dataSync(), V, settings);
    const shape: [number, number, number] = [K, R, out];
    const draw = drawStream(V, shape, tables, L, fold(key, 0), output);
    const value = draw.decoded;
    if (output.kind === "compared") {
      const [k0, k1] = bits(fold(key, 1), 2);
      for (let i = 0; i < value.length; i++) {
        const tie = drawWord(i, k0, k1) >>> 31 === 1;
        value[i] = value[i] > 0 || (value[i] === 0 && tie) ? 1 : -1;
      }
    }
    const gradFunc = (dy: unknown) => {
      const d = (dy as Tensor).dataSync();
      const factor = outputFactor(draw, settings, output);
      for (let i = 0; i < factor.length; i++) factor[i] *= d[i];
      const dSums = new Float32Array(K * R * out);
      const dThreshold = new Float64Array(out);
      tables.forEach((table, k) =>
        tileGradient(V, k * R * out, table, factor, dSums, dThreshold)
      );
      return [
        tf.tensor3d(dSums, [K, R, out]),
        tf.tensor1d(Float32Array.from(dThreshold, (g) => g / K)),
      ];
    };
    return { value: tf.tensor2d(value, [R, out]), gradFunc };
  })(sums, threshold);
}

/** Gradients to the sums of one tile, and those to the thresholds (but for 1 / K) added to the ones before. */
function tileGradient(
  sums: Float32Array,
  first: number,
  { size, slope }: TileTable,
  factor: Float32Array,
  dSums: Float32Array,
  dThreshold: Float64Array,
): void {
  const width = size + 1;
  const neurons = dThreshold.length;
  for (let at = 0, i = first; at < factor.length;) {
    for (let j = 0; j < neurons; j++, at++, i++) {
      const g = slope[j * width + ((sums[i] + size) >> 1)] * factor[at];
      dSums[i] = g;
      dThreshold[j] -= g;
    }
  }
}

/** dOutput/dE[m] of every neuron. */
function outputFactor(
  { decoded, expected, variance }: StreamDraw,
  { streamLength: L, fanIn, crossbarSize }: StreamSettings,
  output: StreamOutput,
): Float32Array {
  if (output.kind === "decoded") {
    return new Float32Array(decoded.length).fill(1);
  }
  const { window } = output;
  if (window !== null) {
    return expected.map((m) => Math.abs(m) <= window ? 1 / window : 0);
  }
  // One tile: E[m] = 2 p - 1.
  if (fanIn <= crossbarSize) {
    return expected.map((m) => singleTileSlope(L, (m + 1) / 2) / 2);
  }
  return expected.map((m, i) =>
    comparatorSlope(m, comparatorSpread(variance[i], L))
  );
}
