/**
 * Training of binary networks for AQFP crossbars: deterministic, randomised-aware, and a float baseline.
 *
 * SupeRBNN: Z. Li et al., MICRO 2023, arXiv 2309.12212. Binary weights with a straight-through gradient:
 * I. Hubara et al., "Binarized Neural Networks", NeurIPS 2016, arXiv 1602.02830. Weight rectified clamp:
 * clamp.ts. Batch normalisation: arXiv 1502.03167.
 *
 * A layer of fan-in n runs on K = ceil(n / Cs) crossbars. Each crossbar's buffer is a stochastic sign of its
 * own sum V_k, clocked L times; the counts of all K buffers are added and compared. Training draws those
 * counts in the forward pass, from their exact distribution, and sends back the gradient of their expectation.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | V_k | tile sums | [K, R, out], R rows: images, or images times places |
 * | p_k = P(V_k) | firing probability | of V_k - V_th / K |
 * | c = sum_k Binomial(L, p_k) | count | [R, out] |
 * | m = 2 c / L - K | decoded sum | [R, out] |
 * | a | +1 where m > 0, -1 where m < 0, a coin at 0 | [R, out] |
 *
 * Scope: the methods are arguments of one network (`activation`, `batchNorm`, `weights`), so that the arms
 * of a comparison share everything else. The exact gradient of E[a] needs the distribution of c for all
 * tiles but one; it is exact here for one tile and by the central limit theorem for several (`comparator`).
 * Training details of the paper (epochs, learning rates) were not available: defaults are our choice.
 */
import { augment, type Images, pickImages } from "../core/images.ts";
import { crossEntropy, matmul } from "../core/nn.ts";
import { adamW, cosine } from "../core/optim.ts";
import { bits, fold, type Key, permutation, uniform } from "../core/rng.ts";
import {
  type ParamTree,
  type Tensor,
  tf,
  valueAndGrads,
  type Variable,
} from "../core/tensor.ts";
import { matchBatchNorm } from "./batch-norm.ts";
import { rectifiedClamp, tauAt } from "./clamp.ts";
import { expectationGradient, firingProbability } from "./device.ts";
import {
  argmax,
  type BinaryNetwork,
  checkNetwork,
  convOutput,
  encodeImages,
  type InputEncoding,
  type Layer,
  patchIndices,
  streamGain,
} from "./network.ts";

/** A layer to be trained; the score layer is added behind the last. */
export type LayerSpec =
  | { kind: "dense"; outputs: number }
  | { kind: "conv"; channels: number; kernel?: number; pad?: number }
  | { kind: "pool"; size: number };

/** How a hidden neuron fires. */
export type Activation = "relu" | "sign-ste" | "stochastic";

export interface TrainOptions {
  /** "relu" has real weights and inputs: the float baseline; default "sign-ste". */
  activation?: Activation;
  /** Latent weights clipped to [-1, 1], or standardised and clamped as in ReCU; default "clip". */
  weights?: "clip" | "recu";
  /**
   * Stochastic: batch normalisation inside the device, as a threshold V_th / K of every tile ("matched"), or
   * behind the decoded sum ("decoded"), where deployment has to match it afterwards; default "matched".
   */
  batchNorm?: "matched" | "decoded";
  /** Cs; default 16. */
  crossbarSize?: number;
  /** Delta V in units of the sum, above 0; default 8. */
  grayZone?: number;
  /** L; default 8. */
  streamLength?: number;
  /**
   * Stochastic and matched: gradient of the comparison by the expectation, or straight through where the
   * decoded sum lies within one standard deviation of V; default "straight-through", with which one epoch on
   * 20,000 Fashion-MNIST images came 3 points further (Cs 16, gray zone 4, L 8).
   */
  comparator?: "expectation" | "straight-through";
  /** Passes over the data; default 5. */
  epochs?: number;
  /** Images a step; default 128. */
  batch?: number;
  /** Highest learning rate of AdamW, which falls on half a cosine; default 0.01. */
  learningRate?: number;
  /** Images are moved and mirrored; default false. */
  augment?: boolean;
  key: Key;
  /** Start from these weights; the layers must be the same. */
  initial?: TrainedModel;
  onStep?: (step: { step: number; steps: number; loss: number }) => void;
}

/** A layer after training, as plain data. */
export interface TrainedLayer {
  /** [out, fan-in]: real with "relu", else +1 or -1. */
  weight: Float32Array;
  /** Latent weights, to train on. */
  latent: Float32Array;
  gamma: Float32Array;
  beta: Float32Array;
  /** Of the sum over the training images. */
  mean: Float32Array;
  variance: Float32Array;
}

export interface TrainedModel {
  specs: LayerSpec[];
  encoding: InputEncoding;
  classes: number;
  options: ResolvedOptions;
  /** Those with weights, in order; the score layer is the last. */
  layers: TrainedLayer[];
  /** Mean loss of every epoch. */
  losses: number[];
  steps: number;
}

export type ResolvedOptions = Required<
  Omit<TrainOptions, "initial" | "onStep" | "key">
>;

