/**
 * The forward pass in training: one network whose activation, batch normalisation and weights are arguments.
 *
 * SupeRBNN: Z. Li et al., MICRO 2023, arXiv 2309.12212; batch normalisation: arXiv 1502.03167; weight
 * rectified clamp: clamp.ts. The methods that are compared differ in nothing but these arguments.
 *
 * B images, R = B times positions rows, K tiles.
 */
import type { Images } from "../core/images.ts";
import { matmul } from "../core/nn.ts";
import { fold, type Key } from "../core/rng.ts";
import { type Tensor, tf, type Variable } from "../core/tensor.ts";
import type { Plan } from "./architectures.ts";
import { rectifiedClamp } from "./clamp.ts";
import {
  type Gather,
  gatherTiles,
  maxPool,
  signSte,
  tileWeights,
} from "./layers.ts";
import { encodeImages, type InputEncoding, streamGain } from "./network.ts";
import { streamLayer } from "./stream-layer.ts";

/** How a hidden neuron fires. */
export type Activation = "relu" | "sign-ste" | "stochastic";

/** A method of training, and the hardware that it is for: what the arms of a comparison differ in. */
export interface MethodOptions {
  /** "relu" has real weights and inputs: the float baseline; default "sign-ste". */
  activation: Activation;
  /** Latent weights clipped to [-1, 1], or standardised and clamped as in ReCU; default "clip". */
  weights: "clip" | "recu";
  /**
   * Stochastic: batch normalisation inside the device, as a threshold V_th / K of every tile ("matched"), or
   * behind the decoded sum ("decoded"), where deployment has to match it afterwards; default "matched".
   */
  batchNorm: "matched" | "decoded";
  /** Cs; default 16. */
  crossbarSize: number;
  /** Delta V in units of the sum, above 0; default 8. */
  grayZone: number;
  /** L; default 8. */
  streamLength: number;
  /**
   * Stochastic and matched: gradient of the comparison by the expectation, or straight through where the
   * decoded sum lies within one standard deviation of V; default "straight-through", with which one epoch on
   * 20,000 Fashion-MNIST images came 3 points further (Cs 16, gray zone 4, L 8).
   */
  comparator: "expectation" | "straight-through";
}

/** True if batch normalisation is a threshold inside the device. */
export function isMatched(
  { activation, batchNorm }: Pick<MethodOptions, "activation" | "batchNorm">,
): boolean {
  return activation === "stochastic" && batchNorm === "matched";
}

/** Added to the variance; of the sum, which is an integer. */
export const BN_EPS = 1e-3;

export interface LayerParams {
  weight: Variable; // [out, fanIn]
  gamma: Variable; // [out]
  beta: Variable; // [out]
}

/** Statistics of the sums of one layer. */
export interface Moments {
  mean: Tensor; // [out]
  variance: Tensor; // [out]
}

export interface ForwardContext {
  options: MethodOptions;
  /** ReCU's tau. */
  tau: number;
  key: Key;
  /** Statistics to use; those of the batch if absent. */
  stats?: Moments[];
  /** Told of the statistics of the batch. */
  onMoments?: (layer: number, moments: Moments) => void;
}

/** The weights that the sums are made with. */
export function effectiveWeight(
  latent: Tensor,
  context: ForwardContext,
): Tensor {
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
export function forward(
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
export function inputTensor(
  { count, images }: Images,
  encoding: InputEncoding,
  activation: Activation,
): Tensor {
  const values = activation === "relu"
    ? Float32Array.from(images, (v) => v / 127.5 - 1)
    : Float32Array.from(encodeImages(encoding, images));
  return tf.tensor2d(values, [count, values.length / count]);
}
