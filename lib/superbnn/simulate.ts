/**
 * The network on its crossbars, bit by bit: what every tile, counter and comparator puts out.
 *
 * Li et al., "SupeRBNN: Randomized Binary Neural Network Using Adiabatic Superconductor Josephson
 * Devices", MICRO 2023, arXiv 2309.12212.
 *
 * `simulate` is the fast path. A tile's sum takes n_k + 1 values only, so the chance of a 1 is a small
 * table per neuron, and the ones of its L cycles are one draw from Binomial(L, P(V_k)): the same
 * distribution as clocking the device L times. Sums come from packed XNOR and popcount.
 * `simulateBits` is the oracle: every cycle of every tile with Gaussian noise on its current.
 *
 * Randomness: every image has a key of its own, every row of every layer a generator; tiles, neurons and
 * cycles take successive words. So image i gets the same numbers whichever images stand beside it, and
 * nothing is drawn once and used twice.
 *
 * Scope: all layers are on the device, the scores included, unless `scores: "exact"`; the encoding of the
 * image, pooling and the affine function per class are not. Limits: gray zone 0 is the ideal sign
 * with an explicit rule for ties, and with one tile per fan-in the exact network.
 */
import { fold, type Key, normal, uniform } from "../core/rng.ts";
import {
  approximateCount,
  comparatorFires,
  type Counter,
  decodedValue,
  exactCount,
  pairProbability,
  splitThreshold,
  type ThresholdSplit,
} from "./accumulate.ts";
import {
  checkStreamLength,
  drawBinomial,
  type Generators,
  nextWord,
  seedGenerators,
  type TableMaker,
  tableMaker,
} from "./binomial.ts";
import {
  type Agreements,
  agreements,
  agreementsArray,
  packTiles,
  poolBits,
  type TiledRows,
  tileSize,
  tileSum,
  type Tiling,
  tilingOf,
} from "./crossbar.ts";
import {
  checkCrossbarSize,
  DEFAULT_DEVICE,
  type Device,
  firingProbability,
  grayZoneValue,
  type Ties,
} from "./device.ts";
import {
  argmax,
  type BinaryNetwork,
  checkNetwork,
  inputBits,
  type Layer,
  layerSizes,
  patchIndices,
  type PoolLayer,
  streamGain,
} from "./network.ts";

export interface SimulateOptions {
  /** Cs: 1 or more; larger than a fan-in makes it one tile. */
  crossbarSize: number;
  /** dV_in in units of the sum, from 0. Default: that of `device` at this crossbar size. */
  grayZone?: number;
  /** Default `DEFAULT_DEVICE`, assumed. */
  device?: Device;
  /** L: cycles, from 1. Default 16, ours. */
  streamLength?: number;
  /** Default `"exact"`. */
  counter?: Counter;
  /** At V = V_th without noise, and where a counter stands at K L / 2. Default `"coin"`: no side is favoured. */
  ties?: Ties;
  /** Default `"even"`, assumed. */
  thresholdSplit?: ThresholdSplit;
  /** `stream`: the last layer is on the device, its sums decoded. `exact`: its sums are computed elsewhere. Default `"stream"`. */
  scores?: "stream" | "exact";
  /** Number of the first image, for a data set in parts. Default 0. */
  firstImage?: number;
  /** Of `firstLayerSums` for the same images and crossbar size: saves counting them again. */
  firstSums?: FirstSums;
  /** Keeps the counts of every layer. */
  trace?: boolean;
  key: Key;
}

/** Agreements of the first layer: they depend on neither gray zone nor stream length. */
export interface FirstSums {
  tiling: Tiling;
  rows: number;
  /** [neurons, rows, tiles] */
  data: Agreements;
}

export interface Simulation {
  /** [N, classes] */
  scores: Float64Array;
  /** [N] */
  labels: Uint8Array;
  /** dV_in that was used. */
  grayZone: number;
  /** With `trace`: c of every layer [N, positions, neurons], null for pooling and exact scores. */
  counts?: (Int32Array | null)[];
}