/** Added to the variance; of the sum, which is an integer. */
export const BN_EPS = 1e-3;

/** Half width of the first latent weights (our choice: small, so that they can turn early). */
const LATENT_INIT = 0.1;

/** Images, at most, whose sums give the statistics of inference. */
const CALIBRATION_IMAGES = 10_000;
const CALIBRATION_BATCH = 500;

// Architectures and inputs ------------------------------------------------------------------------

/** Fully connected layers. */
export function mlp(hidden: readonly number[] = [256, 256]): LayerSpec[] {
  return hidden.map((outputs) => ({ kind: "dense", outputs }));
}

/**
 * A small network in the style of VGG: 3x3 convolutions, each with pooling, and one dense layer.
 *
 * Default: 32C3-P2-64C3-P2-128C3-P2, dense 256: what two cores can train in minutes.
 */
export function vggSmall(
  { channels = [32, 64, 128], dense = [256] }: {
    channels?: readonly number[];
    dense?: readonly number[];
  } = {},
): LayerSpec[] {
  return [
    ...channels.flatMap((c): LayerSpec[] => [
      { kind: "conv", channels: c, kernel: 3, pad: 1 },
      { kind: "pool", size: 2 },
    ]),
    ...mlp(dense),
  ];
}

/** Bits by the mean of every pixel over the training images: one bit a number. */
export function meanEncoding(data: Images): InputEncoding {
  const { count, height, width, channels, images } = data;
  const size = height * width * channels;
  const thresholds = new Float64Array(size);
  for (let i = 0; i < images.length; i++) thresholds[i % size] += images[i];
  for (let i = 0; i < size; i++) thresholds[i] /= count;
  return { height, width, channels, levels: 1, thresholds };
}

/** Bits by fixed thresholds, equally spaced in (0, 256): a thermometer code of `levels` bits a number. */
export function thermometerEncoding(
  { height, width, channels }: Pick<Images, "height" | "width" | "channels">,
  levels: number,
): InputEncoding {
  if (!Number.isInteger(levels) || levels < 1 || levels > 255) {
    throw new RangeError(
      `Cannot encode images as levels must be an integer from 1 to 255: ${levels}`,
    );
  }
  const thresholds = Float64Array.from(
    { length: height * width * channels * levels },
    (_, i) => 256 * (i % levels + 1) / (levels + 1) - 0.5,
  );
  return { height, width, channels, levels, thresholds };
}

// Operations --------------------------------------------------------------------------------------

/**
 * sign(x), sign(0) = +1, with a straight-through gradient: 1 where |x| <= limit, else 0.
 *
 * d sign(x) / dx := 1[|x| <= 1]    (arXiv 1602.02830, Eq. 4); for latent weights, which are clipped or
 * clamped, the limit is Infinity
 */
export function signSte(x: Tensor, limit = 1): Tensor {
  return tf.customGrad((input, save) => {
    const t = input as Tensor;
    (save as tf.GradSaveFunc)([t]);
    const value = t.dataSync();
    const out = new Float32Array(value.length);
    for (let i = 0; i < out.length; i++) out[i] = value[i] >= 0 ? 1 : -1;
    return {
      value: tf.tensor(out, t.shape),
      gradFunc: (dy, saved) => {
        if (limit === Infinity) return dy as Tensor;
        return tf.mul(
          dy as Tensor,
          tf.cast(
            tf.lessEqual(tf.abs((saved as Tensor[])[0]), limit),
            "float32",
          ),
        );
      },
    };
  })(x);
}

/** Where the inputs of a layer's neurons lie in a row of the layer before. */
interface Gather {
  /** [positions, fanIn], -1 outside the map; null for all inputs in order. */
  indices: Int32Array | null;
  fanIn: number;
  positions: number;
  /** Value outside the map: -1, or 0 in the float network. */
  outside: number;
}

/**
 * The inputs of every tile: [K, R, Cs] from [B, inputs], R = B positions; 0 in the unused rest of the last tile.
 */
function gatherTiles(x: Tensor, gather: Gather, tile: number): Tensor {
  const { indices, fanIn, positions, outside } = gather;
  const [B, inputs] = x.shape;
  const K = Math.ceil(fanIn / tile);
  const R = B * positions;
  const visit = (f: (to: number, from: number) => void) => {
    for (let k = 0; k < K; k++) {
      const first = k * tile;
      const size = Math.min(tile, fanIn - first);
      for (let b = 0; b < B; b++) {
        for (let p = 0; p < positions; p++) {
          const to = (k * R + b * positions + p) * tile;
          const at = p * fanIn + first;
          for (let i = 0; i < size; i++) {
            const index = indices === null ? first + i : indices[at + i];
            f(to + i, index < 0 ? -1 : b * inputs + index);
          }
        }
      }
    }
  };
  return tf.customGrad((input) => {
    const value = (input as Tensor).dataSync();
    const out = new Float32Array(K * R * tile); // [K, R, Cs]
    visit((to, from) => out[to] = from < 0 ? outside : value[from]);
    return {
      value: tf.tensor3d(out, [K, R, tile]),
      gradFunc: (dy) => {
        const d = (dy as Tensor).dataSync();
        const back = new Float32Array(B * inputs);
        visit((to, from) => {
          if (from >= 0) back[from] += d[to];
        });
        return tf.tensor2d(back, [B, inputs]);
      },
    };
  })(x);
}

