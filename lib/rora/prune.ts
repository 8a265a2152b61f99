/**
 * Structured pruning of a LLaMA model to a smaller plain LLaMA model.
 *
 * - RoRA (arXiv 2501.04315) fine-tunes SHEARED-LLAMA-1.3, "a LLaMA-7B with 81.4% pruning"; it does not prune itself.
 * - Target shape: Xia et al., "Sheared LLaMA", arXiv 2310.06694.
 * - Taylor importance: Molchanov et al., arXiv 1611.06440; summed over coupled weights as in LLM-Pruner,
 *   Ma et al., arXiv 2305.11627.
 * - Activation importance: Minitron, Muralidharan et al., arXiv 2407.14679; of layers, the block influence
 *   of ShortGPT, Men et al., arXiv 2403.03853.
 *
 * Whole parts go: layers, attention heads with their slices of q, k, v and o, channels of the
 * feed-forward layer, and coordinates of the residual stream, which are the same ones in every matrix
 * of the model. What remains is an ordinary model of a smaller shape, faster without any sparse kernel.
 *
 * | symbol | identifier | meaning |
 * | --- | --- | --- |
 * | D, D' | hiddenSize | width of the residual stream before and after |
 * | L, H, G, F | numLayers, numHeads, numKvHeads, intermediateSize | other sizes |
 * | Dh | headDim | width of a head; never changed |
 * | rho | keptShare | share of the residual stream's energy in the kept coordinates, per norm |
 *
 * Scope: one pass of scores on the dense model, then one cut. Sheared-LLaMA instead learns masks over
 * 0.4 B tokens and then continues pretraining: our pruned model is a rougher start.
 */
import {
  flatten,
  type ParamTree,
  type Tensor,
  tf,
  valueAndGrads,
} from "../core/tensor.ts";
import {
  hiddenStates,
  type LlamaConfig,
  type LlamaParams,
  loss,
  nestParams,
  parameterShapes,
  resolveConfig,
} from "../core/llama.ts";
import { fold, type Key, uniform } from "../core/rng.ts";

/** The sizes that pruning changes. */
export interface TargetShape {
  numLayers: number;
  numHeads: number;
  numKvHeads: number;
  intermediateSize: number;
  hiddenSize: number;
}

/**
 * How parts are ranked: `"taylor"` |w dL/dw|, `"activation"` the energy that flows through, and two
 * baselines, `"magnitude"` w^2 and `"random"`.
 */
export type Importance = "taylor" | "activation" | "magnitude" | "random";

export interface PruneOptions {
  /** Default "taylor". */
  importance?: Importance;
  /**
   * Calibration text, int32 [B, T + 1] each; required by "taylor" and "activation". With any
   * importance it also serves to correct the norms (see `prune`).
   */
  batches?: readonly Tensor[];
  /** Required by "random". */
  key?: Key;
}

/** A score per part: what is small may go. */
export interface Scores {
  layers: Float64Array; // [L]
  hidden: Float64Array; // [D]
  heads: Float64Array[]; // L x [H]
  kvHeads: Float64Array[]; // L x [G]
  channels: Float64Array[]; // L x [F]
}

/** The parts that stay, as ascending indices into the dense model. */
export interface KeptParts {
  layers: number[];
  hidden: number[];
  /** Per layer of the dense model. */
  heads: number[][];
  kvHeads: number[][];
  channels: number[][];
}

export interface PrunedModel {
  params: LlamaParams;
  config: LlamaConfig;
  kept: KeptParts;
  /** Share of the parameters that is gone, from 0 to 1. */
  prunedFraction: number;
}

/** What is counted along one axis of a parameter. */
type Axis = "vocabulary" | "hidden" | "heads" | "kvHeads" | "channels";