/** Rows whose sums are held at once: within the cache of a core. */
const BLOCK_ROWS = 256;

/** Rows of a layer and words of them that are held at once: generators within the cache of a core. */
const MAX_ROWS = 2 ** 14;
const MAX_WORDS = 2 ** 22;

/** Entries of a layer's tables that are kept from one part of the images to the next. */
const MAX_TABLE_ENTRIES = 2 ** 23;

/** Widest gray zone: its square must stay a number. */
const MAX_GRAY_ZONE = 1e100;

/** Bytes of sums of the first layer that `simulateSweep` keeps. */
const MAX_SUM_BYTES = 2 ** 29;

// Arguments ---------------------------------------------------------------------------------------

type Settings = Required<Omit<SimulateOptions, "device" | "firstSums">>;

function resolve(options: SimulateOptions): Settings {
  const {
    crossbarSize,
    device = DEFAULT_DEVICE,
    grayZone = grayZoneValue(crossbarSize, device),
    streamLength = 16,
    counter = "exact",
    ties = "coin",
    thresholdSplit = "even",
    scores = "stream",
    firstImage = 0,
    trace = false,
    key,
  } = options;
  checkCrossbarSize(crossbarSize);
  checkStreamLength(streamLength);
  if (!(grayZone >= 0 && grayZone <= MAX_GRAY_ZONE)) {
    throw new RangeError(
      `Cannot simulate as the gray zone must be from 0 to ${MAX_GRAY_ZONE}: grayZone ${grayZone}`,
    );
  }
  const unions: [string, string, string[]][] = [
    ["counter", counter, ["exact", "approximate"]],
    ["ties", ties, ["coin", "high", "low"]],
    ["thresholdSplit", thresholdSplit, ["even", "proportional"]],
    ["scores", scores, ["stream", "exact"]],
  ];
  for (const [name, value, allowed] of unions) {
    if (!allowed.includes(value)) {
      throw new RangeError(
        `Cannot simulate as ${name} must be one of ${
          allowed.join(", ")
        }: ${name} ${value}`,
      );
    }
  }
  if (!Number.isInteger(firstImage) || firstImage < 0) {
    throw new RangeError(
      `Cannot simulate as firstImage must be a whole number >= 0: ${firstImage}`,
    );
  }
  return {
    crossbarSize,
    grayZone,
    streamLength,
    counter,
    ties,
    thresholdSplit,
    scores,
    firstImage,
    trace,
    key,
  };
}

/** Number of images, after a check of their bits. */
function imageCount(network: BinaryNetwork, bits: Int8Array): number {
  checkNetwork(network);
  const width = inputBits(network);
  if (bits.length === 0 || bits.length % width !== 0) {
    throw new RangeError(
      `Cannot simulate as each image must have ${width} bits: ${bits.length} in all`,
    );
  }
  return bits.length / width;
}

// Layers ------------------------------------------------------------------------------------------

type Neurons = Exclude<Layer, PoolLayer>;

/** A layer with its weights packed. */
interface TiledLayer {
  layer: Neurons;
  tiling: Tiling;
  weights: TiledRows;
  neurons: number;
  positions: number;
  /** Inputs of an image. */
  width: number;
  patches?: Int32Array;
}

function tileLayer(layer: Neurons, crossbarSize: number): TiledLayer {
  const { fanIn, neurons, positions, inputs } = layerSizes(layer);
  const tiling = tilingOf(fanIn, crossbarSize);
  return {
    layer,
    tiling,
    weights: packTiles(layer.weights, tiling, 1),
    neurons,
    positions,
    width: inputs,
    patches: layer.kind === "conv" ? patchIndices(layer) : undefined,
  };
}

