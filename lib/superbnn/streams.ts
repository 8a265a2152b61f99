/**
 * Baseline: a binary network in pure stochastic computing, with number generators and no random device.
 *
 * Inputs are bipolar streams: a value x of -1 ... 1 is a 1 with chance (x + 1) / 2 in every cycle, drawn
 * by a generator of its own. Products are XNORs of streams and weights; each neuron adds its products of a
 * cycle exactly and compares with its threshold, so streams enter and streams leave; the last layer
 * accumulates its sums over the cycles. As in SC-AQFP (Cai et al., ISCA 2019) randomness is made beside the
 * logic, here per input and with comparators (`streamGeneratorJj`), there in the devices themselves.
 *
 * Scope: no tiles (a counter sees the whole fan-in), no gray zone. Inputs of -1 and +1 only give the exact
 * network in one cycle: then there is nothing left to be random.
 */
import { fold, type Key, uniform } from "../core/rng.ts";
import { checkStreamLength } from "./binomial.ts";
import {
  argmax,
  type BinaryNetwork,
  inputBits,
  layerSizes,
} from "./network.ts";
import { simulate, type Simulation } from "./simulate.ts";

/** A crossbar larger than any fan-in. */
const WHOLE_FAN_IN = 2 ** 30;

export interface StreamOptions {
  /** L. Default 16, ours. */
  streamLength?: number;
  /**
   * `independent`: a generator for every input. `shared`: one random number per image and cycle for all
   * inputs, cheap, but its errors add up instead of averaging out. Default `"independent"`.
   */
  generators?: "independent" | "shared";
  key: Key;
}

/**
 * Scores and labels of images given as values.
 *
 * score_k = (1 / L) sum_t (scale_k V_k(t) + offset_k)
 *
 * @param values [N, inputs], -1 to 1
 * @throws RangeError for values outside, or not a whole number of images
 */
export function simulateStreams(
  network: BinaryNetwork,
  values: Float32Array | Float64Array,
  { streamLength = 16, generators = "independent", key }: StreamOptions,
): Omit<Simulation, "grayZone"> {
  checkStreamLength(streamLength);
  const bad = values.findIndex((x) => !(x >= -1 && x <= 1));
  if (bad >= 0) {
    throw new RangeError(
      `Cannot make streams as values must be from -1 to 1: value ${bad} is ${
        values[bad]
      }`,
    );
  }
  if (generators !== "independent" && generators !== "shared") {
    throw new RangeError(
      `Cannot make streams as generators must be "independent" or "shared": ${generators}`,
    );
  }
  const width = inputBits(network);
  const bits = new Int8Array(values.length);
  let scores = new Float64Array(0);
  for (let t = 0; t < streamLength; t++) {
    const cycle = fold(key, t);
    const shared = generators === "shared";
    const draws = uniform(cycle, shared ? values.length / width : bits.length);
    for (let i = 0; i < bits.length; i++) {
      const u = draws[shared ? Math.floor(i / width) : i];
      bits[i] = 2 * u < values[i] + 1 ? 1 : -1;
    }
    // One tile, no gray zone, exact sums: the logic between the generators has no randomness.
    const one = simulate(network, bits, {
      crossbarSize: WHOLE_FAN_IN,
      grayZone: 0,
      streamLength: 1,
      ties: "low",
      scores: "exact",
      key: cycle,
    });
    if (t === 0) scores = new Float64Array(one.scores.length);
    one.scores.forEach((score, i) => scores[i] += score / streamLength);
  }
  const classes = layerSizes(network.layers[network.layers.length - 1]).outputs;
  const labels = Uint8Array.from(
    { length: scores.length / classes },
    (_, i) => argmax(scores.subarray(i * classes, (i + 1) * classes)),
  );
  return { scores, labels };
}