/** The one table that couples parameters: scoring and cutting both read it. */
const AXES: Record<string, Axis[]> = {
  "model.embed_tokens.weight": ["vocabulary", "hidden"],
  "self_attn.q_proj.weight": ["heads", "hidden"],
  "self_attn.k_proj.weight": ["kvHeads", "hidden"],
  "self_attn.v_proj.weight": ["kvHeads", "hidden"],
  "self_attn.o_proj.weight": ["hidden", "heads"],
  "self_attn.q_proj.bias": ["heads"],
  "self_attn.k_proj.bias": ["kvHeads"],
  "self_attn.v_proj.bias": ["kvHeads"],
  "self_attn.o_proj.bias": ["hidden"],
  "mlp.gate_proj.weight": ["channels", "hidden"],
  "mlp.up_proj.weight": ["channels", "hidden"],
  "mlp.down_proj.weight": ["hidden", "channels"],
  "mlp.gate_proj.bias": ["channels"],
  "mlp.up_proj.bias": ["channels"],
  "mlp.down_proj.bias": ["hidden"],
  "input_layernorm.weight": ["hidden"],
  "post_attention_layernorm.weight": ["hidden"],
  "model.norm.weight": ["hidden"],
  "lm_head.weight": ["vocabulary", "hidden"],
};

/** Layer, null outside the layers, and axes of a parameter. */
function describe(name: string): { layer: number | null; axes: Axis[] } {
  const match = /^model\.layers\.(\d+)\.(.+)$/.exec(name);
  return match === null
    ? { layer: null, axes: AXES[name] }
    : { layer: Number(match[1]), axes: AXES[match[2]] };
}

// Sizes -------------------------------------------------------------------------------------------

/** Number of parameters of a model of this shape. */
export function modelSize(config: LlamaConfig): number {
  return Object.values(parameterShapes(config)).reduce(
    (sum, shape) => sum + shape.reduce((a, b) => a * b, 1),
    0,
  );
}

/** Share of the parameters that pruning one shape to the other removes, from 0 to 1. */
export function prunedFraction(
  dense: LlamaConfig,
  pruned: LlamaConfig,
): number {
  return 1 - modelSize(pruned) / modelSize(dense);
}

/** The configuration of the pruned model; the head width stays. */
function prunedConfig(config: LlamaConfig, target: TargetShape): LlamaConfig {
  const { headDim, hiddenSize, rmsNormEps } = resolveConfig(config);
  const { numLayers, numHeads, numKvHeads, intermediateSize } = target;
  return {
    ...config,
    numLayers,
    numHeads,
    numKvHeads,
    intermediateSize,
    hiddenSize: target.hiddenSize,
    headDim,
    // The mean of the norms runs over D' instead of D numbers, so that eps grows with them.
    rmsNormEps: rmsNormEps * (hiddenSize / target.hiddenSize),
  };
}

/**
 * Shares of Sheared-LLaMA-1.3B in LLaMA-2-7B: 24 of 32 layers, width 2048 of 4096, 16 of 32 heads,
 * 5504 of 11008 channels (recalled from the released configurations, not re-read).
 */
const SHEARED_SHARES = { layers: 0.75, heads: 0.5, channels: 0.5, hidden: 0.5 };

/** A shape counts as being at the wanted fraction within this distance. */
const FRACTION_TOLERANCE = 0.002;

/**
 * The shape that removes nearly a given fraction of the parameters and is otherwise as close as
 * possible to the proportions of Sheared-LLaMA (3/4 of the layers, 1/2 of everything else).
 *
 * @param fraction From 0 to below 1; default 0.814, the paper's (abstract). The embedding counts.
 * @param step Widths are multiples of it; default 8
 */
