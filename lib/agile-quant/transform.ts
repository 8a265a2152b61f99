/**
 * Changes to a model that leave its function as it is and its quantisation not: factors of channels move between
 * a norm's gain and the weights that read the norm.
 *
 *     (x_c g_c) w_c = (x_c g_c / t_c) (t_c w_c)
 *
 * - SmoothQuant (G. Xiao et al., arXiv 2211.10438, Eq. 4) takes t_c = max|X_c|^a / max|W_c|^(1 - a), a = 0.5: what is
 *   hard about an activation's outliers goes to the weights.
 * - The outlier test goes the other way, t_c = 2^-k for a few channels: exact in floating point, as 2^k is.
 *
 * | symbol | identifier | shape |
 * | --- | --- | --- |
 * | X_c | range | [C], largest |x| over a calibration set |
 * | W_c | columns | [C], largest |w| of all layers that read the channel |
 * | t_c | factors | [C] |
 *
 * Scope: both norms of a block, whose readers are linear layers.
 */
import {
  type LlamaConfig,
  type LlamaParams,
  nestParams,
} from "../core/llama.ts";
import { fold, type Key, permutation } from "../core/rng.ts";
import { flatten, type Tensor, tf } from "../core/tensor.ts";
import type { ChannelRange } from "./activation.ts";

/** A norm's gain, the layers that read it, and its site. */
interface NormReaders {
  norm: string;
  readers: string[];
  site: string;
}

/** Both norms of each block. */
export function normReaders({ numLayers }: LlamaConfig): NormReaders[] {
  return Array.from({ length: numLayers }, (_, i) => {
    const layer = `model.layers.${i}`;
    const of = (part: string, names: string[]) =>
      names.map((name) => `${layer}.${part}.${name}_proj.weight`);
    return [
      {
        norm: `${layer}.input_layernorm.weight`,
        readers: of("self_attn", ["q", "k", "v"]),
        site: `${layer}.norm`,
      },
      {
        norm: `${layer}.post_attention_layernorm.weight`,
        readers: of("mlp", ["gate", "up"]),
        site: `${layer}.mlp`,
      },
    ];
  }).flat();
}

/** The model whose norm outputs are divided by the factors and whose readers' columns are multiplied by them. */
export function moveFactors(
  params: LlamaParams,
  config: LlamaConfig,
  factorsOf: (
    readers: NormReaders,
    named: Record<string, Tensor>,
  ) => Float32Array,
): LlamaParams {
  const named: Record<string, Tensor> = { ...flatten(params) };
  for (const part of normReaders(config)) {
    const factors = tf.tensor1d(factorsOf(part, named));
    named[part.norm] = tf.tidy(() => named[part.norm].div(factors));
    for (const reader of part.readers) {
      named[reader] = tf.tidy(() => named[reader].mul(factors));
    }
    factors.dispose();
  }
  return nestParams(named);
}

/** t_c = max|X_c|^a / max|W_c|^(1 - a); 1 where either is 0. */
export function smoothFactors(
  range: Float32Array,
  columns: Float32Array,
  alpha = 0.5,
): Float32Array {
  return range.map((x, c) => {
    const t = x ** alpha / columns[c] ** (1 - alpha);
    return t > 0 && Number.isFinite(t) ? t : 1;
  });
}

/** The greatest |w| in each column over several matrices [out, C]. */
export function columnMaxima(weights: Tensor[]): Float32Array {
  return tf.tidy(() =>
    tf.stack(weights.map((w) => w.abs().max(0))).max(0)
      .dataSync() as Float32Array
  ).slice();
}

/**
 * SmoothQuant: the model with each norm's channels divided by t_c and the weights behind multiplied by it.
 *
 * @param ranges of the norms' sites, see `siteRanges`
 * @param alpha share of the difficulty that goes to the weights; default 0.5, the authors'
 */
export function smooth(
  params: LlamaParams,
  config: LlamaConfig,
  ranges: Record<string, ChannelRange>,
  { alpha = 0.5 }: { alpha?: number } = {},
): LlamaParams {
  if (!(alpha >= 0 && alpha <= 1)) {
    throw new RangeError(
      `Cannot smooth as alpha must be from 0 to 1: alpha ${alpha}`,
    );
  }
  return moveFactors(params, config, ({ site, readers }, named) => {
    const found = ranges[site];
    const channels = named[readers[0]].shape[1];
    if (found?.low.length !== channels || found.high.length !== channels) {
      throw new RangeError(
        `Cannot smooth as ${site} must have a range for each of ${channels} channels: ${
          found?.high.length ?? "none"
        }`,
      );
    }
    const { low, high } = found;
    const range = high.map((h, c) => Math.max(h, -low[c]));
    return smoothFactors(
      range,
      columnMaxima(readers.map((name) => named[name])),
      alpha,
    );
  });
}

/**
 * The model with `channels` channels of each norm made 2^exponent times as large, and the weights that read them
 * as much smaller: the same function, bit for bit, with outliers in its activations.
 *
 * @param key chooses the channels, others for each norm
 */
export function addOutliers(
  params: LlamaParams,
  config: LlamaConfig,
  { exponent, channels = 1, key }: {
    exponent: number;
    channels?: number;
    key: Key;
  },
): LlamaParams {
  if (!Number.isInteger(exponent) || exponent < 0 || exponent > 20) {
    throw new RangeError(
      `Cannot add outliers as the exponent must be a whole number from 0 to 20: ${exponent}`,
    );
  }
  return moveFactors(params, config, ({ norm }, named) => {
    const C = named[norm].size;
    const factors = new Float32Array(C).fill(1);
    for (const c of permutation(fold(key, norm), C).slice(0, channels)) {
      factors[c] = 2 ** -exponent;
    }
    return factors;
  });
}