/** Weights of every tile: [K, out, Cs] from [out, fanIn], 0 in the unused rest. */
function tileWeights(weight: Tensor, tile: number): Tensor {
  const [out, fanIn] = weight.shape;
  const K = Math.ceil(fanIn / tile);
  const padded = K * tile === fanIn
    ? weight
    : tf.pad(weight, [[0, 0], [0, K * tile - fanIn]]);
  return tf.transpose(tf.reshape(padded, [out, K, tile]), [1, 0, 2]);
}

/** Windows of size x size: the maximum; the gradient is shared by those that have it. */
function maxPool(
  x: Tensor,
  { width, channels: C, size }: {
    width: number;
    channels: number;
    size: number;
  },
): Tensor {
  const [B, inputs] = x.shape;
  const outWidth = width / size;
  const outputs = inputs / (size * size);
  const target = Int32Array.from({ length: inputs }, (_, i) => {
    const row = Math.floor(i / (width * C));
    const column = Math.floor(i / C) % width;
    const place = Math.floor(row / size) * outWidth +
      Math.floor(column / size);
    return place * C + i % C;
  });
  return tf.customGrad((input) => {
    const value = (input as Tensor).dataSync();
    const out = new Float32Array(B * outputs).fill(-Infinity);
    const sharers = new Float32Array(B * outputs);
    for (let b = 0, i = 0; b < B; b++) {
      for (let j = 0; j < inputs; j++, i++) {
        const to = b * outputs + target[j];
        if (value[i] > out[to]) {
          out[to] = value[i];
          sharers[to] = 1;
        } else if (value[i] === out[to]) sharers[to]++;
      }
    }
    return {
      value: tf.tensor2d(out, [B, outputs]),
      gradFunc: (dy) => {
        const d = (dy as Tensor).dataSync();
        const back = new Float32Array(value.length);
        for (let b = 0, i = 0; b < B; b++) {
          for (let j = 0; j < inputs; j++, i++) {
            const to = b * outputs + target[j];
            if (value[i] === out[to]) back[i] = d[to] / sharers[to];
          }
        }
        return tf.tensor2d(back, [B, inputs]);
      },
    };
  })(x);
}

// Stochastic sums ---------------------------------------------------------------------------------

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
  alias: Uint32Array;
  aliasBits: number;
}

/** Chances of 0 ... L successes. */
function binomialMass(L: number, p: number): Float64Array {
  const mass = new Float64Array(L + 1);
  // The smaller chance is expanded, so that (1 - q)^L does not vanish, and read from its own end.
  const q = Math.min(p, 1 - p);
  let term = (1 - q) ** L;
  for (let c = 0; c <= L; c++) {
    mass[p === q ? c : L - c] = term;
    term *= q / (1 - q) * (L - c) / (c + 1);
  }
  return mass;
}

/**
 * Alias table of a distribution (A. J. Walker, doi:10.1145/355744.355749), so that a draw is one look-up
 * without a branch: 2^bits columns of equal chance, each with a cut, below which its own number is drawn, and
 * another number. A cell holds the cut in its upper bits and the other number in its lower ones.
 */
function fillAlias(
  mass: Float64Array,
  bits: number,
  out: Uint32Array,
  at: number,
): void {
  const columns = 2 ** bits;
  const whole = 2 ** (32 - bits);
  const share = new Float64Array(columns);
  const small: number[] = [];
  const large: number[] = [];
  for (let c = 0; c < columns; c++) {
    share[c] = (mass[c] ?? 0) * columns;
    (share[c] < 1 ? small : large).push(c);
  }
  const cell = (c: number, part: number, other: number) => {
    const cut = Math.min(whole - 1, Math.round(part * whole));
    out[at + c] = cut * columns + other;
  };
  while (small.length > 0 && large.length > 0) {
    const c = small.pop()!;
    const other = large[large.length - 1];
    cell(c, share[c], other);
    share[other] -= 1 - share[c];
    if (share[other] < 1) small.push(large.pop()!);
  }
  // What is left is full but for rounding; a column without a chance of its own has met a large one above.
  for (const c of [...small, ...large]) cell(c, 1, c);
}

/** Table of tiles of one size for the thresholds V_th / K of a layer's neurons. */
function tileTable(
  thresholds: Float64Array,
  size: number,
  { grayZone, streamLength: L }: StreamSettings,
): TileTable {
  const width = size + 1;
  const length = thresholds.length * width;
  const probability = new Float32Array(length);
  const slope = new Float32Array(length);
  const aliasBits = Math.ceil(Math.log2(L + 1));
  const alias = new Uint32Array(length << aliasBits);
  for (let j = 0, at = 0; j < thresholds.length; j++) {
    for (let V = -size; V <= size; V += 2, at++) {
      const p = firingProbability(V, thresholds[j], grayZone);
      probability[at] = p;
      slope[at] = expectationGradient(V, thresholds[j], grayZone);
      fillAlias(binomialMass(L, p), aliasBits, alias, at << aliasBits);
    }
  }
  return { size, probability, slope, alias, aliasBits };
}