export function targetShape(
  config: LlamaConfig,
  { fraction = 0.814, step = 8 }: { fraction?: number; step?: number } = {},
): TargetShape {
  if (!(fraction >= 0 && fraction < 1)) {
    throw new RangeError(
      `Cannot choose a shape as fraction must be from 0 to below 1: fraction ${fraction}`,
    );
  }
  const dense = resolveConfig(config);
  const {
    numLayers: L,
    numHeads: H,
    numKvHeads: G,
    intermediateSize: F,
    hiddenSize: D,
  } = dense;
  const total = modelSize(config);
  // Coarser for wide models: at most 128 widths are tried.
  const widths = (size: number) => {
    const stride = Math.min(size, Math.ceil(size / 128 / step) * step);
    const count = Math.floor(size / stride);
    return Array.from({ length: count }, (_, i) => size - i * stride);
  };
  const penalty = (value: number, size: number, share: number) =>
    Math.log(value / size / share) ** 2;
  let best = { error: Infinity, distance: Infinity, shape: {} as TargetShape };
  for (let numHeads = 1; numHeads <= H; numHeads++) {
    if ((numHeads * G) % H !== 0) continue;
    const numKvHeads = numHeads * G / H;
    for (const hiddenSize of widths(D)) {
      // The size is affine in the layers, and that of a layer in its channels: three counts give all.
      const count = (layers: number, channels: number) =>
        modelSize({
          ...dense,
          numHeads,
          numKvHeads,
          hiddenSize,
          intermediateSize: channels,
          numLayers: layers,
        });
      const smallest = count(1, 1);
      const perLayer = count(2, 1) - smallest;
      const perChannel = count(1, 2) - smallest;
      for (const intermediateSize of widths(F)) {
        const shape = { numHeads, numKvHeads, hiddenSize, intermediateSize };
        const oneLayer = perLayer + (intermediateSize - 1) * perChannel;
        for (let numLayers = 1; numLayers <= L; numLayers++) {
          const size = smallest - perLayer + numLayers * oneLayer;
          const off = Math.abs(1 - size / total - fraction);
          const error = off <= FRACTION_TOLERANCE ? 0 : off;
          if (error > best.error) continue;
          const distance = penalty(numLayers, L, SHEARED_SHARES.layers) +
            penalty(numHeads, H, SHEARED_SHARES.heads) +
            penalty(intermediateSize, F, SHEARED_SHARES.channels) +
            penalty(hiddenSize, D, SHEARED_SHARES.hidden);
          if (error < best.error || distance < best.distance) {
            best = { error, distance, shape: { ...shape, numLayers } };
          }
        }
      }
    }
  }
  return best.shape;
}

/** Throws unless the target is a smaller or equal shape that grouped-query attention allows. */
function checkTarget(config: LlamaConfig, target: TargetShape): void {
  const dense = resolveConfig(config);
  const sizes = [
    "numLayers",
    "numHeads",
    "numKvHeads",
    "intermediateSize",
    "hiddenSize",
  ] as const;
  for (const size of sizes) {
    const value = target[size];
    if (!Number.isInteger(value) || value < 1 || value > dense[size]) {
      throw new RangeError(
        `Cannot prune as ${size} must be an integer from 1 to ${
          dense[size]
        }: ${size} ${value}`,
      );
    }
  }
  const { numHeads, numKvHeads } = target;
  const group = dense.numHeads / dense.numKvHeads;
  if (numHeads % numKvHeads !== 0 || numHeads / numKvHeads > group) {
    throw new RangeError(
      `Cannot prune as numHeads must be a multiple of numKvHeads, at most ${group} times it: ` +
        `numHeads ${numHeads}, numKvHeads ${numKvHeads}`,
    );
  }
}

// Scores ------------------------------------------------------------------------------------------

function zeroScores(config: LlamaConfig): Scores {
  const {
    numLayers: L,
    numHeads: H,
    numKvHeads: G,
    intermediateSize: F,
    hiddenSize: D,
  } = resolveConfig(config);
  const perLayer = (size: number) =>
    Array.from({ length: L }, () => new Float64Array(size));
  return {
    layers: new Float64Array(L),
    hidden: new Float64Array(D),
    heads: perLayer(H),
    kvHeads: perLayer(G),
    channels: perLayer(F),
  };
}

/** The scores of the parts along an axis, null for the vocabulary. */
function along(
  scores: Scores,
  axis: Axis,
  layer: number | null,
): Float64Array | null {
  if (axis === "vocabulary") return null;
  return axis === "hidden" ? scores.hidden : scores[axis][layer!];
}

/** Adds values to parts; several neighbouring values may belong to one part, as Dh rows to a head. */
function addTo(parts: Float64Array, values: ArrayLike<number>): void {
  const each = values.length / parts.length;
  for (let i = 0; i < values.length; i++) {
    parts[Math.floor(i / each)] += values[i];
  }
}

/** Adds a score per weight to every part that the weight belongs to, and to its layer. */
function addWeightScores(
  scores: Scores,
  weightScores: Record<string, Tensor>,
): void {
  for (const [name, values] of Object.entries(weightScores)) {
    const { layer, axes } = describe(name);
    axes.forEach((axis, i) => {
      const parts = along(scores, axis, layer);
      if (parts === null) return;
      const others = axes.map((_, j) => j).filter((j) => j !== i);
      const sums = tf.tidy(() => tf.sum(values, others).dataSync());
      addTo(parts, sums);
    });
    if (layer !== null) {
      scores.layers[layer] += tf.tidy(() => tf.sum(values).dataSync()[0]);
    }
  }
}