function packInputs(
  { tiling, patches, width }: TiledLayer,
  signs: Int8Array | Uint8Array,
): TiledRows {
  return packTiles(signs, tiling, 0, { patches, width });
}

/** Thresholds of a layer; the sums of a score layer are decoded around 0. */
function thresholdOf(layer: Neurons, neuron: number): number {
  return layer.kind === "scores" ? 0 : layer.thresholds[neuron];
}

/** What a neuron's draws need, kept from one part of the images to the next. */
interface NeuronTables {
  chances: Float64Array;
  lastAt: number;
  table: Int32Array;
}

/** P(V) of a neuron's tiles by agreements: d = 0 ... n_k of a full tile, then of the last. */
function neuronProbabilities(
  { tiling, layer }: TiledLayer,
  neuron: number,
  { grayZone, ties, thresholdSplit }: Settings,
): { chances: Float64Array; lastAt: number } {
  const { full, last } = splitThreshold(
    thresholdOf(layer, neuron),
    tiling,
    thresholdSplit,
  );
  const { lastSize, tiles } = tiling;
  const size = tileSize(tiling, 0);
  const chances = new Float64Array(size + 1 + lastSize + 1);
  for (let d = 0; tiles > 1 && d <= size; d++) {
    chances[d] = firingProbability(tileSum(d, size), full, grayZone, ties);
  }
  for (let d = 0; d <= lastSize; d++) {
    chances[size + 1 + d] = firingProbability(
      tileSum(d, lastSize),
      last,
      grayZone,
      ties,
    );
  }
  return { chances, lastAt: size + 1 };
}

/**
 * Counts c of one neuron for several rows: a binomial number for every tile, added.
 *
 * @param d [rows, tiles] agreements from `at`
 * @param table Alias tables of 2^columnBits entries by agreements, those of the last tile from `lastAt`
 * @param state Generators of the rows, from row `first`
 */
