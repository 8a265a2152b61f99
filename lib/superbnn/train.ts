/**
 * Training of binary networks for AQFP crossbars: deterministic, randomised-aware, and a float baseline.
 *
 * SupeRBNN: Z. Li et al., MICRO 2023, arXiv 2309.12212. Binary weights with a straight-through gradient:
 * I. Hubara et al., "Binarized Neural Networks", NeurIPS 2016, arXiv 1602.02830. Weight rectified clamp:
 * clamp.ts. Batch normalisation: arXiv 1502.03167.
 *
 * | what | where |
 * | --- | --- |
 * | shapes of networks, inputs | architectures.ts |
 * | operations of a layer | layers.ts |
 * | stochastic sums | stream-layer.ts |
 * | methods, the forward pass | forward.ts |
 * | from model to device | deploy.ts |
 *
 * Scope: the loop, the statistics of inference, evaluation. Training details of the paper (epochs, learning
 * rates) were not available: defaults are our choice.
 */
import { augment, type Images, pickImages } from "../core/images.ts";
import { crossEntropy } from "../core/nn.ts";
import { adamW, cosine } from "../core/optim.ts";
import { fold, type Key, permutation, uniform } from "../core/rng.ts";
import {
  type ParamTree,
  tf,
  valueAndGrads,
  type Variable,
} from "../core/tensor.ts";
import { type LayerSpec, type Plan, planOf } from "./architectures.ts";
import { tauAt } from "./clamp.ts";
import {
  effectiveWeight,
  forward,
  type ForwardContext,
  inputTensor,
  isMatched,
  type LayerParams,
  type MethodOptions,
} from "./forward.ts";
import { argmax, type InputEncoding } from "./network.ts";

export {
  type LayerSpec,
  meanEncoding,
  mlp,
  thermometerEncoding,
  vggSmall,
} from "./architectures.ts";
export { checkDeployment, toNetwork } from "./deploy.ts";
export { type Activation, BN_EPS } from "./forward.ts";
export { signSte } from "./layers.ts";
export {
  comparatorSlope,
  comparatorSpread,
  singleTileSlope,
  streamLayer,
  type StreamSettings,
} from "./stream-layer.ts";

export interface TrainOptions extends Partial<MethodOptions> {
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

/** Half width of the first latent weights (our choice: small, so that they can turn early). */
const LATENT_INIT = 0.1;

/** Images, at most, whose sums give the statistics of inference. */
const CALIBRATION_IMAGES = 10_000;
const CALIBRATION_BATCH = 500;

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
          options,
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
  options: ResolvedOptions,
  context: ForwardContext,
): number {
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