/**
 * First-order Taylor importance: the sum over a part's weights of |w dL/dw|, with L the loss of each
 * calibration batch in turn.
 *
 * |L(w = 0) - L(w)| ~ |w dL/dw|    (arXiv 1611.06440, section 2.2)
 */
function taylorScores(
  params: LlamaParams,
  config: LlamaConfig,
  batches: readonly Tensor[],
): Scores {
  const scores = zeroScores(config);
  // Variables on the same memory, as the model may hold plain tensors.
  const variables = Object.fromEntries(
    Object.entries(flatten(params as ParamTree)).map((
      [name, tensor],
    ) => [name, tf.variable(tensor)]),
  );
  const tree = nestParams(variables);
  try {
    for (const ids of batches) {
      tf.tidy(() => {
        const { grads } = valueAndGrads(
          () => loss(tree, config, ids),
          tree as ParamTree,
        );
        addWeightScores(
          scores,
          Object.fromEntries(
            Object.entries(grads).map((
              [name, grad],
            ) => [name, tf.abs(tf.mul(grad, variables[name]))]),
          ),
        );
      });
    }
  } finally {
    tf.dispose(variables);
  }
  return scores;
}

/** Magnitude importance: the sum over a part's weights of w^2. */
function magnitudeScores(params: LlamaParams, config: LlamaConfig): Scores {
  const scores = zeroScores(config);
  for (const [name, weight] of Object.entries(flatten(params as ParamTree))) {
    tf.tidy(() => addWeightScores(scores, { [name]: tf.square(weight) }));
  }
  return scores;
}

/** Independent uniform scores: the baseline that knows nothing. */
function randomScores(config: LlamaConfig, key: Key): Scores {
  const { layers, hidden, heads, kvHeads, channels } = zeroScores(config);
  const draw = (name: string, { length }: Float64Array) =>
    Float64Array.from(uniform(fold(key, name), length));
  return {
    layers: draw("layers", layers),
    hidden: draw("hidden", hidden),
    heads: heads.map((parts, i) => draw(`heads ${i}`, parts)),
    kvHeads: kvHeads.map((parts, i) => draw(`kvHeads ${i}`, parts)),
    channels: channels.map((parts, i) => draw(`channels ${i}`, parts)),
  };
}

/** What calibration text shows of a dense model. */
interface Calibration {
  /** Activation importance. */
  scores: Scores;
  /** By norm, mean square of each coordinate of its input, relative to the token's mean square. */
  energies: Record<string, Float64Array>; // [D]
}

/** Sum over tokens of the squares of each of the last axis's coordinates. */
function squareSums(x: Tensor): ArrayLike<number> {
  return tf.tidy(() => tf.sum(tf.square(x), [0, 1]).dataSync());
}

/** Sum over tokens of the cosine between two states. */
function cosineSum(x: Tensor, y: Tensor): number {
  return tf.tidy(() => {
    const dot = tf.sum(tf.mul(x, y), -1); // [B, T]
    const lengths = tf.mul(tf.norm(x, 2, -1), tf.norm(y, 2, -1)); // [B, T]
    return tf.sum(tf.divNoNan(dot, lengths)).dataSync()[0];
  });
}

/**
 * Activation importance, summed over calibration tokens: of a channel and of a head the square of what it
 * hands on, of a coordinate the squares of the normed states, of a layer 1 - cos(state before, state after).
 */
