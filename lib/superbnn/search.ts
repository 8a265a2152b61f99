/**
 * Co-optimisation of algorithm and hardware: which crossbar size, gray zone and stream length to build.
 *
 * The stochastic accumulator errs in two ways: a narrow gray zone takes majorities of majorities, a wide
 * one leaves nearly fair coins. How often it decides otherwise than the exact sum follows from the sums
 * that occur in the network, without drawing a number; configurations within a budget of that
 * mismatch are then judged by accuracy and energy, and the Pareto front is what is worth building.
 *
 * Scope: a reconstruction. The abstract of the paper (Li et al., arXiv 2309.12212) names the joint
 * optimisation; the term "average mismatch error" is recalled and its definition here assumed: the chance
 * that an activation differs from that of the exact sum, averaged over images and neurons. Also given: the
 * error of the decoded value, in units of the sum.
 */
import { type EnergySet } from "../core/aqfp.ts";
import { fold, type Key, randomInts } from "../core/rng.ts";
import {
  countDistribution,
  type Counter,
  countMoments,
  firingChance,
  type ThresholdSplit,
  tileProbabilities,
} from "./accumulate.ts";
import { checkStreamLength } from "./binomial.ts";
import { poolBits, type Tiling, tilingOf } from "./crossbar.ts";
import {
  checkCrossbarSize,
  checkDevice,
  DEFAULT_DEVICE,
  type Device,
  grayZoneValue,
  type Ties,
} from "./device.ts";
import { type EnergyOptions, inferenceEnergy } from "./energy.ts";
import {
  type BinaryNetwork,
  inputBits,
  layerSizes,
  patchIndices,
  streamGain,
} from "./network.ts";
import { accuracy, firstLayerSums, simulate } from "./simulate.ts";

/** Products of inputs and weights of some neurons of one layer for some images, as they occur. */
export interface ProductSamples {
  /** Index of the layer in the network. */
  layer: number;
  fanIn: number;
  /** [n, fanIn], w_i a_i = +1 or -1. */
  products: Int8Array;
  /** [n], V_th of the neuron. */
  thresholds: Float64Array;
}

/** Sums of tiles with the thresholds of their neurons. */
export interface SumSamples {
  tiling: Tiling;
  /** [n, tiles] */
  sums: Int32Array;
  /** [n] */
  thresholds: Float64Array;
}

export interface MismatchOptions {
  /** dV_in in units of the sum, from 0. */
  grayZone: number;
  streamLength: number;
  counter?: Counter;
  ties?: Ties;
  thresholdSplit?: ThresholdSplit;
}

export interface Mismatch {
  /** Chance that the activation is not sign(V - V_th), mean over the samples. */
  decision: number;
  /** Root mean square of gain (m) - (V - V_th), in units of the sum; bias and noise are its parts. */
  rmsError: number;
  rmsBias: number;
  rmsNoise: number;
}

/**
 * Products of random neurons and images, with the activations of the exact network.
 *
 * @param perLayer Samples of each layer with thresholds. Default 256, ours
 * @returns one entry per layer with thresholds
 */
export function sampleProducts(
  network: BinaryNetwork,
  bits: Int8Array,
  { key, perLayer = 256 }: { key: Key; perLayer?: number },
): ProductSamples[] {
  // With one tile, no noise and one cycle a count is the activation itself.
  const { counts } = simulate(network, bits, {
    crossbarSize: 2 ** 30,
    grayZone: 0,
    streamLength: 1,
    ties: "low",
    scores: "exact",
    trace: true,
    key,
  });
  const images = bits.length / inputBits(network);
  let inputs: Uint8Array = Uint8Array.from(bits, (bit) => bit > 0 ? 1 : 0);
  return network.layers.flatMap((layer, index): ProductSamples[] => {
    if (layer.kind === "pool") {
      inputs = poolBits(inputs, layer);
      return [];
    }
    if (layer.kind === "scores") return [];
    const { fanIn, neurons, positions, inputs: width } = layerSizes(layer);
    const patches = layer.kind === "conv" ? patchIndices(layer) : null;
    const picks = randomInts(
      fold(key, `samples ${index}`),
      perLayer,
      0,
      images * positions * neurons,
    );
    const products = new Int8Array(perLayer * fanIn);
    const thresholds = new Float64Array(perLayer);
    picks.forEach((pick, n) => {
      const neuron = pick % neurons;
      const position = Math.floor(pick / neurons) % positions;
      const image = Math.floor(pick / neurons / positions);
      thresholds[n] = layer.thresholds[neuron];
      for (let i = 0; i < fanIn; i++) {
        const from = patches === null ? i : patches[position * fanIn + i];
        const input = from >= 0 && inputs[image * width + from] === 1 ? 1 : -1;
        products[n * fanIn + i] = input * layer.weights[neuron * fanIn + i];
      }
    });
    inputs = Uint8Array.from(counts![index]!);
    return [{ layer: index, fanIn, products, thresholds }];
  });
}