function drawCounts(
  d: Agreements,
  at: number,
  rows: number,
  tiles: number,
  table: Int32Array,
  lastAt: number,
  columnBits: number,
  { state }: Generators,
  first: number,
  counts: Int32Array,
): void {
  const shift = 32 - columnBits;
  const mask = 2 ** columnBits - 1;
  const lastTable = lastAt << columnBits;
  const last = tiles - 1;
  for (let row = 0; row < rows; row++) {
    const s = 4 * (first + row);
    let a = state[s];
    let b = state[s + 1];
    let c = state[s + 2];
    let n = state[s + 3];
    let count = 0;
    for (let k = 0; k < tiles; k++) {
      // sfc32 and `drawFromTable`, written out: calls cost a third of the time.
      const word = (a + b + n) | 0;
      n = (n + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = (((c << 21) | (c >>> 11)) + word) | 0;
      const column = word >>> shift;
      const entry = table[
        (k === last ? lastTable : 0) + (d[at++] << columnBits) + column
      ];
      count += (((word << columnBits) | mask) ^ 0x80000000) < entry
        ? column
        : entry & mask;
    }
    state[s] = a;
    state[s + 1] = b;
    state[s + 2] = c;
    state[s + 3] = n;
    counts[row] = count;
  }
}

/** The same with the approximate counter: pairs of tiles share a gate, whose stream is drawn. */
function drawApproximateCounts(
  d: Agreements,
  at: number,
  rows: number,
  tiles: number,
  chances: Float64Array,
  lastAt: number,
  streamLength: number,
  generators: Generators,
  first: number,
  counts: Int32Array,
): void {
  for (let row = 0; row < rows; row++) {
    const word = () => nextWord(generators, first + row);
    const chance = (k: number) =>
      chances[(k === tiles - 1 ? lastAt : 0) + d[at + row * tiles + k]];
    let count = 0;
    for (let k = 0; k + 1 < tiles; k += 2) {
      const r = pairProbability(chance(k), chance(k + 1), k / 2);
      count += 2 * drawBinomial(streamLength, r, word);
    }
    if (tiles % 2 === 1) {
      count += drawBinomial(streamLength, chance(tiles - 1), word);
    }
    counts[row] = count;
  }
}

/**
 * Runs a layer for rows of inputs; `receive` gets the counts of each neuron in blocks of rows.
 *
 * @param sums Agreements [neurons, rows of all images, tiles] if known, of which these rows start at `sumsRow`
 */
function runLayer(
  tiled: TiledLayer,
  inputs: TiledRows | null,
  rows: number,
  settings: Settings,
  generators: Generators,
  maker: TableMaker,
  tables: NeuronTables[],
  sums: FirstSums | undefined,
  sumsRow: number,
  receive: (
    neuron: number,
    first: number,
    rows: number,
    counts: Int32Array,
  ) => void,
): void {
  const { tiling, weights, neurons } = tiled;
  const { tiles, lastSize } = tiling;
  const { counter, streamLength } = settings;
  const { columnBits } = maker;
  const size = tileSize(tiling, 0);
  const entries = (size + lastSize + 2) << columnBits;
  const keep = neurons * entries <= MAX_TABLE_ENTRIES;
  let table: Int32Array = new Int32Array(keep ? 0 : entries);
  const block = sums === undefined
    ? agreementsArray(tiling, BLOCK_ROWS * tiles)
    : sums.data;
  const counts = new Int32Array(BLOCK_ROWS);
  for (let neuron = 0; neuron < neurons; neuron++) {
    const known = tables[neuron];
    const { chances, lastAt } = known ??
      neuronProbabilities(tiled, neuron, settings);
    if (known !== undefined) table = known.table;
    else {
      if (keep) table = new Int32Array(counter === "exact" ? entries : 0);
      if (counter === "exact") {
        chances.forEach((p, i) => maker.write(table, i << columnBits, p));
      }
      if (keep) tables[neuron] = { chances, lastAt, table };
    }
    for (let first = 0; first < rows; first += BLOCK_ROWS) {
      const here = Math.min(BLOCK_ROWS, rows - first);
      let at = 0;
      if (sums === undefined) {
        agreements(inputs!, first, here, weights, neuron, block);
      } else at = (neuron * sums.rows + sumsRow + first) * tiles;
      if (counter === "exact") {
        drawCounts(
          block,
          at,
          here,
          tiles,
          table,
          lastAt,
          columnBits,
          generators,
          first,
          counts,
        );
      } else {
        drawApproximateCounts(
          block,
          at,
          here,
          tiles,
          chances,
          lastAt,
          streamLength,
          generators,
          first,
          counts,
        );
      }
      receive(neuron, first, here, counts);
    }
  }
}

/** Exact sums V of a layer, [rows, neurons]. */
function exactSums(tiled: TiledLayer, inputs: TiledRows): Int32Array {
  const { tiling, weights, neurons } = tiled;
  const { tiles, fanIn } = tiling;
  const { rows } = inputs;
  const out = new Int32Array(rows * neurons);
  const d = agreementsArray(tiling, rows * tiles);
  for (let neuron = 0; neuron < neurons; neuron++) {
    agreements(inputs, 0, rows, weights, neuron, d);
    for (let row = 0; row < rows; row++) {
      let sum = 0;
      for (let k = 0; k < tiles; k++) sum += d[row * tiles + k];
      out[row * neurons + neuron] = tileSum(sum, fanIn);
    }
  }
  return out;
}

/** Images that are taken at once, so that packed rows fit. */
function imagesAtOnce(layers: (TiledLayer | PoolLayer)[]): number {
  let images = MAX_ROWS;
  for (const layer of layers) {
    if (!("tiling" in layer)) continue;
    const { positions, tiling } = layer;
    images = Math.min(
      images,
      MAX_ROWS / positions,
      MAX_WORDS / positions / tiling.wordsPerRow,
    );
  }
  return Math.max(1, Math.floor(images));
}

// The whole ---------------------------------------------------------------------------------------

/**
 * The agreements of the first layer for all images, to be shared by a sweep.
 *
 * @returns null if they would take more than `maxBytes`
 */
export function firstLayerSums(
  network: BinaryNetwork,
  bits: Int8Array,
  crossbarSize: number,
  { maxBytes = MAX_SUM_BYTES } = {},
): FirstSums | null {
  const images = imageCount(network, bits);
  const layer = network.layers[0];
  if (layer.kind === "pool") return null;
  const tiled = tileLayer(layer, crossbarSize);
  const { tiling, neurons, positions, weights } = tiled;
  const rows = images * positions;
  const length = neurons * rows * tiling.tiles;
  if (length * agreementsArray(tiling, 0).BYTES_PER_ELEMENT > maxBytes) {
    return null;
  }
  const inputs = packInputs(tiled, bits);
  const data = agreementsArray(tiling, length);
  for (let neuron = 0; neuron < neurons; neuron++) {
    agreements(
      inputs,
      0,
      rows,
      weights,
      neuron,
      data,
      neuron * rows * tiling.tiles,
    );
  }
  return { tiling, rows, data };
}

/**
 * Scores and labels of images on crossbars of stochastic devices.
 *
 * Per layer and neuron:  c = sum_k Binomial(L, P(V_k)),  a = +1 where c > K L / 2
 * Scores:                score = scale gain (2 c / L - K) + offset, gain as in `streamGain`
 *
 * @param bits [N, inputs] of +1 and -1, from `encodeImages`
 * @throws RangeError for options out of range, bits that do not fit the network
 *
 * @example
 * ```ts
 * const { labels } = simulate(network, bits, { crossbarSize: 72, grayZone: 8, streamLength: 8, key });
 * ```
 */
export function simulate(
  network: BinaryNetwork,
  bits: Int8Array,
  options: SimulateOptions,
): Simulation {
  const settings = resolve(options);
  const { firstSums } = options;
  const { crossbarSize, grayZone, streamLength, ties, trace } = settings;
  const images = imageCount(network, bits);
  const width = inputBits(network);
  const layers = network.layers.map((layer) =>
    layer.kind === "pool" ? layer : tileLayer(layer, crossbarSize)
  );
  const first = layers[0];
  if (
    firstSums !== undefined && !("tiling" in first &&
      firstSums.tiling.crossbarSize === crossbarSize &&
      firstSums.tiling.fanIn === first.tiling.fanIn &&
      firstSums.rows === images * first.positions &&
      firstSums.data.length ===
        first.neurons * firstSums.rows * first.tiling.tiles)
  ) {
    throw new RangeError(
      `Cannot simulate as firstSums must be of this network, these ${images} images and crossbar size ${crossbarSize}: they are of size ${firstSums.tiling.crossbarSize} and ${firstSums.rows} rows`,
    );
  }
  const classes = layerSizes(network.layers[network.layers.length - 1]).outputs;
  const scores = new Float64Array(images * classes);
  const counts = network.layers.map((layer) =>
    !trace || layer.kind === "pool" ||
      (layer.kind === "scores" && settings.scores === "exact")
      ? null
      : new Int32Array(images * layerSizes(layer).outputs)
  );
  const maker = tableMaker(streamLength);
  const tables: NeuronTables[][] = layers.map(() => []);
  const atOnce = imagesAtOnce(layers);
  for (let from = 0; from < images; from += atOnce) {
    const n = Math.min(atOnce, images - from);
    let signs: Int8Array | Uint8Array = bits.subarray(
      from * width,
      (from + n) * width,
    );
    layers.forEach((tiled, index) => {
      if (!("tiling" in tiled)) {
        signs = poolBits(asBits(signs), tiled);
        return;
      }
      const { layer, neurons, positions, tiling } = tiled;
      const rows = n * positions;
      const known = index === 0 ? firstSums : undefined;
      const inputs = known === undefined ? packInputs(tiled, signs) : null;
      const scoresAt = from * classes;
      if (layer.kind === "scores" && settings.scores === "exact") {
        exactSums(tiled, inputs ?? packInputs(tiled, signs)).forEach((v, i) => {
          const k = i % classes;
          scores[scoresAt + i] = layer.scale[k] * v + layer.offset[k];
        });
        return;
      }
      const { tiles, fanIn } = tiling;
      const gain = streamGain(grayZone, fanIn / tiles);
      const generators = seedGenerators(
        fold(settings.key, `layer ${index}`),
        settings.firstImage + from,
        n,
        positions,
      );
      const fired = new Uint8Array(rows * neurons); // [n, positions, neurons]
      const kept = counts[index];
      const keptAt = from * positions * neurons;
      const middle = tiles * streamLength;
      runLayer(
        tiled,
        inputs,
        rows,
        settings,
        generators,
        maker,
        tables[index],
        known,
        from * positions,
        (neuron, firstRow, rowsHere, c) => {
          let at = firstRow * neurons + neuron;
          for (let row = 0; row < rowsHere; row++, at += neurons) {
            if (kept !== null) kept[keptAt + at] = c[row];
            if (layer.kind === "scores") {
              const sum = gain * decodedValue(c[row], tiles, streamLength);
              scores[scoresAt + at] = layer.scale[neuron] * sum +
                layer.offset[neuron];
              continue;
            }
            const excess = 2 * c[row] - middle;
            if (excess > 0) fired[at] = 1;
            else if (excess === 0) {
              fired[at] = ties === "high" ||
                  (ties === "coin" && nextWord(generators, firstRow + row) < 0)
                ? 1
                : 0;
            }
          }
        },
      );
      signs = fired;
    });
  }
  const result: Simulation = {
    scores,
    labels: labelsOf(scores, classes),
    grayZone,
  };
  if (trace) result.counts = counts;
  return result;
}

/** 1 for +1 and 0 for -1. */
function asBits(signs: Int8Array | Uint8Array): Uint8Array {
  return signs instanceof Uint8Array
    ? signs
    : Uint8Array.from(signs, (sign) => sign > 0 ? 1 : 0);
}

function labelsOf(scores: Float64Array, classes: number): Uint8Array {
  return Uint8Array.from(
    { length: scores.length / classes },
    (_, i) => argmax(scores.subarray(i * classes, (i + 1) * classes)),
  );
}

/** Simulations of the same images with several options; the first layer is counted once per crossbar size in a row. */
export function* simulateSweep(
  network: BinaryNetwork,
  bits: Int8Array,
  sweep: readonly SimulateOptions[],
): Generator<Simulation> {
  let firstSums: FirstSums | undefined;
  let size = 0;
  for (const options of sweep) {
    if (options.crossbarSize !== size) {
      size = options.crossbarSize;
      firstSums = firstLayerSums(network, bits, size) ?? undefined;
    }
    yield simulate(network, bits, { ...options, firstSums });
  }
}

/** Share of labels that are right. */
export function accuracy(
  labels: ArrayLike<number>,
  truth: ArrayLike<number>,
): number {
  if (labels.length === 0 || labels.length !== truth.length) {
    throw new RangeError(
      `Cannot compute an accuracy as there must be as many labels as truths, at least one: ${labels.length} and ${truth.length}`,
    );
  }
  let right = 0;
  for (let i = 0; i < labels.length; i++) if (labels[i] === truth[i]) right++;
  return right / labels.length;
}

// The oracle --------------------------------------------------------------------------------------

/**
 * What `simulate` computes, cycle by cycle and tile by tile: the slow oracle of its distribution.
 *
 * Every bit is sign(V_k - V_th / K + sigma N), sigma = dV_in / sqrt(2 pi), with a noise of its own;
 * counters add the bits of each cycle. Shares with the fast path only the rules of the threshold's
 * split, of counters and of the comparator.
 */
export function simulateBits(
  network: BinaryNetwork,
  bits: Int8Array,
  options: SimulateOptions,
): Simulation {
  const settings = resolve(options);
  const { crossbarSize, grayZone, streamLength, ties, key } = settings;
  const images = imageCount(network, bits);
  const width = inputBits(network);
  const classes = layerSizes(network.layers[network.layers.length - 1]).outputs;
  const scores = new Float64Array(images * classes);
  const counts: (Int32Array | null)[] = network.layers.map((layer) =>
    layer.kind === "pool"
      ? null
      : new Int32Array(images * layerSizes(layer).outputs)
  );
  const count = settings.counter === "exact" ? exactCount : approximateCount;
  const sigma = grayZone / Math.sqrt(2 * Math.PI);
  for (let image = 0; image < images; image++) {
    const imageKey = fold(key, settings.firstImage + image);
    let signs: Int8Array | Uint8Array = bits.slice(
      image * width,
      (image + 1) * width,
    );
    network.layers.forEach((layer, index) => {
      if (layer.kind === "pool") {
        signs = Int8Array.from(
          poolBits(asBits(signs), layer),
          (bit) => 2 * bit - 1,
        );
        return;
      }
      const { fanIn, neurons, positions } = layerSizes(layer);
      const tiling = tilingOf(fanIn, crossbarSize);
      const { tiles } = tiling;
      const patches = layer.kind === "conv" ? patchIndices(layer) : null;
      const layerKey = fold(imageKey, `layer ${index}`);
      const next = new Int8Array(positions * neurons);
      for (let at = 0; at < next.length; at++) {
        const position = Math.floor(at / neurons);
        const neuron = at % neurons;
        const neuronKey = fold(layerKey, at);
        const sums = new Int32Array(tiles);
        for (let i = 0; i < fanIn; i++) {
          const from = patches === null ? i : patches[position * fanIn + i];
          const input = from < 0 ? -1 : signs[from];
          sums[Math.floor(i / crossbarSize)] += input *
            layer.weights[neuron * fanIn + i];
        }
        if (layer.kind === "scores" && settings.scores === "exact") {
          const sum = sums.reduce((total, v) => total + v, 0);
          scores[image * classes + neuron] = layer.scale[neuron] * sum +
            layer.offset[neuron];
          continue;
        }
        const { full, last } = splitThreshold(
          thresholdOf(layer, neuron),
          tiling,
          settings.thresholdSplit,
        );
        const noise = normal(fold(neuronKey, "noise"), tiles * streamLength);
        const coins = uniform(
          fold(neuronKey, "coins"),
          tiles * streamLength + 1,
        );
        let total = 0;
        for (let t = 0; t < streamLength; t++) {
          const cycle = Array.from(sums, (sum, k) => {
            const draw = t * tiles + k;
            const excess = sum - (k === tiles - 1 ? last : full) +
              sigma * noise[draw];
            if (excess !== 0) return excess > 0 ? 1 : 0;
            if (ties === "coin") return coins[draw] < 0.5 ? 1 : 0;
            return ties === "high" ? 1 : 0;
          });
          total += count(cycle);
        }
        counts[index]![image * next.length + at] = total;
        if (layer.kind === "scores") {
          const sum = streamGain(grayZone, fanIn / tiles) *
            decodedValue(total, tiles, streamLength);
          scores[image * classes + neuron] = layer.scale[neuron] * sum +
            layer.offset[neuron];
        } else {
          const toss = () => coins[tiles * streamLength] < 0.5;
          next[at] = comparatorFires(total, tiles, streamLength, ties, toss)
            ? 1
            : -1;
        }
      }
      signs = next;
    });
  }
  const result: Simulation = {
    scores,
    labels: labelsOf(scores, classes),
    grayZone,
  };
  if (settings.trace) result.counts = counts;
  return result;
}