/** The table of each tile; two at most, as only the last tile may be smaller. */
function tileTables(
  thresholds: ArrayLike<number>,
  settings: StreamSettings,
): TileTable[] {
  const { crossbarSize: Cs, fanIn } = settings;
  const K = Math.ceil(fanIn / Cs);
  const each = Float64Array.from(thresholds, (t) => t / K);
  const last = tileTable(each, fanIn - (K - 1) * Cs, settings);
  const full = K === 1 || last.size === Cs
    ? last
    : tileTable(each, Cs, settings);
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
  return (h ^ (h >>> 16)) >>> 0;
}

/** Draws of one layer in one step. */
interface StreamDraw {
  /** m = 2 c / L - K. */
  decoded: Float32Array;
  /** E[m] */
  expected: Float32Array;
  /** Var[m] = (4 / L) sum_k p_k (1 - p_k) */
  variance: Float32Array;
}

/** Counts of one tile for all rows, added to those of the tiles before. */
function drawTile(
  sums: Float32Array,
  first: number,
  rows: number,
  neurons: number,
  { size, probability, alias, aliasBits }: TileTable,
  [k0, k1]: Uint32Array,
  count: Int32Array,
  mean: Float32Array,
  variance: Float32Array,
): void {
  const width = size + 1;
  const columns = (1 << aliasBits) - 1;
  let i = first;
  let at = 0;
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < neurons; j++, at++, i++) {
      const entry = (j * width + ((sums[i] + size) >> 1)) | 0;
      const p = probability[entry];
      mean[at] += p;
      variance[at] += p * (1 - p);
      const word = drawWord(i, k0, k1);
      const own = word & columns;
      const cell = alias[(entry << aliasBits) + own];
      // All ones where the rest of the word is below the cut: a branch would be mispredicted half the time.
      const below = ((word >>> aliasBits) - (cell >>> aliasBits)) >> 31;
      count[at] += (own & below) | (cell & columns & ~below);
    }
  }
}

/** Counts of all tiles, decoded, with their mean and variance. */
function drawStream(
  sums: Float32Array,
  [K, R, out]: [number, number, number],
  tables: TileTable[],
  L: number,
  key: Key,
): StreamDraw {
  const count = new Int32Array(R * out);
  const expected = new Float32Array(R * out);
  const variance = new Float32Array(R * out);
  const words = bits(key, 2);
  tables.forEach((table, k) =>
    drawTile(
      sums,
      k * R * out,
      R,
      out,
      table,
      words,
      count,
      expected,
      variance,
    )
  );
  const decoded = new Float32Array(R * out);
  for (let at = 0; at < decoded.length; at++) {
    decoded[at] = 2 * count[at] / L - K;
    expected[at] = 2 * expected[at] - K;
    variance[at] *= 4 / L;
  }
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
  return tf.customGrad((...inputs) => {
    const V = (inputs[0] as Tensor).dataSync() as Float32Array;
    const tables = tileTables((inputs[1] as Tensor).dataSync(), settings);
    const draw = drawStream(V, [K, R, out], tables, L, fold(key, 0));
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
      tables.forEach(({ size, slope }, k) => {
        for (let r = 0, at = 0, i = k * R * out; r < R; r++) {
          for (let j = 0; j < out; j++, at++, i++) {
            const entry = (j * (size + 1) + ((V[i] + size) >> 1)) | 0;
            const g = slope[entry] * factor[at];
            dSums[i] = g;
            dThreshold[j] -= g;
          }
        }
      });
      return [
        tf.tensor3d(dSums, [K, R, out]),
        tf.tensor1d(Float32Array.from(dThreshold, (g) => g / K)),
      ];
    };
    return { value: tf.tensor2d(value, [R, out]), gradFunc };
  })(sums, threshold);
}