function calibrate(
  params: LlamaParams,
  config: LlamaConfig,
  batches: readonly Tensor[],
): Calibration {
  const scores = zeroScores(config);
  const energies: Record<string, Float64Array> = {};
  const weights = flatten(params as ParamTree);

  /** The input of a linear layer is the output of a norm: without the norm's weight, x / rms(x). */
  const addNormed = (norm: string, normed: Tensor) => {
    const sums = squareSums(normed);
    addTo(scores.hidden, sums);
    const scale = weights[`${norm}.weight`].dataSync();
    energies[norm] ??= new Float64Array(sums.length);
    for (let d = 0; d < sums.length; d++) {
      // A coordinate that the norm itself removes is unknown here, and counts as empty.
      if (scale[d] !== 0) energies[norm][d] += sums[d] / scale[d] ** 2;
    }
  };

  for (const ids of batches) {
    const [B, length] = ids.shape as [number, number];
    let before: Tensor | null = null;
    const onActivation = (name: string, value: Tensor) => {
      const match = /^model\.layers\.(\d+)\.(.+)$/.exec(name);
      const layer = Number(match?.[1]);
      const place = match?.[2] ?? name;
      if (place === "self_attn.q_proj.input") {
        addNormed(`model.layers.${layer}.input_layernorm`, value);
      } else if (place === "mlp.gate_proj.input") {
        addNormed(`model.layers.${layer}.post_attention_layernorm`, value);
      } else if (place === "model.norm.output") {
        addNormed("model.norm", value);
      } else if (place === "self_attn.o_proj.input") {
        addTo(scores.heads[layer], squareSums(value));
      } else if (place === "mlp.down_proj.input") {
        addTo(scores.channels[layer], squareSums(value));
      } else if (place === "output" || place === "model.embed_tokens.output") {
        if (before !== null) {
          const tokens = B * (length - 1);
          scores.layers[layer] += tokens - cosineSum(before, value);
          before.dispose();
        }
        before = tf.keep(value.clone());
      }
    };
    tf.tidy(() => {
      const inputs = tf.slice(ids, [0, 0], [B, length - 1]); // [B, T]
      hiddenStates(params, config, inputs, { onActivation });
    });
    tf.dispose(before ?? []);
  }
  return { scores, energies };
}

// Choosing ----------------------------------------------------------------------------------------

/** The indices of the largest scores, ascending; of equal scores the first. */
function largest(scores: ArrayLike<number>, count: number): number[] {
  const bad = Array.from(scores).findIndex((score) => !Number.isFinite(score));
  if (bad >= 0) {
    throw new RangeError(
      `Cannot rank the parts as every score must be finite: score ${
        scores[bad]
      } of part ${bad}`,
    );
  }
  return Array.from(scores, (_, i) => i)
    .sort((a, b) => scores[b] - scores[a] || a - b)
    .slice(0, count)
    .sort((a, b) => a - b);
}

/**
 * The best parts for a target shape.
 *
 * With grouped queries the best groups stay (by the score of their key and value head and of their best
 * query heads), and in each the best query heads, as many in one group as in another.
 */
export function selectParts(
  scores: Scores,
  config: LlamaConfig,
  target: TargetShape,
): KeptParts {
  checkTarget(config, target);
  const { numHeads, numKvHeads } = resolveConfig(config);
  const group = numHeads / numKvHeads;
  const keptGroup = target.numHeads / target.numKvHeads;
  const perLayer = scores.heads.map((heads, layer) => {
    const best = Array.from({ length: numKvHeads }, (_, g) => {
      const members = heads.slice(g * group, (g + 1) * group);
      return largest(members, keptGroup).map((i) => g * group + i);
    });
    const groupScores = best.map((members, g) =>
      members.reduce((sum, i) => sum + heads[i], scores.kvHeads[layer][g])
    );
    const kvHeads = largest(groupScores, target.numKvHeads);
    return { kvHeads, heads: kvHeads.flatMap((g) => best[g]) };
  });
  return {
    layers: largest(scores.layers, target.numLayers),
    hidden: largest(scores.hidden, target.hiddenSize),
    heads: perLayer.map(({ heads }) => heads),
    kvHeads: perLayer.map(({ kvHeads }) => kvHeads),
    channels: scores.channels.map((c) => largest(c, target.intermediateSize)),
  };
}

// Cutting -----------------------------------------------------------------------------------------

/** The rows or columns of a parameter that belong to the kept parts. */
function keptIndices(
  kept: KeptParts,
  axis: Axis,
  layer: number | null,
  headDim: number,
): number[] | null {
  switch (axis) {
    case "vocabulary":
      return null;
    case "hidden":
      return kept.hidden;
    case "channels":
      return kept.channels[layer!];
    default:
      return kept[axis][layer!].flatMap((head) =>
        Array.from({ length: headDim }, (_, i) => head * headDim + i)
      );
  }
}

/**
 * The factor that keeps a norm's output at its scale: sqrt(rho D / D').
 *
 * rmsNorm divides by the root of the mean square. Over the kept coordinates that mean square is
 * rho D / D' times the old one, with rho the share of the energy in them. If the removed coordinates
 * are empty, rho = 1 and the correction is exact; if all are alike, rho = D'/D and it is 1.
 */