/** Sums of the tiles for a crossbar size. */
export function tileSamples(
  { fanIn, products, thresholds }: ProductSamples,
  crossbarSize: number,
): SumSamples {
  const tiling = tilingOf(fanIn, crossbarSize);
  const sums = new Int32Array(thresholds.length * tiling.tiles);
  products.forEach((product, at) => {
    const tile = Math.floor(at % fanIn / crossbarSize);
    sums[Math.floor(at / fanIn) * tiling.tiles + tile] += product;
  });
  return { tiling, sums, thresholds };
}

/**
 * How far the stochastic accumulator is from the exact sum; exact for the given sums.
 *
 * decision  mean over samples of P(c > K L / 2) where V <= V_th, and of its complement elsewhere
 * rmsError  of gain m against V - V_th, from mean and variance of the count:
 *           bias = gain E[m] - (V - V_th), noise^2 = gain^2 Var[m], gain = `streamGain`
 *
 * Neurons with an infinite threshold never err and have no value; they count as zeros.
 */
export function averageMismatch(
  { tiling, sums, thresholds }: SumSamples,
  {
    grayZone,
    streamLength,
    counter = "exact",
    ties = "coin",
    thresholdSplit = "even",
  }: MismatchOptions,
): Mismatch {
  checkStreamLength(streamLength);
  const n = thresholds.length;
  const { tiles, fanIn } = tiling;
  if (n === 0 || sums.length !== n * tiles || !(grayZone >= 0)) {
    throw new RangeError(
      `Cannot compute a mismatch as there must be samples, ${tiles} sums for each, and a gray zone from 0: ${n} samples, ${sums.length} sums, grayZone ${grayZone}`,
    );
  }
  const gain = streamGain(grayZone, fanIn / tiles);
  let decision = 0;
  let bias2 = 0;
  let noise2 = 0;
  for (let i = 0; i < n; i++) {
    const threshold = thresholds[i];
    if (!Number.isFinite(threshold)) continue;
    const row = sums.subarray(i * tiles, (i + 1) * tiles);
    const chances = tileProbabilities(row, threshold, tiling, {
      grayZone,
      split: thresholdSplit,
      ties,
    });
    const excess = row.reduce((sum, v) => sum + v, 0) - threshold;
    const fires = firingChance(
      countDistribution(chances, streamLength, counter),
      tiles,
      streamLength,
      ties,
    );
    decision += excess > 0 ? 1 - fires : fires;
    const { mean, variance } = countMoments(chances, counter);
    bias2 += (gain * (2 * mean - tiles) - excess) ** 2;
    noise2 += gain * gain * 4 * variance / streamLength;
  }
  return {
    decision: decision / n,
    rmsError: Math.sqrt((bias2 + noise2) / n),
    rmsBias: Math.sqrt(bias2 / n),
    rmsNoise: Math.sqrt(noise2 / n),
  };
}

export interface SearchOptions {
  crossbarSizes: readonly number[];
  /** dI_in to try, in uA: devices that could be made. Or `grayZones`, in units of the sum. */
  grayZonesUa?: readonly number[];
  grayZones?: readonly number[];
  streamLengths: readonly number[];
  /** Whose attenuation turns uA into units of the sum. Default `DEFAULT_DEVICE`, assumed. */
  device?: Device;
  /** Budget of `Mismatch.decision`, 0 to 1. Default 1: every configuration. */
  maxMismatch?: number;
  /** Least accuracy, 0 to 1, of what may be on the front. Default 0. */
  minAccuracy?: number;
  /** Samples per layer for the mismatch. Default 256. */
  perLayer?: number;
  counter?: Counter;
  ties?: Ties;
  thresholdSplit?: ThresholdSplit;
  energy?: EnergySet;
  /** Other options of the energy model. */
  energyOptions?: Omit<
    EnergyOptions,
    "crossbarSize" | "streamLength" | "counter" | "energy"
  >;
  /** Labels of the images: with them every configuration within the budget is simulated. */
  truth?: ArrayLike<number>;
  key: Key;
  /** Called before every simulation, with its number and how many there are. */
  progress?: (done: number, of: number) => void;
}

export interface SearchRow {
  crossbarSize: number;
  /** Null if the search was in units of the sum. */
  grayZoneUa: number | null;
  grayZone: number;
  streamLength: number;
  /** Mean over layers. */
  mismatch: number;
  rmsError: number;
  energyPerInferenceJ: number;
  latencyPs: number;
  areaMm2: number;
  /** Null without labels, or outside the budget. */
  accuracy: number | null;
  withinBudget: boolean;
  /** No other configuration within the budgets is at least as good in both respects and better in one. */
  pareto: boolean;
}