/** dOutput/dE[m] of every neuron. */
function outputFactor(
  { expected, variance }: StreamDraw,
  { streamLength: L, fanIn, crossbarSize }: StreamSettings,
  output: StreamOutput,
): Float32Array {
  if (output.kind === "decoded") {
    return new Float32Array(expected.length).fill(1);
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

// The network in training -------------------------------------------------------------------------

/** A layer's place in the network. */
interface Plan {
  /** Of the layer's input. */
  height: number;
  width: number;
  channels: number;
  pool: number | null;
  /** null for pooling. */
  gather: Gather | null;
  outputs: number;
  conv: { kernel: number; pad: number } | null;
}

interface LayerParams {
  weight: Variable; // [out, fanIn]
  gamma: Variable; // [out]
  beta: Variable; // [out]
}

/** Shapes of all layers, the score layer included. */
function planOf(
  specs: readonly LayerSpec[],
  encoding: InputEncoding,
  classes: number,
  real: boolean,
): Plan[] {
  let { height, width } = encoding;
  let channels = encoding.channels * (real ? 1 : encoding.levels);
  const all: LayerSpec[] = [...specs, { kind: "dense", outputs: classes }];
  return all.map((spec, i) => {
    const here = { height, width, channels };
    if (spec.kind === "pool") {
      if (height % spec.size !== 0 || width % spec.size !== 0) {
        throw new RangeError(
          `Cannot train as the windows of layer ${i} must tile the map: size ${spec.size}, map ${height} x ${width}`,
        );
      }
      height /= spec.size;
      width /= spec.size;
      return {
        ...here,
        pool: spec.size,
        gather: null,
        outputs: channels,
        conv: null,
      };
    }
    if (spec.kind === "dense") {
      const fanIn = height * width * channels;
      [height, width, channels] = [1, 1, spec.outputs];
      return {
        ...here,
        pool: null,
        gather: { indices: null, fanIn, positions: 1, outside: -1 },
        outputs: spec.outputs,
        conv: null,
      };
    }
    const { kernel = 3, pad = 1 } = spec;
    const conv = { kernel, pad, stride: 1 };
    const indices = patchIndices({ ...here, inChannels: channels, ...conv });
    const fanIn = kernel * kernel * channels;
    height = convOutput(conv, height);
    width = convOutput(conv, width);
    channels = spec.channels;
    return {
      ...here,
      pool: null,
      gather: {
        indices,
        fanIn,
        positions: height * width,
        outside: real ? 0 : -1,
      },
      outputs: spec.channels,
      conv: { kernel, pad },
    };
  });
}

/** Statistics of the sums of one layer. */
interface Moments {
  mean: Tensor; // [out]
  variance: Tensor; // [out]
}

interface ForwardContext {
  options: ResolvedOptions;
  /** ReCU's tau. */
  tau: number;
  key: Key;
  /** Statistics to use; those of the batch if absent. */
  stats?: Moments[];
  /** Told of the statistics of the batch. */
  onMoments?: (layer: number, moments: Moments) => void;
}

/** The weights that the sums are made with. */
function effectiveWeight(latent: Tensor, context: ForwardContext): Tensor {
  const { activation, weights } = context.options;
  if (activation === "relu") return latent;
  return signSte(
    weights === "recu" ? rectifiedClamp(latent, context.tau) : latent,
    Infinity,
  );
}

/** Normalised sums, [R, out]. */
function normalise(V: Tensor, params: LayerParams, moments: Moments): Tensor {
  const { mean, variance } = moments;
  const scale = tf.mul(params.gamma, tf.rsqrt(tf.add(variance, BN_EPS)));
  return tf.add(tf.mul(tf.sub(V, mean), scale), params.beta);
}

function momentsOf(V: Tensor, layer: number, context: ForwardContext): Moments {
  if (context.stats !== undefined) return context.stats[layer];
  const { mean, variance } = tf.moments(V, 0);
  context.onMoments?.(layer, { mean, variance });
  return { mean, variance };
}

/** One layer with weights: [B, inputs] to [B, positions * out]. */
function weightedLayer(
  x: Tensor,
  gather: Gather,
  params: LayerParams,
  layer: number,
  isScore: boolean,
  context: ForwardContext,
): Tensor {
  const { options } = context;
  const { activation, crossbarSize, grayZone, streamLength: L } = options;
  const { fanIn, positions } = gather;
  const weight = effectiveWeight(params.weight, context);
  const [out] = weight.shape;
  const B = x.shape[0];
  const asRows = (y: Tensor) => tf.reshape(y, [B, positions * out]);
  if (activation !== "stochastic") {
    const rows = gather.indices === null
      ? x
      : tf.reshape(gatherTiles(x, gather, fanIn), [B * positions, fanIn]);
    const V = matmul(rows, weight, { transposeB: true }); // [R, out]
    const u = normalise(V, params, momentsOf(V, layer, context));
    if (isScore) return asRows(u);
    return asRows(activation === "relu" ? tf.relu(u) : signSte(u));
  }
  const settings = { crossbarSize, grayZone, streamLength: L, fanIn };
  const K = Math.ceil(fanIn / crossbarSize);
  const gain = streamGain(grayZone, fanIn / K);
  const inputs = gatherTiles(x, gather, crossbarSize); // [K, R, Cs]
  const V = matmul(inputs, tileWeights(weight, crossbarSize), {
    transposeB: true,
  }); // [K, R, out]
  const key = fold(context.key, layer);
  if (isScore || options.batchNorm === "decoded") {
    const m = streamLayer(
      V,
      tf.zeros([out]),
      settings,
      { kind: "decoded" },
      key,
    );
    const decoded = tf.mul(m, gain); // in units of V
    const u = normalise(decoded, params, momentsOf(decoded, layer, context));
    return asRows(isScore ? u : signSte(u));
  }
  // The whole sum once more, by a product that costs less than adding the tiles up.
  const rows = gather.indices === null
    ? x
    : tf.reshape(gatherTiles(x, gather, fanIn), [B * positions, fanIn]);
  const total = matmul(rows, weight, { transposeB: true }); // [R, out]
  const { mean, variance } = momentsOf(total, layer, context);
  // V_th = mu - beta sqrt(sigma^2 + epsilon), gamma = 1: the threshold has one degree of freedom.
  const spread = tf.sqrt(tf.add(variance, BN_EPS));
  const threshold = tf.sub(mean, tf.mul(params.beta, spread));
  const window = options.comparator === "expectation"
    ? null
    : Math.sqrt(fanIn) / gain;
  return asRows(
    streamLayer(V, threshold, settings, { kind: "compared", window }, key),
  );
}

/** Scores of a batch, [B, classes]. */
function forward(
  x: Tensor,
  plan: Plan[],
  params: LayerParams[],
  context: ForwardContext,
): Tensor {
  let layer = 0;
  for (const { pool, gather, width, channels } of plan) {
    if (pool !== null) x = maxPool(x, { width, channels, size: pool });
    else {
      const isScore = layer === params.length - 1;
      x = weightedLayer(x, gather!, params[layer], layer, isScore, context);
      layer++;
    }
  }
  return x;
}

/** Images as the first layer takes them: bits, or numbers from -1 to 1 for the float network. */
function inputTensor(
  { count, images }: Images,
  encoding: InputEncoding,
  activation: Activation,
): Tensor {
  const values = activation === "relu"
    ? Float32Array.from(images, (v) => v / 127.5 - 1)
    : Float32Array.from(encodeImages(encoding, images));
  return tf.tensor2d(values, [count, values.length / count]);
}

// Training ----------------------------------------------------------------------------------------

function checkOptions(options: ResolvedOptions): void {
  const unions: Record<string, [string, string[]]> = {
    activation: [options.activation, ["relu", "sign-ste", "stochastic"]],
    weights: [options.weights, ["clip", "recu"]],
    batchNorm: [options.batchNorm, ["matched", "decoded"]],
    comparator: [options.comparator, ["expectation", "straight-through"]],
  };
  for (const [name, [value, allowed]] of Object.entries(unions)) {
    if (!allowed.includes(value)) {
      throw new TypeError(
        `Cannot train as ${name} must be one of ${allowed.join(", ")}: ${
          JSON.stringify(value)
        }`,
      );
    }
  }
  const { crossbarSize, streamLength, epochs, batch } = options;
  const whole = { crossbarSize, streamLength, epochs, batch };
  for (const [name, value] of Object.entries(whole)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot train as ${name} must be an integer from 1: ${value}`,
      );
    }
  }
  const { grayZone, learningRate } = options;
  for (const [name, value] of Object.entries({ grayZone, learningRate })) {
    if (!(value > 0 && value < Infinity)) {
      throw new RangeError(
        `Cannot train as ${name} must be finite and above 0 (an ideal sign is "sign-ste"): ${value}`,
      );
    }
  }
}

/** Smallest |gamma| by which a beta is divided. */
const MIN_GAMMA = 1e-3;

/** True if batch normalisation is a threshold inside the device. */
function isMatched({ activation, batchNorm }: ResolvedOptions): boolean {
  return activation === "stochastic" && batchNorm === "matched";
}

/**
 * A layer for training with matched thresholds, which have no gamma: sign(gamma u + beta) is that of
 * u + beta / gamma, the weights turned where gamma is below 0.
 */
function withoutGamma(layer: TrainedLayer): TrainedLayer {
  const { gamma, beta, latent } = layer;
  const fanIn = latent.length / gamma.length;
  return {
    ...layer,
    latent: latent.map((w, i) => gamma[Math.floor(i / fanIn)] < 0 ? -w : w),
    gamma: new Float32Array(gamma.length).fill(1),
    beta: beta.map((b, j) => b / Math.max(MIN_GAMMA, Math.abs(gamma[j]))),
  };
}

/** First parameters, or those of a model to go on from. */
function startParams(
  plan: Plan[],
  options: ResolvedOptions,
  key: Key,
  initial?: TrainedModel,
): LayerParams[] {
  const weighted = plan.filter(({ gather }) => gather !== null);
  return weighted.map(({ gather, outputs }, i) => {
    const { fanIn } = gather!;
    const given = initial?.layers[i];
    const convert = given !== undefined && i < weighted.length - 1 &&
      isMatched(options) && !isMatched(initial!.options);
    const from = convert ? withoutGamma(given) : given;
    if (initial !== undefined && from?.latent.length !== outputs * fanIn) {
      throw new RangeError(
        `Cannot go on from a model as its layers must be the same: layer ${i} needs ${
          outputs * fanIn
        } weights, has ${from?.latent.length ?? "none"}`,
      );
    }
    const width = options.activation === "relu"
      ? Math.sqrt(6 / fanIn)
      : LATENT_INIT;
    const variable = (values: Float32Array, shape: number[]) =>
      tf.tidy(() => tf.variable(tf.tensor(values, shape)));
    const vector = (fill: number) => new Float32Array(outputs).fill(fill);
    const weight = from?.latent ??
      uniform(fold(key, i), outputs * fanIn, -width, width);
    return {
      weight: variable(weight, [outputs, fanIn]),
      gamma: variable(from?.gamma ?? vector(1), [outputs]),
      beta: variable(from?.beta ?? vector(0), [outputs]),
    };
  });
}

/** Keeps latent weights where a straight-through gradient can still turn them. */
function clipLatent(params: LayerParams[]): void {
  tf.tidy(() => {
    for (const { weight } of params) {
      weight.assign(tf.clipByValue(weight, -1, 1) as tf.Tensor2D);
    }
  });
}

/** Means and variances of the sums over training images. */
function calibrate(
  data: Images,
  plan: Plan[],
  params: LayerParams[],
  encoding: InputEncoding,
  context: ForwardContext,
): { mean: Float32Array; variance: Float32Array }[] {
  const used = Math.min(data.count, CALIBRATION_IMAGES);
  const totals = params.map(({ beta }) => ({
    rows: 0,
    mean: new Float64Array(beta.size),
    square: new Float64Array(beta.size),
  }));
  for (let start = 0, b = 0; start < used; start += CALIBRATION_BATCH, b++) {
    const places = Array.from(
      { length: Math.min(CALIBRATION_BATCH, used - start) },
      (_, i) => start + i,
    );
    tf.tidy(() => {
      const x = inputTensor(
        pickImages(data, places),
        encoding,
        context.options.activation,
      );
      forward(x, plan, params, {
        ...context,
        key: fold(context.key, b),
        onMoments: (layer, { mean, variance }) => {
          const total = totals[layer];
          const [m, v] = [mean.dataSync(), variance.dataSync()];
          for (let j = 0; j < m.length; j++) {
            total.mean[j] += places.length * m[j];
            total.square[j] += places.length * (v[j] + m[j] ** 2);
          }
          total.rows += places.length;
        },
      });
    });
  }
  return totals.map(({ rows, mean, square }) => ({
    mean: Float32Array.from(mean, (m) => m / rows),
    variance: Float32Array.from(
      square,
      (s, j) => Math.max(0, s / rows - (mean[j] / rows) ** 2),
    ),
  }));
}

/**
 * Trains a network on labelled images.
 *
 * AdamW without weight decay, cross entropy of the normalised class sums, a new order every epoch. The
 * statistics of batch normalisation are taken afterwards, over up to 10,000 of the images with the final
 * weights. The same key gives the same model on the same backend.
 *
 * @param data training images
 * @param specs hidden layers: `mlp()`, `vggSmall()`
 * @param encoding how images become bits: `meanEncoding(data)`, `thermometerEncoding(data, 3)`
 * @param options method and effort
 * @returns plain data; `toNetwork` deploys it, `evaluate` runs it here
 */
export function train(
  data: Images,
  specs: LayerSpec[],
  encoding: InputEncoding,
  { key, initial, onStep, ...given }: TrainOptions,
): TrainedModel {
  const options: ResolvedOptions = {
    activation: "sign-ste",
    weights: "clip",
    batchNorm: "matched",
    crossbarSize: 16,
    grayZone: 8,
    streamLength: 8,
    comparator: "straight-through",
    epochs: 5,
    batch: 128,
    learningRate: 0.01,
    augment: false,
    ...given,
  };
  checkOptions(options);
  const classes = data.labels.reduce((most, l) => Math.max(most, l), 0) + 1;
  const plan = planOf(specs, encoding, classes, options.activation === "relu");
  const params = startParams(plan, options, fold(key, "weights"), initial);
  const { epochs, batch, learningRate } = options;
  const perEpoch = Math.floor(data.count / batch);
  if (perEpoch === 0) {
    throw new RangeError(
      `Cannot train as there must be images for one batch of ${batch}: ${data.count}`,
    );
  }
  const steps = epochs * perEpoch;
  const optimizer = adamW({
    learningRate: cosine({ learningRate, steps }),
  });
  const losses: number[] = [];
  try {
    for (let epoch = 0, step = 0; epoch < epochs; epoch++) {
      const order = permutation(fold(fold(key, "order"), epoch), data.count);
      let total = 0;
      for (let b = 0; b < perEpoch; b++, step++) {
        const places = order.subarray(b * batch, (b + 1) * batch);
        const loss = trainStep(
          pickImages(data, places),
          plan,
          params,
          encoding,
          optimizer,
          {
            options,
            tau: tauAt(step / steps),
            key: fold(fold(key, "noise"), step),
          },
        );
        total += loss;
        onStep?.({ step: step + 1, steps, loss });
      }
      losses.push(total / perEpoch);
    }
    const context = { options, tau: tauAt(1), key: fold(key, "calibration") };
    const stats = calibrate(data, plan, params, encoding, context);
    const layers = params.map((p, i): TrainedLayer => ({
      weight: tf.tidy(() =>
        effectiveWeight(p.weight, context).dataSync().slice() as Float32Array
      ),
      latent: p.weight.dataSync().slice() as Float32Array,
      gamma: p.gamma.dataSync().slice() as Float32Array,
      beta: p.beta.dataSync().slice() as Float32Array,
      ...stats[i],
    }));
    return { specs, encoding, classes, options, layers, losses, steps };
  } finally {
    optimizer.dispose();
    for (const p of params) {
      for (const v of Object.values(p)) (v as Variable).dispose();
    }
  }
}

/** One step of training; the loss of the batch. */
function trainStep(
  batch: Images,
  plan: Plan[],
  params: LayerParams[],
  encoding: InputEncoding,
  optimizer: ReturnType<typeof adamW>,
  context: ForwardContext,
): number {
  const { options } = context;
  const images = options.augment ? augment(batch, { key: context.key }) : batch;
  const x = inputTensor(images, encoding, options.activation);
  const labels = tf.tensor1d(Int32Array.from(images.labels), "int32");
  const { value, grads } = valueAndGrads(
    () => crossEntropy(forward(x, plan, params, context), labels),
    params as unknown as ParamTree,
  );
  optimizer.step(params as unknown as ParamTree, grads);
  if (options.activation !== "relu" && options.weights === "clip") {
    clipLatent(params);
  }
  const loss = value.dataSync()[0];
  tf.dispose([x, labels, value, ...Object.values(grads)]);
  return loss;
}

/**
 * Labels that a trained model gives, with the statistics of inference; a stochastic model draws once.
 *
 * @returns labels [N] and the share that is right
 */
export function evaluate(
  model: TrainedModel,
  data: Images,
  { key, batch = 500 }: { key: Key; batch?: number },
): { labels: Uint8Array; accuracy: number } {
  const { specs, encoding, classes, options } = model;
  const plan = planOf(specs, encoding, classes, options.activation === "relu");
  const params = startParams(plan, options, key, model);
  const stats = model.layers.map(({ mean, variance }) => ({
    mean: tf.tensor1d(mean),
    variance: tf.tensor1d(variance),
  }));
  const labels = new Uint8Array(data.count);
  try {
    for (let start = 0; start < data.count; start += batch) {
      const places = Array.from(
        { length: Math.min(batch, data.count - start) },
        (_, i) => start + i,
      );
      tf.tidy(() => {
        const x = inputTensor(
          pickImages(data, places),
          encoding,
          options.activation,
        );
        const scores = forward(x, plan, params, {
          options,
          tau: tauAt(1),
          key: fold(key, start),
          stats,
        }).dataSync();
        for (let i = 0; i < places.length; i++) {
          labels[start + i] = argmax(
            scores.subarray(i * classes, (i + 1) * classes),
          );
        }
      });
    }
  } finally {
    tf.dispose([params, stats] as unknown as tf.TensorContainer);
  }
  const right = labels.filter((label, i) => label === data.labels[i]).length;
  return { labels, accuracy: right / data.count };
}

// Deployment --------------------------------------------------------------------------------------

/**
 * The binary network of a trained model: signs of weights, thresholds, flips folded in.
 *
 * @throws {TypeError} for the float baseline, which has no binary network
 */
export function toNetwork(
  model: TrainedModel,
  note = "SupeRBNN",
): BinaryNetwork {
  const { specs, encoding, classes, options } = model;
  if (options.activation === "relu") {
    throw new TypeError(
      "Cannot deploy the model as its activation must be binary: activation relu",
    );
  }
  const matched = isMatched(options);
  let next = 0;
  const layers = planOf(specs, encoding, classes, false).map(
    (place, i, plan): Layer => {
      const { height, width, channels, outputs } = place;
      if (place.pool !== null) {
        return { kind: "pool", height, width, channels, size: place.pool };
      }
      const { fanIn } = place.gather!;
      const layer = model.layers[next++];
      const weights = Int8Array.from(layer.weight);
      const { gamma, beta, mean, variance } = layer;
      const isScore = i === plan.length - 1;
      if (isScore) {
        const scale = Float64Array.from(
          gamma,
          (g, j) => g / Math.sqrt(variance[j] + BN_EPS),
        );
        const offset = scale.map((s, j) => beta[j] - s * mean[j]);
        return {
          kind: "scores",
          inputs: fanIn,
          outputs,
          weights,
          scale,
          offset,
        };
      }
      const thresholds = Float64Array.from(beta, (b, j) => {
        const { flip, threshold } = matchBatchNorm({
          gamma: matched ? 1 : gamma[j],
          beta: b,
          mean: mean[j],
          variance: variance[j],
          eps: BN_EPS,
        }, { fanIn });
        if (flip) {
          for (let n = j * fanIn; n < (j + 1) * fanIn; n++) {
            weights[n] = -weights[n];
          }
        }
        return threshold;
      });
      if (place.conv === null) {
        return { kind: "dense", inputs: fanIn, outputs, weights, thresholds };
      }
      return {
        kind: "conv",
        height,
        width,
        inChannels: channels,
        outChannels: outputs,
        stride: 1,
        ...place.conv,
        weights,
        thresholds,
      };
    },
  );
  const network = { input: encoding, layers, note };
  checkNetwork(network);
  return network;
}
