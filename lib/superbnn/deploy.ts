/**
 * From a trained model to the network that is deployed, with the proof that both decide alike.
 *
 * SupeRBNN: Z. Li et al., MICRO 2023, arXiv 2309.12212; batch-norm.ts has the equation of the matching.
 */
import { planOf } from "./architectures.ts";
import {
  type BatchNorm,
  checkMatching,
  matchBatchNorm,
  type MatchedNeuron,
  type MatchingReport,
} from "./batch-norm.ts";
import { BN_EPS, isMatched } from "./forward.ts";
import { type BinaryNetwork, checkNetwork, type Layer } from "./network.ts";
import type { TrainedLayer, TrainedModel } from "./train.ts";

/** The batch normalisations of a layer's neurons, whose gamma is 1 where they were trained as thresholds. */
function batchNorms(
  { gamma, beta, mean, variance }: TrainedLayer,
  matched: boolean,
): BatchNorm[] {
  return Array.from(beta, (b, j) => ({
    gamma: matched ? 1 : gamma[j],
    beta: b,
    mean: mean[j],
    variance: variance[j],
    eps: BN_EPS,
  }));
}

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
      const norms = batchNorms(layer, matched);
      const thresholds = Float64Array.from(norms, (norm, j) => {
        const { flip, threshold } = matchBatchNorm(norm, { fanIn });
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

/** Of a deployed neuron, whether its weights are turned; null if they are neither the trained ones nor those turned. */
function turned(deployed: Int8Array, trained: Float32Array): boolean | null {
  const side = deployed[0] * trained[0];
  const consistent = deployed.every((w, i) => w === side * trained[i]);
  return consistent ? side < 0 : null;
}

/**
 * Compares a deployed network with the model that it was made of, for every sum that a neuron can have.
 *
 * The verifier of `toNetwork`: weights must be the trained ones, or all of them turned, and the threshold must
 * decide as batch normalisation and sign do (`checkMatching`).
 *
 * @param model as trained, binary
 * @param network what `toNetwork` made of it, perhaps written and read since
 * @returns sums compared and agreeing over all layers with thresholds, and what is wrong by layer and neuron
 * @throws {RangeError} if the layers are not those of the model
 * @example
 * ```ts
 * const { agreeing, compared, failures } = checkDeployment(model, toNetwork(model));
 * ```
 */
export function checkDeployment(
  model: TrainedModel,
  network: BinaryNetwork,
): MatchingReport {
  const matched = isMatched(model.options);
  const weighted = network.layers.filter(({ kind }) => kind !== "pool");
  const total: MatchingReport = { compared: 0, agreeing: 0, failures: [] };
  if (weighted.length !== model.layers.length) {
    throw new RangeError(
      `Cannot check the deployment as the network must have the layers of the model: ${weighted.length} with weights, the model ${model.layers.length}`,
    );
  }
  weighted.forEach((layer, i) => {
    if (layer.kind === "pool" || layer.kind === "scores") return;
    const trained = model.layers[i];
    const { weights, thresholds } = layer;
    const name = `layer ${network.layers.indexOf(layer)} (${layer.kind})`;
    if (
      weights.length !== trained.weight.length ||
      thresholds.length !== trained.beta.length
    ) {
      throw new RangeError(
        `Cannot check the deployment as ${name} must have ${trained.beta.length} neurons and ${trained.weight.length} weights: ${thresholds.length}, ${weights.length}`,
      );
    }
    const fanIn = weights.length / thresholds.length;
    const norms = batchNorms(trained, matched);
    const neurons: MatchedNeuron[] = [];
    const intact = norms.filter((_, j) => {
      const range = [j * fanIn, (j + 1) * fanIn];
      const flip = turned(
        weights.subarray(...range),
        trained.weight.subarray(...range),
      );
      if (flip === null) {
        total.compared += fanIn + 1;
        total.failures.push(
          `${name}, neuron ${j}: weights are neither the trained ones nor those turned`,
        );
      } else neurons.push({ flip, threshold: thresholds[j] });
      return flip !== null;
    });
    const report = checkMatching(intact, neurons, { fanIn, name });
    total.compared += report.compared;
    total.agreeing += report.agreeing;
    total.failures.push(...report.failures);
  });
  return total;
}