/** Marks the front: least energy against greatest accuracy, or least mismatch without accuracies. */
export function markPareto(
  rows: readonly Omit<SearchRow, "pareto">[],
  minAccuracy = 0,
): SearchRow[] {
  const loss = (row: Omit<SearchRow, "pareto">) =>
    row.accuracy === null ? row.mismatch : -row.accuracy;
  const able = rows.filter((row) =>
    row.withinBudget && (row.accuracy === null || row.accuracy >= minAccuracy)
  );
  return rows.map((row) => ({
    ...row,
    pareto: able.includes(row) &&
      !able.some((other) =>
        other.energyPerInferenceJ <= row.energyPerInferenceJ &&
        loss(other) <= loss(row) &&
        (other.energyPerInferenceJ < row.energyPerInferenceJ ||
          loss(other) < loss(row))
      ),
  }));
}

/**
 * Every configuration of a grid with its mismatch, energy and, with labels, accuracy.
 *
 * @param network The same for all, or the one trained for a crossbar size; all read the same bits
 * @param bits [N, inputs] of +1 and -1: images for the mismatch, and to be labelled
 * @returns in the order of crossbar size, gray zone, stream length
 */
export function searchHardware(
  network: BinaryNetwork | ((crossbarSize: number) => BinaryNetwork),
  bits: Int8Array,
  options: SearchOptions,
): SearchRow[] {
  const {
    crossbarSizes,
    grayZonesUa,
    grayZones,
    streamLengths,
    device = DEFAULT_DEVICE,
    maxMismatch = 1,
    minAccuracy = 0,
    perLayer = 256,
    counter = "exact",
    ties = "coin",
    thresholdSplit = "even",
    energy,
    energyOptions = {},
    truth,
    key,
    progress = () => {},
  } = options;
  if ((grayZonesUa === undefined) === (grayZones === undefined)) {
    throw new TypeError(
      "Cannot search as either grayZonesUa or grayZones must be given, not both",
    );
  }
  crossbarSizes.forEach(checkCrossbarSize);
  streamLengths.forEach(checkStreamLength);
  checkDevice(device);
  const widths = grayZonesUa ?? grayZones!;
  if (
    crossbarSizes.length * widths.length * streamLengths.length === 0 ||
    !widths.every((w) => w >= 0 && w < Infinity)
  ) {
    throw new RangeError(
      `Cannot search as each list must have entries and gray zones be from 0: sizes ${crossbarSizes}, gray zones ${widths}, lengths ${streamLengths}`,
    );
  }
  for (const [name, v] of Object.entries({ maxMismatch, minAccuracy })) {
    if (!(v >= 0 && v <= 1)) {
      throw new RangeError(
        `Cannot search as ${name} must be from 0 to 1: ${v}`,
      );
    }
  }
  const networkOf = typeof network === "function" ? network : () => network;
  const sampled = new Map<BinaryNetwork, ProductSamples[]>();
  const grid = crossbarSizes.flatMap((crossbarSize) => {
    const network = networkOf(crossbarSize);
    const samples = sampled.get(network) ??
      sampleProducts(network, bits, { key, perLayer });
    sampled.set(network, samples);
    const tiled = samples.map((sample) => tileSamples(sample, crossbarSize));
    return widths.flatMap((width) => {
      const grayZone = grayZones !== undefined || width === 0
        ? width
        : grayZoneValue(crossbarSize, { ...device, grayZoneUa: width });
      return streamLengths.map((streamLength) => {
        const errors = tiled.map((sample) =>
          averageMismatch(sample, {
            grayZone,
            streamLength,
            counter,
            ties,
            thresholdSplit,
          })
        );
        const mean = (of: (error: Mismatch) => number) =>
          errors.reduce((sum, e) => sum + of(e), 0) /
          Math.max(1, errors.length);
        const report = inferenceEnergy(network, {
          ...energyOptions,
          ...(energy === undefined ? {} : { energy }),
          crossbarSize,
          streamLength,
          counter,
        });
        const mismatch = mean(({ decision }) => decision);
        return {
          crossbarSize,
          grayZoneUa: grayZones === undefined ? width : null,
          grayZone,
          streamLength,
          mismatch,
          rmsError: mean(({ rmsError }) => rmsError),
          energyPerInferenceJ: report.energyPerInferenceJ,
          latencyPs: report.latencyPs,
          areaMm2: report.areaMm2,
          accuracy: null as number | null,
          withinBudget: mismatch <= maxMismatch,
        };
      });
    });
  });
  if (truth !== undefined) {
    const able = grid.filter(({ withinBudget }) => withinBudget);
    let size = 0;
    let network = networkOf(crossbarSizes[0]);
    let firstSums: ReturnType<typeof firstLayerSums> = null;
    able.forEach((row, i) => {
      progress(i, able.length);
      const { crossbarSize, grayZone, streamLength } = row;
      if (crossbarSize !== size) {
        size = crossbarSize;
        network = networkOf(size);
        firstSums = firstLayerSums(network, bits, size);
      }
      const { labels } = simulate(network, bits, {
        crossbarSize,
        grayZone,
        streamLength,
        counter,
        ties,
        thresholdSplit,
        firstSums: firstSums ?? undefined,
        key: fold(key, `images ${crossbarSize} ${grayZone} ${streamLength}`),
      });
      row.accuracy = accuracy(labels, truth);
    });
  }
  return markPareto(grid, minAccuracy);
}