function normFactor(energies: Float64Array, hidden: number[]): number {
  const total = energies.reduce((a, b) => a + b, 0);
  const keptShare = hidden.reduce((sum, d) => sum + energies[d], 0) / total;
  if (!Number.isFinite(keptShare)) return 1;
  return Math.sqrt(keptShare * energies.length / hidden.length);
}

/** The model of the kept parts alone, as new variables. */
function cut(
  params: LlamaParams,
  config: LlamaConfig,
  kept: KeptParts,
  energies: Record<string, Float64Array>,
): LlamaParams {
  const { headDim } = resolveConfig(config);
  const named: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(flatten(params as ParamTree))) {
    const { layer, axes } = describe(name);
    const newLayer = layer === null ? -1 : kept.layers.indexOf(layer);
    if (layer !== null && newLayer < 0) continue;
    const newName = name.replace(/layers\.\d+/, `layers.${newLayer}`);
    const energy = energies[name.replace(/\.weight$/, "")];
    tf.tidy(() => {
      let smaller: Tensor = tensor;
      axes.forEach((axis, i) => {
        const indices = keptIndices(kept, axis, layer, headDim);
        if (indices === null) return;
        smaller = tf.gather(smaller, tf.tensor1d(indices, "int32"), i);
      });
      if (energy !== undefined) {
        smaller = tf.mul(smaller, normFactor(energy, kept.hidden));
      }
      // A clone, so that the new model never shares memory with the old.
      named[newName] = tf.variable(tf.add(smaller, 0));
    });
  }
  return nestParams(named);
}

// The whole ---------------------------------------------------------------------------------------

/** The scores of all parts of a model, by the chosen importance. */
export function importanceScores(
  params: LlamaParams,
  config: LlamaConfig,
  { importance = "taylor", batches = [], key }: PruneOptions = {},
): Scores {
  if (
    (importance === "taylor" || importance === "activation") &&
    batches.length === 0
  ) {
    throw new TypeError(
      `Cannot rank by ${importance} as calibration batches are required: batches none`,
    );
  }
  switch (importance) {
    case "taylor":
      return taylorScores(params, config, batches);
    case "activation":
      return calibrate(params, config, batches).scores;
    case "magnitude":
      return magnitudeScores(params, config);
    case "random":
      if (key === undefined) {
        throw new TypeError(
          "Cannot rank at random as a key is required: key undefined",
        );
      }
      return randomScores(config, key);
    default:
      throw new TypeError(
        `Cannot prune as importance must be one of taylor, activation, magnitude, random: ` +
          `importance ${JSON.stringify(importance)}`,
      );
  }
}

/**
 * A smaller model made of the most important parts of a model.
 *
 * Removing coordinates changes the root mean square by which rmsNorm divides. With calibration
 * batches the weight of each norm is multiplied by sqrt(rho D / D') to make up for it (see
 * `normFactor`); without them the norms keep their weights. eps is multiplied by D / D'.
 *
 * @param params The dense model; it is read, never changed
 * @param target Sizes from 1 to the model's own; see `targetShape`
 * @returns New variables that the caller disposes, and the configuration of a plain LLaMA model
 * @throws RangeError for a size that does not fit
 *
 * @example
 * ```ts
 * const small = prune(params, config, targetShape(config), { batches });
 * small.prunedFraction > 0.75; // true
 * forward(small.params, small.config, ids);
 * ```
 */
export function prune(
  params: LlamaParams,
  config: LlamaConfig,
  target: TargetShape,
  options: PruneOptions = {},
): PrunedModel {
  checkTarget(config, target);
  const { batches = [], importance } = options;
  // One pass over the text gives the energies and, as it happens, the activation scores.
  const calibration = batches.length > 0
    ? calibrate(params, config, batches)
    : null;
  const scores = importance === "activation" && calibration !== null
    ? calibration.scores
    : importanceScores(params, config, options);
  const kept = selectParts(scores, config, target);
  const smaller = prunedConfig(config, target);
  return {
    params: cut(params, config, kept, calibration?.energies ?? {}),
    config: smaller,
    kept,
    prunedFraction: prunedFraction(config, smaller),
  };
}
