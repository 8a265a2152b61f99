/** What the arms of the SupeRBNN experiment compute: device, training, deployment, sweeps. */
import {
  type Images,
  type ImageSetName,
  loadImages,
  subset,
} from "../core/images.ts";
import { fold, type Key, key as keyOf } from "../core/rng.ts";
import type { Metrics, RunContext } from "../core/runs.ts";
import { streamGeneratorJj } from "../superbnn/counter.ts";
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
import { ASSUMPTION_SETS, inferenceEnergy } from "../superbnn/energy.ts";
import {
  averageMismatch,
  sampleProducts,
  tileSamples,
} from "../superbnn/search.ts";
import { accuracy, simulate, simulateSweep } from "../superbnn/simulate.ts";
import { simulateStreams } from "../superbnn/streams.ts";
import {
  checkDeployment,
  evaluate,
  type LayerSpec,
  meanEncoding,
  mlp,
  thermometerEncoding,
  toNetwork,
  train,
  type TrainOptions,
  vggSmall,
} from "../superbnn/train.ts";
import { runClocking } from "./superbnn.circuits.ts";
import type { Hardware, Method, Training } from "./superbnn.ts";

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
  const bytes = writeNetwork(toNetwork(trained, `${data}, ${method}`));
  context.writeArtifact("network.safetensors", bytes);
  const network = readNetwork(bytes);
  const { agreeing, compared } = checkDeployment(trained, network);
  const { labels } = exactly(network, encodeImages(encoding, testSet.images));
  return {
    accuracy: 100 * accuracy(labels, testSet.labels),
    loss: trained.losses.at(-1)!,
    agreeing,
    compared,
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

/** Config of a sweep. */
interface SweepArm {
  data: ImageSetName;
  /** Arm of the network that is deployed. */
  trained: string;
  /** Arm of the deterministic network of the same shape, which says what the device loses. */
  reference: string;
  crossbarSize: number;
  grayZones: number[];
  streamLengths: number[];
  sweepImages: number;
  /** Named sets of assumptions of the energy. */
  sets: (keyof typeof ASSUMPTION_SETS)[];
  /** Whether the approximate counter is run at the chosen gray zones. */
  approximate: boolean;
}

/** Half of the images choose the gray zone, the other half judges it. */
function halves(truth: Uint8Array) {
  const half = Math.floor(truth.length / 2);
  const share = (labels: Uint8Array, from: number, to: number) =>
    100 * accuracy(labels.subarray(from, to), truth.subarray(from, to));
  return {
    choosing: (labels: Uint8Array) => share(labels, 0, half),
    judging: (labels: Uint8Array) => share(labels, half, truth.length),
  };
}

/** A network on crossbars of one size: accuracy and energy over gray zones and stream lengths. */
function runSweep(
  {
    data,
    trained,
    reference,
    crossbarSize,
    grayZones,
    streamLengths,
    sweepImages,
    sets,
    approximate,
  }: SweepArm,
  key: Key,
  context: RunContext,
): Metrics {
  const { network, testSet, bits } = deployed(
    { data, trained },
    sweepImages,
    context,
  );
  const { choosing, judging } = halves(testSet.labels);
  const ideal = exactly(
    readNetwork(context.readArtifact(reference, "network.safetensors")),
    bits,
  ).labels;
  const sweep = streamLengths.flatMap((streamLength) =>
    grayZones.map((grayZone) => ({
      crossbarSize,
      grayZone,
      streamLength,
      key: fold(fold(key, streamLength), String(grayZone)),
    }))
  );
  const outcomes: Uint8Array[] = [];
  for (const { labels } of simulateSweep(network, bits, sweep)) {
    outcomes.push(labels);
    context.progress(outcomes.length / sweep.length);
  }
  const metrics: Metrics = { idealAccuracy: judging(ideal) };
  for (const [i, streamLength] of streamLengths.entries()) {
    const own = outcomes.slice(
      i * grayZones.length,
      (i + 1) * grayZones.length,
    );
    const chosen = own.map(choosing);
    const best = chosen.indexOf(Math.max(...chosen));
    const costs = sets.map((set) =>
      inferenceEnergy(network, {
        ...ASSUMPTION_SETS[set],
        crossbarSize,
        streamLength,
      })
    );
    const at = `L${streamLength}`;
    metrics[`accuracy${at}`] = own.map((labels) =>
      100 * accuracy(labels, testSet.labels)
    );
    metrics[`bestGrayZone${at}`] = grayZones[best];
    metrics[`bestAccuracy${at}`] = judging(own[best]);
    metrics[`gap${at}`] = judging(own[best]) - judging(ideal);
    metrics[`choosingGap${at}`] = chosen[best] - choosing(ideal);
    metrics[`energyJ${at}`] = costs.map((cost) => cost.energyPerInferenceJ);
    metrics[`latencyPs${at}`] = costs[0].latencyPs;
    metrics.jj = costs[0].totalJj;
    metrics.operations = costs[0].opsPerInference;
    metrics.areaMm2 = costs[0].areaMm2;
    if (approximate) {
      const { labels } = simulate(network, bits, {
        crossbarSize,
        grayZone: grayZones[best],
        streamLength,
        counter: "approximate",
        key: fold(fold(key, "approximate"), streamLength),
      });
      metrics[`approximate${at}`] = judging(labels);
    }
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

/** By the kind of the arm. */
export const RUNS: Record<
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
